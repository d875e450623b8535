//! A directory whose group syncs wait at a gate, so that a test can stand between *ordered* and
//! *durable* for as long as it likes, and decide how the sync ends.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use annals_registry::Registry;
use annals_wal::Log;
use annals_wal::fs::mem::MemDir;
use annals_wal::fs::{
    Access, Dir, DirEntry, DirLock, File, Identity, LockMode, Standing, Status, SyncPoint,
};

use crate::support::{json, key};

/// A log, the gate before its syncs, and its disk.
pub(crate) fn gated_log() -> (MemDir, Gate, Log) {
    let disk = MemDir::new(1);
    let (gate, dir) = Gate::before(disk.dir());
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open_in(dir).unwrap();
    (disk, gate, log)
}

/// A registry on such a log, in which `k` is 1 and durable.
pub(crate) fn gated() -> (MemDir, Gate, Registry) {
    let (disk, gate, log) = gated_log();
    let registry = Registry::on(log).unwrap();
    registry.put(&key("k"), json(1)).unwrap();
    (disk, gate, registry)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Open,
    Closed,
    Failing,
}

#[derive(Debug)]
struct State {
    way: Way,
    waiting: usize,
    names_fail: bool,
}

/// Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Gate {
    /// A gate that lets every sync through, and `inner` behind it.
    pub(crate) fn before(inner: Arc<dyn Dir>) -> (Gate, Arc<dyn Dir>) {
        let state = Mutex::new(State { way: Way::Open, waiting: 0, names_fail: false });
        let gate = Gate { state: Arc::new((state, Condvar::new())) };
        (gate.clone(), Arc::new(GatedDir { inner, gate }))
    }

    /// Syncs that come from now on wait, at the longest until what is returned is dropped: a test
    /// that fails meanwhile fails, and its threads do not wait for ever.
    pub(crate) fn close(&self) -> Closed<'_> {
        self.set(Way::Closed);
        Closed { gate: self }
    }

    /// Lets the waiting sync and all later ones through.
    pub(crate) fn open(&self) {
        self.set(Way::Open);
    }

    /// Fails the waiting sync and all later ones; nothing they covered reaches the disk.
    pub(crate) fn fail(&self) {
        self.set(Way::Failing);
    }

    /// Fails the directory sync after a new segment got its name: a rotation then poisons the log.
    pub(crate) fn fail_names(&self) {
        self.state.0.lock().unwrap().names_fail = true;
    }

    /// Returns once a sync waits at the closed gate.
    pub(crate) fn wait_for_sync(&self) {
        let mut state = self.state.0.lock().unwrap();
        while state.waiting == 0 {
            state = self.state.1.wait(state).unwrap();
        }
    }

    fn set(&self, way: Way) {
        self.state.0.lock().unwrap().way = way;
        self.state.1.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.0.lock().unwrap();
        state.waiting += 1;
        self.state.1.notify_all();
        while state.way == Way::Closed {
            state = self.state.1.wait(state).unwrap();
        }
        state.waiting -= 1;
        if state.way == Way::Failing { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

/// See [`Gate::close`].
#[must_use]
pub(crate) struct Closed<'a> {
    gate: &'a Gate,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.0.lock().unwrap();
        if state.way == Way::Closed {
            state.way = Way::Open;
        }
        drop(state);
        self.gate.state.1.notify_all();
    }
}

#[derive(Debug)]
struct GatedDir {
    inner: Arc<dyn Dir>,
    gate: Gate,
}

impl GatedDir {
    fn gated(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GatedFile { inner, gate: self.gate.clone() })
    }
}

impl Dir for GatedDir {
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
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.gated(self.inner.create(name)?))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.gated(self.inner.open(name, access)?))
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        if point == SyncPoint::Published && self.gate.state.0.lock().unwrap().names_fail {
            return Err(io::Error::from_raw_os_error(5));
        }
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

#[derive(Debug)]
struct GatedFile {
    inner: Arc<dyn File>,
    gate: Gate,
}

impl File for GatedFile {
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
        if point == SyncPoint::Group {
            self.gate.pass()?;
        }
        self.inner.sync_data(point)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.inner.identity()
    }

    fn status(&self) -> io::Result<Status> {
        self.inner.status()
    }
}
