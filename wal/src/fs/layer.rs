//! A directory that stands before another and changes what it cares for.
//!
//! Every method of [`DirLayer`] hands on to the directory below; whoever writes a layer says which
//! that is and writes the methods that differ. Never here: an opinion. Invariants: a layer is a
//! [`Dir`]; `Dir` has no method with a body, so that one that is added there and not here does not
//! compile, and no layer swallows it. Next room:
//! whatever stands below.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Access, Dir, DirEntry, DirLock, File, Identity, LockMode, Standing, Status, SyncPoint,
};

/// Every method as in [`Dir`], handed on unless it is written.
///
/// ```
/// use std::{io, sync::Arc};
///
/// use annals_wal::fs::{Dir, DirEntry, DirLayer, os::OsDir};
///
/// /// Shows no file of somebody else.
/// #[derive(Debug)]
/// struct Ours(OsDir);
///
/// impl DirLayer for Ours {
///     fn below(&self) -> &dyn Dir {
///         &self.0
///     }
///
///     fn list(&self) -> io::Result<Vec<DirEntry>> {
///         let mut entries = self.0.list()?;
///         entries.retain(|entry| entry.name != "thesis.txt");
///         Ok(entries)
///     }
/// }
///
/// # let path = tempfile::tempdir()?;
/// std::fs::write(path.path().join("thesis.txt"), "mine")?;
/// let dir: Arc<dyn Dir> = Arc::new(Ours(OsDir::new(path.path())));
/// assert!(dir.list()?.is_empty());
/// # Ok::<(), io::Error>(())
/// ```
pub trait DirLayer: Send + Sync + Debug {
    /// The directory that everything else is asked of.
    fn below(&self) -> &dyn Dir;

    /// [`Dir::path`].
    fn path(&self) -> &Path {
        self.below().path()
    }

    /// [`Dir::absolute`].
    fn absolute(&self) -> &Path {
        self.below().absolute()
    }

    /// [`Dir::standing`].
    fn standing(&self) -> io::Result<Standing> {
        self.below().standing()
    }

    /// [`Dir::make`].
    fn make(&self) -> io::Result<()> {
        self.below().make()
    }

    /// [`Dir::sync_parent`].
    fn sync_parent(&self, point: SyncPoint) -> io::Result<()> {
        self.below().sync_parent(point)
    }

    /// [`Dir::list`].
    fn list(&self) -> io::Result<Vec<DirEntry>> {
        self.below().list()
    }

    /// [`Dir::create`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.below().create(name)
    }

    /// [`Dir::open`].
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.below().open(name, access)
    }

    /// [`Dir::hard_link`].
    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        self.below().hard_link(from, to)
    }

    /// [`Dir::hard_link_from`].
    fn hard_link_from(&self, dir: &Path, from: &str, to: &str) -> io::Result<()> {
        self.below().hard_link_from(dir, from, to)
    }

    /// [`Dir::rename`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below().rename(from, to)
    }

    /// [`Dir::remove`].
    fn remove(&self, name: &str) -> io::Result<()> {
        self.below().remove(name)
    }

    /// [`Dir::sync`].
    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        self.below().sync(point)
    }

    /// [`Dir::try_lock`].
    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        self.below().try_lock(name, mode, create)
    }

    /// [`Dir::identity`].
    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.below().identity(name)
    }

    /// [`Dir::status`].
    fn status(&self, name: &str) -> io::Result<Status> {
        self.below().status(name)
    }

    /// [`Dir::random`].
    fn random(&self, out: &mut [u8]) -> io::Result<()> {
        self.below().random(out)
    }

    /// [`Dir::now_ms`].
    fn now_ms(&self) -> u64 {
        self.below().now_ms()
    }

    /// [`Dir::has_background`].
    fn has_background(&self) -> bool {
        self.below().has_background()
    }

    /// [`Dir::elapsed`].
    fn elapsed(&self) -> Duration {
        self.below().elapsed()
    }

    /// [`Dir::pid`].
    fn pid(&self) -> u32 {
        self.below().pid()
    }
}

impl<T: DirLayer> Dir for T {
    fn path(&self) -> &Path {
        DirLayer::path(self)
    }

    fn absolute(&self) -> &Path {
        DirLayer::absolute(self)
    }

    fn standing(&self) -> io::Result<Standing> {
        DirLayer::standing(self)
    }

    fn make(&self) -> io::Result<()> {
        DirLayer::make(self)
    }

    fn sync_parent(&self, point: SyncPoint) -> io::Result<()> {
        DirLayer::sync_parent(self, point)
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        DirLayer::list(self)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        DirLayer::create(self, name)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        DirLayer::open(self, name, access)
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        DirLayer::hard_link(self, from, to)
    }

    fn hard_link_from(&self, dir: &Path, from: &str, to: &str) -> io::Result<()> {
        DirLayer::hard_link_from(self, dir, from, to)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        DirLayer::rename(self, from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        DirLayer::remove(self, name)
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        DirLayer::sync(self, point)
    }

    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        DirLayer::try_lock(self, name, mode, create)
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        DirLayer::identity(self, name)
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        DirLayer::status(self, name)
    }

    fn random(&self, out: &mut [u8]) -> io::Result<()> {
        DirLayer::random(self, out)
    }

    fn now_ms(&self) -> u64 {
        DirLayer::now_ms(self)
    }

    fn has_background(&self) -> bool {
        DirLayer::has_background(self)
    }

    fn elapsed(&self) -> Duration {
        DirLayer::elapsed(self)
    }

    fn pid(&self) -> u32 {
        DirLayer::pid(self)
    }
}
