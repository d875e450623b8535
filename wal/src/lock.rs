//! The directory's lock: who owns a log, and what the refused caller learns.
//!
//! Never here: stealing, deleting, guessing that a lock is stale. The operating system frees it
//! when its holder dies. Next room: [`crate::log`].

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{APPEND_NAME, LOCK_NAME};
use crate::fs::{Access, Dir, DirLock, LockMode, read_full};
use crate::mutant;
use crate::sync::sleep;

/// Readers ask whether an owner lives by trying the lock for a moment, and a log just dropped may
/// still be writing what was admitted: so a refusal is final only after about 200 ms.
const WAIT_MAX: Duration = Duration::from_millis(200);
const PAUSE_FIRST: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// Takes the lock or says who has it. Nothing is written into the file: it is to be looked at
/// first.
pub(crate) fn take_lock(dir: &dyn Dir) -> Result<Box<dyn DirLock>> {
    let (mut waited, mut pause) = (Duration::ZERO, PAUSE_FIRST);
    loop {
        let tried = dir.try_lock(LOCK_NAME, LockMode::Exclusive, true);
        let tried = tried.map_err(|e| Error::io(format!("locking {}", path(dir)), e))?;
        if let Some(lock) = tried {
            return Ok(lock);
        }
        if waited >= WAIT_MAX {
            return Err(locked(dir));
        }
        sleep(pause); // flock has no wait with a time limit
        waited += pause;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Takes `LOCK` as the only member of a shared log (`true`) or as one of several, or says who has it.
/// Called while `APPEND` is held.
pub(crate) fn take_membership(dir: &dyn Dir) -> Result<(Box<dyn DirLock>, bool)> {
    let (mut waited, mut pause) = (Duration::ZERO, PAUSE_FIRST);
    loop {
        let failed = |e| Error::io(format!("locking {}", path(dir)), e);
        for mode in [LockMode::Exclusive, LockMode::Shared] {
            let Some(lock) = dir.try_lock(LOCK_NAME, mode, true).map_err(failed)? else { continue };
            if mode == LockMode::Exclusive {
                return Ok((lock, true));
            }
            // Whoever was in the way may have been a reader that asked whether anybody lives: it has
            // `LOCK` alone for a moment. Taken for a member, it would have this opening believe a
            // control block that nobody living vouches for.
            let asks = !mutant::is("share:a-reader-is-a-member");
            if asks && lock.relock(LockMode::Exclusive).map_err(failed)? {
                return Ok((lock, true));
            }
            // Refused, it was let go of.
            if lock.relock(LockMode::Shared).map_err(failed)? {
                return Ok((lock, false));
            }
        }
        if waited >= WAIT_MAX {
            return Err(locked(dir));
        }
        sleep(pause); // as above
        waited += pause;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether some process has the log open for writing.
///
/// # Errors
/// What the system said; an absent lock file is no owner.
pub(crate) fn is_live(dir: &dyn Dir) -> Result<bool> {
    // Members of a shared log hold it together, and where there never was one nobody is disturbed.
    let shared = dir.status(APPEND_NAME).is_ok();
    let mode = if shared { LockMode::Exclusive } else { LockMode::Shared };
    match dir.try_lock(LOCK_NAME, mode, false) {
        Ok(lock) => Ok(lock.is_none()),
        Err(e) if matches!(e.kind(), NotFound | NotADirectory) => Ok(false),
        Err(e) => Err(Error::io(format!("looking at {}", path(dir)), e)),
    }
}

fn locked(dir: &dyn Dir) -> Error {
    let holder = match holder(dir) {
        Some(pid) if pid == dir.pid() => format!("this process itself (pid {pid})"),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    let message = format!(
        "{} is open for writing by {holder}: close it there, or read it with LogReader or \
         `wal inspect`, which need no lock",
        dir.path().display()
    );
    Error::new(ErrorKind::Locked, message)
}

/// The pid that the holder wrote; a hint for a person, nothing is decided by it.
fn holder(dir: &dyn Dir) -> Option<u32> {
    let file = dir.open(LOCK_NAME, Access::Read).ok()?;
    let mut bytes = [0; 20];
    let read = read_full(&*file, &mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..read]).ok()?.trim().parse().ok()
}

fn path(dir: &dyn Dir) -> String {
    dir.path().join(LOCK_NAME).display().to_string()
}
