//! `APPEND`: the lock of a turn, and how a process waits for it.
//!
//! flock is not fair (whoever just gave it back is there first) and knows no time limit. So whoever
//! wants it stands in line first: on the flock of `CONTROL`, which guards nothing else. It is held on
//! until the new turn is about to sync. It is for speed alone: where `CONTROL` cannot be locked,
//! waiting is only less fair.
//!
//! To change places costs more than a turn does. So who came to be next has a *row*: for [`ROW`] it
//! takes turn after turn without standing in line, if they are short, and who is first in line sleeps
//! as long as it sees the log move. A process that pauses is not waited for: the first in line takes
//! what is free when nothing has moved between two looks. Who had a row finds the line taken, and the
//! longer somebody has waited, the more often it looks whether it is free. Half of the time limit is
//! for all that: then whoever waits tries, in line or not. Openings that wait stand in line too.
//!
//! Never here: what a turn does. Invariant: a wait ends, at the latest by the time limit.
//! Next room: [`super::wait`] for the pauses, [`super::begin`].

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{APPEND_NAME, CONTROL_NAME};
use crate::fs::{Dir, DirLock, LockMode};
use crate::mutant;
use crate::sync::{Mutex, MutexGuard, PoisonError};

use super::begin::Failed;
use super::wait::Wait;

/// What whoever waits for `APPEND` does meanwhile.
pub(super) trait Meanwhile {
    /// At each pause, so that nobody waits for what it has no use for any more.
    ///
    /// # Errors
    /// Why the wait is to end.
    fn check(&self) -> Result<()>;

    /// Reads what others write. The first in line does so shortly before it is next, once: each
    /// look at the log on another processor makes some turn of the row late.
    fn read_on(&self) -> Taken;
}

type Taken = std::result::Result<(), Failed>;

/// For so long a process takes turn after turn while others wait: of turns of 0.15 ms that is 200,
/// so that a wait for the row to come is rarer than one call in a hundred.
pub(super) const ROW: Duration = Duration::from_millis(50);
/// A row is for turns no longer than this part of it, each with its caller's time before the next: of
/// longer ones more than a call in a hundred would wait for its row, and each wait were long.
const TURNS_OF_A_ROW: u32 = 128;
/// So many turns are taken before that is known.
const TURNS_MIN: u32 = 4;
/// Whoever is first in line became it at most so long after the row began, as a rule: for so long
/// before the row would end, had it begun then, the first looks often and takes what is free.
const ROW_END: Duration = Duration::from_millis(4);
/// For so long somebody stands in line behind a log that does not move before it tries `APPEND` all
/// the same.
const IN_LINE_MAX: Duration = Duration::from_millis(50);
/// For so long the first in line only yields once the row is over: a turn is seldom longer.
const YIELDING: Duration = Duration::from_millis(2);

/// The lock file, open for the life of a member.
#[derive(Debug)]
pub(crate) struct Append {
    lock: Box<dyn DirLock>,
    /// Taken alone.
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// Open from the first wait on.
    lock: Option<Box<dyn DirLock>>,
    is_first: bool,
    row: Option<Turns>,
}

/// Since this process last had `APPEND` after standing in line.
#[derive(Clone, Copy, Debug)]
struct Turns {
    begin: Duration,
    count: u32,
}

impl Turns {
    fn go_on(self, now: Duration) -> bool {
        let lasts = now.saturating_sub(self.begin);
        let short = lasts / self.count.max(1) < ROW / TURNS_OF_A_ROW;
        lasts < ROW && (self.count < TURNS_MIN || short)
    }
}

impl Line {
    /// Whether nobody else is first in line by now; also where nobody can tell.
    fn stand(&mut self, dir: &dyn Dir) -> bool {
        let tried = match &self.lock {
            Some(lock) => lock.relock(LockMode::Exclusive),
            None => match dir.try_lock(CONTROL_NAME, LockMode::Exclusive, false) {
                Ok(taken) => {
                    self.lock = taken;
                    Ok(self.lock.is_some())
                }
                Err(e) => Err(e),
            },
        };
        // After an error it may hold the place: that is left as any other.
        self.is_first = !matches!(tried, Ok(false));
        tried.unwrap_or(true)
    }

    fn leave(&mut self) {
        if let Some(lock) = self.lock.as_ref().filter(|_| self.is_first) {
            let _ = lock.release();
            self.is_first = false;
        }
    }
}

impl Append {
    /// Opens the file, making it if it is absent, and takes it: for an opening.
    pub(crate) fn open(dir: &dyn Dir, timeout: Duration) -> Result<Box<dyn DirLock>> {
        let mut wait = Wait::of_an_opening(dir, timeout);
        // Left when it is in, or refused: who has a row finds the line taken, and stops.
        let mut line = Line::default();
        loop {
            let tried = dir.try_lock(APPEND_NAME, LockMode::Exclusive, true);
            if let Some(lock) = tried.map_err(|e| locking(dir, e))? {
                return Ok(lock);
            }
            line.stand(dir);
            wait.sleep()?;
        }
    }

    /// Of a lock that is held.
    pub(crate) fn of(lock: Box<dyn DirLock>) -> Append {
        Append { lock, line: Mutex::default() }
    }

    /// Goes on with its row; or waits in line, then for the lock. Who is first in line reads
    /// `meanwhile` what others write, so that its row need not begin with that.
    pub(super) fn take(
        &self,
        dir: &dyn Dir,
        timeout: Duration,
        meanwhile: &dyn Meanwhile,
    ) -> Taken {
        let row = self.line().row;
        if let Some(row) = row.filter(|row| row.go_on(dir.elapsed()))
            && self.try_now(dir)?
        {
            self.line().row = Some(Turns { count: row.count.saturating_add(1), ..row });
            return Ok(());
        }
        let recently = |row: Turns| dir.elapsed().saturating_sub(row.begin) < 2 * ROW;
        let mut wait = Wait::new(dir, timeout);
        let taken = self.take_anew(dir, &mut wait, row.is_some_and(recently), meanwhile);
        match &taken {
            Ok(()) => self.line().row = Some(Turns { begin: dir.elapsed(), count: 1 }),
            Err(_) => self.leave_the_line(),
        }
        taken
    }

    fn take_anew(
        &self,
        dir: &dyn Dir,
        wait: &mut Wait<'_>,
        had_row: bool,
        meanwhile: &dyn Meanwhile,
    ) -> Taken {
        if self.is_first(dir) && self.try_now(dir)? {
            return Ok(());
        }
        let waited = self.take_in_line(dir, wait, had_row, meanwhile);
        self.or_once_more(dir, waited)
    }

    /// Nobody is refused what is free.
    fn or_once_more(&self, dir: &dyn Dir, taken: Taken) -> Taken {
        let refused = |failed: &Failed| !failed.poisons && failed.error.kind() == ErrorKind::Locked;
        if taken.as_ref().is_err_and(refused) && self.try_now(dir)? { Ok(()) } else { taken }
    }

    /// Whoever is there sleeps: somebody else has turns.
    fn take_in_line(
        &self,
        dir: &dyn Dir,
        wait: &mut Wait<'_>,
        had_row: bool,
        meanwhile: &dyn Meanwhile,
    ) -> Taken {
        if had_row {
            wait.let_others_first();
        }
        // No longer behind a log that does not move: whoever is first may be stopped, or dead with
        // a child that inherited its place, while `APPEND` is free. And for half the time limit only:
        // what is left is for tries.
        let (mut moved, mut seen) = (wait.waited(), wait.last_turn());
        while wait.is_early() && !self.is_first(dir) {
            meanwhile.check()?;
            wait.sleep()?;
            if wait.waited().saturating_sub(moved) >= IN_LINE_MAX {
                let now = wait.last_turn();
                if now == seen {
                    break;
                }
                (moved, seen) = (wait.waited(), now);
            }
        }
        self.take_as_first(dir, wait, meanwhile)
    }

    fn take_as_first(
        &self,
        dir: &dyn Dir,
        wait: &mut Wait<'_>,
        meanwhile: &dyn Meanwhile,
    ) -> Taken {
        let (begin, row) = (wait.waited(), ROW.min(wait.limit() / 4));
        let (mut seen, mut has_read) = (wait.last_turn(), false);
        while wait.is_early() {
            let watched = wait.waited().saturating_sub(begin);
            if watched >= row {
                break;
            }
            let rest = row.saturating_sub(ROW_END).saturating_sub(watched);
            meanwhile.check()?;
            wait.look(watched, rest)?;
            let now = wait.last_turn();
            let moved = now != seen && now.is_some();
            seen = now;
            if moved && rest.is_zero() && !has_read {
                has_read = true;
                meanwhile.read_on()?;
            } else if (!moved || rest.is_zero()) && self.try_now(dir)? {
                return Ok(());
            }
        }
        let begin = wait.waited();
        while !self.try_now(dir)? {
            meanwhile.check()?;
            if wait.waited().saturating_sub(begin) < YIELDING {
                wait.give_way()?;
            } else {
                wait.sleep()?;
            }
        }
        Ok(())
    }

    fn try_now(&self, dir: &dyn Dir) -> Result<bool> {
        let taken = self.lock.relock(LockMode::Exclusive).map_err(|e| locking(dir, e))?;
        Ok(taken || mutant::is("share:append-for-everybody"))
    }

    fn is_first(&self, dir: &dyn Dir) -> bool {
        self.line().stand(dir)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next one be first in line.
    pub(crate) fn leave_the_line(&self) {
        self.line().leave();
    }

    /// The end of a turn.
    pub(crate) fn release(&self) {
        self.leave_the_line();
        // It cannot fail on a file that is open; and if it did, the others would be told who has
        // it.
        let _ = self.lock.release();
    }
}

fn locking(dir: &dyn Dir, e: std::io::Error) -> Error {
    Error::io(format!("locking {}", dir.path().join(APPEND_NAME).display()), e)
}
