//! What every entry of one import shares: the file, its hash, which import of it this is.
//!
//! Never here: chance. Spans and call ids are made from content hash, round and place, so that an
//! import that goes on after a crash gives a call's end the id that its start has.
//! Next room: [`super::index`].

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::entry::{Position, Source, TimeOrigin};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{ContentHash, SpanId};

/// The kinds of files that can be imported.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileKind {
    /// `.jsonl`, `.ndjson`: one JSON object a line.
    JsonLines,
    /// `.traj`: a SWE-agent trajectory.
    Trajectory,
    /// `.db`, `.sqlite`, `.sqlite3`: the seeds' protocol store. Needs the feature `sqlite`.
    Sqlite,
}

impl FileKind {
    /// The kind by the file's extension, in any case of letters.
    ///
    /// # Errors
    /// `Unsupported`, naming the file.
    ///
    /// ```
    /// use annals_observer::import::FileKind;
    ///
    /// assert_eq!(FileKind::of("runs/01.traj".as_ref())?, FileKind::Trajectory);
    /// assert!(FileKind::of("registry.json".as_ref()).is_err());
    /// # Ok::<(), annals_observer::Error>(())
    /// ```
    pub fn of(path: &Path) -> Result<FileKind> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("jsonl" | "ndjson") => Ok(FileKind::JsonLines),
            Some("traj") => Ok(FileKind::Trajectory),
            Some("db" | "sqlite" | "sqlite3") => Ok(FileKind::Sqlite),
            _ => Err(unsupported(
                path,
                "only .jsonl or .ndjson, .traj and .db or .sqlite files are imported",
            )),
        }
    }
}

pub(crate) fn unsupported(path: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("unsupported file {}: {why}. Nothing of it was imported", path.display()),
    )
}

/// One import of one file.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) file: String,
    pub(crate) sha256: ContentHash,
    pub(crate) round: u32,
}

impl Origin {
    pub(crate) fn source(&self, position: Position, time: TimeOrigin) -> Source {
        let Origin { file, sha256, round } = self.clone();
        Source { file, sha256, round, position, time }
    }

    /// The span of the call with this number in this line or step.
    pub(crate) fn span(&self, line: u64, call: u32) -> SpanId {
        let mut hash = Sha256::new();
        hash.update(self.sha256.0);
        hash.update(self.round.to_le_bytes());
        hash.update(line.to_le_bytes());
        hash.update(call.to_le_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        SpanId::nearest(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}
