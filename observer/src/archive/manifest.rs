//! The manifest of an archive: which segments it holds, which LSNs, with which SHA-256.
//!
//! It is the file `ARCHIVE`, and that name alone keeps the directory from being opened for writing.
//! Never here: a segment. Invariants: numbers and LSNs ascend and segments do not overlap, so
//! no file is listed twice; what is not in the manifest is not in the archive, whatever lies in the
//! directory.

use std::io;
use std::path::Path;

use annals_wal::format::{Name, parse_name};
use annals_wal::fs::{Access, Dir, os::OsDir, read_full};
use annals_wal::{Lsn, Sequence};
use serde::Serialize;
use serde_json::Value;

use super::MANIFEST;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ContentHash;

const VERSION: u64 = 1;

/// Longest manifest that is read: some 300 000 segments.
const MANIFEST_MAX_BYTES: u64 = 64 << 20;

/// One segment of an archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Archived {
    /// Its file's name.
    pub name: String,
    /// Its first record.
    pub first_lsn: u64,
    /// Its last record.
    pub last_lsn: u64,
    /// Length of its file.
    pub bytes: u64,
    /// SHA-256 of its file.
    pub sha256: ContentHash,
}

/// What an archive holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Manifest {
    version: u64,
    /// The log it is of.
    pub log_id: String,
    /// The target's name.
    pub name: String,
    /// The first LSN that is not in it.
    pub next_lsn: u64,
    /// Lowest first.
    pub segments: Vec<Archived>,
}

impl Archived {
    /// The number of its segment, which its name says.
    pub fn sequence(&self) -> Option<Sequence> {
        match parse_name(&self.name) {
            Some(Name::Segment(sequence)) => Some(sequence),
            _ => None,
        }
    }

    /// How many LSNs it holds; the first is never above the last.
    pub fn records(&self) -> u64 {
        self.last_lsn.saturating_sub(self.first_lsn).saturating_add(1)
    }
}

impl Manifest {
    pub(super) fn new(log_id: String, name: String) -> Manifest {
        Manifest { version: VERSION, log_id, name, next_lsn: 1, segments: Vec::new() }
    }

    /// The manifest of an archive; `None` if the directory has none.
    ///
    /// # Errors
    /// `Io`; `Unsupported` for a newer version; `Corrupt` for anything else that is no manifest,
    /// the mark of a backup that was not finished included.
    pub fn read(dir: &Path) -> Result<Option<Manifest>> {
        Manifest::read_in(&OsDir::new(dir))
    }

    /// [`Manifest::read`] behind the log's seam to the file system.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn read_in(dir: &dyn Dir) -> Result<Option<Manifest>> {
        let path = dir.path().join(MANIFEST);
        let bad = |why: &str| {
            Error::new(ErrorKind::Corrupt, format!("{} is no manifest: {why}", path.display()))
        };
        // Through no link, and only a regular file: a pipe never ends, and /dev/zero is large.
        let read = dir.open(MANIFEST, Access::Read).and_then(|file| {
            let len = file.len()?;
            if len > MANIFEST_MAX_BYTES {
                return Ok(None);
            }
            let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            let read = read_full(&*file, &mut bytes, 0)?;
            bytes.truncate(read);
            Ok(Some(bytes))
        });
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(bad("it is too long for one")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::file("read", &path, e)),
        };
        let text = String::from_utf8(bytes).map_err(|_| bad("it is not text"))?;
        let value: Value = serde_json::from_str(&text).map_err(|_| bad("it is not JSON"))?;
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(newer) => {
                let what = format!("{} has version {newer}: use a newer `wal`", path.display());
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
            None => return Err(bad("it has no version")),
        }
        of_value(&value)
            .filter(Manifest::is_in_order)
            .map(Some)
            .ok_or_else(|| bad("a member is missing or its segments are out of order"))
    }

    /// What the file says.
    pub(super) fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|_| Error::invalid("the manifest cannot be written as JSON"))?;
        Ok(format!("{text}\n"))
    }

    pub(super) fn add(&mut self, segment: Archived) {
        self.next_lsn = segment.last_lsn.saturating_add(1);
        self.segments.push(segment);
    }

    pub(super) fn has_any(&self) -> bool {
        !self.segments.is_empty()
    }

    /// The number of its last segment, if it has any.
    pub fn last_sequence(&self) -> Option<Sequence> {
        self.segments.last().and_then(Archived::sequence)
    }

    /// The first LSN that is not in it.
    pub fn next(&self) -> Lsn {
        Lsn::new(self.next_lsn).unwrap_or(Lsn::FIRST)
    }

    fn is_in_order(&self) -> bool {
        let mut due = None;
        let mut highest = None;
        for segment in &self.segments {
            let follows = due.is_none_or(|due| segment.first_lsn == due);
            let sequence = segment.sequence();
            let rises = sequence.is_some() && sequence > highest;
            let holds_some = segment.first_lsn > 0 && segment.first_lsn <= segment.last_lsn;
            // No LSN is the highest number: nothing could follow it.
            let Some(next) = segment.last_lsn.checked_add(1) else { return false };
            if !(follows && rises && holds_some) {
                return false;
            }
            (due, highest) = (Some(next), sequence);
        }
        due.is_none_or(|due| due == self.next_lsn) && self.next_lsn > 0
    }
}

fn of_value(value: &Value) -> Option<Manifest> {
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let segments = value.get("segments")?.as_array()?.iter().map(|segment| {
        let number = |name: &str| segment.get(name)?.as_u64();
        let name = text(segment, "name")?;
        // A name from a file becomes a path: it may be a segment's and nothing else.
        let is_segment = matches!(parse_name(&name), Some(Name::Segment(_)));
        Some(Archived {
            name: Some(name).filter(|_| is_segment)?,
            first_lsn: number("first_lsn")?,
            last_lsn: number("last_lsn")?,
            bytes: number("bytes")?,
            sha256: of_hex(&text(segment, "sha256")?)?,
        })
    });
    Some(Manifest {
        version: VERSION,
        log_id: text(value, "log_id")?,
        name: text(value, "name")?,
        next_lsn: value.get("next_lsn")?.as_u64()?,
        segments: segments.collect::<Option<Vec<Archived>>>()?,
    })
}

fn of_hex(text: &str) -> Option<ContentHash> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(ContentHash(bytes))
}
