//! The line for `APPEND` where its locks fail, and where it does not move: how long a call waits,
//! and that it keeps its place no longer than it needs it (`docs/adr/0022`).
//!
//! A directory stands before the crashable one that counts and fails what is done to locks. Time is
//! the crashable directory's and what the pauses add up to, so each count is the same in every run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_wal::fs::gate::eio;
use annals_wal::fs::mem::MemDir;
use annals_wal::fs::{Dir, DirLayer, DirLock, LockMode, Status};
use annals_wal::{ErrorKind, Log, Options, Sharing};

/// What is done to the locks of this name from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fails {
    /// It fails, and the lock is not had.
    Untaken,
    /// It fails, and the lock is had all the same.
    Taken,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<(&'static str, Fails)>,
    /// Who asked for the line.
    asked_for_line: usize,
}

/// The directory before the other.
#[derive(Clone, Debug)]
struct Locks {
    inner: MemDir,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct Lock {
    name: String,
    inner: Box<dyn DirLock>,
    state: Arc<Mutex<State>>,
}

impl Locks {
    fn new(inner: &MemDir) -> Locks {
        Locks { inner: inner.clone(), state: Arc::default() }
    }

    fn fail(&self, failing: Option<(&'static str, Fails)>) {
        self.state.lock().unwrap().failing = failing;
    }

    fn asked_for_line(&self) -> usize {
        std::mem::take(&mut self.state.lock().unwrap().asked_for_line)
    }
}

fn ask<T>(state: &Mutex<State>, name: &str, take: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let failing = {
        let mut state = state.lock().unwrap();
        state.asked_for_line += usize::from(name == "CONTROL");
        state.failing.filter(|(failing, _)| *failing == name)
    };
    match failing {
        None => take(),
        Some((_, Fails::Untaken)) => Err(eio()),
        Some((_, Fails::Taken)) => take().and_then(|_| Err(eio())),
    }
}

impl DirLock for Lock {
    fn write_pid(&self, pid: u32) {
        self.inner.write_pid(pid);
    }

    fn status(&self) -> io::Result<Status> {
        self.inner.status()
    }

    fn relock(&self, mode: LockMode) -> io::Result<bool> {
        ask(&self.state, &self.name, || self.inner.relock(mode))
    }

    fn release(&self) -> io::Result<()> {
        self.inner.release()
    }
}

impl DirLayer for Locks {
    fn below(&self) -> &dyn Dir {
        &self.inner
    }

    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        let taken = ask(&self.state, name, || self.inner.try_lock(name, mode, create))?;
        let (name, state) = (name.to_owned(), self.state.clone());
        Ok(taken.map(|inner| Box::new(Lock { name, inner, state }) as Box<dyn DirLock>))
    }
}

/// A member of a log, its locks, and another process that looks at them.
struct Line {
    log: Log,
    locks: Locks,
    other: MemDir,
}

impl Line {
    fn new() -> Line {
        let disk = MemDir::new(1);
        let locks = Locks::new(&disk.as_process(11));
        let options = Options::new().segment_bytes(64 << 10).sharing(Sharing::Processes);
        let options = options.lock_timeout(Duration::from_secs(20));
        let log = options.open_in(Arc::new(locks.clone())).unwrap();
        Line { log, locks, other: disk.as_process(22) }
    }

    /// Somebody's place in line.
    fn stand(&self) -> Option<Box<dyn DirLock>> {
        self.other.dir().try_lock("CONTROL", LockMode::Exclusive, false).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.other.set_clock(time, Duration::ZERO);
        self.other.dir().elapsed();
        self.other.set_clock(Duration::from_micros(1), Duration::ZERO);
    }

    /// How often an append asks for the line, behind somebody who is first in it and stopped.
    fn asks_behind_who_is_stopped(&self) -> usize {
        let first = self.stand().unwrap();
        self.locks.asked_for_line();
        self.log.append("past the line").unwrap();
        drop(first);
        self.locks.asked_for_line()
    }
}

const ROW: Duration = Duration::from_millis(50);

#[test]
fn whoever_cannot_lock_append_leaves_the_line() {
    let line = Line::new();
    line.locks.fail(Some(("APPEND", Fails::Untaken)));
    let error = line.log.append("no").unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Io, false), "{error}");
    assert!(error.to_string().contains("/memory/log/APPEND"), "{error}");
    assert!(line.stand().is_some(), "it keeps its place, and everybody else waits behind it");
    line.locks.fail(None);
    line.log.append("yes").unwrap();
}

/// flock may say an error of a lock that is had: best effort, but no place is kept for it.
#[test]
fn a_place_that_failed_is_left_as_any_other() {
    let line = Line::new();
    line.log.append("first").unwrap();
    line.pass(2 * ROW);
    line.locks.fail(Some(("CONTROL", Fails::Taken)));
    line.locks.asked_for_line();
    line.log.append("second").unwrap();
    assert_eq!(line.locks.asked_for_line(), 1);
    assert!(line.stand().is_some(), "the place is kept");
}

/// Where the log stands still, who is first is found out to be stopped at the first look, after 50
/// ms of pauses that grow from 20 us to 10 ms; the second one would be at 100 ms.
#[test]
fn the_first_look_finds_out_that_a_log_does_not_move() {
    let line = Line::new();
    let asked = line.asks_behind_who_is_stopped();
    assert!((15..=25).contains(&asked), "{asked}");
}

/// Who just had a row lets the others first: its pauses begin with 4 ms. A row of long ago is none.
#[test]
fn only_who_just_had_a_row_lets_others_first() {
    let line = Line::new();
    line.log.append("a row begins").unwrap();
    line.pass(ROW + ROW / 2);
    let after_row = line.asks_behind_who_is_stopped();
    line.pass(3 * ROW);
    let long_after = line.asks_behind_who_is_stopped();
    assert!((5..=12).contains(&after_row), "{after_row}");
    assert!((15..=25).contains(&long_after), "{long_after}");
}
