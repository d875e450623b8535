//! Claims: at most one room of a kind on one open log.
//!
//! Never here: files. A claim lives in memory and ends with its value; between processes the
//! directory's lock does the same. Two registries on one open log would each apply only their own
//! transactions and silently lose the other's updates; a claim makes the second one an error.

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
