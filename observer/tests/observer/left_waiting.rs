//! Whoever waits is woken, and what he waited for is his: a thread that is gone, an entry that no
//! segment takes, a clock or a waker that panics, an end that is on its way.
//!
//! Each test forces the one order in which somebody was left behind. Never here: an order by a sleep.
//! Next rooms: `waits.rs`, `panics.rs`.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, Clock, EntryKind, JsonText, Level, MonoTime, Observer, Options, Outcome,
    Result, WallTime,
};
use annals_wal::Lsn;
use annals_wal::fs::mem::MemDir;

use crate::batched::{hold_the_log, wait_for};
use crate::common::{HandClock, NEW_YEAR, all, open};
use crate::waits::{block_on, within};

const LONG: Duration = Duration::from_secs(60);

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

fn text(text: &str) -> JsonText {
    JsonText::string(text)
}

fn patient() -> Options {
    Options::new().batch_age_max(LONG).clock(Arc::new(HandClock::default()))
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A flush that owns its observer.
fn flush(observer: &Observer) -> impl Future<Output = Result<Option<Lsn>>> + Send + use<> {
    let observer = observer.clone();
    async move { observer.flush_async().await }
}

/// Once armed it lets the observer's thread panic before the thread that asks it goes on.
#[derive(Default, Debug)]
struct Gate {
    observer: OnceLock<Observer>,
    armed: AtomicBool,
    panics: AtomicBool,
}

impl Clock for Gate {
    fn wall(&self) -> WallTime {
        self.mono();
        WallTime(NEW_YEAR)
    }

    fn mono(&self) -> MonoTime {
        if std::thread::current().name() == Some("annals-observer") {
            assert!(!self.panics.swap(false, SeqCst), "a clock fails");
        } else if self.armed.swap(false, SeqCst) {
            self.panics.store(true, SeqCst);
            let observer = self.observer.get().unwrap();
            wait_for(|| observer.health().last_error.is_some());
        }
        MonoTime(1)
    }
}

/// A flush saw that the thread runs and asked for the time; then the thread was gone, and what the
/// flush asked for was asked of nobody.
#[test]
fn a_flush_whose_thread_dies_while_it_asks_finds_another() {
    for asynchronous in [true, false] {
        let log = open(&MemDir::new(101));
        let clock = Arc::new(Gate::default());
        let options = Options::new().clock(clock.clone()).batch_age_max(LONG);
        let observer =
            options.open_start_age_max(Duration::from_millis(20)).on(log.clone()).unwrap();
        clock.observer.set(observer.clone()).unwrap();
        let session = observer.session("s-1").unwrap().level(Level::Batched);
        let open = session.tool("t").start().unwrap(); // so that the thread asks the clock
        assert_eq!(all(&log).len(), 0);
        clock.armed.store(true, SeqCst);
        within(move || match asynchronous {
            true => drop(block_on(observer.flush_async()).unwrap()),
            false => assert!(observer.force_flush(LONG).is_flushed()),
        });
        assert!(!clock.armed.load(SeqCst) && !clock.panics.load(SeqCst), "it has panicked");
        assert_eq!(all(&log).len(), 1, "asynchronous: {asynchronous}");
        drop(open);
    }
}

/// Time for other threads, where nothing shows that they have come as far as they can: what the
/// test asks holds whether they have or not, and without the fix it shows only if they have.
fn others_go_on() {
    (0..50_000).for_each(|_| std::thread::yield_now());
}

/// Its account is all that the flush waits for, and the thread sleeps.
#[test]
fn a_flush_of_an_entry_that_no_segment_takes_ends() {
    let small = annals_wal::Options::new().segment_bytes(64 << 10).segment_bytes_max(64 << 10);
    let log = small.open_in(MemDir::new(102).dir()).unwrap();
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(text(&"y".repeat(200_000))).unwrap();
    let held = hold_the_log(&log);
    let takes = std::thread::spawn({
        let observer = observer.clone();
        move || drop(observer.flush())
    });
    // It has the queue in its hands when it stands before the log: there is nothing to see of that.
    others_go_on();
    let mut flush = Box::pin(flush(&observer));
    assert!(poll(&mut flush).is_pending());
    // The thread looks, finds nothing that it could do and sleeps on.
    others_go_on();
    drop(held);
    takes.join().unwrap();
    within(move || drop(block_on(flush)));
    let kinds: Vec<_> = all(&log).into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Dropped], "and the log says what is gone");
}

/// Panics at a reading that is counted, on any thread but the observer's.
#[derive(Debug, Default)]
struct Panics {
    left: Mutex<Option<u32>>,
}

impl Clock for Panics {
    fn wall(&self) -> WallTime {
        WallTime(NEW_YEAR)
    }

    fn mono(&self) -> MonoTime {
        if std::thread::current().name() != Some("annals-observer") {
            let mut left = self.left.lock().unwrap();
            let now = left.take();
            *left = now.and_then(|left| left.checked_sub(1));
            drop(left);
            assert!(now != Some(0), "a clock fails");
        }
        MonoTime(1)
    }
}

/// The start was queued and its caller is gone with a panic: a full disk told nobody that it is lost,
/// and lost it.
#[test]
fn a_start_whose_clock_panics_is_nobodys_to_lose_on_a_full_disk() {
    let disk = MemDir::new(103);
    let log = open(&disk);
    let clock = Arc::new(Panics::default());
    let observer = Options::new().clock(clock.clone()).batch_age_max(LONG).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let big = || text(&"x".repeat(50_000));
    disk.set_bytes_free(Some(0));
    while session.error(big()).is_ok() {}
    let before = all(&log).len();
    let held = hold_the_log(&log);
    *clock.left.lock().unwrap() = Some(1); // its own stamp, and then when it was queued
    let mut start = Box::pin(session.tool("t").call_id(id("c-1")).input(big()).start_async());
    let polled = catch_unwind(AssertUnwindSafe(|| poll(&mut start).is_pending()));
    assert!(polled.is_err() && clock.left.lock().unwrap().is_none(), "it has panicked");
    drop(start);
    drop(held);
    let full = observer.flush(); // somebody has tried
    disk.set_bytes_free(None);
    observer.flush().unwrap();
    let kinds: Vec<_> = all(&log).into_iter().skip(before).map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ToolStart], "{full:?}");
    assert_eq!(observer.health().open_starts, 1, "what the log has as begun is open");
}

/// An end on its way was no reason not to write its call off: two truths, and if the write-off
/// failed nobody could end the call any more.
#[test]
fn a_call_whose_end_is_on_its_way_is_not_written_off() {
    for given_up in [false, true] {
        let log = open(&MemDir::new(104));
        let clock = Arc::new(HandClock::default());
        let options = Options::new().batch_age_max(LONG).clock(clock.clone()).queue_entries_max(2);
        let age = Duration::from_secs(600);
        let observer = options.open_start_age_max(age).on(log.clone()).unwrap();
        let session = observer.session("s-1").unwrap();
        drop(session.tool("t").call_id(id("c-1")).start().unwrap());
        let held = hold_the_log(&log);
        let batched = session.clone().level(Level::Batched);
        batched.error(text("1")).unwrap();
        batched.error(text("2")).unwrap();
        let ok = Outcome::Ok(text("ok"));
        let ending = session.clone();
        let mut end =
            Box::pin(
                async move { ending.end_by_call_id_async(CallKind::Tool, id("c-1"), ok).await },
            );
        assert!(poll(&mut end).is_pending(), "there is no room");
        clock.advance(3_600_000_000_000);
        drop(held);
        observer.flush().unwrap();
        assert_eq!(observer.health().written_off, 0, "it is being ended");
        if given_up {
            drop(end);
        } else {
            within(move || block_on(end)).unwrap();
        }
        observer.flush().unwrap();
        let health = observer.health();
        assert_eq!((health.open_starts, health.written_off), (0, u64::from(given_up)));
        let last = all(&log).pop().unwrap();
        let wanted = if given_up { EntryKind::Abandoned } else { EntryKind::ToolEnd };
        assert_eq!((last.kind, all(&log).len()), (wanted, 4), "and only once");
    }
}

/// Counts, or panics.
struct Woken(Option<AtomicUsize>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let Some(count) = &self.0 else { panic!("a waker fails") };
        count.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_waker_that_panics_leaves_nobody_behind_it_asleep() {
    let log = open(&MemDir::new(105));
    let observer = patient().on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(text("asked for")).unwrap();
    let held = hold_the_log(&log);
    let (bad, good) = (Arc::new(Woken(None)), Arc::new(Woken(Some(AtomicUsize::new(0)))));
    let mut flushes = Vec::new();
    for waker in [bad, good.clone()] {
        let mut flush = Box::pin(flush(&observer));
        let waker = Waker::from(waker);
        assert!(flush.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        flushes.push(flush);
    }
    drop(held);
    let woken = || good.0.as_ref().unwrap().load(SeqCst);
    wait_for(|| woken() == 1);
    for flush in flushes {
        let told = within(move || block_on(flush));
        assert!(told.is_ok(), "{told:?}");
    }
    assert_eq!(all(&log).len(), 1);
}
