//! redb 4.5: a copy-on-write B-tree; `Durability::Immediate`, the default, one phase.
//!
//! Docs of `Durability::Immediate`: "guaranteed to be persistent as soon as commit returns".
//! Two-phase commit and quick repair are left off, as they are by default: each costs a second sync
//! and neither is needed for durability. One write transaction at a time is redb's own rule.
//! Keys are numbers in order. Next room: [`crate::engine`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::engine::{Each, Engine, Outcome, Setup};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

pub(crate) struct Redb {
    database: Database,
    next: AtomicU64,
}

impl Engine for Redb {
    const NAME: &'static str = "redb";
    const SETTINGS: &'static str = "default: Durability::Immediate, one phase";
    const BATCHES: bool = true;
    const SCANS: bool = true;

    fn open(setup: &Setup) -> Outcome<Redb> {
        let database = Database::create(setup.dir.join("log.redb"))?;
        Ok(Redb { database, next: AtomicU64::new(0) })
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        self.insert(std::iter::once(record))
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        self.insert(records.iter().map(Vec::as_slice))
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        read(&self.database, each)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        read(&Database::open(dir.join("log.redb"))?, each)
    }
}

impl Redb {
    /// One transaction.
    fn insert<'a>(&self, records: impl Iterator<Item = &'a [u8]>) -> Outcome<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(LOG)?;
            for record in records {
                // Inside the transaction, so that keys only grow and the tree is appended to.
                table.insert(self.next.fetch_add(1, Ordering::Relaxed), record)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn read(database: &Database, each: Each<'_>) -> Outcome<()> {
    let table = database.begin_read()?.open_table(LOG)?;
    for row in table.iter()? {
        each(row?.1.value())?;
    }
    Ok(())
}
