//! The ring: which keys changed at which LSN, lately; and the read sets it is asked about.
//!
//! Never here: values. A deletion is a change like any other.
//! Invariant: every change above the floor is in the ring, in LSN order; of what lies at or below
//! the floor nothing is known, and "not known" is answered as "touched". Next room: the locks,
//! [`crate::shared`].

use std::collections::{BTreeSet, VecDeque};

use annals_wal::Lsn;

use crate::ids::LeaseId;
use crate::key::{Key, Prefix};

/// What an attempt has read: keys, the missing ones too, and prefixes with all that is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadSet {
    keys: BTreeSet<Key>,
    prefixes: BTreeSet<Prefix>,
    /// Which keys are bound to these, those included that are bound later.
    leases: BTreeSet<LeaseId>,
}

impl ReadSet {
    pub(crate) fn add_lease(&mut self, lease: LeaseId) {
        self.leases.insert(lease);
    }

    pub(crate) fn add_key(&mut self, key: &Key) {
        if !self.keys.contains(key) {
            self.keys.insert(key.clone());
        }
    }

    pub(crate) fn add_prefix(&mut self, prefix: &Prefix) {
        if !self.prefixes.contains(prefix) {
            self.prefixes.insert(prefix.clone());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty() && self.leases.is_empty()
    }

    /// Whether a change of `key` that binds it to `lease` changes something in this set.
    fn covers(&self, key: &Key, lease: Option<LeaseId>) -> bool {
        lease.is_some_and(|lease| self.leases.contains(&lease))
            || self.keys.contains(key)
            || (!self.prefixes.is_empty() && key.prefixes().any(|p| self.prefixes.contains(p)))
    }
}

/// Something in a read set has changed, or may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Touched {
    /// The key; `None` if the ring no longer reaches the view.
    pub(crate) key: Option<Key>,
    /// The LSN at which this was judged.
    pub(crate) at: Option<Lsn>,
}

#[derive(Debug)]
pub(crate) struct Ring {
    changes: VecDeque<(Lsn, Key, Option<LeaseId>)>,
    /// The LSN of the last change that is no longer here.
    floor: Option<Lsn>,
    /// The LSN of the last change, here or not.
    last: Option<Lsn>,
    keys_max: usize,
}

impl Ring {
    /// Knows nothing up to `floor`.
    pub(crate) fn new(floor: Option<Lsn>, keys_max: usize) -> Ring {
        Ring { changes: VecDeque::new(), floor, last: floor, keys_max }
    }

    pub(crate) fn push(&mut self, lsn: Lsn, keys: impl Iterator<Item = (Key, Option<LeaseId>)>) {
        self.last = Some(lsn);
        self.changes.extend(keys.map(|(key, lease)| (lsn, key, lease)));
        let surplus = self.changes.len().saturating_sub(self.keys_max);
        if let Some((floor, ..)) = self.changes.drain(..surplus).next_back() {
            // The rest of that transaction may still be here; it is at the floor all the same.
            self.floor = Some(floor);
        }
    }

    /// Whether nothing in `reads` has changed after LSN `view`, up to `until`.
    pub(crate) fn check(
        &self,
        reads: &ReadSet,
        view: Option<Lsn>,
        until: Option<Lsn>,
    ) -> std::result::Result<(), Touched> {
        if view < self.floor {
            return Err(Touched { key: None, at: self.last });
        }
        let first = self.changes.partition_point(|(lsn, ..)| Some(*lsn) <= view);
        let later = self.changes.range(first..).take_while(|(lsn, ..)| Some(*lsn) <= until);
        match later.into_iter().find(|(_, key, lease)| reads.covers(key, *lease)) {
            Some((_, key, _)) => Err(Touched { key: Some(key.clone()), at: self.last }),
            None => Ok(()),
        }
    }
}
