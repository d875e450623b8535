//! Knows whether this thread is inside the closure of a transaction.
//!
//! Never here: which registry. A closure of one that waits for the transaction of another waits
//! for it as surely as for its own, so both are refused.
//! Invariant: the mark is gone when the closure is, by return or by panic. It is the thread's and
//! not the process's: a closure that hands work to another thread and waits for it is on its own.
//! Next room: [`crate::tx`].

use annals_wal::InClosure;

use crate::error::{Error, Result};

/// This thread runs a closure for as long as the mark lives.
#[derive(Debug)]
pub(crate) struct Mark {
    /// The wal keeps it, so that an observer knows it too (`docs/adr/0020`).
    _mark: InClosure,
}

impl Mark {
    /// Called before anything is locked or read.
    pub(crate) fn set() -> Result<Mark> {
        refuse_inside()?;
        Ok(Mark { _mark: InClosure::set() })
    }
}

/// `Nested` if this thread is inside a closure.
pub(crate) fn refuse_inside() -> Result<()> {
    if annals_wal::in_closure() { Err(Error::nested()) } else { Ok(()) }
}
