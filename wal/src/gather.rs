//! The cohort gather: how long a leader waits for those whom the last sync released.
//!
//! Greedy group commit starts the next sync the moment the last one ends, so the writers it just
//! woke always miss it, and each sync carries half of them (49 to 50 of 100 in every sample of
//! cockroachdb/cockroach#18715). Waiting until as many came as were released makes one group of two.
//! It pays while the wait is about as short as a sync, and costs when nobody comes: an open loop. So it
//! is bounded by two syncs' usual time, ends when arrivals stall, and after misses is left out for a
//! while, each time for longer. One writer never waits: its own arrival is the one that is due.
//!
//! Never here: a lock, I/O, an answer that anything but speed depends on. The clock is read for
//! nothing else. Guarded by the queue's lock, [`Wait::until`] apart. Next room: [`crate::commit`].

use std::time::Duration;

use crate::fs::Dir;
use crate::sync::{AtomicU64, Ordering, thread};

/// A wait never takes longer, however long a sync does: who was woken is back by then.
const WAIT_MAX: Duration = Duration::from_millis(1);
/// Arrivals have stalled after this part of a sync without one, within these bounds.
const STALL_PART: u32 = 4;
const STALL_MIN: Duration = Duration::from_micros(15);
const STALL_MAX: Duration = Duration::from_micros(100);
/// After a miss so many groups go without; after each further one twice as many, up to the second.
const SKIPPED_MIN: u32 = 4;
const SKIPPED_MAX: u32 = 1024;

/// What was learned of this log's writers and its disk.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// Arrivals when the last group was taken to be written, and how many of them it took.
    taken_at: u64,
    taken: u64,
    /// Arrivals when it was released.
    released_at: u64,
    /// A write and its sync, smoothed.
    sync: Duration,
    /// Groups to go without a wait, and how many the last miss cost.
    skip: u32,
    skipped: u32,
}

/// A wait that may pay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    /// Arrivals at which all are there.
    target: u64,
    at_most: Duration,
    stall: Duration,
}

impl Gather {
    /// Whether the next leader should wait, so many having arrived by now.
    pub(crate) fn plan(&mut self, arrivals: u64) -> Option<Wait> {
        let target = self.released_at.saturating_add(self.taken);
        if arrivals >= target {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let stall = (self.sync / STALL_PART).clamp(STALL_MIN, STALL_MAX);
        Some(Wait { target, at_most: (self.sync * 2).min(WAIT_MAX), stall })
    }

    /// How a wait ended: whether all came.
    pub(crate) fn learn(&mut self, all_came: bool) {
        if all_came {
            self.skipped = 0;
        } else {
            self.skipped = (self.skipped * 2).clamp(SKIPPED_MIN, SKIPPED_MAX);
            self.skip = self.skipped;
        }
    }

    /// A group is taken to be written, with all who arrived since the last one.
    pub(crate) fn taken(&mut self, arrivals: u64) {
        self.taken = arrivals.saturating_sub(self.taken_at);
        self.taken_at = arrivals;
    }

    /// Its write and sync took so long; its waiters are about to be released.
    pub(crate) fn released(&mut self, arrivals: u64, took: Duration) {
        self.released_at = arrivals;
        self.sync = if self.sync.is_zero() { took } else { (self.sync * 7 + took) / 8 };
    }
}

impl Wait {
    /// Gives the processor to others until all came, or it is not worth while any more. Tells
    /// whether they came.
    pub(crate) fn until(self, arrivals: &AtomicU64, dir: &dyn Dir) -> bool {
        let begin = dir.elapsed();
        let (mut seen, mut since) = (arrivals.load(Ordering::Relaxed), begin);
        loop {
            let now = arrivals.load(Ordering::Relaxed);
            if now >= self.target {
                return true;
            }
            let time = dir.elapsed();
            if now != seen {
                (seen, since) = (now, time);
            }
            let waited = time.saturating_sub(begin);
            if waited >= self.at_most || time.saturating_sub(since) >= self.stall {
                return false;
            }
            thread::yield_now();
        }
    }
}
