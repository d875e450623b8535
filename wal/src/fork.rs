//! Whether a handle is used by the process that opened it, or by a child that inherited it by
//! fork.
//!
//! Never here: locks. A child has copies of the queue, of locks that some thread held at that
//! moment, and of no thread but its own: it must touch none of them, so this is asked first of
//! all. Two processes that write by copies of one queue would write over each other
//! (mumble-voip/mumble#5031, google/leveldb#623). The number is asked at each admission and not
//! remembered, because nothing tells a library of a fork; the directory may know without a system
//! call (`fs/map.rs`). Not seen: a child by `clone` that shares the memory of its parent and is no thread of it. Next room: [`crate::log`].

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::fs::Dir;
use crate::mutant;

/// The process that opened a log.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    dir: Arc<dyn Dir>,
    pid: u32,
}

impl Home {
    /// This process.
    pub(crate) fn here(dir: Arc<dyn Dir>) -> Home {
        let pid = dir.pid();
        Home { dir, pid }
    }

    /// Whether this process is the one.
    pub(crate) fn is_here(&self) -> bool {
        self.dir.pid() == self.pid || mutant::is("fork:any-process")
    }

    /// # Errors
    /// `Locked` in any other process.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_here() {
            return Ok(());
        }
        let message = format!(
            "{} was opened by process {}, and this process ({}) inherited the handle by fork: \
             write there, or open the log here after it was closed there; to read, open a \
             LogReader",
            self.dir.path().display(),
            self.pid,
            self.dir.pid()
        );
        Err(Error::new(ErrorKind::Locked, message))
    }
}
