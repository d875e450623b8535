//! Which segments there are and up to where they may be read: the same answer for the owner and
//! for processes that own nothing.
//!
//! Never here: frames, writes, locks of the directory. Invariant: the bound never lies above what a
//! sync has covered; it may lie below. Next room: [`crate::cursor`].

use std::sync::Arc;

use crate::commit::{SegmentBound, Shared};
use crate::error::Result;
use crate::format::{KIND_OPEN, KIND_SEAL, KIND_TRIM};
use crate::fs::Dir;
use crate::ids::{Generation, LogId, Lsn, Sequence};
use crate::index::Start;
use crate::inspect::refuse_marked;
use crate::mutant;
use crate::recover::Facts;
use crate::recover::apply::SegmentSpan;
use crate::recover::facts::{Active, is_same_file, read_control};
use crate::survey::Survey;

/// Where the answers come from.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// This process owns the log.
    Own(Arc<Shared>),
    /// Some other process does, or nobody.
    Foreign { dir: Arc<dyn Dir>, unproven: bool },
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) log_id: Option<LogId>,
    pub(crate) generation: Option<Generation>,
    pub(crate) head: Lsn,
    /// Lowest first.
    pub(crate) spans: Vec<SegmentSpan>,
    pub(crate) bound: SegmentBound,
    /// In the bound's segment, everything below is known to be durable: what is damaged there is
    /// no torn end, for whoever wants unproven records either.
    pub(crate) proven_end: u64,
    /// Highest LSN known to be durable, where that is known without reading up to it.
    pub(crate) durable_lsn: Option<u64>,
}

impl View {
    pub(crate) fn dir(&self) -> &Arc<dyn Dir> {
        match self {
            View::Own(shared) => &shared.dir,
            View::Foreign { dir, .. } => dir,
        }
    }

    /// Whether this process owns the log.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, View::Own(_))
    }

    /// Whether whole batches above the bound are wanted too.
    pub(crate) fn unproven(&self) -> bool {
        matches!(self, View::Foreign { unproven: true, .. })
    }

    /// Where to begin in the segment that is written, for a record in it.
    pub(crate) fn start(&self, sequence: Sequence, lsn: u64) -> Option<Start> {
        match self {
            View::Own(shared) => shared.starts.find(sequence, Lsn::new(lsn)?),
            View::Foreign { .. } => None,
        }
    }

    /// The state of the log now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        match self {
            View::Own(shared) => Ok(own_snapshot(shared)),
            View::Foreign { dir, unproven } => {
                let facts = Facts::read(&**dir)?;
                refuse_marked(&**dir, &facts)?;
                Ok(foreign_snapshot(&facts, *unproven))
            }
        }
    }

    /// The same with as little work as possible: while the owner writes into the same segment, its
    /// control block alone says how far.
    pub(crate) fn refreshed(&self, old: &Snapshot) -> Result<Snapshot> {
        let View::Foreign { dir, unproven: false } = self else { return self.snapshot() };
        let control = read_control(&**dir)?;
        let Some(control) = control.filter(|control| control.own_matches) else {
            return self.snapshot();
        };
        let control = control.control;
        let name = crate::format::segment_name(old.bound.sequence);
        let same = control.sequence == old.bound.sequence.get()
            && Some(control.log_id) == old.log_id
            && Some(control.generation) == old.generation
            && dir.identity(&name).is_ok_and(|now| is_same_file(now, control.segment));
        if !same {
            return self.snapshot();
        }
        let mut new = old.clone();
        new.bound.end = new.bound.end.max(control.durable_end);
        new.proven_end = new.bound.end;
        new.durable_lsn = new.durable_lsn.max(Some(control.durable_lsn));
        Ok(new)
    }
}

fn own_snapshot(shared: &Shared) -> Snapshot {
    let frontier = shared.frontier();
    Snapshot {
        log_id: Some(shared.log_id),
        generation: None,
        head: frontier.head,
        spans: frontier.spans.to_vec(),
        bound: frontier.bound,
        proven_end: frontier.bound.end,
        durable_lsn: Some(frontier.durable_lsn),
    }
}

/// The bound is the higher of a valid control block's and the highest witness among the frames
/// of the active segment.
fn foreign_snapshot(facts: &Facts, unproven: bool) -> Snapshot {
    let mut snapshot = Snapshot {
        log_id: facts.segments.iter().rev().find_map(|s| s.good_header()).map(|h| h.log_id),
        generation: None,
        head: Lsn::FIRST,
        spans: Vec::new(),
        bound: SegmentBound { sequence: Sequence::FIRST, end: 0 },
        proven_end: 0,
        durable_lsn: None,
    };
    let Some(active) = &facts.active else { return snapshot };
    let segment = &facts.segments[active.index];
    let witness = active.survey.as_ref().map_or(0, |survey| survey.witness);
    let kept = active.survey.as_ref().map_or(0, |survey| survey.kept.end);
    let witness = if mutant::is("readers:no-bound") { witness.max(kept) } else { witness };
    snapshot.bound = SegmentBound { sequence: segment.sequence, end: witness };
    let control = facts.control.as_ref().filter(|c| c.own_matches).map(|c| c.control);
    if let Some(control) = control.filter(|c| Some(c.log_id) == snapshot.log_id) {
        let same_file = control.sequence == segment.sequence.get()
            && is_same_file(control.segment, segment.identity);
        if same_file {
            snapshot.bound.end = snapshot.bound.end.max(control.durable_end);
        }
        snapshot.generation = Some(control.generation);
    }
    let read = active.survey.as_ref().and_then(|survey| survey.generation_max);
    snapshot.generation = snapshot.generation.max(read);
    snapshot.proven_end = snapshot.bound.end;
    if facts.archive {
        // All of it, to the seal; or to the close record of a log that was made one when it was done.
        let ends = |survey: &&Survey| survey.ends_in_close() && survey.damages.is_empty();
        let closed = active.survey.as_ref().filter(ends);
        let end = closed.map_or(u64::MAX, |survey| survey.kept.end.max(witness));
        (snapshot.bound.end, snapshot.proven_end) = (end, end);
    } else if unproven && !mutant::is("readers:all-is-unproven") {
        snapshot.bound.end = u64::MAX;
    } else if unproven {
        (snapshot.bound.end, snapshot.proven_end) = (u64::MAX, 0);
    }
    snapshot.spans = spans(facts, active.index);
    snapshot.head = head(facts, active, &snapshot);
    if facts.archive {
        // Its segments were sealed when they were handed over, and they may say of a later trim;
        // what that trim removed from the log is just what is kept here.
        let before = snapshot.spans.first().map_or(0, |span| span.before);
        snapshot.head = Lsn::new(before.saturating_add(1)).unwrap_or(Lsn::FIRST);
    }
    snapshot
}

/// The head that a reader may believe: one whose record some sync has covered. That is a record
/// below the bound; or a later one below which segments are gone already, because a trim unlinks
/// nothing before its record is durable.
fn head(facts: &Facts, active: &Active, snapshot: &Snapshot) -> Lsn {
    let kinds = [KIND_OPEN, KIND_TRIM, KIND_SEAL];
    let own = active.survey.iter().flat_map(|survey| survey.own.iter().rev());
    let mut own = own.filter(|own| kinds.contains(&own.kind)).peekable();
    let newest = own.peek().and_then(|own| own.body.head);
    let covered = own.find(|own| own.offset < snapshot.bound.end);
    let before = active.index.checked_sub(1).and_then(|i| facts.segments[i].seal.as_ref());
    let believed = covered.or(before).and_then(|own| own.body.head).unwrap_or(Lsn::FIRST);
    match last_gap(&snapshot.spans) {
        Some(before) if before >= believed.get() => {
            newest.filter(|newest| newest.get() > before).unwrap_or(believed)
        }
        _ => believed,
    }
}

/// The LSN before the first segment whose predecessor is gone, seen from the end. A crash may bring
/// back any of the names that a trim has removed, so the gap need not be at the beginning.
fn last_gap(spans: &[SegmentSpan]) -> Option<u64> {
    let after_gap =
        spans.windows(2).rev().find(|pair| pair[0].sequence.next() != Some(pair[1].sequence));
    let first = spans.first().filter(|span| span.sequence != Sequence::FIRST);
    after_gap.map(|pair| pair[1].before).or(first.map(|span| span.before))
}

/// Segments whose open record is unreadable are placed after the one before them: reading them
/// is where the damage is reported.
fn spans(facts: &Facts, active: usize) -> Vec<SegmentSpan> {
    let mut before = 0;
    facts.segments[..=active]
        .iter()
        .map(|segment| {
            before = segment.open.as_ref().map_or(before, |open| open.lsn);
            let span = SegmentSpan { sequence: segment.sequence, before };
            before = segment.seal.as_ref().map_or(before, |seal| seal.lsn);
            span
        })
        .collect()
}
