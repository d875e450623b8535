//! Knows whether this thread is inside the closure of a transaction.
//!
//! Never here: which registry. A closure of one that waits for the transaction of another waits
//! for it as surely as for its own, so both are refused.
//! Invariant: the mark is gone when the closure is, by return or by panic. It is the thread's and
//! not the process's: a closure that hands work to another thread and waits for it is on its own.
//! Next room: [`crate::tx`].

use std::cell::Cell;

use crate::error::{Error, Result};

thread_local! {
    static IN_CLOSURE: Cell<bool> = const { Cell::new(false) };
}

/// This thread runs a closure for as long as the mark lives.
#[derive(Debug)]
pub(crate) struct Mark(());

impl Mark {
    /// Called before anything is locked or read.
    pub(crate) fn set() -> Result<Mark> {
        refuse_inside()?;
        IN_CLOSURE.set(true);
        Ok(Mark(()))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        IN_CLOSURE.set(false);
    }
}

/// `Nested` if this thread is inside a closure.
pub(crate) fn refuse_inside() -> Result<()> {
    if IN_CLOSURE.get() { Err(Error::nested()) } else { Ok(()) }
}
