//! Claims: at most one room of a kind on one open log; and what several of a kind have in common.
//!
//! Never here: files. A claim lives in memory and ends with its value; between processes the
//! directory's lock does the same. Two registries on one open log would each apply only their own
//! transactions and silently lose the other's updates; a claim makes the second one an error. Where
//! several are allowed (hand-overs to archives) they find each other by a value in common.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fork::Home;
use crate::log::Log;
use crate::mutant;
use crate::sync::{Mutex, PoisonError};

/// The names ever claimed on one open log. Guarded by its own lock, taken alone.
pub(crate) type Claims = Arc<Mutex<BTreeMap<&'static str, Name>>>;

#[derive(Debug, Default)]
pub(crate) struct Name {
    claimed: bool,
    turn: RoomLock,
}

/// Values in common on one open log, by their types. Guarded by its own lock, taken alone.
pub(crate) type Common = Mutex<BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>>;

/// Whose turn it is to make files under a claimed name; see [`Claim::turn`].
pub type RoomLock = Arc<std::sync::Mutex<()>>;

/// A name that is ours on this open log until this is dropped.
#[derive(Debug)]
#[must_use = "the name is free again when this is dropped"]
pub struct Claim {
    claims: Claims,
    name: &'static str,
    turn: RoomLock,
    home: Home,
}

impl Claim {
    /// One lock for all who ever claim this name on this open log. A room whose threads outlive its
    /// claim makes and removes files under it, so that the next one's wait for theirs. It is the
    /// room's to take; nothing here does.
    pub fn turn(&self) -> RoomLock {
        self.turn.clone()
    }
}

impl Log {
    /// Claims a name on this open log, for a room that keeps state of its own and must be the only
    /// one of its kind. Nothing is written.
    ///
    /// # Errors
    /// `Invalid` while the name is claimed already, through this or any other handle; `Locked` in a
    /// child that inherited the handle by fork.
    pub fn claim(&self, name: &'static str) -> Result<Claim> {
        let home = self.core_arc().home.clone();
        home.check()?;
        let claims = self.core_arc().shared.claims.clone();
        let (was_claimed, turn) = {
            let mut names = claims.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = names.entry(name).or_default();
            (std::mem::replace(&mut entry.claimed, true), entry.turn.clone())
        };
        if !was_claimed || mutant::is("claim:anybody") {
            return Ok(Claim { claims, name, turn, home });
        }
        Err(Error::invalid(format!(
            "a {name} on this open log exists already: clone that one, or drop it first"
        )))
    }

    /// The one value of this type on this open log, the same for all handles: made by whoever asks
    /// first, and dropped with the log. For rooms of a kind that must know of each other. Nothing is
    /// written.
    ///
    /// # Errors
    /// `Locked` in a child that inherited the handle by fork: what another thread of its parent had
    /// locked then stays locked there.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = annals_wal::Log::open(dir.path().join("log"))?;
    /// #[derive(Default)]
    /// struct Visits(AtomicU64);
    /// log.common::<Visits>()?.0.fetch_add(1, Ordering::Relaxed);
    /// assert_eq!(log.clone().common::<Visits>()?.0.load(Ordering::Relaxed), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn common<T: Default + Any + Send + Sync>(&self) -> Result<Arc<T>> {
        self.core_arc().home.check()?;
        // Outside the lock: it is the caller's code, which may come back here.
        let fresh: Arc<dyn Any + Send + Sync> = Arc::new(T::default());
        let value = {
            let mut values =
                self.core_arc().shared.common.lock().unwrap_or_else(PoisonError::into_inner);
            values.entry(TypeId::of::<T>()).or_insert_with(|| fresh.clone()).clone()
        };
        drop(fresh); // the caller's code again, if it is not the one
        // It lies under its own type, so it is always of it.
        Ok(value.downcast::<T>().unwrap_or_default())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.home.is_here() {
            return; // a child made by fork: its parent's threads may have held the lock
        }
        let mut names = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry(self.name).or_default().claimed = false;
    }
}
