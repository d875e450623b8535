//! The observer: `observer/record_minimal`, the start of a tool call and nothing in it;
//! `observer/record_full`, one with ids, agent, metadata and 1 KiB of input;
//! `observer/record_full_durable`, the same and its sync; `observer/json`, a full entry as JSON.
//!
//! The first two at level *ordered*: what a call costs its caller, the sync left to the log, which
//! works beside it and pushes back when its queue is full. The log lies in the directory that
//! `TMPDIR` names. Throughput counts entries.
#![expect(clippy::unwrap_used, reason = "a bench may fail loudly")]
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;
use std::time::Duration;

use annals_observer::{CallId, JsonText, Level, Observer, Session, session_entries};
use annals_wal::Log;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn full(session: &Session, input: &JsonText, metadata: &JsonText, level: Level) {
    let call = session.tool("search").by_agent("planner").call_id(CallId::new("call_1").unwrap());
    let call = call.input(input.clone()).metadata(metadata.clone()).level(level).start();
    let _ = black_box(call.unwrap());
}

fn observer(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let observer = Observer::on(Log::open(dir.path().join("log")).unwrap()).unwrap();
    let session = observer.session("s-1").unwrap();
    let input = JsonText::string(&"x".repeat(1022));
    let metadata = JsonText::parse(r#"{"attempt": 1, "cached": false}"#).unwrap();
    full(&session, &input, &metadata, Level::Durable);
    let stored = session_entries(observer.log(), "s-1").unwrap().next().unwrap().unwrap();
    let mut group = c.benchmark_group("observer");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(1));
    group.bench_function("record_minimal", |b| {
        b.iter(|| {
            let _ = black_box(session.tool("search").level(Level::Ordered).start().unwrap());
        });
    });
    group.bench_function("record_full", |b| {
        b.iter(|| full(&session, &input, &metadata, Level::Ordered));
    });
    group.bench_function("record_full_durable", |b| {
        b.iter(|| full(&session, &input, &metadata, Level::Durable));
    });
    group.bench_function("json", |b| {
        b.iter(|| black_box(JsonText::of(black_box(&stored.entry)).unwrap()));
    });
    group.finish();
    observer.shutdown().unwrap();
}

criterion_group!(benches, observer);
criterion_main!(benches);
