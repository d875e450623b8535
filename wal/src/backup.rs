//! A consistent copy of a living log.
//!
//! Never here: a pause of the writers. Invariants: the copy holds exactly what was durable when
//! the copy began, whole batches only; a copy that was broken off is never mistaken for a log,
//! because an `ARCHIVE` mark, its words durable and then its name before the first file, forbids
//! opening it until it is whole; its end is sound, for nothing behind it vouches for that.
//! Next room: [`crate::fs`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::commit::SegmentBound;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::format::{self, HeaderVerdict, Name, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::fs::{Access, Dir, File, SyncPoint, os::OsDir, read_full, write_zeros};
use crate::ids::{Lsn, Sequence};
use crate::log::Log;
use crate::mutant;
use crate::options::Options;
use crate::recover::facts::mark_of;
use crate::scan::{Step, Walker};
use crate::trust;
use crate::window::Window;

/// What a backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackupReport {
    /// The first record in it, if it holds any.
    pub first_lsn: Lsn,
    /// The last record in it; `None` if the log held none.
    pub last_lsn: Option<Lsn>,
    /// How many segments it consists of.
    pub segments: usize,
}

impl Log {
    /// Copies what is durable now into a new directory, while writers go on. The copy is durable
    /// on return and opens as a log of its own that ended uncleanly (row A').
    ///
    /// # Errors
    /// `Invalid` if the directory exists and is not empty, `Untrusted` if others may change it
    /// (the options of this opening say what is allowed there, too), `Full`, `Io`, `Trimmed` if a
    /// trim ran at the same time: remove the directory and call again; `Corrupt` if the segment that
    /// is written is damaged below what is durable. Sealed segments are copied as they are: their
    /// seals accuse damage in the copy too.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_in(Arc::new(OsDir::new(path.as_ref())))
    }

    /// [`Log::backup`] into any directory behind the seam.
    ///
    /// # Errors
    /// As [`Log::backup`].
    pub fn backup_in(&self, to: Arc<dyn Dir>) -> Result<BackupReport> {
        let core = self.core_arc();
        core.home.check()?;
        let shared = &core.shared;
        // Listed first, so that all of them are below the bound: later ones would accuse the copy, and
        // one that a checkpoint takes away meanwhile is missed aloud, not left out.
        let snapshots = list_snapshots(&*shared.dir)?;
        // Bound, head and segments of one moment: a trim in between would make a set with a gap.
        let frontier = shared.frontier();
        let sequences: Vec<Sequence> = frontier.spans.iter().map(|span| span.sequence).collect();
        prepare_target(&*to, &core.options, "backup")?;
        for sequence in &sequences {
            copy_segment(&*shared.dir, &*to, *sequence, frontier.bound)?;
        }
        copy_snapshots(&*shared.dir, &*to, &snapshots)?;
        publish(&*to, &sequences)?;
        Ok(BackupReport {
            first_lsn: frontier.head,
            last_lsn: Lsn::new(frontier.durable_lsn),
            segments: sequences.len(),
        })
    }
}

fn failed(to: &dyn Dir, doing: &str, e: io::Error) -> Error {
    Error::io(format!("{doing} the backup {}", to.path().display()), e)
}

/// Whether a copy may be made there, as far as can be told without making the directory.
pub(crate) fn check_empty(to: &dyn Dir) -> Result<()> {
    let entries = match to.list() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| failed(to, "listing", e))?,
    };
    if entries.is_empty() {
        return Ok(());
    }
    let path = to.path().display();
    Err(Error::invalid(format!("{path} is not empty: name a directory that does not exist yet")))
}

/// Makes the directory and marks it: until [`publish`] it cannot be opened. `what` is being made.
pub(crate) fn prepare_target(to: &dyn Dir, options: &Options, what: &str) -> Result<()> {
    to.make().map_err(|e| failed(to, "making", e))?;
    trust::check_target(to, options)?;
    check_empty(to)?;
    to.sync_parent(SyncPoint::BackupParent).map_err(|e| failed(to, "syncing the parent of", e))?;
    if mutant::is("backup:no-mark") {
        return Ok(());
    }
    let mark = to.create(format::ARCHIVE_NAME).map_err(|e| failed(to, "marking", e))?;
    crate::fs::write_once(&*mark, mark_of(what).as_bytes(), 0)
        .and_then(|()| mark.sync_data(SyncPoint::BackupMark))
        .map_err(|e| failed(to, "marking", e))?;
    to.sync(SyncPoint::BackupMarked).map_err(|e| failed(to, "syncing", e))
}

/// Copies one segment under its `.tmp` name: a sealed one whole, the active one up to the durable
/// end with zeros after it.
fn copy_segment(
    from: &dyn Dir,
    to: &dyn Dir,
    sequence: Sequence,
    bound: SegmentBound,
) -> Result<()> {
    let name = format::segment_name(sequence);
    let source = from.open(&name, Access::Read).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::new(
            ErrorKind::Trimmed,
            format!("segment {sequence} was trimmed during the backup: remove the copy, try again"),
        ),
        _ => Error::io(format!("reading {}", from.path().join(&name).display()), e),
    })?;
    let len = source.len().map_err(|e| failed(to, "measuring for", e))?;
    let active = sequence == bound.sequence;
    if active && !mutant::is("backup:any-end") {
        check_active(from, &source, bound, len)?;
    }
    let end = if active { bound.end.min(len) } else { len };
    let tmp = format::segment_tmp_name(sequence);
    let target = to.create(&tmp).map_err(|e| failed(to, "writing", e))?;
    copy_bytes(&*source, &*target, end)
        .and_then(|()| write_zeros(&*target, end, len))
        .and_then(|()| target.sync_data(SyncPoint::BackupFile))
        .map_err(|e| failed(to, "writing", e))
}

/// What the copy's end has nothing behind it to vouch for: the next opening would take damage there
/// for a torn end, and cut what was promised.
fn check_active(
    from: &dyn Dir,
    source: &Arc<dyn File>,
    bound: SegmentBound,
    len: u64,
) -> Result<()> {
    let name = from.path().join(format::segment_name(bound.sequence));
    let reading = |e| Error::io(format!("reading {}", name.display()), e);
    let damaged = |at: u64, why: &str| {
        let location = Location { segment: Some(bound.sequence), offset: Some(at), lsns: None };
        let why = format!("{why}, so it is not copied; `wal verify` shows how far the damage goes");
        Err(Error::corrupt(why, location))
    };
    let mut head = [0; SEGMENT_HEADER_LEN];
    let read = read_full(&**source, &mut head, 0).map_err(reading)?;
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&head[..read]) else {
        return damaged(0, "the header of the segment that is written is bad");
    };
    if len < bound.end {
        return damaged(len, "the segment that is written ends here, but more was durable");
    }
    let mut walker = Walker::new(Window::limited(source.clone(), bound.end), &header);
    while walker.offset() < bound.end {
        let at = walker.offset();
        match walker.step().map_err(reading)? {
            Some(Step::Frame(frame)) if frame.trouble.is_none() => {}
            _ => return damaged(at, "what was durable is damaged"),
        }
    }
    Ok(())
}

fn list_snapshots(from: &dyn Dir) -> Result<Vec<String>> {
    let entries = from.list().map_err(|e| failed(from, "listing for", e))?;
    let is_snapshot = |name: &str| matches!(format::parse_name(name), Some(Name::Snapshot(_)));
    let snapshots = entries.into_iter().filter(|entry| entry.regular && is_snapshot(&entry.name));
    Ok(snapshots.map(|entry| entry.name).collect())
}

/// The registry's snapshots. A log that was trimmed to one cannot be read without it.
fn copy_snapshots(from: &dyn Dir, to: &dyn Dir, names: &[String]) -> Result<()> {
    for name in names {
        let source = from.open(name, Access::Read).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::new(
                ErrorKind::Trimmed,
                "a snapshot was replaced during the backup: remove the copy, try again",
            ),
            _ => Error::io(format!("reading {}", from.path().join(name).display()), e),
        })?;
        let len = source.len().map_err(|e| failed(to, "measuring for", e))?;
        let target = to.create(name).map_err(|e| failed(to, "writing", e))?;
        copy_bytes(&*source, &*target, len)
            .and_then(|()| target.sync_data(SyncPoint::BackupFile))
            .map_err(|e| failed(to, "writing", e))?;
    }
    Ok(())
}

fn copy_bytes(source: &dyn File, target: &dyn File, end: u64) -> io::Result<()> {
    let mut chunk = vec![0; 256 << 10];
    let mut at = 0;
    while at < end {
        let want = chunk.len().min((end - at) as usize);
        let read = read_full(source, &mut chunk[..want], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        crate::fs::write_once(target, &chunk[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Copies a file that is no segment, whole and synced, under its name.
pub(crate) fn copy_whole(from: &dyn Dir, to: &dyn Dir, name: &str) -> Result<()> {
    let source = from.open(name, Access::Read).map_err(|e| failed(to, "reading for", e))?;
    let len = source.len().map_err(|e| failed(to, "measuring for", e))?;
    let target = to.create(name).map_err(|e| failed(to, "writing", e))?;
    copy_bytes(&*source, &*target, len)
        .and_then(|()| target.sync_data(SyncPoint::BackupFile))
        .map_err(|e| failed(to, "writing", e))
}

/// The names, then the end of the mark: each durable before the next.
pub(crate) fn publish(to: &dyn Dir, sequences: &[Sequence]) -> Result<()> {
    for sequence in sequences {
        let tmp = format::segment_tmp_name(*sequence);
        to.hard_link(&tmp, &format::segment_name(*sequence))
            .and_then(|()| to.remove(&tmp))
            .map_err(|e| failed(to, "publishing", e))?;
    }
    to.sync(SyncPoint::BackupNames).map_err(|e| failed(to, "syncing", e))?;
    if !mutant::is("backup:no-mark") {
        to.remove(format::ARCHIVE_NAME).map_err(|e| failed(to, "finishing", e))?;
    }
    to.sync(SyncPoint::BackupDone).map_err(|e| failed(to, "syncing", e))
}
