//! The registry's state machine: the two maps, and which of them a read believes.
//!
//! Never here: I/O, clocks, locks, the log. Whoever calls holds what is named in
//! [`crate::shared`].
//! Invariants: [`Durable`] holds exactly the transactions up to some LSN, [`Ahead`] those after
//! it; both grow by whole transactions in LSN order; nothing is validated when it is applied.
//! LSNs have gaps, because other rooms write to the same log. Next room: [`ring`].

mod ring;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use annals_wal::Lsn;

pub(crate) use ring::{ReadSet, Touched};

use crate::change::Change;
use crate::key::{Key, Prefix};
use crate::value::{Entry, Revision};
use ring::Ring;

/// A transaction's changes and its place in the log.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) lsn: Lsn,
    pub(crate) changes: Vec<Change>,
}

/// A key after one transaction: its entry, or `None` where that transaction deleted it.
#[derive(Clone, Debug)]
struct Version {
    lsn: Lsn,
    entry: Option<Entry>,
}

/// The ordered map that plain reads believe.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    map: BTreeMap<Key, Entry>,
}

impl Durable {
    /// Adds the next transaction.
    pub(crate) fn apply(&mut self, transaction: Transaction) {
        let revision = Revision::new(transaction.lsn);
        for change in transaction.changes {
            match change {
                Change::Put { key, value } => {
                    self.map.insert(key, Entry { value, revision });
                }
                Change::Delete { key } => {
                    self.map.remove(&key);
                }
            }
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.map.get(key)
    }

    /// What lies at and below `prefix`, in key order.
    pub(crate) fn scan(&self, prefix: &Prefix) -> impl Iterator<Item = (&Key, &Entry)> {
        prefix.range(&self.map)
    }
}

/// What was ordered after the durable map's last transaction, and the memory of what changed.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// The LSN of the last transaction, here or in the durable map; `None` before the first.
    applied: Option<Lsn>,
    /// Whole transactions in LSN order, each to be promoted whole.
    waiting: VecDeque<Transaction>,
    /// The newest of the versions that wait, for each key.
    newest: BTreeMap<Key, Version>,
    ring: Ring,
    /// The log has failed: nothing ahead is to be read any more.
    failed: bool,
}

impl Ahead {
    /// Nothing ahead of a durable map that ends with `applied`.
    pub(crate) fn new(applied: Option<Lsn>, ring_keys_max: usize) -> Ahead {
        Ahead {
            applied,
            waiting: VecDeque::new(),
            newest: BTreeMap::new(),
            ring: Ring::new(applied, ring_keys_max),
            failed: false,
        }
    }

    /// The LSN that a view which sees everything has.
    pub(crate) fn applied(&self) -> Option<Lsn> {
        self.applied
    }

    /// Whether [`Ahead::fail`] was called.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed
    }

    /// Whether everything in `reads`, read at LSN `view`, is still as it was; if so it is as it
    /// was at [`Ahead::applied`], too. Decided from the ring alone.
    pub(crate) fn check(
        &self,
        reads: &ReadSet,
        view: Option<Lsn>,
    ) -> std::result::Result<(), Touched> {
        if reads.is_empty() || view == self.applied {
            return Ok(());
        }
        self.ring.check(reads, view)
    }

    /// Adds the next transaction. Its LSN is above every other's.
    pub(crate) fn apply(&mut self, transaction: Transaction) {
        let lsn = transaction.lsn;
        self.applied = Some(lsn);
        self.ring.push(lsn, transaction.changes.iter().map(|change| change.key().clone()));
        for change in &transaction.changes {
            let entry = match change {
                Change::Put { value, .. } => {
                    Some(Entry { value: value.clone(), revision: Revision::new(lsn) })
                }
                Change::Delete { .. } => None,
            };
            self.newest.insert(change.key().clone(), Version { lsn, entry });
        }
        self.waiting.push_back(transaction);
    }

    /// Takes out, in order, every transaction up to `durable`, for the durable map.
    pub(crate) fn take_through(&mut self, durable: Lsn) -> Vec<Transaction> {
        let count = self.waiting.partition_point(|transaction| transaction.lsn <= durable);
        let taken: Vec<Transaction> = self.waiting.drain(..count).collect();
        for transaction in &taken {
            for change in &transaction.changes {
                // A later transaction that waits may have changed the key again.
                if self.newest.get(change.key()).is_some_and(|v| v.lsn == transaction.lsn) {
                    self.newest.remove(change.key());
                }
            }
        }
        taken
    }

    /// Nothing ahead is read any more; from here on only promotion takes anything out. What still
    /// waits is kept for that: a sync that was on its way when another thread's failure poisoned
    /// the log may yet succeed, and its transactions are then acknowledged.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// What is newer here than in the durable map: `None` if nothing is, `Some(None)` if the key
    /// was deleted.
    pub(crate) fn get(&self, key: &Key) -> Option<Option<Entry>> {
        self.newest.get(key).map(|version| version.entry.clone())
    }

    /// [`Ahead::get`] of every key at and below `prefix` that is newer here.
    pub(crate) fn scan(&self, prefix: &Prefix) -> Vec<(Key, Option<Entry>)> {
        let newer = prefix.range(&self.newest);
        newer.map(|(key, version)| (key.clone(), version.entry.clone())).collect()
    }
}
