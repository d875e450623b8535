//! The active segment as a [`Source`]: read once, in order, and kept in memory from the first byte on
//! that nothing vouches for.
//!
//! Never here: frames, or what vouches for them ([`crate::survey`] releases what is witnessed).
//! Invariants: what was judged and may be written again is the memory that it was judged in, because
//! after a failed sync a second read could show other bytes; memory grows with what is read and never
//! with a length that somebody wrote. Next rooms: [`crate::recover::facts`], [`crate::scan`].

use std::io;
use std::sync::Arc;

use crate::fs::{File, read_full};
use crate::scan::Source;
use crate::source::is_zero;

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// The bytes that were read and not released.
#[derive(Debug)]
pub(crate) struct Tail {
    file: Arc<dyn File>,
    len: u64,
    /// Where `bytes[head]` stands in the file.
    start: u64,
    /// Bytes before this were released.
    head: usize,
    bytes: Vec<u8>,
}

impl Tail {
    /// The first `len` bytes of a file.
    pub(crate) fn new(file: Arc<dyn File>, len: u64) -> Tail {
        Tail { file, len, start: 0, head: 0, bytes: Vec::new() }
    }

    /// What was kept, and where in the file it begins.
    pub(crate) fn into_kept(mut self) -> (u64, Vec<u8>) {
        self.bytes.drain(..self.head);
        self.bytes.shrink_to_fit();
        (self.start, self.bytes)
    }

    fn end(&self) -> u64 {
        self.start + (self.bytes.len() - self.head) as u64
    }

    #[cold]
    fn read_to(&mut self, end: u64) -> io::Result<()> {
        if self.head >= self.bytes.len() - self.head {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        let have = self.end();
        let to = end.max(have.saturating_add(CHUNK as u64)).min(self.len);
        let more = usize::try_from(to - have).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let filled = self.bytes.len();
        self.bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes.resize(filled + more, 0);
        let room = self.bytes.get_mut(filled..).unwrap_or_default();
        let read = read_full(&*self.file, room, have);
        self.bytes.truncate(filled + read.as_ref().map_or(0, |read| *read));
        read.map(|_| ())
    }
}

impl Source for Tail {
    #[inline]
    fn len(&self) -> u64 {
        self.len
    }

    #[inline]
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.end() {
            self.read_to(end)?;
        }
        let before = offset.checked_sub(self.start).ok_or(io::ErrorKind::UnexpectedEof)?;
        let from = self.head.saturating_add(before as usize);
        let range = from..from.saturating_add(len);
        self.bytes.get(range).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Zeros are not kept: most of a segment may be nothing else, and none are written again. If
    /// there is anything behind them, all of it is read into memory, and judged and cut there.
    fn is_zero_from(&mut self, from: u64) -> io::Result<bool> {
        let kept = from.checked_sub(self.start).map(|before| self.head + before as usize);
        if !is_zero(kept.and_then(|kept| self.bytes.get(kept..)).unwrap_or_default()) {
            return Ok(false);
        }
        let mut chunk = vec![0; CHUNK];
        let mut at = self.end().max(from);
        while at < self.len {
            let len = (self.len - at).min(CHUNK as u64) as usize;
            let read = read_full(&*self.file, &mut chunk[..len], at)?;
            if read < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !is_zero(&chunk[..len]) {
                self.read_to(self.len)?;
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }

    #[inline]
    fn release(&mut self, before: u64) {
        let before = before.min(self.end());
        if before > self.start {
            self.head += (before - self.start) as usize;
            self.start = before;
        }
    }
}
