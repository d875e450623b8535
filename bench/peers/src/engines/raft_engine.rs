//! raft-engine 0.4.2: leader and followers, one `fdatasync` a group (`Engine::write`, sync=true).
//!
//! As TiKV uses it: one Raft group a writer, one protobuf entry a record, `LogBatch::add_entries`.
//! README: "When one write in a batch is marked synchronous, the batch leader will call fdatasync()
//! after writing". Compression (LZ4) begins at batches of 8 KiB and stays at its default; these
//! records do not shrink. Two
//! configurations: the default (128 MiB files, grown by `fallocate`), and `prefill-for-recycle`
//! (`Config`: "batch empty log files will be prepared for recycling when starting engine"), which
//! writes over written blocks. The prefilled files are synced here before the window, as they would
//! be long after a start: raft-engine does not sync them itself.
//! A scan fetches entries of a group; each block's checksum is compared when it is read, and a
//! thread keeps the last block. Next room: [`crate::engine`].

use std::fs::File;
use std::marker::PhantomData;
use std::path::Path;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, LogBatch, MessageExt, ReadableSize};

use crate::engine::{Each, Engine, Outcome, Setup};
use crate::payload;

pub(crate) trait Form: Send + Sync + 'static {
    const NAME: &'static str;
    const SETTINGS: &'static str;
    const PREFILL: bool;
}

pub(crate) struct Default;
pub(crate) struct Prefilled;

impl Form for Default {
    const NAME: &'static str = "raft-engine";
    const SETTINGS: &'static str = "default, sync=true, a Raft group a writer";
    const PREFILL: bool = false;
}

impl Form for Prefilled {
    const NAME: &'static str = "raft-engine-prefill";
    const SETTINGS: &'static str = "as raft-engine, prefill-for-recycle, 4 files of 16 MiB, synced";
    const PREFILL: bool = true;
}

pub(crate) struct RaftEngine<F: Form>(raft_engine::Engine, PhantomData<F>);

impl<F: Form> Engine for RaftEngine<F> {
    const NAME: &'static str = F::NAME;
    const SETTINGS: &'static str = F::SETTINGS;
    const BATCHES: bool = true;
    const SCANS: bool = true;
    const SCANS_VERIFIED: bool = true;

    fn open(setup: &Setup) -> Outcome<RaftEngine<F>> {
        let engine = raft_engine::Engine::open(config::<F>(&setup.dir)?)?;
        if F::PREFILL {
            for entry in std::fs::read_dir(setup.dir.join("log"))? {
                File::open(entry?.path())?.sync_all()?;
            }
        }
        Ok(RaftEngine(engine, PhantomData))
    }

    fn append(&self, writer: usize, record: &[u8]) -> Outcome<()> {
        self.write(writer, &[entry(record)])
    }

    fn append_batch(&self, writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        let entries: Vec<_> = records.iter().map(|record| entry(record)).collect();
        self.write(writer, &entries)
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        read(&self.0, each)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        read(&raft_engine::Engine::open(config::<F>(dir)?)?, each)
    }
}

impl<F: Form> RaftEngine<F> {
    fn write(&self, writer: usize, entries: &[BytesValue]) -> Outcome<()> {
        let mut batch = LogBatch::with_capacity(entries.len());
        batch.add_entries::<Entry>(group(writer), entries)?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }
}

fn entry(record: &[u8]) -> BytesValue {
    let mut entry = BytesValue::new();
    entry.set_value(record.to_vec());
    entry
}

/// Every entry, a thousand at a time.
fn read(engine: &raft_engine::Engine, each: Each<'_>) -> Outcome<()> {
    let mut entries = Vec::new();
    for group in engine.raft_groups() {
        let (Some(first), Some(last)) = (engine.first_index(group), engine.last_index(group))
        else {
            continue;
        };
        for from in (first..=last).step_by(1000) {
            entries.clear();
            let to = (from + 1000).min(last + 1);
            engine.fetch_entries_to::<Entry>(group, from, to, None, &mut entries)?;
            entries.iter().try_for_each(|entry| each(entry.get_value()))?;
        }
    }
    Ok(())
}

/// Group 0 is raft-engine's own.
fn group(writer: usize) -> u64 {
    writer as u64 + 1
}

fn config<F: Form>(dir: &Path) -> Outcome<Config> {
    let dir = dir.join("log").to_str().ok_or("the directory is not UTF-8")?.to_owned();
    let mut config = Config { dir, ..Config::default() };
    if F::PREFILL {
        config.prefill_for_recycle = true;
        config.target_file_size = ReadableSize::mb(16);
        config.prefill_limit = Some(ReadableSize::mb(64));
    }
    Ok(config)
}

/// An entry's index is its record's sequence plus one: raft indexes begin at 1 and are dense.
struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        payload::identity(entry.get_value()).map_or(0, |(_, sequence)| sequence + 1)
    }
}
