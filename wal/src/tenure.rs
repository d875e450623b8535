//! A tenure: the right of a room to make and remove files of its own beside the segments.
//!
//! Never here: those files. Whoever writes in the directory must own it to the end: a close that let
//! the lock go under a registry's snapshot let its last step unlink the next owner's files. So a
//! tenure is one of those who may still write, as leader, committer and preparer are: a close waits
//! for it, and where the handles are just dropped, the lock is free when the tenure is. A room with
//! one looks before each step ([`Tenure::check`]), so that nobody waits long.
//! Invariant: no file of a room is made or removed without a tenure. Next room: [`crate::log`].

use std::sync::Arc;

use crate::commit::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::watch::is_lost;

/// A share of the directory's lock, for a room that writes files of its own; see [`Log::tenure`].
///
/// Neither taken, checked nor dropped inside a closure of [`Log::ordered`], which holds the lock that
/// it takes; and whoever closes the log on the thread that holds one waits for ever.
#[derive(Debug)]
#[must_use = "the directory may go to another owner once this is dropped"]
pub struct Tenure {
    core: Arc<Core>,
}

impl Log {
    /// Takes a share of the directory's lock: while it lives, [`Log::close`] waits, and a log whose
    /// handles are dropped stays locked. Nothing is written.
    ///
    /// # Errors
    /// `Closed` or `Poisoned`; `Locked` in a child that inherited the handle by fork; `Io` if the
    /// directory's lock file is gone or another one, which poisons the log, or if it cannot be looked
    /// at, which does not.
    ///
    /// ```
    /// use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path().join("log"))?;
    /// let tenure = log.tenure()?;
    /// tenure.check()?; // before each file that is made or removed
    /// drop(tenure);
    /// log.close()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn tenure(&self) -> Result<Tenure> {
        let core = self.core_arc();
        // Before the lock, which in a forked child nobody may ever leave.
        core.home.check()?;
        {
            let mut queue = core.queue();
            queue.check_mode()?;
            queue.tenures += 1;
        }
        let tenure = Tenure { core: core.clone() };
        tenure.stands()?;
        Ok(tenure)
    }
}

impl Tenure {
    /// Whether work in the directory is to go on: the log is open, and the directory is its own.
    ///
    /// # Errors
    /// `Closed` once somebody closes the log, who now waits for this tenure; else as
    /// [`Log::tenure`].
    pub fn check(&self) -> Result<()> {
        self.core.home.check()?;
        self.core.queue().check_mode()?;
        self.stands()
    }

    /// Whether the directory is still the log's own, whatever became of the log: what must hold
    /// before something is removed on the way out.
    ///
    /// # Errors
    /// As [`Log::tenure`], without `Closed` and `Poisoned`.
    pub fn stands(&self) -> Result<()> {
        self.core.home.check()?;
        self.core.watch.lock_stands().map_err(|e| {
            let lost = is_lost(&e);
            let error = Error::io("looking at the log's directory", e);
            // What cannot be looked at just now may stand all the same.
            if lost {
                self.core.poison(error.clone().with_kind(ErrorKind::Poisoned));
            }
            error
        })
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if !self.core.home.is_here() {
            return; // a child made by fork: its parent's threads may have held the lock
        }
        self.core.queue().tenures -= 1;
        self.core.room.notify_all();
    }
}
