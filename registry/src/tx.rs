//! One attempt of a transaction: a view that moves up, a read set, and the writes it collects.
//!
//! Never here: the decision to run again ([`crate::transact`]).
//! Invariants: everything in the read set is as it was read, at every LSN up to the view; so a
//! closure never sees half of another transaction. The view of an attempt that was overtaken never
//! moves again, so every later check fails as well and it can end in nothing but a restart. Next
//! room: [`crate::transact`].

use std::collections::BTreeMap;

use annals_wal::Lsn;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::Change;
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::shared::Shared;
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
}

impl<'r> Attempt<'r> {
    pub(crate) fn new(shared: &'r Shared) -> Attempt<'r> {
        Attempt { shared, view: None, reads: ReadSet::default() }
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

    /// The check at the end of an attempt that changes nothing. Returns the LSN at which
    /// everything that was read is current, which must be durable before anything is released.
    pub(crate) fn finish(mut self) -> Seen<Option<Lsn>> {
        self.observe(Ahead::applied)
    }

    /// Commits `changes` if everything that was read is current.
    pub(crate) fn commit(self, changes: Vec<Change>) -> Result<Seen<Lsn>> {
        self.shared.push(|state| state.check(&self.reads, self.view), changes)
    }

    /// The LSN at which everything that was read so far was current.
    pub(crate) fn view(&self) -> Option<Lsn> {
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
    writes: BTreeMap<Key, Option<Value>>,
}

impl<'r> Tx<'r> {
    pub(crate) fn new(shared: &'r Shared) -> Tx<'r> {
        Tx { attempt: Attempt::new(shared), writes: BTreeMap::new() }
    }

    /// The value of `key` as this transaction sees it, its own writes included.
    ///
    /// # Errors
    /// `Restart`: see [`Tx`].
    pub fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        if let Some(written) = self.writes.get(key) {
            return Ok(written.clone());
        }
        Ok(self.attempt.get(key).map_err(restart)?.map(|entry| entry.value))
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
        Ok(self.attempt.get(key).map_err(restart)?.map(|entry| entry.revision))
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
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// Gives `key` this value when the transaction commits.
    pub fn put(&mut self, key: &Key, value: Value) {
        self.writes.insert(key.clone(), Some(value));
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

    /// The reads, and the writes in key order.
    pub(crate) fn into_parts(self) -> (Attempt<'r>, Vec<Change>) {
        let change = |(key, written)| match written {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        };
        (self.attempt, self.writes.into_iter().map(change).collect())
    }
}

fn restart(touched: Touched) -> Error {
    Error::restart(touched.key.as_ref())
}
