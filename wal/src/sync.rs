//! Where threads meet: locks, condition variables, atomics and thread starts, the standard
//! library's.
//!
//! Under `--cfg annals_shuttle` they are shuttle's, whose scheduler chooses at each of them which
//! thread goes on (`tests/shuttle.rs`, `cargo xtask schedules`). No other build knows shuttle.
//! Never here: a lock of our own. Invariant: whatever two threads of one log touch comes from this
//! file, or the model checker does not see it; `Arc` is the standard library's in both builds, and
//! so is the crashable directory's own lock, under which nothing here is called.
//! Next rooms: [`crate::commit`], [`crate::cohort`].

use std::time::Duration;

#[cfg(not(annals_shuttle))]
mod chosen {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
    pub(crate) use std::thread;
}

#[cfg(annals_shuttle)]
mod chosen {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread;
    pub(crate) use std::sync::PoisonError;
}

pub(crate) use chosen::*;

/// A pause in a poll of what cannot be waited for: the directory's lock, another process. No order
/// depends on it.
#[cfg(not(annals_shuttle))]
#[expect(clippy::disallowed_methods, reason = "the callers say why they can only poll")]
pub(crate) fn sleep(time: Duration) {
    thread::sleep(time);
}

/// The same for a scheduler that knows no time: everybody else may go first.
#[cfg(annals_shuttle)]
pub(crate) fn sleep(_time: Duration) {
    thread::yield_now();
}
