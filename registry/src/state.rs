//! The registry's state machine: the two maps, and which of them a read believes.
//!
//! Never here: I/O, clocks, locks, the log. Whoever calls holds what is named in
//! [`crate::shared`].
//! Invariants: [`Durable`] holds exactly the transactions up to some LSN, [`Ahead`] those after
//! it; both grow by whole transactions in LSN order; nothing is validated when it is applied.
//! LSNs have gaps, because other rooms write to the same log. Next room: [`ring`].

mod ring;
mod shot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use annals_wal::Lsn;

pub(crate) use ring::{ReadSet, Touched};
use shot::Shot;

use crate::change::Change;
use crate::ids::LeaseId;
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
    /// The keys bound to each lease.
    bound: BTreeMap<LeaseId, BTreeSet<Key>>,
    /// The LSN of the last transaction in the map.
    applied: Option<Lsn>,
    /// The snapshot under way. Its own lock, so that readers of the map can move it on.
    shot: Mutex<Option<Shot>>,
}

impl Durable {
    /// Adds the next transaction.
    pub(crate) fn apply(&mut self, transaction: Transaction) {
        let revision = Revision::new(transaction.lsn);
        for change in transaction.changes {
            let (key, entry) = change.into_entry(revision);
            self.set(key, entry);
        }
        self.applied = Some(transaction.lsn);
    }

    fn set(&mut self, key: Key, entry: Option<Entry>) {
        if let Some(shot) = self.shot.get_mut().unwrap_or_else(PoisonError::into_inner) {
            shot.put_aside(&key, || self.map.get(&key).cloned());
        }
        let now = entry.as_ref().and_then(|entry| entry.lease);
        if let Some(lease) = now {
            self.bound.entry(lease).or_default().insert(key.clone());
        }
        let before = match entry {
            Some(entry) => self.map.insert(key.clone(), entry),
            None => self.map.remove(&key),
        };
        let before = before.and_then(|entry| entry.lease).filter(|lease| now != Some(*lease));
        if let Some(lease) = before
            && let Some(keys) = self.bound.get_mut(&lease)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.bound.remove(&lease);
            }
        }
    }

    /// The LSN of the last transaction in the map.
    pub(crate) fn applied(&self) -> Option<Lsn> {
        self.applied
    }

    /// A map read from a snapshot: entries in key order, the last transaction in it.
    pub(crate) fn of_snapshot(entries: Vec<(Key, Entry)>, applied: Lsn) -> Durable {
        let mut bound: BTreeMap<LeaseId, BTreeSet<Key>> = BTreeMap::new();
        for (key, entry) in &entries {
            if let Some(lease) = entry.lease {
                bound.entry(lease).or_default().insert(key.clone());
            }
        }
        let map = entries.into_iter().collect();
        Durable { map, bound, applied: Some(applied), shot: Mutex::new(None) }
    }

    /// Begins a snapshot of the map as it is now and returns its LSN; `None` before the first
    /// transaction. One at a time; it ends with [`Durable::end_shot`].
    pub(crate) fn begin_shot(&self) -> Option<Lsn> {
        let applied = self.applied?;
        *self.shot() = Some(Shot::default());
        Some(applied)
    }

    /// The next entries of the snapshot, after looking at this many keys; empty at the end.
    pub(crate) fn next_of_shot(&self, keys_max: usize) -> Vec<(Key, Entry)> {
        match &mut *self.shot() {
            Some(shot) => shot.next(&self.map, keys_max),
            None => Vec::new(),
        }
    }

    pub(crate) fn end_shot(&self) {
        *self.shot() = None;
    }

    fn shot(&self) -> MutexGuard<'_, Option<Shot>> {
        self.shot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys bound to this lease.
    pub(crate) fn bound(&self, lease: LeaseId) -> impl Iterator<Item = &Key> {
        self.bound.get(&lease).into_iter().flatten()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.map.get(key)
    }

    /// What lies at and below `prefix`, in key order.
    pub(crate) fn scan<'a>(
        &'a self,
        prefix: &Prefix,
    ) -> impl Iterator<Item = (&'a Key, &'a Entry)> + use<'a> {
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
        self.ring.check(reads, view, self.applied)
    }

    /// [`Ahead::check`] of reads of the durable map alone, which ends with `until`.
    pub(crate) fn check_until(
        &self,
        reads: &ReadSet,
        view: Option<Lsn>,
        until: Option<Lsn>,
    ) -> std::result::Result<(), Touched> {
        if reads.is_empty() || view == until {
            return Ok(());
        }
        self.ring.check(reads, view, until)
    }

    /// The keys that wait and are bound to this lease by their newest change.
    pub(crate) fn bound(&self, lease: LeaseId) -> Vec<Key> {
        let newer = self.newest.iter();
        let of = newer.filter(|(_, v)| v.entry.as_ref().is_some_and(|e| e.lease == Some(lease)));
        of.map(|(key, _)| key.clone()).collect()
    }

    /// Adds the next transaction. Its LSN is above every other's.
    pub(crate) fn apply(&mut self, transaction: Transaction) {
        let lsn = transaction.lsn;
        self.applied = Some(lsn);
        let keys = transaction.changes.iter().map(|change| (change.key().clone(), change.lease()));
        self.ring.push(lsn, keys);
        for change in &transaction.changes {
            let (key, entry) = change.clone().into_entry(Revision::new(lsn));
            self.newest.insert(key, Version { lsn, entry });
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
