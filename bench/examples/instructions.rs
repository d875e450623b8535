//! `instructions CASE`: runs one operation so often that valgrind can count its instructions.
//!
//! Never here: a clock, a figure. `cargo xtask instructions` runs this under callgrind, which counts
//! what the calling thread executes inside [`counted_section`] and nothing else: system calls are
//! the kernel's and cost nothing here, other threads are not counted. The log is on the real file
//! system for that reason; one in memory would count itself. No rotation falls into what is counted.
//! Next room: `xtask/src/instructions.rs`.
#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]

use std::hint::black_box;
use std::process::ExitCode;

use annals_observer::{JsonText, Observer};
use annals_registry::{Key, Registry, TxResult, Value};
use annals_wal::{Batch, Error, Log, Options, Record, Records};

/// Operations of a run; `xtask/src/instructions.rs` divides by it.
const COUNT: usize = 1000;
/// Before them, so that no buffer grows and no page is new inside.
const WARM: usize = 200;

fn main() -> ExitCode {
    let case = std::env::args().nth(1).unwrap_or_default();
    match case.as_str() {
        "encode_128" => encode(),
        "append_128" => append(),
        "scan_128" => scan(),
        "mapped_128" => mapped(),
        "transact_one_key" => transact(),
        "observe_1k" => observe(),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// What is counted, by this name.
#[inline(never)]
fn counted_section(work: impl FnOnce()) {
    work();
}

fn repeat(mut work: impl FnMut()) {
    (0..WARM).for_each(|_| work());
    counted_section(|| (0..COUNT).for_each(|_| work()));
}

fn with_log(work: impl FnOnce(&Log)) {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(16 << 20).open(dir.path().join("log")).unwrap();
    work(&log);
    log.close().unwrap();
}

/// One record laid out as a frame, its checksum taken: what a batch of one costs before the queue.
fn encode() {
    let payload = [b'x'; 128];
    repeat(|| {
        black_box(Batch::from(Record::new(black_box(&payload))).encode(16 << 20).unwrap());
    });
}

/// One durable record, the caller leading.
fn append() {
    let payload = [b'x'; 128];
    with_log(|log| {
        repeat(|| {
            black_box(log.append(black_box(&payload)).unwrap());
        });
    });
}

/// One record read back and verified.
fn scan() {
    with_log(|log| {
        log.append_batch(records_128()).unwrap();
        pass(|| log.range(..).unwrap());
    });
}

/// The same in a sealed segment that is mapped.
fn mapped() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(256 << 10).open(dir.path().join("log")).unwrap();
    let last = *log.append_batch(records_128()).unwrap().end();
    while log.stats().rotations == 0 {
        log.append([b'x'; 4096]).unwrap();
    }
    let read = || log.range(..=last).unwrap().mapped();
    pass(read);
    let mut records = read();
    assert_eq!(records.by_ref().count(), COUNT);
    assert_eq!(records.bytes_read(), 0, "it was mapped");
    log.close().unwrap();
}

fn records_128() -> Batch<'static> {
    (0..COUNT).map(|_| Record::new([b'x'; 128])).collect()
}

/// A replay that is counted, and one before it.
fn pass(records: impl Fn() -> Records) {
    let pass = || {
        let mut count = 0;
        let visit = |record: annals_wal::RecordRef<'_>| {
            black_box(record.payload);
            count += 1;
            Ok::<(), Error>(())
        };
        records().replay(visit).unwrap();
        assert_eq!(count, COUNT);
    };
    pass();
    counted_section(pass);
}

/// One key read and written in a durable transaction.
fn transact() {
    with_log(|log| {
        let registry = Registry::on(log.clone()).unwrap();
        let key = Key::new("tasks/T1/active").unwrap();
        registry.put(&key, Value::raw(*b"00000000")).unwrap();
        repeat(|| {
            let done = registry.transact(|tx| -> TxResult<()> {
                black_box(tx.get(&key)?);
                tx.put(&key, Value::raw(*b"11111111"));
                Ok(())
            });
            let _ = black_box(done.unwrap());
        });
    });
}

/// The start of a tool call with 1 KiB of input, durable.
fn observe() {
    with_log(|log| {
        let observer = Observer::on(log.clone()).unwrap();
        let session = observer.session("s-1").unwrap();
        let input = JsonText::string(&"x".repeat(1022));
        repeat(|| {
            let _ = black_box(session.tool("search").input(input.clone()).start().unwrap());
        });
    });
}
