//! Runs: which file systems, which writer, how many recordings and cuts, and what is said of them.
//!
//! Never here: a cut or a judgement. Invariant: a writer that lies is found out by its logs; that a
//! file system does not mount counts for nothing there. Next rooms: [`super::record`],
//! [`super::replay`].

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use annals_wal::fs::SyncPoint;

use super::file_system::Fs;
use super::flags::Flags;
use super::record::{Plan, Recording, copy};
use super::replay::{Replay, Violation};
use super::report::Tally;
use super::rig::{self, Res, Scratch, Stop};
use super::skip;
use crate::say;

/// Sessions and calls of one recording.
const SESSIONS: u64 = 8;
const ROUNDS: u64 = 24;
/// Violations told before a run gives up.
const TOLD_MAX: u64 = 5;
/// Cuts inside one recovery.
const NESTED_CUTS: u64 = 25;

/// All file systems asked for. `Some` says why it was skipped.
pub(super) fn all(flags: &Flags, passed: &mut u64, failed: &mut u64) -> Res<Option<String>> {
    let systems = match flags.text("fs") {
        Some(name) => vec![Fs::of(name)?],
        None if flags.has("no-barrier") => vec![Fs::Ext4],
        None => Fs::ALL.to_vec(),
    };
    if let Some(what) = rig::missing(&systems, true) {
        return Ok(Some(what));
    }
    let stop = Stop::on_signals();
    let writer = if flags.has("lossy") { lossy_writer()? } else { this_binary()? };
    let skips = skips(flags.text("skip"))?;
    for fs in systems {
        for skip in &skips {
            let run = Run { fs, flags, stop: &stop, writer: &writer, skip };
            let tally = run.run()?;
            if !run.is_lie() {
                *passed += tally.passed;
                *failed += tally.failed;
                continue;
            }
            let what = if skip.is_empty() { "the lie" } else { skip };
            let cuts = tally.passed + tally.failed;
            if tally.failed > tally.unmountable {
                say(&format!("{}: {what}: found out, in {cuts} cuts", fs.name()));
                *passed += 1;
            } else {
                say(&format!("{}: {what}: NOT found out in {cuts} cuts", fs.name()));
                // A file system may give more than it promises. But not this much.
                let excused = flags.text("skip") == Some("all") && skip != "Group";
                *failed += u64::from(!excused);
            }
        }
    }
    Ok(None)
}

/// The syncs to leave out, one run each; one run without if none is named.
fn skips(flag: Option<&str>) -> Res<Vec<String>> {
    match flag {
        None => Ok(vec![String::new()]),
        Some("all") => Ok(SyncPoint::ALL.map(|point| format!("{point:?}")).to_vec()),
        Some(name) if skip::point(name).is_some() => Ok(vec![name.to_owned()]),
        Some(name) => Err(format!("--skip {name}: one of {:?}", SyncPoint::ALL)),
    }
}

fn this_binary() -> Res<PathBuf> {
    std::env::current_exe().map_err(|e| e.to_string())
}

/// This program, built so that an append is acknowledged before it is written.
fn lossy_writer() -> Res<PathBuf> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let target = format!("{target}/lossy");
    let mut build = crate::cargo(&target, "--cfg annals_lossy");
    if !crate::run(build.args(["build", "--release", "-p", "xtask"])) {
        return Err("the lossy build failed".into());
    }
    Ok(Path::new(&target).join("release/xtask"))
}

struct Run<'a> {
    fs: Fs,
    flags: &'a Flags,
    stop: &'a Stop,
    writer: &'a Path,
    skip: &'a str,
}

impl Run<'_> {
    fn run(&self) -> Res<Tally> {
        let seed = self.flags.number("seed")?.unwrap_or(1);
        let cuts = self.flags.number("cuts")?.unwrap_or(2000);
        let per = self.flags.number("per")?.unwrap_or(500).max(1);
        let only = self.flags.number("only")?;
        let start = Instant::now();
        let mut tally = Tally::default();
        let name = self.fs.name();
        let without =
            if self.skip.is_empty() { String::new() } else { format!(", no {}", self.skip) };
        say(&format!("{name}: seed {seed}, {cuts} cuts{without}"));
        if let Some(dir) = self.flags.text("recording") {
            let scratch = Scratch::new(&format!("power-{name}"))?;
            let recording = Recording::load(Path::new(dir))?;
            let numbers: Vec<u64> = only.map_or_else(|| (0..cuts).collect(), |n| vec![n]);
            self.replay(&recording, seed, &numbers, &scratch, &mut tally)?;
        } else {
            for number in 0..cuts.div_ceil(per) {
                let numbers: Vec<u64> = (number * per..cuts.min((number + 1) * per))
                    .filter(|n| only.is_none_or(|only| only == *n))
                    .collect();
                if numbers.is_empty() {
                    continue;
                }
                let mut scratch = Scratch::new(&format!("power-{name}-{number}"))?;
                let recording = self.record(seed + number, &scratch)?;
                let failed = tally.failed;
                self.replay(&recording, seed, &numbers, &scratch, &mut tally)?;
                let recovers = !self.flags.has("lossy") && !self.flags.has("no-barrier");
                if recovers && only.is_none() && tally.failed < TOLD_MAX {
                    self.nested(&recording, seed, number * per, &mut tally)?;
                }
                if self.flags.has("keep") || (tally.failed > failed && !self.is_lie()) {
                    scratch.keep();
                    say(&format!("  the recording is left in {}", scratch.path().display()));
                }
                if tally.failed >= TOLD_MAX {
                    break;
                }
            }
        }
        tally.lines().iter().for_each(|line| say(line));
        let seconds = start.elapsed().as_secs_f64();
        let rate = (tally.passed + tally.failed) as f64 / seconds;
        say(&format!("  {seconds:.0} s, {rate:.1} cuts a second with recordings"));
        Ok(tally)
    }

    fn is_lie(&self) -> bool {
        self.flags.has("lossy") || self.flags.has("no-barrier") || !self.skip.is_empty()
    }

    fn record(&self, seed: u64, scratch: &Scratch) -> Res<Recording> {
        let start = Instant::now();
        let barrier = if self.flags.has("no-barrier") { "barrier=0" } else { "" };
        let plan = Plan {
            fs: self.fs,
            seed,
            sessions: SESSIONS,
            rounds: ROUNDS,
            writer: self.writer,
            mount_options: barrier,
            skip: self.skip,
            stop: self.stop,
            disk: None,
        };
        let recording = plan.record(scratch)?;
        let (flushed, probes) = recording.probes();
        say(&format!(
            "  recording {seed}: {} requests in {:.1} s, {} FLUSHes and {} marks behind the start; \
             {flushed} of {probes} lone fdatasyncs became a FLUSH",
            recording.log.entries.len(),
            start.elapsed().as_secs_f64(),
            recording.flushes(),
            recording.marks.len(),
        ));
        if (probes == 0 || flushed < probes) && !self.flags.has("no-barrier") {
            return Err("an fdatasync did not reach the device as a FLUSH: no proof here".into());
        }
        Ok(recording)
    }

    fn replay(
        &self,
        recording: &Recording,
        seed: u64,
        numbers: &[u64],
        scratch: &Scratch,
        tally: &mut Tally,
    ) -> Res<()> {
        let replay = Replay { fs: self.fs, recording, seed, stop: self.stop };
        let jobs = self.flags.number("jobs")?.unwrap_or(self.fs.jobs()).max(1) as usize;
        let told = AtomicU64::new(tally.failed);
        let tally = Mutex::new(tally);
        let one = |job: usize| {
            let numbers = numbers.iter().copied().skip(job).step_by(jobs);
            let mut own = Tally::default();
            let done = replay.cuts(job, numbers, scratch, &mut own, |violation, disk| {
                self.tell(violation, recording, seed, disk);
                told.fetch_add(1, Ordering::SeqCst) + 1 < TOLD_MAX
            });
            tally.lock().map_err(|e| e.to_string())?.merge(own);
            done
        };
        thread::scope(|scope| {
            let one = &one;
            let jobs: Vec<_> = (0..jobs).map(|job| scope.spawn(move || one(job))).collect();
            jobs.into_iter()
                .try_for_each(|job| job.join().unwrap_or_else(|_| Err("a job panicked".to_owned())))
        })
    }

    /// Cuts the power again while the logs recover from a cut, on a few disks of the recording.
    fn nested(&self, of: &Recording, seed: u64, first: u64, tally: &mut Tally) -> Res<()> {
        let disks = self.flags.number("nested")?.unwrap_or(2);
        for number in first..first + disks {
            let name = self.fs.name();
            let mut scratch = Scratch::new(&format!("power-{name}-nested-{number}"))?;
            let disk = scratch.file("begin.img");
            let outer = Replay { fs: self.fs, recording: of, seed, stop: self.stop };
            let (cut, before) = outer.disk(number, &disk)?;
            let plan = Plan {
                fs: self.fs,
                seed: of.seed,
                sessions: 0,
                rounds: 0,
                writer: self.writer,
                mount_options: "",
                skip: self.skip,
                stop: self.stop,
                disk: Some((&disk, before)),
            };
            let recording = plan.record(&scratch)?;
            say(&format!(
                "  recovery from cut {number} ({:?}): {} requests, {} FLUSHes",
                cut.mode,
                recording.log.entries.len(),
                recording.flushes()
            ));
            let failed = tally.failed;
            let numbers: Vec<u64> = (0..NESTED_CUTS).collect();
            self.replay(&recording, seed, &numbers, &scratch, tally)?;
            if tally.failed > failed && !self.is_lie() {
                scratch.keep();
            }
        }
        Ok(())
    }

    fn tell(&self, violation: &Violation, recording: &Recording, seed: u64, disk: &Path) {
        let name = self.fs.name();
        let cut = &violation.cut;
        say(&format!(
            "VIOLATION on {name}: cut {} before request {} of {}, kept of the open epoch: {:?}, \
             its seed {:#x}",
            cut.number,
            cut.position,
            recording.log.entries.len(),
            cut.mode,
            cut.seed
        ));
        violation.problems.iter().take(4).for_each(|problem| say(&format!("    {problem}")));
        if self.is_lie() && !self.flags.has("keep") {
            return;
        }
        let kept = recording.dir.join(format!("cut-{}.img", cut.number));
        let _ = copy(disk, &kept);
        let dir = recording.dir.display();
        say(&format!(
            "    its disk is {}; again: cargo xtask power-loss --fs {name} --recording {dir} \
             --seed {seed} --only {}",
            kept.display(),
            cut.number
        ));
    }
}
