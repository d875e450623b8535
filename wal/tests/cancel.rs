//! Futures let go: polled any number of times, by wakers that count, panic, drop other futures or
//! call the log, and then dropped. The record is in the log, in its order, and whoever still waits
//! is woken (commonwarexyz/monorepo#4165, influxdata/influxdb_iox#6281, tursodatabase/turso#9236).
//!
//! Never here: a sleep. The sync waits at a door until the test has polled what it wants to poll.
//! The same under a model checker: `tests/shuttle/futures.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use annals_wal::fs::gate::{Door, Gate};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{ErrorKind, Log, Lsn, Options, Pending, Record};

/// How long a test waits for what must come at once, before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log whose group syncs pass a door.
fn gated() -> (MemDir, Arc<Door>, Log) {
    let disk = MemDir::new(1);
    let door = Arc::new(Door::default());
    let at_door = door.clone();
    let gate =
        Gate::new(disk.dir(), move |op| if op == "sync Group" { at_door.pass() } else { Ok(()) });
    let log = Options::new().segment_bytes(64 << 10).open_in(gate).unwrap();
    (disk, door, log)
}

/// Opens what was dropped a moment ago. Its committer is on its way out, and on a busy machine that
/// takes longer than the 200 ms that an opening waits.
fn reopen(disk: &MemDir) -> Log {
    for _ in 0..100 {
        match Options::new().segment_bytes(64 << 10).open_in(disk.dir()) {
            Err(error) if error.kind() == ErrorKind::Locked => {}
            opened => return opened.unwrap(),
        }
    }
    panic!("the lock is never free");
}
fn submit(log: &Log, payload: &str) -> Pending {
    log.submit(Record::new(payload)).unwrap()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

/// What a machine finds that stops now and keeps nothing but what was synced.
fn payloads(disk: &MemDir) -> Vec<String> {
    let crashed = disk.crash(Keep::Nothing);
    let log = Options::new().segment_bytes(64 << 10).open_in(crashed.dir()).unwrap();
    let text = |record: annals_wal::StoredRecord| String::from_utf8(record.payload).unwrap();
    log.range(..).unwrap().map(|record| text(record.unwrap())).collect()
}

fn poll(pending: &mut Pending, waker: &Waker) -> Poll<u64> {
    let polled = Pin::new(pending).poll(&mut Context::from_waker(waker));
    polled.map(|result| result.unwrap().start().get())
}

/// Does what it was made with when it is woken, and tells whoever asks that it was.
struct Call {
    call: Box<dyn Fn() + Send + Sync>,
    told: Mutex<mpsc::Sender<()>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        let _ = self.told.lock().unwrap().send(());
        (self.call)();
    }
}

fn waker(call: impl Fn() + Send + Sync + 'static) -> (Waker, mpsc::Receiver<()>) {
    let (tell, told) = mpsc::channel();
    (Waker::from(Arc::new(Call { call: Box::new(call), told: Mutex::new(tell) })), told)
}

fn await_wake(told: &mpsc::Receiver<()>) {
    told.recv_timeout(PATIENCE).expect("a lost wake-up");
}

/// One future is polled `polls` times, each time by another waker, and then dropped; with
/// `opened_after` polls done its sync goes on. The one behind it is woken in every case.
#[test]
fn a_future_dropped_after_any_number_of_polls_leaves_its_record_and_wakes_the_next() {
    for polls in 0..6 {
        for opened_after in 0..=polls {
            let (disk, door, log) = gated();
            door.shut();
            let in_flight = submit(&log, "in flight");
            door.await_guest();
            let mut dropped = submit(&log, "dropped");
            let mut kept = submit(&log, "kept");
            let (kept_waker, woken) = waker(|| ());
            assert!(poll(&mut kept, &kept_waker).is_pending());
            for n in 0..polls {
                if n == opened_after {
                    door.open();
                }
                let (waker, _) = waker(|| ());
                let polled = poll(&mut dropped, &waker);
                assert!(polled.is_pending() || n >= opened_after, "ready before its sync");
            }
            drop(dropped);
            door.open();
            await_wake(&woken);
            assert_eq!(poll(&mut kept, &kept_waker), Poll::Ready(3));
            assert_eq!(in_flight.wait().unwrap(), lsn(1)..=lsn(1));
            assert_eq!(payloads(&disk), ["in flight", "dropped", "kept"]);
        }
    }
}

/// A future that moves to another task is woken there: only the last waker counts for its owner,
/// and all of them are called.
#[test]
fn a_future_polled_by_another_task_wakes_that_task() {
    let (_disk, door, log) = gated();
    door.shut();
    let mut moved = submit(&log, "moved");
    let (first, _first_told) = waker(|| ());
    let (second, second_told) = waker(|| ());
    assert!(poll(&mut moved, &first).is_pending());
    assert!(poll(&mut moved, &second).is_pending());
    drop(first);
    door.open();
    await_wake(&second_told);
    assert_eq!(poll(&mut moved, &second), Poll::Ready(1));
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_woken() {
    let (disk, door, log) = gated();
    door.shut();
    let mut pendings: Vec<_> = (0..5).map(|n| submit(&log, &format!("{n}"))).collect();
    let wakers: Vec<_> = (0..5)
        .map(|n| waker(move || assert!(n % 2 == 1, "the waker's own panic, as the test wants it")))
        .collect();
    for (pending, (waker, _)) in pendings.iter_mut().zip(&wakers) {
        assert!(poll(pending, waker).is_pending());
    }
    door.open();
    for (n, (pending, (waker, told))) in pendings.iter_mut().zip(&wakers).enumerate() {
        await_wake(told);
        assert_eq!(poll(pending, waker), Poll::Ready(n as u64 + 1));
    }
    // The thread that woke them lives, and so does the log.
    assert!(log.poisoned().is_none());
    assert_eq!(submit(&log, "next").wait().unwrap(), lsn(6)..=lsn(6));
    assert_eq!(payloads(&disk), ["0", "1", "2", "3", "4", "next"]);
}

/// The first one woken drops the futures of all others: their records stay, and whoever waits on
/// a thread is told.
#[test]
fn a_waker_that_drops_other_futures_takes_nothing_but_their_answers() {
    let (disk, door, log) = gated();
    door.shut();
    let mut first = submit(&log, "first");
    let others: Arc<Mutex<Vec<Pending>>> =
        Arc::new(Mutex::new((0..3).map(|n| submit(&log, &format!("other {n}"))).collect()));
    let waited = submit(&log, "waited");
    let victims = others.clone();
    let (killer, told) = waker(move || victims.lock().unwrap().clear());
    assert!(poll(&mut first, &killer).is_pending());
    for other in others.lock().unwrap().iter_mut() {
        let (waker, _) = waker(|| ());
        assert!(poll(other, &waker).is_pending());
    }
    let waiting = std::thread::spawn(move || waited.wait());
    door.open();
    await_wake(&told);
    assert_eq!(waiting.join().unwrap().unwrap(), lsn(5)..=lsn(5));
    assert_eq!(poll(&mut first, &killer), Poll::Ready(1));
    assert_eq!(payloads(&disk), ["first", "other 0", "other 1", "other 2", "waited"]);
}

/// A waker may call the log: it runs under none of its locks.
#[test]
fn a_waker_that_calls_the_log_and_drops_its_last_handle_ends_it() {
    let (disk, door, log) = gated();
    door.shut();
    let mut pending = submit(&log, "first");
    let handle = Arc::new(Mutex::new(Some(log)));
    let last = handle.clone();
    let (waker, told) = waker(move || {
        if let Some(log) = last.lock().unwrap().take() {
            drop(submit(&log, "from the waker"));
            assert_eq!(log.durable_lsn(), Some(lsn(1)));
        }
    });
    assert!(poll(&mut pending, &waker).is_pending());
    door.open();
    await_wake(&told);
    // `Locked` until the committer has written what the waker submitted, and is gone.
    let next = reopen(&disk);
    assert_eq!(next.durable_lsn(), Some(lsn(2)));
    assert!(handle.lock().unwrap().is_none());
    assert_eq!(payloads(&disk), ["first", "from the waker"]);
}

/// Many threads let go of most of what they submit, after a few polls; the rest is awaited.
#[test]
fn under_load_dropped_futures_are_written_in_order_and_the_others_are_woken() {
    const EACH: usize = 100;
    let disk = MemDir::new(1);
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..EACH {
                    let mut pending = submit(log, &format!("{thread} {n:03}"));
                    let (waker, told) = waker(|| ());
                    let polls = (n * 7 + thread) % 4;
                    let mut ready = false;
                    for _ in 0..polls {
                        ready = ready || poll(&mut pending, &waker).is_ready();
                    }
                    // Every fifth of those that were polled is awaited.
                    if polls > 0 && n % 5 == 0 && !ready {
                        await_wake(&told);
                        assert!(poll(&mut pending, &waker).is_ready(), "woken and not ready");
                    }
                }
            });
        }
    });
    log.close().unwrap();
    let found = payloads(&disk);
    assert_eq!(found.len(), 4 * EACH);
    for thread in 0..4 {
        let own: Vec<_> = found.iter().filter(|p| p.starts_with(&format!("{thread} "))).collect();
        assert!(own.len() == EACH && own.is_sorted(), "thread {thread} in its order");
    }
}
