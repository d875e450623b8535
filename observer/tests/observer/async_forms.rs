//! The async forms of what waits: an end by its call id, a flush, a shutdown, a declaration.
//!
//! Asked of each: it holds no thread while it waits (the log is held, and the poll returns), it works
//! on a runtime of one thread and on none, and what a dropped future leaves is what its page says.
//! Next room: `waits.rs`.

use std::future::{Future, pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, CallState, EntryKind, ErrorKind, FlushOutcome, JsonText, Level, Options,
    Outcome, RunId, Session, call_state,
};
use annals_wal::Log;
use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};

use crate::batched::{hold_the_log, wait_for};
use crate::common::{HandClock, all, open};
use crate::waits::{block_on, within};

const LONG: Duration = Duration::from_secs(60);
const TOOL: CallKind = CallKind::Tool;

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

fn ok() -> Outcome {
    Outcome::Ok(JsonText::string("ok"))
}

/// Nothing is written before somebody asks for it.
fn patient() -> Options {
    Options::new().batch_age_max(LONG).clock(Arc::new(HandClock::default()))
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Wakes nobody; how many hold it tells who would be woken.
struct Held;

impl Wake for Held {
    fn wake(self: Arc<Self>) {}
}

/// A call that is in the log as begun, its handle gone.
fn begun(session: &Session, name: &str) {
    drop(session.clone().level(Level::Durable).tool("t").call_id(id(name)).start().unwrap());
}

fn state(log: &Log, name: &str) -> CallState {
    call_state(log, "s-1", TOOL, name).unwrap()
}

#[test]
fn a_flush_holds_no_thread_and_covers_what_was_taken_before_it() {
    let disk = MemDir::new(81);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    within(move || {
        block_on(async {
            assert_eq!(observer.flush_async().await.unwrap(), None, "there was nothing");
            for n in 0..20 {
                session.error_async(JsonText::string(&n.to_string())).await.unwrap();
            }
            let held = hold_the_log(observer.log());
            let mut flush = Box::pin(observer.flush_async());
            assert!(poll(&mut flush).is_pending(), "and this thread goes on");
            drop(held);
            assert_eq!(flush.await.unwrap().map(annals_wal::Lsn::get), Some(20));
            // What only has its place in the log is synced, too.
            session.clone().level(Level::Ordered).error(JsonText::string("ordered")).unwrap();
            assert_eq!(observer.flush_async().await.unwrap().map(annals_wal::Lsn::get), Some(21));
            assert!(observer.health().all_durable);
        });
    });
    assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 21);
    drop(log);
}

/// Many flushes on one thread, each woken by whoever syncs, beside tasks that record.
#[test]
fn flushes_of_many_tasks_on_one_thread_all_end() {
    let observer = patient().queue_entries_max(8).on(open(&MemDir::new(82))).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let recorder = observer.clone();
    within(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let (observer, session) = (recorder.clone(), session.clone());
                runtime.spawn(async move {
                    let told = session.error_async(JsonText::string(&n.to_string())).await.unwrap();
                    observer.flush_async().await.unwrap();
                    told.ticket.sequence
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    });
    assert!(observer.health().all_durable);
    assert_eq!(all(observer.log()).len(), 64);
}

#[test]
fn a_flush_that_is_dropped_leaves_nothing_behind_but_what_it_asked_for() {
    let log = open(&MemDir::new(83));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(JsonText::string("asked for")).unwrap();
    let held = hold_the_log(&log);
    let nobody = Arc::new(Held);
    let waker = Waker::from(nobody.clone());
    let mut flush = Box::pin(observer.flush_async());
    for _ in 0..3 {
        assert!(flush.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&nobody), 3, "one place, however often it is polled");
    drop(flush);
    assert_eq!(Arc::strong_count(&nobody), 2, "nobody waits any more");
    drop(held);
    wait_for(|| all(&log).len() == 1);
}

#[test]
fn a_flush_with_a_time_tells_what_is_pending_when_it_is_over() {
    let log = open(&MemDir::new(84));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let first = session.clone().level(Level::Durable).error(JsonText::string("first")).unwrap();
    session.error(JsonText::string("second")).unwrap();
    let held = hold_the_log(&log);
    match within({
        let observer = observer.clone();
        move || block_on(observer.force_flush_async(ready(())))
    }) {
        FlushOutcome::TimedOut { durable, pending } => {
            assert_eq!((durable, pending), (first.lsn, 1))
        }
        other => panic!("{other:?}"),
    }
    let waiting = observer.clone();
    let mut waits = Box::pin(async move { waiting.force_flush_async(pending()).await });
    assert!(poll(&mut waits).is_pending());
    drop(held);
    match within(move || {
        let outcome = block_on(observer.force_flush_async(pending()));
        // With nothing left to wait for, a time that is over already is not asked.
        assert!(block_on(observer.force_flush_async(ready(()))).is_flushed());
        outcome
    }) {
        FlushOutcome::Flushed(lsn) => assert_eq!(lsn.map(annals_wal::Lsn::get), Some(2)),
        other => panic!("{other:?}"),
    }
    assert!(within(move || block_on(waits)).is_flushed());
}

#[test]
fn a_flush_that_cannot_be_says_why_and_what_is_pending_is_tried_again() {
    let disk = MemDir::new(85);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    disk.set_bytes_free(Some(0));
    let big = || JsonText::string(&"x".repeat(16_000));
    for _ in 0..20 {
        session.error(big()).unwrap(); // more than a segment holds
    }
    let flushing = observer.clone();
    let error = within(move || block_on(flushing.flush_async())).unwrap_err();
    assert_eq!(error.log_error().unwrap().kind(), annals_wal::ErrorKind::Full, "{error}");
    disk.set_bytes_free(None);
    let flushing = observer.clone();
    within(move || block_on(flushing.flush_async())).unwrap();
    assert_eq!(all(&log).len(), 20, "nothing was lost");
}

#[test]
fn a_failed_log_ends_a_flush_that_waits() {
    let disk = MemDir::new(86);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(JsonText::string("lost")).unwrap();
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
    let flushing = observer.clone();
    let error = within(move || block_on(flushing.flush_async())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Log, "{error}");
    let flushing = observer.clone();
    within(move || block_on(flushing.flush_async())).unwrap_err(); // and says so again
}

#[test]
fn a_shutdown_refuses_what_comes_after_and_may_be_asked_for_twice() {
    let disk = MemDir::new(87);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    begun(&session, "open");
    session.error(JsonText::string("queued")).unwrap();
    let mut shutdown = Box::pin(observer.shutdown_async());
    assert!(!observer.health().closed, "nothing happens before the first poll");
    let held = hold_the_log(&log);
    assert!(poll(&mut shutdown).is_pending(), "and this thread goes on");
    drop(shutdown); // what it began goes on, too
    let late = session.clone();
    within(move || {
        let session = late;
        block_on(async {
            let refused = [
                session.error_async(JsonText::string("late")).await.map(drop),
                session.tool("t").start_async().await.map(drop),
                session.end_by_call_id_async(TOOL, id("open"), ok()).await.map(drop),
                session.end_by_call_id_async(TOOL, id("unknown"), ok()).await.map(drop),
            ];
            for refused in refused {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
            }
        });
    });
    drop(held);
    wait_for(|| all(&log).len() == 2);
    let (first, second) = within(move || {
        let shutdown = || block_on(observer.shutdown_async()).unwrap();
        (shutdown(), shutdown())
    });
    assert_eq!((first, first.map(annals_wal::Lsn::get)), (second, Some(2)));
    drop(session);
    drop(log);
    let kinds: Vec<_> =
        all(&open(&disk.crash(Keep::Nothing))).into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ToolStart, EntryKind::Error]);
}

#[test]
fn an_end_by_its_call_id_is_paired_and_holds_no_thread() {
    for level in [Level::Durable, Level::Ordered, Level::Batched] {
        let log = open(&MemDir::new(88));
        let clock = Arc::new(HandClock::default());
        let observer = Options::new().clock(clock.clone()).on(log.clone()).unwrap();
        let session = observer.session("s-1").unwrap().level(level);
        begun(&session, "c-1");
        clock.advance(5_000);
        let held = hold_the_log(&log);
        let mut end = Box::pin(session.end_by_call_id_async(TOOL, id("c-1"), ok()));
        let told = match poll(&mut end) {
            Poll::Ready(told) => Some(told.unwrap()),
            Poll::Pending => None,
        };
        assert_eq!(told.is_some(), level == Level::Batched, "{level:?}");
        drop(held);
        let told = told.unwrap_or_else(|| block_on(end).unwrap());
        assert_eq!(told.lsn.is_some(), level == Level::Durable, "{level:?}");
        // Nobody knows the start of a second one.
        let again = session.clone();
        within(move || block_on(again.end_by_call_id_async(TOOL, id("c-1"), ok()))).unwrap();
        observer.flush().unwrap();
        let entries = all(&log);
        assert_eq!(entries[1].duration, Some(Duration::from_micros(5)), "{level:?}");
        assert_eq!(entries[1].span, entries[0].span);
        assert_eq!((entries[2].duration, entries[2].span), (None, None), "nothing is invented");
        assert_eq!((observer.health().open_starts, state(&log, "c-1")), (0, CallState::Settled));
    }
}

/// Dropped while it waits for room nothing is recorded; dropped later it is, once.
#[test]
fn an_end_by_its_call_id_that_is_dropped_is_recorded_or_can_be_recorded_again() {
    let log = open(&MemDir::new(89));
    let observer = patient().queue_entries_max(2).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    begun(&session, "c-1");
    let held = hold_the_log(&log);
    let batched = session.clone().level(Level::Batched);
    for n in 0..2 {
        batched.error(JsonText::string(&n.to_string())).unwrap();
    }
    let mut end = Box::pin(session.end_by_call_id_async(TOOL, id("c-1"), ok()));
    assert!(poll(&mut end).is_pending(), "there is no room");
    drop(end);
    drop(held);
    assert_eq!(observer.health().open_starts, 1, "it was not recorded");
    observer.flush().unwrap();
    let held = hold_the_log(&log);
    let mut end = Box::pin(session.end_by_call_id_async(TOOL, id("c-1"), ok()));
    assert!(poll(&mut end).is_pending(), "it is queued, and its sync is waited for");
    drop(end);
    drop(held);
    assert_eq!(observer.health().open_starts, 0, "a second end would be a second truth");
    observer.flush().unwrap();
    let ends = all(&log).into_iter().filter(|entry| entry.kind == EntryKind::ToolEnd);
    let spans: Vec<_> = ends.map(|end| end.span.is_some()).collect();
    assert_eq!((spans, state(&log, "c-1")), (vec![true], CallState::Settled));
}

/// A refused end is no end: its call is found again when there is space.
#[test]
fn an_end_by_its_call_id_that_a_full_disk_refuses_may_be_tried_again() {
    let disk = MemDir::new(90);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    begun(&session, "c-1");
    disk.set_bytes_free(Some(0));
    let big = || Outcome::Ok(JsonText::string(&"x".repeat(50_000)));
    let mut refused = 0;
    for _ in 0..4 {
        let session = session.clone();
        let ended = within(move || block_on(session.end_by_call_id_async(TOOL, id("c-1"), big())));
        refused += usize::from(ended.is_err());
        if ended.is_ok() {
            begun(&observer.session("s-1").unwrap(), "c-1");
        }
    }
    assert!(refused > 0, "the disk was never full");
    assert_eq!(observer.health().open_starts, 1);
    disk.set_bytes_free(None);
    let by_id = session.clone();
    within(move || block_on(by_id.end_by_call_id_async(TOOL, id("c-1"), ok()))).unwrap();
    let end = all(&log).pop().unwrap();
    assert!(end.span.is_some(), "it was found again");
    assert_eq!(observer.health().open_starts, 0);
}

#[test]
fn a_run_that_requires_intents_can_be_declared_in_async_code() {
    let log = open(&MemDir::new(91));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let none = within({
        let session = session.clone();
        move || block_on(session.require_intents_async())
    });
    assert_eq!(none.unwrap_err().kind(), ErrorKind::Invalid, "it has no id");
    let session = session.run(RunId::new("r").unwrap());
    let held = hold_the_log(&log);
    let mut declared = Box::pin(session.require_intents_async());
    assert!(poll(&mut declared).is_pending());
    drop(held);
    let session = within(move || block_on(declared)).unwrap().level(Level::Batched);
    assert_eq!(session.tool("t").start().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(all(&log)[0].kind, EntryKind::RunStart, "and the log says so, durably");
}
