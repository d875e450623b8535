//! The machine around a test: qemu's storage daemon, loop devices, mounts, a scratch directory.
//!
//! Every one of them is a guard: dropping it takes the thing down, on success, on failure and when
//! ctrl-c has set [`Stop`]. Never here: an opinion on logs. Next room: [`super::record`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

pub(crate) type Res<T> = Result<T, String>;

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// Magic and type, versions 1 and 2, of the superblock of ext4's journal.
const JBD2_SUPERBLOCKS: [[u8; 8]; 2] =
    [[0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 3], [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 4]];

/// First bytes of the blocks of xfs metadata, version 5 (`xfs_format.h`, `xfs_da_format.h`).
const XFS_MAGICS: [&[u8; 4]; 15] = [
    b"XFSB", b"XAGF", b"XAGI", b"XAFL", b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"BMA3", b"R3FC",
    b"RMB3", b"XDB3", b"XDD3", b"XDF3", b"XSLM",
];
/// Those whose magic comes after two pointers: index and attribute blocks.
const XFS_DA_MAGICS: [[u8; 2]; 4] = [[0x3E, 0xBE], [0x3D, 0xF1], [0x3D, 0xFF], [0x3B, 0xEE]];

/// Says that somebody wants it to end.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by SIGINT, SIGTERM and SIGHUP from now on.
    pub(crate) fn on_signals() -> Stop {
        let stop = Stop::default();
        let flag = stop.clone();
        // A second handler is refused: then the first one goes on to rule.
        let _ = ctrlc::set_handler(move || flag.0.store(true, Ordering::SeqCst));
        stop
    }

    pub(crate) fn check(&self) -> Res<()> {
        if self.0.load(Ordering::SeqCst) { Err("interrupted".into()) } else { Ok(()) }
    }
}

/// A file system under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fs {
    Ext4,
    Xfs,
    Btrfs,
}

impl Fs {
    pub(crate) const ALL: [Fs; 3] = [Fs::Ext4, Fs::Xfs, Fs::Btrfs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fs::Ext4 => "ext4",
            Fs::Xfs => "xfs",
            Fs::Btrfs => "btrfs",
        }
    }

    pub(crate) fn of(name: &str) -> Res<Fs> {
        let known = Fs::ALL.into_iter().find(|fs| fs.name() == name);
        known.ok_or_else(|| format!("--fs {name}: ext4, xfs and btrfs are known"))
    }

    /// About the smallest that its mkfs makes.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Fs::Ext4 => 64 * MIB,
            Fs::Xfs => 300 * MIB,
            Fs::Btrfs => 160 * MIB,
        }
    }

    /// How many cuts at once pay. btrfs knows its devices by their id and takes one of each.
    pub(crate) fn jobs(self) -> u64 {
        if self == Fs::Xfs { 6 } else { 1 }
    }

    /// How many bytes here are ones that the file system itself relies on being written whole,
    /// because nothing would mend them: they are lost or kept, never torn. Everything else is torn
    /// at 512 bytes. Found by mounts that were refused. On ext4 it is the superblock (1024 bytes
    /// under one checksum), and that of its journal, made likewise; on btrfs the superblock and
    /// its copy. xfs replays its log over a block only if the block's own LSN is older, so a
    /// torn directory block with a new first sector stays torn.
    pub(crate) fn whole(self, place: u64, data: &[u8]) -> Option<u64> {
        let begins = |magic: &[u8]| data.starts_with(magic);
        let (is_whole, len) = match self {
            Fs::Ext4 => (place == 1024 || JBD2_SUPERBLOCKS.iter().any(|magic| begins(magic)), 1024),
            Fs::Btrfs => ([64 << 10, 64 << 20].contains(&place), 4096),
            Fs::Xfs => {
                let da = data.get(8..10).unwrap_or_default();
                let known = XFS_MAGICS.iter().any(|magic| begins(*magic))
                    || XFS_DA_MAGICS.iter().any(|magic| magic == da);
                (known && place.is_multiple_of(4096), 4096)
            }
        };
        is_whole.then_some(len)
    }

    pub(crate) fn make(self, file: &Path) -> Res<()> {
        let mut mkfs = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Fs::Ext4 => mkfs.args(["-q", "-F", "-b", "4096"]),
            Fs::Xfs => mkfs.args(["-q", "-f"]),
            Fs::Btrfs => mkfs.args(["-q", "-f"]),
        };
        run(mkfs.arg(file))
    }
}

/// What this machine lacks for the rig.
pub(crate) fn missing(fs: &[Fs], daemon: bool) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root is needed for mounts and loop devices".into());
    }
    let mut programs = vec!["losetup".to_owned()];
    if daemon {
        programs.push("qemu-storage-daemon".into());
        if File::open("/dev/fuse").is_err() {
            return Some("/dev/fuse does not open".into());
        }
    }
    programs.extend(fs.iter().map(|fs| format!("mkfs.{}", fs.name())));
    for program in programs {
        let found = Command::new(&program).arg("--version").output();
        let found = found.or_else(|_| Command::new(&program).arg("-V").output());
        if found.is_err() {
            return Some(format!("the program {program} is not installed"));
        }
    }
    if File::open("/dev/loop-control").is_err() {
        return Some("/dev/loop-control does not open: no loop devices".into());
    }
    None
}

pub(crate) fn run(command: &mut Command) -> Res<()> {
    output(command).map(drop)
}

pub(crate) fn output(command: &mut Command) -> Res<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{name} failed ({}): {}", output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Waits for something outside of this process that nothing announces.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) -> Res<()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > PATIENCE {
            return Err(format!("waited {PATIENCE:?} in vain for {what}"));
        }
        pause();
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a bounded poll of another process or the kernel")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

/// A directory that goes away with its guard.
pub(crate) struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// In memory where there is some: the replay writes an image for each cut.
    pub(crate) fn new(name: &str) -> Res<Scratch> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Scratch::below(&base, name)
    }

    pub(crate) fn below(base: &Path, name: &str) -> Res<Scratch> {
        let path = base.join(format!("annals-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Scratch { path, kept: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn dir(&self, name: &str) -> Res<PathBuf> {
        let dir = self.file(name);
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(dir)
    }

    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A running storage daemon with one exported file.
pub(crate) struct Daemon {
    child: Child,
    export: PathBuf,
}

impl Daemon {
    /// Starts it with these block nodes and exports the last one's name as `export`.
    pub(crate) fn start(dir: &Path, args: &[String], node: &str) -> Res<Daemon> {
        let export = dir.join("export");
        File::create(&export).map_err(|e| format!("{}: {e}", export.display()))?;
        let pidfile = dir.join("daemon.pid");
        let _ = fs::remove_file(&pidfile);
        let mut command = Command::new("qemu-storage-daemon");
        command.args(args).arg("--export");
        let mountpoint = export.display();
        command.arg(format!(
            "type=fuse,id=export,node-name={node},mountpoint={mountpoint},writable=on"
        ));
        command.arg("--pidfile").arg(&pidfile).stdin(Stdio::null());
        // Its own group: ctrl-c must not take the disk away under a mounted file system.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|e| format!("qemu-storage-daemon: {e}"))?;
        let mut daemon = Daemon { child, export };
        let ended = || "qemu-storage-daemon ended by itself".to_owned();
        let mut running = true;
        wait_for("qemu-storage-daemon", || {
            running = matches!(daemon.child.try_wait(), Ok(None));
            !running || pidfile.exists()
        })?;
        if running { Ok(daemon) } else { Err(ended()) }
    }

    pub(crate) fn export(&self) -> &Path {
        &self.export
    }

    /// Asks it to end and waits, so that its files are complete.
    pub(crate) fn stop(mut self) -> Res<()> {
        self.terminate()
    }

    fn terminate(&mut self) -> Res<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        wait_for("the end of qemu-storage-daemon", || !matches!(self.child.try_wait(), Ok(None)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.terminate().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = rustix::mount::unmount(&self.export, UnmountFlags::DETACH);
        }
    }
}

/// A loop device.
pub(crate) struct Loop {
    device: PathBuf,
}

impl Loop {
    /// The first `bytes` of the file as a block device.
    pub(crate) fn attach(file: &Path, bytes: u64) -> Res<Loop> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--show", "-f", "--sizelimit", &bytes.to_string()]).arg(file);
        Ok(Loop { device: output(&mut losetup)?.into() })
    }

    pub(crate) fn device(&self) -> &Path {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run(Command::new("losetup").arg("-d").arg(&self.device));
    }
}

/// A mounted file system.
pub(crate) struct Mounted {
    target: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    pub(crate) fn mount(device: &Path, target: &Path, fs: Fs, options: &str) -> Res<Mounted> {
        let options = std::ffi::CString::new(options).map_err(|e| e.to_string())?;
        let flags = MountFlags::empty();
        rustix::mount::mount(device, target, fs.name(), flags, options.as_c_str())
            .map_err(|e| format!("mounting {}: {e}", fs.name()))?;
        Ok(Mounted { target: target.to_owned(), is_mounted: true })
    }

    /// Unmounts. A log's committer may still be on its way out, so a busy one is asked again.
    pub(crate) fn unmount(mut self) -> Res<()> {
        let mut result = Ok(());
        wait_for("an unmount", || {
            result = rustix::mount::unmount(&self.target, UnmountFlags::empty());
            result != Err(rustix::io::Errno::BUSY)
        })?;
        self.is_mounted = result.is_err();
        result.map_err(|e| format!("unmounting {}: {e}", self.target.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = rustix::mount::unmount(&self.target, UnmountFlags::DETACH);
        }
    }
}
