//! Maps in the address space, of a file and of one page that a fork wipes: the one module of this
//! crate with `unsafe` in it.
//!
//! Never here: a length field (a map is as long as the file was, or shorter), writes to files,
//! frames. Invariant: what is mapped of files is a sealed segment, which nobody writes again. Next
//! rooms: [`crate::lens`], [`crate::fork`].

#![expect(unsafe_code, reason = "a file is mapped here and nowhere else")]

use std::fs;
use std::io;

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};

/// How far ahead of a walk bytes are fetched. At 1 KiB a record a replay is fastest from 16 to 128 KiB;
/// at 4 KiB it takes 6 % longer, and without 50 %. Records of 128 bytes do not mind.
#[cfg(target_arch = "x86_64")]
const FETCH_AHEAD: usize = 16 << 10;

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

    /// Has the processor fetch what a walk that has come to `at` reads soon, from `fetched` on, and
    /// says how far that goes. By itself it guesses ahead within a page at most. Into the second level
    /// of its cache: the first one's few lines on the way in are wanted for what is read now.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn fetch_ahead(&self, fetched: usize, at: usize) -> usize {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        const LINE: usize = 64;
        let mut line = fetched.max(at);
        while line < at.saturating_add(FETCH_AHEAD) {
            let address = self.map.as_ptr().wrapping_add(line);
            // SAFETY: a hint. The processor reads nothing for the program by it, and where nothing is
            // mapped it does nothing; so the address may lie behind the map.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
            line = line.saturating_add(LINE);
        }
        line
    }

    /// Rust knows no such hint for this processor.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn fetch_ahead(&self, fetched: usize, _at: usize) -> usize {
        fetched
    }
}

/// A page of memory that the kernel empties in every child made by fork, so that a process can ask
/// without a system call whether it is the one that made it. `getpid` is one since glibc remembers
/// it no more; two or three of them were a twentieth of a registry's transaction.
#[derive(Debug)]
pub(crate) struct ForkMark {
    page: MmapMut,
}

impl ForkMark {
    /// Marks this process. `None` where the kernel cannot wipe pages (before Linux 4.14).
    #[cfg(target_os = "linux")]
    pub(crate) fn here() -> Option<ForkMark> {
        use rustix::mm::{Advice, madvise};
        let mut page = MmapMut::map_anon(1).ok()?;
        let mut advise = |advice| {
            // SAFETY: the range is the map made above, which nobody else knows of and which holds
            // nothing yet; neither advice changes what this process sees of it.
            unsafe { madvise(page.as_mut_ptr().cast(), page.len(), advice) }
        };
        // An emulator may say yes to whatever it is asked and do nothing (qemu's user mode does). Linux
        // always refuses this one for a map without a file.
        if advise(Advice::LinuxRemove).is_ok() {
            return None;
        }
        advise(Advice::LinuxWipeOnFork).ok()?;
        *page.first_mut()? = 1;
        Some(ForkMark { page })
    }

    /// Only Linux knows such pages.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn here() -> Option<ForkMark> {
        None
    }

    /// Whether no fork lies between the making of the mark and now.
    #[inline]
    pub(crate) fn stands(&self) -> bool {
        // SAFETY: the pointer is to the map's first byte, which lives as long as `self`. Volatile,
        // because a fork changes it and the compiler must not remember it.
        unsafe { self.page.as_ptr().read_volatile() == 1 }
    }
}
