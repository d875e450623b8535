//! The thread that brings batched entries into the log, and admission to its queue.
//!
//! Never here: a caller's code; a lock held while it waits. It is started by the first batched
//! entry and ends when the last handle is gone and everything queued is written or cannot be. A
//! full disk is tried again, each time after a pause and whenever somebody flushes. Next room:
//! [`crate::flush`].

use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::codec::EncodedEntry;
use crate::drain::Drain;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{Admission, Place, State, Waiter};

/// How long a full disk is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(50);

impl Drain {
    /// Queues an entry, waiting for room if the policy says so.
    pub(crate) fn enqueue(
        self: &Arc<Drain>,
        entry: EncodedEntry,
        place: Place,
    ) -> Result<Admission> {
        self.log().check_process()?;
        self.ensure_worker()?;
        let mut entry = entry;
        let mut state = self.lock();
        loop {
            entry = match self.offer(&mut state, entry, place, false)? {
                Admission::NoRoom(entry) => entry,
                admitted => return Ok(admitted),
            };
            if let Some(full) = state.full.clone() {
                state.refused += 1;
                return Err(full);
            }
            self.work.notify_one();
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// [`Drain::enqueue`] for a future: never waits on this thread. With `durable` a waiter stands
    /// ready for the ticket that is returned.
    pub(crate) fn poll_enqueue(
        self: &Arc<Drain>,
        entry: &mut Option<EncodedEntry>,
        place: Place,
        durable: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Admission>> {
        if let Err(error) = self.log().check_process() {
            return Poll::Ready(Err(error.into()));
        }
        if let Err(error) = self.ensure_worker() {
            return Poll::Ready(Err(error));
        }
        let Some(offered) = entry.take() else {
            return Poll::Ready(Err(Error::invalid("the entry is already queued")));
        };
        let mut state = self.lock();
        match self.offer(&mut state, offered, place, durable) {
            Ok(Admission::NoRoom(back)) => {
                if let Some(full) = state.full.clone() {
                    state.refused += 1;
                    return Poll::Ready(Err(full));
                }
                *entry = Some(back);
                state.room_wakers.push(context.waker().clone());
                self.work.notify_one();
                Poll::Pending
            }
            admitted => Poll::Ready(admitted),
        }
    }

    fn offer(
        &self,
        state: &mut State,
        entry: EncodedEntry,
        place: Place,
        durable: bool,
    ) -> Result<Admission> {
        state.check()?;
        if state.failed.is_some() {
            state.refused += 1;
            // Its own words: this entry is certainly not in the log, whatever became of others.
            let poisoned = self.log().poisoned().map(Error::from);
            return Err(poisoned.unwrap_or_else(Error::closed));
        }
        let limits = &self.options.delivery;
        let first = state.queue.is_empty();
        let account = |account: &_| self.account_entry(account);
        // A durable start waits, whatever the policy: the caller is about to do what it announces.
        if durable && place == Place::Start && !state.has_room(&entry, place, limits) {
            return Ok(Admission::NoRoom(entry));
        }
        let admission = state.admit(entry, place, limits, account)?;
        if let Admission::Queued(ticket) = admission {
            if durable {
                state.waiters.insert(ticket, Waiter::default());
                state.wanted = state.wanted.max(ticket);
            }
            // The worker sleeps through the rest of a batch; it must know of its first and last.
            if first || durable || state.queue_bytes >= limits.batch_bytes {
                self.work.notify_one();
            }
        }
        Ok(admission)
    }

    /// Starts the worker unless it runs.
    pub(crate) fn ensure_worker(self: &Arc<Drain>) -> Result<()> {
        let mut state = self.lock();
        if state.working {
            return Ok(());
        }
        let drain = self.clone();
        let thread = std::thread::Builder::new().name("annals-observer".to_owned());
        thread.spawn(move || work(&drain)).map_err(|error| {
            let what = format!("cannot start the observer's thread: {error}; try again");
            Error::new(ErrorKind::Io, what)
        })?;
        state.working = true;
        Ok(())
    }

    fn sleep<'d>(
        &self,
        state: MutexGuard<'d, State>,
        most: Option<Duration>,
    ) -> MutexGuard<'d, State> {
        match most {
            Some(most) => match self.work.wait_timeout(state, most) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            },
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// What the worker does next.
enum Turn {
    Write,
    Sync,
    Sleep(Option<Duration>),
    End,
}

fn work(drain: &Arc<Drain>) {
    let mut first_queued: Option<Instant> = None;
    let mut tried: Option<(Instant, u64)> = None;
    loop {
        let mut state = drain.lock();
        let turn = loop {
            if state.queue.is_empty() {
                first_queued = None;
            } else {
                first_queued.get_or_insert_with(Instant::now);
            }
            match turn(drain, &state, first_queued, tried) {
                Turn::Sleep(most) => state = drain.sleep(state, most),
                turn => break turn,
            }
        };
        let (wanted, last_lsn) = (state.wanted, state.last_lsn);
        if matches!(turn, Turn::End) {
            state.working = false;
            return;
        }
        drop(state);
        if matches!(turn, Turn::Write) {
            tried = Some((Instant::now(), wanted));
            if let Ok(order) = drain.order() {
                // A failure is noted where it is met; those who wait are told there.
                let _ = drain.send_queued(&order);
            }
            first_queued = None;
        } else if let Some(lsn) = last_lsn {
            match drain.log().wait_durable(lsn) {
                Ok(()) => drain.settle(),
                Err(error) => {
                    drain.failed(error);
                }
            }
        }
    }
}

fn turn(
    drain: &Drain,
    state: &State,
    first_queued: Option<Instant>,
    tried: Option<(Instant, u64)>,
) -> Turn {
    let limits = &drain.options.delivery;
    if state.failed.is_some() {
        return if state.handles_gone { Turn::End } else { Turn::Sleep(None) };
    }
    let queued =
        !state.queue.is_empty() || state.wanted > state.durable && !state.account.is_empty();
    if state.full.is_some() && queued {
        let Some((at, wanted)) = tried else { return Turn::Write };
        if state.handles_gone {
            return Turn::End;
        }
        let left = FULL_PAUSE.saturating_sub(at.elapsed());
        let poked = state.wanted > wanted;
        return if left.is_zero() || poked { Turn::Write } else { Turn::Sleep(Some(left)) };
    }
    let submitted = state.flights.back().map_or(state.durable, |flight| flight.0);
    if queued {
        let waited = first_queued.map_or(Duration::ZERO, |at| at.elapsed());
        let left = limits.batch_age_max.saturating_sub(waited);
        let now = state.wanted > submitted
            || state.closed
            || state.handles_gone
            || left.is_zero()
            || state.queue_bytes >= limits.batch_bytes
            || state.queue.len() + state.reserved >= limits.queue_entries_max / 2;
        return if now { Turn::Write } else { Turn::Sleep(Some(left)) };
    }
    if state.wanted > state.durable && !state.flights.is_empty() {
        return Turn::Sync;
    }
    if state.handles_gone { Turn::End } else { Turn::Sleep(None) }
}
