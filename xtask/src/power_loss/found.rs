//! Reads a recovered log and says which of the writer's records stand where.
//!
//! Judged here, without knowing what was acknowledged: LSNs are dense, every record is one of the
//! writer's with exactly its content, every thread's batches are whole and in order.
//! Next room: [`super::oracle`] compares with what was told.

use std::collections::BTreeMap;

use annals_observer::Entry;
use annals_registry::{Change, Key, TRANSACTION, Value, decode_transaction};
use annals_wal::{Log, StoredRecord};

use super::story;

/// A batch: its thread and number there.
type Batch = (u64, u64);

#[derive(Default)]
pub(crate) struct Found {
    pub(crate) head: u64,
    /// LSN of the last record, `head - 1` if there is none.
    pub(crate) last: u64,
    /// The first LSN kept of each batch, and the LSN that its first record has or had.
    pub(crate) batches: BTreeMap<Batch, (u64, u64)>,
    /// LSN and changes of every transaction.
    pub(crate) transactions: Vec<(u64, Vec<Change>)>,
    /// The observer's entries.
    pub(crate) entries: Vec<(u64, Entry)>,
    pub(crate) problems: Vec<String>,
    /// The batch that the last record of each thread stands in, and how much of it came.
    open: BTreeMap<u64, (u64, u64)>,
}

impl Found {
    /// All of a log, from its head to its end.
    pub(crate) fn read(log: &Log, seed: u64) -> Found {
        let head = log.head_lsn().get();
        let mut found = Found { head, last: head - 1, ..Found::default() };
        match log.range(..) {
            Ok(records) => {
                for record in records {
                    match record {
                        Ok(record) => found.take(&record, seed),
                        Err(e) => found.problem(format!("reading: {e}")),
                    }
                }
            }
            Err(e) => found.problem(format!("reading: {e}")),
        }
        for (thread, (n, i)) in std::mem::take(&mut found.open) {
            if i != story::batch_len(seed, thread, n) {
                found.problem(format!("batch {n} of thread {thread} ends after {i} records"));
            }
        }
        found
    }

    fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    fn take(&mut self, record: &StoredRecord, seed: u64) {
        let lsn = record.lsn.get();
        if lsn != self.last + 1 {
            self.problem(format!("LSN {lsn} stands after LSN {}", self.last));
        }
        self.last = lsn;
        if record.kind == TRANSACTION {
            match decode_transaction(record.lsn, &record.payload) {
                Ok(changes) => self.transactions.push((lsn, changes)),
                Err(e) => self.problem(format!("LSN {lsn}: {e}")),
            }
            return;
        }
        match annals_observer::decode_record(record) {
            Ok(Some(entry)) => self.entries.push((lsn, entry)),
            Ok(None) => self.take_plain(record, seed),
            Err(e) => self.problem(format!("LSN {lsn}: {e}")),
        }
    }

    fn take_plain(&mut self, record: &StoredRecord, seed: u64) {
        let lsn = record.lsn.get();
        let Some((thread, n, i)) = story::named(&record.payload) else {
            return self.problem(format!("LSN {lsn} is none of the writer's records"));
        };
        let due = story::record(seed, thread, n, i).kind(record.kind);
        let due = due.stream(record.stream).codec(record.codec);
        let is_due = annals_wal::Record::new(record.payload.clone())
            .kind(story::kind(thread))
            .stream(annals_wal::Stream(story::stream(thread)))
            .codec(annals_wal::Codec(7))
            == due;
        if !is_due || i >= story::batch_len(seed, thread, n) {
            self.problem(format!("LSN {lsn} is not record {i} of batch {n} of thread {thread}"));
        }
        // Either the next record of the batch, or the first of the next batch after a whole one;
        // what stands first behind the head may be anything.
        let goes_on = match self.open.get(&thread) {
            Some((open, len)) if *open == n => *len == i,
            Some((open, len)) => {
                *open + 1 == n && i == 0 && *len == story::batch_len(seed, thread, *open)
            }
            None if self.head == 1 => n == 0 && i == 0,
            None => i == 0 || lsn == self.head,
        };
        if !goes_on {
            self.problem(format!(
                "LSN {lsn}, record {i} of batch {n} of thread {thread}, follows on {:?}",
                self.open.get(&thread)
            ));
        }
        self.open.insert(thread, (n, i + 1));
        self.batches.entry((thread, n)).or_insert((lsn, lsn.saturating_sub(i)));
    }

    /// What the registry must hold: every transaction that is there, in LSN order.
    pub(crate) fn replayed(&self) -> BTreeMap<Key, (Value, u64)> {
        let mut state = BTreeMap::new();
        for (lsn, changes) in &self.transactions {
            for change in changes {
                match change.value() {
                    Some(value) => state.insert(change.key().clone(), (value.clone(), *lsn)),
                    None => state.remove(change.key()),
                };
            }
        }
        state
    }
}
