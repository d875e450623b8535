//! Whether an archive holds what its manifest says.
//!
//! Reads every byte and writes none. Two proofs: each file's SHA-256 is the manifest's, and the
//! segments are whole by the log's own checksums.

use std::path::Path;

use annals_wal::LogReader;

use super::hash;
use super::manifest::Manifest;
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

/// Checks an archive.
///
/// # Errors
/// `Invalid` if the directory is no archive; `Corrupt` naming the first file that is missing, has
/// another length or another SHA-256; `Log` for records that are bad all the same; `Io`.
pub fn verify(dir: &Path) -> Result<Verified> {
    let manifest = Manifest::read(dir)?.ok_or_else(|| {
        Error::invalid(format!("{} is no archive: it has no manifest", dir.display()))
    })?;
    let mut verified = Verified::default();
    for segment in &manifest.segments {
        let path = dir.join(&segment.name);
        let bad = |why: &str| {
            let lsns = format!("LSNs {} to {}", segment.first_lsn, segment.last_lsn);
            Error::new(ErrorKind::Corrupt, format!("{} ({lsns}) {why}", path.display()))
        };
        let about = std::fs::metadata(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => bad("is missing"),
            _ => Error::file("look at", &path, e),
        })?;
        if about.len() != segment.bytes {
            return Err(bad("has another length than the manifest says"));
        }
        if hash(&path)? != segment.sha256 {
            return Err(bad("has another SHA-256 than the manifest says"));
        }
        verified.segments += 1;
        verified.bytes += segment.bytes;
    }
    if let (Some(first), Some(last)) = (manifest.segments.first(), manifest.segments.last()) {
        let mut next = first.first_lsn;
        for record in super::union::range(&LogReader::open(dir)?, first.first_lsn, last.last_lsn)? {
            if record?.lsn.get() != next {
                let why = format!("{}: LSN {next} is missing", dir.display());
                return Err(Error::new(ErrorKind::Corrupt, why));
            }
            next += 1;
            verified.records += 1;
        }
        if next != last.last_lsn + 1 {
            let why = format!("{}: its records end before LSN {}", dir.display(), last.last_lsn);
            return Err(Error::new(ErrorKind::Corrupt, why));
        }
    }
    Ok(verified)
}
