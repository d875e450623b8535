//! A directory that calls a hook before every operation that changes it, so that a test can hold a
//! thread at that point, let it fail, let it panic, or look at the log from there; and a door to
//! hold it with. Feature `testing`.
//!
//! Operations are named in words: `create NAME`, `link NAME`, `rename NAME` (the new one), `remove NAME`, `write NAME`,
//! `sync POINT`, `dirsync POINT`; NAME is the one the file was opened by. `map NAME` changes nothing
//! and is told too. Reads and syncs of the parent pass without a hook, so a hook may read the log;
//! locks have a hook of their own ([`Gate::on_lock`]).
//! Never here: a lock held while the hook runs, a sleep, an opinion about what is right.
//! Next rooms: `mem` and [`super::os`], which stand behind it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{
    Access, Dir, DirEntry, DirLayer, DirLock, File, Identity, LockMode, Map, Status, SyncPoint,
};

/// Told the operation before it happens; an error stands for the operation's own.
type Hook = dyn Fn(&str) -> io::Result<()> + Send + Sync;

/// EIO, as a disk says it.
pub fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// ENOSPC, as a full disk says it.
pub fn enospc() -> io::Error {
    io::Error::from_raw_os_error(28)
}

/// The hooked directory.
pub struct Gate {
    inner: Arc<dyn Dir>,
    hook: Arc<Hook>,
    stale: Mutex<Option<Vec<DirEntry>>>,
    opens: Mutex<Option<Opening>>,
    locks: Arc<Mutex<Option<Arc<LockHook>>>>,
}

/// Told of locks.
type LockHook = dyn Fn(&str) + Send + Sync;

/// A number of opens from now, and what happens before that one.
type Opening = (u64, Box<dyn FnOnce() + Send>);

impl Gate {
    /// `inner` behind a hook.
    pub fn new(
        inner: Arc<dyn Dir>,
        hook: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<Gate> {
        Arc::new(Gate {
            inner,
            hook: Arc::new(hook),
            stale: Mutex::default(),
            opens: Mutex::default(),
            locks: Arc::default(),
        })
    }

    /// The next listing, and only that one, shows these names: as one that was read a while ago.
    pub fn list_once(&self, names: Vec<DirEntry>) {
        *locked(&self.stale) = Some(names);
    }

    /// Calls once, before a file is opened to be read or written: the `nth` from now on, the next one
    /// being 0. What it opens itself does not count if it goes by another way.
    pub fn before_open(&self, nth: u64, call: impl FnOnce() + Send + 'static) {
        *locked(&self.opens) = Some((nth, Box::new(call)));
    }

    /// Whether what [`Gate::before_open`] was given was called.
    pub fn was_called(&self) -> bool {
        locked(&self.opens).is_none()
    }

    /// Tells `call` of locks from now on: `lock NAME MODE` before each try, `unlocked NAME` after one
    /// was given back. What it locks itself goes by another way.
    pub fn on_lock(&self, call: impl Fn(&str) + Send + Sync + 'static) {
        *locked(&self.locks) = Some(Arc::new(call));
    }

    fn opening(&self) {
        let now = {
            let mut opens = locked(&self.opens);
            match opens.take() {
                Some((0, call)) => Some(call),
                Some((nth, call)) => {
                    *opens = Some((nth - 1, call));
                    None
                }
                None => None,
            }
        };
        now.into_iter().for_each(|call| call());
    }

    /// Whether the listing of [`Gate::list_once`] was asked for.
    pub fn was_listed(&self) -> bool {
        locked(&self.stale).is_none()
    }

    fn file(&self, inner: Arc<dyn File>, name: &str) -> Arc<dyn File> {
        Arc::new(GateFile { inner, hook: self.hook.clone(), write: format!("write {name}") })
    }
}

/// A test that has failed under the lock fails by itself; the others go on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl DirLayer for Gate {
    fn below(&self) -> &dyn Dir {
        &*self.inner
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        let stale = locked(&self.stale).take();
        stale.map_or_else(|| self.inner.list(), Ok)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        (self.hook)(&format!("create {name}"))?;
        Ok(self.file(self.inner.create(name)?, name))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.opening();
        Ok(self.file(self.inner.open(name, access)?, name))
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(&format!("link {to}"))?;
        self.inner.hard_link(from, to)
    }

    fn hard_link_from(&self, dir: &Path, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(&format!("link {to}"))?;
        self.inner.hard_link_from(dir, from, to)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)(&format!("rename {to}"))?;
        self.inner.rename(from, to)
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
        tell_of_lock(&self.locks, &format!("lock {name} {mode:?}"));
        let lock = self.inner.try_lock(name, mode, create)?;
        let (name, locks) = (name.to_owned(), self.locks.clone());
        Ok(lock.map(|inner| Box::new(GateLock { inner, name, locks }) as Box<dyn DirLock>))
    }
}

fn tell_of_lock(locks: &Mutex<Option<Arc<LockHook>>>, what: &str) {
    let hook = locked(locks).clone();
    hook.iter().for_each(|hook| hook(what));
}

struct GateLock {
    inner: Box<dyn DirLock>,
    name: String,
    locks: Arc<Mutex<Option<Arc<LockHook>>>>,
}

impl fmt::Debug for GateLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateLock").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl DirLock for GateLock {
    fn write_pid(&self, pid: u32) {
        self.inner.write_pid(pid);
    }

    fn status(&self) -> io::Result<Status> {
        self.inner.status()
    }

    fn relock(&self, mode: LockMode) -> io::Result<bool> {
        tell_of_lock(&self.locks, &format!("lock {} {mode:?}", self.name));
        self.inner.relock(mode)
    }

    fn release(&self) -> io::Result<()> {
        let released = self.inner.release();
        tell_of_lock(&self.locks, &format!("unlocked {}", self.name));
        released
    }
}

struct GateFile {
    inner: Arc<dyn File>,
    hook: Arc<Hook>,
    /// What the hook is told of a write.
    write: String,
}

impl fmt::Debug for GateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateFile").field("inner", &self.inner).finish_non_exhaustive()
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
        (self.hook)(&self.write)?;
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

    fn map(&self, len: u64, whole: bool) -> io::Result<Option<Map>> {
        (self.hook)(&self.write.replacen("write", "map", 1))?;
        self.inner.map(len, whole)
    }
}

/// Holds whoever comes to it while it is shut, tells when somebody stands there, and says how
/// their operation ends. A new one is open. Not for shuttle, which must know of every wait.
#[derive(Debug, Default)]
pub struct Door {
    state: Mutex<DoorState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct DoorState {
    shut: bool,
    failing: bool,
    guests: u32,
}

impl Door {
    /// Whoever comes from now on waits.
    pub fn shut(&self) {
        locked(&self.state).shut = true;
    }

    /// Shut until it is opened, at the longest until what is returned is dropped: a test that
    /// fails meanwhile fails, and its threads do not wait for ever.
    pub fn shut_for_now(&self) -> Shut<'_> {
        self.shut();
        Shut { door: self }
    }

    /// Lets those who wait and all who come through.
    pub fn open(&self) {
        locked(&self.state).shut = false;
        self.changed.notify_all();
    }

    /// Opens it, and fails the operation of everyone who goes through from now on.
    pub fn fail(&self) {
        locked(&self.state).failing = true;
        self.open();
    }

    /// Goes through, after waiting for as long as the door is shut.
    ///
    /// # Errors
    /// EIO once [`Door::fail`] was called.
    pub fn pass(&self) -> io::Result<()> {
        let mut state = locked(&self.state);
        if state.shut {
            state.guests += 1;
            self.changed.notify_all();
            while state.shut {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.guests -= 1;
        }
        if state.failing { Err(eio()) } else { Ok(()) }
    }

    /// Waits until somebody stands at the door.
    pub fn await_guest(&self) {
        let mut state = locked(&self.state);
        while state.guests == 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// See [`Door::shut_for_now`].
#[derive(Debug)]
#[must_use = "the door opens when this is dropped"]
pub struct Shut<'a> {
    door: &'a Door,
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.door.open();
    }
}
