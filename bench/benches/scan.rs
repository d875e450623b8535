//! Reading a whole log record by record, both checksums verified: owned, lent, and skipped by
//! header.
//!
//! The log is written once, in the directory that `TMPDIR` names, and read warm: from the page
//! cache and through `pread`. Throughput counts payload bytes. `lent` and `owned` differ by a copy and an
//! allocation per record; `skipped` wants one record in a hundred and counts them all.
#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use annals_wal::{Batch, Error, Filter, Log, Options, Record, Stream};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

const BATCH: u64 = 1000;
const STREAMS: u64 = 100;

/// A log of `count` records of `size` bytes over a few segments of 64 MiB.
fn written(size: usize, count: u64) -> (TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(64 << 20).open(dir.path().join("log")).unwrap();
    let record = |n: u64| Record::new(vec![n as u8; size]).stream(Stream((n % STREAMS) as u32));
    for _ in 0..count / BATCH {
        log.append_batch((0..BATCH).map(record).collect::<Batch>()).unwrap();
    }
    (dir, log)
}

/// Records and bytes of a scan that copies nothing.
fn lent(log: &Log, filter: Filter) -> (u64, usize) {
    let mut seen = (0, 0);
    let visit = |record: annals_wal::RecordRef<'_>| {
        seen = (seen.0 + 1, seen.1 + black_box(record.payload).len());
        Ok::<(), Error>(())
    };
    log.range(..).unwrap().only(filter).replay(visit).unwrap();
    seen
}

fn owned(log: &Log) -> (u64, usize) {
    let records = log.range(..).unwrap().map(Result::unwrap);
    records.fold((0, 0), |seen, record| (seen.0 + 1, seen.1 + black_box(record.payload).len()))
}

fn scan(c: &mut Criterion) {
    for (size, count) in [(128, 1_000_000), (1024, 200_000)] {
        let (_dir, log) = written(size, count);
        let bytes = size * count as usize;
        let some = Filter::new().stream(Stream(7));
        let mut group = c.benchmark_group("scan");
        group
            .sample_size(20)
            .throughput(Throughput::ElementsAndBytes { elements: count, bytes: bytes as u64 });
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| assert_eq!(lent(&log, Filter::new()), (count, bytes)));
        });
        group.bench_function(BenchmarkId::new("owned", size), |b| {
            b.iter(|| assert_eq!(owned(&log), (count, bytes)));
        });
        group.bench_function(BenchmarkId::new("skipped", size), |b| {
            b.iter(|| assert_eq!(lent(&log, some).0, count / STREAMS));
        });
        group.finish();
    }
}

criterion_group!(benches, scan);
criterion_main!(benches);
