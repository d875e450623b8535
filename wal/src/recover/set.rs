//! The rows about the set of segments: F, G, D' and E. One unbroken log, each sealed segment ending
//! as its successor says.
//!
//! Never here: the active segment's own frames (that is [`super::decide()`]), I/O. Invariant: a check
//! either passes or names the row that refuses.

use super::decide::Judged;
use super::facts::{ControlFacts, Facts, SegmentFacts, is_same_file};
use super::plan::{Refusal, RefusalKind, Row};
use super::refusal::{before, corrupt, gap, lost_segment, next_of};
use crate::error::Location;
use crate::format::{FRAMES_START, HeaderVerdict};
use crate::ids::{Lsn, Sequence};
use crate::mutant;
use crate::survey::OwnRecord;

pub(super) fn check_supported(segment: &SegmentFacts) -> Judged<()> {
    let why = match (&segment.header, &segment.unsupported) {
        (HeaderVerdict::Unsupported(why), _) | (_, Some(why)) => why,
        _ => return Ok(()),
    };
    Err(Refusal {
        row: Row::F,
        kind: RefusalKind::Unsupported,
        why: format!("segment {} was written by a newer version: {why}", segment.sequence),
        location: Location { segment: Some(segment.sequence), ..Location::default() },
    })
}

/// A symbolic link or a directory in a segment's place is neither followed nor removed.
pub(super) fn check_regular(segment: &SegmentFacts) -> Judged<()> {
    if !segment.irregular {
        return Ok(());
    }
    let why = "its name is taken by something that is no regular file";
    Err(corrupt(Row::G, segment.sequence, 0, why))
}

/// Row G: names, headers and sequence numbers must make one unbroken log.
pub(super) fn check_set(
    facts: &Facts,
    kept: &[SegmentFacts],
    beyond: &[SegmentFacts],
) -> Judged<()> {
    let log_id = kept.iter().rev().find_map(SegmentFacts::good_header).map(|h| h.log_id);
    for segment in kept.iter().chain(beyond) {
        check_regular(segment)?;
        let Some(header) = segment.good_header() else { continue };
        if header.sequence != segment.sequence && !mutant::is("row-g:any-name") {
            let why = format!(
                "its header says segment {}: the file was renamed or copied over another",
                header.sequence
            );
            return Err(corrupt(Row::G, segment.sequence, 0, why));
        }
        if Some(header.log_id) != log_id && !mutant::is("row-g:any-log") {
            let why = format!("it belongs to another log ({})", header.log_id);
            return Err(corrupt(Row::G, segment.sequence, 0, why));
        }
    }
    for pair in kept.windows(2) {
        if is_gap(facts, &pair[0], &pair[1]) && !mutant::is("row-g:gap") {
            return Err(gap(next_of(pair[0].sequence), pair[1].sequence));
        }
    }
    for snapshot in &facts.snapshots {
        let foreign = log_id.is_some_and(|id| id != snapshot.log_id);
        if foreign && !mutant::is("row-g:any-snapshot") {
            let why = format!("the snapshot at LSN {} belongs to another log", snapshot.lsn);
            return Err(Refusal {
                row: Row::G,
                kind: RefusalKind::Corrupt,
                why,
                location: Location::default(),
            });
        }
    }
    Ok(())
}

/// Whether records are missing between two neighbours of a directory. A segment sealed without
/// a record (an opening after a crash, a batch larger than a fresh segment) is never handed over: in an
/// archive numbers may be left out if the LSNs go on. An end that cannot be read is row E's to refuse.
pub(crate) fn is_gap(facts: &Facts, low: &SegmentFacts, next: &SegmentFacts) -> bool {
    if low.sequence.next() == Some(next.sequence) {
        return false;
    }
    let ends = low.seal.as_ref().zip(next.open.as_ref());
    !facts.archive || ends.is_some_and(|(seal, open)| seal.lsn != open.lsn)
}

/// A control block written here vouches for a segment that must then be there with its data.
pub(super) fn check_control_reach(facts: &Facts, active: &SegmentFacts) -> Judged<()> {
    let Some(control) = trusted_control(facts).map(|c| c.control) else { return Ok(()) };
    let foreign = active.good_header().is_some_and(|header| header.log_id != control.log_id);
    let reached = control.sequence <= active.sequence.get();
    if foreign || reached || mutant::is("row-g:lost-segment") {
        return Ok(());
    }
    Err(lost_segment(control.sequence, control.durable_lsn))
}

/// The control block, if this very file was written for this very set of files. A segment that
/// the block names and that is missing altogether does not make the block less true.
pub(crate) fn trusted_control(facts: &Facts) -> Option<&ControlFacts> {
    let control = facts.control.as_ref().filter(|control| control.own_matches)?;
    let named =
        facts.segments.iter().find(|segment| segment.sequence.get() == control.control.sequence);
    match named {
        Some(_) if mutant::is("control:any-segment-file") => Some(control),
        Some(segment) if !is_same_file(segment.identity, control.control.segment) => None,
        _ => Some(control),
    }
}

/// Row D': a kept segment's header. Beyond the active segment a bad header is row D: nothing was
/// ever written there, and a witness that says otherwise was refused by [`check_control_reach`].
pub(super) fn check_header(segment: &SegmentFacts) -> Judged<()> {
    match &segment.header {
        HeaderVerdict::Bad(why) => Err(corrupt(Row::DPrime, segment.sequence, 0, *why)),
        _ if mutant::is("length:file-over-capacity") => Ok(()),
        HeaderVerdict::Good(header) if segment.file_len > header.capacity => {
            // Tearing makes files short; nothing of ours makes one long.
            let why = format!("its file has {} bytes", segment.file_len);
            let why = format!("{why}, more than its capacity of {}", header.capacity);
            Err(corrupt(Row::C, segment.sequence, header.capacity, why))
        }
        _ => Ok(()),
    }
}

/// Row E for every sealed segment: the seal is where and what the next open record says, and the
/// LSNs go on without a step.
pub(super) fn check_sealed(kept: &[SegmentFacts]) -> Judged<()> {
    for pair in kept.windows(2) {
        let (sealed, next) = (&pair[0], &pair[1]);
        let Some(seal) = &sealed.seal else {
            let at = next.open.as_ref().and_then(|open| open.body.previous.as_ref());
            let at = at.filter(|previous| previous.sequence == sealed.sequence);
            let offset = at.map_or(FRAMES_START, |previous| previous.offset);
            let why = "its seal is missing or bad, though the next segment was begun";
            return Err(corrupt(Row::E, sealed.sequence, offset, why));
        };
        check_own_seal(sealed, seal)?;
        let Some(open) = &next.open else { continue };
        // Only an archive has a neighbour that is not the next one ([`is_gap`]); it names another.
        let names_it = sealed.sequence.next() == Some(next.sequence);
        let matches = !names_it
            || open.body.previous.as_ref().is_some_and(|previous| {
                previous.sequence == sealed.sequence
                    && previous.offset == seal.offset
                    && seal.body.seal.as_ref().is_some_and(|body| body.digest == previous.digest)
                    || mutant::is("row-e:any-seal")
            });
        if !matches {
            let why = "its seal is not the one that the next segment's open record names";
            return Err(corrupt(Row::E, sealed.sequence, seal.offset, why));
        }
        if open.lsn != seal.lsn && !mutant::is("row-g:lsns-break") {
            let why = format!(
                "LSNs break between segment {} (ends at {}) and {} (begins after {})",
                sealed.sequence, seal.lsn, next.sequence, open.lsn
            );
            return Err(corrupt(Row::G, next.sequence, FRAMES_START, why));
        }
    }
    // Every kept segment but the active one was begun by an open record; the active one's may be
    // torn, which is row B's to judge.
    for segment in &kept[..kept.len() - 1] {
        if segment.open.is_none() {
            let why = "its open record is bad";
            return Err(corrupt(Row::E, segment.sequence, FRAMES_START, why));
        }
    }
    Ok(())
}

/// A seal must stand in its own segment.
pub(super) fn check_own_seal(segment: &SegmentFacts, seal: &OwnRecord) -> Judged<()> {
    let own = segment
        .good_header()
        .zip(seal.body.seal.as_ref())
        .is_some_and(|(header, body)| body.log_id == header.log_id && body.salt == header.salt);
    if own || mutant::is("row-e:another-segments-seal") {
        return Ok(());
    }
    let why = "its seal was written for another segment";
    Err(corrupt(Row::E, segment.sequence, seal.offset, why))
}

/// Row G: the log must reach down to its head.
pub(super) fn check_start(kept: &[SegmentFacts], head: Lsn) -> Judged<()> {
    let first = &kept[0];
    let base = match &first.open {
        Some(open) => open.lsn.saturating_add(1),
        None if first.sequence == Sequence::FIRST => 1,
        None => return Err(gap(before(first.sequence), first.sequence)),
    };
    let first_is_whole = first.sequence == Sequence::FIRST && base == 1;
    if first_is_whole || base <= head.get() || mutant::is("row-g:start") {
        return Ok(());
    }
    Err(gap(before(first.sequence), first.sequence))
}
