//! Turns of the hand-overs on one open log: one works, the others wait.
//!
//! Five hand-overs at once read, hash and sync five times as much beside the writers: on two cores the
//! p99 of eight writers was 2 times that without archives (median); one at a time, and each file hashed
//! once, it is 1.4 times. Few wait for an archive; everybody waits for an append.
//!
//! Never here: exclusion. Nothing is wrong if two work at the same time: each target has its own
//! lock, and the turn only spares the writers. So nobody waits for ever: a turn that others
//! have waited [`PATIENCE`] for is passed over, and a target whose disk hangs stops its own archive alone.
//! Next room: [`crate::archive`].

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::sums::Sums;

/// So long one waits for a turn of somebody else.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose turn it is on one open log.
#[derive(Debug, Default)]
pub(super) struct Turns {
    seats: Mutex<Seats>,
    /// Told whenever another turn is due.
    ended: Condvar,
    sums: Sums,
    /// Segments of the log whose sync has failed. Taken alone, for a moment.
    doubtful: Mutex<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Seats {
    /// The number of the turn that is due or under way.
    due: u64,
    /// Numbers given out.
    given: u64,
}

/// A turn; the next one's when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    number: u64,
}

impl Turns {
    /// Waits for the turns before, in the order in which they came.
    pub(super) fn take(&self) -> Turn<'_> {
        self.take_within(PATIENCE)
    }

    /// What targets of this log have hashed.
    pub(super) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// From now on nobody takes this segment of the log for durable.
    pub(super) fn doubt(&self, name: &str) {
        let mut doubtful = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
        doubtful.insert(name.to_owned());
    }

    pub(super) fn is_doubtful(&self, name: &str) -> bool {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn take_within(&self, patience: Duration) -> Turn<'_> {
        let mut seats = self.seats();
        let number = seats.given;
        seats.given += 1;
        while seats.due < number {
            let seen = seats.due;
            let (woken, waited) = self
                .ended
                .wait_timeout_while(seats, patience, |seats| seats.due == seen)
                .unwrap_or_else(PoisonError::into_inner);
            seats = woken;
            if waited.timed_out() {
                seats.due += 1;
                self.ended.notify_all();
            }
        }
        Turn { turns: self, number }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut seats = self.turns.seats();
        // Somebody who lost patience may have gone on past it.
        if seats.due == self.number {
            seats.due += 1;
            self.turns.ended.notify_all();
        }
    }
}
