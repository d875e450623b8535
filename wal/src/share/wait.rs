//! How somebody waits for `APPEND`: its pauses, what it sees of the log meanwhile, and its end.
//!
//! flock has no wait with a time limit, so this polls. Never here: a lock.
//! Invariant: a wait ends, at the latest by the time limit. Next room: back to [`super::append`].

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{APPEND_NAME, CONTROL_LEN, CONTROL_NAME, Control};
use crate::fs::{Access, Dir, read_full};
use crate::sync::{sleep, thread};

/// Between two tries of who is not first in line; the system adds its timer's slack.
const PAUSE_FIRST: Duration = Duration::from_micros(20);
/// Pauses grow after so many.
const PAUSES_SHORT: u32 = 4;
/// The longest pause of who just came, or just had a row; and of who has waited for long. A line is
/// left at the beginning of a row, so there is time.
const PAUSE_MAX_AT_FIRST: Duration = Duration::from_millis(4);
const PAUSE_MAX_AT_LAST: Duration = Duration::from_micros(500);
/// How much of its wait somebody's longest pause is shorter by.
const AGE: u32 = 32;
/// Between two looks of the first in line; longer than a turn and its caller's time before the next,
/// as a rule.
const LOOK: Duration = Duration::from_micros(400);

/// How long somebody has waited.
pub(super) struct Wait<'a> {
    dir: &'a dyn Dir,
    begin: Duration,
    timeout: Duration,
    /// What was slept: a clock that is a test's may not know of it.
    slept: Duration,
    pauses: u32,
    pause: Duration,
}

impl Wait<'_> {
    pub(super) fn new(dir: &dyn Dir, timeout: Duration) -> Wait<'_> {
        Wait {
            dir,
            begin: dir.elapsed(),
            timeout,
            slept: Duration::ZERO,
            pauses: 0,
            pause: PAUSE_FIRST,
        }
    }

    pub(super) fn waited(&self) -> Duration {
        self.dir.elapsed().saturating_sub(self.begin).max(self.slept)
    }

    fn check(&self) -> Result<()> {
        if self.waited() < self.timeout { Ok(()) } else { Err(locked(self.dir, self.timeout)) }
    }

    pub(super) fn give_way(&mut self) -> Result<()> {
        self.check()?;
        thread::yield_now();
        Ok(())
    }

    /// Who had a row sleeps as long as anybody from the first pause on.
    pub(super) fn let_others_first(&mut self) {
        (self.pause, self.pauses) = (PAUSE_MAX_AT_FIRST, PAUSES_SHORT);
    }

    /// The longer the wait, the shorter the pauses: who has waited longest is likely the next.
    pub(super) fn sleep(&mut self) -> Result<()> {
        self.check()?;
        let aged = PAUSE_MAX_AT_FIRST.saturating_sub(self.waited() / AGE);
        let pause = self.pause.min(aged.max(PAUSE_MAX_AT_LAST));
        sleep(pause);
        self.slept += pause;
        self.pauses += 1;
        if self.pauses > PAUSES_SHORT {
            self.pause = (self.pause * 2).min(PAUSE_MAX_AT_FIRST);
        }
        Ok(())
    }

    /// The pause of the first in line while others have their row.
    pub(super) fn look(&mut self) -> Result<()> {
        self.check()?;
        sleep(LOOK);
        self.slept += LOOK;
        Ok(())
    }
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
    control(dir).map(|control| control.pid)
}

/// Who had the last turn, and how far it came: a hint for who waits.
pub(super) fn last_turn(dir: &dyn Dir) -> Option<(u32, u64)> {
    control(dir).map(|control| (control.pid, control.durable_lsn))
}

fn control(dir: &dyn Dir) -> Option<Control> {
    let file = dir.open(CONTROL_NAME, Access::Read).ok()?;
    let mut bytes = [0; CONTROL_LEN];
    let read = read_full(&*file, &mut bytes, 0).ok()?;
    Control::decode(&bytes[..read])
}
