//! What a log must hold: everything acknowledged, nothing invented, at most one open question.
//!
//! Never here: steps, chance. An answer with an unknown outcome is a question that the next opening
//! decides, and from then on it stays decided.

use std::collections::BTreeMap;

use annals_wal::fs::mem::MemDir;
use annals_wal::{ErrorKind, Log, LogReader};

pub type Holds = BTreeMap<String, u64>;

#[derive(Clone)]
pub struct Model {
    /// The payloads of LSN 1, 2, ...: acknowledged, or shown by an opening.
    pub history: Vec<Vec<u8>>,
    /// A batch that may follow, whole or not at all.
    pub maybe: Vec<Vec<u8>>,
    /// The head is at least this, and at most `head_max`.
    pub head: u64,
    pub head_max: u64,
    pub holds: Holds,
    /// The holds if the last change, its outcome unknown, was written.
    pub holds_maybe: Option<Holds>,
    pub generation: u64,
    /// Numbers the payloads.
    pub stamp: u64,
}

impl Model {
    pub fn new() -> Model {
        Model {
            history: Vec::new(),
            maybe: Vec::new(),
            head: 1,
            head_max: 1,
            holds: Holds::new(),
            holds_maybe: None,
            generation: 0,
            stamp: 0,
        }
    }

    /// The LSN that the next record gets.
    pub fn next_lsn(&self) -> u64 {
        self.history.len() as u64 + 1
    }

    /// A payload that no other record has.
    pub fn payload(&mut self, len: u64) -> Vec<u8> {
        self.stamp += 1;
        let mut payload = format!("{} ", self.stamp).into_bytes();
        payload.resize(payload.len() + len as usize, self.stamp as u8);
        payload
    }

    /// Compares with a log just opened; what it shows of the open questions is decided.
    pub fn check(&mut self, log: &Log) -> Result<(), String> {
        let head = log.head_lsn().get();
        if !(self.head..=self.head_max).contains(&head) {
            return Err(format!("head {head} not in {}..={}", self.head, self.head_max));
        }
        let holds: Holds = log.holds().into_iter().map(|(name, l)| (name, l.get())).collect();
        if holds != self.holds && Some(&holds) != self.holds_maybe.as_ref() {
            return Err(format!("holds {holds:?}, not {:?} or {:?}", self.holds, self.holds_maybe));
        }
        let mut extra = self.read(log, head)?;
        if !extra.is_empty() && extra != self.maybe {
            return Err(format!("{} records invented, not {}", extra.len(), self.maybe.len()));
        }
        let generation = log.generation().0;
        if generation < self.generation {
            return Err(format!("generation {generation} after {}", self.generation));
        }
        self.history.append(&mut extra);
        self.maybe.clear();
        (self.head, self.head_max, self.generation) = (head, head, generation);
        (self.holds, self.holds_maybe) = (holds, None);
        Ok(())
    }

    /// Reads everything and returns what goes beyond the history.
    fn read(&self, log: &Log, head: u64) -> Result<Vec<Vec<u8>>, String> {
        let (mut next, mut extra) = (head, Vec::new());
        for record in log.range(..).map_err(|e| format!("range {e:?}"))? {
            let record = record.map_err(|e| format!("reading {next}: {e:?}"))?;
            if record.lsn.get() != next {
                return Err(format!("LSN {} for {next}", record.lsn));
            }
            match self.history.get(next as usize - 1) {
                Some(known) if *known == record.payload => {}
                Some(_) => return Err(format!("LSN {next} has other bytes")),
                None => extra.push(record.payload),
            }
            next += 1;
        }
        if next < self.next_lsn() {
            return Err(format!("lost {next}..={}", self.history.len()));
        }
        Ok(extra)
    }

    /// A reader that owns nothing sees only what was written, each record in its place.
    pub fn check_reader(&self, disk: &MemDir) -> Result<(), String> {
        let reader = match LogReader::open_in(disk.dir()) {
            Ok(reader) => reader,
            Err(e) if e.kind() == ErrorKind::NotALog => return Ok(()),
            Err(e) => return Err(format!("reader: open {e:?}")),
        };
        for record in reader.range(..).map_err(|e| format!("reader: range {e:?}"))? {
            let record = record.map_err(|e| format!("reader: {e:?}"))?;
            let index = record.lsn.get() as usize - 1;
            let known = self.history.iter().chain(&self.maybe).nth(index);
            if known != Some(&record.payload) {
                return Err(format!("reader: LSN {} has other bytes", record.lsn));
            }
        }
        Ok(())
    }
}
