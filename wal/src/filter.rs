//! Which records a reader wants, by what their headers say.
//!
//! Never here: payloads. A filter is asked before a payload is read, so that one that is not wanted
//! costs its header alone. Next room: [`crate::cursor`].

use std::ops::RangeInclusive;

use crate::format::{self, FrameHeader, IndexBlock};
use crate::mutant;
use crate::record::{Kind, Stream};

/// Records of one stream, of one kind or a range of kinds, or both. The default wants them all.
///
/// A stream tag is a filter and not an identity (see [`Stream`]): compare in the payload what it
/// stands for.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals_wal::{Filter, Log, Record, Stream};
/// let log = Log::open(dir.path().join("log"))?;
/// log.append(Record::new("one").stream(Stream(7)))?;
/// log.append(Record::new("two").stream(Stream(8)))?;
/// let mut records = log.range(..)?.only(Filter::new().stream(Stream(8)));
/// assert_eq!(records.next_ref().transpose()?.map(|r| r.payload), Some(&b"two"[..]));
/// assert!(records.next_ref().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    stream: Option<Stream>,
    kind_min: u16,
    kind_max: u16,
}

impl Filter {
    /// Every record.
    pub const fn new() -> Filter {
        Filter { stream: None, kind_min: 0, kind_max: u16::MAX }
    }

    /// Of these, the records with this stream tag. A later call replaces an earlier one.
    pub const fn stream(self, stream: Stream) -> Filter {
        Filter { stream: Some(stream), ..self }
    }

    /// Of these, the records of this kind. A later call replaces an earlier one.
    pub const fn kind(self, kind: Kind) -> Filter {
        Filter { kind_min: kind.get(), kind_max: kind.get(), ..self }
    }

    /// Of these, the records whose kind lies in this range: a library's, say. A later call
    /// replaces an earlier one.
    pub const fn kinds(self, kinds: RangeInclusive<Kind>) -> Filter {
        let (kind_min, kind_max) = (kinds.start().get(), kinds.end().get());
        Filter { kind_min, kind_max, ..self }
    }

    /// What both want.
    pub fn and(self, other: Filter) -> Filter {
        let kind_min = self.kind_min.max(other.kind_min);
        let kind_max = self.kind_max.min(other.kind_max);
        match (self.stream, other.stream) {
            // No kind lies from 1 to 0, so nothing is wanted.
            (Some(one), Some(two)) if one != two => {
                Filter { stream: None, kind_min: 1, kind_max: 0 }
            }
            (one, two) => Filter { stream: one.or(two), kind_min, kind_max },
        }
    }

    /// Whether it wants a record with this tag and of this kind.
    #[inline]
    pub fn wants(&self, stream: Stream, kind: Kind) -> bool {
        self.admits(stream.0, kind.get())
    }

    #[inline]
    pub(crate) fn wants_header(&self, header: &FrameHeader) -> bool {
        self.admits(header.stream, header.kind)
    }

    /// Whether it wants less than everything.
    pub(crate) fn is_narrow(&self) -> bool {
        *self != Filter::new()
    }

    /// Whether a block of an index may hold a record that it wants.
    pub(crate) fn may_be_in(&self, block: &IndexBlock) -> bool {
        self.stream.is_none_or(|stream| block.may_hold(stream.0))
            && !mutant::is("index:passes-over-what-is-wanted")
            && block.kinds & format::kind_pages(self.kind_min, self.kind_max) != 0
    }

    #[inline]
    fn admits(&self, stream: u32, kind: u16) -> bool {
        self.stream.is_none_or(|wanted| wanted.0 == stream)
            && (self.kind_min..=self.kind_max).contains(&kind)
    }
}

impl Default for Filter {
    fn default() -> Filter {
        Filter::new()
    }
}
