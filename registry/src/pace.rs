//! The pace of a checkpoint: it works a little, then leaves disk and processors to writers.
//!
//! A snapshot of a million keys written as fast as the disk takes it made the appends beside it wait
//! six times as long (p99 of 8 writers 0.65 ms without, 4 ms with). Few wait for a checkpoint;
//! everybody waits for an append. Where nothing is appended it does not rest.
//!
//! Never here: an order of steps, an answer. The clock is the directory's and is read for nothing
//! else. Invariant: a pause is short, so whoever closes the log is not kept waiting. Next room:
//! [`crate::checkpoint`].

use std::cell::Cell;
use std::time::Duration;

use annals_wal::{Log, Lsn};

/// Work of so long is followed by a pause.
const WORK: Duration = Duration::from_micros(200);
/// A pause is so many times as long as the work before it.
const PAUSES: u32 = 3;
/// And never longer.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Since when a checkpoint works.
pub(crate) struct Pace<'l> {
    log: &'l Log,
    since: Cell<Duration>,
    /// The log's end then.
    end: Cell<Option<Lsn>>,
}

impl<'l> Pace<'l> {
    pub(crate) fn of(log: &'l Log) -> Pace<'l> {
        let since = Cell::new(log.dir().elapsed());
        Pace { log, since, end: Cell::new(log.durable_lsn()) }
    }

    /// Between two pieces of work: the pause that is due.
    #[expect(clippy::disallowed_methods, reason = "a bounded pause that orders nothing")]
    pub(crate) fn breathe(&self) {
        let worked = self.log.dir().elapsed().saturating_sub(self.since.get());
        if worked < WORK {
            return;
        }
        let end = self.log.durable_lsn();
        if self.end.replace(end) != end {
            std::thread::sleep((worked * PAUSES).min(PAUSE_MAX));
        }
        self.since.set(self.log.dir().elapsed());
    }
}
