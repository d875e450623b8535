//! `cargo xtask kill-loop`: kill -9 of the demo's fleet, thousands of times, on a real file system.
//!
//! Each round a fleet of the binary `wal` writes through the libraries and is killed 5 to 300 ms
//! after its first word; a fresh process recovers the log and compares it with what this process
//! was told over the pipe. Logs are begun anew after some tens of rounds, because reading them back
//! comes to cost more and more. Rooms: [`told`].

mod told;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::power_loss::dice::Dice;
use crate::power_loss::flags::Flags;
use crate::power_loss::rig::{Res, Scratch, Stop};
use crate::power_loss::verdict;
use crate::say;
use told::Told;

const USAGE: &str = "cargo xtask kill-loop [--rounds N] [--jobs J] [--seed S] [--dir DIR]
  --rounds N   rounds in total (default 300)
  --jobs J     fleets at once, each on a log of its own (default 1)
  --per N      rounds of one log (default 25)
  --lossy      a fleet that acknowledges before it writes: succeeds if it is found out
  --dir DIR    where the logs go (default /var/tmp); a real file system, not memory";
const KILL_MS: (u64, u64) = (5, 300);
const AGENTS: u64 = 8;
const READY_WITHIN: Duration = Duration::from_secs(60);
const FAILURES_MAX: u64 = 5;

pub(crate) fn command(args: &[String]) -> ExitCode {
    let flags =
        match Flags::or_usage(args, &["rounds", "jobs", "seed", "dir", "per"], &["lossy"], USAGE) {
            Ok(flags) => flags,
            Err(exit) => return exit,
        };
    match Loop::of(&flags).and_then(|kills| kills.run()) {
        Ok(figures) if flags.has("lossy") => {
            let found_out = figures.failed > 0;
            say(if found_out { "the lie was found out" } else { "the lie was NOT found out" });
            verdict(Ok(None), u64::from(found_out), u64::from(!found_out))
        }
        Ok(figures) => verdict(Ok(None), figures.rounds, figures.failed),
        Err(e) => verdict(Err(e), 0, 0),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

struct Loop {
    wal: PathBuf,
    base: PathBuf,
    rounds: u64,
    jobs: u64,
    per: u64,
    seed: u64,
    lossy: bool,
    stop: Stop,
}

struct Figures {
    rounds: u64,
    failed: u64,
    in_flight: u64,
    entries: u64,
    changes: u64,
    rows: BTreeMap<String, u64>,
    cut_bytes: u64,
    recovery_us: Histogram<u64>,
    append_us: Histogram<u64>,
}

impl Loop {
    fn of(flags: &Flags) -> Res<Loop> {
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
        let (target, cfg) = match flags.has("lossy") {
            true => (format!("{target}/lossy"), "--cfg annals_lossy"),
            false => (target, ""),
        };
        let mut build = crate::cargo(&target, cfg);
        if !crate::run(build.args(["build", "--release", "-p", "annals-cli"])) {
            return Err("the binary `wal` does not build".into());
        }
        let wal = Path::new(&target).join("release/wal").canonicalize().map_err(text)?;
        let base = PathBuf::from(flags.text("dir").unwrap_or("/var/tmp"));
        Ok(Loop {
            wal,
            base,
            rounds: flags.number("rounds")?.unwrap_or(300),
            jobs: flags.number("jobs")?.unwrap_or(1).max(1),
            per: flags.number("per")?.unwrap_or(25).max(1),
            seed: flags.number("seed")?.unwrap_or(1),
            lossy: flags.has("lossy"),
            stop: Stop::on_signals(),
        })
    }

    fn run(&self) -> Res<Figures> {
        let mut scratch = Scratch::below(&self.base, "kill-loop")?;
        let fs = file_system(scratch.path())?;
        let Loop { rounds, jobs, per, seed, .. } = self;
        say(&format!(
            "seed {seed}, {rounds} rounds of {AGENTS} agents, {jobs} at once, {per} to a log, in \
             {} ({fs})",
            scratch.path().display()
        ));
        let figures = Mutex::new(Figures::new()?);
        let logs = AtomicU64::new(0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| self.job(scratch.path(), &logs, &figures));
            }
        });
        let figures = figures.into_inner().map_err(text)?;
        figures.lines(start.elapsed()).iter().for_each(|line| say(line));
        if figures.failed > 0 && !self.lossy {
            scratch.keep();
        }
        self.stop.check()?;
        if figures.entries == 0 && figures.failed == 0 {
            return Err("nothing was acknowledged before a kill, so nothing was proved".into());
        }
        Ok(figures)
    }

    /// Takes log after log until all rounds are done.
    fn job(&self, base: &Path, logs: &AtomicU64, figures: &Mutex<Figures>) {
        loop {
            let log = logs.fetch_add(1, Ordering::SeqCst);
            let first = log * self.per;
            if first >= self.rounds {
                return;
            }
            let dir = base.join(format!("log-{log}"));
            for round in first..self.rounds.min(first + self.per) {
                if self.stop.check().is_err() {
                    return;
                }
                let done = self.round(&dir, round);
                let Ok(mut figures) = figures.lock() else { return };
                match done {
                    Ok((told, verdict)) => figures.add(&told, &verdict),
                    Err(e) => {
                        figures.failed += 1;
                        let (seed, log) = (self.seed, dir.display());
                        say(&format!("round {round} (seed {seed}) FAILED: {e}; the log is {log}"));
                        if figures.failed >= FAILURES_MAX {
                            logs.store(u64::MAX / self.per / 2, Ordering::SeqCst);
                        }
                        // What is wrong with this log would be told again and again.
                        break;
                    }
                }
            }
            if figures.lock().is_ok_and(|figures| figures.failed == 0) {
                let _ = std::fs::remove_dir_all(&dir);
            }
        }
    }

    fn round(&self, dir: &Path, round: u64) -> Res<(Told, Value)> {
        let mut dice = Dice::of(&[self.seed, round]);
        let after =
            Duration::from_micros(1000 * KILL_MS.0 + dice.below(1000 * (KILL_MS.1 - KILL_MS.0)));
        let mut fleet = self.spawn("demo-fleet", dir, round, Stdio::null())?;
        let told = listen(&mut fleet, after);
        // Whatever happened, the fleet does not outlive its round.
        let _ = fleet.kill();
        let _ = fleet.wait();
        let told = told?;
        let verdict = self.check(dir, round, &told)?;
        Ok((told, verdict))
    }

    fn spawn(&self, verb: &str, dir: &Path, round: u64, stdin: Stdio) -> Res<Child> {
        let mut command = Command::new(&self.wal);
        command.arg(verb).arg(dir).args([AGENTS.to_string(), round.to_string()]);
        command.stdin(stdin).stdout(Stdio::piped()).spawn().map_err(text)
    }

    fn check(&self, dir: &Path, round: u64, told: &Told) -> Res<Value> {
        let mut child = self.spawn("demo-check", dir, round, Stdio::piped())?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(told.record().as_bytes()).map_err(text)?;
        }
        let output = child.wait_with_output().map_err(text)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict: Value = serde_json::from_str(said.trim())
            .map_err(|_| format!("the check ended without a verdict ({})", output.status))?;
        let problems = verdict["problems"].as_array().cloned().unwrap_or_default();
        if problems.is_empty() && output.status.success() {
            return Ok(verdict);
        }
        Err(problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "))
    }
}

/// Hears the fleet, kills it so long after its first word, and hears the rest of the pipe.
fn listen(fleet: &mut Child, after: Duration) -> Res<Told> {
    let pipe = fleet.stdout.take().ok_or("the fleet has no pipe")?;
    let (ready, is_ready) = mpsc::channel();
    let hearing = std::thread::spawn(move || {
        let (mut told, mut line) = (Told::default(), String::new());
        let mut pipe = BufReader::new(pipe);
        while pipe.read_line(&mut line).is_ok_and(|read| read > 0) {
            let was_ready = told.ready;
            told.hear(&line);
            if told.ready && !was_ready {
                let _ = ready.send(());
            }
            line.clear();
        }
        told
    });
    let died = "the fleet died by itself: see its message";
    is_ready.recv_timeout(READY_WITHIN).map_err(|_| died)?;
    if is_ready.recv_timeout(after) != Err(RecvTimeoutError::Timeout) {
        return Err(died.into());
    }
    fleet.kill().map_err(text)?;
    hearing.join().map_err(|_| died.into())
}

/// The name of the file system, which must be one that a kill could find asleep.
fn file_system(dir: &Path) -> Res<String> {
    let mut stat = Command::new("stat");
    let name = crate::power_loss::rig::output(stat.args(["-f", "-c", "%T"]).arg(dir))?;
    if ["tmpfs", "ramfs"].contains(&name.as_str()) {
        return Err(format!("{} is on {name}: name a --dir on a real disk", dir.display()));
    }
    Ok(name)
}

impl Figures {
    fn new() -> Res<Figures> {
        let histogram = || Histogram::new_with_bounds(1, 600_000_000, 3).map_err(text);
        Ok(Figures {
            rounds: 0,
            failed: 0,
            in_flight: 0,
            entries: 0,
            changes: 0,
            rows: BTreeMap::new(),
            cut_bytes: 0,
            recovery_us: histogram()?,
            append_us: histogram()?,
        })
    }

    fn add(&mut self, told: &Told, verdict: &Value) {
        let number = |name: &str| verdict[name].as_u64().unwrap_or(0);
        self.rounds += 1;
        self.in_flight += u64::from(told.in_flight());
        self.entries += told.entries();
        self.changes += told.changes();
        self.cut_bytes += number("cut_bytes");
        self.recovery_us.saturating_record(number("recovery_us"));
        told.micros.iter().for_each(|micros| self.append_us.saturating_record(*micros));
        *self.rows.entry(verdict["row"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
    }

    fn lines(&self, took: Duration) -> Vec<String> {
        let rows: Vec<_> = self.rows.iter().map(|(row, n)| format!("{row} x {n}")).collect();
        let percentiles = |of: &Histogram<u64>| {
            let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| of.value_at_quantile(q));
            format!("p50 {p50} us, p90 {p90} us, p99 {p99} us, max {} us", of.max())
        };
        let rounds = self.rounds.max(1) as f64;
        vec![
            format!(
                "  an append or change was in flight at {} of {} kills ({:.1} %)",
                self.in_flight,
                self.rounds,
                100.0 * self.in_flight as f64 / rounds
            ),
            format!("  acknowledged: {} entries, {} changes", self.entries, self.changes),
            format!("  rows {}; {} torn bytes cut", rows.join(", "), self.cut_bytes),
            format!("  recovery {}", percentiles(&self.recovery_us)),
            format!("  append   {}", percentiles(&self.append_us)),
            format!(
                "  {:.0} s, {:.2} rounds a second",
                took.as_secs_f64(),
                self.rounds as f64 / took.as_secs_f64().max(0.001)
            ),
        ]
    }
}
