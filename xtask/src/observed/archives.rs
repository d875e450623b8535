//! `cargo xtask archives`: archives of a log while eight writers write at full speed.
//!
//! The writers alone, then the same with hand-overs to several targets at once, again and again,
//! each followed by a trim; then alone again, so that a disk that slows down is not taken for the
//! archives. At the end every acknowledged record must be in each archive or in the log, by its LSN
//! and content, and the log must have let go of its first segments, or the union would be the log.
//! Prints the writers' p99 in both halves and their ratio, and what handing over a segment cost.
//! Never here: a sleep or a spin to wait for a state; the halves are counted in appends and rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use annals_observer::archive::{Target, hand_over_all, union, verify};
use annals_wal::{Log, Lsn, Options};
use hdrhistogram::Histogram;

use crate::power_loss::flags::Flags;
use crate::power_loss::rig::{Res, Scratch};
use crate::power_loss::verdict;
use crate::say;

const USAGE: &str =
    "cargo xtask archives [--rounds N] [--targets T] [--one-thread] [--segment-mib M] [--ratio-max R]
                       [--dir DIR]
  --rounds N     hand-overs of each target, each followed by a trim (default 100)
  --targets T    archives made at the same time (default 5)
  --one-thread   one thread hands over to all targets, one after the other (hand_over_all)
  --segment-mib M  bytes of a segment, so how often one is full (default 1)
  --ratio-max R  fail if the writers' p99 is over R times that without archives (for a machine that
                 does nothing else; a whole number)
  --dir DIR      where log and archives go (default /var/tmp); a real file system, not memory";
const WRITERS: u64 = 8;
const BYTES: usize = 1_000;
/// Segments without archives, before and after.
const ALONE: u64 = 30;

pub(crate) fn command(args: &[String]) -> ExitCode {
    let flags = match Flags::parse(
        args,
        &["rounds", "targets", "segment-mib", "ratio-max", "dir"],
        &["one-thread", "help"],
    ) {
        Ok(flags) if !flags.has("help") => flags,
        Ok(_) => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            say(&format!("{e}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(&flags) {
        Ok(hand_overs) => verdict(Ok(None), hand_overs, 0),
        Err(e) => verdict(Err(e), 0, 1),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn histogram() -> Res<Histogram<u64>> {
    Histogram::new(3).map_err(text)
}

/// What the writers have seen.
struct Written {
    /// Appends that fill a segment.
    per_segment: u64,
    acknowledged: Mutex<BTreeMap<u64, [u8; 16]>>,
    appends: AtomicU64,
    done: AtomicBool,
    /// Archives are being made.
    archiving: AtomicBool,
    /// Told about every segment's worth of appends, and when a writer stops.
    steps: (Mutex<()>, Condvar),
}

impl Written {
    /// Waits for so many appends. They may never come: a writer that fails ends the wait.
    fn until(&self, appends: u64) -> Res<()> {
        let mut seat = self.steps.0.lock().unwrap_or_else(PoisonError::into_inner);
        while self.appends.load(SeqCst) < appends {
            if self.done.load(SeqCst) {
                return Err("the writers have stopped".to_owned());
            }
            seat = self.steps.1.wait(seat).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn tell(&self) {
        drop(self.steps.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.steps.1.notify_all();
    }

    fn stop(&self) {
        self.done.store(true, SeqCst);
        self.tell();
    }
}

/// What the archivers have seen.
struct Made {
    /// Of each segment, in ns.
    cost: Histogram<u64>,
    segments: u64,
    /// Trims that moved the head.
    trims: u64,
}

fn run(flags: &Flags) -> Res<u64> {
    let rounds = flags.number("rounds")?.unwrap_or(100).max(1);
    let targets = flags.number("targets")?.unwrap_or(5).max(1);
    let segment_bytes = flags.number("segment-mib")?.unwrap_or(1).clamp(1, 1 << 10) << 20;
    let scratch = Scratch::below(Path::new(flags.text("dir").unwrap_or("/var/tmp")), "archives")?;
    let path = scratch.path().join("log");
    let log = Options::new().segment_bytes(segment_bytes).open(&path).map_err(text)?;
    let written = Written {
        per_segment: segment_bytes / (BYTES as u64 + 32),
        acknowledged: Mutex::default(),
        appends: AtomicU64::new(0),
        done: AtomicBool::new(false),
        archiving: AtomicBool::new(false),
        steps: (Mutex::new(()), Condvar::new()),
    };
    let dirs: Vec<PathBuf> = (0..targets).map(|n| scratch.path().join(format!("to-{n}"))).collect();
    let mut all = Vec::new();
    for (n, dir) in dirs.iter().enumerate() {
        let target = Target::new(format!("to-{n}"), dir).map_err(text)?;
        // Each has its hold before anybody trims, or one that comes late finds a log without its
        // beginning.
        target.hand_over(&log).map_err(text)?;
        all.push(target);
    }
    let (alone, during, made) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (log, written) = (&log, &written);
                scope.spawn(move || {
                    let wrote = write(log, writer, written);
                    written.stop(); // one that fails ends all
                    wrote
                })
            })
            .collect();
        let groups: Vec<Vec<Target>> = if flags.has("one-thread") {
            vec![all]
        } else {
            all.into_iter().map(|target| vec![target]).collect()
        };
        let made = archive(&log, &groups, rounds, &written);
        written.stop();
        let (mut alone, mut during) = (histogram()?, histogram()?);
        for writer in writers {
            let (one, two) = writer.join().map_err(|_| "a writer panicked".to_owned())??;
            alone.add(one).map_err(text)?;
            during.add(two).map_err(text)?;
        }
        Ok::<_, String>((alone, during, made?))
    })?;
    let acknowledged = written.acknowledged.into_inner().map_err(text)?;
    let head = log.head_lsn();
    if head == Lsn::FIRST || made.trims < rounds / 2 {
        let trims = made.trims;
        return Err(format!("{trims} trims moved the head, to {head}: the log alone has it all"));
    }
    for dir in &dirs {
        let held = verify::verify(dir).map_err(text)?;
        check(&log, dir, &acknowledged)?;
        say(&format!("{}: {} segments, verified", dir.display(), held.segments));
    }
    let p99 = |of: &Histogram<u64>| of.value_at_quantile(0.99) as f64 / 1e3;
    let ratio = p99(&during) / p99(&alone).max(1.0);
    say(&format!(
        "{WRITERS} writers, {} records acknowledged, head at {head} after {} trims; p99 {:.0} us alone \
         ({} appends), {:.0} us while {targets} archives were made ({} appends): ratio {ratio:.2}",
        acknowledged.len(),
        made.trims,
        p99(&alone),
        alone.len(),
        p99(&during),
        during.len(),
    ));
    let ms = |quantile| made.cost.value_at_quantile(quantile) as f64 / 1e6;
    say(&format!(
        "{} hand-overs of {} segments; a segment cost {:.1} ms p50, {:.1} ms p99, {:.1} ms at most",
        rounds * targets,
        made.segments,
        ms(0.5),
        ms(0.99),
        ms(1.0),
    ));
    match flags.number("ratio-max")? {
        Some(max) if ratio > max as f64 => Err(format!("p99 is {ratio:.2} times that alone")),
        _ => Ok(rounds * targets),
    }
}

/// Appends until it is told to end; latencies in ns, without and with archives being made.
fn write(log: &Log, writer: u64, written: &Written) -> Res<(Histogram<u64>, Histogram<u64>)> {
    let (mut alone, mut during) = (histogram()?, histogram()?);
    let mut mine = BTreeMap::new();
    let mut payload = vec![b'x'; BYTES];
    for n in 0u64.. {
        if written.done.load(SeqCst) {
            break;
        }
        let mut stamp = [0; 16];
        stamp[..8].copy_from_slice(&writer.to_le_bytes());
        stamp[8..].copy_from_slice(&n.to_le_bytes());
        payload[..16].copy_from_slice(&stamp);
        let under = written.archiving.load(SeqCst);
        let start = Instant::now();
        let lsn = log.append(&payload).map_err(text)?;
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if under { &mut during } else { &mut alone }.record(took).map_err(text)?;
        mine.insert(lsn.get(), stamp);
        if (written.appends.fetch_add(1, SeqCst) + 1).is_multiple_of(written.per_segment) {
            written.tell();
        }
    }
    written.acknowledged.lock().map_err(text)?.extend(mine);
    Ok((alone, during))
}

/// Waits for appends without archives, then makes them, each group of targets in a thread of its
/// own, then waits again. A round waits until at least one more segment is full.
fn archive(log: &Log, groups: &[Vec<Target>], rounds: u64, written: &Written) -> Res<Made> {
    // The first appends make files and warm what there is to warm.
    written.until((1 + ALONE) * written.per_segment)?;
    written.archiving.store(true, SeqCst);
    let begun = written.appends.load(SeqCst);
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .iter()
            .map(|targets| scope.spawn(move || rounds_of(log, targets, rounds, begun, written)))
            .collect();
        let mut made = Made { cost: histogram()?, segments: 0, trims: 0 };
        for thread in threads {
            let one = thread.join().map_err(|_| "a hand-over panicked".to_owned())??;
            made.cost.add(one.cost).map_err(text)?;
            made.segments += one.segments;
            made.trims += one.trims;
        }
        Ok::<_, String>(made)
    })?;
    written.archiving.store(false, SeqCst);
    written.until(written.appends.load(SeqCst) + ALONE * written.per_segment)?;
    Ok(made)
}

fn rounds_of(
    log: &Log,
    targets: &[Target],
    rounds: u64,
    begun: u64,
    written: &Written,
) -> Res<Made> {
    let mut made = Made { cost: histogram()?, segments: 0, trims: 0 };
    for round in 1..=rounds {
        written.until(begun + round * written.per_segment)?;
        let start = Instant::now();
        let handed = hand_over_all(log, targets);
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (mut segments, mut lowest) = (0, None);
        for (name, handed) in handed {
            let handed = handed.map_err(|e| format!("{name}: {e}"))?;
            segments += handed.segments;
            lowest = lowest.into_iter().chain([handed.next_lsn]).min();
        }
        made.segments += segments;
        if let Some(each) = took.checked_div(segments) {
            made.cost.record_n(each, segments).map_err(text)?;
        }
        let before = log.head_lsn();
        // As far as the other targets have come, too.
        let head = log.trim(lowest.unwrap_or(before)).map_err(text)?;
        made.trims += u64::from(head > before);
    }
    Ok(made)
}

/// The union of this archive and the log is what was acknowledged, each LSN once.
fn check(log: &Log, dir: &Path, acknowledged: &BTreeMap<u64, [u8; 16]>) -> Res<()> {
    let mut expected = acknowledged.iter();
    for record in union::union(log, &[dir], Lsn::FIRST).map_err(text)? {
        let record = record.map_err(text)?;
        let Some((lsn, stamp)) = expected.next() else {
            return Err(format!("LSN {} was never acknowledged", record.lsn));
        };
        if record.lsn.get() != *lsn || record.payload.get(..16) != Some(&stamp[..]) {
            return Err(format!("LSN {} instead of {lsn}, or other bytes", record.lsn));
        }
    }
    match expected.next() {
        Some((lsn, _)) => Err(format!("LSN {lsn} was acknowledged and is nowhere")),
        None => Ok(()),
    }
}
