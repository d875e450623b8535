//! A thread that dies inside a write or a sync: the committer, a caller that leads, one that
//! prepares a segment, one that trims, one that opens. Everyone who waits is told *outcome
//! unknown*, the log is poisoned, and the same process opens it again (lance-format/lance#7132,
//! wiredtiger/wiredtiger#3278, cberner/redb#1309).
//!
//! Never here: a sleep. The hooked directory holds a thread at its door, and panics there when the
//! test says so. That panics print their message is not a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use annals_wal::fs::Dir;
use annals_wal::fs::gate::{Door, Gate};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Error, ErrorKind, Log, Lsn, Options, Record};

/// How long a test waits for what must come at once, before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

/// Opens what was dropped a moment ago. Its committer is on its way out, and on a busy machine that
/// takes longer than the 200 ms that an opening waits.
fn reopen(dir: Arc<dyn Dir>) -> Log {
    for _ in 0..100 {
        match options().open_in(dir.clone()) {
            Err(error) if error.kind() == ErrorKind::Locked => {}
            opened => return opened.unwrap(),
        }
    }
    panic!("the lock is never free");
}

/// A disk behind a door and a trap: whoever does the trapped operation passes the door, and panics
/// once the trap is armed.
struct Trap {
    disk: MemDir,
    door: Door,
    armed: AtomicBool,
    at: &'static str,
}

impl Trap {
    /// `at` is how the operation begins: `write`, `sync Group`.
    fn at(at: &'static str) -> Arc<Trap> {
        let (disk, door) = (MemDir::new(1), Door::default());
        Arc::new(Trap { disk, door, armed: AtomicBool::new(false), at })
    }

    fn open(self: &Arc<Trap>) -> annals_wal::Result<Log> {
        let trap = self.clone();
        options().open_in(Gate::new(self.disk.dir(), move |op| {
            // The control block may fail; that is nobody's concern here.
            if op.starts_with(trap.at) && op != "write CONTROL" {
                trap.door.pass()?;
                assert!(
                    !trap.armed.load(Ordering::SeqCst),
                    "the panic that the test asked for: {op}"
                );
            }
            Ok(())
        }))
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Opens again in this process: the lock is free, what was acknowledged is there, and the log
    /// takes records.
    fn reopens_with(&self, acknowledged: u64) {
        for disk in [self.disk.clone(), self.disk.crash(Keep::Nothing)] {
            let log = reopen(disk.dir());
            let found: Vec<_> = log.range(..).unwrap().map(|r| r.unwrap().lsn.get()).collect();
            assert!(found.iter().copied().eq(1..=found.len() as u64), "{found:?}");
            assert!(found.len() as u64 >= acknowledged, "{found:?}");
            let next = log.append("after the panic").unwrap();
            assert_eq!(next.get(), found.len() as u64 + 1);
            log.close().unwrap();
        }
    }
}

/// What a call on another thread came to, or a failure if it never comes to anything.
fn on_a_thread<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> mpsc::Receiver<std::thread::Result<T>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(catch_unwind(AssertUnwindSafe(call))));
    told
}

fn within_patience<T>(told: &mpsc::Receiver<T>) -> T {
    told.recv_timeout(PATIENCE).expect("somebody waits for ever")
}

fn assert_unknown(error: &Error) {
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Poisoned, true), "{error}");
}

fn assert_refused(error: &Error) {
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Poisoned, false), "{error}");
}

struct Tell(Mutex<mpsc::Sender<()>>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().unwrap().send(());
    }
}

/// Who is inside the operation that panics.
#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Committer,
    Caller,
}

/// One record is durable, one is being written, and behind it wait a submitter, an appender, a
/// future, and somebody for an LSN. Then whoever writes dies.
fn everyone_is_told(at: &'static str, by: By) {
    let trap = Trap::at(at);
    let log = trap.open().unwrap();
    log.append("durable").unwrap();
    let shut = trap.door.shut_for_now();
    let first = match by {
        By::Committer => {
            let pending = log.submit(Record::new("in flight")).unwrap();
            on_a_thread(move || pending.wait())
        }
        By::Caller => {
            let log = log.clone();
            on_a_thread(move || log.append("in flight").map(|lsn| lsn..=lsn))
        }
    };
    trap.door.await_guest();
    let submitted = log.submit(Record::new("submitted")).unwrap();
    let mut awaited = pin!(log.submit(Record::new("awaited")).unwrap());
    let (tell, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tell(Mutex::new(tell))));
    assert!(awaited.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let (appends, waits) = (log.clone(), log.clone());
    let appended = on_a_thread(move || appends.append("appended"));
    let waited = on_a_thread(move || waits.wait_durable(lsn(2)));
    while log.stats().records < 5 {
        std::thread::yield_now();
    }
    trap.arm();
    drop(shut);

    match (by, within_patience(&first)) {
        (By::Committer, told) => assert_unknown(&told.unwrap().unwrap_err()),
        (By::Caller, told) => assert!(told.is_err(), "the panic is the caller's own"),
    }
    assert_unknown(&submitted.wait().unwrap_err());
    assert_unknown(&within_patience(&appended).unwrap().unwrap_err());
    assert_unknown(&within_patience(&waited).unwrap().unwrap_err());
    woken.recv_timeout(PATIENCE).expect("a lost wake-up");
    match awaited.as_mut().poll(&mut Context::from_waker(&waker)) {
        std::task::Poll::Ready(told) => assert_unknown(&told.unwrap_err()),
        std::task::Poll::Pending => panic!("woken and not ready"),
    }
    assert!(log.poisoned().is_some());
    assert_refused(&log.append("later").unwrap_err());
    assert_refused(&log.submit(Record::new("later")).unwrap_err());
    assert_refused(&log.set_hold("later", lsn(1)).unwrap_err());
    assert_eq!(log.get(lsn(1)).unwrap().payload, b"durable");
    assert_eq!(log.durable_lsn(), Some(lsn(1)));
    let ops = trap.disk.ops();
    assert_refused(&log.clone().close().unwrap_err());
    drop(log);
    trap.armed.store(false, Ordering::SeqCst);
    assert_eq!(trap.disk.ops(), ops, "nothing touched a file after the panic");
    trap.reopens_with(1);
}

#[test]
fn the_committer_dies_in_a_write() {
    everyone_is_told("write", By::Committer);
}

#[test]
fn the_committer_dies_in_a_sync() {
    everyone_is_told("sync Group", By::Committer);
}

#[test]
fn a_leading_caller_dies_in_a_write() {
    everyone_is_told("write", By::Caller);
}

#[test]
fn a_leading_caller_dies_in_a_sync() {
    everyone_is_told("sync Group", By::Caller);
}

/// The seal of the segment before is written alone, by whoever leads into the next one.
#[test]
fn a_leader_dies_in_the_sync_of_a_seal() {
    for by in [By::Committer, By::Caller] {
        let trap = Trap::at("sync Seal");
        let log = trap.open().unwrap();
        log.append(vec![1; 40_000]).unwrap();
        trap.arm();
        match by {
            By::Committer => {
                let pending = log.submit(Record::new(vec![2; 40_000])).unwrap();
                assert_unknown(&pending.wait().unwrap_err());
            }
            By::Caller => {
                let caller = log.clone();
                let died = on_a_thread(move || caller.append(vec![2; 40_000]));
                assert!(within_patience(&died).is_err());
            }
        }
        assert_refused(&log.append("later").unwrap_err());
        drop(log);
        trap.reopens_with(1);
    }
}

/// Whoever waits for the preparation has no place yet, so its outcome is known; whoever has one and
/// waits for its sync is told by the poison.
#[test]
fn a_preparer_dies_and_those_who_wait_for_its_segment_are_refused() {
    for at in ["create", "write", "sync Prepared", "link", "remove", "dirsync Published"] {
        let trap = Trap::at(at);
        let log = trap.open().unwrap();
        log.append(vec![1; 40_000]).unwrap();
        trap.door.shut();
        trap.arm();
        let callers: Vec<_> = (0..3)
            .map(|n| {
                let log = log.clone();
                on_a_thread(move || log.append(vec![n; 40_000]))
            })
            .collect();
        trap.door.await_guest();
        trap.door.open();
        let ends: Vec<_> = callers.iter().map(within_patience).collect();
        assert_eq!(ends.iter().filter(|end| end.is_err()).count(), 1, "{at}: one died");
        for refused in ends.into_iter().flatten() {
            assert_refused(&refused.unwrap_err());
        }
        drop(log);
        trap.reopens_with(1);
    }
}

fn append_some(log: &Log, count: u8) {
    for n in 0..count {
        log.append(vec![n; 30_000]).unwrap();
    }
}

/// A trim that dies while it unlinks has changed nothing about writing: the log goes on, and the
/// next trim does the rest.
#[test]
fn a_trim_dies_and_the_next_one_finishes() {
    for at in ["remove", "dirsync Trimmed"] {
        let trap = Trap::at(at);
        let log = trap.open().unwrap();
        append_some(&log, 6);
        trap.arm();
        let trims = log.clone();
        assert!(within_patience(&on_a_thread(move || trims.trim(lsn(6)))).is_err());
        trap.armed.store(false, Ordering::SeqCst);
        assert_eq!((log.head_lsn(), log.poisoned().is_none()), (lsn(6), true));
        log.append("goes on").unwrap();
        assert_eq!(log.trim(lsn(7)).unwrap(), lsn(7));
        drop(log);
        let log = reopen(trap.disk.dir());
        assert_eq!((log.head_lsn(), log.durable_lsn()), (lsn(7), Some(lsn(7))));
        assert_eq!(log.range(..).unwrap().count(), 1);
        let crashed = options().open_in(trap.disk.crash(Keep::Nothing).dir()).unwrap();
        assert_eq!(crashed.head_lsn(), lsn(7));
    }
}

/// The last handle goes while the committer is inside the sync in which it will die.
#[test]
fn a_committer_dies_after_the_last_handle_went() {
    let trap = Trap::at("sync Group");
    let log = trap.open().unwrap();
    log.append("durable").unwrap();
    let shut = trap.door.shut_for_now();
    let (first, second) =
        (log.submit(Record::new("first")).unwrap(), log.submit(Record::new("second")).unwrap());
    trap.door.await_guest();
    trap.arm();
    drop(log);
    drop(shut);
    assert_unknown(&first.wait().unwrap_err());
    assert_unknown(&second.wait().unwrap_err());
    trap.reopens_with(1);
}

/// A close that dies in the sync of its record leaves an unclean end and a free lock.
#[test]
fn a_close_dies() {
    let trap = Trap::at("sync Group");
    let log = trap.open().unwrap();
    log.append("durable").unwrap();
    trap.arm();
    let (other, closes) = (log.clone(), log);
    // The close leads itself and dies, or the committer was faster and died for it.
    if let Ok(told) = within_patience(&on_a_thread(move || closes.close())) {
        assert_unknown(&told.unwrap_err());
    }
    assert_refused(&other.append("later").unwrap_err());
    drop(other);
    trap.reopens_with(1);
}

/// An opening that dies at any step frees the lock, and the next one recovers.
#[test]
fn an_opening_dies_at_any_step() {
    let whole = Trap::at("sync Group");
    let log = whole.open().unwrap();
    append_some(&log, 4);
    log.trim(lsn(3)).unwrap();
    drop(log);
    let before = whole.disk.crash(Keep::Everything);
    let mut deaths = 0;
    for step in 0.. {
        let disk = before.killed();
        let steps = Mutex::new(0);
        let gate = Gate::new(disk.dir(), move |op| {
            let mut steps = steps.lock().unwrap();
            *steps += 1;
            let now = *steps == step + 1;
            drop(steps);
            assert!(!now, "the panic that the test asked for: {op}");
            Ok(())
        });
        let opened = catch_unwind(AssertUnwindSafe(|| options().open_in(gate)));
        if opened.is_ok() {
            break;
        }
        deaths += 1;
        for disk in [disk.clone(), disk.crash(Keep::Nothing)] {
            let log = reopen(disk.dir());
            assert_eq!((log.head_lsn(), log.durable_lsn()), (lsn(3), Some(lsn(4))));
            assert_eq!(
                log.range(..).unwrap().map(|record| record.unwrap().payload[0]).sum::<u8>(),
                5
            );
        }
    }
    assert!(deaths >= 5, "only {deaths} steps");
}
