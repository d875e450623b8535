//! A file as a [`Source`]: `pread` into one window with read-ahead.
//!
//! Never here: a memory map (a bad sector is then an error and not a SIGBUS), or trust in a length
//! field: the window grows only within the file. Next room: [`crate::scan`].

use std::io;
use std::sync::Arc;

use crate::fs::{File, read_full};
use crate::scan::Source;

const READ_AHEAD: usize = 128 << 10;

/// A window over a file whose size was taken when it was made.
#[derive(Debug)]
pub struct Window {
    file: Arc<dyn File>,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
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
        Window { file, len: limit, start: 0, bytes: Vec::new() }
    }

    /// Moves the limit, up or down; what was read stays.
    pub fn set_limit(&mut self, limit: u64) {
        self.len = limit;
    }

    /// Forgets what was read, so that the next access asks the file again.
    pub fn forget(&mut self) {
        self.bytes.clear();
    }

    fn holds(&self, offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.bytes.len()).then_some(from..to)
    }

    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = len.max(READ_AHEAD).min(left.max(len));
        self.bytes.clear();
        self.bytes.try_reserve(want).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes.resize(want, 0);
        self.start = offset;
        let read = read_full(&*self.file, &mut self.bytes, offset)?;
        self.bytes.truncate(read);
        Ok(())
    }
}

impl Source for Window {
    fn len(&self) -> u64 {
        self.len
    }

    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.holds(offset, len).is_none() {
            self.fill(offset, len)?;
        }
        match self.holds(offset, len) {
            Some(range) => Ok(&self.bytes[range]),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
