//! `APPEND`: the lock of a turn, and how a process waits for it.
//!
//! flock is not fair (whoever just gave it back is there first) and knows no time limit. So whoever
//! wants it stands in line first: on the flock of `CONTROL`, which guards nothing else. The one who
//! has that polls `APPEND` and gives the processor away between tries; the others sleep between
//! theirs. It is held on until the new turn is about to sync, so that whoever had the turn before
//! finds the line taken and cannot be next again. It is for speed alone: where `CONTROL` cannot be
//! locked, waiting is only less fair.
//!
//! Never here: what a turn does. Invariant: a wait ends, at the latest by the time limit.
//! Next room: [`super::begin`].

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{APPEND_NAME, CONTROL_NAME, Control};
use crate::fs::{Access, Dir, DirLock, LockMode, read_full};
use crate::sync::{Mutex, MutexGuard, PoisonError, sleep, thread};

/// Between two tries of who is not first in line; the system adds its timer's slack.
const PAUSE_FIRST: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// Pauses grow after so many.
const PAUSES_SHORT: u32 = 64;
/// For so long somebody stands in line before it tries `APPEND` all the same.
const IN_LINE_MAX: Duration = Duration::from_millis(50);
/// For so long the first in line only yields: a turn is seldom longer.
const YIELDING: Duration = Duration::from_millis(2);

/// The lock file, open for the life of a member.
#[derive(Debug)]
pub(crate) struct Append {
    lock: Box<dyn DirLock>,
    /// Open from the first wait on. Taken alone.
    line: Mutex<Option<Box<dyn DirLock>>>,
}

impl Append {
    /// Opens the file, making it if it is absent, and takes it: for an opening.
    pub(crate) fn open(dir: &dyn Dir, timeout: Duration) -> Result<Box<dyn DirLock>> {
        let mut wait = Wait::new(dir, timeout);
        loop {
            let tried = dir.try_lock(APPEND_NAME, LockMode::Exclusive, true);
            if let Some(lock) = tried.map_err(|e| locking(dir, e))? {
                return Ok(lock);
            }
            wait.sleep()?;
        }
    }

    /// Of a lock that is held.
    pub(crate) fn of(lock: Box<dyn DirLock>) -> Append {
        Append { lock, line: Mutex::new(None) }
    }

    /// Waits in line, then for the lock.
    pub(crate) fn take(&self, dir: &dyn Dir, timeout: Duration) -> Result<()> {
        let mut wait = Wait::new(dir, timeout);
        // No longer: whoever is first may be stopped, or dead with a child that inherited its place,
        // while `APPEND` is free.
        while wait.waited() < IN_LINE_MAX && !self.is_first(dir) {
            wait.sleep()?;
        }
        let taken = self.take_as_first(dir, wait);
        if taken.is_err() {
            self.leave_the_line();
        }
        taken
    }

    /// Whether nobody else is first in line by now; also where nobody can tell.
    fn is_first(&self, dir: &dyn Dir) -> bool {
        let mut line = self.line();
        if let Some(line) = &*line {
            return line.relock(LockMode::Exclusive).unwrap_or(true);
        }
        match dir.try_lock(CONTROL_NAME, LockMode::Exclusive, false) {
            Ok(None) => false,
            Ok(taken) => {
                *line = taken;
                true
            }
            Err(_) => true,
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Box<dyn DirLock>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_as_first(&self, dir: &dyn Dir, mut wait: Wait<'_>) -> Result<()> {
        let begin = dir.elapsed();
        while !self.lock.relock(LockMode::Exclusive).map_err(|e| locking(dir, e))? {
            if dir.elapsed().saturating_sub(begin) < YIELDING {
                wait.give_way()?;
            } else {
                wait.sleep()?;
            }
        }
        Ok(())
    }

    /// Lets the next one be first in line.
    pub(crate) fn leave_the_line(&self) {
        if let Some(line) = &*self.line() {
            let _ = line.release();
        }
    }

    /// The end of a turn.
    pub(crate) fn release(&self) {
        self.leave_the_line();
        // It cannot fail on a file that is open; and if it did, the others would be told who has
        // it.
        let _ = self.lock.release();
    }
}

/// How long somebody has waited.
struct Wait<'a> {
    dir: &'a dyn Dir,
    begin: Duration,
    timeout: Duration,
    /// What was slept: a clock that is a test's may not know of it.
    slept: Duration,
    pauses: u32,
    pause: Duration,
}

impl Wait<'_> {
    fn new(dir: &dyn Dir, timeout: Duration) -> Wait<'_> {
        Wait {
            dir,
            begin: dir.elapsed(),
            timeout,
            slept: Duration::ZERO,
            pauses: 0,
            pause: PAUSE_FIRST,
        }
    }

    fn waited(&self) -> Duration {
        self.dir.elapsed().saturating_sub(self.begin).max(self.slept)
    }

    fn check(&self) -> Result<()> {
        if self.waited() < self.timeout { Ok(()) } else { Err(locked(self.dir, self.timeout)) }
    }

    fn give_way(&mut self) -> Result<()> {
        self.check()?;
        thread::yield_now();
        Ok(())
    }

    fn sleep(&mut self) -> Result<()> {
        self.check()?;
        sleep(self.pause); // flock has no wait with a time limit
        self.slept += self.pause;
        self.pauses += 1;
        if self.pauses > PAUSES_SHORT {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }
}

fn locking(dir: &dyn Dir, e: std::io::Error) -> Error {
    Error::io(format!("locking {}", dir.path().join(APPEND_NAME).display()), e)
}

fn locked(dir: &dyn Dir, timeout: Duration) -> Error {
    let holder = match holder(dir) {
        Some(pid) if pid == dir.pid() => format!("this process itself (pid {pid})"),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    let message = format!(
        "{} was held by {holder} for longer than Options::lock_timeout ({timeout:?}): nothing was \
         ordered, and the call may be made again; if that process is stopped, let it go on or \
         end it",
        dir.path().join(APPEND_NAME).display()
    );
    Error::new(ErrorKind::Locked, message)
}

/// Who marked `CONTROL` last: a hint for a person.
fn holder(dir: &dyn Dir) -> Option<u32> {
    let file = dir.open(CONTROL_NAME, Access::Read).ok()?;
    let mut bytes = [0; crate::format::CONTROL_LEN];
    let read = read_full(&*file, &mut bytes, 0).ok()?;
    Control::decode(&bytes[..read]).map(|control| control.pid)
}
