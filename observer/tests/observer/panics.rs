//! A caller's clock that panics costs the call that asked it, and no other: what is in the log as
//! begun stays open until something ends it or writes it off.
//!
//! Each test lets the clock panic at its first reading, then at its second, until one passes. Never
//! here: a guess at which readings there are. Next room: `waits.rs`.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, Clock, EntryKind, JsonText, Level, MonoTime, Observer, Options, Outcome,
    Session, WallTime,
};
use annals_wal::Log;
use annals_wal::fs::mem::MemDir;

use crate::batched::wait_for;
use crate::common::{HandClock, all, open};

const NAMES: [&str; 3] = ["c-1", "c-2", "c-3"];

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

/// Panics once, after so many readings, on the threads it is armed for.
#[derive(Debug, Default)]
struct Panics {
    inner: HandClock,
    left: Mutex<Option<(u32, bool)>>,
}

impl Panics {
    fn arm(&self, left: u32, on_the_observers_thread: bool) {
        *self.left.lock().unwrap() = Some((left, on_the_observers_thread));
    }

    /// Whether it was still armed.
    fn disarm(&self) -> bool {
        self.left.lock().unwrap().take().is_some()
    }

    fn step(&self) {
        let own = std::thread::current().name() == Some("annals-observer");
        let mut armed = self.left.lock().unwrap();
        let Some((left, on)) = armed.filter(|(_, on)| *on == own) else { return };
        *armed = left.checked_sub(1).map(|left| (left, on));
        drop(armed);
        assert!(left > 0, "a clock fails");
    }
}

impl Clock for Panics {
    fn wall(&self) -> WallTime {
        self.step();
        self.inner.wall()
    }

    fn mono(&self) -> MonoTime {
        self.step();
        self.inner.mono()
    }
}

/// An observer with three calls whose handles are gone, too old by now.
fn three_too_old(age: Duration) -> (Log, Arc<Panics>, Observer, Session) {
    let log = open(&MemDir::new(71));
    let clock = Arc::new(Panics::default());
    let options = Options::new().clock(clock.clone()).open_start_age_max(age);
    let observer = options.on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    for name in NAMES {
        drop(session.tool("t").call_id(id(name)).start().unwrap());
    }
    clock.inner.advance(3_600_000_000_000);
    (log, clock, observer, session)
}

fn written_off(log: &Log) -> Vec<CallId> {
    let off = all(log).into_iter().filter(|entry| entry.kind == EntryKind::Abandoned);
    off.filter_map(|entry| entry.call_id).collect()
}

/// They were out of the table, on their way into the log, and nobody had them.
#[test]
fn a_clock_that_panics_in_a_write_off_loses_no_open_call() {
    for n in 0.. {
        let (log, clock, observer, session) = three_too_old(Duration::from_secs(600));
        clock.arm(n, false);
        let flushed = catch_unwind(AssertUnwindSafe(|| observer.flush())).is_ok();
        let unused = clock.disarm();
        let health = observer.health();
        assert_eq!(health.open_starts + health.written_off, 3, "reading {n}");
        if flushed {
            assert!(unused && n >= 6, "two readings for each were expected: {n}");
            break;
        }
        // The last of them was not reached: its end is paired as if nothing had been.
        let ok = Outcome::Ok(JsonText::string("late"));
        session.end_by_call_id(CallKind::Tool, id("c-3"), ok).unwrap();
        observer.flush().unwrap();
        let end = all(&log).into_iter().find(|entry| entry.kind == EntryKind::ToolEnd).unwrap();
        assert!(end.span.is_some() && end.duration.is_some(), "reading {n}");
        assert_eq!(written_off(&log), [id("c-1"), id("c-2")], "reading {n}");
        assert_eq!((observer.health().open_starts, observer.health().written_off), (0, 2));
    }
}

#[test]
fn a_clock_that_panics_in_a_write_off_of_the_observers_thread_loses_no_open_call() {
    for n in 0..6 {
        let (log, clock, observer, session) = three_too_old(Duration::from_millis(20));
        clock.arm(n, true);
        let wake = || session.clone().level(Level::Batched).error(JsonText::string("wakes it"));
        wake().unwrap();
        wait_for(|| observer.health().last_error.is_some());
        assert!(!clock.disarm(), "it has panicked");
        wake().unwrap(); // and starts another thread
        // Nobody else writes them off: a durable entry does not, and shows what is before it.
        let tries = Cell::new(0);
        wait_for(|| {
            tries.set(tries.get() + 1);
            session.error(JsonText::string("makes durable what is before it")).unwrap();
            written_off(&log).len() == 3 || tries.get() > 3000
        });
        assert_eq!(written_off(&log), NAMES.map(id), "reading {n}");
        assert_eq!((observer.health().open_starts, observer.health().written_off), (0, 3));
    }
}

/// Polled on this thread until it is ready: the observer's own does the rest.
fn finish<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::yield_now();
    }
}

/// Between its record and its place in the table a start asked for the time.
#[test]
fn a_clock_that_panics_in_a_start_leaves_open_what_the_log_has_as_begun() {
    for level in [Level::Durable, Level::Ordered, Level::Batched] {
        for asynchronous in [false, true] {
            for n in 0.. {
                let log = open(&MemDir::new(72));
                let clock = Arc::new(Panics::default());
                let observer = Options::new().clock(clock.clone()).on(log.clone()).unwrap();
                let session = observer.session("s-1").unwrap().level(level);
                let start = || {
                    let start = session.tool("t").call_id(id("c-1"));
                    if asynchronous { finish(start.start_async()) } else { start.start() }
                };
                clock.arm(n, false);
                let started = catch_unwind(AssertUnwindSafe(start));
                let unused = clock.disarm();
                observer.flush().unwrap();
                let begun = all(&log).len() as u64;
                let open = observer.health().open_starts;
                assert_eq!(begun, open, "{level:?}, async: {asynchronous}, reading {n}");
                if started.is_ok() {
                    assert!(unused && n >= 3, "{level:?}: {n} readings");
                    break;
                }
                if begun == 1 {
                    let ok = Outcome::Ok(JsonText::string("late"));
                    session.end_by_call_id(CallKind::Tool, id("c-1"), ok).unwrap();
                    observer.flush().unwrap();
                    assert!(all(&log).pop().unwrap().span.is_some(), "it was not found");
                    assert_eq!(observer.health().open_starts, 0);
                }
            }
        }
    }
}
