//! The window through which files are read: what a slice of the same bytes says it says too, each
//! byte that is read in order is read once, and a jump reads little.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

mod lives;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use annals_wal::Window;
use annals_wal::fs::{File, Identity, Status, SyncPoint};
use annals_wal::scan::Source;
use lives::{Rng, number};

/// Bytes in memory that note who reads what, and give less than asked for now and then.
#[derive(Debug)]
struct Noting {
    bytes: Vec<u8>,
    reads: Mutex<Vec<(u64, usize)>>,
    /// Every so many reads one is short.
    short: usize,
    calls: AtomicUsize,
}

impl Noting {
    fn new(len: usize, short: usize) -> Arc<Noting> {
        let bytes = (0..len).map(|at| (at * 31 + at / 251) as u8).collect();
        Arc::new(Noting { bytes, reads: Mutex::default(), short, calls: AtomicUsize::new(0) })
    }

    fn read(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

impl File for Noting {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let mut len = rest.len().min(out.len());
        if self.short > 0 && call.is_multiple_of(self.short) {
            len = len.min(1 + len / 2);
        }
        out[..len].copy_from_slice(&rest[..len]);
        self.reads.lock().unwrap().push((offset, len));
        Ok(len)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        panic!("a window never writes")
    }

    fn sync_data(&self, _: SyncPoint) -> io::Result<()> {
        panic!("a window never syncs")
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::default())
    }

    fn status(&self) -> io::Result<Status> {
        panic!("a window never asks")
    }
}

/// Whatever is asked in whatever order, with limits moved and bytes forgotten between.
#[test]
fn a_window_says_what_a_slice_says() {
    let (from, count) = (number("ANNALS_SEED_FROM", 0), number("ANNALS_SEEDS", 300));
    for seed in from..from + count {
        let mut rng = Rng(seed);
        let len = rng.pick(&[0, 1, 4096, 100_000, 700_000]);
        let file = Noting::new(len, rng.below(3) as usize * 2);
        let mut window = Window::new(file.clone()).unwrap();
        let (mut at, mut limit) = (0, len as u64);
        for step in 0..60 {
            match rng.below(12) {
                0 => window.forget(),
                1 => {
                    limit = rng.below(len as u64 + 5000);
                    window.set_limit(limit);
                }
                2 | 3 => at = rng.below(len as u64 + 2),
                _ => {}
            }
            let most = rng.pick(&[33, 1000, 20_000, 400_000]);
            let asked = rng.below(most) as usize;
            let got = window.bytes(at, asked).map(<[u8]>::to_vec).map_err(|e| e.kind());
            let slice = &file.bytes[..len.min(limit as usize)];
            let due = slice.get(at as usize..at as usize + asked).map(<[u8]>::to_vec);
            // Of nothing there is enough anywhere below the limit.
            let nothing = || (asked == 0 && at <= limit).then(Vec::new);
            let due = due.or_else(nothing).ok_or(io::ErrorKind::UnexpectedEof);
            assert!(got == due, "seed {seed}, step {step}: {asked} bytes at {at} of {limit}");
            let beyond = file.read().into_iter().find(|(from, len)| from + *len as u64 > limit);
            assert_eq!(beyond, None, "seed {seed}, step {step}: beyond {limit}");
            at = if got.is_ok() { at + asked as u64 } else { 0 };
        }
    }
}

/// Frames of these sizes, header and body asked for one after the other as a walk does.
#[test]
fn a_byte_read_in_order_is_read_once_and_most_reads_are_large() {
    for size in [40u64, 160, 1056, 9000, 100_000, 300_000] {
        let file = Noting::new(8 << 20, 0);
        let mut window = Window::new(file.clone()).unwrap();
        let mut at = 0;
        while at + size <= 8 << 20 {
            window.bytes(at, 32).unwrap();
            window.bytes(at + 32, size as usize - 32).unwrap();
            at += size;
        }
        let reads = file.read();
        let (mut end, mut large) = (0, 0);
        for (from, len) in &reads {
            assert_eq!(*from, end, "frames of {size}: read twice, or left out");
            end += *len as u64;
            large += usize::from(*len >= 128 << 10);
        }
        // Of a frame larger than the window the header comes with a part of the body.
        let few = if size > 256 << 10 { 2 * large + 8 } else { large + 8 };
        assert!(large >= 26 && reads.len() <= few, "{size}: {large} of {} reads", reads.len());
    }
}

/// Who skips large payloads by their headers reads a page for each; small ones are read through.
#[test]
fn a_jump_reads_little() {
    // 262,144 bytes end 512 before the 16th header of 16,416: a window that large stayed large.
    let sizes = [(300_000u64, 4096), (64 << 10, 4096), (20_000, 4096), (16_416, 8192)];
    for (size, most) in sizes {
        let file = Noting::new(8 << 20, 0);
        let mut window = Window::new(file.clone()).unwrap();
        let frames = (8 << 20) / size;
        // Whoever read in order before reads far ahead, for once.
        let in_order = (1 << 20) / size;
        for frame in 0..in_order {
            window.bytes(frame * size, 32).unwrap();
            window.bytes(frame * size + 32, size as usize - 32).unwrap();
        }
        file.read();
        let frames = frames - in_order;
        for frame in in_order..in_order + frames {
            window.bytes(frame * size, 32).unwrap();
        }
        let read: usize = file.read().iter().map(|(_, len)| len).sum();
        let most = frames * most + (512 << 10);
        assert!(read as u64 <= most, "{read} bytes for {frames} headers of {size}");
    }
    let file = Noting::new(8 << 20, 0);
    let mut window = Window::new(file.clone()).unwrap();
    for frame in 0..(8 << 20) / 1056 {
        window.bytes(frame * 1056, 32).unwrap();
    }
    assert!(file.read().len() <= 40, "headers close together are read together");
}
