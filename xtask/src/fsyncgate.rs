//! `cargo xtask fsyncgate`: a sync fails in a real kernel, on ext4, xfs and btrfs.
//!
//! First what the kernel does, as a table: `wal/src/fs/mem.rs` must be able to behave like each of
//! its lines. Then what a log does with it, as checks.
//! Never here: the device ([`device`]). Rooms: [`kernel`], [`log`].

mod device;
mod kernel;
mod log;

use std::process::ExitCode;

use crate::power_loss::file_system::Fs;
use crate::power_loss::flags::Flags;
use crate::power_loss::rig::{self, Res, Stop};
use crate::power_loss::verdict;
use crate::say;
use device::Fault;
use log::Case;

const USAGE: &str = "cargo xtask fsyncgate [--fs ext4|xfs|btrfs]";

pub(crate) fn command(args: &[String]) -> ExitCode {
    let flags = match Flags::or_usage(args, &["fs"], &[], USAGE) {
        Ok(flags) => flags,
        Err(exit) => return exit,
    };
    let (mut passed, mut failed) = (0, 0);
    let done = all(&flags, &mut passed, &mut failed);
    verdict(done, passed, failed)
}

fn all(flags: &Flags, passed: &mut u64, failed: &mut u64) -> Res<Option<String>> {
    let systems = match flags.text("fs") {
        Some(name) => vec![Fs::of(name)?],
        None => Fs::ALL.to_vec(),
    };
    if let Some(what) = rig::missing(&systems, true) {
        return Ok(Some(what));
    }
    let stop = Stop::on_signals();
    say("what the kernel does (one request of the disk fails with EIO, once):");
    line("file system", "fails", &kernel::COLUMNS.map(str::to_owned));
    for fs in &systems {
        for (fault, early) in [(Fault::Write, false), (Fault::Write, true), (Fault::Flush, false)] {
            stop.check()?;
            let seen = kernel::observe(*fs, fault, early)?;
            let early = if seen.early { ", unasked" } else { "" };
            line(seen.fs.name(), &format!("{}{early}", seen.fault.name()), &seen.columns);
        }
    }
    say("what the log does:");
    for fs in systems {
        for fault in Fault::ALL {
            for forget in [false, true] {
                stop.check()?;
                let case = Case { fs, fault, forget };
                match case.run() {
                    Ok(found) => {
                        *passed += 1;
                        say(&format!("  {}: {found}", case.name()));
                    }
                    Err(e) => {
                        *failed += 1;
                        say(&format!("  {}: FAILED: {e}", case.name()));
                    }
                }
            }
        }
    }
    Ok(None)
}

fn line(fs: &str, fault: &str, columns: &[String]) {
    let columns: Vec<_> = columns.iter().map(|word| format!("{word:16} ")).collect();
    say(format!("  {fs:12} {fault:14} {}", columns.join("")).trim_end());
}
