//! Whether this is the process that started a thread of the registry's.
//!
//! Never here: locks. A child made by fork has copies of handles behind which a thread of its parent
//! works: it must neither wait for that thread nor take a lock that the thread may have held. Asked
//! before anything else of a stream, a sweeping, or a watch of an own registry is touched.
//! Next room: [`crate::watch`].

use std::sync::Arc;

use annals_wal::fs::Dir;

use crate::error::{Error, Result};
use crate::mutant;

/// The process that made something.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    dir: Arc<dyn Dir>,
    pid: u32,
}

impl Process {
    /// This one.
    pub(crate) fn here(dir: Arc<dyn Dir>) -> Process {
        let pid = dir.pid();
        Process { dir, pid }
    }

    /// Whether this is the one.
    pub(crate) fn is_here(&self) -> bool {
        self.dir.pid() == self.pid || mutant::is("fork:threads-are-waited-for")
    }

    /// # Errors
    /// The log's `Locked` in any other process.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_here() {
            return Ok(());
        }
        Err(Error::forked(self.dir.path(), self.pid, self.dir.pid()))
    }
}
