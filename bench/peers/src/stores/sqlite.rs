//! SQLite as a registry: WAL, `synchronous=FULL`, one statement `SET n = n + 1` a change.
//!
//! The settings of `engines/sqlite.rs` and for its reasons: one connection and a mutex for changes.
//! Reads have a connection for each thread, which WAL mode allows, and a cached statement. A
//! counter is an integer column and the table has no row ids: no JSON is parsed here, and a change
//! is one statement in a transaction of its own. Next room: [`crate::store`].

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::engine::{Outcome, Setup};
use crate::store::{Found, Start, Store};
use crate::workload::Workload;

/// Only another process is waited for: within one there is the mutex.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const FILE: &str = "registry.sqlite";

pub(crate) struct SqliteRegistry {
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    names: Vec<String>,
}

impl Store for SqliteRegistry {
    const NAME: &'static str = "sqlite-registry";
    const SETTINGS: &'static str =
        "WAL, FULL, busy timeout 5 s; changes: one connection a process, a mutex; reads: one each";

    fn has(workload: Workload) -> bool {
        workload.of_registry() && workload != Workload::RegistryRewrite
    }

    fn open(setup: &Setup, start: &Start) -> Outcome<SqliteRegistry> {
        let mut writer = Connection::open(setup.dir.join(FILE))?;
        let mode: String =
            writer.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(format!("SQLite stayed in journal mode {mode}").into());
        }
        let table = "CREATE TABLE kv (name TEXT PRIMARY KEY, n INTEGER, value BLOB) WITHOUT ROWID";
        writer.execute(table, ())?;
        let transaction = writer.transaction()?;
        for (at, name) in start.names.iter().enumerate() {
            let value = (start.workload == Workload::RegistryGet).then(|| start.value(at));
            transaction
                .prepare_cached("INSERT INTO kv (name, n, value) VALUES (?1, 0, ?2)")?
                .execute((name, value))?;
        }
        transaction.commit()?;
        drop(writer);
        SqliteRegistry::join(setup, start)
    }

    fn join(setup: &Setup, start: &Start) -> Outcome<SqliteRegistry> {
        let path = setup.dir.join(FILE);
        let writer = Connection::open(&path)?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.busy_timeout(BUSY_TIMEOUT)?;
        let reader = |_| Ok(Mutex::new(Connection::open(&path)?));
        let get = start.workload == Workload::RegistryGet;
        let readers =
            (0..if get { setup.writers } else { 0 }).map(reader).collect::<Outcome<_>>()?;
        Ok(SqliteRegistry { writer: Mutex::new(writer), readers, names: start.names.clone() })
    }

    fn increment(&self, key: usize) -> Outcome<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut update = writer.prepare_cached("UPDATE kv SET n = n + 1 WHERE name = ?1")?;
        match update.execute((&self.names[key],))? {
            1 => Ok(()),
            rows => Err(format!("an update changed {rows} rows").into()),
        }
    }

    fn get(&self, thread: usize, key: usize) -> Outcome<usize> {
        let reader = self.readers[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let mut select = reader.prepare_cached("SELECT value FROM kv WHERE name = ?1")?;
        Ok(select.query_row((&self.names[key],), |row| Ok(row.get_ref(0)?.as_blob()?.len()))?)
    }

    fn reopen(dir: &Path, each: Found<'_>) -> Outcome<()> {
        let connection = Connection::open(dir.join(FILE))?;
        let mut select = connection.prepare("SELECT name, n, value FROM kv")?;
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            let (name, number): (String, i64) = (row.get(0)?, row.get(1)?);
            match row.get_ref(2)?.as_blob_or_null()? {
                Some(value) => each(&name, value)?,
                None => each(&name, number.to_string().as_bytes())?,
            }
        }
        Ok(())
    }
}
