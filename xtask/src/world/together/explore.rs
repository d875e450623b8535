//! A script of two, disturbed everywhere: the machine stops, a fault comes, one of them is killed,
//! also right after something failed for it.
//!
//! After each the rest of the script is lived, by the survivors and by who takes the places of
//! the dead, and then the end of every life. Never here: a sample where all can be had.
//! Invariant: every changing operation of the script is each kind's point, at stride 1.

use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_wal::fs::mem::{Fault, Keep, SyncFailure};

use super::scripts::Script;
use super::{Pair, Setup, Step, Who};
use crate::world::Tally;

/// What a sweep went through.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Operations of the scripts, undisturbed.
    pub ops: u64,
    /// Stops of the machine, each with one outcome of the crash.
    pub crashes: u64,
    /// Kills of one of the two.
    pub kills: u64,
    /// Faults.
    pub errors: u64,
    /// Faults of one of the two, which is killed at its next operation but this many.
    pub last_words: u64,
    /// What went wrong, with all that is needed to see it again.
    pub violations: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Undisturbed,
    Stop(u64, Keep),
    Kill(Who, u64),
    Fault(u64, Fault),
    /// A fault, and then a kill of who met it, before its operation with this number.
    LastWords(Who, u64, Fault, u64),
}

const FAULTS: [Fault; 7] = [
    Fault::Error(5),
    Fault::Error(28),
    Fault::Sync(SyncFailure::CleanOld),
    Fault::Sync(SyncFailure::CleanNew),
    Fault::Writeback(SyncFailure::CleanNew),
    Fault::Short(7),
    Fault::Interrupted,
];
/// What fails just before a process dies; and how many more operations it has.
const LAST_WORDS: [Fault; 2] = [Fault::Error(5), Fault::Short(7)];
const MORE: [u64; 3] = [1, 2, 3];
const REPORTED_MAX: usize = 3;

/// Lives one life of two to its end.
///
/// # Errors
/// The violation, in words.
pub fn live(setup: Setup, steps: &[Step]) -> Result<Tally, String> {
    lived(setup, steps, How::Undisturbed).map(|pair| pair.tally)
}

fn lived(setup: Setup, steps: &[Step], how: How) -> Result<Pair, String> {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut pair = Pair::new(setup);
        match how {
            How::Undisturbed => {}
            How::Stop(op, keep) => pair.stop_after(op, keep),
            How::Kill(who, op) => pair.kill_at(who, op),
            How::Fault(op, fault) => pair.fault_at(op, fault),
            How::LastWords(who, op, fault, end) => {
                pair.fault_at(op, fault);
                pair.kill_at(who, end);
            }
        }
        for (at, step) in steps.iter().enumerate() {
            pair.step(step).map_err(|why| format!("step {at} {step:?}: {why}"))?;
        }
        pair.finish().map_err(|why| format!("finish: {why}"))?;
        Ok(pair)
    }));
    caught.unwrap_or_else(|_| Err("panic, see above".to_owned()))
}

/// Sweeps one script, at every `stride`-th operation.
pub fn sweep(script: &Script, stride: usize) -> Swept {
    let mut swept = Swept::default();
    let mut pair = Pair::new(script.setup);
    // Each operation, as the disk and as the process that did it count.
    let mut done = Vec::new();
    for step in &script.steps {
        let before = (pair.disk.ops(), Who::BOTH.map(|who| pair.ops_of(who)));
        if let Err(why) = pair.step(step) {
            swept.violations.push(format!("{}: undisturbed: {why}", script.name));
            return swept;
        }
        for who in Who::BOTH {
            let own = before.1[who as usize]..pair.ops_of(who);
            done.extend((before.0..).zip(own).map(|(op, own)| (who, op, own)));
        }
    }
    let ops = pair.disk.ops();
    swept.ops = ops;
    let points = || (0..=ops).step_by(stride);
    let stops = points().flat_map(|op| {
        [Keep::Nothing, Keep::Everything, Keep::Some(op * 7919 + 13)].map(|k| How::Stop(op, k))
    });
    let faults = points().flat_map(|op| FAULTS.map(|fault| How::Fault(op, fault)));
    let kills = Who::BOTH
        .into_iter()
        .flat_map(|who| (0..=pair.ops_of(who)).step_by(stride).map(move |op| How::Kill(who, op)));
    let last_words = done.into_iter().step_by(stride).flat_map(|(who, op, own)| {
        let ends = move |fault| MORE.map(move |more| How::LastWords(who, op, fault, own + more));
        LAST_WORDS.into_iter().flat_map(ends)
    });
    for how in stops.chain(kills).chain(faults).chain(last_words) {
        match how {
            How::Stop(..) => swept.crashes += 1,
            How::Kill(..) => swept.kills += 1,
            How::LastWords(..) => swept.last_words += 1,
            How::Fault(..) | How::Undisturbed => swept.errors += 1,
        }
        if let Err(why) = lived(script.setup, &script.steps, how) {
            swept.violations.push(format!("{}: {how:?}: {why}", script.name));
            if swept.violations.len() >= REPORTED_MAX {
                break;
            }
        }
    }
    swept
}
