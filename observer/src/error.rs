//! One opaque error for the observer: a kind that says what to do, a sentence, an LSN if known.
//!
//! Never here: payload bytes, JSON text, ids that a caller chose. Messages go to terminals and
//! telemetry; payloads hold secrets. Invariant: an error of the log keeps its kind and its
//! `outcome_unknown` ([`Error::log_error`]). Next room: [`crate::json`].

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use annals_wal::Lsn;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller should do about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The log refused or failed. [`Error::log_error`] has its own kind: act on that.
    Log,
    /// The operating system refused to read a file, or gave no random bytes. Try again.
    Io,
    /// A record whose checksum is right does not hold what its kind promises: not written by
    /// this software. Later entries are still readable.
    Corrupt,
    /// Written by a newer version of this software, or a file of a kind that is not imported.
    Unsupported,
    /// An entry or a file over a cap. Shorten it; nothing of it was written.
    TooLarge,
    /// The observer was shut down. Make a new one on the log.
    Closed,
    /// An argument that can never be right: an empty id, text that is not JSON, a second end.
    Invalid,
    /// The file is not the one the import began with. Import it again when it is at rest.
    Changed,
    /// The observer's thread panicked: its caller's clock did. Mend the clock; what nobody waited for
    /// stays queued, and the next entry or flush tries it again.
    Panicked,
}

/// Why a call failed. Cheap to clone.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    lsn: Option<Lsn>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    None,
    Log(annals_wal::Error),
    Io(Arc<io::Error>),
    /// The entries are queued, and nobody waits for them any more.
    Queued,
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The record concerned, where one is.
    pub fn lsn(&self) -> Option<Lsn> {
        self.lsn
    }

    /// The log's error, where one is behind it.
    pub fn log_error(&self) -> Option<&annals_wal::Error> {
        match &self.source {
            Source::Log(error) => Some(error),
            Source::None | Source::Io(_) | Source::Queued => None,
        }
    }

    /// True if the entries of the failed call may or may not be in the log after it is reopened.
    /// False means that they certainly are not.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self.source, Source::Queued)
            || self.log_error().is_some_and(annals_wal::Error::outcome_unknown)
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), lsn: None, source: Source::None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    /// Something that would wait for the log inside of a registry's closure.
    pub(crate) fn in_closure() -> Error {
        Error::invalid(
            "this waits for the log inside of a closure of a registry, whose thread others may wait \
             for: record at Level::Batched there, with room in the queue, or after the transaction",
        )
    }

    pub(crate) fn if_in_closure() -> Option<Error> {
        annals_wal::in_closure().then(Error::in_closure)
    }

    /// Whether the entry was too large: for the observer or for the log.
    pub(crate) fn is_too_large(&self) -> bool {
        let of_log = self.log_error().map(annals_wal::Error::kind);
        self.kind == ErrorKind::TooLarge || of_log == Some(annals_wal::ErrorKind::TooLarge)
    }

    /// The same of entries that are queued all the same.
    pub(crate) fn with_outcome_unknown(mut self) -> Error {
        self.source = Source::Queued;
        self
    }

    pub(crate) fn panicked() -> Error {
        Error::new(
            ErrorKind::Panicked,
            "the observer's thread panicked, most likely in the Clock that it was given: mend that; \
             what is queued is tried again with the next entry or flush",
        )
    }

    pub(crate) fn closed() -> Error {
        Error::new(
            ErrorKind::Closed,
            "the observer was shut down: make a new one on the log to record more entries",
        )
    }

    pub(crate) fn entry_too_large(bytes: usize, cap: usize) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "an entry of {bytes} bytes is over the cap of {cap} bytes: shorten its input, \
                 output or metadata, or open the log with a larger record cap"
            ),
        )
    }

    pub(crate) fn file(doing: &str, path: &Path, source: io::Error) -> Error {
        let mut error =
            Error::new(ErrorKind::Io, format!("cannot {doing} {}: {source}", path.display()));
        error.source = Source::Io(Arc::new(source));
        error
    }

    pub(crate) fn at(mut self, lsn: Lsn) -> Error {
        self.lsn = Some(lsn);
        self
    }
}

impl From<annals_wal::Error> for Error {
    fn from(source: annals_wal::Error) -> Error {
        Error {
            kind: ErrorKind::Log,
            message: source.to_string(),
            lsn: None,
            source: Source::Log(source),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.lsn {
            Some(lsn) => write!(f, " [LSN {lsn}]"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.source {
            Source::None | Source::Queued => None,
            Source::Log(error) => Some(error),
            Source::Io(error) => Some(error.as_ref()),
        }
    }
}
