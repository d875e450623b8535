//! The one order of an observer: tickets are taken and entries submitted in it.
//!
//! Two locks. `order` is the design's drain lock: whoever holds it moves entries from the queue to
//! the log, so LSN order is ticket order; it may wait for room in the log, for a segment or for the
//! registry's gate, never for a sync. `state` guards the queue and is held for a few operations on memory, so a batched
//! call never meets I/O. Never here: a retry of what may be in the log, a wait for a sync under a
//! lock. Invariants: an entry refused to its caller gives its ticket back, or the ticket is in the
//! account of the dropped; one durable entry proves all before it.
//! Next rooms: [`crate::queue`], [`crate::worker`] for batched entries, [`crate::flush`].

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_wal::{Batch, Log, Lsn, Ordered, Pending};

use crate::clock::{Clock, MonoTime, WallTime};
use crate::codec::{EncodedEntry, entry_cap};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::ids::{InstanceId, SpanId, Ticket};
use crate::json::JsonText;
use crate::kind::EntryKind;
use crate::locked::Locked;
use crate::mutant;
use crate::options::Options;
use crate::queue::{Account, Queued, State};
use crate::record::By;

/// A batch of queued entries holds at most this much, so that it fits any segment of default size.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_ENTRIES: usize = 512;

/// What every clone of an observer shares.
#[derive(Debug)]
pub(crate) struct Drain {
    log: Log,
    instance: InstanceId,
    pub(crate) options: Options,
    /// Counts spans; mixed with `span_key` it gives ids that differ between instances.
    spans: AtomicU64,
    span_key: u64,
    /// Held while entries go to the log. Lock order: drain (this), gate, APPEND, queue; `state` is
    /// taken under it and is always last.
    order: Mutex<()>,
    state: Mutex<State>,
    /// Room in the queue, or the end of hope for it.
    pub(crate) room: Condvar,
    /// Something for the worker to do.
    pub(crate) work: Condvar,
    /// Something became durable, or failed.
    pub(crate) settled: Condvar,
}

/// Entries that have their place; durable or not.
#[derive(Debug)]
pub(crate) struct Submitted {
    /// Of the last one.
    pub(crate) ticket: Ticket,
    /// Of the last one, if it becomes durable.
    pub(crate) lsn: Option<Lsn>,
    /// Tells their LSNs once they are durable.
    pending: Option<Pending>,
}

/// Entries that have their tickets and go into the next batch: an account first, if one was due.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) entries: Vec<EncodedEntry>,
    pub(crate) tickets: RangeInclusive<u64>,
    account: Account,
}

/// The right to move entries into the log.
pub(crate) type OrderGuard<'d> = MutexGuard<'d, ()>;

impl Drain {
    pub(crate) fn new(log: Log, mut options: Options) -> Result<Drain> {
        let (instance, key) = (InstanceId::random(&log)?, InstanceId::random(&log)?);
        let [a, b, c, d, e, f, g, h, ..] = key.to_bytes();
        options.capture.redaction.complete_key(&log)?;
        Ok(Drain {
            log,
            instance,
            options,
            spans: AtomicU64::new(0),
            span_key: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            order: Mutex::new(()),
            state: Mutex::new(State::default()),
            room: Condvar::new(),
            work: Condvar::new(),
            settled: Condvar::new(),
        })
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.options.clock.as_ref()
    }

    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// A span id that no other call of this instance gets, and hardly one of another instance.
    pub(crate) fn new_span(&self) -> SpanId {
        let count = self.spans.fetch_add(1, Relaxed);
        SpanId::nearest(mix(self.span_key.wrapping_add(count)))
    }

    /// Gives the entry its instance and encodes it as it is. Done before the lock.
    pub(crate) fn encode(&self, entry: &mut Entry) -> Result<EncodedEntry> {
        entry.ticket = Ticket { instance: self.instance, sequence: 0 };
        EncodedEntry::new(entry, Vec::new())
    }

    /// How long an encoded entry may be.
    pub(crate) fn entry_cap(&self) -> usize {
        entry_cap(self.log.record_bytes_max())
    }

    /// Makes an entry that happens now what may be written of it, and encodes it.
    pub(crate) fn prepare(&self, entry: &mut Entry) -> Result<EncodedEntry> {
        let clock = self.clock();
        (entry.wall, entry.mono) = (clock.wall(), clock.mono());
        entry.ticket = Ticket { instance: self.instance, sequence: 0 };
        self.options.capture.apply(entry);
        let payloads = self.options.capture.split(entry, self.entry_cap());
        let encoded = EncodedEntry::new(entry, payloads)?;
        if encoded.len() > self.entry_cap() {
            return Err(Error::entry_too_large(encoded.len(), self.entry_cap()));
        }
        Ok(encoded)
    }

    /// The right to move entries into the log; in a forked child nobody would ever give it up.
    /// Refused inside of a registry's closure: it may hold the gate, which comes after this lock, and
    /// whoever has this lock may wait for the gate (`docs/adr/0020`).
    pub(crate) fn order(&self) -> Result<OrderGuard<'_>> {
        self.log.check_process()?;
        if annals_wal::in_closure() {
            return Err(Error::in_closure());
        }
        Ok(self.order.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a ticket for each entry and submits them as one batch, durable together or not at
    /// all, after everything that is queued. Ordered on return, not durable.
    pub(crate) fn submit(&self, entries: Vec<EncodedEntry>) -> Result<Submitted> {
        let order = self.order()?;
        self.submit_in(&order, entries)
    }

    /// [`Drain::submit`] by somebody who has the order.
    fn submit_in(&self, order: &OrderGuard<'_>, entries: Vec<EncodedEntry>) -> Result<Submitted> {
        let own = self.send_before(order, entries)?;
        let mut batch = Batch::new();
        own.entries.iter().for_each(|entry| entry.push_to(&mut batch));
        match self.push(&batch) {
            Ok(ordered) => {
                let (ticket, lsn) = (*own.tickets.end(), *ordered.value.end());
                let mut state = self.lock();
                state.stuck = None;
                self.flew(&mut state, ticket, lsn);
                drop(state);
                self.work.notify_one(); // a flush may wait for what went out here
                let ticket = Ticket { instance: self.instance, sequence: ticket };
                Ok(Submitted { ticket, lsn: Some(lsn), pending: ordered.pending })
            }
            Err(error) => {
                self.refuse(&own, Some(&error));
                Err(error)
            }
        }
    }

    /// Takes a ticket for each entry, and submits everything that is queued before them.
    pub(crate) fn send_before(
        &self,
        order: &OrderGuard<'_>,
        entries: Vec<EncodedEntry>,
    ) -> Result<Own> {
        let mut own = Vec::with_capacity(entries.len() + 1);
        let now = self.now();
        let (before, account, last_before) = {
            let mut state = self.lock();
            state.check()?;
            let last_before = state.last;
            if !state.account.is_empty() {
                own.push(self.account_entry(&state.account, now)?);
            }
            let account = std::mem::take(&mut state.account);
            own.extend(entries);
            let first = state.last.saturating_add(1);
            let count = own.len() as u64;
            for (entry, ticket) in own.iter_mut().zip(first..) {
                entry.stamp(ticket);
            }
            state.last += if mutant::is("observer:tickets-twice") { 0 } else { count };
            (state.take(), account, last_before)
        };
        let tickets = (last_before + 1)..=(last_before + own.len() as u64);
        let own = Own { entries: own, tickets, account };
        if let Err((error, rest)) = self.send(order, before) {
            self.put_back(rest, &error);
            self.refuse(&own, Some(&error));
            return Err(error);
        }
        Ok(own)
    }

    /// A batch of another room took these entries along. Called under the log's queue lock: takes
    /// the state, which is the last of all locks, and wakes nobody but the worker.
    pub(crate) fn joined(&self, ticket: u64, lsn: Lsn) {
        let mut state = self.lock_to_wait();
        state.stuck = None;
        state.last_lsn = state.last_lsn.max(Some(lsn));
        state.flights.push_back((ticket, lsn));
        drop(state);
        self.work.notify_one();
    }

    /// Certainly not in the log: what is unknown is told by the handle of what was ordered, and
    /// nothing was. So the next entries get these tickets, or an account says that they are gone.
    /// Without an error nothing failed: the commit that they belonged to appended nothing.
    pub(crate) fn refuse(&self, own: &Own, error: Option<&Error>) {
        let mut state = self.lock();
        let accounts = usize::from(!own.account.is_empty());
        state.account.put_back(own.account.clone());
        if state.last == *own.tickets.end() {
            state.last = own.tickets.start() - 1;
        } else {
            for (ticket, entry) in own.tickets.clone().zip(&own.entries) {
                state.account.note(ticket, entry.kind());
            }
        }
        if let Some(error) = error {
            state.refused += (own.entries.len() - accounts) as u64;
            state.last_error = Some(error.clone());
        }
        state.wake_flushes(u64::MAX);
        drop(state);
        self.settled.notify_all();
        self.work.notify_one(); // the account may be what somebody waits for
    }

    /// Moves queued entries into the log, in batches. What could not be moved comes back.
    pub(crate) fn send(
        &self,
        _order: &OrderGuard<'_>,
        mut entries: VecDeque<Queued>,
    ) -> std::result::Result<(), (Error, VecDeque<Queued>)> {
        let mut one_by_one = false;
        while !entries.is_empty() {
            let chunk = chunk(entries.make_contiguous(), one_by_one);
            let mut batch = Batch::new();
            let queued = entries.iter().take(chunk);
            queued.for_each(|queued| queued.entry.push_to(&mut batch));
            match self.push(&batch) {
                Ok(ordered) => {
                    let sent: Vec<Queued> = entries.drain(..chunk).collect();
                    self.sent(&sent, &ordered.value);
                }
                Err(error) if error.is_too_large() && !one_by_one => one_by_one = true,
                Err(error) if error.is_too_large() => {
                    let lost: Vec<Queued> = entries.drain(..chunk).collect();
                    self.lose(&lost, &error);
                }
                Err(error) => return Err((error, entries)),
            }
        }
        Ok(())
    }

    fn push(&self, batch: &Batch<'_>) -> Result<Ordered<RangeInclusive<Lsn>>> {
        let mut encoded = batch.encode(self.log.record_bytes_max())?;
        Ok(self.log.ordered(|slot| slot.push(&mut encoded))?)
    }

    /// These entries have their place.
    fn sent(&self, sent: &[Queued], lsns: &RangeInclusive<Lsn>) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(sent.len());
        state.stuck = None;
        if !state.waiters.is_empty() {
            let mut before = lsns.start().get() - 1;
            for queued in sent {
                before += queued.entry.records();
                if let Some(waiter) = state.waiters.get_mut(&queued.ticket) {
                    waiter.lsn = Lsn::new(before);
                    let placed = waiter.placed().then(|| waiter.waker.take());
                    state.to_wake.extend(placed.flatten());
                }
            }
        }
        if let Some(last) = sent.last() {
            self.flew(&mut state, last.ticket, *lsns.end());
        }
        state.wake_room();
        drop(state);
        self.room.notify_all();
        self.work.notify_one(); // a flush may wait for what went out here
    }

    fn flew(&self, state: &mut State, ticket: u64, lsn: Lsn) {
        state.last_lsn = state.last_lsn.max(Some(lsn));
        state.flights.push_back((ticket, lsn));
        self.advance(state);
    }

    /// Notices what a sync has covered and tells those who wait for it, whoever it is that looks.
    pub(crate) fn advance(&self, state: &mut State) {
        let before = state.durable;
        state.advance(self.log.durable_lsn());
        if state.durable > before {
            let durable = state.durable;
            let settled = state.waiters.range_mut(..=durable);
            let wakers: Vec<_> = settled.filter_map(|(_, waiter)| waiter.waker.take()).collect();
            state.to_wake.extend(wakers);
            state.wake_flushes(durable);
            self.settled.notify_all();
        }
    }

    /// An entry that no segment can take; the account says so.
    fn lose(&self, lost: &[Queued], error: &Error) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(lost.len());
        for queued in lost {
            if let Some(account) = &queued.account {
                // It was glued to an entry that no segment takes: said again with the next one.
                state.account.put_back((**account).clone());
            }
            state.note_dropped(queued.ticket, queued.entry.kind());
            if state.tell_lost(queued.ticket, error) {
                state.forget_start(queued.ticket);
            }
        }
        state.last_error = Some(error.clone());
        state.wake_room();
        drop(state);
        self.room.notify_all();
        self.work.notify_one(); // the account may be what somebody waits for
    }

    /// What was queued stays queued; those who wait for it are told why.
    pub(crate) fn put_back(&self, rest: VecDeque<Queued>, error: &Error) {
        let refusal = self.refusal_after(error);
        let mut state = self.lock();
        state.put_back(rest, error);
        self.note_failure(&mut state, error, refusal);
        drop(state);
        self.room.notify_all();
        self.settled.notify_all();
    }

    fn note_failure(&self, state: &mut State, error: &Error, refusal: Option<Error>) {
        state.last_error = Some(error.clone());
        self.advance(state);
        state.wake_room();
        state.wake_flushes(u64::MAX);
        let Some(refusal) = refusal else {
            state.stuck = Some(error.clone());
            return;
        };
        state.failed = Some(error.clone());
        state.refusal = Some(refusal);
        let after = state.durable.saturating_add(1);
        let undone: Vec<u64> = state.waiters.range(after..).map(|(ticket, _)| *ticket).collect();
        for ticket in undone {
            state.tell_lost(ticket, error);
        }
    }

    /// What every later entry is told; `None` if the log is whole after this error and a later try
    /// may do better: the disk was full, or a segment could not be prepared, say because the process
    /// had too many files open. Asks the log, whose lock comes before the state's.
    fn refusal_after(&self, error: &Error) -> Option<Error> {
        use annals_wal::ErrorKind::{Full, Io};
        let kind = error.log_error().map(annals_wal::Error::kind);
        let poisoned = self.log.poisoned().map(Error::from);
        let passes = matches!(kind, Some(Full | Io)) && !error.outcome_unknown();
        if passes && poisoned.is_none() && !self.log.is_closed() {
            return None;
        }
        Some(poisoned.unwrap_or_else(Error::closed))
    }

    /// Returns the LSN of the last of these entries when it is durable. Called without a lock.
    pub(crate) fn wait(&self, submitted: Submitted) -> Result<Option<Lsn>> {
        let pending = submitted.pending.map(Pending::wait).transpose();
        let lsns = pending.map_err(|error| self.failed(error))?;
        self.settle();
        Ok(lsns.map(|lsns| *lsns.end()))
    }

    /// Notices what has become durable.
    pub(crate) fn settle(&self) {
        self.advance(&mut self.lock());
    }

    /// Returns when everything taken before this call is durable. Does the work on this thread.
    pub(crate) fn flush(self: &Arc<Drain>) -> Result<Option<Lsn>> {
        self.log.check_process()?;
        self.write_off_overdue(By::Caller);
        let last = {
            let order = self.order()?;
            self.send_queued(&order)?;
            self.lock().last_lsn
        };
        if let Some(lsn) = last.filter(|_| !mutant::is("observer:flush-does-not-wait")) {
            self.log.wait_durable(lsn).map_err(|error| self.failed(error))?;
        }
        self.settle();
        Ok(last)
    }

    /// Moves everything that is queued into the log, the account of the dropped last.
    pub(crate) fn send_queued(&self, order: &OrderGuard<'_>) -> Result<()> {
        // The clock may be a caller's code: asked without the state's lock, and only for an account.
        let unsaid = !self.lock().account.is_empty();
        let now = unsaid.then(|| self.now());
        let queued = {
            let mut state = self.lock();
            state.tries += 1;
            if let Some(now) = now {
                state.settle_account(false, |account| self.account_entry(account, now))?;
            }
            state.take()
        };
        self.send(order, queued).map_err(|(error, rest)| {
            self.put_back(rest, &error);
            error
        })
    }

    /// The observer's thread is gone. What it had not touched stays queued and is tried by the next
    /// one; whoever waits is told.
    pub(crate) fn thread_panicked(&self) {
        let _order = self.order(); // nobody else has entries in his hands then
        let error = Error::panicked();
        let unknown = error.clone().with_outcome_unknown();
        let mut state = self.lock();
        state.working = false;
        state.tries += 1;
        state.last_error = Some(error.clone());
        if state.taken > 0 {
            // It had: a defect of ours, and nobody knows what of them is in the log.
            state.taken = 0;
            state.failed = Some(unknown.clone());
            state.refusal = Some(error);
        } else {
            let queued = state.take();
            state.put_back(queued, &error);
            state.stuck = Some(error);
        }
        let after = state.durable.saturating_add(1);
        let waits = state.waiters.range(after..).filter(|(_, waiter)| waiter.lost.is_none());
        let waits: Vec<u64> = waits.map(|(ticket, _)| *ticket).collect();
        for ticket in waits {
            state.tell_lost(ticket, &unknown);
        }
        state.wake_room();
        state.wake_flushes(u64::MAX);
        drop(state);
        self.settled.notify_all();
        self.room.notify_all();
    }

    pub(crate) fn failed(&self, error: annals_wal::Error) -> Error {
        let error = Error::from(error);
        let refusal = self.refusal_after(&error);
        let mut state = self.lock();
        self.note_failure(&mut state, &error, refusal);
        drop(state);
        self.settled.notify_all();
        self.room.notify_all();
        error
    }

    /// Keeps a failure that nobody is there to be told of, for [`crate::Health::last_error`]. Not in a
    /// forked child, whose copy of the lock nobody may ever give back.
    pub(crate) fn note_error(&self, error: Error) {
        if self.log.check_process().is_ok() {
            self.lock().last_error = Some(error);
        }
    }

    /// Both clocks. They may be a caller's code: asked without a lock.
    pub(crate) fn now(&self) -> (WallTime, MonoTime) {
        (self.clock().wall(), self.clock().mono())
    }

    /// The entry that says which tickets became none.
    pub(crate) fn account_entry(
        &self,
        account: &Account,
        now: (WallTime, MonoTime),
    ) -> Result<EncodedEntry> {
        let kinds: std::collections::BTreeMap<String, u64> =
            account.by_kind.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
        let mut entry = Entry::new(EntryKind::Dropped);
        let said = serde_json::json!({ "tickets": account.ranges, "by_kind": kinds });
        entry.metadata = Some(JsonText::checked(said.to_string()));
        (entry.wall, entry.mono) = now;
        self.encode(&mut entry)
    }

    /// Refuses every entry from now on.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake_room();
        drop(state);
        self.room.notify_all();
        self.work.notify_all();
    }

    /// A panic elsewhere cannot leave the state half changed (every change follows the push), so
    /// a poisoned lock is used on.
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked::of(self.lock_to_wait())
    }

    /// [`Drain::lock`] for whoever waits on a condition variable and wakes no task meanwhile.
    pub(crate) fn lock_to_wait(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the drop of the last handle waits for what is queued, as other libraries' do.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The last handle of an observer. Its drop ends the worker once everything queued is written, and
/// waits a while for that: a process may end right behind it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) drain: Arc<Drain>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.drain.log.check_process().is_ok() {
            let unsaid = {
                let mut state = self.drain.lock();
                state.handles_gone = true;
                let queued = state.taken > 0 || !state.queue.is_empty();
                (queued || !state.account.is_empty()) && state.failed.is_none()
            };
            // Without a thread nobody would write it; there is nobody to tell.
            if unsaid && self.drain.ensure_worker().is_ok() {
                self.drain.wait_at_the_end(LAST_WAIT);
            }
            self.drain.work.notify_all();
        }
    }
}

impl std::ops::Deref for Handle {
    type Target = Arc<Drain>;

    fn deref(&self) -> &Arc<Drain> {
        &self.drain
    }
}

/// How many entries go into the next batch; an account and what follows it are never parted.
fn chunk(entries: &[Queued], one_by_one: bool) -> usize {
    let (mut count, mut bytes) = (0, 0);
    for (index, queued) in entries.iter().enumerate() {
        bytes += queued.entry.weight();
        let together = index.checked_sub(1).and_then(|before| entries.get(before));
        let together = together.is_some_and(|before| before.with_next);
        let enough = one_by_one || bytes > BATCH_BYTES || index >= BATCH_ENTRIES;
        if index > 0 && enough && !together {
            return index;
        }
        count = index + 1;
    }
    count
}

pub(crate) fn is_full(error: &Error) -> bool {
    error.log_error().is_some_and(|error| error.kind() == annals_wal::ErrorKind::Full)
}

/// SplitMix64's finish: one to one, so that different counts never give the same span.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
