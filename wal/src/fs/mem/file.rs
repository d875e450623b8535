//! Open files and held locks of the crashable directory.
//!
//! Never here: what a crash keeps. Invariant: a descriptor is told a failed writeback once, by its
//! next sync, and one opened later only if nobody was told yet (errseq, Linux 4.13).
//! Next room: [`super::disk`].

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::{DirLock, File, Identity, LockMode, Status, SyncPoint};
use super::disk::{Disk, Held, WriteFate};
use super::identity;
use super::process::Process;

#[derive(Debug)]
pub(super) struct MemFile {
    disk: Arc<Mutex<Disk>>,
    ino: u64,
    name: String,
    write: bool,
    process: Process,
    /// How many of the inode's failures this descriptor was told, or came too late for.
    told: AtomicU64,
}

impl MemFile {
    pub(super) fn open(
        disk: Arc<Mutex<Disk>>,
        inodes: &Disk,
        ino: u64,
        name: &str,
        write: bool,
        process: &Process,
    ) -> MemFile {
        let told = inodes.inodes.get(&ino).map_or(0, |inode| {
            if inode.told { inode.errors } else { inode.errors.saturating_sub(1) }
        });
        let (name, process) = (name.to_owned(), process.clone());
        MemFile { disk, ino, name, write, process, told: AtomicU64::new(told) }
    }

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
        let mut disk = self.lock();
        let asked = disk.faults.read(out.len())?;
        let bytes = disk.inodes.get(&self.ino).map_or(&[][..], |inode| inode.cached.as_slice());
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(asked);
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.lock();
        if !self.write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.process.changes(&mut disk)?;
        let name = &self.name;
        let fate =
            disk.write_op(bytes.len(), || format!("write {name} {offset}+{}", bytes.len()))?;
        let stored = match fate {
            WriteFate::Whole => bytes,
            WriteFate::Prefix(len) => &bytes[..len],
        };
        disk.take_space(self.ino, offset, stored.len())?;
        let ignore = disk.ignore_same_bytes;
        if let Some(inode) = disk.inodes.get_mut(&self.ino)
            && !stored.is_empty()
        {
            inode.write(stored, offset as usize, ignore);
        }
        Ok(stored.len())
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        let mut disk = self.lock();
        self.process.changes(&mut disk)?;
        let takes = disk.sync_takes;
        let works = disk.file_sync_op(point, &self.name)?;
        if works == Ok(true) {
            disk.space_after_sync(self.ino);
        }
        let Some(inode) = disk.inodes.get_mut(&self.ino) else { return Ok(()) };
        match works {
            Ok(true) => inode.sync(),
            Ok(false) => {}
            Err(how) => inode.fail(how),
        }
        let errors = inode.errors;
        let late = self.told.swap(errors, Ordering::Relaxed) < errors;
        inode.told |= late;
        drop(disk);
        pause(takes);
        if late { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(identity(self.ino))
    }

    fn status(&self) -> io::Result<Status> {
        Ok(self.lock().status(self.ino))
    }
}

/// A slow disk: for benches, and for a person who watches. No test's order hangs on it.
fn pause(time: Duration) {
    if !time.is_zero() {
        #[expect(clippy::disallowed_methods, reason = "the latency that was asked for")]
        std::thread::sleep(time);
    }
}

/// A descriptor of a lock file, and what it holds.
#[derive(Debug)]
pub(super) struct MemLock {
    disk: Arc<Mutex<Disk>>,
    ino: u64,
    lock: u64,
    process: Process,
    /// Who took it: a child's copy ends without unlocking.
    pid: u32,
}

impl MemLock {
    /// Tries once.
    pub(super) fn take(
        shared: &Arc<Mutex<Disk>>,
        disk: &mut Disk,
        ino: u64,
        mode: LockMode,
        process: &Process,
    ) -> Option<MemLock> {
        disk.last_lock += 1;
        let (lock, pid) = (disk.last_lock, process.pid(disk));
        let held = Held { ino, mode, lock, process: process.id() };
        let process = process.clone();
        disk.flock(held).then(|| MemLock { disk: shared.clone(), ino, lock, process, pid })
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, disk: &mut Disk) {
        disk.locks.retain(|held| held.lock != self.lock);
    }
}

impl DirLock for MemLock {
    fn write_pid(&self, pid: u32) {
        let mut disk = self.lock();
        if self.process.is_dead() {
            return;
        }
        if let Some(inode) = disk.inodes.get_mut(&self.ino) {
            inode.write(format!("{pid:<20}\n").as_bytes(), 0, false);
        }
    }

    fn status(&self) -> io::Result<Status> {
        Ok(self.lock().status(self.ino))
    }

    fn relock(&self, mode: LockMode) -> io::Result<bool> {
        let mut disk = self.lock();
        self.process.lives()?;
        let process = self.process.id();
        Ok(disk.flock(Held { ino: self.ino, mode, lock: self.lock, process }))
    }

    fn release(&self) -> io::Result<()> {
        self.process.lives()?;
        self.give_back(&mut self.lock());
        Ok(())
    }
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut disk = self.lock();
        if self.process.pid(&disk) == self.pid {
            self.give_back(&mut disk);
        }
    }
}
