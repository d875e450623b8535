//! Archives: sealed segments handed over to other directories while the log goes on.
//!
//! Order of a hand-over: a new target has a hold under a name of its own (`archive?NAME`: the log
//! waits for it) before anything is made for it; the target's `ARCHIVE` manifest is durable in the
//! target, so that nobody opens it for writing; its hold (`archive:NAME`: a directory has it) is
//! durable in the log, and the first one released; then for each segment: a hard link under its
//! final name (or a copy under a name that is no segment's, synced, then renamed), every frame of what
//! lies there checked and its SHA-256 taken, the directory synced; then the manifest that names it, by a temporary name, sync, rename, directory sync; then the
//! hold moves.
//!
//! Never here: an unlink in the log (trim alone removes), half a segment under a segment's name, a
//! sleep, a look at a file's size to guess whether it is finished. A segment may be handed over once a record of a
//! later one is durable: then its seal is, and its successor's open record. Invariant: every
//! durable record is in the archive, in the log, or in both, and a union by LSN has it once. Rooms:
//! [`manifest`], [`verify`], [`union`]; `bring`, which puts files there; `turn`, which lets one hand-over
//! of a log work at a time; `sums`, so that one file is hashed once for all targets that link it. A target
//! is a directory behind the log's own seam, so crashes of both are swept together.

mod bring;
pub mod manifest;
mod sums;
mod turn;
pub mod union;
pub mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use annals_wal::format::{ARCHIVE_NAME, Identity, segment_name};
use annals_wal::fs::os::{OsDir, make_above};
use annals_wal::fs::{Dir, DirLock, LockMode, SyncPoint};
use annals_wal::inspect::{Depth, Role, SegmentReport, inspect_in};
use annals_wal::{Log, Lsn};

use crate::error::{Error, ErrorKind, Result};
use crate::mutant;
use bring::failed;
use manifest::{Archived, Manifest};
use turn::Turns;

/// The longest name of a target: a hold's name has 32 bytes and begins with `archive:`.
pub const NAME_BYTES_MAX: usize = 24;

/// A directory to which sealed segments are handed over, and the name of its hold.
#[derive(Clone, Debug)]
pub struct Target {
    name: String,
    dir: Arc<dyn Dir>,
    /// Whether the directories above it are made, too.
    above: bool,
    copy: bool,
    /// The manifest as it was last made durable here: a directory that still has that very file
    /// needs nothing before the next segment.
    left: Arc<Mutex<Option<Identity>>>,
}

/// What a hand-over did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HandedOver {
    /// Segments handed over now.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first LSN that is not in the archive; the target's hold is there.
    pub next_lsn: Lsn,
}

impl Target {
    /// A target by name and directory. The first hand-over makes the directory, and those above it that are
    /// missing; what it makes belongs to its owner alone (mode 0700), as the log's does. A relative path
    /// is resolved now.
    ///
    /// # Errors
    /// `Invalid` for a name of 0 or more than [`NAME_BYTES_MAX`] bytes.
    pub fn new(name: impl Into<String>, dir: impl Into<PathBuf>) -> Result<Target> {
        let target = Target::in_dir(name, Arc::new(OsDir::new(dir)))?;
        Ok(Target { above: true, ..target })
    }

    /// A target behind the seam: a directory of tests, say. What is above it must be there. Where the
    /// directory and the log's can share files, segments are linked, else copied.
    ///
    /// # Errors
    /// As [`Target::new`].
    pub fn in_dir(name: impl Into<String>, dir: Arc<dyn Dir>) -> Result<Target> {
        let name = name.into();
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let why =
                format!("an archive's name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len());
            return Err(Error::invalid(why));
        }
        Ok(Target { name, dir, above: false, copy: false, left: Arc::default() })
    }

    /// Whether to copy the segments where a hard link would do: for another disk, or for an archive
    /// that must not share its bytes with the log. Across file systems they are always copied.
    pub fn copy(mut self, yes: bool) -> Target {
        self.copy = yes;
        self
    }

    /// The name of its hold in the log.
    pub fn hold(&self) -> String {
        format!("archive:{}", self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands over every segment that may be and is not there yet. Durable on return: the segments,
    /// the manifest that names them, and the hold. Writers of the log go on meanwhile. Called again
    /// after any failure or crash, it goes on where it stopped.
    ///
    /// Of several at the same time on one open log one works and the others wait for it, segment by
    /// segment, so that the writers have to do with one alone; for one that does not come on (a disk
    /// that hangs) they wait a second and then go on beside it.
    ///
    /// A hold is there from the first call on, also if that fails (`archive?NAME`, until the
    /// directory is there): what the log had then, the target will have. Release it
    /// ([`Log::release_hold`]) if the target is given up: until then nothing is trimmed. A call that is
    /// refused as `Invalid` makes none, unless somebody else makes the directory his in the same moment.
    ///
    /// # Errors
    /// `Invalid` while another process or thread hands over to the same directory, if it is an
    /// archive of another log or name, or if another directory has this name; `Corrupt` if its
    /// manifest cannot be read, if it ends before what the log still has (somebody trimmed past it),
    /// or for a segment of the log that is damaged, which is not handed over; `Io`, `Log`. What was handed over before stays.
    ///
    /// ```
    /// use annals_observer::archive::{Target, verify};
    /// use annals_wal::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, to) = (dir.path().join("log"), dir.path().join("archive"));
    /// let log = Options::new().segment_bytes(64 << 10).open(&path)?;
    /// for _ in 0..40 {
    ///     log.append(vec![7; 4000])?; // some segments
    /// }
    /// let handed = Target::new("nightly", &to)?.hand_over(&log)?;
    /// assert!(handed.segments >= 1);
    /// log.trim(handed.next_lsn)?; // the log lets go of what the archive has
    /// assert_eq!(verify::verify(&to)?.segments, handed.segments);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hand_over(&self, log: &Log) -> Result<HandedOver> {
        let turns = log.common::<Turns>()?;
        let turn = turns.take();
        if !self.is_as_left() {
            self.prepare(log)?;
        }
        let _alone = self.lock()?;
        let as_left = self.is_as_left();
        let (hold, holds) = (self.hold(), log.holds());
        let mut manifest = self.manifest(log, &holds)?;
        if log.head_lsn() > manifest.next() && (manifest.has_any() || !self.is_new(&holds)) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the archive {} ends before LSN {} and the log begins at LSN {}: what lies \
                     between is gone. Use a new directory under a new name",
                    self.dir.path().display(),
                    manifest.next(),
                    log.head_lsn()
                ),
            ));
        }
        let known = manifest.next_lsn;
        manifest.next_lsn = known.max(log.head_lsn().get());
        let held = holds.iter().find(|(name, _)| *name == hold).map(|(_, lsn)| *lsn);
        if mutant::is("archive:hold-before-the-manifest") {
            self.set_hold(log, manifest.next())?;
        }
        // Before the first segment: from now on this is no directory to open for writing. And before
        // the hold: a hold without this manifest is another directory's (`check_name`).
        if !as_left || manifest.next_lsn != known {
            self.write(&manifest)?;
        }
        let waits = holds.iter().any(|(name, _)| *name == self.waiting_hold());
        if mutant::is("archive:released-first") && waits {
            log.release_hold(&self.waiting_hold())?;
        }
        if held.is_none_or(|held| held > manifest.next()) {
            self.set_hold(log, manifest.next())?;
        }
        if waits {
            log.release_hold(&self.waiting_hold())?;
        }
        let mut handed = HandedOver { segments: 0, bytes: 0, next_lsn: manifest.next() };
        let ready = ready(log, manifest.next())?;
        drop(turn);
        for segment in ready {
            let Some((first, last)) = segment.lsns else { continue };
            if mutant::is("archive:hold-before-the-segment") {
                self.set_hold(log, last.next().unwrap_or(last))?;
            }
            let _turn = turns.take();
            self.follows(&manifest, &segment, first)?;
            let name = segment_name(segment.sequence);
            let bytes = bring::segment(log, &turns, &*self.dir, &name, self.copy)?;
            let sha256 = turns.sums().of(&*self.dir, &name)?;
            let synced = self.dir.sync(SyncPoint::ArchiveNames);
            synced.map_err(|e| Error::file("sync", self.dir.path(), e))?;
            let (first, last) = (first.get(), last.get());
            manifest.add(Archived { name, first_lsn: first, last_lsn: last, bytes, sha256 });
            self.write(&manifest)?;
            handed.segments += 1;
            handed.bytes += bytes;
            handed.next_lsn = manifest.next();
        }
        if held != Some(manifest.next()) {
            self.set_hold(log, manifest.next())?;
        }
        Ok(handed)
    }

    /// A directory for it. What is refused is refused before anything is made or held; whatever else
    /// fails from here on, the log waits for this target.
    fn prepare(&self, log: &Log) -> Result<()> {
        let holds = log.holds();
        if !self.dir.list().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            match self.manifest(log, &holds) {
                Err(e) if e.kind() != ErrorKind::Io => return Err(e),
                _ => {}
            }
        }
        let waiting = self.waiting_hold();
        let has_one = self.dir.status(MANIFEST).is_ok() || !self.is_new(&holds);
        let has_one = has_one || mutant::is("archive:no-hold-before-the-directory");
        if !has_one && holds.iter().all(|(name, _)| *name != waiting) {
            log.set_hold(&waiting, log.head_lsn())?;
        }
        let made = || -> io::Result<()> {
            if self.above {
                make_above(self.dir.absolute())?;
            }
            self.dir.make()?;
            // Also of one that was there: a crash of an earlier call may have come before its sync.
            self.dir.sync_parent(SyncPoint::ArchiveParent)
        };
        made().map_err(|e| Error::file("make", self.dir.path(), e))
    }

    /// The hold of a target that has no directory yet, as long as that of one that has.
    fn waiting_hold(&self) -> String {
        format!("archive?{}", self.name)
    }

    /// Whether the manifest is the file that this target has made durable there.
    fn is_as_left(&self) -> bool {
        let left = *self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.is_some() && left == self.dir.identity(MANIFEST).ok()
    }

    fn write(&self, manifest: &Manifest) -> Result<()> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = None;
        bring::manifest(&*self.dir, manifest.text()?.as_bytes())?;
        *left = self.dir.identity(MANIFEST).ok();
        Ok(())
    }

    fn set_hold(&self, log: &Log, lsn: Lsn) -> Result<()> {
        Ok(log.set_hold(&self.hold(), lsn)?)
    }

    /// Whether a segment goes on where the archive ends. Nothing is replaced and the hold does not
    /// pass a gap: after a repair or a restore the log may count its segments anew, and a segment
    /// whose seal has rotted since is left out by [`ready`]. The first one may begin earlier.
    fn follows(&self, manifest: &Manifest, segment: &SegmentReport, first: Lsn) -> Result<()> {
        let name = segment_name(segment.sequence);
        // Numbers rise with the LSNs: readers go through an archive by its files' names.
        let known = manifest.last_sequence() >= Some(segment.sequence);
        let begins = first == manifest.next() || (!manifest.has_any() && first < manifest.next());
        if begins && !known {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "segment {name} of the log begins at LSN {first}, and the archive {} {}: the log was \
                 repaired or restored since, or a segment before it cannot be read. Nothing was \
                 changed there. Run `wal verify` on both, then use a new directory under a new name",
                self.dir.path().display(),
                if known {
                    "has another segment of that name or a later one".to_owned()
                } else {
                    format!("goes on at LSN {}", manifest.next())
                }
            ),
        ))
    }

    /// One name is one directory: two would share a hold, and the log would let go of what only one
    /// of them has.
    fn check_name(&self, manifest: Option<&Manifest>, holds: &[(String, Lsn)]) -> Result<()> {
        let other = match manifest {
            Some(manifest) if manifest.name == self.name => return Ok(()),
            Some(manifest) => {
                format!("{} is the archive {}", self.dir.path().display(), manifest.name)
            }
            None if self.is_new(holds) => return Ok(()),
            None => format!("the hold {} is of another directory", self.hold()),
        };
        Err(Error::invalid(format!(
            "the name {} cannot be used here: {other}. Use another name, or release the hold if \
             that archive is not written any more",
            self.name
        )))
    }

    fn is_new(&self, holds: &[(String, Lsn)]) -> bool {
        holds.iter().all(|(name, _)| *name != self.hold())
    }

    /// One hand-over at a time to one directory.
    fn lock(&self) -> Result<Box<dyn DirLock>> {
        let lock = self.dir.try_lock(LOCK, LockMode::Exclusive, true);
        lock.map_err(|e| failed("lock", &*self.dir, LOCK, e))?.ok_or_else(|| {
            Error::invalid(format!(
                "somebody else hands over to {} right now: wait, or use another directory",
                self.dir.path().display()
            ))
        })
    }

    /// The manifest that is there, or the first one.
    fn manifest(&self, log: &Log, holds: &[(String, Lsn)]) -> Result<Manifest> {
        let log_id = log.log_id().to_string();
        let found = Manifest::read_in(&*self.dir)?;
        match &found {
            None if !bring::is_empty(&*self.dir)? => {
                return Err(Error::invalid(format!(
                    "{} is neither empty nor an archive: name another directory",
                    self.dir.path().display()
                )));
            }
            Some(manifest) if manifest.log_id != log_id => {
                return Err(Error::invalid(format!(
                    "{} is an archive of another log ({}, this one is {log_id})",
                    self.dir.path().display(),
                    manifest.log_id
                )));
            }
            _ => self.check_name(found.as_ref(), holds)?,
        }
        Ok(found.unwrap_or_else(|| Manifest::new(log_id, self.name.clone())))
    }
}

/// Hands over to several targets, one after the other. One that fails keeps its hold and does not
/// stop the others.
///
/// ```
/// use annals_observer::archive::{Target, hand_over_all};
///
/// # let dir = tempfile::tempdir()?;
/// let log = annals_wal::Log::open(dir.path().join("log"))?;
/// let good = Target::new("good", dir.path().join("good"))?;
/// let bad = Target::new("bad", "/proc/no-such-place")?;
/// let results = hand_over_all(&log, &[bad, good]);
/// assert!(results[0].1.is_err() && results[1].1.is_ok());
/// assert_eq!(results[0].0, "bad");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn hand_over_all(log: &Log, targets: &[Target]) -> Vec<(String, Result<HandedOver>)> {
    targets.iter().map(|target| (target.name.clone(), target.hand_over(log))).collect()
}

/// The sealed segments from an LSN on whose successor holds a durable record, lowest first.
fn ready(log: &Log, from: Lsn) -> Result<Vec<SegmentReport>> {
    let durable = log.durable_lsn();
    let report = inspect_in(log.dir(), Depth::Seals, &mut |_| ())?;
    let mut ready = Vec::new();
    for segment in report.segments {
        let Some((_, last)) = segment.lsns.filter(|_| segment.role == Role::Sealed) else {
            continue;
        };
        if durable <= Some(last) {
            break;
        }
        if last >= from {
            ready.push(segment);
        }
    }
    Ok(ready)
}

/// Held by who hands over to a directory.
const LOCK: &str = "ARCHIVE.lock";

/// The name of the manifest in an archive's directory.
pub const MANIFEST: &str = ARCHIVE_NAME;
