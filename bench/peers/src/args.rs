//! The arguments, by hand: what to measure, how often, where to put it.
//!
//! Never here: a measurement. Whatever is not understood is an error with the usage.
//! Next room: [`crate::rounds`].

use std::path::PathBuf;
use std::str::FromStr;

use crate::engine::{Failure, Outcome};
use crate::engines::{self, Entry};
use crate::workload::Workload;

pub(crate) const WRITERS_MAX: usize = 1024;

pub(crate) const USAGE: &str = "annals-peers: one workload against many engines, interleaved
  --rounds N        how often each engine runs each setting (default 5)
  --seconds S       length of a window (default 5)
  --workloads A,B   default append; or append_async, in_flight, in_flight_1k, batch, scan, scan_1k,
                    registry_hot, registry_distinct, registry_get, registry_json_rewrite_1000,
                    processes_4, shared_1
  --engines A,B     default all that have the workload; --list names them with their settings
  --writers 1,2,8   numbers of threads of append (default 1,2,8,16,64); the others have their own:
                    append_async 1024 tasks, or 1, 8, 16, 64 and 256 threads of a peer;
                    in_flight 4096 and 1; batch 1 and 8; registries 64 threads,
                    registry_get 1 and 8, processes_4 4 processes
  --size BYTES      of a record (default 128, at least 32); the workloads in _1k have 1024,
                    beside registries the log has 64
  --seed N          of the records' fill (default 1)
  --dir DIR         where fresh directories are made and deleted (default /var/tmp)
  --json FILE       the rows of all rounds
  --svg DIR         throughput and latency as plots
  --no-trace        do not count syncs with strace
  --list            the engines";

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) engines: Vec<&'static str>,
    pub(crate) writers: Vec<usize>,
    pub(crate) size: usize,
    pub(crate) seed: u64,
    pub(crate) dir: PathBuf,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) trace: bool,
}

impl Args {
    pub(crate) fn parse(args: &[String]) -> Outcome<Args> {
        let mut parsed = Args {
            rounds: 5,
            seconds: 5.0,
            workloads: vec![Workload::Append],
            engines: engines::ALL.iter().map(|entry| entry.name).collect(),
            writers: vec![1, 2, 8, 16, 64],
            size: 128,
            seed: 1,
            dir: PathBuf::from("/var/tmp"),
            json: None,
            svg: None,
            trace: true,
        };
        let mut rest = args.iter();
        while let Some(flag) = rest.next() {
            if flag == "--no-trace" {
                parsed.trace = false;
                continue;
            }
            let value = rest.next().ok_or_else(|| format!("{flag}: unknown, or needs a value"))?;
            match flag.as_str() {
                "--rounds" => parsed.rounds = number(flag, value)?,
                "--seconds" => parsed.seconds = number(flag, value)?,
                "--workloads" => {
                    parsed.workloads = list(value, |name| {
                        Workload::of(name).ok_or_else(|| format!("no workload {name}").into())
                    })?;
                }
                "--engines" => parsed.engines = list(value, |name| Ok(engine(name)?.name))?,
                "--writers" => parsed.writers = list(value, |text| number(flag, text))?,
                "--size" => parsed.size = number(flag, value)?,
                "--seed" => parsed.seed = number(flag, value)?,
                "--dir" => parsed.dir = PathBuf::from(value),
                "--json" => parsed.json = Some(PathBuf::from(value)),
                "--svg" => parsed.svg = Some(PathBuf::from(value)),
                _ => return Err(format!("{flag}: unknown").into()),
            }
        }
        parsed.check()?;
        Ok(parsed)
    }

    fn check(&self) -> Outcome<()> {
        let wrong = if self.rounds == 0 {
            "--rounds is at least 1"
        } else if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            "--seconds is over 0 and at most 3600"
        } else if !self.writers.iter().all(|writers| (1..=WRITERS_MAX).contains(writers)) {
            "--writers are from 1 to 1024"
        } else if !(32..=1 << 20).contains(&self.size) {
            "--size is from 32 to 1048576"
        } else {
            return Ok(());
        };
        Err(wrong.into())
    }
}

/// The engine, or a sentence that names them all.
pub(crate) fn engine(name: &str) -> Outcome<Entry> {
    let names = || engines::ALL.map(|entry| entry.name).join(", ");
    engines::of(name).ok_or_else(|| format!("no engine {name}; there are {}", names()).into())
}

/// A number, or which argument is none.
pub(crate) fn number<T: FromStr>(what: &str, text: &str) -> Outcome<T> {
    text.parse().map_err(|_| Failure::from(format!("{what}: {text} is no number of its kind")))
}

/// Comma-separated.
fn list<T>(text: &str, each: impl Fn(&str) -> Outcome<T>) -> Outcome<Vec<T>> {
    text.split(',').map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Args> {
        Args::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn lists_and_numbers() {
        let args = parse("--engines annals,jsonl --writers 1,8 --seconds 0.5 --rounds 1").unwrap();
        assert_eq!(args.engines, ["annals", "jsonl"]);
        assert_eq!((args.writers, args.seconds, args.rounds), (vec![1, 8], 0.5, 1));
        let args = parse("--workloads append,scan_1k").unwrap();
        assert_eq!(args.workloads, [Workload::Append, Workload::Scan1k]);
        assert!(parse("--no-trace").is_ok_and(|args| !args.trace));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in [
            "--engines rocks",
            "--writers 0",
            "--writers x",
            "--rounds 0",
            "--seconds -1",
            "--seconds NaN",
            "--workloads scam",
            "--nothing 1",
            "--json",
            "--size 8",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
