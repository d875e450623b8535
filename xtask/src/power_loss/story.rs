//! What the writer writes: a function of seed, thread and number, so that whoever finds a record
//! can say what it must hold without having been told.
//!
//! Never here: I/O, state. Next room: [`super::writer`] writes it, [`super::oracle`] expects it.

use annals_observer::{EntryKind, JsonText};
use annals_wal::{Codec, Kind, Record, Stream};

use super::dice::Dice;

/// Threads that append to the log `plain`: the last of them submits ahead.
pub(crate) const PLAIN: [u64; 3] = [0, 1, 2];
pub(crate) const PIPELINE: u64 = 2;
/// The thread that appends plain records to the log `shared`, among registry and observer.
pub(crate) const RAW: u64 = 3;
/// Threads of registry transactions.
pub(crate) const REGISTRY: [u64; 2] = [10, 11];
/// The thread that records calls.
pub(crate) const OBSERVER: u64 = 20;

pub(crate) const PLAIN_DIR: &str = "plain";
pub(crate) const SHARED_DIR: &str = "shared";
pub(crate) const TOTAL: &str = "power/total";
const KIND_BASE: u16 = 0x1000;

/// Small, so that rotation, preparation and trim happen all the time.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;

/// How many records the thread's n-th batch has.
pub(crate) fn batch_len(seed: u64, thread: u64, n: u64) -> u64 {
    let mut dice = Dice::of(&[seed, thread, n]);
    if dice.percent(70) { 1 } else { 2 + dice.below(5) }
}

/// The i-th record of the thread's n-th batch. Its first words say which it is.
pub(crate) fn record(seed: u64, thread: u64, n: u64, i: u64) -> Record<'static> {
    let mut dice = Dice::of(&[seed, thread, n, i]);
    let len = match dice.below(1000) {
        0..800 => dice.below(1200),
        800..970 => dice.below(6000),
        970..997 => 10_000 + dice.below(30_000),
        _ => 70_000, // larger than a segment: it gets one of its own
    };
    let mut payload = format!("{thread} {n} {i} ").into_bytes();
    while (payload.len() as u64) < len {
        payload.extend(dice.next().to_le_bytes());
    }
    Record::new(payload).kind(kind(thread)).stream(Stream(stream(thread))).codec(Codec(7))
}

pub(crate) fn kind(thread: u64) -> Kind {
    let number = KIND_BASE.saturating_add(u16::try_from(thread).unwrap_or(0));
    Kind::new(number).unwrap_or(Kind::UNTYPED)
}

pub(crate) fn stream(thread: u64) -> u32 {
    u32::try_from(thread).unwrap_or(0) + 1
}

/// Which record a payload says it is.
pub(crate) fn named(payload: &[u8]) -> Option<(u64, u64, u64)> {
    let mut words = payload.splitn(4, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
    Some((number()?, number()?, number()?))
}

pub(crate) fn session(thread: u64) -> String {
    format!("power-{thread}")
}

pub(crate) fn call_id(thread: u64, n: u64) -> String {
    format!("call-{thread}-{}", n / 2)
}

/// The n-th entry of an observer's thread: calls of a tool, start and end in turn.
pub(crate) fn entry_kind(n: u64) -> EntryKind {
    if n.is_multiple_of(2) { EntryKind::ToolStart } else { EntryKind::ToolEnd }
}

pub(crate) fn entry_text(seed: u64, thread: u64, n: u64) -> JsonText {
    let mut dice = Dice::of(&[seed, thread, n]);
    let words: Vec<_> = (0..4 + dice.below(60)).map(|_| format!("{:x}", dice.next())).collect();
    JsonText::string(&words.join(" "))
}

pub(crate) fn agent_key(thread: u64) -> String {
    format!("power/agents/{thread}")
}

pub(crate) fn backup_dir(number: u64) -> String {
    format!("backup-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_name_themselves_and_differ() {
        for (thread, n, i) in [(0, 0, 0), (3, 17, 4), (2, u64::MAX, 1)] {
            let one = record(5, thread, n, i);
            assert_eq!(one, record(5, thread, n, i));
            assert_ne!(one, record(6, thread, n, i));
        }
        assert_eq!(named(b"3 17 4 rest of it"), Some((3, 17, 4)));
        assert_eq!(named(b"3 17"), None);
        assert_eq!(named(b"after the cut"), None);
    }
}
