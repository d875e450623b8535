//! A file as a [`Source`]: `pread` into one window with read-ahead.
//!
//! Never here: a memory map (a bad sector is then an error and not a SIGBUS; [`crate::lens`] has
//! both), or trust in a length
//! field: the window grows only within the file.
//! Invariants: nothing at or beyond the limit is asked for; what was read stays until it is
//! forgotten or passed. Who reads in order has each byte copied once, by the kernel, but for the
//! frame that a window's end cuts in two; no byte is zeroed before a read. Next room:
//! [`crate::scan`].

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::fs::{File, read_full};
use crate::scan::Source;

/// The first read of a window, and any after a jump over more than this: who skips large payloads
/// reads little of them.
const READ_AHEAD_MIN: usize = 4 << 10;
/// Reads in order grow up to this. From 128 to 512 KiB a warm scan is equally fast; at 32 KiB, where
/// system calls begin to count, it is 3 % slower at 128-byte records and 9 % at 1 KiB.
const READ_AHEAD_MAX: usize = 256 << 10;

/// A window over a file whose size was taken when it was made.
#[derive(Debug)]
pub struct Window {
    file: Arc<dyn File>,
    len: u64,
    start: u64,
    /// Grows and never shrinks, so that it is zeroed once and not before each read.
    bytes: Vec<u8>,
    /// How many of `bytes` were read, at `start`.
    filled: usize,
    /// How much of that was handed out.
    used: usize,
    /// How much the next read in order asks for.
    ahead: usize,
    /// Nothing beyond this is read ahead.
    ahead_end: u64,
    /// Bytes that the file has given.
    bytes_read: u64,
}

impl Window {
    /// A window over the whole file as long as it is now.
    ///
    /// # Errors
    /// What the file said.
    pub fn new(file: Arc<dyn File>) -> io::Result<Window> {
        let len = file.len()?;
        Ok(Window::limited(file, len))
    }

    /// A window that never looks at or beyond `limit`.
    pub fn limited(file: Arc<dyn File>, limit: u64) -> Window {
        let bytes = Vec::new();
        Window {
            file,
            len: limit,
            start: 0,
            bytes,
            filled: 0,
            used: 0,
            ahead: READ_AHEAD_MIN,
            ahead_end: u64::MAX,
            bytes_read: 0,
        }
    }

    /// Moves the limit, up or down; what was read stays.
    pub fn set_limit(&mut self, limit: u64) {
        self.len = limit;
    }

    /// Reads nothing ahead beyond this from now on; what is asked for is read all the same.
    pub(crate) fn set_ahead_end(&mut self, end: u64) {
        self.ahead_end = end;
    }

    /// Bytes that the file has given so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Forgets what was read, so that the next access asks the file again.
    pub fn forget(&mut self) {
        self.filled = 0;
    }

    #[inline]
    fn holds(&self, offset: u64, len: usize) -> Option<Range<usize>> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.filled).then_some(from..to)
    }

    #[cold]
    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.set_pace(offset);
        let at = self.make_first(offset);
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let useful = self.ahead_end.saturating_sub(offset);
        let left = left.min(usize::try_from(useful).unwrap_or(usize::MAX));
        let end = at.saturating_add(len.max(self.ahead).min(left.max(len)));
        if self.bytes.len() < end {
            let more = end - self.bytes.len();
            self.bytes.try_reserve_exact(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.bytes.resize(end, 0);
        }
        let room = self.bytes.get_mut(self.filled..end).unwrap_or_default();
        let read = read_full(&*self.file, room, self.start + self.filled as u64)?;
        self.filled += read;
        self.bytes_read += read as u64;
        Ok(())
    }

    /// Who reads in order reads ahead more and more. A record that is skipped at the window's end
    /// leaves a gap: a small one is still in order, unless next to nothing of the window was used
    /// (a header in 8 KiB). A window that happens to end just before a header says nothing.
    fn set_pace(&mut self, offset: u64) {
        let end = self.start + self.filled as u64;
        let near = self.start..=end.saturating_add(READ_AHEAD_MIN as u64);
        let sparse = offset >= end && self.used < self.filled / 256;
        let in_order = self.filled > 0 && near.contains(&offset) && !sparse;
        self.ahead = if in_order { (self.ahead * 2).min(READ_AHEAD_MAX) } else { READ_AHEAD_MIN };
        self.used = 0;
    }

    /// Lets go of what stands before `offset` and keeps what is held from there on, at its place if
    /// that is the larger part. Returns where `offset` is in the buffer.
    fn make_first(&mut self, offset: u64) -> usize {
        let Some(Range { start: at, .. }) = self.holds(offset, 0) else {
            (self.start, self.filled) = (offset, 0);
            return 0;
        };
        let kept = self.filled - at;
        if kept > at {
            return at;
        }
        self.bytes.copy_within(at..self.filled, 0);
        (self.start, self.filled) = (offset, kept);
        0
    }
}

impl Source for Window {
    #[inline]
    fn len(&self) -> u64 {
        self.len
    }

    #[inline]
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let range = match self.holds(offset, len) {
            Some(range) => range,
            None => {
                self.fill(offset, len)?;
                self.holds(offset, len).ok_or(io::ErrorKind::UnexpectedEof)?
            }
        };
        self.used += len;
        Ok(&self.bytes[range])
    }
}
