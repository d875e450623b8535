//! Runs closures until one attempt holds, and judges each of them.
//!
//! Never here: what an attempt may see ([`crate::tx`]); any lock while a closure runs.
//! Invariants: an attempt that was overtaken has no outcome, whatever its closure returned, be it
//! a value, an abort or a panic. An outcome leaves only when what it rests on is durable. The
//! number of attempts is bounded. Next room: [`crate::registry`].

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use crate::change::{Abort, Change, Commit, Outcome, Precondition, TxResult};
use crate::error::{Error, Result};
use crate::nesting::Mark;
use crate::shared::Shared;
use crate::state::Touched;
use crate::tx::{Attempt, Tx};
use crate::value::Revision;

type Held<T> = std::result::Result<T, Touched>;

/// How a closure ended.
enum Ran<T, E> {
    Returned(TxResult<T, E>),
    Panicked(Box<dyn Any + Send>),
}

/// [`crate::Registry::transact`].
pub(crate) fn transact<T, E>(
    shared: &Shared,
    mut closure: impl FnMut(&mut Tx<'_>) -> TxResult<T, E>,
) -> Result<Outcome<T, E>> {
    let attempts = shared.options.attempts_max;
    let mut last = Touched { key: None, at: None };
    for _ in 0..attempts {
        shared.admit()?;
        let mut tx = Tx::new(shared);
        let ran = run(&mut tx, &mut closure)?;
        match judge(shared, tx, ran)? {
            Ok(outcome) => return Ok(outcome),
            Err(touched) => last = touched,
        }
    }
    shared.refuse_poisoned()?;
    shared.release(last.at)?;
    Ok(Outcome::Conflict { attempts, key: last.key })
}

/// Runs the closure once, on this thread and under no lock of ours.
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
fn judge<T, E>(shared: &Shared, tx: Tx<'_>, ran: Ran<T, E>) -> Result<Held<Outcome<T, E>>> {
    let (attempt, changes) = tx.into_parts();
    let returned = match ran {
        Ran::Returned(Ok(value)) if !changes.is_empty() => {
            let done = |lsn| Outcome::Done { value, revision: Some(Revision::new(lsn)) };
            return Ok(attempt.commit(changes)?.map(done));
        }
        other => other,
    };
    // Nothing is written, but what the closure decided on must have been true, and must last.
    let seen = match attempt.finish() {
        Ok(seen) => seen,
        Err(touched) => return Ok(Err(touched)),
    };
    let released = shared.release(seen);
    match returned {
        Ran::Panicked(payload) => panic::resume_unwind(payload),
        Ran::Returned(returned) => {
            released?;
            match returned {
                Ok(value) => Ok(Ok(Outcome::Done { value, revision: None })),
                Err(Abort::Because(reason)) => Ok(Ok(Outcome::Aborted(reason))),
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
    let attempts = shared.options.attempts_max;
    for _ in 0..attempts {
        shared.admit()?;
        if let Ok(commit) = attempt(shared, preconditions, changes)? {
            return Ok(commit);
        }
    }
    shared.refuse_poisoned()?;
    Err(Error::gave_up(attempts))
}

fn attempt(
    shared: &Shared,
    preconditions: &[Precondition],
    changes: &[Change],
) -> Result<Held<Commit>> {
    let mut attempt = Attempt::new(shared);
    for Precondition { key, expected } in preconditions {
        let current = match attempt.get(key) {
            Ok(current) => current,
            Err(touched) => return Ok(Err(touched)),
        };
        if !expected.holds(current.as_ref()) {
            shared.release(attempt.view())?;
            return Ok(Ok(Commit::Conflict { key: key.clone(), current }));
        }
    }
    let done = |lsn| Commit::Done(Revision::new(lsn));
    Ok(attempt.commit(changes.to_vec())?.map(done))
}
