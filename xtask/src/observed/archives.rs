//! `cargo xtask archives`: archives of a log while eight writers write at full speed.
//!
//! First the writers alone, then the same with hand-overs to several targets at once, again and
//! again. At the end every acknowledged record must be in each archive or in the log, by its LSN and
//! content. Prints the writers' p99 in both halves and their ratio, and what handing over a segment
//! cost. Never here: a sleep to wait for a state; the halves are counted in appends and rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use annals_observer::archive::{Target, union, verify};
use annals_wal::{Log, Lsn, Options};
use hdrhistogram::Histogram;

use crate::power_loss::flags::Flags;
use crate::power_loss::rig::{Res, Scratch};
use crate::power_loss::verdict;
use crate::say;

const USAGE: &str = "cargo xtask archives [--rounds N] [--targets T] [--dir DIR]
  --rounds N   hand-overs of each target (default 20, so that five targets make 100)
  --targets T  archives made at the same time (default 5)
  --dir DIR    where log and archives go (default /var/tmp); a real file system, not memory";
const WRITERS: u64 = 8;
const BYTES: usize = 1_000;

pub(crate) fn command(args: &[String]) -> ExitCode {
    let flags = match Flags::parse(args, &["rounds", "targets", "dir"], &["help"]) {
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
    acknowledged: Mutex<BTreeMap<u64, [u8; 16]>>,
    appends: AtomicU64,
    done: AtomicBool,
}

fn run(flags: &Flags) -> Res<u64> {
    let rounds = flags.number("rounds")?.unwrap_or(20).max(1);
    let targets = flags.number("targets")?.unwrap_or(5).max(1);
    let scratch = Scratch::below(Path::new(flags.text("dir").unwrap_or("/var/tmp")), "archives")?;
    let path = scratch.path().join("log");
    let log = Options::new().segment_bytes(1 << 20).open(&path).map_err(text)?;
    let written = Written {
        acknowledged: Mutex::default(),
        appends: AtomicU64::new(0),
        done: AtomicBool::new(false),
    };
    let dirs: Vec<PathBuf> = (0..targets).map(|n| scratch.path().join(format!("to-{n}"))).collect();
    let archiving = AtomicBool::new(false);
    let (before, during, cost, segments) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (log, written, archiving) = (&log, &written, &archiving);
                scope.spawn(move || write(log, writer, written, archiving))
            })
            .collect();
        let made = archive(&log, &dirs, rounds, &written, &archiving);
        written.done.store(true, SeqCst);
        let (mut before, mut during) = (histogram()?, histogram()?);
        for writer in writers {
            let (one, two) = writer.join().map_err(|_| "a writer panicked".to_owned())??;
            before.add(one).map_err(text)?;
            during.add(two).map_err(text)?;
        }
        let (cost, segments) = made?;
        Ok::<_, String>((before, during, cost, segments))
    })?;
    let acknowledged = written.acknowledged.into_inner().map_err(text)?;
    for dir in &dirs {
        let held = verify::verify(dir).map_err(text)?;
        check(&log, dir, &acknowledged)?;
        say(&format!("{}: {} segments, verified", dir.display(), held.segments));
    }
    let p99 = |of: &Histogram<u64>| of.value_at_quantile(0.99) as f64 / 1e3;
    say(&format!(
        "{WRITERS} writers, {} records acknowledged; p99 {:.0} us alone ({} appends), {:.0} us while \
         {targets} archives were made ({} appends): ratio {:.2}",
        acknowledged.len(),
        p99(&before),
        before.len(),
        p99(&during),
        during.len(),
        p99(&during) / p99(&before).max(1.0),
    ));
    let ms = |quantile| cost.value_at_quantile(quantile) as f64 / 1e6;
    say(&format!(
        "{} hand-overs of {segments} segments; a segment cost {:.1} ms p50, {:.1} ms p99",
        rounds * targets,
        ms(0.5),
        ms(0.99),
    ));
    Ok(rounds * targets)
}

/// Appends until it is told to end; latencies in ns, before and while archives are made.
fn write(
    log: &Log,
    writer: u64,
    written: &Written,
    archiving: &AtomicBool,
) -> Res<(Histogram<u64>, Histogram<u64>)> {
    let (mut before, mut during) = (histogram()?, histogram()?);
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
        let under = archiving.load(SeqCst);
        let start = Instant::now();
        let lsn = log.append(&payload).map_err(text)?;
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if under { &mut during } else { &mut before }.record(took).map_err(text)?;
        mine.insert(lsn.get(), stamp);
        written.appends.fetch_add(1, SeqCst);
    }
    written.acknowledged.lock().map_err(text)?.extend(mine);
    Ok((before, during))
}

/// Waits for a second's worth of appends without archives, then makes them, each target in a thread
/// of its own. A round waits until at least one more segment is full.
fn archive(
    log: &Log,
    dirs: &[PathBuf],
    rounds: u64,
    written: &Written,
    archiving: &AtomicBool,
) -> Res<(Histogram<u64>, u64)> {
    let per_segment = (1 << 20) / (BYTES as u64 + 32);
    let until = |appends: u64| {
        while written.appends.load(SeqCst) < appends {
            std::thread::yield_now();
        }
    };
    until(20 * per_segment);
    archiving.store(true, SeqCst);
    let begun = written.appends.load(SeqCst);
    std::thread::scope(|scope| {
        let threads: Vec<_> = dirs
            .iter()
            .enumerate()
            .map(|(n, dir)| {
                scope.spawn(move || {
                    let target = Target::new(format!("to-{n}"), dir).map_err(text)?;
                    let (mut cost, mut segments) = (histogram()?, 0);
                    for round in 1..=rounds {
                        until(begun + round * per_segment);
                        let start = Instant::now();
                        let handed = target.hand_over(log).map_err(text)?;
                        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        segments += handed.segments;
                        if let Some(each) = took.checked_div(handed.segments) {
                            cost.record_n(each, handed.segments).map_err(text)?;
                        }
                    }
                    Ok::<_, String>((cost, segments))
                })
            })
            .collect();
        let (mut cost, mut segments) = (histogram()?, 0);
        for thread in threads {
            let (one, count) = thread.join().map_err(|_| "a hand-over panicked".to_owned())??;
            cost.add(one).map_err(text)?;
            segments += count;
        }
        Ok((cost, segments))
    })
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
