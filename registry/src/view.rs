//! Reads that change nothing: a consistent view of the durable state, and the newest state that is
//! not promised yet.
//!
//! Never here: writes, a wait for a sync, a lock while a closure runs.
//! Invariants: everything a [`View`] has read is as it was at one LSN, which is durable; what
//! [`LatestRevision`] names may be undone by a crash, so nothing that expects a revision takes it.
//! Next room: [`crate::tx`].

use std::fmt;

use annals_wal::Lsn;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Prefix};
use crate::mutant;
use crate::nesting::Mark;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::state::{Durable, ReadSet, Touched};
use crate::transact;
use crate::value::{Entry, Revision, Value};

/// The durable state at one moment, read key by key; see [`Registry::read`].
#[derive(Debug)]
pub struct View<'r> {
    shared: &'r Shared,
    /// The LSN at which all of `reads` is as it was read.
    at: Option<Lsn>,
    reads: ReadSet,
    overtaken: Option<Touched>,
}

impl View<'_> {
    /// The entry of `key` in this view.
    ///
    /// # Errors
    /// `Restart` once something read before has changed: return it, and the closure runs again.
    pub fn get(&mut self, key: &Key) -> Result<Option<Entry>> {
        let entry = self.look(|durable| durable.get(key).cloned())?;
        self.reads.add_key(key);
        Ok(entry)
    }

    /// [`View::get`] of a JSON value.
    ///
    /// # Errors
    /// As [`View::get`]; `Decode` as [`Value::decode_json`].
    pub fn get_json<T: DeserializeOwned>(&mut self, key: &Key) -> Result<Option<T>> {
        self.get(key)?.map(|entry| entry.value.decode_json()).transpose()
    }

    /// All keys at and below `prefix` in this view, in key order.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn scan(&mut self, prefix: &Prefix) -> Result<Vec<(Key, Entry)>> {
        let copy = |durable: &Durable| {
            durable.scan(prefix).map(|(key, entry)| (key.clone(), entry.clone())).collect()
        };
        let found = self.look(copy)?;
        self.reads.add_prefix(prefix);
        Ok(found)
    }

    /// The last transaction that this view contains; `None` before the first.
    pub fn revision(&self) -> Option<Revision> {
        self.at.map(Revision::new)
    }

    /// Moves the view up to the durable state if nothing read has changed, and looks.
    fn look<R>(&mut self, look: impl FnOnce(&Durable) -> R) -> Result<R> {
        let durable = self.shared.durable();
        let until = durable.applied();
        let checked = self.shared.state().check_until(&self.reads, self.at, until);
        if let Some(touched) = self.overtaken.clone().or(checked.err()) {
            let error = Error::restart(touched.key.as_ref());
            self.overtaken = Some(touched);
            return Err(error);
        }
        self.at = until;
        Ok(look(&durable))
    }
}

/// A value that may not be durable yet; see [`Registry::read_latest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latest {
    /// The bytes and their codec.
    pub value: Value,
    /// The transaction that put it there.
    pub revision: LatestRevision,
}

/// A transaction that a crash may still undo. Nothing that expects a revision takes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LatestRevision(Lsn);

impl fmt::Display for LatestRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (may not be durable)", self.0)
    }
}

impl Registry {
    /// Runs `closure` on one consistent view of the durable state: what it reads, keys and
    /// prefixes, was so at one moment, and no crash undoes it. It waits for no sync and no writer,
    /// goes on when the log has failed, and runs again if what it has read changed meanwhile.
    ///
    /// # Errors
    /// What the closure returns; `GaveUp` if it was overtaken each time.
    ///
    /// ```
    /// use annals_registry::{Key, Prefix, Registry};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let (count, agents) = (Key::new("active_count")?, Prefix::new("agents")?);
    /// let (said, found) = registry.read(|view| {
    ///     Ok((view.get_json::<usize>(&count)?.unwrap_or(0), view.scan(&agents)?.len()))
    /// })?;
    /// assert_eq!(said, found);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read<T>(&self, mut closure: impl FnMut(&mut View<'_>) -> Result<T>) -> Result<T> {
        let shared = self.shared();
        let attempts = shared.options.attempts_max;
        shared.look();
        for number in 0..attempts {
            // While the gate is held nothing new is ordered, so that what still becomes durable
            // is soon at an end. A child made by fork, or an inner closure, must not wait there.
            let may_wait = number >= transact::overtaken_max(shared) && shared.admit().is_ok();
            let _alone = may_wait.then(|| shared.alone().ok());
            shared.promote();
            let mut view = View { shared, at: None, reads: ReadSet::default(), overtaken: None };
            // Whoever commits inside would wait for the gate that this thread may hold.
            let marked = !mutant::is("registry:a-read-takes-commits");
            let inside = marked.then(|| Mark::set().ok());
            let ended = closure(&mut view);
            drop(inside);
            let restart = matches!(&ended, Err(error) if error.kind() == ErrorKind::Restart);
            if view.overtaken.is_none() && !restart {
                shared.meter.attempts(number);
                return ended;
            }
        }
        shared.meter.attempts(attempts);
        shared.meter.gave_up();
        Err(Error::gave_up(attempts))
    }

    /// The newest value of `key`, durable or not: for a display that would rather be ahead than
    /// sure. Everything else of this registry tells durable things only.
    pub fn read_latest(&self, key: &Key) -> Option<Latest> {
        let shared = self.shared();
        let durable = shared.durable_now();
        let state = shared.state();
        let newer = if state.is_failed() { None } else { state.get(key) };
        drop(state);
        let entry = newer.unwrap_or_else(|| durable.get(key).cloned())?;
        let revision = LatestRevision(entry.revision.lsn());
        Some(Latest { value: entry.value, revision })
    }
}
