//! The handle: what can be asked of a registry, each call a few lines over the rooms behind it.
//!
//! Never here: locks, the log's bytes, decisions. A call that changes something goes through
//! [`crate::transact`] or straight to [`crate::shared`]; a plain read goes to the durable map.
//! Invariant: nothing leaves this file before it is durable.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use annals_wal::{Before, Claim, Listen, Log, NoneBefore};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::{Cas, Change, Commit, Expected, Outcome, Precondition, TxResult};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::metrics::{Meter, Metrics};
use crate::nesting;
use crate::options::Options;
use crate::others::Others;
use crate::rebuild;
use crate::shared::{Request, Shared};
use crate::transact;
use crate::tx::Tx;
use crate::value::{Entry, Revision, Value};

/// Keys and values on a log, changed by serializable transactions.
///
/// A handle: clones share one registry, from any thread. The log stays usable beside it.
///
/// **Several processes.** On a log that is shared ([`annals_wal::Sharing::Processes`]) each process has
/// its own registry, and transactions are serializable among all of them: in its turn a process reads
/// what the others committed before it validates its own. Plain reads see every change that any of
/// them acknowledged before the call. Where the others trimmed what this process had not read yet,
/// its handle is poisoned with `Trimmed` behind it: open the log again.
///
/// **One registry to a log.** Two on the same open log would not see each other's transactions
/// and would lose updates, so a second one is refused: clone the one there is.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    _living: Arc<Living>,
}

impl fmt::Debug for Registry {
    /// The place and nothing more: keys are nobody's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("path", &self.log().path()).finish_non_exhaustive()
    }
}

/// What the clones of a handle share; its drop is the last handle's.
struct Living {
    shared: Arc<Shared>,
    /// Keeps every other registry away from this open log. Not in `shared`, of which a snapshot
    /// under way keeps a share until its next step.
    _claim: Claim,
}

impl Drop for Living {
    fn drop(&mut self) {
        if self.shared.log.check_process().is_err() {
            return; // a child made by fork: the thread and the locks are its parent's
        }
        // Watches end, and a snapshot under way stops at its next step. Nobody waits for it here: it
        // owns a share of the directory's lock, as the log's own threads do, until it returns.
        self.shared.bell.close();
    }
}

impl Registry {
    /// Builds the registry that `log` holds, empty on a new log. It reads the newest snapshot and
    /// the transactions after it.
    ///
    /// Durable on return: the hold `registry`, so that nothing is trimmed that the snapshots do
    /// not hold.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` for a transaction that cannot be read, naming its LSN, and for a
    /// snapshot that belongs to another log or to a later state of this one; `Trimmed` if the log
    /// no longer starts at LSN 1 and no valid snapshot reaches it; the log's own `Invalid` while another
    /// registry on the same open log lives; the log's other errors.
    ///
    /// ```
    /// use annals_registry::Registry;
    /// use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on(log: Log) -> Result<Registry> {
        Options::new().on(log)
    }

    pub(crate) fn build(log: Log, options: Options) -> Result<Registry> {
        // Before the log is read: what another registry commits after that would be missed.
        let claim = log.claim(rebuild::HOLD).map_err(Error::of_log)?;
        let meter = Meter::default();
        let others = Arc::new(Others::default());
        let listener: Arc<dyn Listen> = others.clone();
        // Before the log is read, so that nothing falls between the two.
        log.listen(&listener).map_err(Error::of_log)?;
        let rebuilt = rebuild::rebuild(&log, &meter)?;
        let mut shared = Shared::new(log, options, meter, rebuilt, others);
        shared.checkpoints = claim.turn();
        let shared = Arc::new(shared);
        let living = Arc::new(Living { shared: shared.clone(), _claim: claim });
        Ok(Registry { shared, _living: living })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Figures since the registry was opened.
    ///
    /// ```
    /// # use annals_registry::{Key, Registry, Value};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// registry.put(&Key::new("k")?, Value::json(&1)?)?;
    /// let metrics = registry.metrics();
    /// assert_eq!((metrics.transactions, metrics.commit_ns.count), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn metrics(&self) -> Metrics {
        self.shared.meter.read()
    }

    /// The log underneath: for its figures, for records of other kinds, to close it.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// The entry of `key`, from the durable state: every acknowledged change is seen, and no
    /// other. Never waits for a sync or for writers, and goes on when the log has failed.
    ///
    /// On a shared log it first reads on what other processes have made durable. Once the log is
    /// poisoned here ([`annals_wal::Log::poisoned`]: a failed sync, or a process that slept past
    /// another's trim) it reads on no more, and gives what was known by then: open the log again.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.shared.durable_now().get(key).cloned()
    }

    /// [`Registry::get`] of a JSON value, without its revision.
    ///
    /// # Errors
    /// `Decode` as [`Value::decode_json`].
    pub fn get_json<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>> {
        self.get(key).map(|entry| entry.value.decode_json()).transpose()
    }

    /// All keys at and below `prefix` with their entries, in key order, as they were at one
    /// moment; else as [`Registry::get`]. Commits wait for it to be copied out before they are
    /// seen by plain reads, but not before they are ordered and synced.
    pub fn scan(&self, prefix: &Prefix) -> Vec<(Key, Entry)> {
        let durable = self.shared.durable_now();
        durable.scan(prefix).map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// Gives `key` this value, whatever it had. Durable on return.
    ///
    /// # Errors
    /// `Nested` inside a closure, `TooLarge`, `Poisoned`, the log's own. If
    /// [`Error::outcome_unknown`], it may be there after reopening.
    pub fn put(&self, key: &Key, value: Value) -> Result<Revision> {
        self.change(Change::Put { key: key.clone(), value })
    }

    /// [`Registry::put`] of a JSON value. Durable on return.
    ///
    /// # Errors
    /// As [`Registry::put`], and `Encode` as [`Value::json`].
    pub fn put_json<T: Serialize + ?Sized>(&self, key: &Key, value: &T) -> Result<Revision> {
        self.put(key, Value::json(value)?)
    }

    /// Removes `key`, whether or not it has a value; the log then says so either way. Durable on
    /// return. The revision is that of the transaction.
    ///
    /// # Errors
    /// As [`Registry::put`].
    pub fn delete(&self, key: &Key) -> Result<Revision> {
        self.change(Change::Delete { key: key.clone() })
    }

    /// Gives `key` this value if it is as expected. Either outcome is durable on return.
    ///
    /// # Errors
    /// As [`Registry::put`]; `GaveUp` if `key` changed under the call again and again.
    ///
    /// ```
    /// use annals_registry::{Cas, Expected, Key, Registry, Value};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let owner = Key::new("tasks/T1/owner")?;
    /// match registry.compare_and_swap(&owner, Expected::Absent, Value::json("A7")?)? {
    ///     Cas::Done(revision) => println!("A7 owns T1 since {revision}"),
    ///     Cas::Conflict { current } => println!("somebody was faster: {current:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare_and_swap(&self, key: &Key, expected: Expected, value: Value) -> Result<Cas> {
        self.compare_and_change(expected, Change::Put { key: key.clone(), value })
    }

    /// Removes `key` if it is still at this revision. Either outcome is durable on return.
    ///
    /// # Errors
    /// As [`Registry::compare_and_swap`].
    pub fn compare_and_delete(&self, key: &Key, expected: Revision) -> Result<Cas> {
        self.compare_and_change(Expected::At(expected), Change::Delete { key: key.clone() })
    }

    /// Makes all `changes` in one transaction if all `preconditions` hold. Either outcome is
    /// durable on return.
    ///
    /// # Errors
    /// As [`Registry::compare_and_swap`]; `Invalid` for no change at all or two changes of one
    /// key.
    pub fn commit(&self, preconditions: &[Precondition], changes: &[Change]) -> Result<Commit> {
        check_changes(changes)?;
        self.grown(transact::commit(&self.shared, preconditions, changes))
    }

    /// Runs `closure` as one serializable transaction: it commits only if nothing that it read
    /// has changed, and runs again if something has. It runs on this thread, under no lock, and
    /// its effects outside the registry happen as often as it runs.
    ///
    /// Every outcome is durable on return: what was written, and what was read. A closure that
    /// writes nothing is a consistent read; one that returns [`crate::Abort::Because`] leaves
    /// nothing behind. A transaction cannot begin inside a closure.
    ///
    /// A transaction that was overtaken twice runs once more while nobody else may order one: so
    /// a closure never waits for another thread that commits something to the same registry.
    ///
    /// # Errors
    /// What the closure returned as [`crate::Abort::Failed`], `Nested`, `TooLarge`, `Poisoned`,
    /// the log's own. If [`Error::outcome_unknown`], the writes may be there after reopening.
    ///
    /// # Panics
    /// If the closure does, and what it had read was current; nothing is written.
    ///
    /// ```
    /// use annals_registry::{Abort, Key, Outcome, Prefix, Registry, TxResult};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let active = Prefix::new("tasks/T1/active")?;
    /// let agent = Key::new("tasks/T1/active/A7")?;
    /// let outcome = registry.transact(|tx| -> TxResult<usize, &str> {
    ///     let running = tx.scan(&active)?.len();
    ///     if running >= 3 {
    ///         return Err(Abort::Because("three agents are enough"));
    ///     }
    ///     tx.put_json(&agent, "starting")?;
    ///     Ok(running + 1)
    /// })?;
    /// assert!(matches!(outcome, Outcome::Done { value: 1, .. }));
    /// # Ok(())
    /// # }
    /// ```
    pub fn transact<T, E>(
        &self,
        closure: impl FnMut(&mut Tx<'_>) -> TxResult<T, E>,
    ) -> Result<Outcome<T, E>> {
        self.grown(transact::transact(&self.shared, &mut NoneBefore, closure))
    }

    /// [`Registry::transact`] with another room's records in the batch. The closure is ours: it
    /// runs under a lock of that room.
    pub(crate) fn transact_after<T, E>(
        &self,
        before: &mut dyn Before,
        closure: impl FnMut(&mut Tx<'_>) -> TxResult<T, E>,
    ) -> Result<Outcome<T, E>> {
        self.grown(transact::transact(&self.shared, before, closure))
    }

    /// After every call that may have made the log longer.
    fn grown<T>(&self, made: Result<T>) -> Result<T> {
        if made.is_ok() {
            checkpoint::after_growth(&self.shared);
        }
        made
    }

    /// A change that expects nothing can lose no race.
    fn change(&self, change: Change) -> Result<Revision> {
        nesting::refuse_inside()?;
        let (changes, before) = (vec![change], &mut NoneBefore);
        let request = Request { changes, note: None, alone: None, before };
        let Ok(lsn) = self.grown(self.shared.push::<Infallible>(|_| Ok(()), request))?;
        Ok(Revision::new(lsn))
    }

    fn compare_and_change(&self, expected: Expected, change: Change) -> Result<Cas> {
        let precondition = Precondition { key: change.key().clone(), expected };
        Ok(match self.commit(&[precondition], &[change])? {
            Commit::Done(revision) => Cas::Done(revision),
            Commit::Conflict { current, .. } => Cas::Conflict { current },
        })
    }
}

/// There is something to change, and no key has two changes.
pub(crate) fn check_changes(changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Err(Error::invalid("there is nothing to change: give at least one change"));
    }
    let mut keys = BTreeSet::new();
    match changes.iter().map(Change::key).find(|key| !keys.insert(*key)) {
        Some(key) => Err(Error::changed_twice(key)),
        None => Ok(()),
    }
}
