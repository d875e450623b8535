//! An append in a steady state asks the allocator for nothing. A binary of its own, because it
//! counts the allocator's calls.

#![expect(unsafe_code, reason = "an allocator that counts cannot be had without; tests only")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail loudly")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_wal::{Log, Options};

/// Calls that asked for memory, on all threads.
static CALLS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const APPENDS: usize = 500;
const WRITERS: usize = 8;
const PAYLOAD: &[u8] = &[7; 128];

fn appends(log: &Log) {
    for _ in 0..APPENDS {
        log.append(PAYLOAD).unwrap();
    }
}

/// Segments are large enough that none is changed or prepared meanwhile.
#[test]
fn an_append_asks_the_allocator_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(16 << 20).open(dir.path().join("log")).unwrap();
    appends(&log);
    let before = CALLS.load(Ordering::Relaxed);
    appends(&log);
    let alone = CALLS.load(Ordering::Relaxed) - before;
    println!("{alone} calls in {APPENDS} appends of one writer");
    assert_eq!(alone, 0);

    let barrier = Barrier::new(WRITERS + 1);
    let together = std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                appends(&log);
                barrier.wait();
                barrier.wait();
                appends(&log);
                barrier.wait();
            });
        }
        barrier.wait();
        let before = CALLS.load(Ordering::Relaxed);
        barrier.wait();
        barrier.wait();
        CALLS.load(Ordering::Relaxed) - before
    });
    println!("{together} calls in {} appends of {WRITERS} writers", WRITERS * APPENDS);
    // A waiter that has not looked at its answer yet holds on to its group's cohort; then and only
    // then the next group takes a new one.
    assert!(together <= (WRITERS * APPENDS / 100) as u64, "{together}");
    log.close().unwrap();
}
