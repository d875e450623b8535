//! Where this runs: what a reader of the figures must know of the machine and the disk.
//!
//! Never here: a measurement. What the system does not tell is said to be unknown.
//! Next room: [`crate::rounds`].

use std::path::Path;

use rustix::fs::{major, minor, stat, statfs};

use crate::engine::Outcome;

const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// # Errors
/// The directory is in memory, where a sync costs nothing and means nothing.
pub(crate) fn refuse_memory(dir: &Path) -> Outcome<()> {
    let kind = statfs(dir)?.f_type;
    if kind == TMPFS || kind == RAMFS {
        return Err(format!("{} is in memory: --dir needs a disk", dir.display()).into());
    }
    Ok(())
}

/// One line: kernel, cores, load, file system, what the disk says of its cache.
pub(crate) fn facts(dir: &Path) -> String {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = load().map_or("unknown".to_owned(), |load| load.to_string());
    format!("Linux {kernel}, {cores} cores, load {load}; {}: {}", dir.display(), disk(dir))
}

/// The one-minute load. On a busy machine each sync may wait for a scheduler's tick (4 ms at 250
/// Hz), so every row carries it.
pub(crate) fn load() -> Option<f64> {
    read("/proc/loadavg").split_whitespace().next()?.parse().ok()
}

fn disk(dir: &Path) -> String {
    let Ok(stat) = stat(dir) else { return "unknown".to_owned() };
    let device = format!("{}:{}", major(stat.st_dev), minor(stat.st_dev));
    let mounts = read("/proc/self/mountinfo");
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device.as_str()));
    let mount = mount.and_then(|line| line.split_once(" - ")).map_or("unknown", |(_, kind)| kind);
    let queue = |name: &str| {
        let here = read(&format!("/sys/dev/block/{device}/queue/{name}"));
        let whole = read(&format!("/sys/dev/block/{device}/../queue/{name}"));
        let said = if here.is_empty() { whole } else { here };
        if said.is_empty() { "unknown".to_owned() } else { said.trim().to_owned() }
    };
    format!("{mount}, write cache: {}, FUA: {}", queue("write_cache"), queue("fua"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
