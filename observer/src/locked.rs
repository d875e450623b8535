//! The observer's short lock as a guard that wakes tasks only after it is given back.
//!
//! Never here: a waker called, cloned or dropped under the lock: a waker is a runtime's code and may
//! come back into the observer. Invariant: what is in [`State::to_wake`] when the guard goes is
//! woken, by the thread that put it there; a waker that panics keeps none asleep that stands behind it,
//! and unwinds nobody. Next room: [`crate::queue`].

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::MutexGuard;
use std::task::Waker;

use crate::queue::State;

/// The state, locked. Fields are dropped in this order: the lock first, then the wakers.
#[derive(Debug)]
pub(crate) struct Locked<'d> {
    state: MutexGuard<'d, State>,
    after: After,
}

/// What is to be done without the lock.
#[derive(Debug, Default)]
struct After {
    wake: Vec<Waker>,
    /// Replaced by newer ones; only to be dropped.
    stale: Vec<Waker>,
}

impl<'d> Locked<'d> {
    pub(crate) fn of(state: MutexGuard<'d, State>) -> Locked<'d> {
        Locked { state, after: After::default() }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.after.wake = std::mem::take(&mut self.state.to_wake);
        self.after.stale = std::mem::take(&mut self.state.stale);
    }
}

impl Drop for After {
    fn drop(&mut self) {
        // Its panic was told by the hook. Here it would unwind a thread that has entries in hand: they would
        // be lost, and whoever flushes would wait for them.
        for waker in self.wake.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        for waker in self.stale.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
        }
    }
}
