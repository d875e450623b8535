//! The thread that brings batched entries into the log, and admission to its queue.
//!
//! Never here: a caller's code under the lock; a lock held while it waits. It is started by the first batched
//! entry and ends when the last handle is gone and everything queued is written or cannot be. A
//! full disk is tried again, each time after a pause and whenever somebody flushes. Next room:
//! [`crate::flush`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::clock::{MonoTime, WallTime};
use crate::codec::EncodedEntry;
use crate::drain::Drain;
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Level;
use crate::queue::{Admission, Place, State, Waiter};
use crate::record::By;

/// How long a full disk is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// How often the clock is asked for starts that are too old: no more and no less than that.
const LOOK_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(86_400));

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
        let mut now = None;
        let mut state = self.lock_to_wait();
        loop {
            entry = match self.offer(&mut state, entry, place, Level::Batched, now)? {
                Admission::NoRoom(entry) => entry,
                Admission::NoTime(back) => {
                    drop(state);
                    now = Some(self.now());
                    entry = back;
                    state = self.lock_to_wait();
                    continue;
                }
                admitted => return Ok(admitted),
            };
            if let Some(why) = state.stuck.clone().or_else(Error::if_in_closure) {
                state.refused += 1;
                return Err(why);
            }
            self.work.notify_one();
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// [`Drain::enqueue`] for a future: never waits on this thread. At a level that waits for more
    /// than the queue, a waiter stands ready for the ticket that is returned.
    pub(crate) fn poll_enqueue(
        self: &Arc<Drain>,
        entry: &mut Option<EncodedEntry>,
        (place, level): (Place, Level),
        wait: &mut RoomWait,
        context: &mut Context<'_>,
    ) -> Poll<Result<Admission>> {
        if let Err(error) = self.log().check_process() {
            return Poll::Ready(Err(error.into()));
        }
        if let Err(error) = self.ensure_worker() {
            return Poll::Ready(Err(error));
        }
        let waits = level != Level::Batched;
        if waits && let Some(why) = Error::if_in_closure() {
            return Poll::Ready(Err(why)); // the log may wait for whoever waits for this thread
        }
        let Some(mut offered) = entry.take() else {
            return Poll::Ready(Err(Error::invalid("the entry is already queued")));
        };
        let (waker, mut now) = (context.waker().clone(), None);
        loop {
            let mut state = self.lock();
            match self.offer(&mut state, offered, place, level, now) {
                Ok(Admission::NoTime(back)) => {
                    drop(state);
                    now = Some(self.now());
                    offered = back;
                }
                Ok(Admission::NoRoom(back)) => {
                    if let Some(why) = state.stuck.clone().or_else(Error::if_in_closure) {
                        state.refused += 1;
                        return Poll::Ready(Err(why));
                    }
                    *entry = Some(back);
                    wait.stand(&mut state, waker);
                    self.work.notify_one();
                    return Poll::Pending;
                }
                admitted => return Poll::Ready(admitted),
            }
        }
    }

    fn offer(
        &self,
        state: &mut State,
        entry: EncodedEntry,
        place: Place,
        level: Level,
        now: Option<(WallTime, MonoTime)>,
    ) -> Result<Admission> {
        state.check()?;
        if state.failed.is_some() {
            state.refused += 1;
            // Its own words: this entry is certainly not in the log, whatever became of others.
            return Err(state.refusal.clone().unwrap_or_else(Error::closed));
        }
        let limits = &self.options.delivery;
        let first = state.queue.is_empty();
        let account = now.map(|now| move |account: &_| self.account_entry(account, now));
        let waits = level != Level::Batched;
        // One that is waited for waits for room, too, whatever the policy: its caller is about to do
        // what it announces.
        if waits && place == Place::Start && !state.has_room(&entry, place, limits) {
            return Ok(Admission::NoRoom(entry));
        }
        let admission = state.admit(entry, place, limits, account)?;
        if let Admission::Queued(ticket) = admission {
            if waits {
                let ordered = level == Level::Ordered;
                state.waiters.insert(ticket, Waiter { ordered, ..Waiter::default() });
                let asked = if ordered { &mut state.ordered } else { &mut state.wanted };
                *asked = ticket.max(*asked);
            } else if let Place::End(start) | Place::EndForced(start) = place {
                state.open.end(start, ticket);
            }
            // The worker sleeps through the rest of a batch; it must know of its first and last.
            if first || waits || state.queue_bytes >= limits.batch_bytes {
                self.work.notify_one();
            }
        }
        Ok(admission)
    }

    /// Starts the worker unless it runs.
    pub(crate) fn ensure_worker(self: &Arc<Drain>) -> Result<()> {
        self.start_worker(&mut self.lock())
    }

    /// [`Drain::ensure_worker`] under the lock: what is asked of the worker under the same one is
    /// asked of one that runs, or whose end tells everybody who waits.
    pub(crate) fn start_worker(self: &Arc<Drain>, state: &mut State) -> Result<()> {
        if state.working {
            return Ok(());
        }
        let drain = self.clone();
        let thread = std::thread::Builder::new().name("annals-observer".to_owned());
        thread.spawn(move || guarded(&drain)).map_err(|error| {
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

/// A future's place among those who wait for room: one, however often it is polled.
#[derive(Debug)]
pub(crate) struct RoomWait {
    drain: Arc<Drain>,
    key: Option<u64>,
}

impl RoomWait {
    pub(crate) fn of(drain: &Arc<Drain>) -> RoomWait {
        RoomWait { drain: drain.clone(), key: None }
    }

    fn stand(&mut self, state: &mut State, waker: Waker) {
        let key = *self.key.get_or_insert_with(|| {
            state.room_keys += 1;
            state.room_keys
        });
        let replaced = state.room_waits.insert(key, waker);
        state.stale.extend(replaced);
    }
}

impl Drop for RoomWait {
    fn drop(&mut self) {
        if let Some(key) = self.key.filter(|_| self.drain.log().check_process().is_ok()) {
            let mut state = self.drain.lock();
            let gone = state.room_waits.remove(&key);
            state.stale.extend(gone);
        }
    }
}

/// What the worker does next.
enum Turn {
    Write,
    Sync,
    /// For starts that are open for too long.
    Look,
    Sleep(Option<Duration>),
    End,
}

/// A panic here is one of the caller's clock, or a defect of ours. Nobody waits for a thread that is
/// gone.
fn guarded(drain: &Arc<Drain>) {
    if catch_unwind(AssertUnwindSafe(|| work(drain))).is_err() {
        drain.thread_panicked();
    }
}

fn work(drain: &Arc<Drain>) {
    let mut first_queued: Option<Instant> = None;
    let mut tried: Option<(Instant, u64)> = None;
    let pause = |age: Duration| age.clamp(LOOK_PAUSES.0, LOOK_PAUSES.1);
    let age_max = pause(drain.options.delivery.open_start_age_max);
    let mut look: Option<Instant> = None;
    drain.lock().worker = Some(std::thread::current().id());
    loop {
        let mut state = drain.lock_to_wait();
        let turn = loop {
            if state.queue.is_empty() {
                first_queued = None;
            } else {
                first_queued.get_or_insert_with(Instant::now);
            }
            if !(state.open.is_empty() || state.closed || state.failed.is_some()) {
                // What starts from now on is not too old before that.
                look.get_or_insert_with(|| Instant::now() + age_max);
            }
            state.looks = look.is_some();
            match turn(drain, &state, first_queued, tried) {
                Turn::Sleep(most) => {
                    let left = look.map(|at| at.saturating_duration_since(Instant::now()));
                    if left.is_some_and(|left| left.is_zero()) {
                        break Turn::Look;
                    }
                    let most = most.into_iter().chain(left).min();
                    state = drain.sleep(state, most);
                }
                turn => break turn,
            }
        };
        let (asked, last_lsn) = (state.asked(), state.last_lsn);
        if matches!(turn, Turn::End) {
            state.working = false;
            return;
        }
        drop(state);
        if matches!(turn, Turn::Look) {
            let next = drain.write_off_overdue(By::Worker);
            look = next.map(|age| Instant::now() + pause(age));
        } else if matches!(turn, Turn::Write) {
            tried = Some((Instant::now(), asked));
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
    let unsaid = !state.account.is_empty();
    let said_now = state.wanted > state.durable || state.handles_gone;
    let queued = !state.queue.is_empty() || unsaid && said_now;
    if state.stuck.is_some() && queued {
        let Some((at, asked)) = tried else { return Turn::Write };
        if state.handles_gone {
            return Turn::End;
        }
        let left = FULL_PAUSE.saturating_sub(at.elapsed());
        let poked = state.asked() > asked;
        return if left.is_zero() || poked { Turn::Write } else { Turn::Sleep(Some(left)) };
    }
    let submitted = state.flights.back().map_or(state.durable, |flight| flight.0);
    if queued {
        let waited = first_queued.map_or(Duration::ZERO, |at| at.elapsed());
        let left = limits.batch_age_max.saturating_sub(waited);
        let now = state.asked() > submitted
            || state.closed
            || state.handles_gone
            || left.is_zero()
            || state.queue_bytes >= limits.batch_bytes
            || state.queue.len() >= limits.queue_entries_max / 2;
        return if now { Turn::Write } else { Turn::Sleep(Some(left)) };
    }
    if state.wanted > state.durable && !state.flights.is_empty() {
        return Turn::Sync;
    }
    if state.handles_gone { Turn::End } else { Turn::Sleep(None) }
}
