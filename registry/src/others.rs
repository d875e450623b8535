//! What other processes commit to the same log: taken into the state as the log reads it, before
//! this process validates anything in its turn.
//!
//! Never here: a decision; what is in the log was checked by who wrote it. Lock order: `waiting`,
//! then `state`. Invariant: every transaction of others after the one that the state was rebuilt to
//! is applied once and in LSN order, or the state has failed and nothing is committed on it any
//! more. Next room: [`crate::shared`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_wal::{Listen, Lsn, RecordRef};

use crate::codec::{self, TRANSACTION};
use crate::error::{Error, Result};
use crate::state::{Ahead, Transaction};

/// The listener. On a log of one process it hears nothing.
#[derive(Debug, Default)]
pub(crate) struct Others {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What came while the state was being rebuilt.
    waiting: Vec<(Lsn, Vec<u8>)>,
    state: Option<Arc<Mutex<Ahead>>>,
    failed: Option<Error>,
}

impl Others {
    /// From here on transactions go into `state`, which holds everything up to `applied`.
    pub(crate) fn begin(&self, state: &Arc<Mutex<Ahead>>, applied: Option<Lsn>) {
        let mut inner = self.lock();
        inner.state = Some(state.clone());
        for (lsn, payload) in std::mem::take(&mut inner.waiting) {
            if Some(lsn) > applied {
                inner.apply(lsn, &payload);
            }
        }
    }

    /// # Errors
    /// A transaction of another process that this one could not read.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.lock().failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn apply(&mut self, lsn: Lsn, payload: &[u8]) {
        let Some(state) = &self.state else { return };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match codec::decode_all(lsn, payload) {
            _ if self.failed.is_some() => {}
            Ok(decoded) => state.apply(Transaction { lsn, changes: decoded.changes }),
            Err(error) => {
                state.fail();
                self.failed = Some(error);
            }
        }
    }
}

impl Listen for Others {
    fn appended(&self, record: RecordRef<'_>) {
        if record.kind != TRANSACTION {
            return;
        }
        let mut inner = self.lock();
        if inner.state.is_some() {
            inner.apply(record.lsn, record.payload);
        } else {
            inner.waiting.push((record.lsn, record.payload.to_vec()));
        }
    }
}
