//! What reviews found in the observer, each as the test that failed before it was mended.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, CallState, Clock, EntryKind, JsonText, Level, MonoTime, Observer, Options,
    Outcome, Overflow, Retention, RunId, WallTime, call_state, encode_entry,
};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Codec, Log, Lsn, Record};

use crate::batched::{hold_the_log, wait_for};
use crate::common::{HandClock, all, observer, open, stored};

const LONG: Duration = Duration::from_secs(60);

fn ok() -> JsonText {
    JsonText::string("ok")
}

fn big() -> JsonText {
    JsonText::string(&"x".repeat(4_000))
}

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

fn run(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

/// Written only when somebody asks.
fn patient() -> Options {
    Options::new().batch_age_max(LONG).clock(Arc::new(HandClock::default()))
}

// What became of a call.

#[test]
fn a_second_begin_of_a_call_id_that_was_given_up_once_is_ambiguous() {
    let log = open(&MemDir::new(1));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap().run(run("r")).require_intents().unwrap();
    let begin = || session.tool("t").call_id(id("c-1")).begin().unwrap();
    drop(begin()); // given up, and tried again
    let _running = begin().enter();
    observer.flush().unwrap();
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c-1").unwrap(), CallState::Ambiguous);
}

#[test]
fn a_start_of_another_run_that_was_given_up_does_not_hide_the_one_that_ran() {
    let log = open(&MemDir::new(2));
    let (observer, _) = observer(&log);
    let session = |name| observer.session("s-1").unwrap().run(run(name));
    let _running = session("a").tool("t").call_id(id("c-1")).begin().unwrap().enter();
    drop(session("b").tool("t").call_id(id("c-1")).begin().unwrap());
    observer.flush().unwrap();
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c-1").unwrap(), CallState::Ambiguous);
    let of_b = session("b").require_intents().unwrap();
    drop(of_b);
    // A run that does not require intents may have lost its start.
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c-2").unwrap(), CallState::Ambiguous);
}

#[test]
fn after_a_trim_nothing_is_said_to_have_never_started() {
    let log = open(&MemDir::new(3));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap().run(run("r")).require_intents().unwrap();
    session.tool("t").call_id(id("c-1")).begin().unwrap().enter().end_ok(ok()).unwrap();
    for _ in 0..100 {
        session.error(big()).unwrap();
    }
    let session = session.require_intents().unwrap(); // as a resumed run does
    drop(session.tool("t").call_id(id("c-1")).begin().unwrap());
    observer.flush().unwrap();
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c-1").unwrap(), CallState::Settled);
    assert!(observer.retain(Retention::new().records_max(5)).unwrap() > Lsn::FIRST);
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c-1").unwrap(), CallState::Ambiguous);
}

#[test]
fn a_start_without_any_id_is_written_off_once() {
    let disk = MemDir::new(4);
    let log = open(&disk);
    let entry = annals_observer::Entry::new(EntryKind::ToolStart);
    let payload = encode_entry(&entry).unwrap();
    let record = Record::new(&payload).kind(EntryKind::ToolStart.record_kind());
    log.append(record.codec(Codec::BINCODE)).unwrap();
    let log = open(&disk.crash(Keep::Nothing));
    let (observer, _) = observer(&log);
    for written_off in [1, 0, 0] {
        assert_eq!(observer.recover().unwrap().written_off, written_off);
    }
}

// What retention may drop.

#[test]
fn retention_before_a_recovery_keeps_the_starts_that_a_crash_left_open() {
    let disk = MemDir::new(5);
    let (before, _) = observer(&open(&disk));
    let session = before.session("s-1").unwrap();
    let _cut = session.tool("t").call_id(id("cut")).begin().unwrap().enter();
    for _ in 0..100 {
        session.error(big()).unwrap();
    }
    let log = open(&disk.crash(Keep::Nothing));
    let (after, _) = observer(&log);
    let few = Retention::new().records_max(5);
    assert_eq!(after.retain(few).unwrap(), Lsn::FIRST, "nobody has written it off");
    assert_eq!(after.recover().unwrap().written_off, 1);
    assert!(after.retain(few).unwrap() > Lsn::FIRST);
}

#[test]
fn retention_keeps_a_start_whose_end_is_only_queued() {
    let disk = MemDir::new(6);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut call = session.tool("t").call_id(id("c-1")).start().unwrap();
    for _ in 0..100 {
        session.error(big()).unwrap();
    }
    let by_id = session.tool("t").call_id(id("c-2")).start().unwrap();
    drop(by_id);
    let mut batched = session.clone().level(Level::Batched).tool("u").start().unwrap();
    observer.flush().unwrap();
    batched.end_ok(ok()).unwrap();
    let few = Retention::new().records_max(1);
    // The end of the batched call is queued, the first one's is not there at all.
    assert_eq!(observer.retain(few).unwrap(), Lsn::FIRST);
    call.end_ok(ok()).unwrap();
    let session = session.level(Level::Batched);
    let mut last = session.tool("v").call_id(id("last")).start().unwrap();
    observer.flush().unwrap();
    for _ in 0..100 {
        session.error(big()).unwrap();
    }
    observer.flush().unwrap();
    let start = stored(&log).into_iter().find(|s| s.entry.call_id == Some(id("last"))).unwrap();
    last.end_ok(ok()).unwrap();
    session.end_by_call_id(CallKind::Tool, id("c-2"), Outcome::Ok(ok())).unwrap();
    let head = observer.retain(few).unwrap();
    assert!(head <= start.lsn, "{head} is past the start at {} whose end is queued", start.lsn);
    let crashed = open(&disk.crash(Keep::Nothing));
    assert_eq!(call_state(&crashed, "s-1", CallKind::Tool, "last").unwrap(), CallState::Ambiguous);
    let of_last = all(&crashed).into_iter().filter(|entry| entry.call_id == Some(id("last")));
    assert_eq!(of_last.count(), 1, "the start is there and the end is not");
    observer.flush().unwrap();
    assert!(observer.retain(few).unwrap() > start.lsn);
}

/// The spare is prepared long before it is needed: its birth says nothing about the records that
/// went into the segment before it meanwhile.
#[test]
fn retention_by_time_keeps_what_was_written_after_the_spare_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let segments = || {
        let names = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension() == Some("wal".as_ref())).count()
    };
    while segments() < 2 {
        session.error(big()).unwrap();
        if stored(&log).len() > 9 {
            wait_for(|| segments() == 2); // more than half of the segment is full
        }
    }
    let clock = annals_observer::SystemClock::new();
    let made = clock.wall();
    let since = loop {
        let now = clock.wall();
        if now.0 / 1_000_000 > made.0 / 1_000_000 + 1 {
            break now;
        }
    };
    let first_kept = session.error(JsonText::string("wanted")).unwrap().lsn.unwrap();
    while segments() < 5 {
        session.error(big()).unwrap();
    }
    let head = observer.retain(Retention::new().since(since)).unwrap();
    assert!(head <= first_kept, "the record at {first_kept} was written later, head {head}");
}

// Waiting for room, and for a sync.

#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn counting() -> (Arc<Counting>, Waker) {
    let counting = Arc::new(Counting::default());
    (counting.clone(), Waker::from(counting))
}

fn poll<F: Future>(future: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

/// Polls until it is ready, on this thread alone.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let (counting, waker) = counting();
    let mut seen = 0;
    loop {
        if let Poll::Ready(output) = poll(&mut future, &waker) {
            return output;
        }
        wait_for(|| counting.0.load(SeqCst) > seen);
        seen = counting.0.load(SeqCst);
    }
}

/// The queue of this observer holds four entries.
fn narrow(log: &Log) -> Observer {
    patient().queue_entries_max(4).on(log.clone()).unwrap()
}

#[test]
fn a_place_that_is_free_again_wakes_the_future_that_waits_for_it() {
    let log = open(&MemDir::new(7));
    let observer = narrow(&log);
    let session = observer.session("s-1").unwrap();
    let batched = session.clone().level(Level::Batched);
    let held = hold_the_log(&log);
    let calls: Vec<_> = (0..4).map(|_| batched.tool("t").start().unwrap()).collect();
    let (counting, waker) = counting();
    let mut fifth = Box::pin(batched.tool("t").start_async());
    for _ in 0..100 {
        assert!(poll(&mut fifth, &waker).is_pending());
    }
    let mut gone = Box::pin(batched.tool("t").start_async());
    assert!(poll(&mut gone, &waker).is_pending());
    let strong = Arc::strong_count(&counting);
    assert!(strong <= 4, "a waker for each poll: {strong}");
    drop(gone);
    assert!(Arc::strong_count(&counting) <= 3, "a dropped future leaves no waker behind");
    assert_eq!(counting.0.load(SeqCst), 0);
    drop(held); // what stands in the queue gets into the log
    wait_for(|| counting.0.load(SeqCst) > 0);
    assert!(poll(&mut fifth, &waker).is_ready(), "though four calls are open");
    drop((fifth, calls, session, batched, observer));
    wait_for(|| Arc::strong_count(&counting) <= 2);
}

/// The caller is about to do what it announces: a durable start waits, whatever the policy says.
#[test]
fn a_durable_async_start_is_never_dropped() {
    let disk = MemDir::new(15);
    let log = open(&disk);
    let options = patient().queue_entries_max(4).overflow(Overflow::DropNewest);
    let observer = options.on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let batched = session.clone().level(Level::Batched);
    for _ in 0..4 {
        assert!(!batched.handoff("a", "b").unwrap().dropped);
    }
    let (_, waker) = counting();
    let mut start = Box::pin(session.tool("t").begin_async());
    assert!(poll(&mut start, &waker).is_pending(), "there is no room, and it is not dropped");
    observer.flush().unwrap();
    let intent = block_on(start).unwrap();
    assert!(!intent.start_receipt().dropped && intent.start_receipt().lsn.is_some());
    let crashed = all(&open(&disk.crash(Keep::Nothing)));
    assert!(crashed.iter().any(|entry| entry.kind == EntryKind::ToolStart));
    drop(intent.enter());
}

/// A waker is code of a runtime: it may look at the observer before it returns.
#[test]
fn a_waker_may_use_the_observer() {
    struct Looking(Observer, AtomicUsize);
    impl Wake for Looking {
        fn wake(self: Arc<Self>) {
            assert!(self.0.health().accepted > 0);
            self.1.fetch_add(1, SeqCst);
        }
    }
    let observer = patient().on(open(&MemDir::new(8))).unwrap();
    let looking = Arc::new(Looking(observer.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(looking.clone());
    let session = observer.session("s-1").unwrap();
    let mut start = Box::pin(session.tool("t").start_async());
    if poll(&mut start, &waker).is_pending() {
        wait_for(|| looking.1.load(SeqCst) > 0);
        assert!(poll(&mut start, &waker).is_ready());
    }
}

/// So is a clock, which the account of what was dropped asks for the time.
#[test]
fn a_clock_may_use_the_observer() {
    #[derive(Default, Debug)]
    struct Looking(Mutex<Option<Observer>>);
    impl Clock for Looking {
        fn wall(&self) -> WallTime {
            let observer = self.0.lock().unwrap().clone();
            WallTime(observer.map_or(0, |observer| observer.health().accepted as i64))
        }
        fn mono(&self) -> MonoTime {
            MonoTime(0)
        }
    }
    let log = open(&MemDir::new(9));
    let clock = Arc::new(Looking::default());
    let options = Options::new().batch_age_max(LONG).clock(clock.clone());
    let options = options.queue_entries_max(3).overflow(Overflow::DropNewest);
    let observer = options.on(log.clone()).unwrap();
    *clock.0.lock().unwrap() = Some(observer.clone());
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    // Until one finds no room: the observer's thread may take some out meanwhile. (The log cannot be
    // held here: the clock asks for the observer's health, which looks at it.)
    let dropped = (0..1_000_000).find(|_| session.handoff("a", "b").unwrap().dropped);
    assert!(dropped.is_some());
    assert!(observer.force_flush(LONG).is_flushed());
    session.handoff("a", "b").unwrap();
    assert_eq!(all(&log).iter().filter(|e| e.kind == EntryKind::Dropped).count(), 1);
    *clock.0.lock().unwrap() = None;
}

#[test]
fn an_async_end_that_a_full_disk_refuses_may_be_tried_again() {
    let disk = MemDir::new(10);
    let log = open(&disk);
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut call = session.tool("t").call_id(id("c-1")).start().unwrap();
    let mut by_id = session.tool("t").call_id(id("c-2")).start().unwrap();
    disk.set_bytes_free(Some(0));
    let long = JsonText::string(&"x".repeat(60_000));
    let error = block_on(async {
        // Until the segment is full.
        for _ in 0..3 {
            let mut filler = session.tool("t").start_async().await?;
            filler.end_async(Outcome::Ok(long.clone())).await?;
        }
        Ok::<(), annals_observer::Error>(())
    });
    assert!(error.is_err());
    let refused = block_on(call.end_async(Outcome::Ok(long.clone()))).unwrap_err();
    assert_eq!(refused.log_error().unwrap().kind(), annals_wal::ErrorKind::Full);
    assert!(!call.is_ended(), "it is not in the log");
    assert!(by_id.end_ok(long.clone()).is_err());
    let open_starts = observer.health().open_starts;
    assert!(open_starts >= 2, "they are still open, {open_starts}");
    disk.set_bytes_free(None);
    let end = block_on(call.end_async(Outcome::Ok(ok()))).unwrap();
    assert!(end.lsn.is_some());
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c-1").unwrap(), CallState::Settled);
    session.end_by_call_id(CallKind::Tool, id("c-2"), Outcome::Ok(ok())).unwrap();
    assert!(all(&log).pop().unwrap().duration.is_some(), "the table still knows its start");
    assert_eq!(observer.health().open_starts, open_starts - 2);
}

/// Dropped while it waits for room, an end is not recorded; a guard then says `cancelled`.
#[test]
fn an_end_that_is_dropped_before_it_has_room_is_not_taken_for_recorded() {
    let log = open(&MemDir::new(11));
    let observer = narrow(&log);
    let session = observer.session("s-1").unwrap();
    let mut call = session.tool("t").call_id(id("c-1")).start().unwrap();
    let batched = session.clone().level(Level::Batched);
    for _ in 0..4 {
        batched.handoff("a", "b").unwrap();
    }
    let (_, waker) = counting();
    let mut end = Box::pin(call.end_async(Outcome::Ok(ok())));
    assert!(poll(&mut end, &waker).is_pending());
    drop(end);
    assert!(!call.is_ended());
    observer.flush().unwrap();
    call.end_ok(ok()).unwrap();
}

/// EMFILE at any one operation: a failed write or sync is final, the rest passes, and the observer
/// is as well as its log.
#[test]
fn an_error_that_passes_does_not_close_the_observer() {
    let (mut passed, mut poisoned) = (0, 0);
    for after in 0..30 {
        let disk = MemDir::new(12);
        disk.set_background(false);
        let log = open(&disk);
        let observer = patient().on(log.clone()).unwrap();
        let session = observer.session("s-1").unwrap().level(Level::Batched);
        disk.fail_op(disk.ops() + after, 24);
        for _ in 0..40 {
            session.error(big()).unwrap();
        }
        let flushed = observer.force_flush(LONG);
        if log.poisoned().is_some() {
            poisoned += 1;
            assert!(!flushed.is_flushed());
            continue;
        }
        passed += u32::from(!flushed.is_flushed());
        assert!(observer.force_flush(LONG).is_flushed(), "{after}: {:?}", observer.health());
        assert_eq!(all(&log).len(), 40, "{after}: nothing was lost meanwhile");
        assert!(observer.health().stuck.is_none());
    }
    assert!(passed > 0 && poisoned > 0, "{passed} passed, {poisoned} poisoned");
}

// The account of what was dropped.

fn accounted(log: &Log) -> BTreeSet<u64> {
    let said = all(log).into_iter().filter(|entry| entry.kind == EntryKind::Dropped);
    let texts = said.map(|entry| entry.metadata.unwrap());
    let values =
        texts.map(|text| serde_json::from_str::<serde_json::Value>(text.as_str()).unwrap());
    let ranges = values.flat_map(|value| value["tickets"].as_array().unwrap().clone());
    ranges.flat_map(|range| range[0].as_u64().unwrap()..=range[1].as_u64().unwrap()).collect()
}

#[test]
fn what_was_dropped_last_is_said_when_the_last_handle_goes() {
    let log = open(&MemDir::new(13));
    let options = patient().queue_entries_max(3).overflow(Overflow::DropNewest);
    let observer = options.on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let held = hold_the_log(&log);
    for _ in 0..3 {
        session.handoff("a", "b").unwrap();
    }
    let mut call = session.tool("t").start().unwrap(); // no room for it
    assert!(call.start_receipt().dropped);
    drop(held);
    assert!(observer.force_flush(LONG).is_flushed());
    let end = call.end_ok(ok()).unwrap();
    assert!(end.dropped);
    let dropped = [call.start_receipt(), end].map(|receipt| receipt.ticket.sequence);
    drop((session, call, observer)); // with nothing in the queue
    wait_for(|| accounted(&log) == BTreeSet::from(dropped));
}

#[test]
fn an_account_glued_to_an_entry_that_no_segment_takes_is_not_lost_with_it() {
    let disk = MemDir::new(14);
    let small = annals_wal::Options::new().segment_bytes(64 << 10).segment_bytes_max(64 << 10);
    let log = small.open_in(disk.dir()).unwrap();
    let options = patient().queue_entries_max(3).overflow(Overflow::DropNewest);
    let observer = options.on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let held = hold_the_log(&log);
    for _ in 0..3 {
        assert!(!session.handoff("a", "b").unwrap().dropped);
    }
    let dropped = session.handoff("a", "b").unwrap();
    assert!(dropped.dropped);
    drop(held);
    // A place will be free, and whoever takes it brings the account.
    let huge = session.error(JsonText::string(&"y".repeat(200_000))).unwrap();
    assert!(!huge.dropped);
    drop(observer.force_flush(LONG));
    assert!(observer.force_flush(LONG).is_flushed());
    let gone = accounted(&log);
    for ticket in [dropped.ticket.sequence, huge.ticket.sequence] {
        assert!(gone.contains(&ticket), "{ticket} is missing, and in no account: {gone:?}");
    }
    assert_eq!(all(&log).iter().filter(|e| e.kind != EntryKind::Dropped).count(), 3);
}
