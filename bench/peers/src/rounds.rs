//! The parent's side: which engine runs when, and what becomes of its child.
//!
//! In every round every engine runs once for every number of writers; the order of the engines is
//! rotated by one from round to round, so that none is always first after another's garbage. A run
//! has a fresh directory, which is deleted after its check. A child that wrote is killed, not asked
//! to close. Syncs are counted in runs of their own, in the first round, so that no timed run is
//! slowed. Invariant: a run that failed, or lost something, or whose acknowledgements were not
//! synced, becomes a row with an error and never a figure. Next room: [`crate::table`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::args::{self, Args};
use crate::child::{ROW, VERB};
use crate::engine::Outcome;
use crate::engines::Entry;
use crate::row::{Figures, Row};
use crate::trace::{self, Syncs};
use crate::window::Workload;

/// Length of a traced window.
const TRACED_SECONDS: f64 = 0.5;

/// One cell of the plan.
#[derive(Clone, Copy)]
struct Job<'a> {
    args: &'a Args,
    entry: Entry,
    workload: Workload,
    writers: usize,
}

/// Syncs for each acknowledgement, or why nobody knows.
type Counted = BTreeMap<(&'static str, usize), Result<(f64, Syncs), String>>;

/// Runs the plan; each row is handed out as soon as it is there.
pub(crate) fn all(args: &Args, mut each: impl FnMut(&Row)) -> Outcome<Vec<Row>> {
    let strace = args.trace && strace_is_here();
    if args.trace && !strace {
        crate::say("strace is not here or may not trace: syncs are not counted (null)");
    }
    let mut rows = Vec::new();
    for &workload in &args.workloads {
        let mut counted = Counted::new();
        // One writer for every engine, also if nobody asked: what it says is the sharpest.
        for name in args.engines.iter().copied().filter(|_| strace) {
            let alone = Job { args, entry: args::engine(name)?, workload, writers: 1 };
            counted.insert((name, 1), alone.count_syncs().map_err(|error| error.to_string()));
        }
        for round in 1..=args.rounds {
            for &writers in &args.writers {
                for at in 0..args.engines.len() {
                    let name = args.engines[(at + round - 1) % args.engines.len()];
                    let job = Job { args, entry: args::engine(name)?, workload, writers };
                    if strace && !counted.contains_key(&(name, writers)) {
                        let syncs = job.count_syncs().map_err(|error| error.to_string());
                        counted.insert((name, writers), syncs);
                    }
                    let row = job.row(round, &counted);
                    each(&row);
                    rows.push(row);
                }
            }
        }
    }
    Ok(rows)
}

fn strace_is_here() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-f", "-qq", "-e", "trace=none", "true"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Job<'_> {
    fn row(self, round: usize, counted: &Counted) -> Row {
        Row {
            engine: self.entry.name,
            workload: self.workload,
            writers: self.writers,
            size: self.args.size,
            round,
            durable: self.entry.durable,
            load: crate::machine::load(),
            result: self.figures(counted).map_err(|error| error.to_string()),
        }
    }

    fn figures(self, counted: &Counted) -> Outcome<Figures> {
        let mut figures = self.timed()?;
        for writers in [1, self.writers] {
            if let Some(counted) = counted.get(&(self.entry.name, writers)) {
                let (per_op, syncs) =
                    counted.as_ref().map_err(|error| format!("traced: {error}"))?;
                figures.syncs_per_op = Some(*per_op);
                figures.sync_calls = syncs.names();
                self.judge(*per_op, syncs, writers)?;
            }
        }
        Ok(figures)
    }

    /// In a closed loop one sync can cover one append of each writer and no more: fewer syncs mean
    /// that somebody was told *durable* too early. With one writer that is exact; with many it is a
    /// bound, and an engine could hide below it, so both are asked.
    fn judge(self, per_op: f64, syncs: &Syncs, writers: usize) -> Outcome<()> {
        let least = 0.99 / writers as f64;
        if self.entry.durable && per_op < least && syncs.rings == 0 {
            let what = format!("{per_op:.3} syncs an acknowledgement with {writers}");
            return Err(format!("{what} writers: not durable").into());
        }
        Ok(())
    }

    /// A window, a kill, a check.
    fn timed(self) -> Outcome<Figures> {
        let dir = self.directory()?;
        let mut child = self.spawn(Command::new(program()?), dir.path(), self.args.seconds)?;
        let answer = answer(&mut child);
        child.kill()?; // without a close
        child.wait()?;
        let answer = answer?;
        let counts = acknowledged(&answer)?;
        let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
        let mut verify = self.child(Command::new(program()?), "verify", dir.path());
        let mut verify = verify.arg(counts.join(",")).spawn()?;
        let checked = self::answer(&mut verify);
        verify.wait()?;
        let records = checked.map_err(|error| format!("reopened: {error}"))?["records"].as_u64();
        Figures::of(&answer, records.ok_or("the check has no count")?)
    }

    /// The same window in small, under strace.
    fn count_syncs(self) -> Outcome<(f64, Syncs)> {
        let dir = self.directory()?;
        let log = TempDir::new()?;
        let log = log.path().join("strace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "--seccomp-bpf", "-s", "32", "-e", "signal=none"]);
        strace.args(["-e", &format!("trace={}", trace::CALLS), "-o"]).arg(&log);
        strace.arg("--").arg(program()?);
        let seconds = self.args.seconds.min(TRACED_SECONDS);
        let mut child = self.spawn(strace, dir.path(), seconds)?;
        let answer = answer(&mut child);
        drop(child.stdin.take()); // its end: this one is not killed, for strace's sake
        child.wait()?;
        let total: u64 = acknowledged(&answer?)?.iter().sum();
        let syncs = trace::parse(&std::fs::read_to_string(log)?)?;
        let per_op = syncs.total() as f64 / (total.max(1)) as f64;
        Ok((per_op, syncs))
    }

    fn directory(self) -> Outcome<TempDir> {
        Ok(tempfile::Builder::new().prefix("annals-peers-").tempdir_in(&self.args.dir)?)
    }

    fn spawn(self, program: Command, dir: &Path, seconds: f64) -> Outcome<Child> {
        let mut run = self.child(program, "run", dir);
        run.arg(self.workload.name()).args([self.writers.to_string(), seconds.to_string()]);
        Ok(run.spawn()?)
    }

    fn child(self, mut program: Command, verb: &str, dir: &Path) -> Command {
        let Args { size, seed, .. } = self.args;
        program.args([VERB, verb, self.entry.name]).arg(dir);
        program.args([size.to_string(), seed.to_string()]);
        program.env("WALRUS_DATA_DIR", dir).env("WALRUS_QUIET", "1");
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    }
}

fn program() -> Outcome<std::path::PathBuf> {
    Ok(std::env::current_exe()?)
}

/// The child's one line; if there is none, what it said instead.
fn answer(child: &mut Child) -> Outcome<Value> {
    let lines = BufReader::new(child.stdout.take().ok_or("the child has no output")?).lines();
    for line in lines {
        if let Some(row) = line?.strip_prefix(ROW) {
            return Ok(serde_json::from_str(row)?);
        }
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    let last = said.lines().rfind(|line| !line.starts_with("annals-peers-"));
    Err(last.unwrap_or("the child ended without a word").to_owned().into())
}

fn acknowledged(answer: &Value) -> Outcome<Vec<u64>> {
    let counts = answer["acknowledged"].as_array().ok_or("the child has no counts")?;
    let count = |value: &Value| value.as_u64().ok_or("a count is none");
    Ok(counts.iter().map(count).collect::<Result<_, _>>()?)
}
