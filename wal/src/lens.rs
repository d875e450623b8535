//! The bytes of a segment as a reader sees them: a window that is read, or a map.
//!
//! Never here: the choice between them ([`crate::cursor`] makes it), `unsafe`. Invariant: both answer
//! alike, limits and ends of files included. Next rooms: [`crate::window`], [`crate::scan`].

use std::io;

use crate::fs::Map;
use crate::scan::Source;
use crate::window::Window;

/// One segment's bytes.
#[derive(Debug)]
pub(crate) enum Lens {
    Read(Window),
    /// Up to `fetched` the processor has it, or was told to; `None`: little of it will be read.
    Mapped {
        map: Map,
        limit: u64,
        fetched: Option<usize>,
    },
}

impl Lens {
    /// `whole`: it will all be read, in order.
    pub(crate) fn mapped(map: Map, whole: bool) -> Lens {
        let limit = map.bytes().len() as u64;
        Lens::Mapped { map, limit, fetched: whole.then_some(0) }
    }

    /// Moves the limit, up or down. A map ends where it ended when it was made.
    pub(crate) fn set_limit(&mut self, to: u64) {
        match self {
            Lens::Read(window) => window.set_limit(to),
            Lens::Mapped { map, limit, .. } => *limit = to.min(map.bytes().len() as u64),
        }
    }

    /// Forgets what was read. What is mapped is the file itself.
    pub(crate) fn forget(&mut self) {
        if let Lens::Read(window) = self {
            window.forget();
        }
    }

    /// Nothing beyond this will be wanted soon.
    pub(crate) fn set_ahead_end(&mut self, end: u64) {
        if let Lens::Read(window) = self {
            window.set_ahead_end(end);
        }
    }

    /// Bytes that were read into memory of ours.
    pub(crate) fn bytes_read(&self) -> u64 {
        match self {
            Lens::Read(window) => window.bytes_read(),
            Lens::Mapped { .. } => 0,
        }
    }
}

impl Source for Lens {
    #[inline(always)]
    fn len(&self) -> u64 {
        match self {
            Lens::Read(window) => window.len(),
            Lens::Mapped { limit, .. } => *limit,
        }
    }

    #[inline(always)]
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        match self {
            Lens::Read(window) => window.bytes(offset, len),
            Lens::Mapped { map, limit, .. } => {
                let end = offset.checked_add(len as u64).filter(|end| *end <= *limit);
                let (start, end) = (offset as usize, end.ok_or(io::ErrorKind::UnexpectedEof)?);
                map.bytes().get(start..end as usize).ok_or(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }

    #[inline(always)]
    fn come_to(&mut self, offset: u64) {
        if let Lens::Mapped { map, fetched: Some(fetched), .. } = self {
            *fetched = map.fetch_ahead(*fetched, offset as usize);
        }
    }
}
