//! What a log must hold: everything acknowledged, nothing invented, whole batches, in order.
//!
//! Never here: steps. What was ordered and not acknowledged is a question that the next opening
//! decides batch by batch, in order; from then on it stays decided.

use std::collections::BTreeMap;

use annals_wal::fs::mem::MemDir;
use annals_wal::{ErrorKind, Log, LogReader};

pub type Holds = BTreeMap<String, u64>;

#[derive(Clone)]
pub struct Model {
    /// The payloads of LSN 1, 2, ...: acknowledged, or shown by an opening.
    sure: Vec<Vec<u8>>,
    /// Batches that were ordered after them: any number of them from the front may be there.
    maybe: Vec<Vec<Vec<u8>>>,
    /// The head is at least this, and at most `head_max`.
    pub head: u64,
    pub head_max: u64,
    pub holds: Holds,
    /// The holds if the last change, its outcome unknown, was written.
    pub holds_maybe: Option<Holds>,
    pub generation: u64,
    /// Numbers the payloads.
    stamp: u64,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            sure: Vec::new(),
            maybe: Vec::new(),
            head: 1,
            head_max: 1,
            holds: Holds::new(),
            holds_maybe: None,
            generation: 0,
            stamp: 0,
        }
    }
}

impl Model {
    /// The LSN that the next record gets.
    pub fn next_lsn(&self) -> u64 {
        (self.sure.len() + self.maybe.iter().map(Vec::len).sum::<usize>()) as u64 + 1
    }

    /// A payload that no other record has.
    pub fn payload(&mut self, len: usize) -> Vec<u8> {
        self.stamp += 1;
        let mut payload = self.stamp.to_le_bytes().to_vec();
        payload.resize(8 + len, self.stamp as u8);
        payload
    }

    /// A batch has its place.
    pub fn ordered(&mut self, batch: Vec<Vec<u8>>) {
        self.maybe.push(batch);
    }

    /// This LSN was acknowledged, and with it all before it and the whole of its batch.
    pub fn durable_up_to(&mut self, lsn: u64) {
        while !self.maybe.is_empty() && (self.sure.len() as u64) < lsn {
            let batch = self.maybe.remove(0);
            self.sure.extend(batch);
        }
    }

    /// Compares with a log just opened; what it shows of the open questions is decided.
    pub fn check(&mut self, log: &Log) {
        let head = log.head_lsn().get();
        let between = self.head..=self.head_max;
        assert!(between.contains(&head), "head {head} not in {between:?}; {}", log.recovery());
        let holds: Holds = log.holds().into_iter().map(|(name, l)| (name, l.get())).collect();
        let known = holds == self.holds || Some(&holds) == self.holds_maybe.as_ref();
        assert!(known, "holds {holds:?}, not {:?} or {:?}", self.holds, self.holds_maybe);
        let generation = log.generation().0;
        assert!(generation >= self.generation, "generation {generation}, was {}", self.generation);
        let last = self.read(log, head);
        self.durable_up_to(last);
        assert_eq!(self.sure.len() as u64, last, "half a batch; {}", log.recovery());
        self.maybe.clear();
        (self.head, self.head_max, self.generation) = (head, head, generation);
        (self.holds, self.holds_maybe) = (holds, None);
    }

    /// Reads everything; each record is the one that was ordered there. Returns the last LSN.
    fn read(&self, log: &Log, head: u64) -> u64 {
        let all: Vec<&Vec<u8>> = self.sure.iter().chain(self.maybe.iter().flatten()).collect();
        let mut next = head;
        for record in log.range(..).expect("its own records can be read") {
            let record = record.expect("its own records can be read");
            assert_eq!(record.lsn.get(), next, "LSNs are dense");
            let known = all.get(next as usize - 1);
            assert!(known.is_some_and(|k| **k == record.payload), "LSN {next} was invented");
            next += 1;
        }
        // A head beyond the last record: nothing to read, and nothing lost.
        let last = log.durable_lsn().map_or(0, annals_wal::Lsn::get);
        assert_eq!((next - 1).max(last), last, "read beyond the durable LSN");
        assert!(next > last, "LSN {next} cannot be read, and {last} is durable");
        assert!(last >= self.sure.len() as u64, "lost {}..={}", last + 1, self.sure.len());
        last
    }

    /// A reader that owns nothing sees only what was ordered, each record in its place.
    pub fn check_reader(&self, disk: &MemDir) {
        let all: Vec<&Vec<u8>> = self.sure.iter().chain(self.maybe.iter().flatten()).collect();
        let reader = match LogReader::open_in(disk.dir()) {
            Ok(reader) => reader,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotALog, "{error}");
                return;
            }
        };
        for record in reader.range(..).expect("a reader's own head is not trimmed") {
            let record = match record {
                Ok(record) => record,
                Err(error) => panic!("reader: {error:?}"),
            };
            let known = all.get(record.lsn.get() as usize - 1);
            assert!(known.is_some_and(|k| **k == record.payload), "LSN {} invented", record.lsn);
        }
    }
}
