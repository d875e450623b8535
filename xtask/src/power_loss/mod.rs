//! `cargo xtask power-loss`: real file systems lose power at thousands of places, and the logs on
//! them are read back.
//!
//! A recording ([`record`]) is a base image and every write, flush and discard that the disk got
//! while a writer ([`writer`]) worked, with marks of what was begun and acknowledged among them
//! ([`mark`]). A cut ([`cuts`]) is a place in it and a choice of what the disk kept; its image is
//! mounted, which replays the file system's journal, and the logs on it are opened and judged
//! ([`oracle`]). Everything about a cut follows from recording, seed and number.
//! Never here: qemu, mounts and loops by hand; [`rig`] has them as guards.

mod cuts;
pub(crate) mod dice;
pub(crate) mod file_system;
pub(crate) mod flags;
mod found;
mod house;
mod image;
pub(crate) mod logwrites;
mod mark;
mod oracle;
mod record;
mod replay;
mod report;
pub(crate) mod rig;
mod run;
mod skip;
mod story;
mod told;
mod writer;

use std::process::ExitCode;

use crate::say;
use flags::Flags;
use rig::Res;

/// The hidden verb of the process that writes.
pub(crate) const WRITER: &str = "power-loss-writer";

const USAGE: &str = "cargo xtask power-loss [--fs ext4|xfs|btrfs] [--cuts N] [--seed S]
  --fs F           one file system; all three without it
  --cuts N         cuts on each (default 2000)
  --seed S         of recordings and cuts (default 1)
  --per N          cuts of one recording (default 500)
  --jobs J         cuts at once (default 1; 6 on xfs, whose unmount mostly sleeps)
  --nested N       recoveries of each recording whose own writes are cut again, 25 times
                   each (default 2)
  --recording DIR  cut this recording, which a violation has kept
  --only CUT       only the cut of this number
  --keep           leave the recordings
  --lossy          a writer that acknowledges before it writes: succeeds if it is found out
  --no-barrier     ext4 without barriers, so without FLUSH: succeeds if it is found out
  --skip POINT     a writer that leaves out this sync (wal's SyncPoint): succeeds if it is found out
  --skip all       each of them in turn: says which the file system noticed";

pub(crate) fn writer_command(args: &[String]) -> ExitCode {
    let orders = writer::Orders::from_args(args).ok_or_else(|| "bad orders".to_owned());
    match orders.and_then(|orders| writer::write(&orders)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("the writer: {e}"));
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn command(args: &[String]) -> ExitCode {
    let valued = ["fs", "cuts", "seed", "per", "recording", "only", "skip", "jobs", "nested"];
    let flags = match Flags::or_usage(args, &valued, &["lossy", "no-barrier", "keep"], USAGE) {
        Ok(flags) => flags,
        Err(exit) => return exit,
    };
    let (mut passed, mut failed) = (0, 0);
    let done = run::all(&flags, &mut passed, &mut failed);
    verdict(done, passed, failed)
}

/// The last line of every proof of this house, and its exit code.
pub(crate) fn verdict(done: Res<Option<String>>, passed: u64, failed: u64) -> ExitCode {
    let broken = match done {
        Ok(None) => false,
        Ok(Some(skipped)) => {
            say(&format!("{passed} passed, {failed} failed, skipped: {skipped}"));
            return if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(e) => {
            say(&format!("error: {e}"));
            true
        }
    };
    say(&format!("{passed} passed, {failed} failed"));
    if broken || failed > 0 || passed == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
