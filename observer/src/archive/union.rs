//! Reading a log together with its archives: each record once, by LSN.
//!
//! The log's own copy counts from its head on; what is below comes from the archives. Never here: a
//! gap passed over: an LSN that neither has is an error that names it.

use std::path::Path;
use std::sync::Arc;

use annals_wal::fs::{Dir, os::OsDir};
use annals_wal::{LogReader, Lsn, Records, StoredRecord};

use super::manifest::Manifest;
use crate::error::{Error, ErrorKind, Result};
use crate::read::ReadRecords;

/// Records `first` to `last` of an archive, which has sealed segments and nothing behind them.
pub(super) fn range(reader: &LogReader, first: u64, last: u64) -> Result<Records> {
    let bound = |lsn| Lsn::new(lsn).unwrap_or(Lsn::FIRST);
    Ok(reader.clone().unproven(true).range(bound(first)..=bound(last))?)
}

/// Every durable record from an LSN on, out of archives and log.
///
/// ```
/// use annals_observer::archive::{Target, union};
/// use annals_wal::{Lsn, Options};
///
/// # let dir = tempfile::tempdir()?;
/// # let (path, to) = (dir.path().join("log"), dir.path().join("archive"));
/// let log = Options::new().segment_bytes(64 << 10).open(&path)?;
/// for _ in 0..40 {
///     log.append(vec![7; 4000])?;
/// }
/// let handed = Target::new("a", &to)?.hand_over(&log)?;
/// log.trim(handed.next_lsn)?;
/// assert!(log.range(Lsn::FIRST..).is_err(), "trimmed from the log");
/// let records = union::union(&log, &[&to], Lsn::FIRST)?;
/// assert_eq!(records.map(|record| record.map(|r| r.lsn.get())).collect::<Result<Vec<_>, _>>()?,
///     (1..=40).collect::<Vec<_>>());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Corrupt` for a directory whose manifest is bad, `Log`, and `Corrupt` for an LSN that neither
/// the archives nor the log have.
pub fn union(from: &impl ReadRecords, archives: &[&Path], first: Lsn) -> Result<Union> {
    let dirs = archives.iter().map(|path| Arc::new(OsDir::new(*path)) as Arc<dyn Dir>);
    union_in(from, &dirs.collect::<Vec<_>>(), first)
}

/// [`union()`] behind the log's seam to the file system.
///
/// # Errors
/// As [`union()`].
pub fn union_in(from: &impl ReadRecords, archives: &[Arc<dyn Dir>], first: Lsn) -> Result<Union> {
    // The head before the range: a trim in between makes the range fail, not the union wrong.
    let head = from.head();
    let mut parts: Vec<Records> = Vec::new();
    let mut next = first.get();
    let mut pieces = Vec::new();
    for dir in archives {
        let Some(manifest) = Manifest::read_in(&**dir)? else {
            let why = format!("{} is no archive: it has no manifest", dir.path().display());
            return Err(Error::invalid(why));
        };
        if let Some(segment) = manifest.segments.first() {
            pieces.push((segment.first_lsn, manifest.next_lsn - 1, dir));
        }
    }
    pieces.sort_unstable_by_key(|(begins, ends, _)| (*begins, *ends));
    for (begins, ends, dir) in pieces {
        let last = ends.min(head.get() - 1);
        if begins <= next && next <= last {
            parts.push(range(&LogReader::open_in(dir.clone())?, next, last)?);
            next = last + 1;
        }
    }
    if next < head.get() {
        let why = format!(
            "LSN {next} is in no archive that was named, and the log begins at LSN {head}: name the \
             archive that has it"
        );
        return Err(Error::new(ErrorKind::Corrupt, why));
    }
    parts.push(from.records(Lsn::new(next).unwrap_or(Lsn::FIRST)..)?);
    parts.reverse();
    Ok(Union { parts, next: first.get() })
}

/// Iterator over archives and log, each record once.
#[derive(Debug)]
pub struct Union {
    /// The next part last.
    parts: Vec<Records>,
    next: u64,
}

impl Iterator for Union {
    type Item = Result<StoredRecord>;

    fn next(&mut self) -> Option<Result<StoredRecord>> {
        loop {
            match self.parts.last_mut()?.next() {
                Some(Ok(record)) if record.lsn.get() == self.next => {
                    self.next += 1;
                    return Some(Ok(record));
                }
                Some(Ok(record)) => {
                    self.parts.clear();
                    let why = format!("LSN {} is missing before LSN {}", self.next, record.lsn);
                    return Some(Err(Error::new(ErrorKind::Corrupt, why)));
                }
                Some(Err(error)) => {
                    self.parts.clear();
                    return Some(Err(error.into()));
                }
                None => drop(self.parts.pop()),
            }
        }
    }
}
