//! Entries in the forms that other tools read.
//!
//! Each form is one function over an iterator of entries and one writer. Never here: reading a log,
//! opening a file. Invariants: memory is that of the calls that are open at one moment (and, for
//! folded stacks, of the distinct stacks), never that of the log; a start and its end are paired by
//! span, or by call id where the end has no span; a call without an end is exported as unfinished,
//! with no duration. A large text is in an export only if its entries come through [`whole`]. Rooms: [`names`] has the OpenTelemetry names and is the one place that changes
//! when they do.

mod calls;
pub mod chrome;
pub mod folded;
pub mod jsonl;
pub mod names;
pub mod otlp;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod whole;

pub use whole::{Whole, whole};

use std::fmt;
use std::io;

use crate::error::Error;

/// Why an export ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExportError {
    /// The log, or an entry that cannot be decoded.
    Read(Error),
    /// The output.
    Write(io::Error),
    /// The database.
    #[cfg(feature = "sqlite")]
    Sqlite(rusqlite::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExportError::Read(error) => error.fmt(f),
            ExportError::Write(error) => write!(f, "writing the export failed: {error}"),
            #[cfg(feature = "sqlite")]
            ExportError::Sqlite(error) => write!(f, "writing the database failed: {error}"),
        }
    }
}

impl std::error::Error for ExportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ExportError::Read(error) => Some(error),
            ExportError::Write(error) => Some(error),
            #[cfg(feature = "sqlite")]
            ExportError::Sqlite(error) => Some(error),
        }
    }
}

impl From<Error> for ExportError {
    fn from(error: Error) -> ExportError {
        ExportError::Read(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> ExportError {
        ExportError::Write(error)
    }
}

#[cfg(feature = "sqlite")]
impl From<rusqlite::Error> for ExportError {
    fn from(error: rusqlite::Error) -> ExportError {
        ExportError::Sqlite(error)
    }
}

/// What an export wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Exported {
    /// Entries read.
    pub entries: u64,
    /// Lines, spans, events or rows written.
    pub written: u64,
    /// Calls that have no end.
    pub unfinished: u64,
}
