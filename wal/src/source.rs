//! Bytes that are read at an offset: what a walk stands on, a slice in memory or a window over a
//! file.
//!
//! Never here: frames, or what the bytes mean. Invariant: bytes are lent, not copied. Next rooms:
//! [`crate::scan`], [`crate::window`].

use std::io;

/// Bytes that can be read at an offset, in order, with a window that the source chooses.
pub trait Source {
    /// Bytes in all.
    fn len(&self) -> u64;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `len` bytes at `offset`. The caller has checked that they lie within [`Source::len`].
    ///
    /// # Errors
    /// What the file said; a file that got shorter is `UnexpectedEof`.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]>;

    /// Whether every byte from `from` to the end is zero.
    ///
    /// # Errors
    /// As [`Source::bytes`].
    fn is_zero_from(&mut self, from: u64) -> io::Result<bool> {
        zeros_from(self, from)
    }

    /// A hint: a walk has come to this offset and will mostly go on from here in order.
    #[inline]
    fn come_to(&mut self, offset: u64) {
        let _ = offset;
    }

    /// Nothing before this offset will be asked for again.
    fn release(&mut self, before: u64) {
        let _ = before;
    }
}

impl<S: Source> Source for &mut S {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        (**self).bytes(offset, len)
    }

    fn is_zero_from(&mut self, from: u64) -> io::Result<bool> {
        (**self).is_zero_from(from)
    }

    fn come_to(&mut self, offset: u64) {
        (**self).come_to(offset);
    }

    fn release(&mut self, before: u64) {
        (**self).release(before);
    }
}

impl Source for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.get(start..end).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Whether every byte from `from` to the end is zero.
pub(crate) fn zeros_from(source: &mut (impl Source + ?Sized), from: u64) -> io::Result<bool> {
    const CHUNK: u64 = 64 << 10;
    let mut at = from;
    while at < source.len() {
        let len = CHUNK.min(source.len() - at);
        if !is_zero(source.bytes(at, len as usize)?) {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

/// Block by block, because a loop over bytes that may end early runs at a byte a cycle, and most of
/// a segment is zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|block| *block == ZEROS[..block.len()])
}
