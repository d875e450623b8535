//! The processes that share a crashable directory: each with a number of its own, and each can be
//! killed while the others and the machine go on.
//!
//! Never here: what a crash of the machine keeps. Invariants: a dead process changes nothing any
//! more, and holds no lock; a process that is to die at its n-th changing operation does so before
//! it. Next room: [`super::disk`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::disk::Disk;

/// One of them; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Process(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    pid: u32,
    ops: AtomicU64,
    dies_at: AtomicU64,
    dead: AtomicBool,
}

impl Process {
    /// A new one. The default is the one that [`super::MemDir::set_pid`] numbers.
    pub(super) fn new(pid: u32) -> Process {
        let (ops, dead) = (AtomicU64::new(0), AtomicBool::new(false));
        Process(Some(Arc::new(Inner { pid, ops, dies_at: AtomicU64::new(u64::MAX), dead })))
    }

    pub(super) fn pid(&self, disk: &Disk) -> u32 {
        self.0.as_ref().map_or(disk.pid, |inner| inner.pid)
    }

    pub(super) fn id(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| u64::from(inner.pid))
    }

    pub(super) fn ops(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.ops.load(Ordering::Relaxed))
    }

    pub(super) fn dies_at(&self, op: u64) {
        if let Some(inner) = &self.0 {
            inner.dies_at.store(op, Ordering::Relaxed);
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.dead.load(Ordering::Relaxed))
    }

    pub(super) fn die(&self, disk: &mut Disk) {
        if let Some(inner) = &self.0 {
            inner.dead.store(true, Ordering::Relaxed);
            let id = self.id();
            disk.locks.retain(|held| held.process != id);
        }
    }

    /// Before anything that only a living process can do.
    pub(super) fn lives(&self) -> io::Result<()> {
        if self.is_dead() { Err(io::Error::other("the process was killed")) } else { Ok(()) }
    }

    /// Before an operation that changes something: counts it, and dies of it if it is time.
    pub(super) fn changes(&self, disk: &mut Disk) -> io::Result<()> {
        if let Some(inner) = &self.0 {
            let op = inner.ops.fetch_add(1, Ordering::Relaxed);
            if op >= inner.dies_at.load(Ordering::Relaxed) {
                self.die(disk);
            }
        }
        self.lives()
    }
}
