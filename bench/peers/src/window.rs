//! The window: W threads that append one record after the other, for so many seconds.
//!
//! Never here: an engine's name, a process. Each thread has its own histogram; they are merged when
//! all have ended. A thread ends its last append even if the window is over, so whatever was begun
//! was acknowledged or failed, and the rate is what was acknowledged over the time it took.
//! A new workload is a variant of [`Workload`] and an arm of [`run`].
//! Next room: [`crate::child`].

use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::{Engine, Failure, Outcome, Setup};
use crate::payload::Payload;

/// What the threads do. `append_async`, `one_task_in_flight`, `batch`, `scan` and `processes_4`
/// will stand beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Closed loop: the next append begins when the one before is durable.
    Append,
}

impl Workload {
    pub(crate) const ALL: [Workload; 1] = [Workload::Append];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Append => "append",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Workload> {
        Workload::ALL.into_iter().find(|workload| workload.name() == name)
    }
}

/// What a window gave.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Per writer: how many were acknowledged.
    pub(crate) acknowledged: Vec<u64>,
    pub(crate) elapsed: Duration,
    /// Nanoseconds of each append.
    pub(crate) latency: Histogram<u64>,
    /// Segments ended inside the window.
    pub(crate) rotations: Option<u64>,
}

/// Runs the workload on an open engine.
pub(crate) fn run<E: Engine>(
    workload: Workload,
    engine: &E,
    setup: &Setup,
    payload: Payload,
) -> Outcome<Measured> {
    match workload {
        Workload::Append => append(engine, setup, payload),
    }
}

fn append<E: Engine>(engine: &E, setup: &Setup, payload: Payload) -> Outcome<Measured> {
    let rotations = engine.rotations();
    let barrier = Barrier::new(setup.writers + 1);
    let (written, elapsed) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..setup.writers)
            .map(|writer| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut histogram = histogram()?;
                    barrier.wait();
                    let end = Instant::now() + Duration::from_secs_f64(setup.seconds);
                    let count = append_until(end, engine, writer, payload, &mut histogram)?;
                    Ok::<_, Failure>((count, histogram))
                })
            })
            .collect();
        barrier.wait();
        let begin = Instant::now();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Outcome<_>>| {
            thread.join().unwrap_or_else(|_| Err("a writer panicked".into()))
        };
        let written: Vec<Outcome<(u64, Histogram<u64>)>> = threads.into_iter().map(join).collect();
        (written, begin.elapsed())
    });
    let mut latency = histogram()?;
    let mut acknowledged = Vec::with_capacity(setup.writers);
    for writer in written {
        let (count, histogram) = writer?;
        latency.add(&histogram)?;
        acknowledged.push(count);
    }
    let rotations = engine.rotations().map(|now| now - rotations.unwrap_or(0));
    Ok(Measured { acknowledged, elapsed, latency, rotations })
}

fn append_until<E: Engine>(
    end: Instant,
    engine: &E,
    writer: usize,
    payload: Payload,
    histogram: &mut Histogram<u64>,
) -> Outcome<u64> {
    let mut record = Vec::with_capacity(payload.size);
    let mut count = 0;
    loop {
        payload.write(&mut record, writer, count);
        let begin = Instant::now();
        if begin >= end {
            return Ok(count);
        }
        engine.append(writer, &record)?;
        histogram.saturating_record(u64::try_from(begin.elapsed().as_nanos())?);
        count += 1;
    }
}

/// From 100 ns to two minutes, three digits.
fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(100, 120_000_000_000, 3)?)
}
