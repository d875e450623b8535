//! Waiting until what was recorded is durable: all of it with a time limit, one entry as a future.
//!
//! Never here: I/O on the caller's thread. The worker writes and syncs; whoever waits here holds no
//! lock and needs no runtime, so it may be called from anywhere, the only thread of a runtime too.
//! Next room: [`crate::flush_async`].

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use annals_wal::Lsn;

use crate::drain::Drain;
use crate::error::Error;
use crate::error::Result;
use crate::queue::State;
use crate::record::By;

/// How a [`crate::Observer::force_flush`] ended. Running out of time is no error.
#[derive(Clone, Debug)]
#[must_use = "only `Flushed` says that everything is durable"]
#[non_exhaustive]
pub enum FlushOutcome {
    /// Every entry taken before the call is durable; the last durable one has this LSN. `None` if
    /// there was none.
    Flushed(Option<Lsn>),
    /// The time ran out. What is pending is still on its way.
    TimedOut {
        /// The last durable entry.
        durable: Option<Lsn>,
        /// Entries that are not durable.
        pending: u64,
    },
    /// It cannot be written now: the disk is full or an error may pass (what is pending stays queued
    /// and is tried again), or the log has failed (the outcome of what was on its way is unknown).
    Failed {
        /// The last durable entry.
        durable: Option<Lsn>,
        /// Entries that are not durable.
        pending: u64,
        /// Why.
        cause: Error,
    },
}

impl FlushOutcome {
    /// Whether everything taken before the call is durable.
    pub fn is_flushed(&self) -> bool {
        matches!(self, FlushOutcome::Flushed(_))
    }
}

/// What a flush waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// The last ticket that was taken before it.
    pub(crate) target: u64,
    /// How often what is queued had been tried by then.
    tries: u64,
}

impl Goal {
    /// Everything that was taken is wanted durable from now on.
    fn of(state: &mut State) -> Goal {
        let goal = Goal { target: state.last, tries: state.tries };
        state.wanted = state.wanted.max(goal.target);
        // A new try is owed to whoever asks, even while a full disk is left alone.
        state.stuck = None;
        goal
    }

    /// How the flush has ended, if it has.
    pub(crate) fn outcome(self, state: &State) -> Option<FlushOutcome> {
        let (durable, pending) = (state.durable_lsn, state.pending());
        // A refused entry gives its ticket back, so the target may lie past the last one.
        if state.durable >= self.target.min(state.last) {
            return Some(FlushOutcome::Flushed(durable));
        }
        let stuck = state.stuck.clone().filter(|_| state.tries > self.tries);
        let cause = state.failed.clone().or(stuck)?;
        Some(FlushOutcome::Failed { durable, pending, cause })
    }
}

impl Drain {
    pub(crate) fn force_flush(self: &Arc<Drain>, timeout: Duration) -> FlushOutcome {
        let until = Instant::now().checked_add(timeout);
        match self.ask_for_flush() {
            Ok(goal) => self.wait_until_flushed(self.lock_to_wait(), goal, until),
            Err(cause) => self.cannot_flush(cause),
        }
    }

    /// A flush that could not begin. In a forked child, whose copy of the lock nobody may ever give
    /// back, nothing is known of what is pending.
    pub(crate) fn cannot_flush(&self, cause: Error) -> FlushOutcome {
        let (mut durable, mut pending) = (None, 0);
        if self.log().check_process().is_ok() {
            let state = self.lock();
            (durable, pending) = (state.durable_lsn, state.pending());
        }
        FlushOutcome::Failed { durable, pending, cause }
    }

    /// Asks the observer's thread for everything that was taken. Waits for nothing.
    pub(crate) fn ask_for_flush(self: &Arc<Drain>) -> Result<Goal> {
        self.log().check_process()?;
        Error::if_in_closure().map_or(Ok(()), Err)?;
        self.write_off_overdue(By::Caller);
        let now = self.now();
        self.settle();
        let mut state = self.lock();
        // Only now: a worker that was seen before may be gone, and a caller's code ran since.
        self.start_worker(&mut state)?;
        state.settle_account(false, |account| self.account_entry(account, now))?;
        let goal = Goal::of(&mut state);
        self.work.notify_all();
        Ok(goal)
    }

    /// Everything that was taken is durable, or cannot be, or the time is over. Not on a thread that
    /// somebody waits for: the observer's own, or one in a registry's closure.
    pub(crate) fn wait_at_the_end(&self, timeout: Duration) {
        let mut state = self.lock_to_wait();
        let own = state.worker == Some(std::thread::current().id());
        if !own && Error::if_in_closure().is_none() {
            let goal = Goal::of(&mut state);
            self.work.notify_all();
            let _ = self.wait_until_flushed(state, goal, Instant::now().checked_add(timeout));
        }
    }

    fn wait_until_flushed(
        &self,
        mut state: MutexGuard<'_, State>,
        goal: Goal,
        until: Option<Instant>,
    ) -> FlushOutcome {
        loop {
            if let Some(outcome) = goal.outcome(&state) {
                return outcome;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.unwrap_or(Duration::MAX);
            if left.is_zero() {
                let (durable, pending) = (state.durable_lsn, state.pending());
                return FlushOutcome::TimedOut { durable, pending };
            }
            state = match self.settled.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => PoisonError::into_inner(poisoned).0,
            };
        }
    }
}

/// Waits until one queued entry is durable, or has its place in the log if that was asked. Dropping it loses the answer, never the entry.
#[derive(Debug)]
pub(crate) struct Settled {
    drain: Arc<Drain>,
    ticket: u64,
}

impl Settled {
    /// For a ticket that was queued with a waiter.
    pub(crate) fn of(drain: Arc<Drain>, ticket: u64) -> Settled {
        Settled { drain, ticket }
    }
}

impl Future for Settled {
    type Output = Result<Option<Lsn>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = self.drain.log().check_process() {
            return Poll::Ready(Err(error.into()));
        }
        let waker = context.waker().clone();
        let mut state = self.drain.lock();
        let settled = state.durable >= self.ticket;
        let Some(waiter) = state.waiters.get_mut(&self.ticket) else {
            return Poll::Ready(Err(Error::invalid("nobody waits for this entry any more")));
        };
        if let Some(error) = &waiter.lost {
            return Poll::Ready(Err(error.clone()));
        }
        if settled || waiter.placed() {
            return Poll::Ready(Ok(waiter.lsn));
        }
        if annals_wal::in_closure() {
            // Queued before the closure began: nobody may wait for it on this thread.
            return Poll::Ready(Err(Error::in_closure().with_outcome_unknown()));
        }
        let replaced = waiter.waker.replace(waker);
        state.stale.extend(replaced);
        Poll::Pending
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        if self.drain.log().check_process().is_ok() {
            let mut state = self.drain.lock();
            let gone = state.waiters.remove(&self.ticket);
            state.stale.extend(gone.and_then(|waiter| waiter.waker));
        }
    }
}
