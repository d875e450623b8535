//! The registry: `registry/transact`, a key read and written by a durable transaction;
//! `registry/get` and `registry/get_8_threads`, plain reads; `registry/hot_64`, 64 threads that
//! change one key.
//!
//! The log lies in the directory that `TMPDIR` names. Throughput counts transactions and reads; the
//! reads are eight threads' together.
#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use annals_registry::{Key, Registry, TxResult, Value};
use annals_wal::Log;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

/// Keys that are there.
const KEYS: usize = 10_000;

fn key(number: usize) -> Key {
    Key::new(format!("tasks/{number}/active")).unwrap()
}

fn registry() -> (TempDir, Registry, Vec<Key>) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::on(Log::open(dir.path().join("log")).unwrap()).unwrap();
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    for some in keys.chunks(1000) {
        let put = registry.transact(|tx| -> TxResult<()> {
            some.iter().for_each(|key| tx.put(key, Value::raw(*b"00000000")));
            Ok(())
        });
        let _ = put.unwrap();
    }
    (dir, registry, keys)
}

/// Reads a key and writes it again.
fn change(registry: &Registry, key: &Key) {
    let done = registry.transact(|tx| -> TxResult<()> {
        black_box(tx.get(key)?);
        tx.put(key, Value::raw(*b"11111111"));
        Ok(())
    });
    let _ = done.unwrap();
}

/// Time of `count` calls spread over so many threads.
fn spread(threads: u64, count: u64, work: impl Fn(u64) + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (share, work) = (count / threads + u64::from(thread < count % threads), &work);
            scope.spawn(move || (0..share).for_each(|n| work(thread + n * threads)));
        }
    });
    start.elapsed()
}

fn registry_benches(c: &mut Criterion) {
    let (_dir, registry, keys) = registry();
    let nth = |n: u64| &keys[n as usize * 7919 % KEYS];
    let mut group = c.benchmark_group("registry");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(1));
    group.bench_function("transact", |b| {
        let mut n = 0;
        b.iter(|| {
            change(&registry, nth(n));
            n += 1;
        });
    });
    group.bench_function("get", |b| {
        let mut n = 0;
        b.iter(|| {
            black_box(registry.get(nth(n)));
            n += 1;
        });
    });
    group.bench_function("get_8_threads", |b| {
        b.iter_custom(|count| spread(8, count, |n| drop(black_box(registry.get(nth(n))))));
    });
    group.bench_function("hot_64", |b| {
        b.iter_custom(|count| spread(64, count, |_| change(&registry, &keys[0])));
    });
    group.finish();
}

criterion_group!(benches, registry_benches);
criterion_main!(benches);
