//! Preconditions and changes as data, and what becomes of them.
//!
//! Never here: how they are checked. These are the words a caller speaks; a remote registry could
//! speak them too.
//! Invariant: a lost race is a value that must be looked at, never an error, and what a write
//! expects is always said. Next room: [`crate::state`].

use std::convert::Infallible;

use crate::error::Error;
use crate::ids::LeaseId;
use crate::key::Key;
use crate::value::{Entry, Revision, Value};

/// What a key must be for a change to go ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// There is no value.
    Absent,
    /// There is a value, last changed by this transaction.
    At(Revision),
    /// Whatever there is.
    Any,
}

impl Expected {
    pub(crate) fn holds(self, current: Option<&Entry>) -> bool {
        match self {
            Expected::Absent => current.is_none(),
            Expected::At(revision) => current.is_some_and(|entry| entry.revision == revision),
            Expected::Any => true,
        }
    }
}

/// A key and what it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Precondition {
    /// The key.
    pub key: Key,
    /// What it must be.
    pub expected: Expected,
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key gets this value.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
    },
    /// The key gets this value and is bound to a lease: when that expires, the key goes. The
    /// lease must be there ([`crate::ErrorKind::LeaseExpired`] otherwise). A later [`Change::Put`]
    /// unbinds it.
    PutLeased {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
        /// The lease.
        lease: LeaseId,
    },
    /// The key has no value any more.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Change {
    /// The key that changes.
    pub fn key(&self) -> &Key {
        match self {
            Change::Put { key, .. } | Change::PutLeased { key, .. } | Change::Delete { key } => key,
        }
    }

    /// The lease that the key is bound to from here on.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Change::PutLeased { lease, .. } => Some(*lease),
            _ => None,
        }
    }

    /// The value that the key gets; `None` for a deletion.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Change::Put { value, .. } | Change::PutLeased { value, .. } => Some(value),
            Change::Delete { .. } => None,
        }
    }

    /// The key and its entry after the transaction at `revision`.
    pub(crate) fn into_entry(self, revision: Revision) -> (Key, Option<Entry>) {
        match self {
            Change::Put { key, value } => (key, Some(Entry { value, revision, lease: None })),
            Change::PutLeased { key, value, lease } => {
                (key, Some(Entry { value, revision, lease: Some(lease) }))
            }
            Change::Delete { key } => (key, None),
        }
    }
}

/// What became of a compare-and-swap or compare-and-delete.
#[must_use = "a lost race is not an error: look whether the change was made"]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cas {
    /// Made and durable; this is the key's new revision.
    Done(Revision),
    /// The key was not as expected, and nothing was changed.
    Conflict {
        /// What it was instead; durable.
        current: Option<Entry>,
    },
}

/// What became of a [`crate::Registry::commit`].
#[must_use = "a lost race is not an error: look whether the changes were made"]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Commit {
    /// All made and durable; this is the new revision of every key changed.
    Done(Revision),
    /// A precondition did not hold, and nothing was changed.
    Conflict {
        /// The key of the first precondition that did not hold.
        key: Key,
        /// What it was instead; durable.
        current: Option<Entry>,
    },
}

/// What became of a [`crate::Registry::transact`].
#[must_use = "a transaction that gave up or aborted is not an error: look what became of it"]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome<T, E> {
    /// It ran and is durable, as is everything it read.
    Done {
        /// What the closure returned.
        value: T,
        /// The new revision of every key it changed; `None` if it changed none.
        revision: Option<Revision>,
    },
    /// The closure aborted. Nothing was changed; what it read was current and is durable.
    Aborted(E),
    /// Something it read had changed each time. Nothing was changed.
    Conflict {
        /// How often the closure ran.
        attempts: u32,
        /// The key that had changed in the last attempt; `None` if so much had changed that the
        /// registry no longer remembers what.
        key: Option<Key>,
    },
}

/// Why a closure ends without a commit. The errors of its reads become one with `?`.
#[derive(Clone, Debug)]
pub enum Abort<E> {
    /// The closure's own reason: nothing is written, and `transact` returns
    /// [`Outcome::Aborted`].
    Because(E),
    /// A call failed. `transact` runs the closure again for `Restart` and returns the others.
    Failed(Error),
}

impl<E> From<Error> for Abort<E> {
    fn from(error: Error) -> Abort<E> {
        Abort::Failed(error)
    }
}

/// Who changed something and why, written into the log with the change, for people. A lease's sweep
/// leaves one; a transaction can ([`crate::Tx::note`]).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Note {
    /// Who did it.
    pub who: String,
    /// Why.
    pub why: String,
    /// Unix time in milliseconds by the writer's clock: read by people, compared with nothing.
    pub wall_ms: u64,
}

/// What a closure returns. Name it there, so that a closure which never aborts need not name
/// the type of a reason: `|tx| -> TxResult<_> { ... }`.
pub type TxResult<T, E = Infallible> = std::result::Result<T, Abort<E>>;
