//! The numbers of the log, each its own type so that one cannot be passed for another.
//!
//! Never here: arithmetic traits. A dense number only has a next one, and the next one is checked
//! (VelesDB, GrafeoDB and turso all wrapped an offset once: reliability catalogue #75).
//! Invariant: an [`Lsn`] is at least 1. Next room: [`crate::record`].

use std::fmt;
use std::num::NonZeroU64;

/// Log sequence number: the dense number of a record. The first record of a log is LSN 1.
///
/// *Dense* means that LSN n + 1 follows n with nothing between; it is not a byte offset (in
/// PostgreSQL it is). An LSN is never reused once it is durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(NonZeroU64);

impl Lsn {
    /// The LSN of the first record of every log.
    pub const FIRST: Lsn = Lsn(NonZeroU64::MIN);

    /// `None` for 0, which is no LSN: it stands for "before the first record".
    pub const fn new(value: u64) -> Option<Lsn> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Lsn(value)),
            None => None,
        }
    }

    /// The plain number, at least 1.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The LSN after this one; `None` at the end of the number range.
    pub const fn next(self) -> Option<Lsn> {
        match self.0.checked_add(1) {
            Some(value) => Some(Lsn(value)),
            None => None,
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.0)
    }
}

/// Sequence number of a segment, from 1; part of its file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// The sequence of the first segment of every log.
    pub const FIRST: Sequence = Sequence(1);

    /// `None` for 0.
    pub const fn new(value: u64) -> Option<Sequence> {
        if value == 0 { None } else { Some(Sequence(value)) }
    }

    /// The plain number, at least 1.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sequence after this one; `None` at the end of the number range.
    pub const fn next(self) -> Option<Sequence> {
        match self.0.checked_add(1) {
            Some(value) => Some(Sequence(value)),
            None => None,
        }
    }

    /// The sequence before this one; `None` before the first.
    pub const fn previous(self) -> Option<Sequence> {
        Sequence::new(self.0 - 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequence({})", self.0)
    }
}

/// How many times this log has ended uncleanly, plus one: the first generation is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation of a log that has never ended uncleanly.
    pub const FIRST: Generation = Generation(1);

    /// The generation after one more unclean end.
    pub const fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 16 random bytes, the same in every segment of one log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}
