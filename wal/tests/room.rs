//! Room: a slow disk does not grow the queue; who cannot wait is told so; futures wait for room and
//! for segments without a thread, and nobody waits for ever.
//!
//! Never here: a sleep. The sync waits at a door until the test has looked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use annals_wal::fs::Dir;
use annals_wal::fs::gate::{Door, Gate, enospc};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{AppendAsync, ErrorKind, Log, Options, Record};

/// How long a test waits for what must come at once, before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);
const QUEUE_BYTES: u64 = 4 << 10;

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).queue_bytes_max(QUEUE_BYTES)
}

/// A log whose group syncs pass a door, and whose files cannot be made while the disk is full.
fn gated() -> (MemDir, Arc<Door>, Arc<AtomicBool>, Log) {
    let (disk, door, full, _, log) = gated_and_counted();
    (disk, door, full, log)
}

/// The fourth counts how often a full disk has refused.
fn gated_and_counted() -> (MemDir, Arc<Door>, Arc<AtomicBool>, Arc<AtomicU64>, Log) {
    let disk = MemDir::new(1);
    let (door, full) = (Arc::new(Door::default()), Arc::new(AtomicBool::new(false)));
    let refused = Arc::new(AtomicU64::new(0));
    let (at_door, is_full, count) = (door.clone(), full.clone(), refused.clone());
    let gate = Gate::new(disk.dir(), move |op| match op {
        "sync Group" => at_door.pass(),
        op if op.starts_with("create") && is_full.load(Ordering::SeqCst) => {
            count.fetch_add(1, Ordering::SeqCst);
            Err(enospc())
        }
        _ => Ok(()),
    });
    let log = options().open_in(gate).unwrap();
    (disk, door, full, refused, log)
}

struct Told(Mutex<mpsc::Sender<()>>);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().unwrap().send(());
    }
}

fn waker() -> (Waker, mpsc::Receiver<()>) {
    let (tell, told) = mpsc::channel();
    (Waker::from(Arc::new(Told(Mutex::new(tell)))), told)
}

fn poll(future: &mut AppendAsync, waker: &Waker) -> Poll<Result<u64, annals_wal::Error>> {
    let polled = Pin::new(future).poll(&mut Context::from_waker(waker));
    polled.map(|result| result.map(|lsns| lsns.start().get()))
}

/// Polls as woken, until the end.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (waker, told) = waker();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        told.recv_timeout(PATIENCE).expect("a lost wake-up");
    }
}

/// Fills the queue behind a sync that waits at the door.
fn fill(log: &Log, door: &Door) -> usize {
    door.shut();
    drop(log.submit(Record::new("in flight")).unwrap());
    door.await_guest();
    let mut count = 1;
    loop {
        match log.try_submit(Record::new(vec![7; 500])) {
            Ok(pending) => drop(pending),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                assert!(!error.outcome_unknown());
                return count;
            }
        }
        count += 1;
        assert!(count < 100, "the queue has no end");
    }
}

fn count(disk: &MemDir) -> usize {
    let log = options().open_in(disk.crash(Keep::Nothing).dir()).unwrap();
    log.range(..).unwrap().map(|record| record.unwrap().lsn.get()).max().unwrap_or(0) as usize
}

/// Line 7 of the speed issue: the disk hangs, sixteen threads append and sixteen futures are polled,
/// and the queue holds its bound and not more than one record over it.
#[test]
fn a_disk_that_hangs_does_not_grow_the_queue() {
    let (disk, door, _, log) = gated();
    let admitted = fill(&log, &door);
    let bytes = log.stats().queued_bytes;
    assert!((QUEUE_BYTES..QUEUE_BYTES + 600).contains(&bytes), "{bytes}");
    let (tell, told) = mpsc::channel();
    let mut futures: Vec<_> =
        (0..16).map(|_| log.append_async(Record::new(vec![1; 500]))).collect();
    let (waker, woken) = waker();
    for future in &mut futures {
        assert!(poll(future, &waker).is_pending() && !future.is_admitted());
    }
    for _ in 0..16 {
        let (log, tell) = (log.clone(), tell.clone());
        std::thread::spawn(move || tell.send(log.append(vec![2; 500])));
    }
    while log.stats().waiting_for_room < 32 {
        assert!(told.try_recv().is_err(), "an append went through");
        std::thread::yield_now();
    }
    assert_eq!(log.stats().queued_bytes, bytes, "they wait outside of the queue");
    door.open();
    for _ in 0..16 {
        told.recv_timeout(PATIENCE).expect("an append waits for ever").unwrap();
    }
    woken.recv_timeout(PATIENCE).expect("a lost wake-up");
    for future in futures {
        block_on(future).unwrap();
    }
    assert_eq!(log.stats().queued_bytes, 0);
    assert_eq!(count(&disk), admitted + 32);
}

#[test]
fn try_submit_changes_nothing_when_it_would_wait() {
    let (disk, door, _, log) = gated();
    let admitted = fill(&log, &door);
    let before = (log.stats().records, log.stats().queued_bytes);
    assert_eq!(log.try_submit(Record::new("no")).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!((log.stats().records, log.stats().queued_bytes), before);
    door.open();
    log.append("room again").unwrap();
    let pending = log.try_submit(Record::new("yes")).unwrap();
    assert_eq!(pending.wait().unwrap().start().get() as usize, admitted + 2);
    assert_eq!(count(&disk), admitted + 2);
}

/// Only the log's own thread makes the segment; whoever asks again gets a place in it.
#[test]
fn a_missing_segment_is_asked_for_and_comes() {
    let (disk, _, _, log) = gated();
    log.append(vec![1; 40_000]).unwrap();
    let pending = loop {
        match log.try_submit(Record::new(vec![2; 40_000])) {
            Ok(pending) => break pending,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        std::thread::yield_now();
    };
    pending.wait().unwrap();
    block_on(log.append_async(Record::new(vec![3; 40_000]))).unwrap();
    block_on(log.append_async(Record::new(vec![4; 300_000]))).unwrap();
    assert_eq!((count(&disk), log.stats().rotations), (4, 3));
}

#[test]
fn a_full_disk_is_told_to_whoever_asked_for_a_segment() {
    let (disk, _, full, log) = gated();
    log.append(vec![1; 40_000]).unwrap();
    full.store(true, Ordering::SeqCst);
    let error = block_on(log.append_async(Record::new(vec![2; 40_000]))).unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Full, false), "{error}");
    let error = loop {
        let error = log.try_submit(Record::new(vec![2; 40_000])).unwrap_err();
        if error.kind() != ErrorKind::WouldBlock {
            break error;
        }
        std::thread::yield_now();
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    full.store(false, Ordering::SeqCst);
    // The last preparation that was asked for may have begun before and end after: one more refusal.
    let append = || block_on(log.append_async(Record::new(vec![2; 40_000])));
    append().or_else(|_| append()).unwrap();
    let huge = log.append_async(Record::new(vec![0; 17 << 20]));
    assert_eq!(block_on(huge).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(count(&disk), 2);
}

#[test]
fn dropped_before_its_place_a_batch_is_certainly_not_written() {
    let (disk, door, _, log) = gated();
    let admitted = fill(&log, &door);
    let never_polled = log.append_async(Record::new("never polled"));
    let mut polled = log.append_async(Record::new("polled"));
    let mut kept = log.append_async(Record::new("kept"));
    let (dropped_waker, dropped_told) = waker();
    let (kept_waker, kept_told) = waker();
    assert!(poll(&mut polled, &dropped_waker).is_pending());
    assert!(poll(&mut kept, &kept_waker).is_pending());
    drop((never_polled, polled, dropped_waker));
    // Nobody holds its waker any more, and so nobody can call it.
    let gone = dropped_told.recv_timeout(PATIENCE);
    assert_eq!(gone.unwrap_err(), mpsc::RecvTimeoutError::Disconnected);
    door.open();
    kept_told.recv_timeout(PATIENCE).expect("a lost wake-up");
    assert_eq!(block_on(kept).unwrap().start().get() as usize, admitted + 1);
    let mut admitted_one = log.append_async(Record::new("admitted"));
    let (idle, _) = waker();
    let _ = poll(&mut admitted_one, &idle);
    assert!(admitted_one.is_admitted());
    drop(admitted_one);
    log.close().unwrap();
    assert_eq!(count(&disk), admitted + 2, "dropped after its place: written");
}

/// Poison and close reach those who wait for room, and the answer stays.
#[test]
fn whoever_waits_for_room_hears_of_the_end() {
    let (_, door, _, log) = gated();
    fill(&log, &door);
    let mut waiting = log.append_async(Record::new("waiting"));
    let (waker_, told) = waker();
    assert!(poll(&mut waiting, &waker_).is_pending());
    door.fail();
    told.recv_timeout(PATIENCE).expect("a lost wake-up at the poison");
    for _ in 0..2 {
        let error = block_on(&mut waiting).unwrap_err();
        assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Poisoned, false));
    }

    let (_, door, _, log) = gated();
    fill(&log, &door);
    let mut waiting = log.append_async(Record::new("waiting"));
    let (waker_, told) = waker();
    assert!(poll(&mut waiting, &waker_).is_pending());
    door.open();
    // Room and the close come in some order; asked again after both, only one answer is right.
    let closed = log.close();
    told.recv_timeout(PATIENCE).expect("a lost wake-up at the close");
    closed.unwrap();
    assert_eq!(block_on(&mut waiting).unwrap_err().kind(), ErrorKind::Closed);
}

/// The future is a handle until it has its place: the last other one may go.
#[test]
fn the_last_handle_goes_while_a_future_waits_for_room() {
    let (disk, door, _, log) = gated();
    let admitted = fill(&log, &door);
    let mut waiting = log.append_async(Record::new("waiting"));
    let (waker_, told) = waker();
    assert!(poll(&mut waiting, &waker_).is_pending());
    drop(log);
    door.open();
    told.recv_timeout(PATIENCE).expect("a lost wake-up");
    assert_eq!(block_on(waiting).unwrap().start().get() as usize, admitted + 1);
    assert_eq!(count(&disk), admitted + 1);
    let mut opened = options().open_in(disk.dir());
    for _ in 0..100 {
        if opened.is_ok() {
            break;
        }
        opened = options().open_in(disk.dir());
    }
    opened.unwrap().close().unwrap();
}

#[test]
fn a_forked_child_is_refused_and_touches_no_lock() {
    let (disk, door, _, log) = gated();
    fill(&log, &door);
    let (mut waiting, mut new) =
        (log.append_async(Record::new("a")), log.append_async(Record::new("b")));
    let (waker, _told) = waker();
    assert!(poll(&mut waiting, &waker).is_pending());
    let parent = disk.pid();
    disk.set_pid(parent + 1);
    assert_eq!(log.try_submit(Record::new("x")).unwrap_err().kind(), ErrorKind::Locked);
    let Poll::Ready(Err(error)) = poll(&mut new, &waker) else { panic!("it would wait for ever") };
    assert_eq!(error.kind(), ErrorKind::Locked);
    disk.set_pid(parent);
    door.open();
    block_on(waiting).unwrap();
}

/// A failure that is over is nobody's answer any more (a `try_submit` remembered it for ever).
#[test]
fn a_failure_that_is_over_is_not_told_again() {
    let (_, _, full, refused, log) = gated_and_counted();
    // Less than half, so that nobody prepares before it is asked for.
    log.append(vec![1; 30_000]).unwrap();
    full.store(true, Ordering::SeqCst);
    let would_block = log.try_submit(Record::new(vec![2; 40_000])).unwrap_err();
    assert_eq!(would_block.kind(), ErrorKind::WouldBlock);
    // A second preparation, of this thread, fails too, so that one has failed for certain.
    assert_eq!(log.append(vec![2; 40_000]).unwrap_err().kind(), ErrorKind::Full);
    // And the one that was asked for has ended, before the disk has room.
    while refused.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    assert_eq!(log.prepare_ahead().unwrap_err().kind(), ErrorKind::Full);
    full.store(false, Ordering::SeqCst);
    log.append(vec![2; 40_000]).unwrap();
    loop {
        match log.try_submit(Record::new(vec![3; 40_000])) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_future_that_is_polled_often_waits_once() {
    let (_, door, _, log) = gated();
    fill(&log, &door);
    let mut waiting = log.append_async(Record::new("waiting"));
    let (waker, _told) = waker();
    for _ in 0..1000 {
        assert!(poll(&mut waiting, &waker).is_pending());
        assert_eq!(log.stats().waiting_for_room, 1);
    }
    drop(waiting);
    assert_eq!(log.stats().waiting_for_room, 0);
    door.open();
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the panic that the test asked for");
    }
}

/// It takes neither the other's wake-up nor the group that is being told.
#[test]
fn a_waker_that_panics_harms_nobody() {
    let (_, door, _, log) = gated();
    fill(&log, &door);
    let (mut first, mut second) =
        (log.append_async(Record::new("first")), log.append_async(Record::new("second")));
    assert!(poll(&mut first, &Waker::from(Arc::new(Panics))).is_pending());
    let (waker, told) = waker();
    assert!(poll(&mut second, &waker).is_pending());
    door.open();
    told.recv_timeout(PATIENCE).expect("a lost wake-up");
    block_on(second).unwrap();
    block_on(first).unwrap();
    assert!(log.poisoned().is_none());
}

/// A future that waits for a segment hears of the close itself: the preparation that it waits for
/// may never end.
#[test]
fn a_close_wakes_who_waits_for_a_segment() {
    let disk = MemDir::new(1);
    let door = Arc::new(Door::default());
    let at_door = door.clone();
    let gate = Gate::new(disk.dir(), move |op| match op {
        op if op.starts_with("create") => at_door.pass(),
        _ => Ok(()),
    });
    let log = options().open_in(gate).unwrap();
    log.append(vec![1; 40_000]).unwrap();
    door.shut();
    let mut waiting = log.append_async(Record::new(vec![2; 40_000]));
    let (waker, told) = waker();
    assert!(poll(&mut waiting, &waker).is_pending());
    door.await_guest();
    let closing = std::thread::spawn(move || log.close());
    told.recv_timeout(PATIENCE).expect("a lost wake-up at the close");
    assert_eq!(block_on(waiting).unwrap_err().kind(), ErrorKind::Closed);
    door.open();
    closing.join().unwrap().unwrap();
}
