//! An allocator that counts: what a piece of code holds at its peak, and its largest single
//! allocation, on this thread.
//!
//! Never here: what is too much for a call; the bodies say that. It is the oracle that
//! `-rss_limit_mb` cannot be: that one is absolute, and an allocation may follow the input's size
//! and nothing else. It counts on stable, too, where the corpus is run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// No input is large enough to pay for this much in one piece. A plain allocation then aborts, and
/// libFuzzer's own `-malloc_limit_mb` does not work without a sanitizer.
const ALLOCATION_MAX: usize = 64 << 20;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn taken(size: usize) {
    // A thread that ends may allocate after its counters are gone.
    let _ = LIVE.try_with(|live| {
        let now = live.get() + size as i64;
        live.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
    });
}

fn given_back(size: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get() - size as i64));
}

// SAFETY: every call goes to the system's allocator as it came; the counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > ALLOCATION_MAX {
            return std::ptr::null_mut();
        }
        taken(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > ALLOCATION_MAX {
            return std::ptr::null_mut();
        }
        taken(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > ALLOCATION_MAX {
            return std::ptr::null_mut();
        }
        given_back(layout.size());
        taken(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What was asked of the allocator.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Bytes held at once, above what was held before.
    pub peak: usize,
    /// The largest single allocation.
    pub largest: usize,
}

/// Runs `call` and tells what it took on this thread.
pub fn measured<T>(call: impl FnOnce() -> T) -> (T, Used) {
    let before = LIVE.get();
    PEAK.set(before);
    LARGEST.set(0);
    let value = call();
    let peak = usize::try_from(PEAK.get() - before).unwrap_or(0);
    (value, Used { peak, largest: LARGEST.get() })
}
