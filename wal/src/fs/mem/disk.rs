//! The machine behind the crashable directory: names, inodes, space, and the count of operations.
//!
//! Never here: the traits of the seam ([`super`], [`super::file`]), what is inside a file
//! ([`super::inode`]). Invariants: every changing operation is counted and traced before it
//! happens; names are durable only after a directory sync, each change kept or lost for itself;
//! the directory only after a sync of its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use super::super::{LockMode, Standing, Status, SyncPoint};
use super::fault::{Fault, Faults, SyncFailure};
use super::inode::{Inode, SECTOR};
use super::keep::Chooser;
use super::{OWNER, next_random};
use crate::mutant;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    /// Inode numbers are never used twice, also not after a crash.
    pub(super) last_inode: u64,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) name_changes: Vec<(String, Option<u64>)>,
    /// By what its names begin with here: nothing for the log's own directory.
    pub(super) dirs: BTreeMap<String, Made>,
    /// By inode, as flock has it: a lock file that lost its name is another file than the next.
    pub(super) locks: Vec<Held>,
    pub(super) last_lock: u64,
    pub(super) standing: Option<Standing>,
    pub(super) pid: u32,
    /// By its seed: two disks are two devices, and what becomes of one stays it.
    pub(super) device: u64,
    pub(super) random: u64,
    pub(super) clock_ms: u64,
    /// What the clock shows, and how far a question and a sync move it.
    pub(super) elapsed: Duration,
    pub(super) tick: Duration,
    pub(super) sync_ticks: Duration,
    pub(super) background: bool,
    pub(super) ops: u64,
    pub(super) stop_after: Option<u64>,
    pub(super) faults: Faults,
    pub(super) left_out: Option<SyncPoint>,
    pub(super) ignore_same_bytes: bool,
    /// Whether a crash may tear a sector inside.
    pub(super) tear_sectors: bool,
    pub(super) bytes_free: Option<u64>,
    /// Whether an overwrite takes new space until it is synced, as on btrfs.
    pub(super) copy_on_write: bool,
    pub(super) sync_takes: Duration,
    pub(super) seen: BTreeMap<SyncPoint, u64>,
    pub(super) trace: Vec<String>,
}

/// Whether a directory was made, and whether its own name is durable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    pub(super) made: bool,
    pub(super) durable: bool,
}

/// Whether a name is one of this directory's.
pub(super) fn is_in(room: &str, name: &str) -> bool {
    name.strip_prefix(room).is_some_and(|name| !name.contains('/'))
}

/// A lock that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) ino: u64,
    pub(super) mode: LockMode,
    /// By which descriptor, and whose that is.
    pub(super) lock: u64,
    pub(super) process: u64,
}

/// What is to become of a write.
pub(super) enum WriteFate {
    Whole,
    Prefix(usize),
}

impl Disk {
    pub(super) fn new(seed: u64, standing: Standing) -> Disk {
        let standing = Some(standing);
        let tick = Duration::from_micros(1);
        let dirs = BTreeMap::from([(String::new(), Made::default())]);
        Disk {
            random: seed,
            device: seed,
            clock_ms: 1_000,
            pid: 4242,
            dirs,
            standing,
            tick,
            ..Disk::default()
        }
    }

    /// Counts a changing operation that is neither a write nor a sync of a file; fails it if a
    /// fault says so.
    pub(super) fn op(&mut self, what: impl FnOnce() -> String) -> io::Result<()> {
        match self.count(what)? {
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Sync(_)) => Err(io::Error::from_raw_os_error(EIO)),
            _ => Ok(()),
        }
    }

    /// Counts a write of `len` bytes; says how much of it is to be stored.
    pub(super) fn write_op(
        &mut self,
        len: usize,
        what: impl FnOnce() -> String,
    ) -> io::Result<WriteFate> {
        match self.count(what)? {
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Sync(_)) => Err(io::Error::from_raw_os_error(EIO)),
            Some(Fault::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Short(mut seed)) => {
                let short = if len == 0 { 0 } else { next_random(&mut seed) as usize % len };
                Ok(WriteFate::Prefix(short))
            }
            Some(Fault::Writeback(_)) | None => Ok(WriteFate::Whole),
        }
    }

    /// Counts a sync of a file: whether it is to do its work, or how it is to fail.
    pub(super) fn file_sync_op(
        &mut self,
        point: SyncPoint,
        name: &str,
    ) -> io::Result<Result<bool, SyncFailure>> {
        let fault = self.count(|| format!("sync {name} ({point:?})"))?;
        self.elapsed += self.sync_ticks;
        let nth = self.saw(point);
        if let Some(how) = self.faults.take_sync(point, nth) {
            return Ok(Err(how));
        }
        Ok(match fault {
            Some(Fault::Error(_)) => Err(SyncFailure::CleanNew),
            Some(Fault::Sync(how)) => Err(how),
            _ => Ok(self.works(point)),
        })
    }

    /// Counts a sync of a directory; tells whether it is to do its work, or fails it.
    pub(super) fn dir_sync_op(&mut self, point: SyncPoint, name: &str) -> io::Result<bool> {
        self.op(|| format!("sync {name} ({point:?})"))?;
        let nth = self.saw(point);
        match self.faults.take_sync(point, nth) {
            Some(_) => Err(io::Error::from_raw_os_error(EIO)),
            None => Ok(self.works(point)),
        }
    }

    /// Whether syncs at this point do anything.
    fn works(&self, point: SyncPoint) -> bool {
        self.left_out != Some(point) && !mutant::is_one_of("sync", &point)
    }

    fn saw(&mut self, point: SyncPoint) -> u64 {
        let seen = self.seen.entry(point).or_default();
        *seen += 1;
        *seen - 1
    }

    fn count(&mut self, what: impl FnOnce() -> String) -> io::Result<Option<Fault>> {
        if self.stop_after.is_some_and(|limit| self.ops >= limit) {
            return Err(io::Error::other("the machine has stopped"));
        }
        let index = self.ops;
        self.ops += 1;
        self.trace.push(what());
        let fault = self.faults.take(index);
        if let Some(Fault::Writeback(how)) = fault {
            self.inodes.values_mut().filter(|inode| inode.is_dirty()).for_each(|i| i.fail(how));
        }
        Ok(fault)
    }

    /// Gives a descriptor the lock if no other's is in the way. What it held of it is gone either way.
    pub(super) fn flock(&mut self, want: Held) -> bool {
        self.locks.retain(|held| held.lock != want.lock);
        let alone = |held: &Held| [held.mode, want.mode].contains(&LockMode::Exclusive);
        let mut others = self.locks.iter().filter(|held| held.ino == want.ino);
        if others.any(alone) && !mutant::is("lock:nobody-is-refused") {
            return false;
        }
        self.locks.push(want);
        true
    }

    pub(super) fn dir(&self, room: &str) -> Made {
        self.dirs.get(room).copied().unwrap_or_default()
    }

    /// No file is made in a directory that is not there.
    pub(super) fn check_made(&self, room: &str) -> io::Result<()> {
        if self.dir(room).made { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Makes the name changes of one directory durable.
    pub(super) fn sync_names(&mut self, room: &str) {
        self.durable_names.retain(|name, _| !is_in(room, name));
        let names = self.names.iter().filter(|(name, _)| is_in(room, name));
        self.durable_names.extend(names.map(|(name, ino)| (name.clone(), *ino)));
        self.name_changes.retain(|(name, _)| !is_in(room, name));
    }

    pub(super) fn named(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn set_name(&mut self, name: &str, ino: Option<u64>) {
        match ino {
            Some(ino) => self.names.insert(name.to_owned(), ino),
            None => self.names.remove(name),
        };
        self.name_changes.push((name.to_owned(), ino));
    }

    /// Takes the space that a write needs, or says that there is none.
    pub(super) fn take_space(&mut self, ino: u64, at: u64, len: usize) -> io::Result<()> {
        let Some(free) = self.bytes_free else { return Ok(()) };
        let Some(inode) = self.inodes.get(&ino) else { return Ok(()) };
        let grows = (at + len as u64).saturating_sub(inode.cached.len() as u64);
        let needed = if self.copy_on_write {
            inode.newly_dirty(at as usize, len) * SECTOR as u64
        } else {
            grows
        };
        let left = free.checked_sub(needed);
        self.bytes_free = Some(left.ok_or_else(|| io::Error::from_raw_os_error(ENOSPC))?);
        Ok(())
    }

    /// Copy on write: what a sync has replaced is free again.
    pub(super) fn space_after_sync(&mut self, ino: u64) {
        let Some(inode) = self.inodes.get(&ino).filter(|_| self.copy_on_write) else { return };
        let old = inode.durable.len() / SECTOR;
        let replaced = inode.dirty_sectors().into_iter().filter(|sector| *sector < old).count();
        self.bytes_free = self.bytes_free.map(|free| free + (replaced * SECTOR) as u64);
    }

    /// The space of a file that lost its last name.
    pub(super) fn give_back(&mut self, ino: u64) {
        if !self.names.values().any(|other| *other == ino) {
            let len = self.inodes.get(&ino).map_or(0, |inode| inode.cached.len() as u64);
            self.bytes_free = self.bytes_free.map(|free| free.saturating_add(len));
        }
    }

    pub(super) fn status(&self, ino: u64) -> Status {
        let links = self.names.values().filter(|other| **other == ino).count() as u64;
        Status { device: self.device, inode: ino, links, owner: OWNER }
    }

    pub(super) fn state_hash(&self) -> u64 {
        let mut hash = StateHash(0);
        for (room, made) in &self.dirs {
            hash.bytes(room.as_bytes());
            hash.number(u64::from(made.made) | u64::from(made.durable) << 1);
        }
        for (name, ino) in self.names.iter().chain(&self.durable_names) {
            hash.bytes(name.as_bytes());
            hash.number(*ino);
        }
        for (name, ino) in &self.name_changes {
            hash.bytes(name.as_bytes());
            hash.number(ino.unwrap_or(0));
        }
        for (ino, inode) in &self.inodes {
            hash.number(*ino);
            inode.hash(&mut hash);
        }
        hash.number(self.bytes_free.unwrap_or(u64::MAX));
        hash.0
    }

    pub(super) fn random(&mut self) -> u64 {
        next_random(&mut self.random)
    }

    pub(super) fn crash(&mut self, chooser: &mut Chooser) {
        for (room, dir) in self.dirs.iter_mut().filter(|(_, dir)| dir.made) {
            if !dir.durable && !chooser.keeps_name() {
                dir.made = false;
                self.durable_names.retain(|name, _| !is_in(room, name));
                self.name_changes.retain(|(name, _)| !is_in(room, name));
            }
            dir.durable = dir.made;
        }
        for (name, ino) in std::mem::take(&mut self.name_changes) {
            if chooser.keeps_name() {
                match ino {
                    Some(ino) => self.durable_names.insert(name, ino),
                    None => self.durable_names.remove(&name),
                };
            }
        }
        self.names = self.durable_names.clone();
        for inode in self.inodes.values_mut() {
            inode.crash(chooser, self.tear_sectors);
        }
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|ino, _| named.contains(ino));
        self.forget_process();
    }

    /// Locks, faults and counts belong to a process, or to the test that watches it.
    pub(super) fn forget_process(&mut self) {
        self.locks.clear();
        self.stop_after = None;
        self.faults = Faults::default();
        self.ops = 0;
        self.trace.clear();
        self.seen.clear();
    }
}

/// Not cryptographic, and fast: four lanes of eight bytes a step.
pub(super) struct StateHash(u64);

const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

impl StateHash {
    pub(super) fn number(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(23) ^ number).wrapping_mul(ODD);
        self.0 = mixed ^ (mixed >> 29);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let mut lanes = [1, 2, 3, 4];
        let (words, rest) = bytes.as_chunks::<8>();
        let (steps, few) = words.as_chunks::<4>();
        for step in steps {
            for (lane, word) in lanes.iter_mut().zip(step) {
                *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(ODD).rotate_left(29);
            }
        }
        lanes.into_iter().for_each(|lane| self.number(lane));
        few.iter().for_each(|word| self.number(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.number(u64::from(*byte)));
    }
}
