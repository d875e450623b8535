//! walrus-rust 0.2.0: `FsyncSchedule::SyncEach`, the only schedule that is durable on return.
//!
//! Crate docs: "Fsync after every single write (maximum durability, lower throughput)"; with the
//! descriptor backend (the default, and the faster one on Linux) its files are opened with O_SYNC
//! and flushed once more after each write, which is its own doing. A topic a writer: appends to one
//! topic wait for each other, appends to several do not. The place is told by the environment only
//! (`WALRUS_DATA_DIR`), which the parent sets for each child. It has no scan: reading takes entries
//! out of a topic.
//! Next room: [`crate::engine`].

use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::engine::{Each, Engine, Outcome, Setup};

pub(crate) struct WalrusEngine {
    log: Walrus,
    topics: Vec<String>,
}

impl Engine for WalrusEngine {
    const NAME: &'static str = "walrus";
    const SETTINGS: &'static str = "FsyncSchedule::SyncEach (O_SYNC and fsync), a topic a writer";
    const BATCHES: bool = true;

    fn open(setup: &Setup) -> Outcome<WalrusEngine> {
        let topics = (0..setup.writers).map(topic).collect();
        Ok(WalrusEngine { log: open()?, topics })
    }

    fn append(&self, writer: usize, record: &[u8]) -> Outcome<()> {
        Ok(self.log.append_for_topic(&self.topics[writer], record)?)
    }

    fn append_batch(&self, writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        Ok(self.log.batch_append_for_topic(&self.topics[writer], &records)?)
    }

    fn reopen(_dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        let log = open()?;
        // Topics are numbered without a gap, but a slow writer's may be empty.
        for writer in 0..crate::args::WRITERS_MAX {
            let topic = topic(writer);
            while let Some(entry) = log.read_next(&topic, true)? {
                each(&entry.data)?;
            }
        }
        Ok(())
    }
}

fn topic(writer: usize) -> String {
    format!("writer-{writer}")
}

fn open() -> Outcome<Walrus> {
    // Positions of readers are of no interest; do not sync them for each record that is checked.
    let reads = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Ok(Walrus::with_consistency_and_schedule(reads, FsyncSchedule::SyncEach)?)
}
