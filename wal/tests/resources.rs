//! What a log takes it gives back: descriptors, threads, memory maps and heap are the same after
//! ten rounds of each way to end as before, one after the other and on four threads at once.
//!
//! Real files, `/proc/self` and an allocator that counts live bytes; so it is a binary of its own
//! with one test. Never here: a sleep. A committer may still be on its way out when its log is
//! gone, so the figures are taken once the threads are as many as before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and looks at /proc and damages files from outside"
)]
#![allow(unsafe_code, reason = "an allocator that counts cannot be had without; tests only")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Waker};

use annals_wal::fs::gate::{Gate, eio, enospc};
use annals_wal::fs::os::OsDir;
use annals_wal::{ErrorKind, Log, LogReader, Lsn, Options, Record};

static LIVE: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const ROUNDS: usize = 10;
const THREADS: usize = 4;
/// Yields after which a thread that has not ended never will.
const PATIENCE: u32 = 5_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Taken {
    descriptors: usize,
    threads: usize,
    maps: usize,
    heap: i64,
}

impl Taken {
    fn now() -> Taken {
        Taken {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            threads: threads(),
            maps: file_maps(),
            heap: LIVE.load(Ordering::SeqCst),
        }
    }

    /// The figures once there are no more threads than `threads`.
    fn settled(limit: usize) -> Taken {
        for _ in 0..PATIENCE {
            if threads() <= limit {
                return Taken::now();
            }
            std::thread::yield_now();
        }
        panic!("{} threads, and {limit} before: one never ends", threads());
    }
}

/// Mappings of files. Others are the allocator's arenas and cached stacks of ended threads, whose
/// number depends on how many threads happened to live at once; what is in them `heap` counts.
fn file_maps() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(" /")).count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn open(dir: &Path) -> annals_wal::Result<Log> {
    options().open(dir)
}

/// Opens what was dropped a moment ago. Its committer is on its way out, and on a busy machine that
/// takes longer than the 200 ms that an opening waits.
fn reopen(dir: &Path) -> Log {
    for _ in 0..100 {
        match open(dir) {
            Err(error) if error.kind() == ErrorKind::Locked => {}
            opened => return opened.unwrap(),
        }
    }
    panic!("the lock is never free");
}
/// A log on real files whose named operation ends as `fault` says once it is armed.
fn open_armed(
    dir: &Path,
    at: &'static str,
    fault: fn() -> io::Result<()>,
) -> (Arc<AtomicBool>, Log) {
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = armed.clone();
    let gate = Gate::new(Arc::new(OsDir::new(dir)), move |op| {
        if is_armed.load(Ordering::SeqCst) && op.starts_with(at) { fault() } else { Ok(()) }
    });
    (armed, options().open_in(gate).unwrap())
}

fn appended_and_closed(dir: &Path) {
    let log = open(dir).unwrap();
    for _ in 0..3 {
        log.append(vec![1; 30_000]).unwrap();
    }
    assert_eq!(log.range(..).unwrap().count(), 3);
    log.trim(log.durable_lsn().unwrap()).unwrap();
    log.close().unwrap();
    let reader = LogReader::open(dir).unwrap();
    assert_eq!(reader.range(..).unwrap().count(), 1);
}

fn opened_and_dropped(dir: &Path) {
    for _ in 0..2 {
        drop(reopen(dir));
    }
}

fn poisoned(dir: &Path) {
    let (armed, log) = open_armed(dir, "sync Group", || Err(eio()));
    let reads = log.append("durable").unwrap();
    armed.store(true, Ordering::SeqCst);
    let pending = log.submit(Record::new("lost")).unwrap();
    assert!(pending.wait().unwrap_err().outcome_unknown());
    assert_eq!(log.append("refused").unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(log.get(reads).unwrap().payload, b"durable");
    drop(log);
    reopen(dir).close().unwrap();
}

/// The committer unwinds out of a sync. `resume_unwind` prints nothing and so leaves no cache of
/// symbols behind, which would count as growth.
fn committer_died(dir: &Path) {
    let (armed, log) = open_armed(dir, "sync Group", || std::panic::resume_unwind(Box::new(())));
    armed.store(true, Ordering::SeqCst);
    let pending = log.submit(Record::new("lost")).unwrap();
    assert!(pending.wait().unwrap_err().outcome_unknown());
    drop(log);
    reopen(dir).close().unwrap();
}

fn refused_as_corrupt(dir: &Path) {
    let log = open(dir).unwrap();
    log.append("first").unwrap();
    log.append("second proves the first").unwrap();
    drop(log);
    reopen(dir).close().unwrap();
    let name = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .max()
        .unwrap();
    let mut bytes = fs::read(&name).unwrap();
    bytes[20] ^= 1; // the header of the active segment
    fs::write(&name, bytes).unwrap();
    for _ in 0..3 {
        assert_eq!(open(dir).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

fn filled(dir: &Path) {
    // A full disk is met where files are made: from the start, because half a segment makes the log
    // prepare the next one in the background.
    let (armed, log) = open_armed(dir, "create", || Err(enospc()));
    armed.store(true, Ordering::SeqCst);
    // Less than half, so that nobody prepares in the background: it might fail just before the disk
    // has room again, and whoever waited for it would be told.
    log.append(vec![1; 30_000]).unwrap();
    for _ in 0..3 {
        assert_eq!(log.append(vec![2; 40_000]).unwrap_err().kind(), ErrorKind::Full);
    }
    armed.store(false, Ordering::SeqCst);
    log.append(vec![2; 40_000]).unwrap();
    log.close().unwrap();
}

fn cancelled(dir: &Path) {
    let log = open(dir).unwrap();
    for n in 0..20 {
        let mut pending = log.submit(Record::new(vec![n; 100])).unwrap();
        for _ in 0..n % 3 {
            let polled = Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop()));
            drop(polled);
        }
    }
    drop(log);
    let log = reopen(dir);
    assert_eq!(log.range(..).unwrap().count(), 20);
}

type Round = fn(&Path);

const ALL: [(&str, Round); 7] = [
    ("appended and closed", appended_and_closed),
    ("opened and dropped", opened_and_dropped),
    ("poisoned", poisoned),
    ("committer died", committer_died),
    ("refused as corrupt", refused_as_corrupt),
    ("filled", filled),
    ("cancelled", cancelled),
];

/// One round in a directory of its own, which goes with it.
fn run(round: Round) {
    let dir = tempfile::tempdir().unwrap();
    round(&dir.path().join("log"));
}

/// Every round on every thread. They begin each kind together, so that as many threads as ever
/// are alive at once in the warm-up, too.
fn run_on_threads(rounds: usize) {
    let barrier = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for (_, round) in ALL {
                    barrier.wait();
                    (0..rounds).for_each(|_| run(round));
                }
            });
        }
    });
}

/// The C library keeps the arenas and some stacks (40 MiB of them, 19 threads' worth) of threads
/// that have ended, for the next ones. How many committers are on their way out at once is the
/// scheduler's; so more threads than that are alive at once before anything is counted, and then
/// a map more is one that a log has left.
fn fill_the_caches_of_threads() {
    const ENOUGH: usize = 48;
    let barrier = std::sync::Barrier::new(ENOUGH);
    std::thread::scope(|scope| {
        for _ in 0..ENOUGH {
            scope.spawn(|| {
                let touched = vec![1u8; 100_000];
                barrier.wait();
                drop(touched);
            });
        }
    });
}

/// Who opens, or writes alone and waits, pays for no thread.
fn the_committer_starts_when_it_is_needed(idle: usize) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    log.append("led by this thread").unwrap();
    log.set_hold("mine", Lsn::FIRST).unwrap();
    log.trim(Lsn::FIRST).unwrap();
    assert_eq!(threads(), idle);
    let pending = log.submit(Record::new("led by the committer")).unwrap();
    assert_eq!(threads(), idle + 1);
    pending.wait().unwrap();
    log.close().unwrap();
    Taken::settled(idle);
}

#[test]
fn after_any_end_descriptors_threads_maps_and_heap_are_as_before() {
    let idle = threads();
    the_committer_starts_when_it_is_needed(idle);
    fill_the_caches_of_threads();
    ALL.iter().for_each(|(_, round)| run(*round));
    run_on_threads(2);
    // Room for the figures is taken first, and nothing is printed in between: both are heap.
    let mut taken = Vec::with_capacity(ALL.len() + 1);
    let before = Taken::settled(idle);
    for (name, round) in ALL {
        (0..ROUNDS).for_each(|_| run(round));
        taken.push((name, Taken::settled(idle)));
    }
    run_on_threads(ROUNDS);
    taken.push(("all on four threads", Taken::settled(idle)));
    println!("before: {before:?}");
    for (name, after) in taken {
        println!("{name}: {after:?}");
        assert_eq!(after, before, "after {ROUNDS} rounds: {name}");
    }
}
