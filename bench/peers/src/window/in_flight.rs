//! Appends that need no thread each: many tasks with one record, one task with many.
//!
//! Never here: a thread that waits for a disk. Invariant: when a window ends, every record that was
//! submitted was waited for. Latencies: tasks share a few histograms behind locks that are hardly
//! ever contended (some 20 ns a record); one task reads the clock once for each refill and once for
//! each time it takes answers, so a record's latency runs from the begin of its refill to the end
//! of that look, and errs upwards. Next room: [`crate::window`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::runtime::{Builder, Runtime};

use super::{Measured, closed, end, histogram, nanos_since, rotations_since};
use crate::engine::{Outcome, Setup, Submits};
use crate::payload::Payload;

/// Histograms of all tasks: with one for each they would not fit a cache.
const SHARDS: usize = 16;

/// W tasks on a default runtime, each awaiting its own append in a closed loop.
pub(crate) fn tasks<E: Submits>(
    engine: &Arc<E>,
    setup: &Setup,
    payload: &Payload,
) -> Outcome<Measured> {
    let runtime = Builder::new_multi_thread().build()?;
    let shards = (0..SHARDS).map(|_| Ok(Mutex::new(histogram()?))).collect::<Outcome<Vec<_>>>()?;
    let shards = Arc::new(shards);
    let rotations = engine.rotations();
    let begin = Instant::now();
    let end = end(setup);
    let tasks: Vec<_> = (0..setup.writers)
        .map(|task| {
            let (engine, payload, shards) = (engine.clone(), payload.clone(), shards.clone());
            runtime.spawn(async move {
                let shard = &shards[task % SHARDS];
                one_task(&*engine, task, &payload, end, shard).await
            })
        })
        .collect();
    let acknowledged: Vec<Outcome<u64>> = runtime.block_on(async {
        let mut counts = Vec::with_capacity(tasks.len());
        for task in tasks {
            counts.push(task.await.unwrap_or_else(|_| Err("a task panicked".into())));
        }
        counts
    });
    let elapsed = begin.elapsed();
    let acknowledged: Vec<u64> = acknowledged.into_iter().collect::<Outcome<_>>()?;
    let mut latency = histogram()?;
    for shard in shards.iter() {
        latency.add(&*shard.lock().unwrap_or_else(PoisonError::into_inner))?;
    }
    let operations = acknowledged.iter().sum();
    let rotations = rotations_since(&**engine, rotations);
    Ok(Measured { acknowledged, operations, elapsed, latency, rotations })
}

async fn one_task<E: Submits>(
    engine: &E,
    task: usize,
    payload: &Payload,
    end: Instant,
    shard: &Mutex<Histogram<u64>>,
) -> Outcome<u64> {
    let mut record = Vec::with_capacity(payload.size);
    let mut count = 0;
    loop {
        payload.write(&mut record, task, count);
        let begin = Instant::now();
        if begin >= end {
            return Ok(count);
        }
        E::durable(engine.submit(&record)?).await?;
        let nanos = nanos_since(begin)?;
        shard.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos);
        count += 1;
    }
}

/// One task with so many records in flight; with one, an append after the other.
pub(crate) fn one<E: Submits>(
    engine: &Arc<E>,
    setup: &Setup,
    payload: &Payload,
) -> Outcome<Measured> {
    if setup.writers == 1 {
        return closed::append(engine, setup, payload);
    }
    let runtime: Runtime = Builder::new_current_thread().build()?;
    let rotations = engine.rotations();
    let begin = Instant::now();
    let (count, latency) = runtime.block_on(keep_in_flight(&**engine, setup, payload))?;
    let elapsed = begin.elapsed();
    let rotations = rotations_since(&**engine, rotations);
    Ok(Measured { acknowledged: vec![count], operations: count, elapsed, latency, rotations })
}

async fn keep_in_flight<E: Submits>(
    engine: &E,
    setup: &Setup,
    payload: &Payload,
) -> Outcome<(u64, Histogram<u64>)> {
    let mut latency = histogram()?;
    let mut record = Vec::with_capacity(payload.size);
    let mut waiting: VecDeque<E::Pending> = VecDeque::with_capacity(setup.writers);
    // When each refill began, and how many of its records are still waited for.
    let mut refills: VecDeque<(Instant, u64)> = VecDeque::new();
    let (mut submitted, end) = (0, end(setup));
    loop {
        let begin = Instant::now();
        if begin < end {
            let room = setup.writers - waiting.len();
            for _ in 0..room {
                payload.write(&mut record, 0, submitted);
                waiting.push_back(engine.submit(&record)?);
                submitted += 1;
            }
            refills.push_back((begin, room as u64));
        }
        // The oldest one's group, and whatever else is done by then.
        let Some(oldest) = waiting.pop_front() else {
            return Ok((submitted, latency));
        };
        E::durable(oldest).await?;
        let mut done = 1;
        while waiting.front().is_some_and(E::is_done) {
            let Some(next) = waiting.pop_front() else { break };
            E::durable(next).await?;
            done += 1;
        }
        record_done(&mut latency, &mut refills, done)?;
    }
}

/// The oldest `done` records are durable now.
fn record_done(
    latency: &mut Histogram<u64>,
    refills: &mut VecDeque<(Instant, u64)>,
    mut done: u64,
) -> Outcome<()> {
    while let Some((begin, left)) = refills.front_mut() {
        let here = done.min(*left);
        latency.saturating_record_n(nanos_since(*begin)?, here);
        *left -= here;
        done -= here;
        if *left > 0 {
            break;
        }
        refills.pop_front();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::engine::Engine;
    use crate::payload::Seen;
    use crate::window::Window;
    use crate::workload::Workload;

    type Ours = crate::engines::Annals;

    /// Runs a window on the real log and holds what it says against what the log has.
    fn run(workload: Workload, writers: usize) -> Measured {
        let dir = tempfile::tempdir().unwrap();
        let (size, payload) = (128, Payload::new(1, 128));
        let dir_path = dir.path().to_owned();
        let setup = Setup { dir: dir_path, workload, writers, size, seconds: 0.05 };
        let window: Window<Ours> = Ours::window(workload).unwrap();
        let engine = Arc::new(Ours::open(&setup).unwrap());
        let measured = window(&engine, &setup, &payload).unwrap();
        drop(engine);
        let mut seen = Seen::new(payload, measured.acknowledged.len());
        Ours::reopen(dir.path(), size, &mut |record| seen.take(record)).unwrap();
        assert_eq!(seen.check(&measured.acknowledged).unwrap(), measured.operations);
        assert!(measured.operations > 0);
        measured
    }

    #[test]
    fn every_record_that_was_in_flight_is_counted_and_timed_once() {
        for (workload, writers) in
            [(Workload::InFlight, 4096), (Workload::InFlight, 1), (Workload::AppendAsync, 100)]
        {
            let measured = run(workload, writers);
            assert_eq!(measured.latency.len(), measured.operations, "{workload:?} {writers}");
        }
    }

    #[test]
    fn a_batch_is_timed_once_for_all_its_records() {
        let measured = run(Workload::Batch, 2);
        assert_eq!(measured.latency.len() * 100, measured.operations);
    }

    #[test]
    fn a_refill_that_is_answered_in_parts_is_timed_in_parts() {
        let (mut latency, begin) = (histogram().unwrap(), Instant::now());
        let mut refills = VecDeque::from([(begin, 3), (begin, 4)]);
        record_done(&mut latency, &mut refills, 5).unwrap();
        assert_eq!((latency.len(), refills.len(), refills[0].1), (5, 1, 2));
    }

    #[test]
    fn an_engine_that_blocks_has_no_task() {
        assert!(!args::engine("jsonl").unwrap().awaits);
        assert!(args::engine("annals").unwrap().awaits);
    }
}
