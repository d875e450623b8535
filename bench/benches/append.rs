//! The durable append, at one and at eight writers: what a caller waits for.
//!
//! Each sample runs against a fresh log in the directory that `TMPDIR` names; put that on the disk
//! you want to measure, a memory file system measures the code alone.
#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::time::{Duration, Instant};

use annals_wal::Log;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const RECORD: [u8; 128] = [b'x'; 128];

/// Time for `count` durable appends spread over `writers` threads in a closed loop.
fn run(writers: u64, count: u64) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let log = &log;
            let share = count / writers + u64::from(writer < count % writers);
            scope.spawn(move || {
                for _ in 0..share {
                    log.append(RECORD).unwrap();
                }
            });
        }
    });
    let took = start.elapsed();
    log.close().unwrap();
    took
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(1));
    for writers in [1, 8] {
        group.bench_with_input(BenchmarkId::from_parameter(writers), &writers, |b, &writers| {
            b.iter_custom(|count| run(writers, count));
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
