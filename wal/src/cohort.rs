//! One group's waiters: told once, all together, and nobody else with them.
//!
//! Never here: the queue. Lock: the cohort's own, guards result and wakers, taken last and never
//! while another of ours is waited for. Invariant: a result is published exactly once and stays;
//! whoever looks later finds it (no lost wake-up: fwdai/fletch#194).

use std::task::Waker;

use crate::error::Error;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The waiters of one group.
#[derive(Debug, Default)]
pub(crate) struct Cohort {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<(), Error>>,
    wakers: Vec<Waker>,
}

impl Cohort {
    /// Says how the group ended and wakes everyone. Only the first call counts.
    pub(crate) fn publish(&self, result: Result<(), Error>) {
        let wakers = {
            let mut state = self.lock();
            if state.result.is_some() {
                return;
            }
            state.result = Some(result);
            std::mem::take(&mut state.wakers)
        };
        self.done.notify_all();
        // Outside the lock: a waker may run anything. One that panics must not keep the others
        // from being woken (tursodatabase/turso#9236).
        for waker in wakers {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// The result, if there is one.
    pub(crate) fn result(&self) -> Option<Result<(), Error>> {
        self.lock().result.clone()
    }

    /// The result, or else a waker is left that will be called.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Result<(), Error>> {
        let mut state = self.lock();
        if state.result.is_none() && !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        state.result.clone()
    }

    /// Waits for the result.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        let mut state = self.lock();
        loop {
            if let Some(result) = &state.result {
                return result.clone();
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A panic of another waiter leaves the state whole: every change to it is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
