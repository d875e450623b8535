//! A file in the address space: the one module of this crate with `unsafe` in it.
//!
//! Never here: a length field (a map is as long as the file was, or shorter), writes, frames.
//! Invariant: what is mapped is a sealed segment, which nobody writes again. Next room:
//! [`crate::lens`].

#![expect(unsafe_code, reason = "a file is mapped here and nowhere else")]

use std::fs;
use std::io;

use memmap2::{Advice, Mmap, MmapOptions};

/// The first bytes of a file, mapped for reading.
///
/// A disk that fails to read a page, and a file that was cut shorter since, are a SIGBUS to whoever
/// touches that page.
///
/// Its bytes are for this crate alone: outside of it nobody has checked who may write in the
/// directory.
///
/// ```
/// fn show(map: &annals_wal::fs::Map) -> String {
///     format!("{map:?}")
/// }
/// ```
///
/// ```compile_fail,E0624
/// fn show(map: &annals_wal::fs::Map) -> usize {
///     map.bytes().len()
/// }
/// ```
#[derive(Debug)]
pub struct Map {
    map: Mmap,
}

impl Map {
    /// Maps the first `len` bytes of a file of at least this length. `whole`: they will all be read,
    /// in order.
    ///
    /// # Errors
    /// What the system said; `UnexpectedEof` if the file is shorter.
    pub(crate) fn of(file: &fs::File, len: u64, whole: bool) -> io::Result<Map> {
        if file.metadata()?.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut options = MmapOptions::new();
        options.len(len);
        // SAFETY: the bytes behind this map do not change while it lives. It is made for sealed
        // segments only: no writer of ours touches a byte of one again, a trim unlinks the file and
        // leaves its bytes to those who have it open, and the owner has checked that nobody else may
        // write in its directory. A file that somebody shortens all the same is a SIGBUS and not
        // another value. The map is read-only and `file` was opened for reading.
        let map = unsafe { options.map(file)? };
        if whole {
            // For speed alone; a kernel that does not know it reads as well.
            let _ = map.advise(Advice::Sequential);
            let _ = map.advise(Advice::PopulateRead);
        }
        Ok(Map { map })
    }

    /// The bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }
}
