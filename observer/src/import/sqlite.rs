//! The seeds' SQLite protocol store: each row becomes what a line of a `.jsonl` becomes.
//!
//! Feature `sqlite`. Never here: a write, a lock, a file beside the database. It is opened as
//! immutable, and refused while a journal beside it holds rows that are not in it. Invariants: a row
//! is kept whole, as a JSON object of its columns in their order, in the entry's `input`; rows come
//! in the order in which they were written (`rowid`); a row that cannot be taken is a [`Reason`] and
//! costs no other. A row is measured before it is read: of one over the cap no cell is loaded that
//! brings it over, so memory is that of the cap, however large a cell is. Next room: [`super::jsonl`].

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::jsonl::{Parsed, parse_line};
use super::origin::unsupported;
use super::{BadLine, Reason};
use crate::error::{Error, ErrorKind, Result};

/// What the seeds call their table; the columns decide where it has another name.
const TABLE: &str = "protocol_entries";
/// A table with these columns is a protocol store.
const COLUMNS: [&str; 2] = ["event_type", "timestamp"];

/// A table of more columns is none: the seeds' has 17, and the query that measures a row grows with
/// their square.
const COLUMNS_MAX: usize = 100;
/// And so it does with their names, each of which it has many times.
const NAMES_BYTES_MAX: usize = 16 << 10;
/// What a cell may be longer than the cap before SQLite itself refuses to load it: the text of a
/// database in UTF-16 is up to twice as long there, and a schema is a text, too.
const SLACK_BYTES: usize = 64 << 10;

/// A store that is open for reading.
pub(super) struct Store {
    path: PathBuf,
    database: Connection,
    table: String,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Store> {
        drop(super::file::open(path)?); // a regular file
        for beside in ["-wal", "-journal"] {
            let mut name = path.as_os_str().to_owned();
            name.push(beside);
            let other = PathBuf::from(name);
            if std::fs::metadata(&other).is_ok_and(|about| about.len() > 0)
                && !(beside == "-journal" && is_over(&other))
            {
                let why = format!(
                    "{} holds what is not in it yet: close its writer, or open and close it once \
                     with `sqlite3`",
                    other.display()
                );
                return Err(unsupported(path, &why));
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let database = Connection::open_with_flags(uri(path)?, flags);
        let database = database.map_err(|error| failed(path, &error))?;
        let settings = database.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA mmap_size = 0");
        settings.map_err(|error| failed(path, &error))?;
        let table = table(&database, path)?;
        Ok(Store { path: path.to_owned(), database, table })
    }

    /// Calls `take` with each row and its number, from 1, until it says no more.
    pub(super) fn rows(
        &self,
        max: usize,
        mut take: impl FnMut(u64, std::result::Result<Parsed, Reason>) -> Result<bool>,
    ) -> Result<()> {
        let failed = |error: rusqlite::Error| failed(&self.path, &error);
        let loaded_max = max.saturating_mul(2).saturating_add(SLACK_BYTES);
        let loaded_max = i32::try_from(loaded_max).unwrap_or(i32::MAX);
        // Only a check: the query asks for nothing that long.
        self.database.set_limit(Limit::SQLITE_LIMIT_LENGTH, loaded_max).map_err(failed)?;
        let table = quoted(&self.table);
        let statement = self.database.prepare(&format!("SELECT * FROM {table}")).map_err(failed)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        drop(statement);
        if names.len() > COLUMNS_MAX {
            let why = format!("its table has {} columns, over {COLUMNS_MAX}", names.len());
            return Err(unsupported(&self.path, &why));
        }
        let names_bytes: usize = names.iter().map(String::len).sum();
        if names_bytes > NAMES_BYTES_MAX {
            let why =
                format!("its columns' names have {names_bytes} bytes, over {NAMES_BYTES_MAX}");
            return Err(unsupported(&self.path, &why));
        }
        let query = measured(&names, &table);
        // A table without row ids comes in the order of its key. One of its columns may have a name
        // of the row id, which is then another column.
        let free = |name: &&str| names.iter().all(|column| !column.eq_ignore_ascii_case(name));
        let row_id = ["rowid", "_rowid_", "oid"].into_iter().find(free);
        let by_row = row_id.map(|row_id| format!("{query} ORDER BY {row_id}"));
        let by_row = by_row.and_then(|query| self.database.prepare(&query).ok());
        let mut statement = match by_row {
            Some(statement) => statement,
            None => self.database.prepare(&query).map_err(failed)?,
        };
        let mut rows = statement.query([i64::try_from(max).unwrap_or(i64::MAX)]).map_err(failed)?;
        let mut number = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            number += 1;
            let line = object(&names, row, max).map_err(failed)?;
            let parsed = line.and_then(|line| {
                // An object is never blank.
                parse_line(line.as_bytes(), max)
                    .and_then(|parsed| parsed.ok_or(Reason::NotAnObject))
            });
            if !take(number, parsed)? {
                break;
            }
        }
        Ok(())
    }

    /// The first row that cannot be taken.
    pub(super) fn first_bad(&self, max: usize) -> Result<Option<BadLine>> {
        let mut bad = None;
        self.rows(max, |line, parsed| {
            let file = self.path.clone();
            bad = parsed.err().map(|reason| BadLine { file, line, reason });
            Ok(bad.is_none())
        })?;
        Ok(bad)
    }
}

/// Whether a journal holds nothing: with `journal_mode = PERSIST` it stays, its header overwritten
/// with zeros. SQLite tells by the first byte, too.
fn is_over(journal: &Path) -> bool {
    let mut first = [1];
    let read = std::fs::File::open(journal).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && first == [0]
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The query of a row: the bytes of each cell first, as the record's header says them, then each
/// cell, but only if it and those before it are within the cap (`?1`).
fn measured(names: &[String], table: &str) -> String {
    let columns: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let bytes = |column: &String| {
        format!("iif(typeof({column}) IN ('text', 'blob'), octet_length({column}), 0)")
    };
    let lengths: Vec<String> = columns.iter().map(bytes).collect();
    let cells = columns.iter().enumerate().map(|(index, column)| {
        let so_far = lengths.iter().take(index + 1).map(String::as_str).collect::<Vec<_>>();
        format!("CASE WHEN {} <= ?1 THEN {column} END", so_far.join(" + "))
    });
    let all: Vec<String> = lengths.iter().cloned().chain(cells).collect();
    format!("SELECT {} FROM {table}", all.join(", "))
}

/// The row as a JSON object, each column under its name; a blob as its hexadecimal digits. The
/// lengths of the cells come before them ([`measured`]).
fn object(
    names: &[String],
    row: &Row<'_>,
    max: usize,
) -> rusqlite::Result<std::result::Result<String, Reason>> {
    let mut bytes = 0usize;
    for index in 0..names.len() {
        let length: i64 = row.get(index)?;
        bytes = bytes.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
    }
    if bytes > max {
        return Ok(Err(Reason::TooLong { bytes: bytes as u64, max: max as u64 }));
    }
    let mut line = String::with_capacity(bytes + 64);
    for (index, name) in names.iter().enumerate() {
        line.push(if index == 0 { '{' } else { ',' });
        line.push_str(&serde_json::Value::from(name.as_str()).to_string());
        line.push(':');
        let value = match row.get_ref(names.len() + index)? {
            ValueRef::Null => serde_json::Value::Null,
            ValueRef::Integer(value) => value.into(),
            // What is no JSON number, infinity say, stays as its name.
            ValueRef::Real(value) => serde_json::Number::from_f64(value)
                .map_or_else(|| value.to_string().into(), serde_json::Value::Number),
            ValueRef::Text(value) => match std::str::from_utf8(value) {
                Ok(text) => text.into(),
                Err(error) => {
                    return Ok(Err(Reason::NotUtf8 { byte: error.valid_up_to() as u64 + 1 }));
                }
            },
            ValueRef::Blob(value) => hex(value).into(),
        };
        line.push_str(&value.to_string());
    }
    line.push('}');
    Ok(Ok(line))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
    }
    text
}

/// The table that is the store.
fn table(database: &Connection, path: &Path) -> Result<String> {
    let failed = |error: rusqlite::Error| failed(path, &error);
    // A virtual table has no root page. Its module may not be here, and then its columns, asked for,
    // are an error of the whole database.
    let all = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name";
    let mut statement = database.prepare(all).map_err(failed)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    let mut tables: Vec<String> = names.collect::<rusqlite::Result<_>>().map_err(failed)?;
    let count = "SELECT count(*) = 2 FROM pragma_table_info(?1) WHERE name IN (?2, ?3)";
    let mut columns = database.prepare(count).map_err(failed)?;
    let [kind, time] = COLUMNS;
    let mut is_store = |name: &str| columns.query_row([name, kind, time], |row| row.get(0));
    let mut bad = None;
    tables.retain(|name| is_store(name).map_err(|error| bad = Some(error)).unwrap_or(false));
    if let Some(error) = bad {
        return Err(failed(error));
    }
    match tables.as_slice() {
        [one] => Ok(one.clone()),
        some if some.iter().any(|name| name == TABLE) => Ok(TABLE.to_owned()),
        [] => Err(unsupported(path, "no table of it has the columns event_type and timestamp")),
        some => {
            let why = format!("{} of its tables could be the store, none is {TABLE}", some.len());
            Err(unsupported(path, &why))
        }
    }
}

/// The file as a URI that makes SQLite neither lock it nor make files beside it.
fn uri(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).map_err(|error| Error::file("find", path, error))?;
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            other => {
                let _ = write!(uri, "%{other:02X}");
            }
        }
    }
    uri.push_str("?immutable=1");
    Ok(uri)
}

fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    let what = format!(
        "{} cannot be read as a SQLite database: {error}. Check it with `sqlite3 FILE 'PRAGMA \
         integrity_check'`. What was imported of it is not marked as done",
        path.display()
    );
    Error::new(ErrorKind::Corrupt, what)
}
