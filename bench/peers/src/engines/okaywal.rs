//! okaywal 0.3.1: group commit, segments written with zeros and used again.
//!
//! One entry of one chunk a record, or of a chunk for each record of a batch;
//! `EntryWriter::commit` is durable on return (crate docs: "to fully flush all written bytes to disk
//! ... the writer must be committed"). Two configurations: the default (segments of 1 MiB,
//! checkpoint after 768 KiB) and larger segments, because `Configuration::preallocate_bytes` says
//! that they "should be large enough to allow batching multiple entries into one checkpointing
//! operation".
//!
//! A checkpoint must keep the entries somewhere before their file is used again. Here they go to a
//! file beside the log that is never synced: okaywal pays nothing for the storage that its
//! documentation asks for, and the check still finds every record after the kill. An entry may be
//! in both places, if the kill came between; the second is skipped. It has no scan: it is read when
//! it recovers, and chunk by chunk by positions that the caller kept.
//! Next room: [`crate::engine`].

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use crate::engine::{Each, Engine, Outcome, Setup};
use crate::payload;

const KEPT: &str = "checkpointed";

pub(crate) trait Form: Send + Sync + 'static {
    const NAME: &'static str;
    const SETTINGS: &'static str;
    const SEGMENT: u32;
}

pub(crate) struct Default;
pub(crate) struct Large;

impl Form for Default {
    const NAME: &'static str = "okaywal";
    const SETTINGS: &'static str = "default: 1 MiB segments, checkpoint after 768 KiB, recycled";
    const SEGMENT: u32 = 1 << 20;
}

impl Form for Large {
    const NAME: &'static str = "okaywal-large";
    const SETTINGS: &'static str = "8 MiB segments, checkpoint after 6 MiB, recycled";
    const SEGMENT: u32 = 8 << 20;
}

pub(crate) struct OkayWal<F: Form>(WriteAheadLog, PhantomData<F>);

impl<F: Form> Engine for OkayWal<F> {
    const NAME: &'static str = F::NAME;
    const SETTINGS: &'static str = F::SETTINGS;
    const BATCHES: bool = true;

    fn open(setup: &Setup) -> Outcome<OkayWal<F>> {
        let kept = OpenOptions::new().create(true).append(true).open(setup.dir.join(KEPT))?;
        let manager = Keeper { kept };
        Ok(OkayWal(configuration::<F>(&setup.dir).open(manager)?, PhantomData))
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(record)?;
        entry.commit()?;
        Ok(())
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        let mut entry = self.0.begin_entry()?;
        for record in records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn reopen(dir: &Path, size: usize, each: Each<'_>) -> Outcome<()> {
        let found = Found::default();
        let log = configuration::<F>(dir).open(found.clone())?;
        let mut seen = HashSet::new();
        let mut once = |record: &[u8]| match payload::identity(record) {
            Some(identity) if !seen.insert(identity) => Ok(()),
            _ => each(record),
        };
        fs::read(dir.join(KEPT))?.chunks_exact(size).try_for_each(&mut once)?;
        let records = std::mem::take(&mut *found.0.lock().unwrap_or_else(PoisonError::into_inner));
        records.iter().try_for_each(|record| once(record))?;
        log.shutdown()?;
        Ok(())
    }
}

fn configuration<F: Form>(dir: &Path) -> Configuration {
    let log: PathBuf = dir.join("log");
    Configuration::default_for(log)
        .preallocate_bytes(F::SEGMENT)
        .checkpoint_after_bytes(u64::from(F::SEGMENT) / 4 * 3)
}

/// The side of the run: keeps what a checkpoint takes out of the log.
#[derive(Debug)]
struct Keeper {
    kept: File,
}

impl LogManager for Keeper {
    fn recover(&mut self, _entry: &mut Entry<'_>) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, &self.kept);
        while let Some(mut entry) = entries.read_entry()? {
            for chunk in entry.read_all_chunks()?.into_iter().flatten() {
                out.write_all(&chunk)?;
            }
        }
        out.flush()
    }
}

/// The side of the check: takes what a recovery shows.
#[derive(Clone, Debug, std::default::Default)]
struct Found(Arc<Mutex<Vec<Vec<u8>>>>);

impl LogManager for Found {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let chunks = entry.read_all_chunks()?.into_iter().flatten();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(chunks);
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}
