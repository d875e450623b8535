//! One attempt of a transaction: a view that moves up, a read set, and the writes it collects.
//!
//! Never here: the decision to run again ([`crate::transact`]).
//! Invariants: everything in the read set is as it was read, at every LSN up to the view; so a
//! closure never sees half of another transaction. The view of an attempt that was overtaken never
//! moves again, so every later check fails as well and it can end in nothing but a restart. Next
//! room: [`crate::transact`].

use std::collections::{BTreeMap, BTreeSet};

use annals_wal::{Before, Lsn};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::{Change, Note};
use crate::error::{Error, Result};
use crate::ids::LeaseId;
use crate::key::{Key, Prefix};
use crate::lease;
use crate::shared::{Alone, Request, Shared};
use crate::state::{Ahead, ReadSet, Touched};
use crate::value::{Entry, Revision, Value};

type Seen<T> = std::result::Result<T, Touched>;

/// The reads of one attempt.
#[derive(Debug)]
pub(crate) struct Attempt<'r> {
    shared: &'r Shared,
    /// The LSN at which all of `reads` is as it was read.
    view: Option<Lsn>,
    reads: ReadSet,
    /// Held by an attempt that nobody may overtake.
    alone: Option<Alone<'r>>,
}

impl<'r> Attempt<'r> {
    pub(crate) fn new(shared: &'r Shared, alone: Option<Alone<'r>>) -> Attempt<'r> {
        Attempt { shared, view: None, reads: ReadSet::default(), alone }
    }

    pub(crate) fn get(&mut self, key: &Key) -> Seen<Option<Entry>> {
        // The durable map is locked first and kept: nothing is promoted between the two looks.
        let durable = self.shared.durable();
        let newer = self.observe(|state| state.get(key))?;
        let entry = newer.unwrap_or_else(|| durable.get(key).cloned());
        self.reads.add_key(key);
        Ok(entry)
    }

    pub(crate) fn scan(&mut self, prefix: &Prefix) -> Seen<BTreeMap<Key, Entry>> {
        let durable = self.shared.durable();
        let newer = self.observe(|state| state.scan(prefix))?;
        let mut found: BTreeMap<Key, Entry> =
            durable.scan(prefix).map(|(key, entry)| (key.clone(), entry.clone())).collect();
        for (key, entry) in newer {
            match entry {
                Some(entry) => found.insert(key, entry),
                None => found.remove(&key),
            };
        }
        self.reads.add_prefix(prefix);
        Ok(found)
    }

    /// The keys bound to this lease.
    pub(crate) fn bound(&mut self, lease: LeaseId) -> Seen<BTreeSet<Key>> {
        let durable = self.shared.durable();
        let newer = self.observe(|state| state.bound(lease))?;
        let candidates: BTreeSet<Key> = durable.bound(lease).cloned().chain(newer).collect();
        drop(durable);
        self.reads.add_lease(lease);
        let mut bound = BTreeSet::new();
        for key in candidates {
            // A key may have been bound to another lease since.
            if self.get(&key)?.is_some_and(|entry| entry.lease == Some(lease)) {
                bound.insert(key);
            }
        }
        Ok(bound)
    }

    /// The check at the end of an attempt that changes nothing. Returns the LSN at which
    /// everything that was read is current, which must be durable before anything is released.
    pub(crate) fn finish(mut self) -> Seen<Option<Lsn>> {
        self.observe(Ahead::applied)
    }

    /// Commits `changes` if everything that was read is current.
    pub(crate) fn commit(
        self,
        changes: Vec<Change>,
        note: Option<&Note>,
        before: &mut dyn Before,
    ) -> Result<Seen<Lsn>> {
        let Attempt { shared, view, reads, alone } = self;
        shared.push(|state| state.check(&reads, view), Request { changes, note, alone, before })
    }

    /// Ends the attempt: the LSN at which everything that was read was current. Nothing is to be
    /// waited for while the gate is held, so it goes with the attempt.
    pub(crate) fn into_view(self) -> Option<Lsn> {
        self.view
    }

    /// Takes the state lock, moves the view up to now if nothing read has changed, and looks.
    fn observe<R>(&mut self, look: impl FnOnce(&Ahead) -> R) -> Seen<R> {
        let state = self.shared.state();
        state.check(&self.reads, self.view)?;
        if state.is_failed() {
            return Err(Touched { key: None, at: state.applied() });
        }
        self.view = state.applied();
        Ok(look(&state))
    }
}

/// What the closure of [`crate::Registry::transact`] reads and writes through.
///
/// Its reads fail with `Restart` once something read before has changed; return that error with
/// `?`, and the closure runs again. Swallowing it changes nothing: the attempt cannot commit.
#[derive(Debug)]
pub struct Tx<'r> {
    attempt: Attempt<'r>,
    /// The newest write of each key; `None` is a deletion.
    writes: BTreeMap<Key, Option<Written>>,
    note: Option<Note>,
}

/// A value that is to be written, and the lease that its key is then bound to.
#[derive(Clone, Debug)]
struct Written {
    value: Value,
    lease: Option<LeaseId>,
}

impl<'r> Tx<'r> {
    pub(crate) fn new(shared: &'r Shared, alone: Option<Alone<'r>>) -> Tx<'r> {
        Tx { attempt: Attempt::new(shared, alone), writes: BTreeMap::new(), note: None }
    }

    /// The value of `key` as this transaction sees it, its own writes included.
    ///
    /// # Errors
    /// `Restart`: see [`Tx`].
    pub fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        if let Some(written) = self.writes.get(key) {
            return Ok(written.as_ref().map(|written| written.value.clone()));
        }
        Ok(self.entry(key)?.map(|entry| entry.value))
    }

    /// The stored entry of `key`, this transaction's own writes not counted.
    pub(crate) fn entry(&mut self, key: &Key) -> Result<Option<Entry>> {
        self.attempt.get(key).map_err(restart)
    }

    /// The keys bound to a lease, this transaction's own writes not counted.
    pub(crate) fn bound(&mut self, lease: LeaseId) -> Result<BTreeSet<Key>> {
        self.attempt.bound(lease).map_err(restart)
    }

    /// [`Tx::get`] of a JSON value.
    ///
    /// # Errors
    /// `Restart`: see [`Tx`]. `Decode` as [`Value::decode_json`].
    pub fn get_json<T: DeserializeOwned>(&mut self, key: &Key) -> Result<Option<T>> {
        self.get(key)?.map(|value| value.decode_json()).transpose()
    }

    /// The transaction that last changed `key`, this one not counted; `None` if it is absent.
    ///
    /// It may not be durable yet. If the closure lets it out by another way than its return, it
    /// names something that a crash can undo.
    ///
    /// # Errors
    /// `Restart`: see [`Tx`].
    pub fn revision(&mut self, key: &Key) -> Result<Option<Revision>> {
        Ok(self.entry(key)?.map(|entry| entry.revision))
    }

    /// All keys at and below `prefix` with their values, in key order, as this transaction sees
    /// them, its own writes included. A key that another transaction adds there counts as a
    /// change of what was read.
    ///
    /// # Errors
    /// `Restart`: see [`Tx`].
    pub fn scan(&mut self, prefix: &Prefix) -> Result<Vec<(Key, Value)>> {
        let stored = self.attempt.scan(prefix).map_err(restart)?;
        let mut found: BTreeMap<Key, Value> =
            stored.into_iter().map(|(key, entry)| (key, entry.value)).collect();
        for (key, written) in prefix.range(&self.writes) {
            match written {
                Some(written) => found.insert(key.clone(), written.value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// Gives `key` this value when the transaction commits.
    pub fn put(&mut self, key: &Key, value: Value) {
        self.writes.insert(key.clone(), Some(Written { value, lease: None }));
    }

    /// Gives `key` this value and binds it to `lease` when the transaction commits: once the lease
    /// has expired, the key goes. The lease counts as read: if it is gone by the time of the
    /// commit, the closure runs again.
    ///
    /// # Errors
    /// `LeaseExpired` if the lease is not there; `Restart`: see [`Tx`].
    pub fn put_leased(&mut self, key: &Key, value: Value, lease: LeaseId) -> Result<()> {
        if self.entry(&lease::key(lease))?.is_none() {
            return Err(Error::lease_expired(lease));
        }
        self.writes.insert(key.clone(), Some(Written { value, lease: Some(lease) }));
        Ok(())
    }

    /// Makes this change when the transaction commits.
    ///
    /// # Errors
    /// `LeaseExpired` as [`Tx::put_leased`]; `Restart`: see [`Tx`].
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Put { key, value } => self.put(key, value.clone()),
            Change::PutLeased { key, value, lease } => {
                self.put_leased(key, value.clone(), *lease)?;
            }
            Change::Delete { key } => self.delete(key),
        }
        Ok(())
    }

    /// Gives `key` this value and leaves it bound to the lease that it is bound to.
    pub(crate) fn put_same_lease(&mut self, key: &Key, value: Value) -> Result<()> {
        let lease = match self.writes.get(key) {
            Some(written) => written.as_ref().and_then(|written| written.lease),
            None => self.entry(key)?.and_then(|entry| entry.lease),
        };
        match lease {
            Some(lease) => self.put_leased(key, value, lease),
            None => {
                self.put(key, value);
                Ok(())
            }
        }
    }

    /// Says who makes this transaction and why; it is written into the log with the changes, for
    /// people, if there are any. A later call replaces an earlier one.
    pub fn note(&mut self, who: impl Into<String>, why: impl Into<String>) {
        let wall_ms = self.attempt.shared.options.clock.wall_ms();
        self.note = Some(Note { who: who.into(), why: why.into(), wall_ms });
    }

    /// [`Tx::put`] of a JSON value.
    ///
    /// # Errors
    /// `Encode` as [`Value::json`].
    pub fn put_json<T: Serialize + ?Sized>(&mut self, key: &Key, value: &T) -> Result<()> {
        self.put(key, Value::json(value)?);
        Ok(())
    }

    /// Removes `key` when the transaction commits, whether or not it has a value.
    pub fn delete(&mut self, key: &Key) {
        self.writes.insert(key.clone(), None);
    }

    pub(crate) fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The reads, the writes in key order, and the note.
    pub(crate) fn into_parts(self) -> (Attempt<'r>, Vec<Change>, Option<Note>) {
        let change = |(key, written)| match written {
            Some(Written { value, lease: None }) => Change::Put { key, value },
            Some(Written { value, lease: Some(lease) }) => Change::PutLeased { key, value, lease },
            None => Change::Delete { key },
        };
        (self.attempt, self.writes.into_iter().map(change).collect(), self.note)
    }
}

fn restart(touched: Touched) -> Error {
    Error::restart(touched.key.as_ref())
}
