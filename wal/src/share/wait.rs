//! How somebody waits for `APPEND`: its pauses, what it sees of the log meanwhile, and its end.
//!
//! flock has no wait with a time limit, so this polls. Never here: a lock.
//! Invariant: a wait ends, at the latest by the time limit. Next room: back to [`super::append`].

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{APPEND_NAME, CONTROL_LEN, CONTROL_NAME, Control};
use crate::fs::{Access, Dir, File, read_full};
use crate::sync::{sleep, thread};

/// Between two tries of who is not first in line; the system adds its timer's slack.
const PAUSE_FIRST: Duration = Duration::from_micros(20);
/// Pauses grow after so many.
const PAUSES_SHORT: u32 = 4;
/// The longest pause of who just came, or just had a row; and of who has waited for long. The line
/// is left at the beginning of a row, so there is time.
const PAUSE_MAX_AT_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX_AT_LAST: Duration = Duration::from_micros(1500);
/// An opening is short and seldom, and may come between any two turns: it looks often.
const PAUSES_SHORT_OPENING: u32 = 64;
const PAUSE_MAX_OPENING: Duration = Duration::from_millis(1);
/// Of its wait, the part that somebody's longest pause is shorter by.
const AGE: u32 = 8;
/// The first pause of who had a row.
const PAUSE_AFTER_ROW: Duration = Duration::from_millis(4);
/// Between two looks of the first in line at least; longer than a turn and its caller's time before
/// the next, as a rule.
const LOOK_MIN: Duration = Duration::from_micros(400);
/// Who has watched a row for so long sleeps for one such part of it: each look disturbs the row, and
/// a pause is found out in time enough.
const LOOK_PART: u32 = 4;
/// And no longer: the row may end earlier than it seems.
const LOOK_MAX: Duration = Duration::from_millis(2);

/// How long somebody has waited.
pub(super) struct Wait<'a> {
    dir: &'a dyn Dir,
    begin: Duration,
    timeout: Duration,
    /// What was slept: a clock that is a test's may not know of it.
    slept: Duration,
    pauses: u32,
    pause: Duration,
    pauses_short: u32,
    pause_max: Duration,
    /// What it looks at.
    control: Option<Arc<dyn File>>,
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
            pauses_short: PAUSES_SHORT,
            pause_max: PAUSE_MAX_AT_FIRST,
            control: None,
        }
    }

    pub(super) fn of_an_opening(dir: &dyn Dir, timeout: Duration) -> Wait<'_> {
        let (pauses_short, pause_max) = (PAUSES_SHORT_OPENING, PAUSE_MAX_OPENING);
        Wait { pauses_short, pause_max, ..Wait::new(dir, timeout) }
    }

    pub(super) fn waited(&self) -> Duration {
        self.dir.elapsed().saturating_sub(self.begin).max(self.slept)
    }

    pub(super) fn limit(&self) -> Duration {
        self.timeout
    }

    /// Whether there is time yet to let others go first: then half the time limit is left for tries.
    pub(super) fn is_early(&self) -> bool {
        self.waited() < self.timeout / 2
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
        (self.pause, self.pauses) = (PAUSE_AFTER_ROW, PAUSES_SHORT);
    }

    /// The longer the wait, the shorter the pauses: who has waited longest is likely the next.
    pub(super) fn sleep(&mut self) -> Result<()> {
        self.check()?;
        let aged = self.pause_max.saturating_sub(self.waited() / AGE);
        let pause = self.pause.min(aged.max(PAUSE_MAX_AT_LAST));
        sleep(pause);
        self.slept += pause;
        self.pauses += 1;
        if self.pauses > self.pauses_short {
            self.pause = (self.pause * 2).min(self.pause_max);
        }
        Ok(())
    }

    /// The pause of the first in line while others have their row, which it has watched for so long
    /// and which likely ends in so long.
    pub(super) fn look(&mut self, watched: Duration, rest: Duration) -> Result<()> {
        self.check()?;
        let look = (watched / LOOK_PART).min(rest).clamp(LOOK_MIN, LOOK_MAX);
        sleep(look);
        self.slept += look;
        Ok(())
    }

    /// Who had the last turn, and how far it came: a hint for who waits.
    pub(super) fn last_turn(&mut self) -> Option<(u32, u64)> {
        if self.control.is_none() {
            self.control = self.dir.open(CONTROL_NAME, Access::Read).ok();
        }
        let control = read(&**self.control.as_ref()?)?;
        Some((control.pid, control.durable_lsn))
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
    let file = dir.open(CONTROL_NAME, Access::Read).ok()?;
    read(&*file).map(|control| control.pid)
}

fn read(file: &dyn File) -> Option<Control> {
    let mut bytes = [0; CONTROL_LEN];
    let read = read_full(file, &mut bytes, 0).ok()?;
    Control::decode(&bytes[..read])
}
