//! Claims: at most one room of a kind on one open log.
//!
//! Never here: files. A claim lives in memory and ends with its value; between processes the
//! directory's lock does the same. Two registries on one open log would each apply only their own
//! transactions and silently lose the other's updates; a claim makes the second one an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fork::Home;
use crate::log::Log;
use crate::mutant;
use crate::sync::{Mutex, PoisonError};

/// The names claimed on one open log. Guarded by its own lock, taken alone.
pub(crate) type Claims = Arc<Mutex<BTreeSet<&'static str>>>;

/// A name that is ours on this open log until this is dropped.
#[derive(Debug)]
#[must_use = "the name is free again when this is dropped"]
pub struct Claim {
    claims: Claims,
    name: &'static str,
    home: Home,
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
        let new = claims.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        if new || mutant::is("claim:anybody") {
            return Ok(Claim { claims, name, home });
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
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
    }
}
