//! A directory in memory that can crash: it keeps what was synced and any subset of the rest, file
//! names included. Feature `testing`.
//!
//! Never here: mercy. Data is durable per 512-byte sector, names only after a directory sync, the
//! directory itself only after a sync of its parent; a crash may keep any written version of an
//! un-synced sector and any un-synced name change. Invariants: deterministic for a seed; every
//! changing operation is counted, so that a crash after operation i is exhaustive.
//! Hooks leave out one named sync, fail one operation, or ignore rewrites of the same bytes: with
//! them a test shows that each sync and each rewrite was needed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Access, Dir, DirEntry, DirLock, File, FileSystem, Identity, LockMode, Standing, Status,
    SyncPoint,
};

const SECTOR: usize = 512;
/// The user that owns all of it.
const OWNER: u32 = 1000;

/// What a crash keeps of the bytes and names that no sync covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing: the disk as of the last syncs.
    Nothing,
    /// Everything: as after a `kill -9`.
    Everything,
    /// Any subset, drawn from this seed.
    Some(u64),
}

/// What a failed sync leaves behind (Rebello et al., ATC'20: no two file systems agree).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncFailure {
    /// The pages are marked clean and show the new bytes; the disk has the old ones.
    CleanNew,
    /// The pages are marked clean and show the old bytes again.
    CleanOld,
}

/// A crashable directory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemDir {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

#[derive(Clone, Debug)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<(String, Option<u64>)>,
    made: bool,
    made_durable: bool,
    /// By inode, as flock has it: a lock file that lost its name is another file than the next.
    locks: BTreeMap<u64, Held>,
    standing: Standing,
    pid: u32,
    random: u64,
    clock_ms: u64,
    ops: u64,
    stop_after: Option<u64>,
    fail_op: Option<(u64, i32)>,
    fail_sync: Option<(SyncPoint, u64, SyncFailure)>,
    left_out: Option<SyncPoint>,
    ignore_same_bytes: bool,
    bytes_free: Option<u64>,
    seen: BTreeMap<SyncPoint, u64>,
    trace: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Exclusive,
    Shared(u32),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What a reader sees. Shared between clones of the disk until one of them writes: sweeps make
    /// tens of thousands of clones.
    cached: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Every image that a sector has had since the last sync.
    dirty: BTreeMap<usize, Vec<Arc<[u8]>>>,
}

impl MemDir {
    /// A directory that does not exist yet, its randomness drawn from `seed`.
    pub fn new(seed: u64) -> MemDir {
        MemDir::with(Disk {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            made: false,
            made_durable: false,
            locks: BTreeMap::new(),
            standing: Standing {
                mode: 0o700,
                owner: OWNER,
                user: OWNER,
                file_system: FileSystem::Local,
            },
            pid: 4242,
            random: seed,
            clock_ms: 1_000,
            ops: 0,
            stop_after: None,
            fail_op: None,
            fail_sync: None,
            left_out: None,
            ignore_same_bytes: false,
            bytes_free: None,
            seen: BTreeMap::new(),
            trace: Vec::new(),
        })
    }

    fn with(disk: Disk) -> MemDir {
        MemDir { disk: Arc::new(Mutex::new(disk)), path: PathBuf::from("/memory/log") }
    }

    /// This directory behind the seam.
    pub fn dir(&self) -> Arc<dyn Dir> {
        Arc::new(self.clone())
    }

    /// What a machine finds after a crash now. This directory goes on unharmed; its locks and
    /// hooks are not carried over, except those that leave syncs or rewrites out.
    pub fn crash(&self, keep: Keep) -> MemDir {
        let mut disk = self.lock().clone();
        disk.crash(keep);
        MemDir::with(disk)
    }

    /// What the next process finds after this one was killed: the machine goes on, so the cache is
    /// whole and nothing became durable that was not.
    pub fn killed(&self) -> MemDir {
        let mut disk = self.lock().clone();
        disk.forget_process();
        MemDir::with(disk)
    }

    /// A copy made by `cp`: the same names and bytes in other files, all of it durable.
    pub fn copied(&self) -> MemDir {
        let mut disk = self.lock().clone();
        disk.crash(Keep::Everything);
        let shift = 1_000 + disk.inodes.keys().max().copied().unwrap_or(0);
        disk.inodes = disk.inodes.into_iter().map(|(ino, inode)| (ino + shift, inode)).collect();
        for ino in disk.names.values_mut().chain(disk.durable_names.values_mut()) {
            *ino += shift;
        }
        MemDir::with(disk)
    }

    /// Changing operations so far.
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// From the operation after the `ops`-th on, everything fails: the machine has stopped.
    pub fn stop_after(&self, ops: u64) {
        self.lock().stop_after = Some(ops);
    }

    /// Whether the machine has stopped.
    pub fn stopped(&self) -> bool {
        let disk = self.lock();
        disk.stop_after.is_some_and(|limit| disk.ops >= limit)
    }

    /// Fails the `op`-th changing operation from the start, once, with this system error number.
    pub fn fail_op(&self, op: u64, errno: i32) {
        self.lock().fail_op = Some((op, errno));
    }

    /// Fails the `nth` (from 0) coming file sync at this point with EIO, once.
    pub fn fail_sync(&self, point: SyncPoint, nth: u64, how: SyncFailure) {
        let mut disk = self.lock();
        let seen = disk.seen.get(&point).copied().unwrap_or(0);
        disk.fail_sync = Some((point, seen + nth, how));
    }

    /// Leaves out every sync at this point: it returns success and does nothing.
    pub fn leave_out(&self, point: Option<SyncPoint>) {
        self.lock().left_out = point;
    }

    /// Ignores writes of the bytes that a clean sector already shows: a rewrite then does nothing,
    /// as if its code were not there.
    pub fn ignore_rewrites(&self, yes: bool) {
        self.lock().ignore_same_bytes = yes;
    }

    /// How many more bytes files can grow before the disk is full; `None` is no limit.
    pub fn set_bytes_free(&self, bytes: Option<u64>) {
        self.lock().bytes_free = bytes;
    }

    /// How often each sync point was reached.
    pub fn syncs_seen(&self) -> BTreeMap<SyncPoint, u64> {
        self.lock().seen.clone()
    }

    /// The changing operations so far, one line each, without payload bytes.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// The bytes of a file as a reader sees them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.lock();
        disk.names.get(name).and_then(|ino| disk.inodes.get(ino)).map(|i| i.cached.to_vec())
    }

    /// Replaces a file's bytes, durable at once, in the same inode: damage.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.lock();
        if let Some(ino) = disk.names.get(name).copied() {
            let bytes = Arc::new(bytes);
            disk.inodes
                .insert(ino, Inode { cached: bytes.clone(), durable: bytes, ..Inode::default() });
        }
    }

    /// Removes a name, durable at once: damage.
    pub fn lose(&self, name: &str) {
        let mut disk = self.lock();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }

    /// Puts a copy of a file in its place, durable at once: same bytes, another inode.
    pub fn replace(&self, name: &str) {
        let mut disk = self.lock();
        let copy = disk.names.get(name).and_then(|ino| disk.inodes.get(ino)).cloned();
        let Some(copy) = copy else { return };
        let ino = disk.inodes.keys().max().map_or(1, |max| max + 1);
        disk.inodes.insert(ino, copy);
        disk.names.insert(name.to_owned(), ino);
        disk.durable_names.insert(name.to_owned(), ino);
    }

    /// Says who may change the directory and what holds it.
    pub fn set_standing(&self, standing: Standing) {
        self.lock().standing = standing;
    }

    /// Which process asks from now on: another number is a child made by fork.
    pub fn set_pid(&self, pid: u32) {
        self.lock().pid = pid;
    }

    /// The names a reader sees.
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Counts a changing operation; fails it if a hook says so.
    fn op(&mut self, what: impl FnOnce() -> String) -> io::Result<()> {
        if self.stop_after.is_some_and(|limit| self.ops >= limit) {
            return Err(io::Error::other("the machine has stopped"));
        }
        let index = self.ops;
        self.ops += 1;
        self.trace.push(what());
        match self.fail_op {
            Some((op, errno)) if op == index => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    /// Counts a sync; tells whether it is to do its work, or fails it.
    fn sync_op(&mut self, point: SyncPoint, name: &str) -> io::Result<bool> {
        self.op(|| format!("sync {name} ({point:?})"))?;
        *self.seen.entry(point).or_default() += 1;
        Ok(self.left_out != Some(point))
    }

    fn take_sync_failure(&mut self, point: SyncPoint) -> Option<SyncFailure> {
        let seen = self.seen.get(&point).copied().unwrap_or(0);
        let (_, _, how) =
            self.fail_sync.take_if(|(at, nth, _)| *at == point && *nth + 1 == seen)?;
        Some(how)
    }

    fn named(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn set_name(&mut self, name: &str, ino: Option<u64>) {
        match ino {
            Some(ino) => self.names.insert(name.to_owned(), ino),
            None => self.names.remove(name),
        };
        self.name_changes.push((name.to_owned(), ino));
    }

    /// The space of a file that lost its last name.
    fn give_back(&mut self, ino: u64) {
        if !self.names.values().any(|other| *other == ino) {
            let len = self.inodes.get(&ino).map_or(0, |inode| inode.cached.len() as u64);
            self.bytes_free = self.bytes_free.map(|free| free.saturating_add(len));
        }
    }

    fn status(&self, ino: u64) -> Status {
        let links = self.names.values().filter(|other| **other == ino).count() as u64;
        Status { device: 1, inode: ino, links, owner: OWNER }
    }

    fn random(&mut self) -> u64 {
        next_random(&mut self.random)
    }

    fn crash(&mut self, keep: Keep) {
        let mut seed = match keep {
            Keep::Some(seed) => seed,
            _ => 0,
        };
        let mut kept = || match keep {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Some(_) => next_random(&mut seed) & 1 == 1,
        };
        if !self.made_durable && !kept() {
            self.made = false;
            self.names.clear();
            self.durable_names.clear();
            self.name_changes.clear();
        }
        for (name, ino) in std::mem::take(&mut self.name_changes) {
            if kept() {
                match ino {
                    Some(ino) => self.durable_names.insert(name, ino),
                    None => self.durable_names.remove(&name),
                };
            }
        }
        self.names = self.durable_names.clone();
        self.made_durable = self.made;
        for inode in self.inodes.values_mut() {
            inode.crash(keep, &mut seed);
        }
        self.forget_process();
    }

    fn forget_process(&mut self) {
        self.locks.clear();
        self.stop_after = None;
        self.fail_op = None;
        self.fail_sync = None;
        self.ops = 0;
        self.trace.clear();
        self.seen.clear();
    }
}

impl Inode {
    fn crash(&mut self, keep: Keep, seed: &mut u64) {
        match keep {
            Keep::Nothing => self.cached = self.durable.clone(),
            Keep::Everything => {}
            Keep::Some(_) => self.keep_some(seed),
        }
        self.durable = self.cached.clone();
        self.dirty.clear();
    }

    /// Any size between the durable and the cached one, and for every sector any of its images.
    fn keep_some(&mut self, seed: &mut u64) {
        let (old, new) = (self.durable.len(), self.cached.len());
        let len = match next_random(seed) % 3 {
            0 => old,
            1 => new,
            _ => old + (new - old.min(new)) / 2,
        };
        if self.dirty.is_empty() && old == new {
            // Nothing un-synced: what a failed sync left in the cache alone is gone.
            self.cached = self.durable.clone();
            return;
        }
        let mut bytes = self.durable.to_vec();
        bytes.resize(new.max(old), 0);
        for (sector, images) in &self.dirty {
            let pick = next_random(seed) as usize % (images.len() + 1);
            if let Some(image) = images.get(pick) {
                let start = sector * SECTOR;
                let end = (start + image.len()).min(bytes.len());
                bytes[start..end].copy_from_slice(&image[..end - start]);
            }
        }
        bytes.truncate(len);
        self.cached = Arc::new(bytes);
    }

    fn write(&mut self, bytes: &[u8], offset: usize, ignore_same: bool) {
        let end = offset + bytes.len();
        let cached = Arc::make_mut(&mut self.cached);
        if cached.len() < end {
            cached.resize(end, 0);
        }
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let from = (sector * SECTOR).max(offset);
            let to = ((sector + 1) * SECTOR).min(end);
            let new = &bytes[from - offset..to - offset];
            let same = cached[from..to] == *new;
            if ignore_same && same && !self.dirty.contains_key(&sector) {
                continue;
            }
            cached[from..to].copy_from_slice(new);
            let whole = sector * SECTOR..((sector + 1) * SECTOR).min(cached.len());
            self.dirty.entry(sector).or_default().push(cached[whole].into());
        }
    }

    fn sync(&mut self) {
        // Only what is dirty reaches the disk: a page that a failed sync has marked clean stays
        // as it is there, whatever the cache shows.
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(self.cached.len(), 0);
        for sector in self.dirty.keys() {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.cached.len());
            durable[range.clone()].copy_from_slice(&self.cached[range]);
        }
        self.dirty.clear();
    }

    fn fail_sync(&mut self, how: SyncFailure) {
        if how == SyncFailure::CleanOld {
            let len = self.cached.len();
            let mut old = self.durable.to_vec();
            old.resize(len, 0);
            self.cached = Arc::new(old);
        }
        self.dirty.clear();
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): enough for tests, the same everywhere.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn identity(ino: u64) -> Identity {
    Identity { inode: ino, born_ns: 1_000_000 + ino }
}

impl Dir for MemDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn standing(&self) -> io::Result<Standing> {
        let disk = self.lock();
        if disk.made { Ok(disk.standing) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn make(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.made {
            return Ok(());
        }
        disk.op(|| "mkdir".to_owned())?;
        disk.made = true;
        Ok(())
    }

    fn sync_parent(&self, point: SyncPoint) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.sync_op(point, "..")? {
            disk.made_durable = disk.made;
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        let disk = self.lock();
        if !disk.made {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(disk.names.keys().map(|name| DirEntry { name: name.clone(), regular: true }).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut disk = self.lock();
        disk.op(|| format!("create {name}"))?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = disk.inodes.keys().max().map_or(1, |max| max + 1);
        disk.inodes.insert(ino, Inode::default());
        disk.set_name(name, Some(ino));
        Ok(Arc::new(MemFile { disk: self.disk.clone(), ino, name: name.to_owned(), write: true }))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let ino = self.lock().named(name)?;
        let write = access == Access::Write;
        Ok(Arc::new(MemFile { disk: self.disk.clone(), ino, name: name.to_owned(), write }))
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.op(|| format!("link {from} {to}"))?;
        let ino = disk.named(from)?;
        if disk.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.set_name(to, Some(ino));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        disk.named(name)?;
        disk.op(|| format!("remove {name}"))?;
        let ino = disk.named(name)?;
        disk.set_name(name, None);
        disk.give_back(ino);
        Ok(())
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.sync_op(point, ".")? {
            disk.durable_names = disk.names.clone();
            disk.name_changes.clear();
        }
        Ok(())
    }

    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        let exists = self.lock().names.contains_key(name);
        if !exists && create {
            self.create(name)?;
        }
        let mut disk = self.lock();
        let ino = disk.named(name)?;
        let held = match (disk.locks.get(&ino), mode) {
            (None, LockMode::Exclusive) => Held::Exclusive,
            (None, LockMode::Shared) => Held::Shared(1),
            (Some(Held::Shared(n)), LockMode::Shared) => Held::Shared(n + 1),
            _ => return Ok(None),
        };
        disk.locks.insert(ino, held);
        let pid = disk.pid;
        Ok(Some(Box::new(MemLock { disk: self.disk.clone(), ino, pid })))
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.lock().named(name).map(identity)
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        let disk = self.lock();
        disk.named(name).map(|ino| disk.status(ino))
    }

    fn random(&self, out: &mut [u8]) -> io::Result<()> {
        let mut disk = self.lock();
        for byte in out {
            *byte = disk.random() as u8;
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        let mut disk = self.lock();
        disk.clock_ms += 1;
        disk.clock_ms
    }

    fn pid(&self) -> u32 {
        self.lock().pid
    }
}

#[derive(Debug)]
struct MemFile {
    disk: Arc<Mutex<Disk>>,
    ino: u64,
    name: String,
    write: bool,
}

impl MemFile {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for MemFile {
    fn len(&self) -> io::Result<u64> {
        let disk = self.lock();
        Ok(disk.inodes.get(&self.ino).map_or(0, |inode| inode.cached.len() as u64))
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.lock();
        let bytes = disk.inodes.get(&self.ino).map_or(&[][..], |inode| inode.cached.as_slice());
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.lock();
        if !self.write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        disk.op(|| format!("write {} {offset}+{}", self.name, bytes.len()))?;
        let ignore = disk.ignore_same_bytes;
        let len = disk.inodes.get(&self.ino).map_or(0, |inode| inode.cached.len() as u64);
        let grows = (offset + bytes.len() as u64).saturating_sub(len);
        if let Some(free) = disk.bytes_free.as_mut() {
            *free = free.checked_sub(grows).ok_or_else(|| io::Error::from_raw_os_error(28))?;
        }
        if let Some(inode) = disk.inodes.get_mut(&self.ino) {
            inode.write(bytes, offset as usize, ignore);
        }
        Ok(bytes.len())
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        let mut disk = self.lock();
        let works = disk.sync_op(point, &self.name)?;
        let failure = disk.take_sync_failure(point);
        let Some(inode) = disk.inodes.get_mut(&self.ino) else { return Ok(()) };
        if let Some(how) = failure {
            inode.fail_sync(how);
            return Err(io::Error::from_raw_os_error(5));
        }
        if works {
            inode.sync();
        }
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(identity(self.ino))
    }

    fn status(&self) -> io::Result<Status> {
        Ok(self.lock().status(self.ino))
    }
}

#[derive(Debug)]
struct MemLock {
    disk: Arc<Mutex<Disk>>,
    ino: u64,
    /// Who took it: a child's copy ends without unlocking.
    pid: u32,
}

impl DirLock for MemLock {
    fn write_pid(&self, pid: u32) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inode) = disk.inodes.get_mut(&self.ino) {
            inode.write(format!("{pid:<20}\n").as_bytes(), 0, false);
        }
    }

    fn status(&self) -> io::Result<Status> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(disk.status(self.ino))
    }
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.pid != self.pid {
            return;
        }
        match disk.locks.get(&self.ino).copied() {
            Some(Held::Shared(n)) if n > 1 => {
                disk.locks.insert(self.ino, Held::Shared(n - 1));
            }
            _ => {
                disk.locks.remove(&self.ino);
            }
        }
    }
}
