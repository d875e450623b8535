//! An opening after a clean close: `open/{history}`, with so many MiB of sealed segments before the
//! active one. The time should follow the active segment and not the history.
#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::time::{Duration, Instant};

use annals_wal::{Batch, Log, Options, Record};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const PAYLOAD: &[u8] = &[b'x'; 1000];

/// A log of so many MiB in 1 MiB segments.
fn fill(log: &Log, mebibytes: usize) {
    for _ in 0..mebibytes {
        let batch: Batch<'_> = (0..960).map(|_| Record::new(PAYLOAD)).collect();
        log.append_batch(batch).unwrap();
    }
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for mebibytes in [1, 16, 128] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().segment_bytes(1 << 20);
        let log = options.clone().open(dir.path().join("log")).unwrap();
        fill(&log, mebibytes);
        log.close().unwrap();
        group.bench_function(BenchmarkId::from_parameter(mebibytes), |b| {
            b.iter_custom(|count| {
                let mut took = Duration::ZERO;
                for _ in 0..count {
                    let start = Instant::now();
                    let log = options.clone().open(dir.path().join("log")).unwrap();
                    took += start.elapsed();
                    log.close().unwrap();
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, open);
criterion_main!(benches);
