//! What reading a log asks the allocator for follows the bytes that are there, never a number that
//! they claim. A binary of its own, because it counts what the allocator is asked for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]
#![expect(unsafe_code, reason = "an allocator that counts cannot be had without; tests only")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_wal::format::{self, FrameHeader, HeaderVerdict, OwnBody, SegmentHeader};
use annals_wal::inspect::{Depth, inspect};
use annals_wal::{Batch, ErrorKind, Filter, LogReader, Lsn, Options, Record, Records, Stream};

/// The largest single allocation since it was last set to 0.
static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// How many there were.
static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        LARGEST.fetch_max(size, Ordering::Relaxed);
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

fn largest_during(call: impl FnOnce()) -> usize {
    LARGEST.store(0, Ordering::Relaxed);
    call();
    LARGEST.load(Ordering::Relaxed)
}

const SEGMENT: &str = "00000000000000000001.wal";
const CAPACITY: usize = 64 << 10;
/// A window reads ahead 256 KiB at most, zeros are written 256 KiB at a time.
const BUFFERS: usize = 256 << 10;

fn options() -> Options {
    Options::new().segment_bytes(CAPACITY as u64)
}

/// A log of two segments, closed; its control block counts for nothing.
fn honest(path: &Path) {
    let log = options().open(path).unwrap();
    for _ in 0..8 {
        log.append(vec![7; 9000]).unwrap();
    }
    log.close().unwrap();
    std::fs::remove_file(path.join("CONTROL")).unwrap();
}

/// Everything that reads a log, and the opening last: it may change files.
fn read_all(path: &Path) -> usize {
    largest_during(|| {
        let _ = inspect(path, Depth::Everything, &mut |_| ());
        if let Ok(reader) = LogReader::open(path) {
            for reader in [reader.clone(), reader.unproven(true)] {
                let _ = reader.range(..).map(|records| records.take(10_000).count());
            }
        }
        let _ = options().open(path);
    })
}

fn edit(path: &Path, name: &str, edit: impl FnOnce(&mut Vec<u8>, &SegmentHeader)) {
    let file = path.join(name);
    let mut bytes = std::fs::read(&file).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!("{name}") };
    edit(&mut bytes, &header);
    std::fs::write(&file, bytes).unwrap();
}

fn put_frame(bytes: &mut [u8], header: &SegmentHeader, at: usize, frame: &FrameHeader) {
    bytes[at..at + 32].copy_from_slice(&frame.encode(header.salt, at as u64));
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn memory_follows_the_bytes_that_are_there() {
    lengths_of_frames();
    lengths_of_files();
    capacities();
    fields_of_own_records();
    many_small_frames();
    lent_records();
}

/// Lent records cost no allocation each: a thousand of them as many as ten.
fn lent_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Options::new().segment_bytes(4 << 20).open(&path).unwrap();
    for n in 0..40u32 {
        let batch: Batch =
            (0..100).map(|i| Record::new(vec![7; 200]).stream(Stream(i & n))).collect();
        log.append_batch(batch).unwrap();
    }
    let reader = LogReader::open(&path).unwrap();
    let follow = || reader.follow(Lsn::FIRST).unwrap();
    let scan = |mut records: Records, wanted: usize| {
        let before = COUNT.load(Ordering::Relaxed);
        let read = std::iter::from_fn(|| records.next_ref().map(|r| r.unwrap().lsn)).count();
        assert!(read >= wanted, "{read} records");
        COUNT.load(Ordering::Relaxed) - before
    };
    let some = Filter::new().stream(Stream(1));
    let mut asked = vec![
        scan(log.range(..).unwrap(), 4000),
        scan(reader.range(..).unwrap(), 4000),
        scan(log.range(..).unwrap().only(some), 100),
    ];
    let (mut follow, before) = (follow(), COUNT.load(Ordering::Relaxed));
    for _ in 0..4000 {
        assert!(follow.try_next_ref().unwrap().is_some());
    }
    asked.push(COUNT.load(Ordering::Relaxed) - before);
    println!("allocations of scans of 4000 records: {asked:?}");
    // The name and the handle of the file, and a window that grew seven times.
    assert!(asked.iter().all(|asked| *asked <= 24), "{asked:?}");
}

/// A frame that claims to be huge, header checksum and all.
fn lengths_of_frames() {
    for name in [SEGMENT, "00000000000000000002.wal"] {
        for len in [CAPACITY as u32, 1 << 24, 1 << 30, u32::MAX] {
            for own in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("log");
                honest(&path);
                edit(&path, name, |bytes, header| {
                    let head = bytes[128..160].first_chunk().unwrap();
                    let mut open = FrameHeader::decode(head, header.salt, 128).unwrap();
                    let second = 128 + open.frame_size() as usize;
                    if own {
                        open.len = len;
                        return put_frame(bytes, header, 128, &open);
                    }
                    let head = bytes[second..].first_chunk().unwrap();
                    let mut record = FrameHeader::decode(head, header.salt, second as u64).unwrap();
                    record.len = len;
                    put_frame(bytes, header, second, &record);
                });
                let asked = read_all(&path);
                assert!(asked <= BUFFERS, "{asked} bytes for a length of {len} in {name}");
            }
        }
    }
}

/// A file that claims to be huge: sparse, a hole of a terabyte behind it.
fn lengths_of_files() {
    for name in [SEGMENT, "00000000000000000002.wal", "CONTROL", "LOCK", "registry-1.snap"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        honest(&path);
        let file = std::fs::OpenOptions::new();
        let file = file.clone().create(true).truncate(false).write(true).open(path.join(name));
        file.unwrap().set_len(1 << 40).unwrap();
        let asked = read_all(&path);
        assert!(asked <= BUFFERS, "{asked} bytes for a hole in {name}");
    }
}

/// A header that claims a capacity of 32 GiB over a file of 64 KiB: nobody makes the rest.
fn capacities() {
    for name in [SEGMENT, "00000000000000000002.wal"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        honest(&path);
        edit(&path, name, |bytes, header| {
            let forged = SegmentHeader { capacity: 32 << 30, ..*header };
            bytes[..128].copy_from_slice(&forged.encode());
        });
        let asked = read_all(&path);
        assert!(asked <= BUFFERS, "{asked} bytes for a capacity in {name}");
        let len = std::fs::metadata(path.join(name)).unwrap().len();
        assert_eq!(len, CAPACITY as u64, "no file grew");
        // A sealed segment is judged by its seal; the active one would have to be extended.
        if name != SEGMENT {
            assert_eq!(options().open(&path).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}

/// A field of an own record that claims to go on for ever.
fn fields_of_own_records() {
    for tag in [1u16, 2, 3, 4, 6, 8, 9, 0x8000] {
        for len in [64u32, 1 << 20, u32::MAX] {
            let body = [&tag.to_le_bytes()[..], &len.to_le_bytes(), b"0123456789"].concat();
            let asked = largest_during(|| {
                OwnBody::decode(&body).unwrap_err();
            });
            assert!(asked <= 1024, "{asked} bytes for field {tag} of {len}");
        }
    }
}

/// The most that can be made of few bytes: frames of nothing but a header, each of them kept or
/// each of them damaged. A multiple of the file, with a bound.
fn many_small_frames() {
    for damaged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = options().open(&path).unwrap();
        log.append("one").unwrap();
        drop(log);
        std::fs::remove_file(path.join("CONTROL")).unwrap();
        edit(&path, SEGMENT, |bytes, header| {
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            let mut at = (used + 1).next_multiple_of(8);
            while at + 32 <= CAPACITY - 8704 {
                let mut frame = FrameHeader {
                    payload_crc: format::crc32(b""),
                    lsn: 1,
                    len: 0,
                    durable_lag: 0,
                    stream: 0,
                    kind: 0x8003,
                    flags: u8::from(damaged),
                    codec: 0,
                };
                frame.durable_lag = ((at - 128) / 8) as u32;
                put_frame(bytes, header, at, &frame);
                at += 32;
            }
        });
        let file = std::fs::File::open(path.join(SEGMENT)).unwrap();
        assert!(file.read_at(&mut [0; 32], 50_000).unwrap() == 32);
        let asked = read_all(&path);
        println!("damaged {damaged}: {asked} bytes at once for a file of {CAPACITY}");
        assert!(asked <= 16 * CAPACITY, "{asked} bytes");
    }
}
