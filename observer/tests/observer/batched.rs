//! The queue of an observer: what it admits, what it drops and says so, and what a flush tells.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, Detail, EntryKind, ErrorKind, FlushOutcome, JsonText, Level, Options,
    Outcome, Overflow,
};
use annals_wal::Log;
use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};

use crate::common::{HandClock, all, open};

const LONG: Duration = Duration::from_secs(60);

/// Written only when somebody asks, so that a test says when.
fn patient() -> Options {
    Options::new().batch_age_max(LONG).clock(Arc::new(HandClock::default()))
}

fn text(n: u64) -> JsonText {
    JsonText::string(&n.to_string())
}

fn flushed(outcome: &FlushOutcome) -> Option<u64> {
    match outcome {
        FlushOutcome::Flushed(lsn) => lsn.map(|lsn| lsn.get()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn batched_entries_wait_in_memory_and_a_flush_makes_them_durable_in_order() {
    let disk = MemDir::new(1);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    for n in 0..100 {
        assert!(!session.error(text(n)).unwrap().dropped);
    }
    assert_eq!((all(&log).len(), observer.health().queued), (0, 100));
    assert_eq!(flushed(&observer.force_flush(LONG)), Some(100));
    let crashed = all(&open(&disk.crash(Keep::Nothing)));
    assert_eq!(
        crashed.iter().map(|e| e.ticket.sequence).collect::<Vec<_>>(),
        (1..=100).collect::<Vec<_>>()
    );
    assert!(observer.health().all_durable);
}

#[test]
fn a_durable_entry_takes_everything_queued_before_it_along() {
    let disk = MemDir::new(2);
    let log = open(&disk);
    let observer = patient().on(log).unwrap();
    let session = observer.session("s-1").unwrap();
    let batched = session.clone().level(Level::Batched);
    for n in 0..10 {
        batched.error(text(n)).unwrap();
    }
    let receipt = session.error(text(10)).unwrap();
    assert_eq!(receipt.lsn.map(|lsn| lsn.get()), Some(11));
    let crashed = all(&open(&disk.crash(Keep::Nothing)));
    let errors: Vec<_> = crashed.into_iter().map(|entry| entry.error.unwrap()).collect();
    assert_eq!(errors, (0..=10).map(text).collect::<Vec<_>>());
}

#[test]
fn a_batch_is_written_when_it_is_large_or_old_enough() {
    let log = open(&MemDir::new(3));
    let observer = patient().batch_bytes(4 << 10).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let big = JsonText::string(&"x".repeat(5000));
    session.error(big).unwrap();
    wait_for(|| all(&log).len() == 1);
    let quick = Options::new().batch_age_max(Duration::from_millis(1)).on(log.clone()).unwrap();
    quick.session("s-2").unwrap().level(Level::Batched).error(text(1)).unwrap();
    wait_for(|| all(&log).len() == 2);
}

/// What another thread will have done; a test that hangs here has failed.
#[expect(clippy::disallowed_methods, reason = "a bounded poll: the other thread tells nobody")]
pub(crate) fn wait_for(done: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it never happened");
}

/// While it lives no entry gets into the log: what the observer's thread takes out of its queue it
/// holds in its hands, where it counts as if it stood in the queue. So what finds room is decided by
/// the test and not by that thread's pace.
pub(crate) struct Held(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

pub(crate) fn hold_the_log(log: &Log) -> Held {
    let ((tell, told), (release, released)) = (mpsc::channel(), mpsc::channel());
    let log = log.clone();
    let holder = std::thread::spawn(move || {
        let ordered = log.ordered(|_| {
            tell.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        });
        drop(ordered.unwrap());
    });
    told.recv().unwrap();
    Held(Some((release, holder)))
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((release, holder)) = self.0.take() {
            drop(release);
            let _ = holder.join();
        }
    }
}

#[test]
fn what_is_dropped_is_accounted_for_in_the_batch_of_the_next_entry() {
    let disk = MemDir::new(4);
    let log = open(&disk);
    let options = patient().overflow(Overflow::DropNewest).queue_entries_max(8);
    let observer = options.on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let held = hold_the_log(&log);
    // One place a start; the ends of those that were admitted need none.
    let mut calls: Vec<_> = (0..14).map(|_| session.tool("t").start().unwrap()).collect();
    let dropped: Vec<bool> = calls.iter().map(|call| call.start_receipt().dropped).collect();
    assert_eq!(dropped, [[false; 8].as_slice(), &[true; 6]].concat());
    for call in &mut calls {
        let receipt = call.end_ok(text(0)).unwrap();
        assert_eq!(receipt.dropped, call.start_receipt().dropped, "a dropped start drops its end");
    }
    drop(held);
    assert!(observer.force_flush(LONG).is_flushed());
    let entries = all(&log);
    let count = |kind| entries.iter().filter(|entry| entry.kind == kind).count();
    assert_eq!((count(EntryKind::ToolStart), count(EntryKind::ToolEnd)), (8, 8));
    let mut accounted = 0;
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Dropped) {
        let said: serde_json::Value =
            serde_json::from_str(entry.metadata.as_ref().unwrap().as_str()).unwrap();
        let ranges = said["tickets"].as_array().unwrap();
        accounted +=
            ranges.iter().map(|r| r[1].as_u64().unwrap() - r[0].as_u64().unwrap() + 1).sum::<u64>();
    }
    assert_eq!(accounted, 12, "six starts and their six ends");
    assert_eq!(observer.health().dropped, 12);
    let present: Vec<u64> = entries.iter().map(|entry| entry.ticket.sequence).collect();
    assert!(present.is_sorted(), "{present:?}");
    let last = observer.health().accepted;
    assert_eq!(present.len() as u64 + accounted, last, "every ticket is an entry or accounted for");
}

#[test]
fn ends_find_their_place_however_full_the_queue_is() {
    let log = open(&MemDir::new(5));
    let options = patient().overflow(Overflow::DropNewest).queue_entries_max(8);
    let observer = options.on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let held = hold_the_log(&log);
    let mut call = session.tool("t").start().unwrap();
    let others: Vec<_> = (0..20).map(|n| session.handoff("a", n.to_string()).unwrap()).collect();
    assert_eq!(others.iter().filter(|receipt| receipt.dropped).count(), 13);
    assert!(!call.end_error(text(1)).unwrap().dropped);
    drop(held);
    assert!(observer.force_flush(LONG).is_flushed());
    assert!(all(&log).iter().any(|entry| entry.kind == EntryKind::ToolEnd));
}

#[test]
fn with_the_policy_wait_many_threads_lose_nothing_through_a_small_queue() {
    let log = open(&MemDir::new(6));
    let options = Options::new().queue_entries_max(4).batch_age_max(Duration::ZERO);
    let observer = options.on(log.clone()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let session = observer.session(format!("s-{thread}")).unwrap().level(Level::Batched);
            scope.spawn(move || {
                for n in 0..200 {
                    session.error(text(n)).unwrap();
                }
            });
        }
    });
    assert!(observer.force_flush(LONG).is_flushed());
    let entries = all(&log);
    assert_eq!(entries.len(), 1600);
    assert!(entries.iter().map(|e| e.ticket.sequence).eq(1..=1600));
}

#[test]
fn a_full_disk_is_an_outcome_of_the_flush_and_is_over_when_there_is_space() {
    let disk = MemDir::new(7);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    disk.set_bytes_free(Some(0));
    let big = JsonText::string(&"x".repeat(4000));
    for _ in 0..100 {
        session.error(big.clone()).unwrap();
    }
    match observer.force_flush(LONG) {
        FlushOutcome::Failed { pending, cause, .. } => {
            assert_eq!(cause.log_error().unwrap().kind(), annals_wal::ErrorKind::Full);
            assert!(pending > 0 && !cause.outcome_unknown());
        }
        other => panic!("{other:?}"),
    }
    assert!(observer.health().full.is_some());
    disk.set_bytes_free(None);
    assert!(observer.force_flush(LONG).is_flushed());
    assert!(observer.health().full.is_none() && observer.health().all_durable);
    assert_eq!(all(&log).len(), 100, "nothing was lost meanwhile");
    assert!(all(&log).iter().map(|e| e.ticket.sequence).eq(1..=100));
}

#[test]
fn a_failed_sync_ends_every_wait() {
    let disk = MemDir::new(8);
    let log = open(&disk);
    let observer = patient().on(log).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(text(1)).unwrap();
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
    match observer.force_flush(LONG) {
        FlushOutcome::Failed { durable: None, pending: 1, cause } => {
            assert!(cause.outcome_unknown(), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(session.error(text(2)).unwrap_err().kind(), ErrorKind::Log);
    assert!(matches!(observer.force_flush(LONG), FlushOutcome::Failed { .. }));
}

#[test]
fn a_flush_that_runs_out_of_time_is_no_error() {
    let disk = MemDir::new(9);
    let observer = patient().on(open(&disk)).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(text(1)).unwrap();
    // No time at all: whatever the worker does, the call comes back and says what is true.
    match observer.force_flush(Duration::ZERO) {
        FlushOutcome::TimedOut { pending, .. } => assert_eq!(pending, 1),
        FlushOutcome::Flushed(lsn) => assert_eq!(lsn.map(|lsn| lsn.get()), Some(1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(flushed(&observer.force_flush(LONG)), Some(1));
}

#[test]
fn shutdown_writes_what_is_queued_and_refuses_what_comes_after() {
    let disk = MemDir::new(10);
    let observer = patient().on(open(&disk)).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let mut call = session.tool("t").start().unwrap();
    observer.shutdown().unwrap();
    observer.shutdown().unwrap();
    assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 1);
    assert_eq!(call.end_ok(text(0)).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(session.error(text(0)).unwrap_err().kind(), ErrorKind::Closed);
    assert!(observer.force_flush(LONG).is_flushed(), "nothing is pending");
}

#[test]
fn dropping_the_last_handle_still_writes_what_is_queued() {
    let log = open(&MemDir::new(11));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    for n in 0..50 {
        session.error(text(n)).unwrap();
    }
    drop((observer, session));
    wait_for(|| all(&log).len() == 50);
}

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Polls on this thread alone, as a current-thread runtime does.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let counter = Arc::new(CountingWaker::default());
    let waker = Waker::from(counter.clone());
    let mut seen = 0;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        wait_for(|| counter.0.load(SeqCst) > seen);
        seen = counter.0.load(SeqCst);
    }
}

#[test]
fn async_calls_wait_as_futures_and_are_durable_when_ready() {
    let disk = MemDir::new(12);
    let log = open(&disk);
    let observer = patient().on(log).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut call = block_on(session.tool("t").start_async()).unwrap();
    assert_eq!(call.start_receipt().lsn.map(|lsn| lsn.get()), Some(1));
    let end = block_on(call.end_async(Outcome::Ok(text(1)))).unwrap();
    assert_eq!(end.lsn.map(|lsn| lsn.get()), Some(2));
    assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 2);
    let failed = block_on(session.tool("t").run_async(async { Err::<u8, _>("no such file") }));
    assert_eq!(failed.unwrap(), Err("no such file"));
    let end = all(&open(&disk.crash(Keep::Nothing))).pop().unwrap();
    assert_eq!(end.error, Some(JsonText::string("no such file")));
}

#[test]
fn an_async_call_on_a_full_disk_is_refused_and_leaves_no_entry_behind() {
    let disk = MemDir::new(13);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    disk.set_bytes_free(Some(0));
    let big = JsonText::string(&"x".repeat(60_000));
    let error = loop {
        match block_on(session.tool("t").input(big.clone()).start_async()) {
            Ok(_) => assert!(all(&log).len() < 100),
            Err(error) => break error,
        }
    };
    assert_eq!(error.log_error().unwrap().kind(), annals_wal::ErrorKind::Full);
    // The account itself is small and may have found its place by now.
    let entries = |log: &Log| all(log).iter().filter(|e| e.kind != EntryKind::Dropped).count();
    let before = entries(&log);
    disk.set_bytes_free(None);
    assert!(observer.force_flush(LONG).is_flushed());
    assert_eq!(entries(&log), before, "nothing but the account of the refused ticket");
    let all = all(&log);
    assert_eq!(all.len(), before + 1);
    assert_eq!(all.last().unwrap().kind, EntryKind::Dropped);
}

#[test]
fn a_future_that_is_dropped_ends_the_call_as_cancelled() {
    let log = open(&MemDir::new(14));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let mut future =
        Box::pin(session.tool("t").run_async(std::future::pending::<Result<u8, String>>()));
    let waker = Waker::from(Arc::new(CountingWaker::default()));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(future);
    assert!(observer.force_flush(LONG).is_flushed());
    let entries = all(&log);
    assert_eq!(entries.len(), 2);
    assert!(entries[1].error.as_ref().unwrap().as_str().contains("cancelled"));
}

#[test]
fn work_that_panics_is_an_end_with_the_panic() {
    let log = open(&MemDir::new(15));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        session.tool("t").run(|_| -> Result<u8, String> { panic!("boom") })
    }));
    assert!(panic.is_err());
    let end = all(&log).pop().unwrap();
    let error = end.error.unwrap();
    assert!(
        error.as_str().contains("panic") && error.as_str().contains("boom"),
        "{}",
        error.as_str()
    );
    assert!(end.duration.is_some());
}

#[test]
fn levels_of_detail_keep_errors_and_names() {
    for (detail, texts) in [
        (Detail::Minimal, [false, false, false]),
        (Detail::Standard, [true, true, false]),
        (Detail::Full, [true, true, true]),
    ] {
        let log = open(&MemDir::new(16));
        let observer = patient().detail(detail).on(log.clone()).unwrap();
        let session = observer.session("s-1").unwrap();
        let metadata = JsonText::parse(r#"{"a":1}"#).unwrap();
        let start = session.tool("t").input(text(1)).metadata(metadata).start();
        start.unwrap().end_ok(text(2)).unwrap();
        session.tool("u").start().unwrap().end_error(text(3)).unwrap();
        let entries = all(&log);
        let kept = [
            entries[0].input.is_some(),
            entries[1].output.is_some(),
            entries[0].metadata.is_some(),
        ];
        assert_eq!(kept, texts, "{detail:?}");
        assert_eq!(entries[3].error, Some(text(3)));
        assert_eq!(entries[0].tool.as_deref(), Some("t"));
    }
}

#[test]
fn prompts_inputs_and_outputs_can_be_left_out_one_by_one() {
    let log = open(&MemDir::new(17));
    let observer = patient().include_prompts(false).include_output(false).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    session.llm("m").input(text(1)).start().unwrap().end_ok(text(2)).unwrap();
    session.tool("t").input(text(3)).start().unwrap().end_ok(text(4)).unwrap();
    let entries = all(&log);
    assert_eq!((&entries[0].input, &entries[1].output), (&None, &None));
    assert_eq!((&entries[2].input, &entries[3].output), (&Some(text(3)), &None));
}

/// A future of a durable start may be dropped while it waits for its sync: a timeout, a `select`.
/// Its open start was then in no table: nobody knew of it. (Nor was the place ever given back that was
/// kept for its end in those days.)
#[test]
fn a_start_dropped_while_it_waits_for_its_sync_gives_its_place_back_and_stays_open() {
    let disk = MemDir::new(15);
    let log = open(&disk);
    let options = patient().queue_entries_max(6).overflow(Overflow::DropNewest);
    let clock = Arc::new(HandClock::default());
    let observer = options.clock(clock.clone()).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let waker = Waker::from(Arc::new(CountingWaker::default()));
    disk.slow_syncs(Duration::from_millis(20));
    for n in 0..10 {
        let call_id = CallId::new(format!("call_{n}")).unwrap();
        let mut start = Box::pin(session.tool("t").call_id(call_id).start_async());
        // Ready only if this thread stood still for a whole sync; the end is the same then.
        drop(start.as_mut().poll(&mut Context::from_waker(&waker)));
        drop(start);
        assert!(observer.force_flush(LONG).is_flushed());
    }
    assert_eq!(observer.health().open_starts, 10);
    let start = session.clone().level(Level::Batched).span("room for it and its end").start();
    assert!(!start.unwrap().start_receipt().dropped);
    clock.advance(7);
    let call_id = CallId::new("call_3").unwrap();
    session.end_by_call_id(CallKind::Tool, call_id, Outcome::Ok(text(3))).unwrap();
    let end = all(&log).pop().unwrap();
    assert_eq!(end.duration, Some(Duration::from_nanos(7)));
    assert!(end.span.is_some());
}
