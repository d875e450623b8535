//! `damage-table`: damages that know nothing of the format, and what the diagnosis calls them.
//!
//! Half of the logs are damaged where they were written, so that their control block counts; half
//! after a copy, so that it does not. Invariants: no damaged byte is ever delivered as good; nothing
//! that was promised is lost without a word, but for the residue that the design names; every
//! class that is not the expected one has its reason in the table, and a miss without one fails the
//! run. Rooms: [`harm`] (the damage), [`judge`] (what it should have been called), [`page`].

mod harm;
mod judge;
mod page;

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use annals_wal::diagnose::{Diagnosis, Scope, diagnose};
use annals_wal::inspect::Depth;
use annals_wal::{Batch, LogReader, Options, Record};
use xtask::world::Random;

use crate::say;
use crate::tally::option;
use harm::{Act, Files};

/// One damage and what came of it.
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) act: Act,
    pub(crate) in_place: bool,
    pub(crate) what: String,
    pub(crate) before: Files,
    pub(crate) after: Files,
    pub(crate) diagnosis: Result<Diagnosis, annals_wal::Error>,
    /// Records that were there before and are not read any more.
    pub(crate) lost: usize,
    /// Records that were read and are not what was written.
    pub(crate) wrong: usize,
}

pub(crate) fn command() -> ExitCode {
    let seeds = option("--seeds").map_or(Ok(1000), |text| text.parse::<u64>());
    let (Ok(seeds), from) = (seeds, option("--from").and_then(|t| t.parse().ok()).unwrap_or(0))
    else {
        say("--seeds wants a number");
        return ExitCode::from(2);
    };
    let home = std::env::temp_dir().join(format!("annals-damage-{}", std::process::id()));
    let mut cases = Vec::new();
    let mut failed = 0u64;
    for seed in from..from + seeds {
        match case(&home, seed) {
            Ok(case) => cases.push(page::Row::of(&case)),
            Err(error) => {
                failed += 1;
                say(&format!("seed {seed}: {error}"));
            }
        }
    }
    if std::env::var_os("ANNALS_KEEP").is_none() {
        let _ = fs::remove_dir_all(&home);
    }
    for row in cases.iter().filter(|row| row.failure.is_some()) {
        failed += 1;
        say(&format!("seed {}: {}", row.seed, row.failure.as_deref().unwrap_or_default()));
    }
    let page = page::page(&cases);
    if from == 0 && seeds == 1000 {
        if let Err(error) = fs::write("docs/DAMAGE.md", &page) {
            say(&format!("docs/DAMAGE.md: {error}"));
            return ExitCode::FAILURE;
        }
        say("docs/DAMAGE.md written");
    }
    say(&page);
    say(&format!("{} passed, {failed} failed", seeds - failed.min(seeds)));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn case(home: &Path, seed: u64) -> Result<Case, Box<dyn std::error::Error>> {
    let _ = fs::remove_dir_all(home);
    fs::create_dir_all(home)?;
    let mut random = Random(seed);
    let made = home.join("log");
    let records = make(&made, &mut random)?;
    let in_place = random.one_in(2);
    let dir = if in_place { made } else { copy(&made, &home.join("copy"))? };
    let before = harm::files(&dir)?;
    let act = Act::ALL[(seed % Act::ALL.len() as u64) as usize];
    let what = harm::harm(&dir, act, &mut random)?;
    let after = harm::files(&dir)?;
    let scope = Scope { depth: Depth::Everything, maps: true, threads: 1 };
    if std::env::var_os("ANNALS_KEEP").is_some() {
        say(&format!("{}: {what}", dir.display()));
    }
    let diagnosis = diagnose(&dir, scope, &mut |_| ());
    if harm::files(&dir)? != after {
        return Err("diagnosing changed the directory".into());
    }
    let (lost, wrong) = read(&dir, &records);
    Ok(Case { seed, act, in_place, what, before, after, diagnosis, lost, wrong })
}

/// A log of some segments; closed, or left as a process leaves it that ends without a close.
fn make(dir: &Path, random: &mut Random) -> annals_wal::Result<Vec<Vec<u8>>> {
    let log = Options::new().segment_bytes(64 << 10).open(dir)?;
    let mut records = Vec::new();
    let until = 2 + random.below(4);
    while log.stats().rotations < until {
        let batch: Vec<Vec<u8>> = (0..1 + random.below(4))
            .map(|_| {
                let len = [20, 200, 2000, 9000][random.below(4) as usize] + random.below(100);
                (0..len).map(|_| 1 + (random.draw() % 255) as u8).collect()
            })
            .collect();
        log.append_batch(batch.iter().map(Record::new).collect::<Batch<'_>>())?;
        records.extend(batch);
    }
    // Whether there is a spare must not hang on how fast the log's own thread was.
    log.prepare_ahead()?;
    if random.one_in(2) {
        log.close()?;
        return Ok(records);
    }
    drop(log);
    // The log's own thread lets go of the lock when it is done.
    while LogReader::open(dir)?.is_live()? {
        std::thread::yield_now();
    }
    Ok(records)
}

fn copy(from: &Path, to: &Path) -> io::Result<std::path::PathBuf> {
    fs::create_dir(to)?;
    for (name, bytes) in harm::files(from)? {
        fs::write(to.join(name), bytes)?;
    }
    Ok(to.to_owned())
}

/// How many records are lost, and how many come back as something else.
fn read(dir: &Path, records: &[Vec<u8>]) -> (usize, usize) {
    let Ok(reader) = LogReader::open(dir) else { return (records.len(), 0) };
    let Ok(range) = reader.unproven(true).range(..) else { return (records.len(), 0) };
    let (mut read, mut wrong) = (0, 0);
    for record in range {
        let Ok(record) = record else { break };
        read += 1;
        let due = records.get((record.lsn.get() - 1) as usize);
        wrong += usize::from(due != Some(&record.payload));
    }
    (records.len().saturating_sub(read), wrong)
}
