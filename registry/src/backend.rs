//! The seam: what a registry is to those who need not know where it is.
//!
//! Never here: closures, locks, the log. Preconditions and changes are data, so another process or
//! another machine can stand behind this as well; a store with conditional writes (S3, etcd, NATS)
//! offers the same three calls.
//! Invariant: an outcome is told only when it is durable. Next room: [`crate::registry`].

use crate::change::{Change, Commit, Precondition};
use crate::error::Result;
use crate::key::{Key, Prefix};
use crate::registry::Registry;
use crate::value::Entry;

/// Keys and values that change all together or not at all, wherever they are.
///
/// ```
/// use annals_registry::{Backend, Change, Commit, Expected, Key, Precondition, Registry, Result};
/// use annals_registry::Value;
///
/// /// Adds to a number, whatever is behind the seam.
/// fn add(backend: &dyn Backend, key: &Key, amount: u64) -> Result<u64> {
///     loop {
///         let current = backend.current(key)?;
///         let number = current.as_ref().map_or(Ok(0), |entry| entry.value.decode_json::<u64>())?;
///         let expected = current.map_or(Expected::Absent, |e| Expected::At(e.revision));
///         let precondition = Precondition { key: key.clone(), expected };
///         let value = Value::json(&(number + amount))?;
///         let change = Change::Put { key: key.clone(), value };
///         if let Commit::Done(_) = backend.commit(&[precondition], &[change])? {
///             return Ok(number + amount);
///         }
///     }
/// }
/// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let registry = Registry::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// assert_eq!(add(&registry, &Key::new("n")?, 2)?, 2);
/// # Ok(())
/// # }
/// ```
pub trait Backend: Send + Sync {
    /// The durable entry of a key.
    ///
    /// # Errors
    /// Whatever keeps the backend from answering.
    fn current(&self, key: &Key) -> Result<Option<Entry>>;

    /// The durable entries at and below a prefix, as they were at one moment, in key order.
    ///
    /// # Errors
    /// As [`Backend::current`].
    fn list(&self, prefix: &Prefix) -> Result<Vec<(Key, Entry)>>;

    /// Makes all changes in one transaction if all preconditions hold. Durable on return.
    ///
    /// # Errors
    /// As [`Registry::commit`]; three-way: see [`crate::Error::outcome_unknown`].
    fn commit(&self, preconditions: &[Precondition], changes: &[Change]) -> Result<Commit>;
}

impl Backend for Registry {
    fn current(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.get(key))
    }

    fn list(&self, prefix: &Prefix) -> Result<Vec<(Key, Entry)>> {
        Ok(self.scan(prefix))
    }

    fn commit(&self, preconditions: &[Precondition], changes: &[Change]) -> Result<Commit> {
        Registry::commit(self, preconditions, changes)
    }
}
