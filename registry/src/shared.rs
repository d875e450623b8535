//! The two structures behind their locks, and the one path on which a transaction commits.
//!
//! Never here: judgement; that is [`crate::state`]. No caller's code runs under a lock of this
//! file, nothing waits for durability under one, and nothing reads or writes files under one.
//!
//! Lock order, each taken only after those before it:
//!
//! ```text
//! queue (the log's)   then   state
//! durable             then   state
//! ```
//!
//! `state` comes last and is held for a few map operations, because whoever holds the queue may
//! wait for it, and behind that the whole log. So nobody holding `state` waits for `durable`,
//! which a long scan may hold, and nobody holding `durable` calls the log.
//!
//! Invariant: a transaction is applied to `state` before the queue lock under which it was pushed
//! is released, so whatever the log says is durable is already there. Next room: [`crate::tx`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use annals_wal::{Batch, Claim, Codec, EncodedBatch, Log, Lsn, Record};

use crate::change::Change;
use crate::codec::{self, TRANSACTION};
use crate::error::{Error, Result};
use crate::mutant;
use crate::nesting;
use crate::options::Options;
use crate::state::{Ahead, Durable, Transaction};

/// What every handle of a registry shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) log: Log,
    /// Keeps every other registry away from this open log.
    _claim: Claim,
    pub(crate) options: Options,
    /// Guards the map that plain reads believe. Readers hold it for one get or one scan;
    /// a promoter holds it for writing. Comes before `state`, never together with the queue.
    durable: RwLock<Durable>,
    /// Guards what is ahead of the durable map, and the ring. Comes last; nobody waits for
    /// anything while holding it.
    state: Mutex<Ahead>,
    /// The LSN up to which the log has been promoted into `durable`; 0 before the first. Follows
    /// the log's durable LSN also where other rooms' records lie between.
    promoted: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        log: Log,
        claim: Claim,
        options: Options,
        durable: Durable,
        ends: Ends,
    ) -> Shared {
        let ahead = Ahead::new(ends.applied, options.ring_keys_max);
        Shared {
            log,
            _claim: claim,
            options,
            durable: RwLock::new(durable),
            state: Mutex::new(ahead),
            promoted: AtomicU64::new(number(ends.promoted)),
        }
    }

    /// The durable map, up to date with the log. Waits for no queue and no sync.
    pub(crate) fn durable_now(&self) -> RwLockReadGuard<'_, Durable> {
        self.promote();
        self.durable()
    }

    /// The durable map as it is. While the guard lives nothing is promoted.
    pub(crate) fn durable(&self) -> RwLockReadGuard<'_, Durable> {
        // A poisoned lock means a panic of our own between two map operations; the maps are
        // still maps, and a registry that stops answering helps nobody.
        self.durable.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Ahead> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves whole transactions that have become durable from `state` to `durable`.
    pub(crate) fn promote(&self) {
        let early = mutant::is("registry:promoted-before-durable").then(|| self.state().applied());
        let Some(durable_lsn) = self.log.durable_lsn().max(early.flatten()) else { return };
        if self.promoted.load(Ordering::Acquire) >= durable_lsn.get() {
            return;
        }
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        let ready = self.state().take_through(durable_lsn);
        for transaction in ready {
            durable.apply(transaction);
        }
        // Still under the lock, and never back: another promoter may have come further.
        self.promoted.fetch_max(durable_lsn.get(), Ordering::Release);
    }

    /// Refuses what may not begin: inside a closure, in a forked child, or on a log that has failed.
    pub(crate) fn admit(&self) -> Result<()> {
        nesting::refuse_inside()?;
        // Before any lock: in a forked child nobody may ever leave it.
        self.log.check_process().map_err(Error::of_log)?;
        self.refuse_poisoned()
    }

    /// `Poisoned` if the log has failed. Takes the queue lock for a moment.
    pub(crate) fn refuse_poisoned(&self) -> Result<()> {
        match self.log.poisoned() {
            Some(error) => {
                self.settle();
                Err(Error::poisoned(error))
            }
            None => Ok(()),
        }
    }

    /// Appends `changes` as one transaction if `check` lets it, and returns its LSN when it is
    /// durable and promoted. `check` sees the state under the queue lock, after everything that
    /// was ordered before; it may be asked more than once.
    pub(crate) fn push<C>(
        &self,
        check: impl Fn(&Ahead) -> std::result::Result<(), C>,
        changes: Vec<Change>,
    ) -> Result<std::result::Result<Lsn, C>> {
        let mut batch = self.encode(&changes)?;
        let mut changes = Some(changes);
        let pushed = self.log.ordered_durable(|slot| {
            let mut state = self.state();
            if let Err(conflict) = check(&state)
                && !mutant::is("registry:read-set")
            {
                return Ok(Err(conflict));
            }
            if mutant::is("registry:applied-before-the-push")
                && let Some(changes) = changes.take()
            {
                let lsn = state.applied().and_then(Lsn::next).unwrap_or(Lsn::FIRST);
                state.apply(Transaction { lsn, changes });
            }
            let lsn = *slot.push(&mut batch)?.end();
            if let Some(changes) = changes.take() {
                state.apply(Transaction { lsn, changes });
            }
            Ok(Ok(lsn))
        });
        self.promote();
        pushed.map_err(|error| self.failed(Error::of_log(error)))
    }

    /// Returns once `seen` is durable: what a call has read is released only then.
    pub(crate) fn release(&self, seen: Option<Lsn>) -> Result<()> {
        let Some(seen) = seen else { return Ok(()) };
        let waited = self.log.wait_durable(seen);
        self.promote();
        waited.map_err(|error| self.failed(Error::of_wait(error)))
    }

    /// Lays the batch out and takes its checksums: the expensive part, outside every lock.
    fn encode(&self, changes: &[Change]) -> Result<EncodedBatch> {
        let payload = codec::encode_transaction(changes)?;
        let record = Record::new(payload).kind(TRANSACTION).codec(Codec::BINCODE);
        Batch::from(record).encode(self.log.record_bytes_max()).map_err(Error::of_log)
    }

    fn failed(&self, error: Error) -> Error {
        if self.log.check_process().is_ok() && self.log.poisoned().is_some() {
            self.settle();
        }
        error
    }

    /// After the log has failed: from here on only what has become durable is read.
    fn settle(&self) {
        self.state().fail();
        self.promote();
    }
}

/// Where a rebuilt state ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The LSN of the last transaction.
    pub(crate) applied: Option<Lsn>,
    /// The LSN up to which the log was read.
    pub(crate) promoted: Option<Lsn>,
}

fn number(lsn: Option<Lsn>) -> u64 {
    lsn.map_or(0, Lsn::get)
}

#[cfg(test)]
mod tests;
