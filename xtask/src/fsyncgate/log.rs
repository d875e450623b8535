//! What a log makes of a sync that fails in a real kernel.
//!
//! The append under way says *outcome unknown*; every later one is refused without touching the
//! disk; an opening afterwards has every acknowledged record, and what it shows stays, whether the
//! page cache still had the lost bytes or not. Next room: back to [`super`].

use std::path::Path;

use annals_wal::{ErrorKind, Log, Options};

use super::device::{Device, Fault, forget_pages};
use crate::power_loss::file_system::Fs;
use crate::power_loss::rig::Res;

const ACKNOWLEDGED: u64 = 20;

/// One case: what fails, and whether the page cache is dropped before the log is opened again.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) fs: Fs,
    pub(crate) fault: Fault,
    pub(crate) forget: bool,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn payload(lsn: u64) -> Vec<u8> {
    // The one whose sync fails has pages of its own: a page that it shared with the seal after it
    // would be written whole with that, whatever recovery does.
    let times = if lsn == ACKNOWLEDGED + 1 { 2000 } else { 1 + lsn as usize % 30 };
    format!("record {lsn} ").repeat(times).into_bytes()
}

impl Case {
    pub(crate) fn name(self) -> String {
        let cache = if self.forget { "dropped" } else { "kept" };
        format!("{}, a failed {}, page cache {cache}", self.fs.name(), self.fault.name())
    }

    /// Runs it; the sentence says what was found where more than one thing is right.
    pub(crate) fn run(self) -> Res<String> {
        let mut device = Device::new(self.fs)?;
        let dir = device.root().join("log");
        let log = open(&dir)?;
        for lsn in 1..=ACKNOWLEDGED {
            log.append(payload(lsn)).map_err(text)?;
        }
        device.arm(self.fault)?;
        let failed = log.append(payload(ACKNOWLEDGED + 1));
        let Err(error) = failed else {
            return Err("the append under the failing sync was acknowledged".into());
        };
        if !error.outcome_unknown() {
            return Err(format!("the append failed and claims to know the outcome: {error:?}"));
        }
        refused(&log, &device)?;
        drop(log);
        device.disarm()?;
        if self.forget {
            for entry in std::fs::read_dir(&dir).map_err(text)? {
                forget_pages(&entry.map_err(text)?.path())?;
            }
        }
        let (log, place) = match open(&dir) {
            Ok(log) => (log, "on the same mount"),
            // The file system itself gave up writing.
            Err(e) => {
                device.remount().map_err(|remount| format!("{e}; then {remount}"))?;
                (open(&dir)?, "after a remount, the file system had gone read-only")
            }
        };
        let row = log.recovery().row.letter();
        let last = whole(&log)?;
        if last != ACKNOWLEDGED && last != ACKNOWLEDGED + 1 {
            return Err(format!("{ACKNOWLEDGED} were acknowledged, the log ends at {last}"));
        }
        log.append(payload(last + 1)).map_err(text)?;
        log.close().map_err(text)?;
        device.remount()?;
        let log = open(&dir)?;
        if whole(&log)? != last + 1 {
            return Err("what the first opening showed did not stay".into());
        }
        log.close().map_err(text)?;
        let fate = if last == ACKNOWLEDGED { "cut" } else { "kept" };
        Ok(format!("{:?}; reopened {place}: row {row}, the unknown record {fate}", error.kind()))
    }
}

fn open(dir: &Path) -> Res<Log> {
    Options::new().segment_bytes(64 << 10).open(dir).map_err(text)
}

/// Every later write is refused for certain, and no sync is tried for it.
fn refused(log: &Log, device: &Device) -> Res<()> {
    if log.poisoned().is_none() {
        return Err("the log is not poisoned".into());
    }
    let durable = log.durable_lsn().map_or(0, annals_wal::Lsn::get);
    if durable != ACKNOWLEDGED {
        return Err(format!("the durable LSN is {durable}, not {ACKNOWLEDGED}"));
    }
    let flushes = device.flushes()?;
    let one = annals_wal::Lsn::FIRST;
    for (call, result) in [
        ("append", log.append("later").map(drop)),
        (
            "submit",
            log.submit(annals_wal::Batch::from_iter([annals_wal::Record::new("x")])).map(drop),
        ),
        ("set_hold", log.set_hold("late", one)),
        ("trim", log.trim(one).map(drop)),
    ] {
        match result {
            Err(e) if e.kind() == ErrorKind::Poisoned && !e.outcome_unknown() => {}
            other => return Err(format!("a later {call}: {other:?} and not plainly Poisoned")),
        }
    }
    let after = device.flushes()?;
    if after != flushes {
        return Err(format!("the disk got {} flushes for refused calls", after - flushes));
    }
    Ok(())
}

/// Reads it all; returns the last LSN.
fn whole(log: &Log) -> Res<u64> {
    let mut last = 0;
    for record in log.range(..).map_err(text)? {
        let record = record.map_err(text)?;
        last += 1;
        if record.lsn.get() != last || record.payload != payload(last) {
            return Err(format!("record {} is not what was appended", record.lsn));
        }
    }
    Ok(last)
}
