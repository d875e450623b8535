//! Which LSNs a log had, as far as anything but a readable record tells: own records, frames whose
//! payload is gone, the control block, snapshots.
//!
//! Never here: a guess. An LSN counts if it was promised (a witness covers it, a trusted control block
//! or a snapshot names it) or if an own record that is whole stands behind it; the torn end of a log
//! that was cut off in a write is no loss. What a file outside the segments says never makes a log
//! that can be salvaged one that cannot: beyond the limit of placeholders it is told and not followed. Invariant: what is told here and cannot be read becomes a
//! placeholder or is named in the report, so that no LSN is given a second time. Next room:
//! [`super::harvest`].

use super::SalvageOptions;
use super::harvest::Run;
use crate::error::{Error, Result};
use crate::format::{self, Name};
use crate::fs::Dir;
use crate::ids::{LogId, Lsn, Sequence};
use crate::recover::facts::{SegmentFacts, list, read_snapshot};
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

/// A file and the LSN that was durable by its word.
pub(super) type Claim = (String, Lsn);
/// A file that is not used, and why.
pub(super) type LeftOut = (String, String);

/// The log's snapshots, and those that are none: of their bodies the registry alone knows, so a name and
/// a header that disagree are all there is to tell.
pub(super) fn snapshots(dir: &dyn Dir, log_id: LogId) -> Result<(Vec<Claim>, Vec<LeftOut>)> {
    let (mut sound, mut left_out) = (Vec::new(), Vec::new());
    for entry in list(dir)?.into_iter().filter(|entry| entry.regular) {
        let Some(Name::Snapshot(named)) = format::parse_name(&entry.name) else { continue };
        match read_snapshot(dir, &entry.name)?.filter(|header| header.log_id == log_id) {
            Some(header) if header.lsn.get() == named => sound.push((entry.name, header.lsn)),
            Some(header) => {
                let why = format!("its header says LSN {}, and its name another", header.lsn);
                left_out.push((entry.name, why));
            }
            None => {}
        }
    }
    Ok((sound, left_out))
}

/// What files outside the segments say was durable.
pub(super) fn outside(facts: &Facts, log_id: LogId, snapshots: &[Claim]) -> Vec<Claim> {
    let control = trusted_control(facts).map(|control| control.control);
    let control = control.filter(|control| control.log_id == log_id);
    let control = control.and_then(|control| Lsn::new(control.durable_lsn));
    let control = control.map(|lsn| (format::CONTROL_NAME.to_owned(), lsn));
    snapshots.iter().cloned().chain(control).collect()
}

/// Where the new log begins, what is lost in it and where it ends.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) head: Lsn,
    /// Between the runs.
    pub(super) lost: Vec<(Lsn, Lsn)>,
    /// The LSN after the last run.
    pub(super) end: u64,
    /// The LSN after the last one known.
    pub(super) next: u64,
}

impl Extent {
    /// Of these runs, sorted, in a log whose head is `begin` and whose last LSN is `last`.
    pub(super) fn of(runs: &[Run], begin: Lsn, last: u64) -> Extent {
        let head = match runs.iter().find(|run| run.last >= begin.get()) {
            Some(run) => begin.max(Lsn::new(run.first).unwrap_or(Lsn::FIRST)),
            // Nothing is left of what it kept: behind it, so that no LSN is given a second time.
            None => Lsn::new(last.saturating_add(1)).unwrap_or(Lsn::FIRST),
        };
        let (lost, end) = between(runs, head);
        Extent { head, lost, end, next: end.max(last.saturating_add(1)) }
    }

    /// Between the runs and behind the last.
    pub(super) fn all_lost(&self) -> Vec<(Lsn, Lsn)> {
        self.lost.iter().copied().chain(range(self.end, self.next - 1)).collect()
    }
}

/// How many LSNs these are.
pub(super) fn count(lost: &[(Lsn, Lsn)]) -> u64 {
    let sizes = lost.iter().map(|(a, b)| (b.get() - a.get()).saturating_add(1));
    sizes.fold(0, u64::saturating_add)
}

/// First and last, if there is any.
pub(super) fn range(first: u64, last: u64) -> Option<(Lsn, Lsn)> {
    Lsn::new(first).zip(Lsn::new(last)).filter(|(first, last)| first <= last)
}

/// The LSNs from the head on that stand in none of the runs, and the one after the last run.
fn between(runs: &[Run], head: Lsn) -> (Vec<(Lsn, Lsn)>, u64) {
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

/// The first LSN that the log had, if anything tells: its head, or else where its lowest segment begins,
/// of which the number is enough if it is 1. That a later one is whole says nothing of those before it.
pub(super) fn begin(facts: &Facts, log_id: LogId, head: Option<Lsn>) -> Option<Lsn> {
    let number = |segment: &SegmentFacts| {
        segment.good_header().map_or(segment.sequence, |header| header.sequence)
    };
    let is_ours = |segment: &&SegmentFacts| {
        segment.good_header().is_none_or(|header| header.log_id == log_id)
    };
    let lowest = || facts.segments.iter().filter(is_ours).min_by_key(|segment| number(segment));
    head.or_else(|| match &lowest()?.open {
        Some(open) => Lsn::new(open.lsn.saturating_add(1)),
        None => lowest().filter(|lowest| number(lowest) == Sequence::FIRST).map(|_| Lsn::FIRST),
    })
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

/// How many placeholders the new log would have.
pub(super) fn check_filled(lost: &[(Lsn, Lsn)], options: SalvageOptions) -> Result<u64> {
    let filled = count(lost);
    if filled <= options.fill_max {
        return Ok(filled);
    }
    Err(Error::invalid(format!(
        "{filled} LSNs are lost between the records that can be read and behind them, and at most {} \
         are filled: raise the limit (--fill-max) if that many can have been there",
        options.fill_max
    )))
}
