//! Everything readable of a damaged log into a new one. The source is only read.
//!
//! The copy keeps the log's id, its LSNs, its head, its holds and whether it is shared, so that
//! revisions, checkpoints and notes of LSNs stay true. An LSN whose record is lost becomes an empty
//! record of [`crate::Kind::LOST`], because LSNs have no holes; a reader that replays meets it instead of passing over
//! a hole. Never here: mending of bytes, not even where one flipped bit would explain them.
//! Invariants: a record is kept exactly if header and payload have their checksums at their place;
//! a salvage that was broken off leaves a mark that forbids opening, made durable before the first
//! file. Rooms: [`harvest`] (what can be read), [`known`] (what is known to have been there), [`write`]
//! (the new log), [`compare`] (two logs side by
//! side), [`repair`] (a plan first, then the copy in the source's place).

pub mod compare;
mod harvest;
mod known;
pub mod repair;
mod write;

use std::path::Path;
use std::sync::Arc;

use crate::backup;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Dir, os::OsDir};
use crate::ids::{LogId, Lsn, Sequence};
use crate::lock::is_live;
use crate::options::Options;
use harvest::Harvest;

/// What to keep and how far to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SalvageOptions {
    /// Whether the records of a batch that is not whole are dropped too. Default false: each is kept
    /// as a batch of its own.
    pub whole_batches: bool,
    /// At most so many lost LSNs are filled. Default 10 million, 320 MB.
    pub fill_max: u64,
}

impl Default for SalvageOptions {
    fn default() -> SalvageOptions {
        SalvageOptions { whole_batches: false, fill_max: 10_000_000 }
    }
}

/// What was kept, what was not, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SalvageReport {
    /// The log's id, in source and copy.
    pub log_id: LogId,
    /// The first LSN in the copy, its head.
    pub first_lsn: Lsn,
    /// The last LSN in the copy, if it has a record.
    pub last_lsn: Option<Lsn>,
    /// Records kept as they were.
    pub kept: u64,
    /// Bytes of payload in them.
    pub payload_bytes: u64,
    /// The first LSN that the log had, if anything tells: its head, or where its lowest segment begins.
    /// A segment 1 without its open record counts as one that begins with LSN 1. What an archive
    /// begins with its manifest says, too.
    pub begin: Option<Lsn>,
    /// LSNs from there on, below the first one in the copy: nothing stands for them.
    pub before: Option<(Lsn, Lsn)>,
    /// LSNs between first and last whose record is not there any more: an empty record stands for each,
    /// behind the last readable one too, as far as anything tells that they were there.
    pub lost: Vec<(Lsn, Lsn)>,
    /// Records kept though their batch is not whole: first and last of each run.
    pub broken_batches: Vec<(Lsn, Lsn)>,
    /// Files read, lowest segment first.
    pub sources: Vec<SourceReport>,
    /// Files left out, and why.
    pub left_out: Vec<(String, String)>,
    /// Files beside the segments, and an LSN that was durable by their word, which is farther above all
    /// that the segments tell than may be filled: the copy ends below it. If one is true, a larger
    /// [`SalvageOptions::fill_max`] follows it; if not, the file is to be moved away.
    pub claims: Vec<(String, Lsn)>,
    /// How many segments the copy has.
    pub segments: usize,
    /// Registry snapshots copied.
    pub snapshots: usize,
}

impl SalvageReport {
    /// How many LSNs are lost.
    pub fn lost_records(&self) -> u64 {
        self.lost.iter().map(|(first, last)| last.get() - first.get() + 1).sum()
    }
}

/// One file that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// The segment that it is, by its own word.
    pub sequence: Sequence,
    /// Records read from it.
    pub records: u64,
    /// Whether its header is lost and was put together from its frames.
    pub header_from_frames: bool,
}

/// Copies everything readable of the log in `from` into the new directory `to`, durable on return.
/// `progress` is told how many bytes of segments were read since the last call; each is read twice.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// # annals_wal::Log::open(&path)?.append("one")?;
/// use annals_wal::salvage::{SalvageOptions, salvage};
/// let new = dir.path().join("new");
/// let report = salvage(&path, &new, SalvageOptions::default(), &mut |_| ())?;
/// assert_eq!((report.kept, report.lost_records()), (1, 0));
/// assert_eq!(annals_wal::Log::open(&new)?.range(..)?.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Locked` while a process has the source open, `NotALog` if it holds no segment, `Invalid` if the
/// target exists and is not empty or more LSNs are lost than may be filled, `Unsupported` for a
/// newer version's log, `Untrusted`, `Full`, `Io`. A target that was begun stays, marked.
pub fn salvage(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: SalvageOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<SalvageReport> {
    let from = Arc::new(OsDir::new(from.as_ref())) as Arc<dyn Dir>;
    let to = Arc::new(OsDir::new(to.as_ref())) as Arc<dyn Dir>;
    salvage_in(&*from, Some(&*to), options, progress)
}

/// What [`salvage`] would do, with nothing written.
///
/// # Errors
/// As [`salvage`].
pub fn salvage_plan(
    from: impl AsRef<Path>,
    options: SalvageOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<SalvageReport> {
    salvage_in(&OsDir::new(from.as_ref()), None, options, progress)
}

/// [`salvage`] on any file system behind the seam; without a target only the report.
///
/// # Errors
/// As [`salvage`].
pub fn salvage_in(
    from: &dyn Dir,
    to: Option<&dyn Dir>,
    options: SalvageOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<SalvageReport> {
    if is_live(from)? {
        return Err(in_use(from));
    }
    copy(from, to, options, progress)
}

fn in_use(dir: &dyn Dir) -> Error {
    let path = dir.path().display();
    let why = format!(
        "{path} is open for writing in a process: end that process first. What it has made durable can \
         be read meanwhile (`wal cat`), and that process can copy it (`Log::backup`)"
    );
    Error::new(ErrorKind::Locked, why)
}

/// [`salvage_in`] by a caller who has made sure that nobody writes.
fn copy(
    from: &dyn Dir,
    to: Option<&dyn Dir>,
    options: SalvageOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<SalvageReport> {
    // Said before the source is read: that may take minutes.
    if let Some(to) = to {
        backup::check_empty(to)?;
    }
    let harvest = Harvest::of(from, options, progress)?;
    let Some(to) = to else { return Ok(harvest.report) };
    backup::prepare_target(to, &Options::new(), "salvage")?;
    write::write(from, to, harvest, options, progress)
}
