//! Figures since the registry was opened: [`Metrics`], a plain struct, and the meter behind it.
//!
//! Never here: decisions; nobody reads a figure to act by it. The same events go out through
//! `tracing` where they happen, for those who listen there.
//! Invariant: metering never blocks a committing thread for longer than one addition. Next room:
//! [`crate::registry`].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Figures of one registry since it was opened. Times are in nanoseconds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// Transactions committed and durable.
    pub transactions: u64,
    /// Calls that ended because a precondition did not hold.
    pub conflicts: u64,
    /// Attempts that were overtaken and ran again.
    pub retries: u64,
    /// Transactions that were overtaken each time and gave up.
    pub gave_up: u64,
    /// Transactions that their closure aborted.
    pub aborted: u64,
    /// Commits whose outcome is unknown.
    pub unknown: u64,
    /// Snapshots and records that were found damaged.
    pub corrupt: u64,
    /// Snapshots written and read back.
    pub snapshots: u64,
    /// Snapshots that failed; the one before stays.
    pub snapshots_failed: u64,
    /// Leases that sweeps expired.
    pub leases_expired: u64,
    /// From the call of a commit until it is durable.
    pub commit_ns: Percentiles,
    /// Of that, the wait for the gate and for the log's order.
    pub lock_wait_ns: Percentiles,
    /// From the begin of a snapshot until its file is durable, read back, and the hold moved.
    pub snapshot_ns: Percentiles,
}

/// What a histogram says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Percentiles {
    /// How many values.
    pub count: u64,
    /// Half of them are at most this.
    pub p50: u64,
    /// 95 of 100 are at most this.
    pub p95: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// All of them are at most this.
    pub max: u64,
}

/// Times, in a histogram with two significant digits. `None` only if it could not be made.
pub(crate) struct Times(Mutex<Option<Histogram<u64>>>);

impl Default for Times {
    fn default() -> Times {
        const LONGEST_NS: u64 = 3_600_000_000_000;
        Times(Mutex::new(Histogram::new_with_bounds(1, LONGEST_NS, 2).ok()))
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

impl Times {
    pub(crate) fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(histogram) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            histogram.saturating_record(ns);
        }
    }

    fn read(&self) -> Percentiles {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(histogram) = &*histogram else { return Percentiles::default() };
        let at = |quantile| histogram.value_at_quantile(quantile);
        Percentiles {
            count: histogram.len(),
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: histogram.max(),
        }
    }
}

/// Counts as things happen.
#[derive(Default, Debug)]
pub(crate) struct Meter {
    transactions: AtomicU64,
    conflicts: AtomicU64,
    retries: AtomicU64,
    gave_up: AtomicU64,
    aborted: AtomicU64,
    unknown: AtomicU64,
    corrupt: AtomicU64,
    snapshots: AtomicU64,
    snapshots_failed: AtomicU64,
    leases_expired: AtomicU64,
    pub(crate) commit: Times,
    pub(crate) lock_wait: Times,
    pub(crate) snapshot: Times,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Meter {
    pub(crate) fn transaction(&self) {
        add(&self.transactions, 1);
    }

    pub(crate) fn conflict(&self) {
        add(&self.conflicts, 1);
    }

    /// A transaction ended after this many attempts before the last.
    pub(crate) fn attempts(&self, before: u32) {
        if before > 0 {
            add(&self.retries, u64::from(before));
            tracing::debug!(overtaken = before, "a registry transaction was overtaken");
        }
    }

    pub(crate) fn gave_up(&self) {
        add(&self.gave_up, 1);
    }

    pub(crate) fn aborted(&self) {
        add(&self.aborted, 1);
    }

    pub(crate) fn unknown(&self) {
        add(&self.unknown, 1);
        tracing::error!("the outcome of a registry transaction is unknown");
    }

    pub(crate) fn corrupt(&self) {
        add(&self.corrupt, 1);
    }

    pub(crate) fn snapshot_made(&self, took: Duration) {
        add(&self.snapshots, 1);
        self.snapshot.add(took);
    }

    pub(crate) fn snapshot_failed(&self) {
        add(&self.snapshots_failed, 1);
    }

    pub(crate) fn lease_expired(&self) {
        add(&self.leases_expired, 1);
    }

    pub(crate) fn read(&self) -> Metrics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            transactions: of(&self.transactions),
            conflicts: of(&self.conflicts),
            retries: of(&self.retries),
            gave_up: of(&self.gave_up),
            aborted: of(&self.aborted),
            unknown: of(&self.unknown),
            corrupt: of(&self.corrupt),
            snapshots: of(&self.snapshots),
            snapshots_failed: of(&self.snapshots_failed),
            leases_expired: of(&self.leases_expired),
            commit_ns: self.commit.read(),
            lock_wait_ns: self.lock_wait.read(),
            snapshot_ns: self.snapshot.read(),
        }
    }
}
