//! The parent's side: which engine runs when.
//!
//! In every round every engine runs once for every number of writers that it has in a workload; the
//! order of the engines is rotated by one from round to round, so that none is always first after
//! another's garbage. Syncs are counted in runs of their own, in the first round, so that no timed
//! run is slowed. Next rooms: [`crate::job`], then [`crate::table`].

use std::process::{Command, Stdio};

use crate::args::{self, Args};
use crate::engine::Outcome;
use crate::engines::Entry;
use crate::job::{Counted, Job};
use crate::row::Row;

/// Runs the plan; each row is handed out as soon as it is there.
pub(crate) fn all(args: &Args, mut each: impl FnMut(&Row)) -> Outcome<Vec<Row>> {
    let strace = args.trace && strace_is_here();
    if args.trace && !strace {
        crate::say("strace is not here or may not trace: syncs are not counted (null)");
    }
    let mut rows = Vec::new();
    for &workload in &args.workloads {
        let strace = strace && workload.writes();
        let entries: Vec<Entry> =
            args.engines.iter().map(|name| args::engine(name)).collect::<Outcome<_>>()?;
        let entries: Vec<Entry> =
            entries.into_iter().filter(|entry| (entry.has)(workload)).collect();
        let mut numbers: Vec<usize> =
            entries.iter().flat_map(|entry| workload.numbers(*entry, args)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut counted = Counted::new();
        // Once for every engine, also if nobody asked.
        for &entry in entries.iter().filter(|_| strace) {
            let writers = workload.sharpest(entry);
            let sharp = Job { args, entry, workload, writers };
            counted.insert(
                (entry.name, writers),
                sharp.count_syncs().map_err(|error| error.to_string()),
            );
        }
        for round in 1..=args.rounds {
            for &writers in &numbers {
                for at in 0..entries.len() {
                    let entry = entries[(at + round - 1) % entries.len()];
                    if !workload.numbers(entry, args).contains(&writers) {
                        continue;
                    }
                    let job = Job { args, entry, workload, writers };
                    if strace && !counted.contains_key(&(entry.name, writers)) {
                        let syncs = job.count_syncs().map_err(|error| error.to_string());
                        counted.insert((entry.name, writers), syncs);
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
