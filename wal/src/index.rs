//! Where the records of a segment are: built while it is written, carried by its seal, used by
//! readers to begin in the middle and to pass over what they do not want.
//!
//! Never here: I/O, bytes ([`crate::format`] lays them out), trust. Invariants: the index is a
//! function of the frames and the capacity alone, so `verify` builds it anew and compares; a reader
//! checks every frame that it leads to like any other, so a wrong one costs time and never makes a
//! wrong record; a record is noted without asking for memory. Next rooms: [`crate::writer`],
//! [`crate::seek`].

use std::sync::{Arc, TryLockError};

use crate::format::{self, FrameHeader, IndexBlock};
use crate::ids::{Lsn, Sequence};
use crate::sync::{Mutex, MutexGuard, PoisonError, thread};

/// The index of the frames so far.
#[derive(Clone, Debug)]
pub(crate) struct IndexBuilder {
    stride: u64,
    blocks_max: usize,
    blocks: Vec<IndexBlock>,
    first_lsn: u64,
    /// Tag and kind noted last, in the last block.
    last: Option<(u32, u16)>,
    /// Of a batch whose end was not seen: how many blocks there were before it, and the last one.
    open: Option<(usize, Option<IndexBlock>)>,
}

impl IndexBuilder {
    /// For a segment of this capacity. It takes memory as blocks come: a forged capacity gets none.
    pub(crate) fn new(capacity: u64) -> IndexBuilder {
        let mut builder = IndexBuilder {
            stride: 0,
            blocks_max: 0,
            blocks: Vec::new(),
            first_lsn: 0,
            last: None,
            open: None,
        };
        builder.begin(capacity);
        builder
    }

    fn begin(&mut self, capacity: u64) {
        self.stride = format::index_stride(capacity);
        self.blocks_max = format::index_blocks_max(capacity) as usize;
        self.blocks.clear();
        (self.last, self.open) = (None, None);
    }

    /// Begins with the next segment, for a writer.
    pub(crate) fn begin_to_write(&mut self, capacity: u64) {
        self.begin(capacity);
        self.reserve();
    }

    /// Asks now for all memory that this segment can take, so that no append does.
    pub(crate) fn reserve(&mut self) {
        self.blocks.reserve_exact(self.blocks_max - self.blocks.len());
    }

    /// Notes a frame.
    #[inline]
    pub(crate) fn add(&mut self, header: &FrameHeader, offset: u64) {
        if header.is_own() {
            return;
        }
        match (header.is_batch_first(), header.goes_on()) {
            (true, true) => self.open = Some((self.blocks.len(), self.blocks.last().copied())),
            (_, false) => self.open = None,
            _ => {}
        }
        let full = self.blocks.last().is_none_or(|last| offset - last.offset() >= self.stride);
        let begun = !self.blocks.is_empty() || header.is_batch_first();
        if full && begun && self.blocks.len() < self.blocks_max {
            self.begin_block(header.lsn, offset);
        }
        let noted = Some((header.stream, header.kind));
        if self.last != noted
            && let Some(block) = self.blocks.last_mut()
        {
            block.add(header.stream, header.kind);
            self.last = noted;
        }
    }

    fn begin_block(&mut self, lsn: u64, offset: u64) {
        if self.blocks.is_empty() {
            self.first_lsn = lsn;
        }
        // At most one record for every 32 bytes of 32 GiB.
        let lsn_delta = lsn.wrapping_sub(self.first_lsn) as u32;
        self.blocks.push(IndexBlock::new(offset, lsn_delta));
        self.last = None;
    }

    /// Takes back a batch whose end was not seen.
    pub(crate) fn forget_open_batch(&mut self) {
        let Some((len, last)) = self.open.take() else { return };
        self.blocks.truncate(len);
        self.blocks.last_mut().zip(last).into_iter().for_each(|(block, last)| *block = last);
        self.last = None;
    }

    /// The index as a seal carries it; none where there is no record.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        (!self.blocks.is_empty()).then(|| format::encode_index(&self.blocks))
    }

    fn starts_from(&self, from: usize) -> impl Iterator<Item = Start> {
        let starts = self.blocks.iter().skip(from);
        starts.map(|block| Start {
            offset: block.offset(),
            lsn: self.first_lsn + u64::from(block.lsn_delta),
        })
    }
}

/// A place to begin at: a record's frame, and its LSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    pub(crate) offset: u64,
    pub(crate) lsn: u64,
}

/// How often a reader asks for the lock on [`ActiveStarts`], which is held for a search in memory or
/// for the copy of a few blocks.
const TRIES: u32 = 1000;

/// Places to begin at in the segment that is written, for readers of the same process. As many as
/// the segment's index will have blocks, so no more with more history.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveStarts {
    inner: Arc<Mutex<(u64, Vec<Start>)>>,
}

impl ActiveStarts {
    /// Publishes the starts of what is durable by now. While no block was begun since, this is a
    /// comparison of the leader's with a count that only a leader changes.
    pub(crate) fn publish(&self, sequence: Sequence, builder: &IndexBuilder, known: &mut usize) {
        if *known == builder.blocks.len() {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, starts) = &mut *inner;
        if *of != sequence.get() {
            *of = sequence.get();
            starts.clear();
            starts.reserve_exact(builder.blocks_max);
        }
        starts.extend(builder.starts_from(starts.len()));
        *known = starts.len();
    }

    /// The last start of this segment that is not above this LSN. None if the lock is not to be had:
    /// a start is only a shorter way, and in a child made by fork, which may read, a leader that
    /// published at the fork never gives the lock back. (The child waited for ever.)
    pub(crate) fn find(&self, sequence: Sequence, lsn: Lsn) -> Option<Start> {
        let inner = self.lock_soon()?;
        let (of, starts) = &*inner;
        let before = starts.partition_point(|start| start.lsn <= lsn.get());
        let start = starts.get(before.checked_sub(1)?).copied();
        start.filter(|_| *of == sequence.get())
    }

    fn lock_soon(&self) -> Option<MutexGuard<'_, (u64, Vec<Start>)>> {
        for _ in 0..TRIES {
            match self.inner.try_lock() {
                Ok(inner) => return Some(inner),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        None
    }
}
