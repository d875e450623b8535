//! Keeps a worker and the threads that it starts on one core.
//!
//! Never here: work. A sweep's caller and its log's committer take turns, and a turn handed across
//! cores costs more than what is done in it: pinned, the whole sweep takes about half the time.
//! The simulation is not pinned: there the interleavings of two cores are worth the time.
//! Invariant: a machine that does not let us choose is none the worse for it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Puts this thread, and those it starts from now on, on the `worker`-th of the cores it may use.
pub(crate) fn to_core(worker: usize) {
    let Ok(may) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| may.is_set(*core)).collect();
    let Some(core) = cores.get(worker % cores.len().max(1)) else { return };
    let mut one = CpuSet::new();
    one.set(*core);
    // Refused: slower, and just as right.
    let _ = sched_setaffinity(None, &one);
}
