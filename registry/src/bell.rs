//! The bell: who waits for something durable is woken here.
//!
//! Never here: what became durable; whoever is woken looks for himself. Invariant: nobody waits
//! longer than a tick without looking again, so no forgotten ring leaves anybody waiting for ever.
//! Next room: [`crate::watch`].

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

#[derive(Default, Debug)]
pub(crate) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default, Debug)]
struct State {
    rings: u64,
    closed: bool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rings += 1;
        self.rung.notify_all();
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.rung.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    /// How often it has rung: asked for before one looks whether one must wait.
    pub(crate) fn rings(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rings
    }

    /// Returns when it has rung more than `rings` times, is closed, or after `tick`.
    pub(crate) fn wait(&self, rings: u64, tick: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rings == rings && !state.closed {
            drop(self.rung.wait_timeout(state, tick));
        }
    }
}
