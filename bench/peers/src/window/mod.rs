//! The window: what a workload does with an open engine, for so many seconds.
//!
//! Never here: an engine's name, a process ([`crate::processes`]). Invariants: whatever was begun in a window was
//! acknowledged or failed when it ends, and the rate is what was acknowledged over the time that
//! took. Each thread has its own histogram, merged when all have ended; all loops are closed, so a
//! stall delays the appends behind it and is recorded once: latencies are what a caller of such a
//! loop saw, and say nothing of callers that arrive at times of their own.
//! Rooms: [`closed`] (threads), [`in_flight`] (tasks), [`scan`], [`registry`].
//! Next room: [`crate::child`].

pub(crate) mod closed;
pub(crate) mod in_flight;
pub(crate) mod registry;
pub(crate) mod scan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::{Engine, Outcome, Setup};
use crate::payload::Payload;
use crate::workload::Workload;

/// Runs a workload on an open engine.
pub(crate) type Window<E> = fn(&Arc<E>, &Setup, &Payload) -> Outcome<Measured>;

/// What a window gave.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Per writer: how many records are acknowledged and must be there after a kill.
    pub(crate) acknowledged: Vec<u64>,
    /// Records written or read.
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds of each call; of a scan, of each whole pass.
    pub(crate) latency: Histogram<u64>,
    /// Segments ended inside the window.
    pub(crate) rotations: Option<u64>,
}

/// How an engine runs a workload whose append blocks its thread.
pub(crate) fn blocking<E: Engine>(workload: Workload) -> Option<Window<E>> {
    match workload {
        Workload::Append | Workload::AppendAsync | Workload::InFlight | Workload::InFlight1k => {
            Some(closed::append::<E>)
        }
        Workload::Batch => E::BATCHES.then_some(closed::batch::<E>),
        Workload::Scan | Workload::Scan1k => E::SCANS.then_some(scan::scan::<E>),
        Workload::RegistryHot
        | Workload::RegistryDistinct
        | Workload::RegistryGet
        | Workload::RegistryRewrite
        | Workload::Processes4
        | Workload::Shared1 => None,
    }
}

/// When a window that begins now ends.
pub(crate) fn end(setup: &Setup) -> Instant {
    Instant::now() + Duration::from_secs_f64(setup.seconds)
}

/// Segments ended since.
fn rotations_since<E: Engine>(engine: &E, before: Option<u64>) -> Option<u64> {
    engine.rotations().map(|now| now - before.unwrap_or(0))
}

/// From 100 ns to two minutes, three digits.
pub(crate) fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(100, 120_000_000_000, 3)?)
}

/// Nanoseconds since.
pub(crate) fn nanos_since(begin: Instant) -> Outcome<u64> {
    Ok(u64::try_from(begin.elapsed().as_nanos())?)
}
