//! Nobody waits for ever: not for room that only he himself could make, not for a thread that is gone.
//!
//! Each test runs what hung under a watchdog. Next room: `truth.rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_observer::{
    Clock, EntryKind, JsonText, Level, MonoTime, Options, Outcome, Overflow, Session, WallTime,
};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::batched::{hold_the_log, wait_for};
use crate::common::{HandClock, NEW_YEAR, all, open};

const LONG: Duration = Duration::from_secs(60);

fn ok() -> Outcome {
    Outcome::Ok(JsonText::string("ok"))
}

fn patient() -> Options {
    Options::new().batch_age_max(LONG).clock(Arc::new(HandClock::default()))
}

/// What the work returns, or a failure: a thread that hangs is left behind.
pub(crate) fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || drop(tell.send(work())));
    match told.recv_timeout(Duration::from_secs(20)) {
        Ok(output) => output,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it waits for ever"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("it panicked"),
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

// Room.

/// Places that were kept for ends filled the queue while nothing stood in it: the fourth start
/// waited for an end that only its own thread would have recorded.
#[test]
fn one_thread_may_have_more_calls_open_than_the_queue_has_places() {
    let log = open(&MemDir::new(61));
    let observer = Options::new().queue_entries_max(4).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    within(move || {
        let mut calls: Vec<_> = (0..100).map(|_| session.tool("t").start().unwrap()).collect();
        for call in &mut calls {
            assert!(!call.end_ok(JsonText::string("ok")).unwrap().dropped);
        }
    });
    assert!(observer.force_flush(LONG).is_flushed());
    assert_eq!(all(&log).len(), 200);
}

/// An agent and its tool, of which the second comes while everybody's first is open.
async fn agent(session: Session, asynchronous: bool) {
    let start = session.agent("planner");
    let mut agent =
        if asynchronous { start.start_async().await.unwrap() } else { start.start().unwrap() };
    tokio::task::yield_now().await;
    let start = session.tool("t").within(&agent);
    let mut tool =
        if asynchronous { start.start_async().await.unwrap() } else { start.start().unwrap() };
    tokio::task::yield_now().await;
    tool.end_async(ok()).await.unwrap();
    agent.end_async(ok()).await.unwrap();
}

#[test]
fn many_agents_with_tools_pass_a_narrow_queue_on_one_thread() {
    for (level, asynchronous) in [
        (Level::Batched, true),
        (Level::Batched, false),
        (Level::Ordered, true),
        (Level::Durable, true),
    ] {
        let log = open(&MemDir::new(62));
        let observer = Options::new().queue_entries_max(8).on(log.clone()).unwrap();
        let session = observer.session("s-1").unwrap().level(level);
        within(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let tasks: Vec<_> =
                (0..32).map(|_| runtime.spawn(agent(session.clone(), asynchronous))).collect();
            tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
        });
        assert!(observer.force_flush(LONG).is_flushed());
        assert_eq!(all(&log).len(), 128, "{level:?}");
        assert_eq!(observer.health().open_starts, 0);
    }
}

#[test]
fn an_empty_queue_drops_no_start_however_many_calls_are_open() {
    let log = open(&MemDir::new(63));
    let observer =
        patient().queue_entries_max(4).overflow(Overflow::DropNewest).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(session.tool("t").start().unwrap());
        assert!(observer.force_flush(LONG).is_flushed());
    }
    assert!(calls.iter().all(|call| !call.start_receipt().dropped));
    // And all their ends at once have their places, beyond the queue's own.
    let held = hold_the_log(&log);
    for call in &mut calls {
        assert!(!call.end_ok(JsonText::string("ok")).unwrap().dropped);
    }
    drop(held);
    assert!(observer.force_flush(LONG).is_flushed());
    let dropped = all(&log).iter().filter(|entry| entry.kind == EntryKind::Dropped).count();
    assert_eq!((all(&log).len(), dropped), (20, 0));
}

// The place in the log.

/// At `Ordered` a call may go on when its entry has its place in the log; a queue is not the log.
#[test]
fn an_ordered_start_and_end_in_async_code_wait_for_their_places_in_the_log() {
    let log = open(&MemDir::new(64));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Ordered);
    let held = hold_the_log(&log);
    let mut start = Box::pin(session.tool("t").start_async());
    assert!(poll(&mut start).is_pending(), "the log is held: it has no place there");
    drop(held);
    let mut call = within(move || block_on(start)).unwrap();
    assert_eq!(call.start_receipt().lsn, None, "it is not durable");
    let held = hold_the_log(&log);
    {
        let mut end = Box::pin(call.end_async(ok()));
        assert!(poll(&mut end).is_pending());
        drop(held);
        block_on(end).unwrap();
    }
    let queued = observer.health().queued;
    assert_eq!((queued, observer.health().open_starts), (0, 0), "both have left the queue");
    observer.flush().unwrap();
    assert_eq!(all(&log).len(), 2);
}

// The observer's thread.

type Start = Pin<Box<dyn Future<Output = annals_observer::Result<annals_observer::Call>> + Send>>;

/// Once armed it panics on the observer's thread, after it has begun a durable start there.
#[derive(Default, Debug)]
struct Panics {
    armed: Mutex<Option<Session>>,
    made: Mutex<Option<Made>>,
}

struct Made(Start);

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Made")
    }
}

impl Clock for Panics {
    fn wall(&self) -> WallTime {
        WallTime(NEW_YEAR)
    }

    fn mono(&self) -> MonoTime {
        if std::thread::current().name() == Some("annals-observer") {
            let armed = self.armed.lock().unwrap().take();
            if let Some(session) = armed {
                let mut start: Start = Box::pin(session.tool("t").start_async());
                assert!(poll(&mut start).is_pending());
                *self.made.lock().unwrap() = Some(Made(start));
                panic!("a clock fails");
            }
        }
        MonoTime(1)
    }
}

/// The observer's thread died of it, nobody started another, and whoever waited for it did for ever.
#[test]
fn a_clock_that_panics_on_the_observers_thread_ends_the_waits_and_is_told() {
    let log = open(&MemDir::new(65));
    let clock = Arc::new(Panics::default());
    let options = Options::new().clock(clock.clone()).batch_age_max(Duration::from_millis(1));
    let observer = options.open_start_age_max(Duration::from_millis(20)).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let _open = session.clone().level(Level::Batched).tool("open").start().unwrap();
    assert!(observer.force_flush(LONG).is_flushed());
    *clock.armed.lock().unwrap() = Some(session.clone());
    session.clone().level(Level::Batched).error(JsonText::string("wakes it")).unwrap();
    wait_for(|| clock.made.lock().unwrap().is_some());
    let Made(start) = clock.made.lock().unwrap().take().unwrap();
    let error = within(move || block_on(start)).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(!error.outcome_unknown(), "it was queued and is so no more");
    let said = observer.health().last_error.unwrap();
    assert!(said.to_string().contains("panicked"), "{said}");
    // The next one finds another thread.
    let observing = observer.clone();
    let mut call = within(move || block_on(session.tool("u").start_async())).unwrap();
    call.end_ok(JsonText::string("ok")).unwrap();
    assert!(within(move || observing.force_flush(LONG)).is_flushed());
    let tools: Vec<_> = all(&log).into_iter().filter_map(|entry| entry.tool).collect();
    assert!(!tools.contains(&"t".to_owned()), "its caller was told that it is not in the log");
    assert!(all(&log).iter().any(|entry| entry.kind == EntryKind::Error), "the queue was kept");
}

/// Writing off one call failed, and the start of another, which was in the log, said so to its
/// caller as its own failure.
#[test]
fn a_write_off_that_fails_is_no_failure_of_another_calls_start() {
    let disk = MemDir::new(66);
    let small = annals_wal::Options::new().segment_bytes(64 << 10).record_bytes_max(4096);
    let log = small.open_in(disk.dir()).unwrap();
    let observer = patient().open_starts_max(1).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    // Its start just fits; with a reason it is too large.
    let fits = (3000..4096).rev().find_map(|n| session.tool("x".repeat(n)).start().ok());
    let large = fits.unwrap();
    let mut next = session.tool("t").start().unwrap();
    next.end_ok(JsonText::string("ok")).unwrap();
    let said = observer.health().last_error.unwrap();
    assert_eq!(said.kind(), annals_observer::ErrorKind::TooLarge, "{said}");
    drop(large);
}

/// The last handle's drop told the thread to write the queue and did not wait: a process that ended
/// then lost it.
#[test]
fn the_drop_of_the_last_handle_waits_until_the_queue_is_durable() {
    for seed in 0..20 {
        let disk = MemDir::new(seed);
        let log = open(&disk);
        let observer = patient().on(log.clone()).unwrap();
        let session = observer.session("s-1").unwrap().level(Level::Batched);
        for n in 0..50 {
            session.error(JsonText::string(&n.to_string())).unwrap();
        }
        drop(session);
        drop(observer);
        assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 50);
    }
}

/// It waits a while, not for ever: what holds the log may be waiting for this thread.
#[test]
fn the_drop_of_the_last_handle_does_not_wait_for_ever() {
    let log = open(&MemDir::new(67));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(JsonText::string("late")).unwrap();
    drop(session);
    let held = hold_the_log(&log);
    within(move || drop(observer));
    drop(held);
    wait_for(|| all(&log).len() == 1);
}
