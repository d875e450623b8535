//! A log that is used for long holds no more memory than one that is used briefly. A binary of its
//! own, because it counts what the allocator gives and gets back.

#![expect(unsafe_code, reason = "an allocator that counts cannot be had without; tests only")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail loudly")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use annals_wal::{Log, Record};

/// Bytes given and not given back, on all threads.
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

const GROUPS: usize = 200;

fn append_and_submit(log: &Log) {
    for _ in 0..GROUPS {
        log.append("led by its caller").unwrap();
        log.submit(Record::new("led by the committer, or by who waits")).unwrap().wait().unwrap();
    }
}

/// Each group left its waiters' 72 bytes on the heap: the leader was forgotten and not dropped
/// (found by LeakSanitizer under the fuzz target `directory`).
#[test]
fn a_commit_leaves_nothing_on_the_heap() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    append_and_submit(&log);
    let before = LIVE.load(Ordering::Relaxed);
    append_and_submit(&log);
    let grown = LIVE.load(Ordering::Relaxed) - before;
    println!("{grown} bytes after {} groups", 2 * GROUPS);
    assert!(grown < 4096, "{grown} bytes after {} groups", 2 * GROUPS);
    log.close().unwrap();
}
