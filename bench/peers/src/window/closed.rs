//! Closed loops of threads: one record, or one batch, after the other.
//!
//! Never here: an engine's name. A thread ends its last call even if the window is over. Records
//! are made between the calls: their cost is in the rate, the same for every engine, and in no
//! latency. Next room: [`crate::window`].

use std::sync::{Arc, Barrier};
use std::time::Instant;

use hdrhistogram::Histogram;

use super::{Measured, end, histogram, nanos_since, rotations_since};
use crate::engine::{Engine, Failure, Outcome, Setup};
use crate::payload::Payload;
use crate::workload::BATCH;

/// W threads, one record a call.
pub(crate) fn append<E: Engine>(
    engine: &Arc<E>,
    setup: &Setup,
    payload: &Payload,
) -> Outcome<Measured> {
    counted(&**engine, setup, |end, writer, histogram| {
        let mut record = Vec::with_capacity(payload.size);
        let mut count = 0;
        loop {
            payload.write(&mut record, writer, count);
            let begin = Instant::now();
            if begin >= end {
                return Ok(count);
            }
            engine.append(writer, &record)?;
            histogram.saturating_record(nanos_since(begin)?);
            count += 1;
        }
    })
}

/// W threads, [`BATCH`] records a call. The latency is that of the call.
pub(crate) fn batch<E: Engine>(
    engine: &Arc<E>,
    setup: &Setup,
    payload: &Payload,
) -> Outcome<Measured> {
    counted(&**engine, setup, |end, writer, histogram| {
        let mut records = vec![Vec::new(); BATCH];
        let mut count = 0;
        loop {
            for (record, sequence) in records.iter_mut().zip(count..) {
                payload.write(record, writer, sequence);
            }
            let begin = Instant::now();
            if begin >= end {
                return Ok(count);
            }
            engine.append_batch(writer, &records)?;
            histogram.saturating_record(nanos_since(begin)?);
            count += BATCH as u64;
        }
    })
}

/// [`threads`], with the segments that an engine ended meanwhile.
fn counted<E: Engine>(
    engine: &E,
    setup: &Setup,
    work: impl Fn(Instant, usize, &mut Histogram<u64>) -> Outcome<u64> + Sync,
) -> Outcome<Measured> {
    let rotations = engine.rotations();
    let measured = threads(setup, |writer, histogram| work(end(setup), writer, histogram))?;
    Ok(Measured { rotations: rotations_since(engine, rotations), ..measured })
}

/// Runs `work` on each thread from one moment on; it returns how many calls it made.
pub(super) fn threads(
    setup: &Setup,
    work: impl Fn(usize, &mut Histogram<u64>) -> Outcome<u64> + Sync,
) -> Outcome<Measured> {
    let barrier = Barrier::new(setup.writers + 1);
    let (written, elapsed) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..setup.writers)
            .map(|writer| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    let histogram = histogram();
                    barrier.wait();
                    let mut histogram = histogram?;
                    let count = work(writer, &mut histogram)?;
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
    let operations = acknowledged.iter().sum();
    Ok(Measured { acknowledged, operations, elapsed, latency, rotations: None })
}
