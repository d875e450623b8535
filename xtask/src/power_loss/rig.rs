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

use super::file_system::Fs;

pub(crate) type Res<T> = Result<T, String>;

const PATIENCE: Duration = Duration::from_secs(20);
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
