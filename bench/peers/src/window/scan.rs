//! Reading everything back: filled once with batches, then read from the page cache, again and
//! again, by one thread.
//!
//! Never here: what an engine verifies while it reads; `--list` and the engines' files say it. The
//! engine stays open between filling and reading, because recovery is another matter; one pass
//! before the window warms whatever there is to warm. The latency is that of a whole pass.
//! Next room: [`crate::window`].

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use super::{Measured, end, histogram, nanos_since};
use crate::engine::{Engine, Outcome, Setup};
use crate::payload::Payload;

/// Payload bytes to read in a pass: more than the caches of the processor.
const BYTES: usize = 64 << 20;
/// Records of a batch while filling.
const FILL: usize = 1000;

/// Fills, warms, and reads until the window ends.
pub(crate) fn scan<E: Engine>(
    engine: &Arc<E>,
    setup: &Setup,
    payload: &Payload,
) -> Outcome<Measured> {
    let count = (BYTES / payload.size).div_ceil(FILL) * FILL;
    let mut records = vec![Vec::new(); FILL];
    for first in (0..count as u64).step_by(FILL) {
        for (record, sequence) in records.iter_mut().zip(first..) {
            payload.write(record, 0, sequence);
        }
        engine.append_batch(0, &records)?;
    }
    let pass = || {
        let (mut seen, mut bytes) = (0_u64, 0_usize);
        engine.scan(&mut |record| {
            seen += 1;
            bytes += black_box(record).len();
            Ok(())
        })?;
        if seen != count as u64 || bytes != count * payload.size {
            return Err(format!("a scan gave {seen} records of {count}").into());
        }
        Ok::<(), crate::engine::Failure>(())
    };
    pass()?;
    let mut latency = histogram()?;
    let mut operations = 0;
    let (start, end) = (Instant::now(), end(setup));
    while operations == 0 || Instant::now() < end {
        let begin = Instant::now();
        pass()?;
        latency.saturating_record(nanos_since(begin)?);
        operations += count as u64;
    }
    let elapsed = start.elapsed();
    let acknowledged = vec![count as u64];
    Ok(Measured { acknowledged, operations, elapsed, latency, rotations: None })
}
