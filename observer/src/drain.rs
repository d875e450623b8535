//! The one queue of an observer: tickets are taken and entries submitted in one order.
//!
//! Never here: waiting for a sync under the lock, a second queue, a retry. Entries go straight to
//! the log's own bounded queue; where it is full, the submitting call waits for room (and so do
//! those behind it: they would overtake it otherwise). Invariants: LSN order is ticket order;
//! sequences are dense, a refused entry gives its number back; so one durable entry proves all
//! before it, and the last LSN is all that a flush must remember.
//!
//! Later (issue 7) a queue of our own with policies stands between the ticket and the log; then
//! submitting moves to its thread and this lock keeps its name and its place in the order.
//! Next room: [`crate::observer`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_wal::{Batch, Log, Lsn, Ordered, Pending};

use crate::clock::Clock;
use crate::codec::{EncodedEntry, entry_cap};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::ids::{InstanceId, SpanId, Ticket};
use crate::mutant;

/// What every clone of an observer shares.
#[derive(Debug)]
pub(crate) struct Drain {
    log: Log,
    clock: Arc<dyn Clock>,
    instance: InstanceId,
    /// Counts spans; mixed with `span_key` it gives ids that differ between instances.
    spans: AtomicU64,
    span_key: u64,
    /// Guards the ticket counter and, through it, the order of submission.
    /// Lock order: drain, gate, APPEND, queue; nothing else of this crate is taken under it. Its
    /// holder may wait for room in the log's queue or for a segment, never for durability.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Sequence of the last accepted entry, 0 before the first.
    last: u64,
    last_lsn: Option<Lsn>,
    closed: bool,
    refused: u64,
    last_error: Option<Error>,
}

/// Entries that have their place; durable or not.
#[derive(Debug)]
pub(crate) struct Submitted {
    /// Of the last one.
    pub(crate) ticket: Ticket,
    /// Tells their LSNs once they are durable.
    pending: Option<Pending>,
}

/// What [`Drain::peek`] saw at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Peek {
    pub(crate) last: u64,
    pub(crate) last_lsn: Option<Lsn>,
    pub(crate) closed: bool,
    pub(crate) refused: u64,
    pub(crate) last_error: Option<Error>,
}

impl Drain {
    pub(crate) fn new(log: Log, clock: Arc<dyn Clock>) -> Result<Drain> {
        let (instance, key) = (InstanceId::random()?, InstanceId::random()?);
        let [a, b, c, d, e, f, g, h, ..] = key.to_bytes();
        Ok(Drain {
            log,
            clock,
            instance,
            spans: AtomicU64::new(0),
            span_key: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            state: Mutex::new(State::default()),
        })
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// A span id that no other call of this instance gets, and hardly one of another instance.
    pub(crate) fn new_span(&self) -> SpanId {
        let count = self.spans.fetch_add(1, Relaxed);
        SpanId::nearest(mix(self.span_key.wrapping_add(count)))
    }

    /// Gives the entry its instance and encodes it. Done before the lock.
    pub(crate) fn encode(&self, entry: &mut Entry) -> Result<EncodedEntry> {
        entry.ticket = Ticket { instance: self.instance, sequence: 0 };
        EncodedEntry::new(entry)
    }

    /// How long an encoded entry may be.
    pub(crate) fn entry_cap(&self) -> usize {
        entry_cap(self.log.record_bytes_max())
    }

    /// Submits one entry that happens now.
    pub(crate) fn submit_now(&self, entry: &mut Entry) -> Result<Submitted> {
        (entry.wall, entry.mono) = (self.clock.wall(), self.clock.mono());
        let encoded = self.encode(entry)?;
        if encoded.len() > self.entry_cap() {
            return Err(Error::entry_too_large(encoded.len(), self.entry_cap()));
        }
        self.submit(vec![encoded])
    }

    /// Takes a ticket for each entry and submits them as one batch, durable together or not at
    /// all. Ordered on return, not durable.
    pub(crate) fn submit(&self, entries: Vec<EncodedEntry>) -> Result<Submitted> {
        // Before any lock: in a forked child nobody may ever leave it.
        self.log.check_process()?;
        let mut state = self.lock();
        if state.closed {
            return Err(Error::closed());
        }
        let first = state.last.saturating_add(1);
        let count = entries.len() as u64;
        let batch = entries.into_iter().zip(first..).map(|(entry, n)| entry.stamp(n)).collect();
        match self.push(&batch) {
            Ok(ordered) => {
                state.last += if mutant::is("observer:tickets-twice") { 0 } else { count };
                state.last_lsn = Some(ordered.value);
                let ticket = Ticket { instance: self.instance, sequence: state.last };
                Ok(Submitted { ticket, pending: ordered.pending })
            }
            Err(error) => {
                // Certainly not in the log: what is unknown is told by the handle of what was
                // ordered, and nothing was. So the next entries may have these tickets.
                state.refused += count;
                state.last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Returns the LSN of the last of these entries when it is durable. Called without the lock.
    pub(crate) fn wait(&self, submitted: Submitted) -> Result<Option<Lsn>> {
        let pending = submitted.pending.map(Pending::wait).transpose();
        let lsns = pending.map_err(|error| self.failed(error))?;
        Ok(lsns.map(|lsns| *lsns.end()))
    }

    /// Returns when everything submitted before this call is durable.
    pub(crate) fn flush(&self) -> Result<Option<Lsn>> {
        let last = self.peek().last_lsn;
        if let Some(lsn) = last.filter(|_| !mutant::is("observer:flush-does-not-wait")) {
            self.log.wait_durable(lsn).map_err(|error| self.failed(error))?;
        }
        Ok(last)
    }

    fn failed(&self, error: annals_wal::Error) -> Error {
        let error = Error::from(error);
        self.lock().last_error = Some(error.clone());
        error
    }

    pub(crate) fn peek(&self) -> Peek {
        let state = self.lock();
        Peek {
            last: state.last,
            last_lsn: state.last_lsn,
            closed: state.closed,
            refused: state.refused,
            last_error: state.last_error.clone(),
        }
    }

    /// Refuses every entry from now on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    fn push(&self, batch: &Batch) -> Result<Ordered<Lsn>> {
        let mut encoded = batch.encode(self.log.record_bytes_max())?;
        Ok(self.log.ordered(|slot| Ok(*slot.push(&mut encoded)?.end()))?)
    }

    /// A panic elsewhere cannot leave the state half changed (every change follows the push), so
    /// a poisoned lock is used on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SplitMix64's finish: one to one, so that different counts never give the same span.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
