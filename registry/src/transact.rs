//! Runs closures until one attempt holds, and judges each of them.
//!
//! Never here: what an attempt may see ([`crate::tx`]); any lock of the log or the state while a
//! closure runs. The third attempt of a transaction holds the gate alone, so that nothing can
//! overtake it.
//! Invariants: an attempt that was overtaken has no outcome, whatever its closure returned, be it
//! a value, an abort or a panic. An outcome leaves only when what it rests on is durable. The
//! number of attempts is bounded. Next room: [`crate::registry`].

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use annals_wal::{Before, Lsn, NoneBefore};

use crate::change::{Abort, Change, Commit, Note, Outcome, Precondition, TxResult};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lease;
use crate::nesting::Mark;
use crate::shared::{Alone, Shared};
use crate::state::Touched;
use crate::tx::{Attempt, Tx};
use crate::value::Revision;

type Held<T> = std::result::Result<T, Touched>;

/// How often a transaction is overtaken before it runs alone.
pub(crate) const OVERTAKEN_MAX: u32 = 2;

/// On a shared log once: its next try would wait for another turn, in which again anybody may have
/// been faster.
pub(crate) fn overtaken_max(shared: &Shared) -> u32 {
    if shared.log.is_shared() { 1 } else { OVERTAKEN_MAX }
}

/// How a closure ended.
enum Ran<T, E> {
    Returned(TxResult<T, E>),
    Panicked(Box<dyn Any + Send>),
}

/// Runs attempts until one holds: `Err` is how often, and what the last one met.
pub(crate) fn attempts<'r, T>(
    shared: &'r Shared,
    before: &mut dyn Before,
    mut attempt: impl FnMut(Option<Alone<'r>>, &mut dyn Before) -> Result<Held<T>>,
) -> Result<std::result::Result<T, GaveUp>> {
    let attempts = shared.options.attempts_max;
    let mut last = Touched { key: None, at: None };
    for number in 0..attempts {
        shared.admit()?;
        let alone = (number >= overtaken_max(shared)).then(|| shared.alone()).transpose()?;
        match attempt(alone, before)? {
            Ok(value) => {
                shared.meter.attempts(number);
                return Ok(Ok(value));
            }
            Err(touched) => last = touched,
        }
    }
    // First: a subscriber may record an entry, and would wait for the lock that is given up here.
    before.give_up();
    shared.meter.attempts(attempts);
    shared.meter.gave_up();
    tracing::warn!(attempts, "a registry transaction gave up");
    shared.refuse_poisoned()?;
    shared.release(last.at)?;
    Ok(Err(GaveUp { attempts, key: last.key }))
}

/// Every attempt was overtaken.
pub(crate) struct GaveUp {
    pub(crate) attempts: u32,
    /// What had changed last, if the ring still knew.
    pub(crate) key: Option<Key>,
}

impl<T, E> From<GaveUp> for Outcome<T, E> {
    fn from(GaveUp { attempts, key }: GaveUp) -> Outcome<T, E> {
        Outcome::Conflict { attempts, key }
    }
}

/// [`crate::Registry::transact`].
pub(crate) fn transact<T, E>(
    shared: &Shared,
    before: &mut dyn Before,
    mut closure: impl FnMut(&mut Tx<'_>) -> TxResult<T, E>,
) -> Result<Outcome<T, E>> {
    let ended = attempts(shared, before, |alone, before| {
        let mut tx = Tx::new(shared, alone);
        let ran = run(&mut tx, &mut closure)?;
        judge(shared, tx, ran, before)
    })?;
    Ok(ended.unwrap_or_else(Outcome::from))
}

/// Runs the closure once, on this thread and under no lock but the gate.
fn run<T, E>(
    tx: &mut Tx<'_>,
    closure: &mut impl FnMut(&mut Tx<'_>) -> TxResult<T, E>,
) -> Result<Ran<T, E>> {
    let _inside = Mark::set()?;
    // Unwind safety: `tx` is judged and dropped, never read again; what the closure captures is
    // the caller's, who is told that it may run again.
    Ok(match panic::catch_unwind(AssertUnwindSafe(|| closure(tx))) {
        Ok(returned) => Ran::Returned(returned),
        Err(payload) => Ran::Panicked(payload),
    })
}

/// Whether the attempt holds, and what becomes of it.
fn judge<T, E>(
    shared: &Shared,
    tx: Tx<'_>,
    ran: Ran<T, E>,
    before: &mut dyn Before,
) -> Result<Held<Outcome<T, E>>> {
    let (attempt, changes, note) = tx.into_parts();
    let returned = match ran {
        Ran::Returned(Ok(value)) if !changes.is_empty() => {
            let done = |lsn| Outcome::Done { value, revision: Some(Revision::new(lsn)) };
            return Ok(attempt.commit(changes, note.as_ref(), before)?.map(done));
        }
        other => other,
    };
    // Nothing is written, but what the closure decided on must have been true, and must last.
    let seen = match attempt.finish() {
        Ok(seen) => seen,
        Err(touched) => return Ok(Err(touched)),
    };
    before.give_up(); // nothing is waited for under another room's lock
    let released = shared.release(seen);
    match returned {
        Ran::Panicked(payload) => panic::resume_unwind(payload),
        Ran::Returned(returned) => {
            released?;
            match returned {
                Ok(value) => Ok(Ok(Outcome::Done { value, revision: None })),
                Err(Abort::Because(reason)) => {
                    shared.meter.aborted();
                    Ok(Ok(Outcome::Aborted(reason)))
                }
                Err(Abort::Failed(error)) => Err(error),
            }
        }
    }
}

/// [`crate::Registry::commit`]: the same checks, with the reads given as data.
pub(crate) fn commit(
    shared: &Shared,
    preconditions: &[Precondition],
    changes: &[Change],
) -> Result<Commit> {
    let ended = attempts(shared, &mut NoneBefore, |alone, _| {
        let attempt = Attempt::new(shared, alone);
        Ok(commit_once(shared, attempt, preconditions, changes.to_vec(), None)?.map(|made| {
            made.map_or_else(|conflict| conflict, |lsn| Commit::Done(Revision::new(lsn)))
        }))
    })?;
    ended.map_err(|gave_up| Error::gave_up(gave_up.attempts))
}

/// One attempt: the LSN, or the [`Commit::Conflict`], released.
pub(crate) fn commit_once(
    shared: &Shared,
    mut attempt: Attempt<'_>,
    preconditions: &[Precondition],
    changes: Vec<Change>,
    note: Option<&Note>,
) -> Result<Held<std::result::Result<Lsn, Commit>>> {
    for Precondition { key, expected } in preconditions {
        let current = match attempt.get(key) {
            Ok(current) => current,
            Err(touched) => return Ok(Err(touched)),
        };
        if !expected.holds(current.as_ref()) {
            shared.release(attempt.into_view())?;
            shared.meter.conflict();
            return Ok(Ok(Err(Commit::Conflict { key: key.clone(), current })));
        }
    }
    for lease in changes.iter().filter_map(Change::lease) {
        match attempt.get(&lease::key(lease)) {
            Ok(Some(_)) => {}
            Ok(None) => {
                shared.release(attempt.into_view())?;
                return Err(Error::lease_expired(lease));
            }
            Err(touched) => return Ok(Err(touched)),
        }
    }
    Ok(attempt.commit(changes, note, &mut NoneBefore)?.map(Ok))
}
