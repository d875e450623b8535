//! One group's waiters: told once, all together, and nobody else with them.
//!
//! Never here: the queue. Lock: the cohort's own, guards the error and the wakers, taken last and
//! never while another of ours is waited for; a thread that waits takes it only to fetch an error.
//! Two ends: the write (for those who ask no more than the page cache) and the sync. Invariants: a
//! result is published exactly once and stays; whoever looks later finds it; whoever waits for the
//! write is told by the end of the sync at the latest, also when there was no write.
//! Next room: [`crate::latch`].

use std::task::Waker;

use crate::error::Error;
use crate::latch::Latch;
use crate::mutant;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A group with fewer waiters is woken by one thread.
const WOKEN_HERE_MIN: u32 = 24;

const DONE: u32 = 0;
const FAILED: u32 = 1;

/// The waiters of one group.
#[derive(Debug, Default)]
pub(crate) struct Cohort {
    /// How the group ended. Set under the lock, after the error; read without.
    end: Latch,
    /// How its write did, in the same way; never set later than `end`.
    written: Latch,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    error: Option<Error>,
    wakers: Vec<Waker>,
}

/// Where a future's waker stands among the others, so that a thousand futures in one group do not
/// each look through all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WakerPlace(usize);

impl Cohort {
    /// Says how the group ended and wakes everyone. Only the first call counts.
    pub(crate) fn publish(&self, result: Result<(), Error>) {
        self.publish_to(result, 0);
    }

    /// The same, where about so many may wait.
    pub(crate) fn publish_to(&self, result: Result<(), Error>, waiters: u32) {
        let wakers = {
            let mut state = self.lock();
            if self.end.get().is_some() {
                return;
            }
            let end = if result.is_ok() { DONE } else { FAILED };
            state.error = result.err();
            self.end.set(end, (waiters / 2).max(WOKEN_HERE_MIN));
            // No write came before this: it failed, or was never tried.
            if self.written.get().is_none() && !mutant::is("written:a-failure-is-not-told") {
                self.written.set(end, WOKEN_HERE_MIN);
            }
            std::mem::take(&mut state.wakers)
        };
        // Outside the lock: a waker may run anything. One that panics must not keep the others
        // from being woken (tursodatabase/turso#9236).
        for waker in wakers {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Says that the group is in the page cache, and wakes those who asked for no more. Called by
    /// its leader, once, before it publishes.
    pub(crate) fn publish_written(&self) {
        let _state = self.lock();
        if self.written.get().is_none() {
            self.written.set(DONE, WOKEN_HERE_MIN);
        }
    }

    /// Whether the wait for the write is over.
    pub(crate) fn is_written(&self) -> bool {
        self.written.get().is_some()
    }

    /// Waits for the write alone.
    pub(crate) fn wait_written(&self) -> Result<(), Error> {
        let end = self.written.wait();
        self.told(end)
    }

    /// The result, if there is one.
    pub(crate) fn result(&self) -> Option<Result<(), Error>> {
        self.end.get().map(|end| self.told(end))
    }

    /// The result, or else a waker is left that will be called.
    pub(crate) fn poll(
        &self,
        waker: &Waker,
        place: &mut Option<WakerPlace>,
    ) -> Option<Result<(), Error>> {
        if self.end.get().is_none() {
            let mut state = self.lock();
            // Under the lock: what was not ended by now will find the waker.
            if self.end.get().is_none() {
                match place.and_then(|place| state.wakers.get_mut(place.0)) {
                    Some(known) => known.clone_from(waker),
                    None => {
                        *place = Some(WakerPlace(state.wakers.len()));
                        state.wakers.push(waker.clone());
                    }
                }
                return None;
            }
        }
        self.result()
    }

    /// Waits for the result.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        let end = self.end.wait();
        self.told(end)
    }

    fn told(&self, end: u32) -> Result<(), Error> {
        if end == DONE {
            return Ok(());
        }
        let error = self.lock().error.clone();
        Err(error.unwrap_or_else(|| Error::invalid("a group failed without an error").unknown()))
    }

    /// A panic of another waiter leaves the state whole: every change to it is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
