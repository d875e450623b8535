//! Records what a disk gets while the writer works: a base image and a log of writes.
//!
//! raw file -> qemu `blklogwrites` -> FUSE export -> loop device -> file system -> writer. Marks go
//! through the same export, past the end of the file system, so they have their place in the log.
//! Never here: a cut. Invariant: a recording is good only if each lone fdatasync of the writer's
//! probe is followed by a FLUSH before it returned. Next room: [`super::replay`].

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::file_system::Fs;
use super::logwrites::WriteLog;
use super::mark::{Mark, SECTOR, What};
use super::rig::{Daemon, Loop, Mounted, Res, Scratch, Stop, wait_for};
use super::writer::Orders;

/// Room for marks behind the file system.
const MARKS_BYTES: u64 = 1 << 20;
const BASE: &str = "base.img";
const LOG: &str = "writes.log";
const SEED: &str = "seed";
const BEFORE: &str = "before.marks";

/// How a recording is made.
pub(crate) struct Plan<'a> {
    pub(crate) fs: Fs,
    pub(crate) seed: u64,
    pub(crate) sessions: u64,
    pub(crate) rounds: u64,
    /// The binary that writes: this one, or one that lies.
    pub(crate) writer: &'a Path,
    pub(crate) mount_options: &'a str,
    /// A sync that the writer leaves out.
    pub(crate) skip: &'a str,
    pub(crate) stop: &'a Stop,
    /// The disk to begin with, and the marks before it; a new file system if there is none.
    pub(crate) disk: Option<(&'a Path, Vec<Mark>)>,
}

/// A base image, the writes that followed, and what was told in between.
pub(crate) struct Recording {
    pub(crate) dir: PathBuf,
    pub(crate) seed: u64,
    pub(crate) base: Vec<u8>,
    pub(crate) log: WriteLog,
    /// Each mark and the number of its entry, in order.
    pub(crate) marks: Vec<(usize, Mark)>,
    /// Cuts are made from this entry on: the writer had begun.
    pub(crate) first: usize,
    /// Marks of what came before the base image.
    pub(crate) before: Vec<Mark>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Plan<'_> {
    /// Makes a recording in this directory.
    pub(crate) fn record(&self, scratch: &Scratch) -> Res<Recording> {
        let raw = scratch.file("raw.img");
        let bytes = self.fs.bytes();
        let create = |path: &Path| {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
            file.map_err(text)
        };
        match &self.disk {
            Some((disk, before)) => {
                let sectors: Vec<u8> = before.iter().flat_map(|mark| mark.sector()).collect();
                fs::write(scratch.file(BEFORE), sectors).map_err(text)?;
                copy(disk, &raw)?;
            }
            None => {
                create(&raw)?.set_len(bytes).map_err(text)?;
                self.fs.make(&raw)?;
            }
        }
        copy(&raw, &scratch.file(BASE))?;
        let file = OpenOptions::new().write(true).open(&raw).map_err(text)?;
        file.set_len(bytes + MARKS_BYTES).map_err(text)?;
        create(&scratch.file(LOG))?;
        fs::write(scratch.file(SEED), self.seed.to_string()).map_err(text)?;
        self.run_writer(scratch)?;
        fs::remove_file(&raw).map_err(text)?;
        Recording::load(scratch.path())
    }

    fn run_writer(&self, scratch: &Scratch) -> Res<()> {
        let node = |name: &str, file: &str| {
            let path = scratch.file(file);
            format!("driver=file,node-name={name},filename={},discard=unmap", path.display())
        };
        let logged = "driver=blklogwrites,node-name=logged,file=raw,log=log,discard=unmap";
        let nodes = [node("raw", "raw.img"), node("log", LOG), logged.to_owned()];
        let args: Vec<String> =
            nodes.into_iter().flat_map(|node| ["--blockdev".to_owned(), node]).collect();
        let daemon = Daemon::start(scratch.path(), &args, "logged")?;
        let device = Loop::attach(daemon.export(), self.fs.bytes())?;
        let target = scratch.dir("mnt")?;
        let mounted = Mounted::mount(device.device(), &target, self.fs, self.mount_options)?;
        let orders = Orders {
            root: target,
            device: daemon.export().to_owned(),
            marks_at: self.fs.bytes(),
            seed: self.seed,
            sessions: self.sessions,
            rounds: self.rounds,
            skip: self.skip.to_owned(),
        };
        let mut command = Command::new(self.writer);
        command.arg(super::WRITER).args(orders.to_args()).stdin(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|e| format!("the writer: {e}"))?;
        let ended = loop {
            // A writer takes as long as it takes; only a signal ends it early.
            let waited = wait_for("the writer", || {
                self.stop.check().is_err() || !matches!(child.try_wait(), Ok(None))
            });
            if waited.is_ok() {
                break self.stop.check();
            }
        };
        if ended.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().map_err(text)?;
        ended?;
        if !status.success() {
            return Err(format!("the writer ended with {status}: see its message"));
        }
        mounted.unmount()?;
        drop(device);
        daemon.stop()
    }
}

/// Copies a disk; holes stay holes.
pub(crate) fn copy(from: &Path, to: &Path) -> Res<()> {
    super::rig::run(Command::new("cp").arg("--sparse=always").arg(from).arg(to))
}

impl Recording {
    /// Reads a recording that lies in this directory.
    pub(crate) fn load(dir: &Path) -> Res<Recording> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
        };
        let base = read(BASE)?;
        let seed = String::from_utf8(read(SEED)?).map_err(text)?.trim().parse().map_err(text)?;
        let log = WriteLog::parse(read(LOG)?)?;
        let before = fs::read(dir.join(BEFORE)).unwrap_or_default();
        let before = before.chunks(SECTOR).filter_map(Mark::parse).collect();
        let area = base.len() as u64;
        let marks: Vec<(usize, Mark)> = (0..)
            .zip(&log.entries)
            .filter(|(_, entry)| entry.offset >= area)
            .filter_map(|(at, entry)| Some((at, Mark::parse(log.data(entry))?)))
            .collect();
        let begun = marks.iter().find(|(_, mark)| mark.what == What::Work && !mark.done);
        let first = begun.ok_or("the recording has no mark of the writer's beginning")?.0;
        if !marks.iter().any(|(_, mark)| mark.what == What::Work && mark.done) {
            return Err("the recording has no mark of the writer's end".into());
        }
        Ok(Recording { dir: dir.to_owned(), seed, base, log, marks, first, before })
    }

    /// Of the writer's lone fdatasyncs, how many were a write of the file system and then a FLUSH
    /// between the two marks, and how many there were.
    pub(crate) fn probes(&self) -> (usize, usize) {
        let area = self.base.len() as u64;
        let at = |n: u64, done: bool| {
            let is_it = |mark: &Mark| mark.what == What::Probe && mark.b == n && mark.done == done;
            self.marks.iter().find(|(_, mark)| is_it(mark)).map(|(at, _)| *at)
        };
        let spans: Vec<_> = (0..).map_while(|n| Some(at(n, false)?..at(n, true)?)).collect();
        let flushed = spans.iter().filter(|span| {
            let between = &self.log.entries[(*span).clone()];
            let wrote = between.iter().position(|e| e.writes() && e.offset < area);
            wrote.is_some_and(|wrote| between[wrote..].iter().any(|entry| entry.is_flush()))
        });
        (flushed.count(), spans.len())
    }

    pub(crate) fn flushes(&self) -> usize {
        self.log.entries[self.first..].iter().filter(|entry| entry.is_flush()).count()
    }
}
