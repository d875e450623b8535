//! Refusals put into words: what was expected, what was found, where, and which LSNs it concerns.
//!
//! Never here: the question whether to refuse. Next room: back to [`super::decide()`].

use super::facts::{Facts, SegmentFacts};
use super::plan::{Refusal, RefusalKind, Row};
use crate::error::Location;
use crate::format::FRAMES_START;
use crate::ids::{Lsn, Sequence};
use crate::survey::Damage;

/// A refusal that concerns a whole segment says which LSNs stood in it, as its neighbours tell.
pub(super) fn with_lsns(facts: &Facts, mut refusal: Refusal) -> Refusal {
    let Some(sequence) = refusal.location.segment.filter(|_| refusal.location.lsns.is_none())
    else {
        return refusal;
    };
    let before = facts.segments.iter().rev().filter(|segment| segment.sequence < sequence);
    let own = facts.segments.iter().find(|segment| segment.sequence == sequence);
    let mut after = facts.segments.iter().filter(|segment| segment.sequence > sequence);
    let open = own.and_then(|segment| segment.open.as_ref()).map(|open| open.lsn);
    let low = open.or_else(|| before.filter_map(|segment| last_of(facts, segment)).next());
    let low = low.unwrap_or(0).saturating_add(1);
    let seal = own.and_then(|segment| segment.seal.as_ref()).map(|seal| seal.lsn);
    let next = after.find_map(|segment| segment.open.as_ref()).map(|open| open.lsn);
    let high = seal.or(next).unwrap_or(low).max(low);
    refusal.location.lsns = Lsn::new(low).zip(Lsn::new(high));
    refusal
}

/// The last LSN of a segment: at its seal, or of the active one, which was read, as far as it is kept.
/// Where not even its open record is, nothing in it says which LSNs came before.
fn last_of(facts: &Facts, segment: &SegmentFacts) -> Option<u64> {
    let seal = segment.seal.as_ref().map(|seal| seal.lsn);
    let active = facts.active.as_ref().filter(|active| {
        facts.segments.get(active.index).is_some_and(|own| own.sequence == segment.sequence)
    });
    let survey = active.and_then(|active| active.survey.as_ref());
    let kept = survey.filter(|survey| survey.first_open().is_some());
    seal.or(kept.map(|survey| survey.kept.last_lsn))
}

pub(super) fn corrupt(row: Row, segment: Sequence, offset: u64, why: impl Into<String>) -> Refusal {
    let why = format!("segment {segment} is corrupt: {}", why.into());
    let location = Location { segment: Some(segment), offset: Some(offset), ..Location::default() };
    Refusal { row, kind: RefusalKind::Corrupt, why, location }
}

pub(super) fn refuse_damage(
    row: Row,
    kind: RefusalKind,
    segment: Sequence,
    damage: &Damage,
) -> Refusal {
    let why = match kind {
        RefusalKind::Unsupported => {
            format!("segment {segment} was written by a newer version: {}", damage.why)
        }
        _ => format!("segment {segment} is corrupt: {}", damage.why),
    };
    let location = Location {
        segment: Some(segment),
        offset: Some(damage.from),
        lsns: Lsn::new(damage.lsns.0).zip(Lsn::new(damage.lsns.1)),
    };
    Refusal { row, kind, why, location }
}

pub(super) fn gap(missing: Sequence, found: Sequence) -> Refusal {
    Refusal {
        row: Row::G,
        kind: RefusalKind::Corrupt,
        why: format!("segment {missing} is missing above the head; the next one is {found}"),
        location: Location { segment: Some(missing), ..Location::default() },
    }
}

pub(super) fn lost_segment(sequence: u64, durable_lsn: u64) -> Refusal {
    let lsn = Lsn::new(durable_lsn);
    Refusal {
        row: Row::G,
        kind: RefusalKind::Corrupt,
        why: format!(
            "segment {sequence} is missing or empty, but LSN {durable_lsn} was durable in it or \
             before it"
        ),
        location: Location {
            segment: Sequence::new(sequence),
            offset: Some(FRAMES_START),
            lsns: lsn.zip(lsn),
        },
    }
}

pub(super) fn next_of(sequence: Sequence) -> Sequence {
    sequence.next().unwrap_or(sequence)
}

pub(super) fn before(sequence: Sequence) -> Sequence {
    sequence.previous().unwrap_or(sequence)
}
