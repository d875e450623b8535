//! The files that are imported: opened, measured, hashed, read.
//!
//! Never here: a write, a file that is no regular file (a pipe has no end and no second reading).
//! Invariants: a `.jsonl` is read twice, once for its hash and once for its entries, and the two
//! hashes are compared; a `.traj` is read once and held. Next room: [`super::lines`].

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::jsonl::{Parsed, parse_line};
use super::lines::{Line, Lines};
use super::origin::unsupported;
use super::trajectory::Trajectory;
use super::{BadLine, Reason};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{ContentHash, SessionId};

/// A `.traj` is one JSON value and must be held whole; a larger one is refused.
const TRAJECTORY_BYTES_MAX: u64 = 256 << 20;

/// SHA-256 of a file's content: what an import is known by.
///
/// # Errors
/// `Io`; `Unsupported` if it is not a regular file.
pub fn content_hash(path: &Path) -> Result<ContentHash> {
    let mut input = open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = input.read(&mut buffer).map_err(|e| Error::file("read", path, e))?;
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => hash.update(bytes),
            _ => return Ok(ContentHash(hash.finalize().into())),
        }
    }
}

pub(crate) fn open(path: &Path) -> Result<BufReader<File>> {
    let about = std::fs::metadata(path).map_err(|e| Error::file("look at", path, e))?;
    if !about.is_file() {
        return Err(unsupported(path, "it is not a regular file"));
    }
    let file = File::open(path).map_err(|e| Error::file("open", path, e))?;
    Ok(BufReader::with_capacity(64 << 10, file))
}

pub(crate) fn changed(path: &Path) -> Error {
    Error::new(
        ErrorKind::Changed,
        format!(
            "{} changed while it was imported: import it again when nothing writes to it. What \
             was imported of it is not marked as done",
            path.display()
        ),
    )
}

fn too_large(path: &Path) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!(
            "{} is over {TRAJECTORY_BYTES_MAX} bytes, more than a trajectory may have: split it. \
             Nothing of it was imported",
            path.display()
        ),
    )
}

/// The hash of a `.jsonl` and, where it is to be strict, its first bad line.
pub(crate) fn survey(
    path: &Path,
    max: usize,
    strict: bool,
) -> Result<(ContentHash, Option<BadLine>)> {
    if !strict {
        return Ok((content_hash(path)?, None));
    }
    let mut lines = Lines::new(open(path)?, max);
    let mut bad = None;
    while let Some((line, read)) = next(&mut lines, path, max)? {
        if let (None, Err(reason)) = (&bad, read) {
            bad = Some(BadLine { file: path.to_owned(), line, reason });
        }
    }
    Ok((lines.finish(), bad))
}

/// The next line that is not blank, parsed.
pub(crate) fn next(
    lines: &mut Lines<BufReader<File>>,
    path: &Path,
    max: usize,
) -> Result<Option<(u64, std::result::Result<Parsed, Reason>)>> {
    loop {
        let read = lines.next().map_err(|e| Error::file("read", path, e))?;
        let Some((number, line)) = read else { return Ok(None) };
        let parsed = match line {
            Line::Bytes(bytes) => parse_line(bytes, max),
            Line::TooLong(bytes) => Err(Reason::TooLong { bytes, max: max as u64 }),
        };
        if let Some(parsed) = parsed.transpose() {
            return Ok(Some((number, parsed)));
        }
    }
}

/// A `.traj` in memory.
pub(crate) struct TrajectoryFile {
    bytes: Vec<u8>,
    hash: ContentHash,
    session: Option<SessionId>,
}

impl TrajectoryFile {
    pub(crate) fn read(path: &Path) -> Result<TrajectoryFile> {
        let mut bytes = Vec::new();
        let input = open(path)?;
        let about = input.get_ref().metadata().map_err(|e| Error::file("look at", path, e))?;
        if about.len() > TRAJECTORY_BYTES_MAX {
            return Err(too_large(path));
        }
        // One byte more than allowed, so that a file that grows meanwhile is noticed too.
        let mut input = input.take(TRAJECTORY_BYTES_MAX + 1);
        input.read_to_end(&mut bytes).map_err(|e| Error::file("read", path, e))?;
        if bytes.len() as u64 > TRAJECTORY_BYTES_MAX {
            return Err(too_large(path));
        }
        let hash = ContentHash(Sha256::digest(&bytes).into());
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(TrajectoryFile { bytes, hash, session: stem.and_then(SessionId::stored) })
    }

    pub(crate) fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The session that its entries belong to: the file's name without extension.
    pub(crate) fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    pub(crate) fn parse(&self, path: &Path) -> std::result::Result<Trajectory<'_>, BadLine> {
        let text = std::str::from_utf8(&self.bytes)
            .map_err(|error| Reason::NotUtf8 { byte: error.valid_up_to() as u64 + 1 });
        text.and_then(|text| Trajectory::parse(text.trim_start_matches('\u{FEFF}'))).map_err(
            |reason| {
                let line = if let Reason::NotJson { line, .. } = reason { line } else { 1 };
                BadLine { file: path.to_owned(), line, reason }
            },
        )
    }
}
