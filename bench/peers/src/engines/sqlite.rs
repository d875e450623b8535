//! SQLite (rusqlite, bundled): `journal_mode=WAL`, `synchronous=FULL`, one connection and a mutex.
//!
//! SQLite's docs of `PRAGMA synchronous`: in WAL mode NORMAL may lose the last commits on a power
//! loss, FULL syncs the log after each. Its one writer at a time makes a connection for each thread
//! wait in a busy loop; a mutex is the better queue. A checkpoint every 1000 pages is the default
//! and stays. One prepared INSERT a record. Compiled with HAVE_FDATASYNC (SQLite's list of
//! compile-time options; `.cargo/config.toml` here): rusqlite's own build calls `fsync`, which also
//! writes times. Next room: [`crate::engine`].

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::engine::{Each, Engine, Outcome, Setup};

pub(crate) struct Sqlite(Mutex<Connection>);

impl Engine for Sqlite {
    const NAME: &'static str = "sqlite";
    const SETTINGS: &'static str = "journal_mode=WAL, synchronous=FULL, one connection, a mutex";
    const BATCHES: bool = true;
    const SCANS: bool = true;

    fn open(setup: &Setup) -> Outcome<Sqlite> {
        let connection = Connection::open(setup.dir.join("log.sqlite"))?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(format!("SQLite stayed in journal mode {mode}").into());
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection
            .execute("CREATE TABLE log (id INTEGER PRIMARY KEY, record BLOB NOT NULL)", ())?;
        Ok(Sqlite(Mutex::new(connection)))
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut insert = connection.prepare_cached("INSERT INTO log (record) VALUES (?1)")?;
        insert.execute((record,))?;
        Ok(())
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO log (record) VALUES (?1)")?;
            for record in records {
                insert.execute((record,))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner), each)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        read(&Connection::open(dir.join("log.sqlite"))?, each)
    }
}

fn read(connection: &Connection, each: Each<'_>) -> Outcome<()> {
    let mut select = connection.prepare_cached("SELECT record FROM log ORDER BY id")?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        each(row.get_ref(0)?.as_blob()?)?;
    }
    Ok(())
}
