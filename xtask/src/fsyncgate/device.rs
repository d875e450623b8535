//! A disk whose next write or flush fails when it is told to, and which counts its flushes.
//!
//! file -> `blklogwrites` (counts) -> `blkdebug`, put in and taken out while it runs (fails) -> raw
//! -> FUSE export -> loop device -> file system. qemu is spoken to over QMP, a JSON object a line.
//! Never here: an opinion on what a failure means. Next room: [`super::kernel`].

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::power_loss::file_system::Fs;
use crate::power_loss::logwrites::WriteLog;
use crate::power_loss::rig::{Daemon, Loop, Mounted, Res, Scratch};

/// What fails, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Write,
    Flush,
}

impl Fault {
    pub(crate) const ALL: [Fault; 2] = [Fault::Write, Fault::Flush];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Write => "write",
            Fault::Flush => "flush",
        }
    }
}

/// Fields in the order in which they must be dropped.
pub(crate) struct Device {
    fs: Fs,
    target: PathBuf,
    mounted: Option<Mounted>,
    device: Loop,
    qmp: Qmp,
    faults: u64,
    _daemon: Daemon,
    scratch: Scratch,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Device {
    /// A new file system on a new disk, mounted.
    pub(crate) fn new(fs: Fs) -> Res<Device> {
        let scratch = Scratch::new(&format!("fsyncgate-{}", fs.name()))?;
        let raw = scratch.file("raw.img");
        let file = fs::File::create(&raw).map_err(text)?;
        file.set_len(fs.bytes()).map_err(text)?;
        fs.make(&raw)?;
        let log = scratch.file("writes.log");
        fs::File::create(&log).map_err(text)?;
        let socket = scratch.file("qmp");
        let node = |name: &str, file: &Path| {
            format!("driver=file,node-name={name},filename={}", file.display())
        };
        let mut args = Vec::new();
        for node in [
            node("base", &raw),
            node("log", &log),
            "driver=blklogwrites,node-name=logged,file=base,log=log".to_owned(),
            "driver=raw,node-name=top,file=logged".to_owned(),
        ] {
            args.extend(["--blockdev".to_owned(), node]);
        }
        let chardev = format!("socket,id=qmp,server=on,wait=off,path={}", socket.display());
        args.extend(["--chardev".into(), chardev, "--monitor".into(), "chardev=qmp".into()]);
        let daemon = Daemon::start(scratch.path(), &args, "top")?;
        let qmp = Qmp::connect(&socket)?;
        let device = Loop::attach(daemon.export(), fs.bytes())?;
        let target = scratch.dir("mnt")?;
        let mounted = Some(Mounted::mount(device.device(), &target, fs, "")?);
        Ok(Device { fs, target, mounted, device, qmp, faults: 0, _daemon: daemon, scratch })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.target
    }

    /// Writes everything back, then makes the next write or flush fail with EIO. Only that one.
    pub(crate) fn arm(&mut self, fault: Fault) -> Res<()> {
        let dir = fs::File::open(&self.target).map_err(text)?;
        rustix::fs::syncfs(&dir).map_err(text)?;
        self.arm_as_it_is(fault)
    }

    /// [`Device::arm`] without writing anything back before.
    pub(crate) fn arm_as_it_is(&mut self, fault: Fault) -> Res<()> {
        self.faults += 1;
        let name = format!("fault-{}", self.faults);
        let rule = json!([{"event": "none", "iotype": fault.name(), "errno": 5, "once": true}]);
        let node = json!({
            "driver": "blkdebug", "node-name": name, "image": "logged", "inject-error": rule
        });
        self.qmp.call("blockdev-add", &node)?;
        self.put_on(&name)
    }

    pub(crate) fn disarm(&mut self) -> Res<()> {
        self.put_on("logged")
    }

    fn put_on(&mut self, below: &str) -> Res<()> {
        let top = json!({"driver": "raw", "node-name": "top", "file": below});
        self.qmp.call("blockdev-reopen", &json!({"options": [top]})).map(drop)
    }

    /// How many flushes the disk has got.
    pub(crate) fn flushes(&self) -> Res<usize> {
        let log = fs::read(self.scratch.file("writes.log")).map_err(text)?;
        let log = WriteLog::parse(log)?;
        Ok(log.entries.iter().filter(|entry| entry.is_flush()).count())
    }

    /// What a program finds that comes after everything was dropped from memory.
    pub(crate) fn remount(&mut self) -> Res<()> {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount()?;
        }
        self.mounted = Some(Mounted::mount(self.device.device(), &self.target, self.fs, "")?);
        Ok(())
    }
}

/// Lets go of the clean pages of a file, so that the next read asks the disk.
pub(crate) fn forget_pages(path: &Path) -> Res<()> {
    let file = fs::File::open(path).map_err(text)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(text)
}

struct Qmp {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Qmp {
    fn connect(socket: &Path) -> Res<Qmp> {
        let stream = UnixStream::connect(socket).map_err(text)?;
        let lines = BufReader::new(stream.try_clone().map_err(text)?);
        let mut qmp = Qmp { stream, lines };
        qmp.line()?;
        qmp.call("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    fn line(&mut self) -> Res<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(text)?;
        serde_json::from_str(&line).map_err(|e| format!("qemu said {line:?}: {e}"))
    }

    fn call(&mut self, command: &str, arguments: &Value) -> Res<Value> {
        let call = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream, "{call}").map_err(text)?;
        loop {
            let answer = self.line()?;
            if answer.get("event").is_some() {
                continue;
            }
            return match answer.get("return") {
                Some(value) => Ok(value.clone()),
                None => Err(format!("{command}: {}", answer["error"]["desc"])),
            };
        }
    }
}
