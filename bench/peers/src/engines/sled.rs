//! sled 0.34.7: `insert` and `Tree::flush`, which its docs call durable.
//!
//! They say that `flush` "calls fsync. If this succeeds, it is guaranteed that all previous writes
//! will be recovered if the system crashes". On Linux it calls `sync_file_range` instead, which
//! flushes no disk cache and no metadata (spacejam/sled#1452, #1351, both open). The harness counts
//! that and marks the row; it stands in no ratio. The background flusher is off: it would only add
//! to what each append already does. Next room: [`crate::engine`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use sled::{Batch, Config, Db};

use crate::engine::{Each, Engine, Outcome, Setup};

pub(crate) struct Sled {
    log: Db,
    next: AtomicU64,
}

impl Engine for Sled {
    const NAME: &'static str = "sled";
    const SETTINGS: &'static str =
        "default, flush() a record; sync_file_range: not durable (#1452)";
    const DURABLE: bool = false;
    const BATCHES: bool = true;
    const SCANS: bool = true;

    fn open(setup: &Setup) -> Outcome<Sled> {
        Ok(Sled { log: open(&setup.dir)?, next: AtomicU64::new(0) })
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.log.insert(key, record)?;
        self.log.flush()?;
        Ok(())
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        let first = self.next.fetch_add(records.len() as u64, Ordering::Relaxed);
        let mut batch = Batch::default();
        for (record, key) in records.iter().zip(first..) {
            batch.insert(&key.to_be_bytes(), record.as_slice());
        }
        self.log.apply_batch(batch)?;
        self.log.flush()?;
        Ok(())
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        read(&self.log, each)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        read(&open(dir)?, each)
    }
}

fn read(log: &Db, each: Each<'_>) -> Outcome<()> {
    for row in log.iter() {
        each(&row?.1)?;
    }
    Ok(())
}

fn open(dir: &Path) -> Outcome<Db> {
    Ok(Config::new().path(dir.join("log")).flush_every_ms(None).open()?)
}
