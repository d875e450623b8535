//! The one seam to the file system: a directory and its files, as traits with contracts.
//!
//! Never here: format, judgement, retries. An implementation does what it is told and reports what
//! the system said; `Ok` means exactly what the method's doc says.
//! Invariants: nothing else in the workspace touches `std::fs` for a log's directory; every sync
//! carries the [`SyncPoint`] that says which crash it survives, so that the crashable directory
//! of `mem` can leave any one of them out and a test can show that it was needed.
//! Next rooms: [`os`] (the real one), `mem` (the crashable one) and `gate` (a hook before either),
//! these two with feature `testing`; [`DirLayer`] for a directory that stands before another.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use crate::format::Identity;
use crate::mutant;
pub use layer::DirLayer;
pub use map::Map;
pub use standing::{FileSystem, Standing, Status};

#[cfg(any(test, feature = "testing"))]
pub mod gate;
mod layer;
mod map;
#[cfg(any(test, feature = "testing"))]
pub mod mem;
pub mod os;
mod standing;

/// Every place where bytes or names are made durable, by the crash it survives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum SyncPoint {
    /// The parent of the log's directory: without it the whole directory can vanish, whoever made
    /// it and whenever.
    Parent,
    /// The directory, before an opening for writing writes its first byte: a former owner may
    /// have published a name and died, or failed, before syncing it.
    DirectoryBeforeWrite,
    /// A prepared segment's header and zeros, before its final name exists.
    Prepared,
    /// The directory, after a segment got its final name.
    Published,
    /// What recovery keeps of the active segment, rewritten: in row A with the new open record, in
    /// row A' with the zeros after it.
    Kept,
    /// Row B, first sync: the kept bytes rewritten and the rest zeroed, before anything is
    /// appended, so that no stale frame can stand behind the seal.
    Cut,
    /// The seal that recovery appends (rows A' and B), after the sync of what it closes.
    RecoverySeal,
    /// The open record of a new segment that recovery or creation starts, and the zeros behind it if
    /// the segment was a spare: the cache may show zeros that no sync brought to the disk.
    OpenRecord,
    /// A group: the one every acknowledgement waits for.
    Group,
    /// A seal written alone, before the next segment gets its first byte.
    Seal,
    /// The directory, after trimmed segments were unlinked.
    Trimmed,
    /// The directory, after recovery removed leftovers.
    Leftovers,
    /// The copy of what recovery cut. Best effort: its failure fails nothing.
    Evidence,
    /// The parent of a backup's directory.
    BackupParent,
    /// What the mark of a half-made backup says, before its name is durable: without it a crash may
    /// leave a mark that looks like an archive's damaged manifest, and nobody dares to remove it.
    BackupMark,
    /// The mark that keeps a half-made backup from being opened as a log, before its first file.
    BackupMarked,
    /// A file of a backup.
    BackupFile,
    /// The names of a backup's segments, before the mark goes.
    BackupNames,
    /// The removal of the mark: without it the finished backup could come back as half-made.
    BackupDone,
    /// A registry snapshot's bytes, before its name exists.
    SnapshotFile,
    /// The directory, after a registry snapshot got its name and before the log may be trimmed to it.
    SnapshotName,
    /// The parent of an archive's directory, before anything in it counts.
    ArchiveParent,
    /// A sealed segment of the log, before an archive gets it by a link: a log that was copied to where
    /// it is was synced by nobody.
    ArchivedSegment,
    /// A segment copied to an archive, before it has a segment's name there.
    ArchiveCopy,
    /// The names of an archive's segments, before its manifest lists them.
    ArchiveNames,
    /// An archive's manifest, before it takes the place of the one before it.
    ArchiveManifest,
    /// The directory, after the manifest took its place and before the hold of the log moves.
    ArchiveListed,
}

impl SyncPoint {
    /// Every sync point: for tests that must miss none.
    pub const ALL: [SyncPoint; 27] = [
        SyncPoint::Parent,
        SyncPoint::DirectoryBeforeWrite,
        SyncPoint::Prepared,
        SyncPoint::Published,
        SyncPoint::Kept,
        SyncPoint::Cut,
        SyncPoint::RecoverySeal,
        SyncPoint::OpenRecord,
        SyncPoint::Group,
        SyncPoint::Seal,
        SyncPoint::Trimmed,
        SyncPoint::Leftovers,
        SyncPoint::Evidence,
        SyncPoint::BackupParent,
        SyncPoint::BackupMark,
        SyncPoint::BackupMarked,
        SyncPoint::BackupFile,
        SyncPoint::BackupNames,
        SyncPoint::BackupDone,
        SyncPoint::SnapshotFile,
        SyncPoint::SnapshotName,
        SyncPoint::ArchiveParent,
        SyncPoint::ArchivedSegment,
        SyncPoint::ArchiveCopy,
        SyncPoint::ArchiveNames,
        SyncPoint::ArchiveManifest,
        SyncPoint::ArchiveListed,
    ];
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading only: the descriptor cannot write.
    Read,
    /// Reading and writing.
    Write,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name; names that are not UTF-8 are foreign and left out of listings.
    pub name: String,
    /// Whether it is a regular file (a symbolic link is not).
    pub regular: bool,
}

/// How a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockMode {
    /// Alone.
    Exclusive,
    /// Together with other shared holders: the members of a shared log, and whoever looks for a
    /// moment whether an owner lives.
    Shared,
}

/// A lock that is free again when this is dropped or its process dies. Dropped in a child that
/// inherited it by fork it stays its parent's; dropped in the parent it is free at once, however
/// many children inherited it.
pub trait DirLock: Send + Sync + Debug {
    /// Writes the holder's process id into the lock file, for the next caller's message. Best
    /// effort: a lock works without it.
    fn write_pid(&self, pid: u32);

    /// Which file is locked.
    fn status(&self) -> io::Result<Status>;

    /// Tries once, without waiting, to have the same file's lock in this mode: again after
    /// [`DirLock::release`], or in place of the mode it is held in. Refused, it is held no more, as
    /// flock has it.
    fn relock(&self, mode: LockMode) -> io::Result<bool>;

    /// Gives the lock back and keeps the file, to take it again.
    fn release(&self) -> io::Result<()>;
}

/// A directory that holds one log.
pub trait Dir: Send + Sync + Debug {
    /// For messages only.
    fn path(&self) -> &Path;

    /// Where it is, from the root on, wherever the process works by now.
    fn absolute(&self) -> &Path;

    /// Who may change the directory, and what kind of file system holds it.
    fn standing(&self) -> io::Result<Standing>;

    /// Makes the directory (mode 0700) if it is absent. `Ok` says nothing about durability.
    fn make(&self) -> io::Result<()>;

    /// Syncs the directory that contains this one.
    fn sync_parent(&self, point: SyncPoint) -> io::Result<()>;

    /// The names in it, in no order. `NotFound` and `NotADirectory` as the system says them.
    fn list(&self) -> io::Result<Vec<DirEntry>>;

    /// Creates a file (mode 0600) that must not exist.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens an existing regular file; never follows a symbolic link, never waits on a FIFO.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>>;

    /// Gives a file a second name that must not exist.
    fn hard_link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file of another directory, which is at this [`Dir::absolute`], a name here that must not
    /// exist. `CrossesDevices` where no file can have names in both. A path says nothing of whose it
    /// is: who needs that very file compares the [`Status`] of both afterwards.
    fn hard_link_from(&self, dir: &Path, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file another name in one step; what had that name has it no more.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every name change so far durable.
    fn sync(&self, point: SyncPoint) -> io::Result<()>;

    /// Tries the lock on the named file, once, without waiting. `create` makes the file if it is
    /// absent; without it an absent file is `NotFound`. `None`: someone else holds it.
    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>>;

    /// Which file stands behind a name now, without opening it.
    fn identity(&self, name: &str) -> io::Result<Identity>;

    /// What stands behind a name now, a symbolic link not followed.
    fn status(&self, name: &str) -> io::Result<Status>;

    /// Fills `out` with random bytes.
    fn random(&self, out: &mut [u8]) -> io::Result<()>;

    /// Unix time in milliseconds: written for people, never decided by.
    fn now_ms(&self) -> u64;

    /// Whether the log may use a thread of its own here besides its callers'. A directory for tests
    /// may say no, so that the operations of one caller have one order.
    fn has_background(&self) -> bool;

    /// Time since some moment in the past that stays the same; never goes back. For how long
    /// somebody is patient, and for nothing that anybody is told.
    fn elapsed(&self) -> Duration;

    /// This process.
    fn pid(&self) -> u32;
}

/// An open file.
pub trait File: Send + Sync + Debug {
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at an offset; fewer bytes than asked for is no error, 0 is the end of the file.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset, extending the file if needed; returns how many bytes were written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Takes space for the bytes between two offsets beyond what was written, which then read as
    /// zeros; extends the file to the second. Whoever knows nothing better writes the zeros.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        write_zeros(self, from, to)
    }

    /// Makes bytes and size durable. After an error the content on disk is not known and a
    /// second call proves nothing: never call it again for the same bytes.
    fn sync_data(&self, point: SyncPoint) -> io::Result<()>;

    /// Which file this is.
    fn identity(&self) -> io::Result<Identity>;

    /// Which file this is on this machine, whose, and by how many names.
    fn status(&self) -> io::Result<Status>;

    /// Its first `len` bytes as a map, `None` where there are none. `whole`: all of it will be read,
    /// in order.
    fn map(&self, len: u64, whole: bool) -> io::Result<Option<Map>> {
        let _ = (len, whole);
        Ok(None)
    }
}

/// Reads until `out` is full or the file ends; returns how many bytes were read. A short read is
/// not an end (google/leveldb#1285 lost a tail that way).
///
/// # Errors
/// As [`File::read_at`]; `EINTR` is asked again.
pub fn read_full(file: &dyn File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) if mutant::is("read:short-is-the-end") => return Ok(done + n),
            Ok(n) => done += n,
            Err(e) if mutant::is("read:interrupted-fails") => return Err(e),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// No call of the system writes more than 2 GiB (less a page); what is longer is written in such
/// pieces.
const WRITE_MAX: usize = 1 << 30;

/// One write of all the bytes, or of pieces of 1 GiB. A short write is an error and is not
/// completed: what reached the file is unknown to the caller's bookkeeping (tikv/raft-engine's
/// fractured write). `EINTR` has written nothing and is asked again.
///
/// # Errors
/// As [`File::write_at`], and `WriteZero` for a short write.
pub fn write_once(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    if bytes.len() <= WRITE_MAX {
        return write_piece(file, bytes, offset);
    }
    let mut pieces = (offset..).step_by(WRITE_MAX).zip(bytes.chunks(WRITE_MAX));
    pieces.try_for_each(|(at, piece)| write_piece(file, piece, at))
}

fn write_piece(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    loop {
        match file.write_at(bytes, offset) {
            Ok(n) if n == bytes.len() || mutant::is("write:short-is-whole") => return Ok(()),
            Ok(n) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    format!("short write: {n} of {} bytes", bytes.len()),
                ));
            }
            Err(e) if mutant::is("write:interrupted-fails") => return Err(e),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes zeros from `from` to `to` in chunks. Short writes go on: nothing has promised these
/// bytes yet, and the sync that follows covers them all.
pub(crate) fn write_zeros(file: &(impl File + ?Sized), from: u64, to: u64) -> io::Result<()> {
    const CHUNK: usize = 256 << 10;
    let zeros = vec![0; CHUNK.min(to.saturating_sub(from) as usize)];
    let mut at = from;
    while at < to {
        let len = zeros.len().min((to - at) as usize);
        match file.write_at(&zeros[..len], at) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(n) => at += n as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
