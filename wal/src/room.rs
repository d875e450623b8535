//! Room: who waits for a place in the queue, threads by the condition variable and futures by their
//! wakers, and the one attempt that never waits.
//!
//! Never here: I/O, also not a preparation: the preparer is asked for one. Invariants: a waker is
//! left under the queue lock, in the same visit in which no place was found, so whoever makes room
//! later finds it; all of them are called, outside the queue's lock and every lock that an append
//! takes, whenever room may be had, a preparation ends, the log closes or is poisoned (a trim that
//! fails poisons with its list of segments locked). Locks: queue. Next room: [`crate::spare`].

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use crate::commit::{Core, Leads};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::mutant;
use crate::pending::Pending;
use crate::queue::{NoPlace, Queue};
use crate::record::{Batch, EncodedBatch};
use crate::sync::{MutexGuard, Ordering, PoisonError};

/// The wakers of futures that wait for room.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    last: u64,
    waiting: BTreeMap<u64, Waker>,
}

/// Where a future's waker stands. Never used twice: one that was called is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seat(u64);

/// Wakers taken out of the queue, to be called when its lock is left.
#[must_use = "futures wait for ever if nobody calls them"]
pub(crate) struct Called(BTreeMap<u64, Waker>);

impl Wakers {
    /// Leaves a waker in place of the one left before, which the caller drops when the queue's lock
    /// is left: its drop may run anything, the drop of another such future too.
    #[must_use = "it is dropped outside the lock"]
    pub(crate) fn leave(&mut self, seat: &mut Option<Seat>, waker: &Waker) -> Option<Waker> {
        let before = self.give_up(seat.take());
        self.last += 1;
        self.waiting.insert(self.last, waker.clone());
        *seat = Some(Seat(self.last));
        before
    }

    /// Whoever left it waits no more.
    pub(crate) fn give_up(&mut self, seat: Option<Seat>) -> Option<Waker> {
        self.waiting.remove(&seat?.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// All of them; nobody is left behind.
    pub(crate) fn take(&mut self) -> Called {
        Called(std::mem::take(&mut self.waiting))
    }
}

impl Called {
    /// Outside every lock: a waker may run anything. One that panics keeps no other from its call.
    pub(crate) fn wake(self) {
        for waker in self.0.into_values() {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

impl Core {
    /// Whether a batch may come in: one always may if the queue is empty.
    pub(crate) fn has_room(&self, queue: &Queue) -> bool {
        queue.queued_bytes == 0
            || queue.queued_bytes < self.options.queue_bytes_max
            || mutant::is("room:always")
    }

    /// Waits on this thread for room in the queue or for the end of a preparation.
    pub(crate) fn wait_room<'a>(&self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.waiting_for_room += 1;
        let mut queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.waiting_for_room -= 1;
        queue
    }

    /// Has everybody who waits look again.
    pub(crate) fn tell_of_room(&self) {
        let futures = self.queue().room_wakers.take();
        self.room.notify_all();
        futures.wake();
    }

    /// Admits the batch if that takes no wait and no I/O; `None` says that it would. Then the batch
    /// is whole and nothing has changed, but a segment that it lacks has been asked for.
    pub(crate) fn attempt(
        self: &Arc<Self>,
        queue: &mut Queue,
        batch: &mut EncodedBatch,
        asked: &mut Option<u64>,
    ) -> Result<Option<Pending>> {
        queue.check_mode()?;
        if self.member.is_some() {
            return Err(crate::share::not_when_shared(
                "an append that never waits (LSNs are given in a turn, which has to be waited for: use \
                 append or submit on a thread that may wait)",
            ));
        }
        if !self.has_room(queue) {
            return Ok(None);
        }
        self.see_to_a_leader(queue, Leads::Committer)?;
        match queue.admit(batch) {
            Ok(lsns) => {
                self.arrivals.fetch_add(1, Ordering::Relaxed);
                self.see_to_the_spare(queue);
                self.call_the_committer(queue);
                *asked = None;
                Ok(Some(Pending::of(lsns, queue, &self.home)))
            }
            Err(NoPlace::Failed(error)) => Err(error),
            Err(NoPlace::Prepare { frame_bytes }) => {
                self.ask_for_a_spare(queue, frame_bytes, asked)?;
                Ok(None)
            }
        }
    }
}

impl Log {
    /// Orders a batch now, as [`Log::submit`] does, or says at once that it would have to wait. It
    /// touches no file on this thread. If the next segment is missing, the log's own thread is asked
    /// for it, so coming again helps; if that thread failed, the next call is told why.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use annals_wal::{ErrorKind, Log, Record};
    ///
    /// let log = Log::open(dir.path().join("log"))?;
    /// match log.try_submit(Record::new("now or not at all")) {
    ///     Ok(pending) => drop(pending.wait()?),
    ///     Err(error) if error.kind() == ErrorKind::WouldBlock => println!("busy"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `WouldBlock` if the queue is full or the batch needs a segment that is not ready; and as
    /// [`Log::submit`]. In each case the batch is certainly not in the log.
    pub fn try_submit<'a>(&self, batch: impl Into<Batch<'a>>) -> Result<Pending> {
        let core = self.core_arc();
        core.home.check()?;
        let mut encoded = batch.into().encode(core.options.record_bytes_max)?;
        let mut queue = core.queue();
        let mut tried = queue.tried.take();
        let attempt = core.attempt(&mut queue, &mut encoded, &mut tried);
        queue.tried = tried;
        attempt?.ok_or_else(|| {
            let why = "the queue is full, or the next segment is not ready: come again, or wait by \
                       submit or append_async";
            Error::new(ErrorKind::WouldBlock, why)
        })
    }
}
