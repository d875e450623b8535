//! One run of the plan: a window, a kill, a check; and the same in small under strace.
//!
//! A run has a fresh directory, which is deleted after its check. A child that wrote is killed, not
//! asked to close. Never here: who runs when. Invariant: a run that failed, or lost something, or
//! whose acknowledgements were not synced, is an error and never a figure.
//! Next rooms: [`crate::child`], [`crate::trace`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::args::Args;
use crate::child::{ROW, VERB};
use crate::engine::Outcome;
use crate::engines::Entry;
use crate::row::{Figures, Row};
use crate::trace::{self, Syncs};
use crate::workload::Workload;

/// Length of a traced window.
const TRACED_SECONDS: f64 = 0.5;

/// One cell of the plan.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) args: &'a Args,
    pub(crate) entry: Entry,
    pub(crate) workload: Workload,
    pub(crate) writers: usize,
}

/// Syncs for each acknowledgement, or why nobody knows.
pub(crate) type Counted = BTreeMap<(&'static str, usize), Result<(f64, Syncs), String>>;

impl Job<'_> {
    pub(crate) fn row(self, round: usize, counted: &Counted) -> Row {
        Row {
            engine: self.entry.name,
            workload: self.workload,
            writers: self.writers,
            size: self.workload.size(self.args),
            round,
            durable: self.entry.durable,
            verified: self.workload.scans().then_some(self.entry.scans_verified),
            load: crate::machine::load(),
            result: self.figures(counted).map_err(|error| error.to_string()),
        }
    }

    fn figures(self, counted: &Counted) -> Outcome<Figures> {
        let mut figures = self.timed()?;
        for writers in [self.workload.sharpest(self.entry), self.writers] {
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

    /// One sync can cover what was under way and no more: fewer syncs mean that somebody was told
    /// *durable* too early. With one writer that is exact; with many it is a bound, and an engine
    /// could hide below it, so both are asked. What an engine sends through a ring is not seen.
    fn judge(self, per_op: f64, syncs: &Syncs, writers: usize) -> Outcome<()> {
        let least = 0.99 / self.workload.records_per_sync_max(self.entry, writers) as f64;
        if self.entry.durable && per_op < least && syncs.rings == 0 {
            let what = format!("{per_op:.6} syncs an acknowledgement with {writers}");
            return Err(format!("{what} {}: not durable", self.workload.counts()).into());
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
        let mut verify = verify.arg(self.workload.name()).arg(counts.join(",")).spawn()?;
        let checked = self::answer(&mut verify);
        verify.wait()?;
        let records = checked.map_err(|error| format!("reopened: {error}"))?["records"].as_u64();
        let mut figures = Figures::of(&answer, records.ok_or("the check has no count")?)?;
        if self.workload == Workload::Processes4 {
            figures.split(&acknowledged(&answer)?);
        }
        Ok(figures)
    }

    /// The same window in small, under strace.
    pub(crate) fn count_syncs(self) -> Outcome<(f64, Syncs)> {
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
        let total = answer?["operations"].as_u64().ok_or("the child has no operations")?;
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
        let (size, seed) = (self.workload.size(self.args), self.args.seed);
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
