//! `cargo xtask process-storm`: eight processes with four threads each on one shared log, a random
//! one killed every 50 ms and started again; then the log is compared with what each was told.
//!
//! Every process is this binary again ([`child`]); it says over a pipe what it begins and what it
//! was told, and the kill cannot take back what is in the pipe ([`ledger`]).
//!
//! Never here: what a kill of the machine does; that is the simulated processes'
//! (`wal/tests/shared.rs`). Invariant: what was acknowledged is looked for, each of it, and nothing
//! that nobody began may be there.

pub(crate) mod child;
mod ledger;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use annals_wal::inspect::{Depth, State, inspect};

use crate::power_loss::dice::Dice;
use crate::power_loss::flags::Flags;
use crate::power_loss::rig::{Res, Scratch, Stop};
use crate::power_loss::verdict;
use crate::say;
use child::Writes;
use ledger::Ledger;

const USAGE: &str =
    "cargo xtask process-storm [--writers registry|entries] [--minutes N] [--dir DIR]
  --writers W     what they write (default registry): increments of shared counters, or records
  --minutes N     for how long (default 10)
  --processes N   how many at once (default 8)
  --threads N     of each (default 4)
  --kill-every N  milliseconds between kills (default 50); 0 for none
  --seed S        of the kills (default 1)
  --dir DIR       where the log goes (default /var/tmp); a real file system, not memory";

/// The verb of a child.
pub(crate) const CHILD: &str = "process-storm-child";

pub(crate) fn command(args: &[String]) -> ExitCode {
    let valued =
        ["writers", "minutes", "seconds", "processes", "threads", "kill-every", "seed", "dir"];
    let flags = match Flags::or_usage(args, &valued, &[], USAGE) {
        Ok(flags) => flags,
        Err(exit) => return exit,
    };
    match Storm::of(&flags).and_then(|storm| storm.run()) {
        Ok((acknowledged, failures)) => {
            failures.iter().for_each(|failure| say(&format!("FAILED: {failure}")));
            verdict(Ok(None), acknowledged, failures.len() as u64)
        }
        Err(e) => verdict(Err(e), 0, 0),
    }
}

struct Storm {
    writes: Writes,
    time: Duration,
    processes: usize,
    threads: u64,
    kill_every: Duration,
    seed: u64,
    base: PathBuf,
    stop: Stop,
}

/// One place for a process, one after the other.
#[derive(Default)]
struct Slot {
    child: Mutex<Option<Child>>,
    starts: AtomicU64,
    by_itself: AtomicU64,
    ledger: Mutex<Ledger>,
}

impl Storm {
    fn of(flags: &Flags) -> Res<Storm> {
        let number =
            |name: &str, default: u64| Ok::<_, String>(flags.number(name)?.unwrap_or(default));
        let seconds = flags.number("seconds")?.unwrap_or(number("minutes", 10)? * 60);
        Ok(Storm {
            writes: Writes::parse(flags.text("writers").unwrap_or("registry"))?,
            time: Duration::from_secs(seconds),
            processes: usize::try_from(number("processes", 8)?).map_err(|e| e.to_string())?,
            threads: number("threads", 4)?,
            kill_every: Duration::from_millis(number("kill-every", 50)?),
            seed: number("seed", 1)?,
            base: PathBuf::from(flags.text("dir").unwrap_or("/var/tmp")),
            stop: Stop::on_signals(),
        })
    }

    fn run(&self) -> Res<(u64, Vec<String>)> {
        let mut scratch = Scratch::below(&self.base, "process-storm")?;
        let log = scratch.file("log");
        say(&format!(
            "{} processes x {} threads, {:?}, a kill every {:?}, seed {}, {}",
            self.processes,
            self.threads,
            self.writes,
            self.kill_every,
            self.seed,
            log.display()
        ));
        let slots: Vec<Slot> = (0..self.processes).map(|_| Slot::default()).collect();
        let over = AtomicBool::new(false);
        let begin = Instant::now();
        let kills = std::thread::scope(|scope| {
            for (index, slot) in slots.iter().enumerate() {
                let (over, log) = (&over, &log);
                scope.spawn(move || self.keep_one_alive(index, slot, log, over));
            }
            let kills = self.kill(&slots, begin);
            over.store(true, Ordering::Relaxed);
            // Its pipe closed, a process ends by itself and closes the log.
            slots
                .iter()
                .for_each(|slot| drop(locked(&slot.child).as_mut().and_then(|c| c.stdin.take())));
            kills
        });
        let seconds = begin.elapsed().as_secs_f64();
        let failures = self.judge(&slots, &log, kills, seconds)?;
        if !failures.is_empty() {
            scratch.keep();
            say(&format!("kept: {}", log.display()));
        }
        let acknowledged = slots.iter().map(|slot| locked(&slot.ledger).acknowledged()).sum();
        Ok((acknowledged, failures))
    }

    /// Starts it, hears it, and starts it again.
    fn keep_one_alive(&self, index: usize, slot: &Slot, log: &Path, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) && self.stop.check().is_ok() {
            let start = slot.starts.fetch_add(1, Ordering::Relaxed);
            let Ok(mut child) = spawn(self.writes, log, [index as u64, start, self.threads]) else {
                return;
            };
            let Some(out) = child.stdout.take() else { return };
            *locked(&slot.child) = Some(child);
            let mut lines = BufReader::new(out);
            let mut line = String::new();
            locked(&slot.ledger).begin(start);
            while matches!(lines.read_line(&mut line), Ok(read) if read > 0) {
                locked(&slot.ledger).hear(&line);
                line.clear();
            }
            locked(&slot.ledger).ended();
            let ended = locked(&slot.child).take().map(|mut child| child.wait());
            if let Some(Ok(status)) = ended
                && status.code().is_some()
                && !status.success()
            {
                slot.by_itself.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn kill(&self, slots: &[Slot], begin: Instant) -> u64 {
        let mut dice = Dice::new(self.seed);
        let mut kills = 0;
        while begin.elapsed() < self.time && self.stop.check().is_ok() {
            let pause =
                if self.kill_every.is_zero() { Duration::from_millis(50) } else { self.kill_every };
            pass(pause);
            if self.kill_every.is_zero() {
                continue;
            }
            if let Some(child) = &mut *locked(&slots[dice.index(slots.len())].child) {
                kills += u64::from(child.kill().is_ok());
            }
        }
        kills
    }

    fn judge(&self, slots: &[Slot], log: &Path, kills: u64, seconds: f64) -> Res<Vec<String>> {
        let ledgers: Vec<_> = slots.iter().map(|slot| locked(&slot.ledger)).collect();
        let acknowledged: Vec<u64> = ledgers.iter().map(|ledger| ledger.acknowledged()).collect();
        let unknown: u64 = ledgers.iter().map(|ledger| ledger.unknown()).sum();
        let total: u64 = acknowledged.iter().sum();
        let by_itself: u64 = slots.iter().map(|s| s.by_itself.load(Ordering::Relaxed)).sum();
        say(&format!(
            "{seconds:.0} s, {kills} kills, {by_itself} ended by themselves; {total} acknowledged \
             ({:.0}/s), {unknown} unknown; by slot {acknowledged:?}",
            total as f64 / seconds
        ));
        let report = inspect(log, Depth::Everything, &mut |_| ()).map_err(|e| e.to_string())?;
        let generation = report.generation.map_or(0, |generation| generation.0);
        say(&format!(
            "log: {:?}, generation {generation}, {} segments from LSN {}, last {:?}",
            report.state,
            report.segments.len(),
            report.head,
            report.last_lsn
        ));
        let mut failures = ledger::compare(&ledgers, self.writes, log)?;
        if report.state != State::Clean && report.state != State::Unclean {
            failures.push(format!("wal verify says {:?}: {:?}", report.state, report.findings));
        }
        for (slot, count) in acknowledged.iter().enumerate() {
            if *count == 0 {
                failures.push(format!("slot {slot} never got anywhere"));
            }
        }
        Ok(failures)
    }
}

fn spawn(writes: Writes, log: &Path, numbers: [u64; 3]) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(CHILD).arg(writes.name()).arg(log).args(numbers.map(|number| number.to_string()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

#[expect(clippy::disallowed_methods, reason = "kills come by the clock, not in an order")]
fn pass(time: Duration) {
    std::thread::sleep(time);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
