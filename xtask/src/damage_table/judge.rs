//! What a damage should have been called, and why it was not.
//!
//! Here, unlike in [`super::harm`], the format is known: a reason is a fact about the bytes before
//! and after, checked, and not an excuse. Invariant: `None` means that no reason holds.

use annals_wal::diagnose::Class;

use super::Case;
use super::harm::Act;

/// The classes that name this damage.
pub(crate) fn expected(act: Act) -> &'static [Class] {
    match act {
        Act::FlipOneBit | Act::FlipSeveralBits | Act::Noise => &[Class::BitRot],
        Act::Zero => &[Class::ZeroedRange],
        Act::Swap => &[Class::ForeignBytes],
        Act::Cut => &[Class::LostTail, Class::TornTail],
        Act::Delete => &[Class::Gap],
        Act::Duplicate => &[Class::Overlap],
        Act::Rename => &[Class::Overlap, Class::Gap],
    }
}

/// Offset and bytes that a file had and has, where they differ.
struct Change<'a> {
    name: &'a str,
    old: &'a [u8],
    new: Option<&'a [u8]>,
}

impl Change<'_> {
    /// First and one past the last byte that is not what it was.
    fn range(&self) -> (usize, usize) {
        let new = self.new.unwrap_or_default();
        let (old, len) = (self.old, self.old.len().max(new.len()));
        let differs = |at: &usize| old.get(*at) != new.get(*at);
        let from = (0..len).find(differs).unwrap_or(len);
        let to = (from..len).rev().find(differs).map_or(from, |at| at + 1);
        (from, to)
    }
}

fn changes(case: &Case) -> Vec<Change<'_>> {
    let known = case.before.iter().map(|(name, old)| {
        let new = case.after.get(name).map(Vec::as_slice);
        Change { name, old, new }
    });
    let added = case.after.iter().filter(|(name, _)| !case.before.contains_key(*name));
    let added = added.map(|(name, new)| Change { name, old: &[], new: Some(new) });
    let changed = |change: &Change<'_>| change.new != Some(change.old);
    known.chain(added).filter(changed).collect()
}

fn is_segment(name: &str) -> bool {
    name.len() == 24
        && name.ends_with(".wal")
        && name[..20].bytes().all(|b| b.is_ascii_digit())
        && name[..20].bytes().any(|b| b != b'0')
}

fn used(bytes: &[u8]) -> bool {
    bytes.get(128..).is_some_and(|frames| frames.iter().any(|byte| *byte != 0))
}

/// Why the class is not one of the expected ones.
pub(crate) fn reason(case: &Case, called: Option<Class>) -> Option<&'static str> {
    let changes = changes(case);
    if changes.is_empty() {
        return Some("nothing changed: the bytes were what they became");
    }
    let names: Vec<&str> = changes.iter().map(|change| change.name).collect();
    if names.iter().all(|name| !is_segment(name)) {
        return Some("no segment was touched: `LOCK`, `CONTROL` or a name outside the format");
    }
    let segments: Vec<&Change<'_>> =
        changes.iter().filter(|change| is_segment(change.name)).collect();
    if segments.iter().all(|change| !used(change.old) && change.new.is_none_or(|new| !used(new))) {
        return Some("a spare: nothing was ever written to it, the next opening makes it anew");
    }
    let zeros_cut = |change: &&Change<'_>| {
        let new = change.new.unwrap_or_default();
        change.old.starts_with(new) && change.old[new.len()..].iter().all(|byte| *byte == 0)
    };
    if case.act == Act::Cut && segments.iter().all(zeros_cut) {
        return Some("only zeros after the last frame were cut: no record was in them");
    }
    let last_used = case.before.iter().rev().find(|(name, b)| is_segment(name) && used(b));
    let at_the_end = segments
        .iter()
        .all(|change| last_used.is_some_and(|(last, _)| change.name >= last.as_str()));
    let in_free = segments.iter().all(|change| {
        let (from, to) = change.range();
        change.old.get(from..to).is_some_and(|old| old.iter().all(|byte| *byte == 0))
    });
    match called {
        Some(Class::TornTail) if in_free && at_the_end => Some(
            "in the free part of the active segment: bytes above the durable end look like an \
             interrupted write, and cost nothing",
        ),
        Some(Class::TornTail) if !case.in_place && at_the_end => Some(
            "residue: in a copy nothing proves that the last group had been promised, so its \
             damage is a torn tail",
        ),
        None if names.contains(&"CONTROL") && at_the_end => Some(
            "residue: the control block and the last segment went together, and nothing else tells",
        ),
        None if !case.in_place && at_the_end => {
            Some("residue: in a copy nothing tells of a last segment that is gone")
        }
        Some(_) if matches!(case.act, Act::Duplicate | Act::Rename) => {
            Some("the file took the place of another, which is missing now")
        }
        Some(Class::ZeroedRange | Class::BitRot) if case.act == Act::Swap => {
            Some(swapped(&segments))
        }
        Some(Class::BitRot) if case.act == Act::Zero => short_zeros(&segments),
        _ => None,
    }
}

fn swapped(segments: &[&Change<'_>]) -> &'static str {
    let zeros = |change: &&Change<'_>| {
        let (from, to) = change.range();
        change
            .new
            .and_then(|new| new.get(from..to))
            .is_some_and(|b| b.iter().filter(|byte| **byte == 0).count() * 2 > b.len())
    };
    if segments.iter().any(zeros) {
        "zeros were swapped in, so zeroed is what the bytes are"
    } else {
        "no whole frame header stood in the swapped bytes: a piece of a payload tells no place"
    }
}

fn short_zeros(segments: &[&Change<'_>]) -> Option<&'static str> {
    let short = segments.iter().all(|change| {
        let (from, to) = change.range();
        to - from < 64
    });
    short.then_some("fewer than 64 bytes changed: too few zeros to tell from any others")
}
