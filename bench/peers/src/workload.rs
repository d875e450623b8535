//! The workloads: their names, how many write at once, and how large a record is.
//!
//! Never here: how one is run ([`crate::window`]), a figure. Invariant: what an engine runs follows
//! from the workload, from whether the engine has appends that need no thread each, and from the
//! arguments; nothing else, so that two runs of the same command are the same plan.
//! Next room: [`crate::rounds`].

use crate::args::Args;
use crate::engines::{Entry, OURS, OURS_REGISTRY, OURS_SHARED};

/// Tasks of `append_async`.
pub(crate) const TASKS: usize = 1024;
/// Threads of `append_async` for an engine whose append blocks: its best of these is what counts.
const THREADS: [usize; 5] = [1, 8, 16, 64, 256];
/// Records that one task keeps in flight.
pub(crate) const IN_FLIGHT: usize = 4096;
/// Records of a durable batch.
pub(crate) const BATCH: usize = 100;
/// Bytes of a record of the log beside a registry: about what a change of a counter takes.
const CHANGE: usize = 64;
/// Threads of the registry's workloads.
const CHANGERS: [usize; 1] = [64];
/// Processes of `processes_4`.
const PROCESSES: usize = 4;
/// Threads that read.
const GETTERS: [usize; 2] = [1, 8];
/// Record size of `in_flight_1k` and `scan_1k`, whatever `--size` says.
const KIBIBYTE: usize = 1024;

/// What is done for so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Closed loop: the next append begins when the one before is durable.
    Append,
    /// Many tasks, each awaiting its own append; an engine that blocks has threads instead.
    AppendAsync,
    /// One task with many records in flight; an engine that blocks has one.
    InFlight,
    /// The same with records of 1 KiB, beside what the disk writes in sequence.
    InFlight1k,
    /// Durable batches of [`BATCH`] records.
    Batch,
    /// Reading everything back, warm, as verified as the engine does it.
    Scan,
    /// The same with records of 1 KiB.
    Scan1k,
    /// Threads that each add one to the same counter of a registry; beside it, the log's appends.
    RegistryHot,
    /// The same, each with a counter of its own.
    RegistryDistinct,
    /// Random keys of 100,000.
    RegistryGet,
    /// One of 1,000 agents changed, beside the seeds' rewritten JSON file.
    RegistryRewrite,
    /// Four processes, each changing one of 100 agents of the same registry after the other.
    Processes4,
    /// One thread's appends on a log made for several processes, beside one made for one.
    Shared1,
}

impl Workload {
    pub(crate) const ALL: [Workload; 13] = [
        Workload::Append,
        Workload::AppendAsync,
        Workload::InFlight,
        Workload::InFlight1k,
        Workload::Batch,
        Workload::Scan,
        Workload::Scan1k,
        Workload::RegistryHot,
        Workload::RegistryDistinct,
        Workload::RegistryGet,
        Workload::RegistryRewrite,
        Workload::Processes4,
        Workload::Shared1,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Append => "append",
            Workload::AppendAsync => "append_async",
            Workload::InFlight => "in_flight",
            Workload::InFlight1k => "in_flight_1k",
            Workload::Batch => "batch",
            Workload::Scan => "scan",
            Workload::Scan1k => "scan_1k",
            Workload::RegistryHot => "registry_hot",
            Workload::RegistryDistinct => "registry_distinct",
            Workload::RegistryGet => "registry_get",
            Workload::RegistryRewrite => "registry_json_rewrite_1000",
            Workload::Processes4 => "processes_4",
            Workload::Shared1 => "shared_1",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Workload> {
        Workload::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// What the column `writers` counts.
    pub(crate) fn counts(self) -> &'static str {
        match self {
            Workload::Append | Workload::Batch | Workload::Shared1 => "writers",
            Workload::Processes4 => "processes",
            Workload::AppendAsync => "tasks (annals) or threads",
            Workload::InFlight | Workload::InFlight1k => "in flight",
            Workload::Scan | Workload::Scan1k => "reader",
            Workload::RegistryGet => "readers",
            Workload::RegistryHot | Workload::RegistryDistinct | Workload::RegistryRewrite => {
                "threads"
            }
        }
    }

    /// Whether it writes in its window, so that syncs have to be counted.
    pub(crate) fn writes(self) -> bool {
        !self.scans() && self != Workload::RegistryGet
    }

    /// Whether it reads everything back.
    pub(crate) fn scans(self) -> bool {
        matches!(self, Workload::Scan | Workload::Scan1k)
    }

    /// Whether it is one of registries ([`crate::store`]).
    pub(crate) fn of_registry(self) -> bool {
        matches!(
            self,
            Workload::RegistryHot
                | Workload::RegistryDistinct
                | Workload::RegistryGet
                | Workload::RegistryRewrite
                | Workload::Processes4
        )
    }

    /// Whether its values are agents, as the seeds' files have them.
    pub(crate) fn of_agents(self) -> bool {
        matches!(self, Workload::RegistryRewrite | Workload::Processes4)
    }

    /// Our engine of it.
    pub(crate) fn ours(self) -> &'static str {
        match self {
            Workload::Shared1 => OURS_SHARED,
            _ if self.of_registry() => OURS_REGISTRY,
            _ => OURS,
        }
    }

    /// Whether engines run it with numbers of their own, so that an engine is held against the best
    /// of the others at any number.
    pub(crate) fn numbers_differ(self) -> bool {
        matches!(self, Workload::AppendAsync | Workload::InFlight | Workload::InFlight1k)
    }

    pub(crate) fn size(self, args: &Args) -> usize {
        match self {
            Workload::InFlight1k | Workload::Scan1k => KIBIBYTE,
            _ if self.of_registry() => CHANGE,
            _ => args.size,
        }
    }

    /// The numbers of writers, tasks or records in flight that this engine runs it with.
    pub(crate) fn numbers(self, entry: Entry, args: &Args) -> Vec<usize> {
        match self {
            _ if !(entry.has)(self) => Vec::new(),
            Workload::Append => args.writers.clone(),
            Workload::AppendAsync if entry.awaits => vec![TASKS],
            Workload::AppendAsync => THREADS.to_vec(),
            Workload::InFlight if entry.awaits => vec![1, IN_FLIGHT],
            Workload::InFlight1k if entry.awaits => vec![IN_FLIGHT],
            Workload::InFlight | Workload::InFlight1k => vec![1],
            Workload::Batch => vec![1, 8],
            Workload::Scan | Workload::Scan1k | Workload::Shared1 => vec![1],
            Workload::Processes4 => vec![PROCESSES],
            Workload::RegistryGet => GETTERS.to_vec(),
            Workload::RegistryHot | Workload::RegistryDistinct | Workload::RegistryRewrite => {
                CHANGERS.to_vec()
            }
        }
    }

    /// The number at which counting syncs is sharpest, run for the count alone: an engine can hide
    /// below the bound of thousands in flight, not below that of eight.
    pub(crate) fn sharpest(self, entry: Entry) -> usize {
        match self {
            Workload::InFlight | Workload::InFlight1k if entry.awaits => 8,
            _ => 1,
        }
    }

    /// How many records one sync can cover at most: with more, somebody was told *durable* early.
    pub(crate) fn records_per_sync_max(self, entry: Entry, writers: usize) -> u64 {
        let per_call = match self {
            Workload::Batch => BATCH as u64,
            _ => entry.records_per_call,
        };
        writers as u64 * per_call
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines;

    #[test]
    fn who_blocks_gets_threads_and_who_does_not_gets_tasks() {
        let args = Args::parse(&[]).unwrap();
        let numbers =
            |workload: Workload, name| workload.numbers(engines::of(name).unwrap(), &args);
        assert_eq!(numbers(Workload::AppendAsync, "annals"), [1024]);
        assert_eq!(numbers(Workload::AppendAsync, "okaywal"), [1, 8, 16, 64, 256]);
        assert_eq!(numbers(Workload::InFlight, "annals"), [1, 4096]);
        assert_eq!(numbers(Workload::InFlight, "floor-overwrite"), [1]);
        assert_eq!(numbers(Workload::Append, "jsonl"), [1, 2, 8, 16, 64]);
        assert!(numbers(Workload::Append, "floor-sequential-4m").is_empty());
        assert_eq!(numbers(Workload::RegistryHot, "annals"), [64], "the log beside the registry");
        assert!(numbers(Workload::RegistryHot, "jsonl").is_empty());
        assert!(numbers(Workload::RegistryRewrite, "redb-registry").is_empty());
        assert_eq!(numbers(Workload::Processes4, "json-file"), [4]);
        assert!(numbers(Workload::Processes4, "annals").is_empty());
        assert_eq!(numbers(Workload::Shared1, "annals-shared"), [1]);
        assert!(numbers(Workload::Append, "annals-shared").is_empty());
        assert!(numbers(Workload::Append, "annals-registry").is_empty());
        assert!(numbers(Workload::Scan, "okaywal").is_empty(), "it reads when it recovers, only");
    }

    #[test]
    fn a_sync_covers_what_is_in_flight_and_no_more() {
        let of = |name| engines::of(name).unwrap();
        assert_eq!(Workload::Append.records_per_sync_max(of("jsonl"), 8), 8);
        assert_eq!(Workload::Batch.records_per_sync_max(of("jsonl"), 8), 800);
        let disk = of("floor-sequential-4m");
        assert_eq!(Workload::InFlight1k.records_per_sync_max(disk, 1), 4096);
    }
}
