//! What most agent runtimes do: a file of JSON lines, and here with an `fdatasync` after each.
//!
//! A batch is one `write` of its lines and one sync. A scan parses each line and verifies no more.
//! A mutex, one `write` of one line, `File::sync_data`. No checksum, no recovery but skipping a
//! last line without an end. Next room: [`crate::engine`].

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::engine::{Each, Engine, Outcome, Setup};

const FILE: &str = "log.jsonl";

pub(crate) struct Jsonl {
    file: Mutex<File>,
    dir: PathBuf,
}

impl Engine for Jsonl {
    const NAME: &'static str = "jsonl";
    const SETTINGS: &'static str = "a mutex, one write and one fdatasync a line";
    const BATCHES: bool = true;
    const SCANS: bool = true;

    fn open(setup: &Setup) -> Outcome<Jsonl> {
        let path = setup.dir.join(FILE);
        let file = OpenOptions::new().create_new(true).append(true).open(path)?;
        File::open(&setup.dir)?.sync_all()?;
        Ok(Jsonl { file: Mutex::new(file), dir: setup.dir.clone() })
    }

    fn append(&self, writer: usize, record: &[u8]) -> Outcome<()> {
        let mut lines = Vec::with_capacity(record.len() + 40);
        push(&mut lines, writer, record)?;
        self.write(&lines)
    }

    fn append_batch(&self, writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        let mut lines = Vec::new();
        records.iter().try_for_each(|record| push(&mut lines, writer, record))?;
        self.write(&lines)
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        Jsonl::reopen(&self.dir, 0, each)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        let bytes = fs::read(dir.join(FILE))?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if line.last() != Some(&b'\n') {
                break;
            }
            let value: serde_json::Value = serde_json::from_slice(line)?;
            each(value["record"].as_str().ok_or("a line without a record")?.as_bytes())?;
        }
        Ok(())
    }
}

impl Jsonl {
    fn write(&self, lines: &[u8]) -> Outcome<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(lines)?;
        Ok(file.sync_data()?)
    }
}

fn push(lines: &mut Vec<u8>, writer: usize, record: &[u8]) -> Outcome<()> {
    write!(lines, "{{\"writer\":{writer},\"record\":\"")?;
    lines.extend_from_slice(record);
    lines.extend_from_slice(b"\"}\n");
    Ok(())
}
