//! Which LSNs a log had, as far as anything but a readable record tells: own records, frames whose
//! payload is gone, the control block, snapshots.
//!
//! Never here: a guess. An LSN counts if it was promised (a witness covers it, a trusted control block
//! or a snapshot names it) or if an own record that is whole stands behind it; the torn end of a log
//! that was cut off in a write is no loss. Invariant: what is told here and cannot be read becomes a
//! placeholder or is named in the report, so that no LSN is given a second time. Next room:
//! [`super::harvest`].

use super::harvest::Run;
use crate::ids::{LogId, Lsn};
use crate::recover::{Facts, trusted_control};
use crate::scan::{Step, Trouble};

/// What the frames of one file tell of LSNs that need not be in a run.
#[derive(Debug, Default)]
pub(super) struct Told {
    last_lsn: u64,
    /// Every byte below was durable.
    witness: u64,
    /// Frames whose header alone is sound: how far the file must have been durable for the LSN to have
    /// been promised, and the LSN.
    hurt: Vec<(u64, u64)>,
}

impl Told {
    pub(super) fn step(&mut self, step: &Step) {
        let Step::Frame(frame) = step else { return };
        let lsn = frame.header.lsn;
        match &frame.trouble {
            None if frame.header.is_own() => self.last_lsn = self.last_lsn.max(lsn),
            None => {}
            // An own record bears the LSN of the record before it.
            Some(Trouble::Tearable(_)) if frame.header.is_own() => {
                self.hurt.push((frame.offset, lsn));
            }
            Some(Trouble::Tearable(_)) => self.hurt.push((frame.end(), lsn)),
            Some(_) => return,
        }
        self.witness = self.witness.max(frame.witness().unwrap_or(0));
    }

    /// The highest LSN that stood in the file.
    pub(super) fn last_lsn(&self) -> u64 {
        let promised = self.hurt.iter().filter(|(end, _)| *end <= self.witness);
        promised.map(|(_, lsn)| *lsn).fold(self.last_lsn, u64::max)
    }
}

/// The highest LSN that something outside the segments says was durable.
pub(super) fn outside(facts: &Facts, log_id: LogId) -> u64 {
    let control = trusted_control(facts).map(|control| control.control);
    let control = control.filter(|control| control.log_id == log_id);
    let ours = facts.snapshots.iter().filter(|snapshot| snapshot.log_id == log_id);
    let snapshots = ours.map(|snapshot| snapshot.lsn.get());
    snapshots.chain(control.map(|control| control.durable_lsn)).max().unwrap_or(0)
}

/// First and last, if there is any.
pub(super) fn range(first: u64, last: u64) -> Option<(Lsn, Lsn)> {
    Lsn::new(first).zip(Lsn::new(last)).filter(|(first, last)| first <= last)
}

/// The LSNs from the head on that stand in none of the runs, and the one after the last run.
pub(super) fn between(runs: &[Run], head: Lsn) -> (Vec<(Lsn, Lsn)>, u64) {
    let mut next = head.get();
    let mut lost = Vec::new();
    for run in runs.iter().filter(|run| run.last >= head.get()) {
        if run.last < next {
            continue;
        }
        lost.extend(range(next, run.first.saturating_sub(1)));
        next = run.last.saturating_add(1);
    }
    (lost, next)
}

/// What the log had from its head on, and of an archive from its first segment on, below the first LSN
/// of the copy.
pub(super) fn before(facts: &Facts, head: Option<Lsn>, first: Lsn) -> Option<(Lsn, Lsn)> {
    let lowest = facts.segments.iter().filter_map(|segment| segment.open.as_ref());
    let lowest = lowest.map(|open| open.lsn.saturating_add(1)).min().filter(|_| facts.archive);
    range(head.map(Lsn::get).or(lowest)?, first.get() - 1)
}

/// What is lost between the runs, and before the first of them and behind the last: there the open
/// records of the first segment and of the last tell which LSNs stood in front of them.
pub(super) fn unreadable(
    facts: &Facts,
    head: Lsn,
    (first, next): (u64, u64),
    lost: &[(Lsn, Lsn)],
) -> Vec<(Lsn, Lsn)> {
    let opens = || facts.segments.iter().filter_map(|segment| segment.open.as_ref());
    let begin = opens().map(|open| open.lsn.saturating_add(1)).min().unwrap_or(first);
    let before = range(begin.max(head.get()), first.saturating_sub(1));
    let end = opens().map(|open| open.lsn).max().unwrap_or(0);
    let behind = range(next.max(head.get()), end);
    before.into_iter().chain(behind).chain(lost.iter().copied()).collect()
}
