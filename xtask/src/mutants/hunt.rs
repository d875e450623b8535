//! Runs the proofs against one mutant, each in a process of its own, and says which one killed it.
//!
//! Never here: the proofs. Invariant: a process that waits for ever, or works for ever, is ended and
//! counted as found: what hangs was noticed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::judge::{self, Line};
use super::table::{LATCH, Mutant, PREPARE, SPARE};

/// Who chose the mutant: read by `wal/src/mutant.rs`.
const CHOICE: &str = "ANNALS_MUTANT";
/// A process that used no processor for so long waits for ever.
const IDLE_MAX: Duration = Duration::from_secs(40);
/// So does one that said nothing for so long and used less than a tenth of a processor: a registry's
/// sweeper goes its rounds while the test that owns it waits.
const SILENT_MAX: Duration = Duration::from_secs(300);

/// What only real threads meet.
const THREADED: [&str; 3] = [LATCH, PREPARE, SPARE];

/// How it went for a mutant.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// By this proof, which saw this.
    Killed { by: String, saw: String },
    /// By none.
    Survived(String),
}

/// What is run against each.
pub(crate) struct Proofs {
    /// The conformance suite of the directory seam.
    pub(crate) seam: PathBuf,
    /// The log's test of real threads, which the world has not.
    pub(crate) threads: PathBuf,
    /// The log's tests of several processes, of what the two of the world do not meet.
    pub(crate) shared: PathBuf,
    /// The registry's tests on the crashable directory.
    pub(crate) rooms: PathBuf,
    /// The observer's tests of archives on it: nobody copies a log to the world's disk without a sync.
    pub(crate) archives: PathBuf,
    /// The tests of levels and of the waits for room: the world waits for durability alone.
    pub(crate) waits: [PathBuf; 2],
    /// This program, built with the mutants.
    pub(crate) xtask: PathBuf,
    /// Processor seconds that a process may use.
    pub(crate) seconds_max: u64,
}

impl Proofs {
    /// What is run.
    pub(crate) fn programs(&self) -> [&PathBuf; 8] {
        let [levels, room] = &self.waits;
        let Proofs { seam, threads, shared, rooms, archives, xtask, .. } = self;
        [seam, threads, shared, levels, room, rooms, archives, xtask]
    }

    /// The proofs against this mutant, or against the code as it is.
    pub(crate) fn hunt(&self, mutant: Option<&Mutant>) -> Fate {
        let run = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).env_remove(CHOICE);
            if let Some(mutant) = mutant {
                command.env(CHOICE, mutant.name);
            }
            self.watch(&mut command)
        };
        // Sweepers, writers and threads beside a snapshot are not in the world.
        let rooms = mutant.is_none_or(|mutant| mutant.file.starts_with("registry/"));
        // Sleepers and the log's own preparer are not there either.
        let threads = mutant.is_none_or(|mutant| THREADED.contains(&mutant.file));
        // Neither is a caller that waits for less than durability, or for room as a future does.
        let waits = mutant.is_none_or(|mutant| {
            ["written:", "room:", "close:futures"].iter().any(|w| mutant.name.starts_with(w))
        });
        let shared = mutant.is_none_or(|mutant| mutant.name.starts_with("share:"));
        let archives = mutant.is_none_or(|mutant| {
            ["archive:", "sync:Archive"].iter().any(|a| mutant.name.starts_with(a))
        });
        let suites = [
            (true, "conformance", &self.seam, "1"),
            (threads, "threads", &self.threads, "1"),
            (shared, "shared", &self.shared, "2"),
            (waits, "levels", &self.waits[0], "2"),
            (waits, "room", &self.waits[1], "2"),
            (rooms, "registry", &self.rooms, "2"),
            (archives, "archives", &self.archives, "2"),
        ];
        let died = suites.into_iter().filter(|(wanted, ..)| *wanted).find_map(
            |(_, label, program, jobs)| suite(label, run(program, &["--test-threads", jobs])),
        );
        let whole: &[&str] =
            if mutant.is_some() { &[judge::VERB, "whole"] } else { &[judge::VERB] };
        died.unwrap_or_else(|| world(run(&self.xtask, whole)))
    }

    fn watch(&self, command: &mut Command) -> Ended {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match child.spawn() {
            Ok(child) => child,
            Err(e) => return Ended { lines: vec![e.to_string()], how: How::NotStarted },
        };
        let lines = lines_of(&mut child);
        let mut ended = Ended { lines: Vec::new(), how: How::NotStarted };
        let (mut used, mut since) = (0.0, Instant::now());
        let (mut used_before, mut silent_since) = (0.0, Instant::now());
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    ended.lines.push(line);
                    (used_before, silent_since) = (used, Instant::now());
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = processor_seconds(child.id());
            if now > used {
                (used, since) = (now, Instant::now());
            }
            let works = used > self.seconds_max as f64;
            let mut waits = since.elapsed() > IDLE_MAX;
            if silent_since.elapsed() > SILENT_MAX {
                waits |= used - used_before < SILENT_MAX.as_secs_f64() / 10.0;
                (used_before, silent_since) = (used, Instant::now());
            }
            if works || waits {
                let _ = child.kill();
                let _ = child.wait();
                ended.how = if works { How::Works } else { How::Waits };
                return ended;
            }
        }
        ended.how = child.wait().map_or(How::NotStarted, How::Exited);
        ended
    }
}

struct Ended {
    lines: Vec<String>,
    how: How,
}

enum How {
    NotStarted,
    /// It waits, and nobody will wake it.
    Waits,
    /// It has used the processor for too long.
    Works,
    Exited(ExitStatus),
}

/// Standard output and error, line by line, until both are closed.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let other = sender.clone();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
    }
    if let Some(out) = child.stderr.take() {
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.for_each(|line| drop(other.send(line)));
        });
    }
    receiver
}

/// What the process has used so far, from /proc: user and system time, in hundredths.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which is in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(12).unwrap_or(0.0) + ticks(13).unwrap_or(0.0)) / 100.0
}

fn suite(label: &str, ended: Ended) -> Option<Fate> {
    let failed = ended.lines.iter().find_map(|line| {
        let rest = line.strip_prefix("test ")?;
        rest.strip_suffix(" ... FAILED")
    });
    let by = |name: &str| format!("{label}: `{name}`");
    match (ended.how, failed) {
        (_, Some(name)) => {
            let why = ended.lines.iter().skip_while(|line| !line.contains("panicked at")).nth(1);
            Some(Fate::Killed { by: by(name), saw: why.cloned().unwrap_or_default() })
        }
        (How::Exited(status), None) if status.success() => None,
        (How::Exited(status), None) => {
            Some(Fate::Killed { by: label.to_owned(), saw: status.to_string() })
        }
        (How::NotStarted, None) => Some(Fate::Survived(ended.lines.join(" "))),
        (How::Waits | How::Works, None) => {
            Some(Fate::Killed { by: label.to_owned(), saw: "it hangs".to_owned() })
        }
    }
}

fn world(ended: Ended) -> Fate {
    let told: Vec<Line> = ended.lines.iter().filter_map(|line| Line::parse(line)).collect();
    let at = told.iter().rev().find_map(|line| match line {
        Line::At(what) => Some(what.clone()),
        _ => None,
    });
    let by = at.unwrap_or_default();
    match (told.last(), ended.how) {
        (Some(Line::Killed(how)), _) => {
            let (proof, rest) = how.split_once("; ").unwrap_or(("", how));
            let (place, saw) = split_place(rest);
            Fate::Killed { by: format!("{proof}: {place}"), saw: saw.to_owned() }
        }
        (Some(Line::Survived), _) => Fate::Survived("every proof passed".to_owned()),
        (_, How::Waits) => Fate::Killed { by, saw: "it hangs: nobody wakes it".to_owned() },
        (_, How::Works) => Fate::Survived(format!("the time was over in {by}")),
        (_, How::Exited(status)) => {
            let last = ended.lines.iter().rev().find(|line| Line::parse(line).is_none());
            let last = last.cloned().unwrap_or_default();
            Fate::Killed { by, saw: format!("the process died ({status}) {last}") }
        }
        (_, How::NotStarted) => Fate::Survived(ended.lines.join(" ")),
    }
}

/// `script: disturbance: what` in two; `seed, act: what` in two.
fn split_place(text: &str) -> (String, &str) {
    let colons = if text.starts_with("seed ") { 1 } else { 2 };
    let mut at = 0;
    for _ in 0..colons {
        match text[at..].find(": ") {
            Some(next) => at += next + 2,
            None => return (text.to_owned(), ""),
        }
    }
    (text[..at.saturating_sub(2)].to_owned(), &text[at..])
}

#[cfg(test)]
mod tests {
    use super::split_place;

    #[test]
    fn a_violation_is_its_place_and_what_was_seen() {
        assert_eq!(
            split_place("trims: stop after 3: lost: all"),
            ("trims: stop after 3".into(), "lost: all")
        );
        assert_eq!(
            split_place("seed 3, act 4 (Read): lost"),
            ("seed 3, act 4 (Read)".into(), "lost")
        );
        assert_eq!(split_place("nothing"), ("nothing".into(), ""));
    }
}
