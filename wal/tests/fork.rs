//! A child made by fork without exec inherits a handle, and no log: every writing call is refused
//! there, nothing waits, and neither what the child does nor its end disturbs the parent.
//!
//! The real forks stand in one test, so that the process has few threads at that moment. `MemDir`
//! plays the child by another process id.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]
#![expect(unsafe_code, reason = "a fork cannot be had without; tests only")]

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use annals_wal::fs::mem::MemDir;
use annals_wal::{ErrorKind, Level, Log, LogReader, Lsn, Options, Record, Refused, Result};

const PATIENCE_SECONDS: u32 = 20;

/// A child of this process.
struct Child(i32);

impl Child {
    /// Forks; the child runs `body`, and ends without running anything else of the test.
    fn new(body: impl FnOnce()) -> Child {
        // SAFETY: the child runs `body`, which uses the log's handles and the allocator (glibc
        // makes that whole again after a fork), and leaves by `_exit`. A lock that it can never
        // get ends it by the alarm.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "no fork");
        if pid > 0 {
            return Child(pid);
        }
        // SAFETY: sets a timer of this process.
        unsafe { libc::alarm(PATIENCE_SECONDS) };
        let whole = catch_unwind(AssertUnwindSafe(body)).is_ok();
        // SAFETY: ends this process and nothing else.
        unsafe { libc::_exit(i32::from(!whole)) }
    }

    /// Waits for its end; it must have come through `body` without a panic and in time.
    fn join(self) {
        let mut status = 0;
        // SAFETY: the pointer is to a local; the child is ours and not waited for elsewhere.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(waited, self.0);
        let hung = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM;
        assert!(!hung, "the child waited for ever");
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
    }
}

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn contents(path: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> =
        entries.map(|e| (e.file_name(), std::fs::read(e.path()).unwrap())).collect();
    all.sort();
    all
}

fn refused<T>(what: &str, result: Result<T>) {
    let Err(error) = result else { panic!("{what} went through") };
    assert_eq!(error.kind(), ErrorKind::Locked, "{what}: {error}");
    assert!(!error.outcome_unknown(), "{what}: {error}");
    assert!(error.to_string().contains("fork"), "{what}: {error}");
}

/// Every call that writes, or that waits for a write.
fn every_writing_call_is_refused(log: &Log, copy: &Path) {
    refused("append", log.append("x"));
    refused("append, with a segment to prepare", log.append(vec![1; 50_000]));
    refused("append_batch", log.append_batch(Record::new("x")));
    refused("submit", log.submit(Record::new("x")));
    refused("try_submit", log.try_submit(Record::new("x")));
    refused("written", log.append_at(Level::Written, "x"));
    refused("buffered", log.append_batch_at(Level::Buffered, Record::new("x")));
    let mut future = log.append_async(Record::new("x"));
    let polled = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(result) = polled else { panic!("it would wait for ever") };
    refused("append_async", result);
    refused("ordered", log.ordered(|_| Ok::<(), Refused>(())));
    refused("ordered_durable", log.ordered_durable(|_| Ok::<(), Refused>(())));
    refused("wait_durable", log.wait_durable(Lsn::new(1_000).unwrap()));
    refused("set_hold", log.set_hold("h", Lsn::FIRST));
    refused("release_hold", log.release_hold("h"));
    refused("trim", log.trim(Lsn::new(2).unwrap()));
    refused("backup", log.backup(copy));
    refused("claim", log.claim("registry"));
    refused("close", log.clone().close());
}

#[test]
fn a_forked_child_neither_writes_nor_waits_nor_disturbs_its_parent() {
    calls_are_refused_and_reads_go_on();
    a_lock_held_at_the_fork_holds_up_nobody();
    a_childs_end_leaves_the_lock();
    a_living_child_does_not_keep_the_lock_of_a_parent_that_closed();
    a_child_may_open_the_log_once_it_is_free();
}

fn calls_are_refused_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = options().open(&path).unwrap();
    log.append("one").unwrap();
    log.append("two").unwrap();
    let mut records = log.range(..).unwrap();
    records.next().unwrap().unwrap();
    let mut pending = Some(log.submit(Record::new("three")).unwrap());
    log.wait_durable(Lsn::new(3).unwrap()).unwrap();
    let before = contents(&path);
    Child::new(|| {
        every_writing_call_is_refused(&log, &dir.path().join("copy"));
        refused("Pending::wait", pending.take().unwrap().wait());
        assert_eq!(records.next().unwrap().unwrap().payload, b"two");
        let reader = LogReader::open(&path).unwrap();
        assert!(reader.is_live().unwrap());
        assert_eq!(reader.range(..).unwrap().map(Result::unwrap).count(), 3);
        assert_eq!(Log::open(&path).unwrap_err().kind(), ErrorKind::Locked);
    })
    .join();
    assert_eq!(contents(&path), before, "the child changed no byte and made no file");
    assert!(!dir.path().join("copy").exists());
    pending.take().unwrap().wait().unwrap();
    assert_eq!(log.append("four").unwrap().get(), 4);
    log.close().unwrap();
}

/// Another thread of the parent stands under the queue lock at the moment of the fork.
fn a_lock_held_at_the_fork_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path().join("log")).unwrap();
    // It has left its waker in the queue, and would take it out again.
    log.append(vec![1; 40_000]).unwrap();
    let mut seated = log.append_async(Record::new(vec![2; 40_000]));
    let polled = Pin::new(&mut seated).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "the segment that it needs is not there");
    let mut leaves = Vec::new();
    let (inside, entered) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let holder = log.clone();
        scope.spawn(move || {
            holder
                .ordered(|_| {
                    inside.send(()).unwrap();
                    left.recv().unwrap();
                    Ok::<(), Refused>(())
                })
                .unwrap();
        });
        entered.recv().unwrap();
        let mut handles = Some((log.clone(), seated));
        Child::new(|| {
            let (log, seated) = handles.take().unwrap();
            every_writing_call_is_refused(&log, &dir.path().join("copy"));
            drop(seated);
            drop(log);
        })
        .join();
        leaves.extend(handles.take().map(|(_, seated)| seated));
        leave.send(()).unwrap();
    });
    drop(leaves);
    log.append("goes on").unwrap();
}

fn a_childs_end_leaves_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = Some(options().open(&path).unwrap());
    log.as_ref().unwrap().append("one").unwrap();
    let before = contents(&path);
    // One that drops the last handle it has, and one that just ends.
    Child::new(|| drop(log.take())).join();
    Child::new(|| ()).join();
    assert_eq!(contents(&path), before);
    assert_eq!(options().open(&path).unwrap_err().kind(), ErrorKind::Locked, "still the parent's");
    assert_eq!(log.take().unwrap().append("two").unwrap().get(), 2);
}

/// flock ends with the last copy of the descriptor; an owner that ends cleanly unlocks.
fn a_living_child_does_not_keep_the_lock_of_a_parent_that_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = options().open(&path).unwrap();
    let (mut ear, mouth) = std::io::pipe().unwrap();
    let mut mouth = Some(mouth);
    let child = Child::new(|| {
        drop(mouth.take());
        // Until the parent lets go of its end.
        assert_eq!(ear.read(&mut [0]).unwrap(), 0);
        refused("append", log.append("late"));
    });
    log.clone().close().unwrap();
    let again = options().open(&path).unwrap();
    again.append("one").unwrap();
    drop(mouth.take());
    child.join();
    assert_eq!(options().open(&path).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(again.append("two").unwrap().get(), 2);
}

fn a_child_may_open_the_log_once_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = options().open(&path).unwrap();
    log.append("one").unwrap();
    log.close().unwrap();
    Child::new(|| {
        let log = options().open(&path).unwrap();
        assert_eq!(log.append("by the child").unwrap().get(), 2);
        log.close().unwrap();
    })
    .join();
    assert_eq!(options().open(&path).unwrap().range(..).unwrap().count(), 2);
}

#[test]
fn the_seam_plays_a_child() {
    let disk = MemDir::new(1);
    let log = options().open_in(disk.dir()).unwrap();
    log.append("one").unwrap();
    let mut pending = log.submit(Record::new("two")).unwrap();
    log.wait_durable(Lsn::new(2).unwrap()).unwrap();
    let claim = log.claim("registry").unwrap();
    let parent = annals_wal::fs::Dir::pid(&disk);
    disk.set_pid(parent + 1);
    let ops = disk.ops();
    every_writing_call_is_refused(&log, Path::new("/nowhere"));
    let polled =
        Future::poll(std::pin::Pin::new(&mut pending), &mut Context::from_waker(Waker::noop()));
    let Poll::Ready(result) = polled else { panic!("it would wait for ever") };
    refused("poll", result);
    drop(claim);
    assert_eq!(disk.ops(), ops, "nothing was written");
    assert_eq!(options().open_in(disk.dir()).unwrap_err().kind(), ErrorKind::Locked);
    disk.set_pid(parent);
    assert_eq!(log.claim("registry").unwrap_err().kind(), ErrorKind::Invalid, "still claimed");
    log.append("three").unwrap();
    pending.wait().unwrap();
    log.close().unwrap();
}
