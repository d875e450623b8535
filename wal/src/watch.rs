//! Whether the names still lead to the files that a living owner writes to.
//!
//! Never here: a repair, a second try. A file can be deleted, replaced by a restore, or taken away
//! with its whole directory, and writes and syncs of it go on succeeding: two processes of an
//! agent wrote for hours into two generations of one database (NousResearch/hermes-agent#90837).
//! So after each sync, before anyone is told, the owner looks: the segment's name, and that of the
//! lock file by which it owns the directory. The latter it looks at before each write, too, since
//! a second owner writes to the same segment. What it finds wrong poisons the log. Names are
//! looked up by path, so a directory that was moved or replaced is found out too. Next room:
//! [`crate::writer`].

use std::io;
use std::sync::Arc;

use crate::format::{APPEND_NAME, LOCK_NAME};
use crate::fs::{Dir, Status};
use crate::mutant;

/// The owner's view of its directory.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    dir: Arc<dyn Dir>,
    lock: Status,
    /// Of a shared log: whoever makes this name anew takes turns with nobody of us.
    append: Option<Status>,
}

impl Watch {
    pub(crate) fn new(dir: Arc<dyn Dir>, lock: Status) -> Watch {
        Watch { dir, lock, append: None }
    }

    /// The same of a shared log.
    pub(crate) fn of_member(dir: Arc<dyn Dir>, lock: Status, append: Status) -> Watch {
        Watch { dir, lock, append: Some(append) }
    }

    /// Whether the directory is still ours: whoever finds another lock file, or none, may be its
    /// owner by now, and what stands under our names may be theirs. Asked before names are made
    /// or removed.
    pub(crate) fn lock_stands(&self) -> io::Result<()> {
        self.stands(LOCK_NAME, &self.lock)?;
        self.append.as_ref().map_or(Ok(()), |append| self.stands(APPEND_NAME, append))
    }

    /// Whether a name still leads to this file.
    pub(crate) fn stands(&self, name: &str, file: &Status) -> io::Result<()> {
        let is_lock = name == LOCK_NAME;
        if mutant::is(if is_lock { "watch:lock" } else { "watch:segment" }) {
            return Ok(());
        }
        let what = match self.dir.status(name) {
            Ok(now) if now.is_same_file(file) => return Ok(()),
            Ok(_) => "was replaced by another file",
            Err(e) if e.kind() == io::ErrorKind::NotFound => "is gone",
            Err(e) => return Err(e),
        };
        Err(io::Error::other(Lost(format!(
            "{} {what} while the log was open: it, or its directory, was deleted, moved or \
             restored from a copy; find out by whom before you open the log again",
            self.dir.path().join(name).display()
        ))))
    }
}

/// What stood under a name is gone, or another file: not merely hard to see just now.
#[derive(Debug)]
struct Lost(String);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lost {}

/// Whether [`Watch::stands`] saw that the file is gone or another one.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Lost>())
}
