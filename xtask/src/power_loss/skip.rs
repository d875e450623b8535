//! A directory that leaves out one named sync, to see whether a real file system lets it pass.
//!
//! The crashable directory shows that every sync is needed by what file systems promise
//! (`wal/tests/needed.rs`); this shows which of them ext4, xfs and btrfs need in fact, and that the
//! rig notices one. Never here: any other change. Next room: [`super::writer`].

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals_wal::fs::os::OsDir;
use annals_wal::fs::{
    Access, Dir, DirEntry, DirLock, File, Identity, LockMode, Standing, Status, SyncPoint,
};

/// The sync point of this name.
pub(crate) fn point(name: &str) -> Option<SyncPoint> {
    SyncPoint::ALL.into_iter().find(|point| format!("{point:?}") == name)
}

/// The directory at `path`, without the sync named if there is one.
pub(crate) fn dir(path: &Path, skip: Option<SyncPoint>) -> Arc<dyn Dir> {
    let os = OsDir::new(path);
    match skip {
        Some(skip) => Arc::new(Skipping { dir: os, skip }),
        None => Arc::new(os),
    }
}

#[derive(Debug)]
struct Skipping {
    dir: OsDir,
    skip: SyncPoint,
}

#[derive(Debug)]
struct SkippingFile {
    file: Arc<dyn File>,
    skip: SyncPoint,
}

impl Skipping {
    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(SkippingFile { file, skip: self.skip })
    }
}

impl Dir for Skipping {
    fn standing(&self) -> io::Result<Standing> {
        self.dir.standing()
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        self.dir.status(name)
    }

    fn sync_parent(&self, point: SyncPoint) -> io::Result<()> {
        if point == self.skip { Ok(()) } else { self.dir.sync_parent(point) }
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        if point == self.skip { Ok(()) } else { self.dir.sync(point) }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.dir.create(name)?))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.dir.open(name, access)?))
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn make(&self) -> io::Result<()> {
        self.dir.make()
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        self.dir.list()
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.hard_link(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove(name)
    }

    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        self.dir.try_lock(name, mode, create)
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.dir.identity(name)
    }

    fn random(&self, out: &mut [u8]) -> io::Result<()> {
        self.dir.random(out)
    }

    fn now_ms(&self) -> u64 {
        self.dir.now_ms()
    }

    fn has_background(&self) -> bool {
        self.dir.has_background()
    }

    fn elapsed(&self) -> Duration {
        self.dir.elapsed()
    }

    fn pid(&self) -> u32 {
        self.dir.pid()
    }
}

impl File for SkippingFile {
    fn status(&self) -> io::Result<Status> {
        self.file.status()
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        if point == self.skip { Ok(()) } else { self.file.sync_data(point) }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.file.identity()
    }
}
