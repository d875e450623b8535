//! A line or step that could not be taken, and why.
//!
//! Never here: the line. A message has places and lengths; what is in the file may be a secret.
//! Next room: [`super::members`].

use std::fmt;
use std::path::PathBuf;

/// A line of a `.jsonl`, or a step of a `.traj`, that was not imported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLine {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line from 1; in a `.traj` whose JSON is whole, the step from 1.
    pub line: u64,
    /// Why.
    pub reason: Reason,
}

/// `FILE:LINE: reason`, as compilers write it.
impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.reason)
    }
}

/// Why a line or step could not be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// Its bytes are not UTF-8.
    NotUtf8 {
        /// The first bad byte, from 1.
        byte: u64,
    },
    /// It is not JSON.
    NotJson {
        /// The line inside the text, from 1; always 1 in a `.jsonl`.
        line: u64,
        /// The column in that line, from 1.
        column: u64,
    },
    /// It would be JSON if it went on: a write that was cut.
    CutShort,
    /// It is JSON, but no object.
    NotAnObject,
    /// It is longer than a record may be.
    TooLong {
        /// How long it is.
        bytes: u64,
        /// The cap.
        max: u64,
    },
    /// The file is JSON but has neither a `trajectory` nor a `history` list.
    NotATrajectory,
}

impl Reason {
    pub(crate) fn of_json(error: &serde_json::Error) -> Reason {
        if error.is_eof() {
            Reason::CutShort
        } else {
            Reason::NotJson { line: error.line() as u64, column: error.column() as u64 }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotUtf8 { byte } => write!(f, "not UTF-8 at byte {byte}"),
            Reason::NotJson { column, .. } => write!(f, "not JSON at column {column}"),
            Reason::CutShort => f.write_str("the JSON ends too early: the line was cut"),
            Reason::NotAnObject => f.write_str("JSON, but not an object"),
            Reason::TooLong { bytes, max } => {
                write!(f, "{bytes} bytes are over the cap of {max}: raise the log's record cap")
            }
            Reason::NotATrajectory => {
                f.write_str("neither a `trajectory` nor a `history` list is in the file")
            }
        }
    }
}
