//! LMDB (heed 0.23): default flags, so a commit is `fdatasync` and then a write through O_DSYNC.
//!
//! LMDB's docs: NOSYNC and NOMETASYNC give durability away and are not set; WRITEMAP is durable but
//! loses the protection against stray writes and is not what heed recommends. Keys are numbers in
//! order with `PutFlags::APPEND`, LMDB's fast path for them. One write transaction at a time is
//! LMDB's own rule. Next room: [`crate::engine`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::byteorder::BE;
use heed::types::{Bytes, U64};
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags};

use crate::engine::{Each, Engine, Outcome, Setup};

/// Address space, not disk: the file grows with its pages.
const MAP: usize = 8 << 30;

type Log = Database<'static, U64<BE>, Bytes>;

pub(crate) struct Lmdb {
    env: Env,
    log: Log,
    next: AtomicU64,
}

impl Engine for Lmdb {
    const NAME: &'static str = "lmdb";
    const SETTINGS: &'static str = "default flags, MDB_APPEND";
    const BATCHES: bool = true;
    const SCANS: bool = true;

    fn open(setup: &Setup) -> Outcome<Lmdb> {
        let env = open(&setup.dir)?;
        let transaction = env.write_txn()?;
        let log: Log = env
            .create_databases_and_commit(transaction, |opener, transaction| {
                opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .ok_or("the database was not made")?;
        Ok(Lmdb { env, log, next: AtomicU64::new(0) })
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        self.put(std::iter::once(record))
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        self.put(records.iter().map(Vec::as_slice))
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        let transaction = self.env.read_txn()?;
        for row in self.log.iter(&transaction)? {
            each(row?.1)?;
        }
        Ok(())
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        let env = open(dir)?;
        let transaction = env.read_txn()?;
        let log: Log = env
            .open_databases_and_commit(transaction, |opener, transaction| {
                opener.open_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .flatten()
            .ok_or("the database is not there")?;
        let transaction = env.read_txn()?;
        for row in log.iter(&transaction)? {
            each(row?.1)?;
        }
        Ok(())
    }
}

impl Lmdb {
    /// One transaction.
    fn put<'a>(&self, records: impl Iterator<Item = &'a [u8]>) -> Outcome<()> {
        let mut transaction = self.env.write_txn()?;
        for record in records {
            // Inside the transaction: APPEND refuses a key that is not the largest.
            let key = self.next.fetch_add(1, Ordering::Relaxed);
            self.log.put_with_flags(&mut transaction, PutFlags::APPEND, &key, record)?;
        }
        Ok(transaction.commit()?)
    }
}

pub(crate) fn open(dir: &Path) -> Outcome<Env> {
    #[expect(unsafe_code, reason = "heed has no safe way to open: it maps a file into memory")]
    // SAFETY: the directory is fresh and this run's own; one process at a time has it open, once,
    // and nobody changes its files but LMDB.
    let env = unsafe { EnvOpenOptions::new().map_size(MAP).open(dir)? };
    Ok(env)
}
