//! Timestamps of imported lines.
//!
//! Never here: guesses about a machine's time zone. A local time without an offset is read as UTC
//! and marked so: the same file then gives the same entries everywhere. A number is a time only where
//! its size leaves one unit. Next room: [`super::trajectory`].

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::clock::WallTime;
use crate::entry::TimeOrigin;

/// RFC 3339, or the same without an offset; `None` for anything else.
pub(crate) fn read_time(text: &str) -> Option<(WallTime, TimeOrigin)> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some((wall(timestamp)?, TimeOrigin::Source));
    }
    // A zone by name, `[Europe/Paris]`, is no local time: read as UTC it would be a wrong one.
    let local = if text.contains('[') { None } else { text.parse::<DateTime>().ok() }?;
    let timestamp = TimeZone::UTC.to_timestamp(local).ok()?;
    Some((wall(timestamp)?, TimeOrigin::SourceAssumedUtc))
}

/// Seconds or milliseconds since 1970, by their size: of the years 2001 to 2286 as the one, no year
/// before 2286 is as the other. `None` for any other number.
pub(crate) fn read_number(text: &str) -> Option<(WallTime, TimeOrigin)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let unit: i64 = match whole.len() {
        10 => 1_000_000_000,
        13 => 1_000_000,
        _ => return None,
    };
    // The part of a unit, as far as nanoseconds go: no rounding as through a float.
    let part = fraction.bytes().zip(1..).fold(0, |part, (digit, place)| {
        part + i64::from(digit - b'0') * (unit / 10_i64.checked_pow(place).unwrap_or(i64::MAX))
    });
    let nanos = whole.parse::<i64>().ok()?.checked_mul(unit)?.checked_add(part)?;
    Some((WallTime(nanos), TimeOrigin::Source))
}

/// `None` outside the years 1677 to 2262, which nanoseconds in 64 bits cannot say.
fn wall(timestamp: Timestamp) -> Option<WallTime> {
    i64::try_from(timestamp.as_nanosecond()).ok().map(WallTime)
}
