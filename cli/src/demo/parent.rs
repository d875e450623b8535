//! The parent: starts the fleet, collects acknowledgements, kills, has the log checked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;

use super::record::{Line, Record};
use crate::args::DemoArgs;
use crate::exit::{Exit, Failure};

/// How long the fleet may take to open the log.
const READY_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Fleet<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) agents: u32,
    pub(crate) round: u32,
    /// Whether the moment of the kill is counted from the first acknowledgement and not from the
    /// opening: for the last round of a demo in which a slow disk has acknowledged nothing yet.
    pub(crate) until_acknowledged: bool,
}

/// What the reader of the fleet's lines tells at once.
#[derive(PartialEq, Eq)]
enum Told {
    Ready,
    /// Something was acknowledged, for the first time.
    Acknowledged,
}

/// What the rounds came to.
pub(crate) struct Figures {
    rounds: u64,
    in_flight: u64,
    entries: u64,
    changes: u64,
    found_entries: u64,
    found_changes: u64,
    writing: Duration,
    append_us: Histogram<u64>,
    recovery_us: Histogram<u64>,
    rows: std::collections::BTreeMap<String, u64>,
    cut_bytes: u64,
}

impl Fleet<'_> {
    /// One round: write, kill, check. The error says what was lost.
    pub(crate) fn round(&self, kill_after_ms: f64, figures: &mut Figures) -> Result<(), Failure> {
        let mut child = self.spawn("demo-fleet", Stdio::null())?;
        let told = self.listen(&mut child, kill_after_ms, figures);
        // Whatever happened, the child does not outlive the round.
        let _ = child.kill();
        let _ = child.wait();
        let record = told?;
        let verdict = self.check(&record)?;
        figures.add(&record, &verdict);
        Ok(())
    }

    fn spawn(&self, verb: &str, stdin: Stdio) -> Result<Child, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(verb).arg(self.dir).arg(self.agents.to_string()).arg(self.round.to_string());
        Ok(command.stdin(stdin).stdout(Stdio::piped()).spawn()?)
    }

    /// Reads the fleet's lines, kills it at the moment, and reads on to the end of the pipe.
    fn listen(
        &self,
        child: &mut Child,
        kill_after_ms: f64,
        figures: &mut Figures,
    ) -> Result<Record, Failure> {
        let stdout = child.stdout.take();
        let pipe = stdout.ok_or_else(|| Failure::new(Exit::Failed, "the fleet has no pipe"))?;
        let (tell, told) = mpsc::channel();
        let reader = std::thread::spawn(move || read_lines(BufReader::new(pipe), &tell));
        let died = || Failure::new(Exit::Failed, "the fleet died by itself: see its message");
        let from = if self.until_acknowledged { Told::Acknowledged } else { Told::Ready };
        while told.recv_timeout(READY_WITHIN).map_err(|_| died())? != from {}
        let start = Instant::now();
        let moment = Duration::from_secs_f64(kill_after_ms / 1000.0);
        // This waits for the moment, or for the fleet's own end.
        loop {
            match told.recv_timeout(moment.saturating_sub(start.elapsed())) {
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(died()),
                Ok(_) => {}
            }
        }
        child.kill()?;
        figures.writing += start.elapsed();
        child.wait()?;
        let (record, micros) = reader.join().map_err(|_| died())?;
        for value in micros {
            figures.append_us.saturating_record(value);
        }
        Ok(record)
    }

    fn check(&self, record: &Record) -> Result<Value, Failure> {
        let mut child = self.spawn("demo-check", Stdio::piped())?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(record.to_lines().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict: Value = serde_json::from_str(said.trim()).map_err(|_| {
            Failure::new(Exit::Failed, "the check ended without a verdict: see its message")
        })?;
        let problems = verdict["problems"].as_array().cloned().unwrap_or_default();
        if problems.is_empty() && output.status.success() {
            return Ok(verdict);
        }
        let all: Vec<_> = problems.iter().filter_map(Value::as_str).collect();
        Err(Failure::new(Exit::Failed, all.join("; ")))
    }
}

/// Everything up to the end of the pipe; a line that the kill has cut was not said.
fn read_lines(mut pipe: impl BufRead, tell: &mpsc::Sender<Told>) -> (Record, Vec<u64>) {
    let (mut record, mut micros, mut line) = (Record::default(), Vec::new(), String::new());
    while pipe.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Some(said) = Line::parse(&line) {
            match said {
                Line::Ready => drop(tell.send(Told::Ready)),
                Line::Done { micros: took, .. } => {
                    if micros.is_empty() {
                        let _ = tell.send(Told::Acknowledged);
                    }
                    micros.push(took);
                }
                _ => {}
            }
            record.note(said);
        }
        line.clear();
    }
    (record, micros)
}

impl Figures {
    pub(crate) fn new() -> Result<Figures, Failure> {
        let histogram = || {
            Histogram::new_with_bounds(1, 600_000_000, 3)
                .map_err(|e| Failure::new(Exit::Failed, e.to_string()))
        };
        Ok(Figures {
            rounds: 0,
            in_flight: 0,
            entries: 0,
            changes: 0,
            found_entries: 0,
            found_changes: 0,
            writing: Duration::ZERO,
            append_us: histogram()?,
            recovery_us: histogram()?,
            rows: std::collections::BTreeMap::new(),
            cut_bytes: 0,
        })
    }

    fn add(&mut self, record: &Record, verdict: &Value) {
        self.rounds += 1;
        self.in_flight += u64::from(record.in_flight());
        self.entries += record.entries();
        self.changes += record.changes();
        let number = |name: &str| verdict[name].as_u64().unwrap_or(0);
        self.found_entries += number("entries");
        self.found_changes += number("changes");
        self.cut_bytes += number("cut_bytes");
        self.recovery_us.saturating_record(number("recovery_us"));
        *self.rows.entry(verdict["row"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.entries + self.changes
    }

    pub(crate) fn lines(&self, args: &DemoArgs) -> Vec<String> {
        let us = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile);
        let rate = self.acknowledged() as f64 / self.writing.as_secs_f64().max(0.001);
        let rows: Vec<_> = self.rows.iter().map(|(row, n)| format!("{row} x {n}")).collect();
        vec![
            String::new(),
            format!(
                "proved in {} round(s) of {} agents, each killed with SIGKILL and read back by a \
                 fresh process:",
                self.rounds, args.agents
            ),
            format!(
                "  every acknowledged entry ({}) and registry change ({}) is there, with its hash",
                self.entries, self.changes
            ),
            format!(
                "  nothing was invented: {} entries and {} changes found, each of them begun; \
                 counts agree",
                self.found_entries, self.found_changes
            ),
            format!(
                "  an append was in flight at {} of {} kills ({:.0} %)",
                self.in_flight,
                self.rounds,
                100.0 * self.in_flight as f64 / self.rounds.max(1) as f64
            ),
            String::new(),
            format!("  acknowledged        {rate:.0} a second"),
            format!(
                "  append              p50 {} us, p99 {} us (durable on return)",
                us(&self.append_us, 0.50),
                us(&self.append_us, 0.99)
            ),
            format!(
                "  recovery            p50 {} us, max {} us; rows {}; {} torn bytes cut",
                us(&self.recovery_us, 0.50),
                self.recovery_us.max(),
                rows.join(", "),
                self.cut_bytes
            ),
        ]
    }
}
