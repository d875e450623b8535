//! The two structures behind their locks, and the one path on which a transaction commits.
//!
//! Never here: judgement; that is [`crate::state`]. No caller's code runs under a lock of this
//! file, nothing waits for durability under one, and nothing reads or writes files under one.
//!
//! Lock order, each taken only after those before it:
//!
//! ```text
//! gate   then   queue (the log's)   then   state
//! gate   then   durable             then   state
//! ```
//!
//! The gate is held shared while a transaction is ordered, and alone by a transaction that was
//! overtaken twice, from before its closure runs until it is ordered; never while anybody waits
//! for durability.
//!
//! `state` comes last and is held for a few map operations, because whoever holds the queue may
//! wait for it, and behind that the whole log. So nobody holding `state` waits for `durable`,
//! which a long scan may hold, and nobody holding `durable` calls the log.
//!
//! Invariant: a transaction is applied to `state` before the queue lock under which it was pushed
//! is released, so whatever the log says is durable is already there. Next room: [`crate::tx`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use annals_wal::{Batch, Before, Codec, EncodedBatch, Log, Lsn, Record, RoomLock, Turn};

use crate::bell::Bell;
use crate::change::{Change, Note};
use crate::codec::{self, TRANSACTION};
use crate::error::{Error, Result};
use crate::metrics::Meter;
use crate::mutant;
use crate::nesting;
use crate::options::Options;
use crate::others::Others;
use crate::rebuild::Rebuilt;
use crate::state::{Ahead, Durable, Transaction};

/// What every handle of a registry shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) options: Options,
    /// Who may order a transaction: all, or the one that was overtaken twice. Comes first.
    gate: RwLock<()>,
    /// Guards the map that plain reads believe. Readers hold it for one get or one scan;
    /// a promoter holds it for writing. Comes before `state`, never together with the queue.
    durable: RwLock<Durable>,
    pub(crate) meter: Meter,
    /// Rung when something has become durable; silent for good when the last handle is gone.
    pub(crate) bell: Arc<Bell>,
    /// One checkpoint at a time on one open log, those of a registry that was dropped included: their
    /// files have the same names. Held through its I/O; comes before every other lock.
    pub(crate) checkpoints: RoomLock,
    /// Whether a checkpoint that came by itself is under way.
    pub(crate) behind: AtomicBool,
    /// Bytes of transactions since the last checkpoint began.
    pub(crate) grown_bytes: AtomicU64,
    /// The first LSN of another room's record that a checkpoint met; 0 before that.
    pub(crate) others: AtomicU64,
    /// Guards what is ahead of the durable map, and the ring. Comes last; nobody waits for
    /// anything while holding it.
    state: Arc<Mutex<Ahead>>,
    /// Takes what other processes commit into `state`.
    others_heard: Arc<Others>,
    /// The LSN up to which the log has been promoted into `durable`; 0 before the first. Follows
    /// the log's durable LSN also where other rooms' records lie between.
    promoted: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        log: Log,
        options: Options,
        meter: Meter,
        rebuilt: Rebuilt,
        others_heard: Arc<Others>,
    ) -> Shared {
        let Rebuilt { durable, ends, .. } = rebuilt;
        let state = Arc::new(Mutex::new(Ahead::new(ends.applied, options.ring_keys_max)));
        others_heard.begin(&state, ends.applied);
        Shared {
            log,
            options,
            gate: RwLock::new(()),
            meter,
            bell: Arc::default(),
            checkpoints: RoomLock::default(),
            behind: AtomicBool::new(false),
            grown_bytes: AtomicU64::new(rebuilt.replayed_bytes),
            others: AtomicU64::new(0),
            durable: RwLock::new(durable),
            state,
            others_heard,
            promoted: AtomicU64::new(number(ends.promoted)),
        }
    }

    /// The durable map, up to date with the log. Waits for no queue and no sync; on a shared log for
    /// the moment in which this process reads on.
    pub(crate) fn durable_now(&self) -> RwLockReadGuard<'_, Durable> {
        self.look();
        self.promote();
        self.durable()
    }

    /// Reads what other processes have made durable by now. Where that fails the log is poisoned, and
    /// what is known stays readable.
    pub(crate) fn look(&self) {
        if self.log.is_shared()
            && let Err(error) = self.log.refresh()
        {
            tracing::warn!(%error, "what other processes wrote was not read");
        }
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
        drop(durable);
        self.bell.ring();
    }

    /// Refuses what may not begin: inside a closure, in a forked child, or on a log that has failed.
    pub(crate) fn admit(&self) -> Result<()> {
        nesting::refuse_inside()?;
        // Before any lock: in a forked child nobody may ever leave it.
        self.log.check_process().map_err(Error::of_log)?;
        self.look();
        self.others_heard.check()?;
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

    /// Nobody else orders a transaction while this lives: no other thread, and on a shared log no
    /// other process.
    ///
    /// # Errors
    /// The log's, where its turn cannot be had.
    pub(crate) fn alone(&self) -> Result<Alone<'_>> {
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let turn = self.log.turn().map_err(|error| self.failed(Error::of_log(error)))?;
        Ok(Alone { gate, turn })
    }

    /// Appends `changes` as one transaction if `check` lets it, and returns its LSN when it is
    /// durable and promoted. `check` sees the state under the queue lock, after everything that
    /// was ordered before; it may be asked more than once.
    pub(crate) fn push<C>(
        &self,
        check: impl Fn(&Ahead) -> std::result::Result<(), C>,
        request: Request<'_, '_>,
    ) -> Result<std::result::Result<Lsn, C>> {
        let Request { changes, note, alone, before } = request;
        // Before any lock: in a forked child nobody may ever leave the gate.
        self.log.check_process().map_err(Error::of_log)?;
        let (mut batch, bytes) = self.encode(&changes, note, before)?;
        let mut changes = Some(changes);
        let begun = self.options.clock.now();
        let mut waited = None;
        // It ends under no lock, so not in the closure.
        let mut turn = None;
        let mut pass = Some(match alone {
            Some(alone) => {
                turn = Some(alone.turn);
                Pass::Alone { _guard: alone.gate }
            }
            None => {
                Pass::Shared { _guard: self.gate.read().unwrap_or_else(PoisonError::into_inner) }
            }
        });
        let pushed = self.log.ordered_durable(|slot| {
            let mut state = self.state();
            waited.get_or_insert_with(|| self.options.clock.now());
            if state.is_failed() {
                // It does not hold everything that is in the log: nothing is judged by it.
                pass = None;
                return Ok(None);
            }
            if let Err(conflict) = check(&state)
                && !mutant::is("registry:read-set")
            {
                pass = None;
                return Ok(Some(Err(conflict)));
            }
            if mutant::is("registry:applied-before-the-push")
                && let Some(changes) = changes.take()
            {
                let lsn = state.applied().and_then(Lsn::next).unwrap_or(Lsn::FIRST);
                state.apply(Transaction { lsn, changes });
            }
            let lsns = slot.push(&mut batch)?;
            let lsn = *lsns.end();
            if let Some(last) = Lsn::new(lsn.get() - 1).filter(|last| last >= lsns.start()) {
                before.ordered(*lsns.start()..=last);
            }
            if let Some(changes) = changes.take() {
                state.apply(Transaction { lsn, changes });
            }
            // Ordered: whoever waits at the gate need not wait for the sync.
            pass = None;
            Ok(Some(Ok(lsn)))
        });
        drop(turn);
        drop(pass);
        self.promote();
        let pushed = match pushed {
            Ok(Some(pushed)) => Ok(pushed),
            Ok(None) => {
                self.others_heard.check()?;
                self.refuse_poisoned()?;
                return Err(Error::invalid("the registry's state has failed"));
            }
            Err(error) => Err(error),
        };
        if matches!(pushed, Ok(Ok(_))) {
            self.grown_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.measure(begun, waited, &pushed);
        pushed.map_err(|error| self.failed(Error::of_log(error)))
    }

    fn measure<C>(
        &self,
        begun: Duration,
        waited: Option<Duration>,
        pushed: &annals_wal::Result<std::result::Result<Lsn, C>>,
    ) {
        if let Some(waited) = waited {
            self.meter.lock_wait.add(waited.saturating_sub(begun));
        }
        match pushed {
            Ok(Ok(_)) => {
                self.meter.transaction();
                self.meter.commit.add(self.options.clock.now().saturating_sub(begun));
            }
            Ok(Err(_)) => {}
            Err(error) if error.outcome_unknown() => self.meter.unknown(),
            Err(_) => {}
        }
    }

    /// Returns once `seen` is durable: what a call has read is released only then.
    pub(crate) fn release(&self, seen: Option<Lsn>) -> Result<()> {
        let Some(seen) = seen else { return Ok(()) };
        let waited = self.log.wait_durable(seen);
        self.promote();
        waited.map_err(|error| self.failed(Error::of_wait(error)))
    }

    /// Lays the batch out and takes its checksums: the expensive part, outside every lock.
    fn encode(
        &self,
        changes: &[Change],
        note: Option<&Note>,
        before: &dyn Before,
    ) -> Result<(EncodedBatch, u64)> {
        let payload = codec::encode_transaction(changes, note)?;
        let bytes = payload.len() as u64;
        let record = Record::new(payload).kind(TRANSACTION).codec(Codec::BINCODE);
        let mut batch = Batch::new();
        before.push_to(&mut batch);
        batch.push(record);
        let batch = batch.encode(self.log.record_bytes_max());
        Ok((batch.map_err(Error::of_log)?, bytes))
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
        self.bell.ring();
    }
}

/// The gate, held alone, and with it a shared log's turn.
#[derive(Debug)]
pub(crate) struct Alone<'r> {
    gate: RwLockWriteGuard<'r, ()>,
    turn: Turn,
}

/// The gate, held until a transaction is ordered.
enum Pass<'r> {
    Alone { _guard: RwLockWriteGuard<'r, ()> },
    Shared { _guard: RwLockReadGuard<'r, ()> },
}

/// What is to be appended, and the gate if this caller has it alone.
pub(crate) struct Request<'r, 'b> {
    pub(crate) changes: Vec<Change>,
    pub(crate) note: Option<&'r Note>,
    pub(crate) alone: Option<Alone<'r>>,
    /// Records of another room for the same batch, before the transaction.
    pub(crate) before: &'b mut dyn Before,
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
