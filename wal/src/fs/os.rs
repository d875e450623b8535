//! The real file system: the only file of this crate that names `std::fs`, a clock or a process.
//!
//! Never here: decisions. Invariants: files are made 0600 and directories 0700 by the mode
//! argument, so no umask opens them for a moment; no symbolic link under a log's names is followed
//! and no FIFO waited on (the directory itself may be reached through one); descriptors are
//! close-on-exec (the standard library's default). Names are looked up by path each time, on
//! purpose: so a directory that was moved away or replaced is noticed. Linux first; elsewhere on
//! Unix as far as the standard library goes.

#![expect(
    clippy::disallowed_methods,
    reason = "this file is the seam: the one place where the system is asked"
)]

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fs4::TryLockError;

use crate::mutant;

use super::map::ForkMark;
use super::{
    Access, Dir, DirEntry, DirLock, File, FileSystem, Identity, LockMode, Map, Standing, Status,
    SyncPoint, write_zeros,
};

/// Longer paths go over the heap, here as in rustix.
const PATH_BYTES: usize = 250;

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct OsDir {
    /// As given, for messages.
    path: PathBuf,
    /// The same from the root on: a process that changes its working directory later does not
    /// look for its log elsewhere.
    absolute: PathBuf,
    /// What [`Dir::elapsed`] counts from.
    origin: Instant,
    /// The process that named it, and whether this is that process still.
    pid: u32,
    mark: Option<Arc<ForkMark>>,
}

/// Two directories change names, in one step, and their parents are synced.
///
/// # Errors
/// As the system says: both must exist, on one file system that knows how.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    for path in [one, other] {
        sync_parent_of(path)?;
    }
    Ok(())
}

/// Makes the directories above this one (mode 0700), and makes the name of each that it made durable. Each is
/// synced before the next is made, so of an earlier call that was killed only the lowest directory that is
/// there may lack a durable name: that one is made durable too, where its own parent lets us (a home's
/// may not, and then it is none of ours).
///
/// # Errors
/// As the system says.
pub fn make_above(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let Some(above) = path.parent() else { return Ok(()) };
    let missing: Vec<&Path> = above.ancestors().take_while(|dir| !dir.exists()).collect();
    let lowest = above.ancestors().nth(missing.len());
    if let Some(holder) = lowest.and_then(|dir| resolved(dir)?.parent().map(Path::to_owned)) {
        match fs::File::open(holder).and_then(|holder| sync_once(&holder)) {
            Err(e) if !is_refused(&e) => return Err(e),
            _ => {}
        }
    }
    for dir in missing.iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => sync_parent_of(dir)?,
        }
    }
    Ok(())
}

/// Nobody may list it, or it is of a file system that cannot sync directories.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    [PermissionDenied, InvalidInput, Unsupported].contains(&error.kind())
}

/// A directory gets another name, which must not exist, and its parent is synced.
///
/// # Errors
/// As the system says.
pub fn rename_directory(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?;
    sync_parent_of(to)
}

/// The directory that a path leads to, links resolved; `None` where there is none.
pub fn resolved(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Gives a directory the mode of another one, durably.
///
/// # Errors
/// As the system says.
pub fn take_mode(from: &Path, to: &Path) -> io::Result<()> {
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    sync_once(&fs::File::open(to)?)
}

fn sync_parent_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_once(&fs::File::open(parent.unwrap_or(Path::new(".")))?)
}

impl OsDir {
    /// Names a directory; nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> OsDir {
        let path = path.into();
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let (pid, mark) = (std::process::id(), ForkMark::here().map(Arc::new));
        OsDir { path, absolute, origin: Instant::now(), pid, mark }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.absolute.join(name)
    }

    /// A name's path without the heap, for what is asked for every group.
    fn with_path<T>(&self, name: &str, f: impl FnOnce(&Path) -> T) -> T {
        let (dir, name) = (self.absolute.as_os_str().as_bytes(), name.as_bytes());
        let mut path = [b'/'; PATH_BYTES];
        let (len, at) = (dir.len() + 1 + name.len(), dir.len() + 1);
        match path.get_mut(..len) {
            Some(path) => {
                path[..dir.len()].copy_from_slice(dir);
                path[at..].copy_from_slice(name);
                f(Path::new(OsStr::from_bytes(path)))
            }
            None => f(&self.absolute.join(OsStr::from_bytes(name))),
        }
    }
}

impl Dir for OsDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn absolute(&self) -> &Path {
        &self.absolute
    }

    fn standing(&self) -> io::Result<Standing> {
        let metadata = fs::metadata(&self.absolute)?;
        Ok(Standing {
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
            user: rustix::process::geteuid().as_raw(),
            file_system: file_system(&self.absolute)?,
        })
    }

    fn make(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(&self.absolute) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn sync_parent(&self, _point: SyncPoint) -> io::Result<()> {
        // Resolved first, so that "." and a path through a link sync the directory that really
        // holds the name.
        let real = fs::canonicalize(&self.absolute)?;
        match real.parent() {
            Some(parent) => sync_once(&fs::File::open(parent)?),
            None => Ok(()),
        }
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.absolute)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, regular: entry.file_type()?.is_file() });
            }
        }
        Ok(entries)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = options(Access::Write).create_new(true).mode(0o600).open(self.at(name))?;
        Ok(Arc::new(OsFile { file }))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let file = options(access).open(self.at(name))?;
        check_regular(&file, name)?;
        Ok(Arc::new(OsFile { file }))
    }

    fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        if mutant::is("link:replaces") {
            let _ = fs::remove_file(self.at(to));
        }
        fs::hard_link(self.at(from), self.at(to))
    }

    fn hard_link_from(&self, dir: &Path, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(dir.join(from), self.at(to))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync(&self, _point: SyncPoint) -> io::Result<()> {
        sync_once(&fs::File::open(&self.absolute)?)
    }

    fn try_lock(
        &self,
        name: &str,
        mode: LockMode,
        create: bool,
    ) -> io::Result<Option<Box<dyn DirLock>>> {
        let access = if create { Access::Write } else { Access::Read };
        let file = options(access).create(create).mode(0o600).open(self.at(name))?;
        check_regular(&file, name)?;
        match flock(&file, mode) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if mutant::is("lock:nobody-is-refused") => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        // A lock on a file that lost its name is two holders on two inodes (werf/lockgate#48).
        if identity_of(&file.metadata()?).inode != self.identity(name)?.inode {
            return Ok(None);
        }
        let mark = ForkMark::here();
        Ok(Some(Box::new(OsLock { file, pid: std::process::id(), mark })))
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        Ok(identity_of(&fs::symlink_metadata(self.at(name))?))
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        self.with_path(name, named_status)
    }

    fn random(&self, out: &mut [u8]) -> io::Result<()> {
        getrandom::fill(out).map_err(io::Error::other)
    }

    fn has_background(&self) -> bool {
        true
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn pid(&self) -> u32 {
        match &self.mark {
            Some(mark) if mark.stands() => self.pid,
            None => std::process::id(),
            // Another process, even where it has the same number: in a namespace of its own, or
            // because the number was free again.
            Some(_) => Some(std::process::id()).filter(|pid| *pid != self.pid).unwrap_or(0),
        }
    }
}

fn options(access: Access) -> OpenOptions {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::Write);
    options.custom_flags(flags.bits().cast_signed());
    options
}

fn check_regular(file: &fs::File, name: &str) -> io::Result<()> {
    if file.metadata()?.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a regular file")))
}

/// A file system that keeps no birth time gives 0, which never matches a real one; such a
/// control block is then simply no witness.
fn identity_of(metadata: &fs::Metadata) -> Identity {
    let born = metadata.created().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Identity {
        inode: metadata.ino(),
        born_ns: born.and_then(|d| u64::try_from(d.as_nanos()).ok()).unwrap_or(0),
    }
}

fn status_of(metadata: &fs::Metadata) -> Status {
    Status {
        device: metadata.dev(),
        inode: metadata.ino(),
        links: metadata.nlink(),
        owner: metadata.uid(),
    }
}

/// Without the times: asked for a file's change time, Linux 6.13 and later give its next write a new
/// one of its own, and the fdatasync behind that write took 135 us in place of 95 on ext4. This is
/// asked for every group.
#[cfg(target_os = "linux")]
fn named_status(path: &Path) -> io::Result<Status> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::UID | StatxFlags::TYPE;
    let found = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted) {
        // Refused by an old sandbox: slower, and the same.
        Err(rustix::io::Errno::NOSYS) => return Ok(status_of(&fs::symlink_metadata(path)?)),
        found => found?,
    };
    Ok(Status {
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        links: u64::from(found.stx_nlink),
        owner: found.stx_uid,
    })
}

#[cfg(not(target_os = "linux"))]
fn named_status(path: &Path) -> io::Result<Status> {
    Ok(status_of(&fs::symlink_metadata(path)?))
}

#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> io::Result<FileSystem> {
    // A 32-bit number, whatever type and sign this platform's libc gives it.
    let magic = rustix::fs::statfs(path)?.f_type as u64 & 0xFFFF_FFFF;
    Ok(FileSystem::of_magic(magic))
}

#[cfg(not(target_os = "linux"))]
fn file_system(_path: &Path) -> io::Result<FileSystem> {
    Ok(FileSystem::Local)
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), from, to.saturating_sub(from)) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) if may_be_written(e) => return write_zeros(self, from, to),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn sync_data(&self, _point: SyncPoint) -> io::Result<()> {
        sync_data_once(&self.file)
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(identity_of(&self.file.metadata()?))
    }

    fn status(&self) -> io::Result<Status> {
        Ok(status_of(&self.file.metadata()?))
    }

    fn map(&self, len: u64, whole: bool) -> io::Result<Option<Map>> {
        Map::of(&self.file, len, whole).map(Some)
    }
}

/// A sync, tried once. The standard library's own asks again after `EINTR`, and a second sync may
/// succeed over what the first one could not write.
#[cfg(target_os = "linux")]
fn sync_once(file: &fs::File) -> io::Result<()> {
    Ok(rustix::fs::fsync(file)?)
}

/// The same of a file's data.
#[cfg(target_os = "linux")]
fn sync_data_once(file: &fs::File) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(file)?)
}

/// There the library knows which call reaches the disk.
#[cfg(not(target_os = "linux"))]
fn sync_once(file: &fs::File) -> io::Result<()> {
    file.sync_all()
}

#[cfg(not(target_os = "linux"))]
fn sync_data_once(file: &fs::File) -> io::Result<()> {
    file.sync_data()
}

/// Whether zeros may be had by writing where the system does not give them. NFS before 4.2 does not
/// know how, a sandbox may forbid it: writing works. On a full or failing disk it would do harm or
/// take long, and fail as well.
#[cfg(target_os = "linux")]
fn may_be_written(refusal: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    !matches!(refusal, Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)
}

/// flock belongs to the open file description, which a fork shares: it is free when the last copy
/// is closed, or at once when any process that has a copy unlocks it.
#[derive(Debug)]
struct OsLock {
    file: fs::File,
    /// Who took it.
    pid: u32,
    mark: Option<ForkMark>,
}

impl DirLock for OsLock {
    fn write_pid(&self, pid: u32) {
        // Fixed width, so that no digit of a former holder is left behind.
        let line = format!("{pid:<20}\n");
        let _ = self.file.write_all_at(line.as_bytes(), 0);
    }
    fn status(&self) -> io::Result<Status> {
        Ok(status_of(&self.file.metadata()?))
    }

    fn relock(&self, mode: LockMode) -> io::Result<bool> {
        match flock(&self.file, mode) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn release(&self) -> io::Result<()> {
        fs4::FileExt::unlock(&self.file)
    }
}

fn flock(file: &fs::File, mode: LockMode) -> Result<(), TryLockError> {
    match mode {
        LockMode::Exclusive => fs4::FileExt::try_lock(file),
        LockMode::Shared => fs4::FileExt::try_lock_shared(file),
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // By whoever took it, and nobody else: a child that unlocked would take the lock from its
        // parent (jnwatson/py-lmdb#346, tox-dev/filelock#634); and an owner that only closed would
        // leave the directory locked for as long as some forked child lives.
        if self.pid == std::process::id() && self.mark.as_ref().is_none_or(ForkMark::stands) {
            let _ = fs4::FileExt::unlock(&self.file);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::may_be_written;
    use rustix::io::Errno;

    /// A log on such a file system could not be made at all: EPERM under seccomp, ENODEV and EINVAL
    /// from drivers, beside the two that the manual names.
    #[test]
    fn what_cannot_be_allocated_is_written_unless_the_disk_is_full_or_failing() {
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS, Errno::PERM, Errno::NODEV, Errno::INVAL] {
            assert!(may_be_written(errno), "{errno}");
        }
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::IO] {
            assert!(!may_be_written(errno), "{errno}");
        }
    }
}
