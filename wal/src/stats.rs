//! Figures of a log since it was opened.
//!
//! Never here: rates and clocks; the caller takes two and divides. Next room: none.

use std::sync::atomic::Ordering;

use crate::commit::Core;
use crate::ids::{Generation, Lsn};

/// A snapshot of a log's figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Groups committed.
    pub groups: u64,
    /// Syncs of segments that commits took, seals included.
    pub syncs: u64,
    /// Groups whose leader waited for those whom the last sync had released, and all came.
    pub gathered: u64,
    /// Records admitted.
    pub records: u64,
    /// Bytes written to segments by commits.
    pub bytes: u64,
    /// Changes to a new segment.
    pub rotations: u64,
    /// Bytes that wait for their sync.
    pub queued_bytes: u64,
    /// Threads and futures that wait for room in the queue, or for the next segment.
    pub waiting_for_room: usize,
    /// Segments the log consists of.
    pub segments: usize,
    /// Highest durable LSN.
    pub durable_lsn: Option<Lsn>,
    /// First LSN kept.
    pub head_lsn: Lsn,
    /// The generation.
    pub generation: Generation,
}

impl Stats {
    pub(crate) fn of(core: &Core) -> Stats {
        let segments = core.shared.frontier().spans.len();
        let queue = core.queue();
        Stats {
            groups: queue.counters.groups,
            syncs: queue.counters.syncs,
            gathered: queue.counters.gathered,
            records: queue.counters.records,
            bytes: queue.counters.bytes,
            rotations: queue.counters.rotations,
            queued_bytes: queue.queued_bytes,
            waiting_for_room: queue.waiting_for_room + queue.room_wakers.len(),
            segments,
            durable_lsn: Lsn::new(core.shared.durable_lsn.load(Ordering::Acquire)),
            head_lsn: core.shared.head(),
            generation: queue.generation,
        }
    }
}
