//! The durable append: `append/{writers}/{size}`, closed loop, what a caller waits for;
//! `append_async/{in flight}/{size}`, one thread with so many records in flight;
//! `batch/{records}/{size}`, one writer.
//!
//! Each sample runs against a fresh log in the directory that `TMPDIR` names; put that on the disk
//! you want to measure, a memory file system measures the code alone.
#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use annals_wal::{Batch, Log, Pending, Record};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};

/// Time for `work` on a fresh log.
fn timed(work: impl FnOnce(&Log)) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let start = Instant::now();
    work(&log);
    let took = start.elapsed();
    log.close().unwrap();
    took
}

/// `count` durable appends spread over `writers` threads in a closed loop.
fn appends(log: &Log, writers: u64, payload: &[u8], count: u64) {
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let share = count / writers + u64::from(writer < count % writers);
            scope.spawn(move || {
                for _ in 0..share {
                    log.append(payload).unwrap();
                }
            });
        }
    });
}

/// `count` records from one thread, up to `in_flight` of them not yet durable.
fn submits(log: &Log, in_flight: usize, payload: &[u8], count: u64) {
    let mut waiting: VecDeque<Pending> = VecDeque::with_capacity(in_flight);
    for _ in 0..count {
        if waiting.len() == in_flight {
            // The oldest one's group, and so everything before it.
            waiting.pop_front().unwrap().wait().unwrap();
            while waiting.front().is_some_and(Pending::is_done) {
                waiting.pop_front().unwrap().wait().unwrap();
            }
        }
        waiting.push_back(log.submit(Record::new(payload)).unwrap());
    }
    for pending in waiting {
        pending.wait().unwrap();
    }
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.warm_up_time(Duration::from_secs(1));
    group
}

fn append(c: &mut Criterion) {
    let mut group = group(c, "append");
    for (writers, size) in [(1, 128), (2, 128), (8, 128), (64, 128), (1, 4096), (8, 4096)] {
        group.throughput(Throughput::Bytes(size));
        let payload = vec![b'x'; size as usize];
        group.bench_function(BenchmarkId::new(format!("{writers}"), size), |b| {
            b.iter_custom(|count| timed(|log| appends(log, writers, &payload, count)));
        });
    }
}

fn append_async(c: &mut Criterion) {
    let mut group = group(c, "append_async");
    for (in_flight, size) in [(64, 128), (1024, 128), (4096, 128), (1024, 1024)] {
        group.throughput(Throughput::Bytes(size));
        let payload = vec![b'x'; size as usize];
        group.bench_function(BenchmarkId::new(format!("{in_flight}"), size), |b| {
            b.iter_custom(|count| timed(|log| submits(log, in_flight, &payload, count)));
        });
    }
}

fn batch(c: &mut Criterion) {
    let mut group = group(c, "batch");
    for (records, size) in [(10, 128), (1000, 128)] {
        group.throughput(Throughput::Bytes(records * size));
        let payload = vec![b'x'; size as usize];
        group.bench_function(BenchmarkId::new(format!("{records}"), size), |b| {
            b.iter_custom(|count| {
                timed(|log| {
                    for _ in 0..count {
                        let batch = (0..records).map(|_| Record::new(&payload));
                        log.append_batch(Batch::from_iter(batch)).unwrap();
                    }
                })
            });
        });
    }
}

criterion_group!(benches, append, append_async, batch);
criterion_main!(benches);
