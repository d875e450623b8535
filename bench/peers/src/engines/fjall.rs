//! fjall 3.1: an LSM tree; a batch with `PersistMode::SyncData`, which is `fdatasync`.
//!
//! README: "you can choose to call persist, which takes a PersistMode"; docs of `PersistMode`:
//! `Buffer` does not survive a power loss, `SyncData` "flushes data using fdatasync", `SyncAll`
//! costs an `fsync` and promises no more for a file of this kind. `WriteBatch::durability` does
//! both under one lock. Its scan compares a block's checksum when the block comes from the disk;
//! what is still in memory, and that is most of it here, is compared with nothing. Keys are numbers
//! in order, big endian. Next room: [`crate::engine`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::engine::{Each, Engine, Outcome, Setup};

pub(crate) struct Fjall {
    database: Database,
    log: Keyspace,
    next: AtomicU64,
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";
    const SETTINGS: &'static str = "default, batch of one with PersistMode::SyncData";

    const BATCHES: bool = true;
    const SCANS: bool = true;

    fn open(setup: &Setup) -> Outcome<Fjall> {
        let (database, log) = open(&setup.dir)?;
        Ok(Fjall { database, log, next: AtomicU64::new(0) })
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.log, key, record);
        Ok(batch.commit()?)
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        let first = self.next.fetch_add(records.len() as u64, Ordering::Relaxed);
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (record, key) in records.iter().zip(first..) {
            batch.insert(&self.log, key.to_be_bytes(), &**record);
        }
        Ok(batch.commit()?)
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        read(&self.log, each)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        let (_database, log) = open(dir)?;
        read(&log, each)
    }
}

fn read(log: &Keyspace, each: Each<'_>) -> Outcome<()> {
    for item in log.iter() {
        each(&item.value()?)?;
    }
    Ok(())
}

fn open(dir: &Path) -> Outcome<(Database, Keyspace)> {
    let database = Database::builder(dir.join("log")).open()?;
    let log = database.keyspace("log", KeyspaceCreateOptions::default)?;
    Ok((database, log))
}
