//! What most agent runtimes do: a file of JSON lines, and here with an `fdatasync` after each.
//!
//! A mutex, one `write` of one line, `File::sync_data`. No checksum, no recovery but skipping a
//! last line without an end. Next room: [`crate::engine`].

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::engine::{Each, Engine, Outcome, Setup};

pub(crate) struct Jsonl(Mutex<File>);

impl Engine for Jsonl {
    const NAME: &'static str = "jsonl";
    const SETTINGS: &'static str = "a mutex, one write and one fdatasync a line";

    fn open(setup: &Setup) -> Outcome<Jsonl> {
        let path = setup.dir.join("log.jsonl");
        let file = OpenOptions::new().create_new(true).append(true).open(path)?;
        File::open(&setup.dir)?.sync_all()?;
        Ok(Jsonl(Mutex::new(file)))
    }

    fn append(&self, writer: usize, record: &[u8]) -> Outcome<()> {
        let mut line = Vec::with_capacity(record.len() + 40);
        write!(line, "{{\"writer\":{writer},\"record\":\"")?;
        line.extend_from_slice(record);
        line.extend_from_slice(b"\"}\n");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)?;
        Ok(file.sync_data()?)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        let bytes = fs::read(dir.join("log.jsonl"))?;
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
