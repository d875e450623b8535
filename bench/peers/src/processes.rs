//! Several processes that change one registry at once: who starts them, and what each of them does.
//!
//! The run's child makes the registry and closes it; then it starts the processes, which open it and
//! say so, and lets them begin together with a line on each one's standard input. Each counts and
//! times its own calls; the child adds them up and kills them, without a close. Never here: a
//! registry's name. Invariants: the window begins when all have opened; a process that failed makes
//! the run an error; none outlives the child, for its standard input ends then.
//! Next room: [`crate::window`].

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::child::{self, ROW};
use crate::engine::{Failure, Outcome, Setup};
use crate::store::{Start, Store};
use crate::window::{Measured, end, histogram, nanos_since};

/// The verb of one of them: `member ENGINE DIR WORKLOAD WRITERS SECONDS NUMBER`.
pub(crate) const VERB: &str = "member";

/// One of them, as it was ordered.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) setup: Setup,
    pub(crate) number: usize,
}

/// Opens, says so, waits for the start, changes one agent after the other, and tells.
pub(crate) fn member<S: Store>(member: &Member) -> Outcome<()> {
    let setup = &member.setup;
    let start = Start::of(setup.workload, setup.writers);
    let store = S::join(setup, &start)?;
    crate::say(&format!("{ROW}{}", json!({ "ready": true })));
    std::io::stdin().lock().read_line(&mut String::new())?;
    let mut latency = histogram()?;
    let (began, end) = (Instant::now(), end(setup));
    let mut count = 0;
    loop {
        let key = start.key_of(member.number, count);
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        store.increment(key)?;
        latency.saturating_record(nanos_since(begin)?);
        count += 1;
    }
    let elapsed_ns = nanos_since(began)?;
    let latency: Vec<(u64, u64)> = latency
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect();
    crate::say(&format!(
        "{ROW}{}",
        json!({ "count": count, "elapsed_ns": elapsed_ns, "latency": latency })
    ));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// All of them, open and waiting for the start.
pub(crate) struct Members(Vec<Running>);

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Members {
    pub(crate) fn start<S: Store>(setup: &Setup) -> Outcome<Members> {
        let mut members = Members(Vec::new());
        for number in 0..setup.writers {
            let mut command = Command::new(std::env::current_exe()?);
            command.args([child::VERB, VERB, S::NAME]).arg(&setup.dir);
            command.args([setup.workload.name(), &setup.writers.to_string()]);
            command.args([setup.seconds.to_string(), number.to_string()]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn()?;
            let stdout = child.stdout.take().ok_or("a process has no output")?;
            members.0.push(Running { child, lines: BufReader::new(stdout) });
        }
        for (number, running) in members.0.iter_mut().enumerate() {
            running.answer(number)?;
        }
        Ok(members)
    }

    /// From the start to the last one's end.
    pub(crate) fn measure(mut self) -> Outcome<Measured> {
        for running in &mut self.0 {
            let stdin = running.child.stdin.as_mut().ok_or("a process has no input")?;
            stdin.write_all(b"\n")?;
        }
        let mut measured = Measured {
            acknowledged: Vec::new(),
            operations: 0,
            elapsed: Duration::ZERO,
            latency: histogram()?,
            rotations: None,
        };
        for (number, running) in self.0.iter_mut().enumerate() {
            let answer = running.answer(number)?;
            let figure = |name: &str| answer[name].as_u64().ok_or(format!("no {name}"));
            let count = figure("count")?;
            measured.acknowledged.push(count);
            measured.operations += count;
            measured.elapsed = measured.elapsed.max(Duration::from_nanos(figure("elapsed_ns")?));
            add(&mut measured.latency, &answer["latency"])?;
        }
        Ok(measured)
    }
}

/// Killed in the middle of nothing, but without a close: what they were told must be there.
impl Drop for Members {
    fn drop(&mut self) {
        for running in &mut self.0 {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Running {
    fn answer(&mut self, number: usize) -> Outcome<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line)? == 0 {
                return Err(Failure::from(format!("process {number} ended without an answer")));
            }
            if let Some(row) = line.strip_prefix(ROW) {
                return Ok(serde_json::from_str(row)?);
            }
        }
    }
}

/// Adds what a process recorded: each value with how often it came.
fn add(latency: &mut Histogram<u64>, recorded: &Value) -> Outcome<()> {
    let pairs: Vec<(u64, u64)> = serde_json::from_value(recorded.clone())?;
    for (value, count) in pairs {
        latency.saturating_record_n(value, count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_that_was_told_is_the_same_histogram() {
        let mut told = histogram().unwrap();
        (0..10_000u64).for_each(|n| told.saturating_record(n * n * 37));
        let pairs: Vec<(u64, u64)> = told
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
            .collect();
        let mut heard = histogram().unwrap();
        add(&mut heard, &json!(pairs)).unwrap();
        assert_eq!(heard, told);
        assert!(add(&mut heard, &json!("nothing")).is_err());
    }
}
