//! A directory that calls a hook before every operation that changes it, so that a test can hold a
//! thread at that point, let it fail, or look at the log from there; and a door to hold it with.
//!
//! Operations are named in words: `create NAME`, `link NAME`, `remove NAME`, `sync POINT`,
//! `dirsync POINT`. Reads, locks and plain writes pass without a hook, so a hook may read the log.
//! Never here: a lock held while the hook runs, a sleep, an opinion about what is right.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the gate")]
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use annals_wal::fs::{
    Access, Dir, DirEntry, DirLock, File, Identity, LockMode, Standing, Status, SyncPoint,
};

/// Told the operation before it happens; an error stands for the operation's own.
type Hook = dyn Fn(&str) -> io::Result<()> + Send + Sync;

/// EIO, as a disk says it.
pub fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// The hooked directory.
pub struct Gate {
    inner: Arc<dyn Dir>,
    hook: Arc<Hook>,
    stale: Mutex<Option<Vec<DirEntry>>>,
}

impl Gate {
    pub fn new(
        inner: Arc<dyn Dir>,
        hook: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<Gate> {
        Arc::new(Gate { inner, hook: Arc::new(hook), stale: Mutex::default() })
    }

    /// The next listing, and only that one, shows these names: as one that was read a while ago.
    pub fn list_once(&self, names: Vec<DirEntry>) {
        *self.stale.lock().unwrap() = Some(names);
    }

    /// Whether the listing of [`Gate::list_once`] was asked for.
    pub fn was_listed(&self) -> bool {
        self.stale.lock().unwrap().is_none()
    }

    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GateFile { inner, hook: self.hook.clone() })
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Dir for Gate {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn standing(&self) -> io::Result<Standing> {
        self.inner.standing()
    }

    fn make(&self) -> io::Result<()> {
        self.inner.make()
    }

    fn sync_parent(&self, point: SyncPoint) -> io::Result<()> {
        self.inner.sync_parent(point)
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        match self.stale.lock().unwrap().take() {
            Some(stale) => Ok(stale),
            None => self.inner.list(),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        (self.hook)(&format!("create {name}"))?;
        Ok(self.file(self.inner.create(name)?))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.inner.open(name, access)?))
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(&format!("link {to}"))?;
        self.inner.hard_link(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (self.hook)(&format!("remove {name}"))?;
        self.inner.remove(name)
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        (self.hook)(&format!("dirsync {point:?}"))?;
        self.inner.sync(point)
    }

    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        self.inner.try_lock(name, mode, create)
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.inner.identity(name)
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        self.inner.status(name)
    }

    fn random(&self, out: &mut [u8]) -> io::Result<()> {
        self.inner.random(out)
    }

    fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }

    fn pid(&self) -> u32 {
        self.inner.pid()
    }
}

struct GateFile {
    inner: Arc<dyn File>,
    hook: Arc<Hook>,
}

impl fmt::Debug for GateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateFile")
    }
}

impl File for GateFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        (self.hook)(&format!("sync {point:?}"))?;
        self.inner.sync_data(point)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.inner.identity()
    }

    fn status(&self) -> io::Result<Status> {
        self.inner.status()
    }
}

/// Holds whoever comes to it while it is shut, and tells when somebody stands there.
#[derive(Default)]
pub struct Door {
    state: Mutex<DoorState>,
    changed: Condvar,
}

#[derive(Default)]
struct DoorState {
    shut: bool,
    guests: u32,
}

impl Door {
    pub fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    /// Goes through, after waiting for as long as the door is shut.
    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        if !state.shut {
            return;
        }
        state.guests += 1;
        self.changed.notify_all();
        while state.shut {
            state = self.changed.wait(state).unwrap();
        }
        state.guests -= 1;
    }

    /// Waits until somebody stands at the door.
    pub fn await_guest(&self) {
        let mut state = self.state.lock().unwrap();
        while state.guests == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}
