//! A directory that leaves out one named sync, to see whether a real file system lets it pass.
//!
//! The crashable directory shows that every sync is needed by what file systems promise
//! (`wal/tests/needed.rs`); this shows which of them ext4, xfs and btrfs need in fact, and that the
//! rig notices one. Never here: any other change. Next room: [`super::writer`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use annals_wal::fs::os::OsDir;
use annals_wal::fs::{Access, Dir, DirLayer, File, Identity, Status, SyncPoint};

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

impl DirLayer for Skipping {
    fn below(&self) -> &dyn Dir {
        &self.dir
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
