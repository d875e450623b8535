//! LMDB (heed) as a registry: default flags; one write transaction a change.
//!
//! The settings of `engines/lmdb.rs`, without `APPEND`, because keys come in no order. Counters are
//! decimal text. A read is a read transaction, so that it sees the newest commit.
//! Next room: [`crate::store`].

use std::path::Path;

use heed::types::{Bytes, Str};
use heed::{CommitOrAbort, Database, Env};

use crate::engine::{Outcome, Setup};
use crate::engines::open_lmdb;
use crate::store::{Found, Start, Store};
use crate::workload::Workload;

type Values = Database<'static, Str, Bytes>;

pub(crate) struct LmdbRegistry {
    env: Env,
    values: Values,
    names: Vec<String>,
}

impl Store for LmdbRegistry {
    const NAME: &'static str = "lmdb-registry";
    const SETTINGS: &'static str = "default flags, a transaction a change or read";

    fn has(workload: Workload) -> bool {
        workload.of_registry() && !workload.of_agents()
    }

    fn open(setup: &Setup, start: &Start) -> Outcome<LmdbRegistry> {
        let env = open_lmdb(&setup.dir)?;
        let transaction = env.write_txn()?;
        let values: Values = env
            .create_databases_and_commit(transaction, |opener, transaction| {
                opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .ok_or("the database was not made")?;
        let mut transaction = env.write_txn()?;
        for (at, name) in start.names.iter().enumerate() {
            values.put(&mut transaction, name, &start.value(at))?;
        }
        transaction.commit()?;
        Ok(LmdbRegistry { env, values, names: start.names.clone() })
    }

    fn increment(&self, key: usize) -> Outcome<()> {
        let name = &self.names[key];
        let mut transaction = self.env.write_txn()?;
        let text = self.values.get(&transaction, name)?.ok_or("a key is not there")?;
        let number: u64 = std::str::from_utf8(text)?.parse()?;
        self.values.put(&mut transaction, name, (number + 1).to_string().as_bytes())?;
        Ok(transaction.commit()?)
    }

    fn get(&self, _thread: usize, key: usize) -> Outcome<usize> {
        let transaction = self.env.read_txn()?;
        let value = self.values.get(&transaction, &self.names[key])?;
        Ok(value.ok_or("a key is not there")?.len())
    }

    fn reopen(dir: &Path, each: Found<'_>) -> Outcome<()> {
        let env = open_lmdb(dir)?;
        let transaction = env.read_txn()?;
        let values: Values = env
            .open_databases_and_commit(transaction, |opener, transaction| {
                opener.open_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .flatten()
            .ok_or("the database is not there")?;
        let transaction = env.read_txn()?;
        for row in values.iter(&transaction)? {
            let (name, value) = row?;
            each(name, value)?;
        }
        Ok(())
    }
}
