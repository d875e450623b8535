//! One opaque error for the log: a kind that says what to do, a place, and a sentence.
//!
//! Never here: payload bytes. Messages go to terminals and telemetry, payloads hold secrets.
//! Invariant: `outcome_unknown` is true only where a crash could still reveal the write.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::ids::{Lsn, Sequence};

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller should do about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused an operation. The message names it; mend the cause, try again.
    Io,
    /// A byte that a sync had promised is bad. Nothing was changed; run `wal inspect`.
    Corrupt,
    /// Written by a newer version of this software. Use that version.
    Unsupported,
    /// A record or batch over the configured cap. Split it or raise the cap.
    TooLarge,
    /// Another owner has the directory, the parent of a forked process included. The message names
    /// it.
    Locked,
    /// A write or sync failed earlier. Drop the log and open it again.
    Poisoned,
    /// The disk is full. Free space or trim; the next call tries again without reopening.
    Full,
    /// `try_submit` would have had to wait, for room in the queue or for the next segment. Nothing
    /// was changed; come again, or wait by `submit` or `append_async`.
    WouldBlock,
    /// The record was trimmed away. Read from the head on.
    Trimmed,
    /// The log was closed through this or another handle. Open it again.
    Closed,
    /// The directory holds no log, or is no directory.
    NotALog,
    /// The directory is an archive or a finished copy and is never opened for writing.
    Archived,
    /// Others may change the directory or a file in it, or its file system is not known to be
    /// local. Nothing was opened; the message says what to do, or which option to ask by.
    Untrusted,
    /// The log was made for one process and this opening would share it, or the other way round; or
    /// the call is not there on a shared log. The message says which.
    Sharing,
    /// An argument that can never be right: an empty batch, a capacity out of bounds.
    Invalid,
    /// An LSN past the end of the log.
    OutOfRange,
}

/// Where: whatever of segment, offset and LSN range is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Location {
    /// The segment.
    pub segment: Option<Sequence>,
    /// Byte offset in the segment's file.
    pub offset: Option<u64>,
    /// First and last LSN concerned, as far as can be known; both ends inclusive.
    pub lsns: Option<(Lsn, Lsn)>,
}

/// Why a call on a log failed. Cheap to clone: every waiter of a failed group gets one.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    location: Option<Location>,
    outcome_unknown: bool,
    source: Option<Arc<io::Error>>,
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The place, where there is one.
    pub fn location(&self) -> Option<&Location> {
        self.inner.location.as_ref()
    }

    /// True if the records of the failed call may or may not be in the log after it is reopened.
    /// False means that they certainly are not.
    pub fn outcome_unknown(&self) -> bool {
        self.inner.outcome_unknown
    }

    /// The operating system's error, where one is behind it.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.inner.source.as_deref()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                location: None,
                outcome_unknown: false,
                source: None,
            }),
        }
    }

    /// An operating-system error; a full disk gets its own kind.
    pub(crate) fn io(doing: impl fmt::Display, source: io::Error) -> Error {
        let kind = if is_full(&source) { ErrorKind::Full } else { ErrorKind::Io };
        let mut error = Error::new(kind, format!("{doing} failed: {source}"));
        error.edit(|inner| inner.source = Some(Arc::new(source)));
        error
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>, location: Location) -> Error {
        Error::new(ErrorKind::Corrupt, message).at(location)
    }

    pub(crate) fn record_too_large(len: usize, cap: u32) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "a record of {len} bytes is over the cap of {cap} bytes: split it, or raise \
                 Options::record_bytes_max"
            ),
        )
    }

    pub(crate) fn not_a_log(path: &Path, why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::NotALog,
            format!(
                "{} is not a log: {why}. Name the directory that Log::open or `wal import` made",
                path.display()
            ),
        )
    }

    pub(crate) fn closed() -> Error {
        Error::new(ErrorKind::Closed, "the log was closed: open it again to append")
    }

    pub(crate) fn trimmed(lsn: Lsn, head: Lsn) -> Error {
        Error::new(
            ErrorKind::Trimmed,
            format!("LSN {lsn} was trimmed: the log now starts at LSN {head}, read from there"),
        )
        .at(Location { lsns: Some((lsn, lsn)), ..Location::default() })
    }

    pub(crate) fn at(mut self, location: Location) -> Error {
        self.edit(|inner| inner.location = Some(location));
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.edit(|inner| inner.kind = kind);
        self
    }

    pub(crate) fn unknown(mut self) -> Error {
        self.edit(|inner| inner.outcome_unknown = true);
        self
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Inner)) {
        edit(Arc::make_mut(&mut self.inner));
    }
}

/// ENOSPC and EDQUOT: the two ways a disk says that it is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        if let Some(location) = &self.inner.location {
            write!(f, "{location}")?;
        }
        if self.inner.outcome_unknown {
            f.write_str(
                " (outcome unknown: the records may or may not be in the log; reopen it and read)",
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(segment) = self.segment {
            parts.push(format!("segment {segment}"));
        }
        if let Some(offset) = self.offset {
            parts.push(format!("offset {offset}"));
        }
        match self.lsns {
            Some((first, last)) if first == last => parts.push(format!("LSN {first}")),
            Some((first, last)) => parts.push(format!("LSNs {first} to {last}")),
            None => {}
        }
        if parts.is_empty() { Ok(()) } else { write!(f, " [{}]", parts.join(", ")) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|e| e as _)
    }
}
