//! Whether an archive holds what its manifest says.
//!
//! Reads every byte and writes none. Two proofs: each file's SHA-256 is the manifest's, and the
//! segments are whole by the log's own checksums.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use annals_wal::LogReader;
use annals_wal::fs::{Access, Dir, os::OsDir};

use super::bring::{failed, hash};
use super::manifest::{Archived, Manifest};
use crate::error::{Error, ErrorKind, Result};

/// An archive that is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Its segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their records, each read and checked.
    pub records: u64,
}

/// Which files of a manifest are not what it says, and why: missing, no regular file, of another length
/// and, if the bytes are to be read, of another SHA-256. What stands in them is the log's to judge.
///
/// # Errors
/// `Io`.
pub fn differences<'m>(
    dir: &dyn Dir,
    manifest: &'m Manifest,
    read: bool,
) -> Result<Vec<(&'m Archived, &'static str)>> {
    let entries = dir.list().map_err(|e| Error::file("list", dir.path(), e))?;
    let entries: BTreeMap<&str, bool> =
        entries.iter().map(|entry| (entry.name.as_str(), entry.regular)).collect();
    let mut wrong = Vec::new();
    for segment in &manifest.segments {
        let name = &segment.name;
        let len = match entries.get(name.as_str()) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(false) => Err(io::ErrorKind::InvalidInput.into()),
            Some(true) => dir.open(name, Access::Read).and_then(|file| file.len()),
        };
        let why = match len {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some("is missing"),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Some("is no regular file"),
            Err(e) => return Err(failed("look at", dir, name, e)),
            Ok(len) if len != segment.bytes => Some("has another length than the manifest says"),
            Ok(_) if read && hash(dir, name)? != segment.sha256 => {
                Some("has another SHA-256 than the manifest says")
            }
            Ok(_) => None,
        };
        wrong.extend(why.map(|why| (segment, why)));
    }
    Ok(wrong)
}

/// Checks an archive.
///
/// # Errors
/// `Invalid` if the directory is no archive; `Corrupt` naming the first file that is missing, has
/// another length or another SHA-256; `Log` for records that are bad all the same; `Io`.
pub fn verify(dir: &Path) -> Result<Verified> {
    verify_in(&(Arc::new(OsDir::new(dir)) as Arc<dyn Dir>))
}

/// [`verify()`] behind the log's seam to the file system.
///
/// # Errors
/// As [`verify()`].
pub fn verify_in(dir: &Arc<dyn Dir>) -> Result<Verified> {
    let manifest = Manifest::read_in(&**dir)?.ok_or_else(|| {
        Error::invalid(format!("{} is no archive: it has no manifest", dir.path().display()))
    })?;
    let mut verified = Verified::default();
    if let Some((segment, why)) = differences(&**dir, &manifest, true)?.first() {
        let (path, lsns) = (dir.path().join(&segment.name), (segment.first_lsn, segment.last_lsn));
        let why = format!("{} (LSNs {} to {}) {why}", path.display(), lsns.0, lsns.1);
        return Err(Error::new(ErrorKind::Corrupt, why));
    }
    for segment in &manifest.segments {
        verified.segments += 1;
        verified.bytes += segment.bytes;
    }
    if let (Some(first), Some(last)) = (manifest.segments.first(), manifest.segments.last()) {
        let mut next = first.first_lsn;
        for record in
            super::union::range(&LogReader::open_in(dir.clone())?, first.first_lsn, last.last_lsn)?
        {
            if record?.lsn.get() != next {
                let why = format!("{}: LSN {next} is missing", dir.path().display());
                return Err(Error::new(ErrorKind::Corrupt, why));
            }
            next += 1;
            verified.records += 1;
        }
        if next != last.last_lsn + 1 {
            let why =
                format!("{}: its records end before LSN {}", dir.path().display(), last.last_lsn);
            return Err(Error::new(ErrorKind::Corrupt, why));
        }
    }
    Ok(verified)
}
