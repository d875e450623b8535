//! Timestamps of imported lines.
//!
//! Never here: guesses about a machine's time zone. A local time without an offset is read as UTC
//! and marked so: the same file then gives the same entries everywhere. Numbers are left alone,
//! their unit is not stated. Next room: [`super::trajectory`].

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

/// `None` outside the years 1677 to 2262, which nanoseconds in 64 bits cannot say.
fn wall(timestamp: Timestamp) -> Option<WallTime> {
    i64::try_from(timestamp.as_nanosecond()).ok().map(WallTime)
}
