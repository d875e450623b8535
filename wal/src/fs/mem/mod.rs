//! A directory in memory that can crash and fail: it keeps what was synced and any subset of the
//! rest, file names included. Feature `testing`.
//!
//! Never here: mercy. Data is durable per 512-byte sector, names only after a directory sync, the
//! directory itself only after a sync of its parent; a crash may keep any written version of an
//! un-synced sector and any un-synced name change. Invariants: deterministic for a seed; every
//! changing operation is counted, so that a crash or an error at operation i is exhaustive.
//! `tests/seam.rs` holds it to the same contract as the real one, and to what real file systems
//! were seen to do. Rooms: [`fault`], [`keep`], [`disk`],
//! [`inode`], [`file`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Access, Dir, DirEntry, DirLock, File, FileSystem, Identity, LockMode, Standing, Status,
    SyncPoint,
};
use crate::mutant;
use disk::Disk;
use file::{MemFile, MemLock};
use inode::Inode;
use keep::Chooser;
use process::Process;

mod disk;
mod fault;
mod file;
mod inode;
mod keep;
mod process;

pub use fault::{Fault, SyncFailure};
pub use keep::Keep;

/// The user that owns all of it.
const OWNER: u32 = 1000;

/// Above every directory of a disk.
const ROOT: &str = "/memory";
/// The directory that a disk begins with.
const LOG: &str = "log";

/// A crashable directory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemDir {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    /// What its names begin with on the disk.
    room: Arc<str>,
    process: Process,
}

impl MemDir {
    /// A directory that does not exist yet, its randomness drawn from `seed`.
    pub fn new(seed: u64) -> MemDir {
        let standing =
            Standing { mode: 0o700, owner: OWNER, user: OWNER, file_system: FileSystem::Local };
        MemDir::with(Disk::new(seed, standing))
    }

    fn with(disk: Disk) -> MemDir {
        let (path, room) = (Path::new(ROOT).join(LOG), "".into());
        MemDir { disk: Arc::new(Mutex::new(disk)), path, room, process: Process::default() }
    }

    /// Another directory of the same disk, which stops, fails and crashes with this one. It does not
    /// exist until somebody makes it; no sync of another directory makes its names durable, and no
    /// other one's parent is its own.
    ///
    /// # Panics
    /// For a name with a slash, and for the name of the directory that every disk begins with.
    pub fn beside(&self, name: &str) -> MemDir {
        assert!(!name.contains('/') && name != LOG, "{name} is no other directory");
        let room = format!("{name}/").into();
        MemDir { path: Path::new(ROOT).join(name), room, ..self.clone() }
    }

    /// A name as the disk has it.
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.room)
    }

    /// The same disk as another process of this machine sees it: with a number and locks of its own.
    pub fn as_process(&self, pid: u32) -> MemDir {
        MemDir { process: Process::new(pid), ..self.clone() }
    }

    /// Kills this process ([`MemDir::as_process`]): it changes nothing any more, and its locks are
    /// free. The others and the page cache go on.
    pub fn kill(&self) {
        self.process.die(&mut self.lock());
    }

    /// Kills this process just before its changing operation with this number, counted from 0.
    pub fn kill_at(&self, op: u64) {
        self.process.dies_at(op);
    }

    /// Changing operations of this process so far.
    pub fn process_ops(&self) -> u64 {
        self.process.ops()
    }

    /// Whether this process was killed.
    pub fn is_dead(&self) -> bool {
        self.process.is_dead()
    }

    /// This directory behind the seam.
    pub fn dir(&self) -> Arc<dyn Dir> {
        Arc::new(self.clone())
    }

    /// What a machine finds after a crash now. This directory goes on unharmed; its locks and
    /// hooks are not carried over, except those that leave syncs or rewrites out.
    pub fn crash(&self, keep: Keep) -> MemDir {
        let mut disk = self.state();
        disk.crash(&mut Chooser::of(keep));
        MemDir::with(disk)
    }

    /// How many outcomes a crash now could have, sectors whole; the largest number there is if
    /// they are more.
    pub fn crash_outcomes(&self) -> u64 {
        let mut disk = self.state();
        disk.tear_sectors = false;
        let mut chooser = Chooser::Count(1);
        disk.crash(&mut chooser);
        match chooser {
            Chooser::Count(count) => count,
            _ => 1,
        }
    }

    /// What the next process finds after this one was killed: the machine goes on, so the cache is
    /// whole and nothing became durable that was not.
    pub fn killed(&self) -> MemDir {
        let mut disk = self.state();
        disk.forget_process();
        MemDir::with(disk)
    }

    /// A copy made by `cp`: the same names and bytes in other files, all of it durable.
    pub fn copied(&self) -> MemDir {
        let mut disk = self.state();
        disk.crash(&mut Chooser::Everything);
        let shift = 1_000 + disk.last_inode;
        disk.last_inode += shift;
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

    /// Lets a fault befall the changing operation with this number, counted from 0, once.
    pub fn fault_at(&self, op: u64, fault: Fault) {
        self.lock().faults.arm(op, fault);
    }

    /// Fails the operation with this number with this system error number, once.
    pub fn fail_op(&self, op: u64, errno: i32) {
        self.fault_at(op, Fault::Error(errno));
    }

    /// Fails the `nth` (from 0) coming sync at this point with EIO, once.
    pub fn fail_sync(&self, point: SyncPoint, nth: u64, how: SyncFailure) {
        let mut disk = self.lock();
        let seen = disk.seen.get(&point).copied().unwrap_or(0);
        disk.faults.arm_sync(point, seen + nth, how);
    }

    /// Fails the `nth` (from 0) coming read with this system error number, once.
    pub fn fail_read(&self, nth: u64, errno: i32) {
        self.lock().faults.arm_read(nth, errno);
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.lock().faults.reads()
    }

    /// Reads deliver fewer bytes than asked for, at least one, and some fail with EINTR first.
    pub fn short_reads(&self, seed: Option<u64>) {
        self.lock().faults.shorten_reads(seed);
    }

    /// Disarms every fault.
    pub fn clear_faults(&self) {
        self.lock().faults = fault::Faults::default();
    }

    /// A crash may tear a sector inside, at any byte, and not only between sectors.
    pub fn tear_sectors(&self, yes: bool) {
        self.lock().tear_sectors = yes;
    }

    /// Overwrites take new space until they are synced, as on btrfs.
    pub fn copy_on_write(&self, yes: bool) {
        self.lock().copy_on_write = yes;
    }

    /// Every file sync takes this long, without the directory's lock.
    pub fn slow_syncs(&self, takes: Duration) {
        self.lock().sync_takes = takes;
    }

    /// Sets the wall clock ([`Dir::now_ms`]), back too. It moves on by a millisecond each time somebody
    /// asks.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.lock().clock_ms = now_ms;
    }

    /// How far the clock of [`Dir::elapsed`] moves: so far each time somebody asks (a microsecond
    /// unless set), and so far with each sync of a file (not at all unless set). Nobody sleeps.
    pub fn set_clock(&self, each_question: Duration, each_sync: Duration) {
        let mut disk = self.lock();
        disk.tick = each_question;
        disk.sync_ticks = each_sync;
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
        let ino = disk.names.get(&self.full(name));
        ino.and_then(|ino| disk.inodes.get(ino)).map(|i| i.cached.to_vec())
    }

    /// Replaces a file's bytes, durable at once, in the same inode: damage.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.lock();
        if let Some(ino) = disk.names.get(&self.full(name)).copied() {
            disk.inodes.insert(ino, Inode::durable(bytes));
        }
    }

    /// Removes a name, durable at once: damage.
    pub fn lose(&self, name: &str) {
        let mut disk = self.lock();
        disk.names.remove(&self.full(name));
        disk.durable_names.remove(&self.full(name));
    }

    /// Takes a name away from its file, durable at once; tells which file it was.
    pub fn take_name(&self, name: &str) -> Option<u64> {
        let mut disk = self.lock();
        disk.durable_names.remove(&self.full(name));
        disk.names.remove(&self.full(name))
    }

    /// Gives a file a name, durable at once: the one that [`MemDir::take_name`] took, say.
    pub fn give_name(&self, name: &str, inode: u64) {
        let mut disk = self.lock();
        disk.durable_names.insert(self.full(name), inode);
        disk.names.insert(self.full(name), inode);
    }

    /// Puts a copy of a file in its place, durable at once: same bytes, another inode.
    pub fn replace(&self, name: &str) {
        let mut disk = self.lock();
        let name = self.full(name);
        let copy = disk.names.get(&name).and_then(|ino| disk.inodes.get(ino)).cloned();
        let Some(copy) = copy else { return };
        disk.last_inode += 1;
        let ino = disk.last_inode;
        disk.inodes.insert(ino, copy);
        disk.names.insert(name.clone(), ino);
        disk.durable_names.insert(name, ino);
    }

    /// Says who may change the directory and what holds it.
    pub fn set_standing(&self, standing: Standing) {
        self.lock().standing = Some(standing);
    }

    /// Lets a log use its own threads here ([`Dir::has_background`]); without this, its callers'
    /// operations are all there are, in their order.
    pub fn set_background(&self, yes: bool) {
        self.lock().background = yes;
    }

    /// Which process asks from now on: another number is a child made by fork.
    pub fn set_pid(&self, pid: u32) {
        self.lock().pid = pid;
    }

    /// A number for everything that decides what can happen from here on: names and bytes, cached
    /// and durable. Two directories with equal numbers are the same for a sweep, which then looks
    /// at one of them only.
    pub fn state_hash(&self) -> u64 {
        self.lock().state_hash()
    }

    /// The names a reader sees.
    pub fn names(&self) -> Vec<String> {
        self.own_names(&self.lock()).map(str::to_owned).collect()
    }

    fn own_names<'d>(&'d self, disk: &'d Disk) -> impl Iterator<Item = &'d str> {
        let own = disk.names.keys().filter(|name| disk::is_in(&self.room, name));
        own.filter_map(|name| name.get(self.room.len()..))
    }

    /// A copy without the trace, which is long and nobody's who comes after.
    fn state(&self) -> Disk {
        let mut disk = self.lock();
        let trace = std::mem::take(&mut disk.trace);
        let copy = disk.clone();
        disk.trace = trace;
        copy
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
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
        disk.standing
            .filter(|_| disk.dir(&self.room).made)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn absolute(&self) -> &Path {
        &self.path
    }

    fn make(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.dir(&self.room).made {
            return Ok(());
        }
        self.process.changes(&mut disk)?;
        disk.op(|| format!("mkdir {}", self.room))?;
        disk.dirs.entry(self.room.to_string()).or_default().made = true;
        Ok(())
    }

    fn sync_parent(&self, point: SyncPoint) -> io::Result<()> {
        let mut disk = self.lock();
        self.process.changes(&mut disk)?;
        disk.check_made(&self.room)?;
        if disk.dir_sync_op(point, "..")?
            && let Some(dir) = disk.dirs.get_mut(&*self.room)
        {
            dir.durable = dir.made;
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        let disk = self.lock();
        if !disk.dir(&self.room).made {
            return Err(io::ErrorKind::NotFound.into());
        }
        let entry = |name: &str| DirEntry { name: name.to_owned(), regular: true };
        Ok(self.own_names(&disk).map(entry).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let name = &self.full(name);
        let mut disk = self.lock();
        self.process.changes(&mut disk)?;
        disk.op(|| format!("create {name}"))?;
        disk.check_made(&self.room)?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.last_inode += 1;
        let ino = disk.last_inode;
        disk.inodes.insert(ino, Inode::durable(Vec::new()));
        disk.set_name(name, Some(ino));
        Ok(Arc::new(MemFile::open(self.disk.clone(), &disk, ino, name, true, &self.process)))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let name = &self.full(name);
        let disk = self.lock();
        let ino = disk.named(name)?;
        let write = access == Access::Write;
        Ok(Arc::new(MemFile::open(self.disk.clone(), &disk, ino, name, write, &self.process)))
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        self.hard_link_from(&self.path, from, to)
    }

    fn hard_link_from(&self, dir: &Path, from: &str, to: &str) -> io::Result<()> {
        let room = match dir.strip_prefix(ROOT).ok().and_then(Path::to_str) {
            Some(LOG) => String::new(),
            Some(name) => format!("{name}/"),
            None => return Err(io::ErrorKind::CrossesDevices.into()),
        };
        let (from, to) = (&format!("{room}{from}"), &self.full(to));
        let mut disk = self.lock();
        self.process.changes(&mut disk)?;
        disk.op(|| format!("link {from} {to}"))?;
        disk.check_made(&self.room)?;
        let ino = disk.named(from)?;
        if disk.names.contains_key(to) && !mutant::is("link:replaces") {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.set_name(to, Some(ino));
        Ok(())
    }

    /// As two changes, each kept or lost for itself: more than a journal would do.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (&self.full(from), &self.full(to));
        let mut disk = self.lock();
        self.process.changes(&mut disk)?;
        disk.op(|| format!("rename {from} {to}"))?;
        let (ino, replaced) = (disk.named(from)?, disk.named(to).ok());
        // Two names of one file stay as they are (POSIX).
        if replaced == Some(ino) {
            return Ok(());
        }
        disk.set_name(to, Some(ino));
        disk.set_name(from, None);
        replaced.into_iter().for_each(|ino| disk.give_back(ino));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let name = &self.full(name);
        let mut disk = self.lock();
        disk.named(name)?;
        self.process.changes(&mut disk)?;
        disk.op(|| format!("remove {name}"))?;
        let ino = disk.named(name)?;
        disk.set_name(name, None);
        disk.give_back(ino);
        Ok(())
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        let mut disk = self.lock();
        self.process.changes(&mut disk)?;
        disk.check_made(&self.room)?;
        if disk.dir_sync_op(point, ".")? {
            disk.sync_names(&self.room);
        }
        Ok(())
    }

    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        let exists = self.lock().names.contains_key(&self.full(name));
        if !exists && create {
            self.create(name)?;
        }
        let mut disk = self.lock();
        let ino = disk.named(&self.full(name))?;
        self.process.lives()?;
        let lock = MemLock::take(&self.disk, &mut disk, ino, mode, &self.process);
        Ok(lock.map(|lock| Box::new(lock) as Box<dyn DirLock>))
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.lock().named(&self.full(name)).map(identity)
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        let disk = self.lock();
        disk.named(&self.full(name)).map(|ino| disk.status(ino))
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

    fn has_background(&self) -> bool {
        self.lock().background
    }

    /// Later each time somebody asks ([`MemDir::set_clock`]).
    fn elapsed(&self) -> Duration {
        let mut disk = self.lock();
        let tick = disk.tick;
        disk.elapsed += tick;
        disk.elapsed
    }

    fn pid(&self) -> u32 {
        self.process.pid(&self.lock())
    }
}
