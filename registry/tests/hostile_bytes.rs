//! What decoding asks the allocator for follows the bytes that are there, never a length that
//! they claim. A binary of its own, because it counts what the allocator is asked for.

#![expect(unsafe_code, reason = "an allocator that counts cannot be had without; tests only")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_registry::{Codec, Lsn, Value, decode_transaction};

/// The largest single allocation since it was last set to 0.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn largest_during(call: impl FnOnce()) -> usize {
    LARGEST.store(0, Ordering::Relaxed);
    call();
    LARGEST.load(Ordering::Relaxed)
}

/// Version, count, and as much of the first change as is given.
fn envelope(count: u64, rest: &[u8]) -> Vec<u8> {
    [&0u32.to_le_bytes()[..], &count.to_le_bytes(), rest].concat()
}

fn delete(len: u64, text: &[u8]) -> Vec<u8> {
    [&1u32.to_le_bytes()[..], &len.to_le_bytes(), text].concat()
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn a_forged_length_asks_for_nothing() {
    let lengths = [1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 26, 1 << 40, u64::MAX / 2, u64::MAX];
    for forged in lengths {
        for payload in [
            envelope(forged, b""),
            envelope(forged, &delete(2, b"T1")),
            envelope(1, &delete(forged, b"T1")),
        ] {
            let asked = largest_during(|| {
                assert!(decode_transaction(Lsn::FIRST, &payload).is_err());
            });
            assert!(asked <= 1024, "{asked} bytes for {} of input", payload.len());
        }
        let value = Value::new(forged.to_le_bytes(), Codec::BINCODE);
        let asked = largest_during(|| {
            assert!(value.decode_bincode::<String>().is_err());
        });
        assert!(asked <= 4 << 10, "{asked} bytes for a text of 8");
        let asked = largest_during(|| {
            assert!(value.decode_bincode::<Vec<String>>().is_err());
        });
        // serde reserves at most 1 MiB for a sequence, whatever is claimed.
        assert!(asked <= 1 << 20, "{asked} bytes for a sequence of 8");
    }
}
