//! One entry on its way from a handle into the queue or the log, at its level, sync or async.
//!
//! Never here: what the entry says. Invariant: at [`Level::Batched`] and in futures nothing here
//! does I/O on the caller's thread. Next rooms: [`crate::drain`], [`crate::worker`].

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use annals_wal::Lsn;

use crate::clock::MonoTime;
use crate::codec::EncodedEntry;
use crate::drain::{Drain, Submitted};
use crate::entry::Entry;
use crate::error::Result;
use crate::flush::Settled;
use crate::ids::Ticket;
use crate::json::JsonText;
use crate::kind::EntryKind;
use crate::observer::{Level, Receipt, receipt};
use crate::open_starts::OpenStart;
use crate::queue::{Admission, Place, State};
use crate::worker::RoomWait;

/// An entry that has its ticket.
#[derive(Debug)]
pub(crate) enum Recorded {
    Submitted(Submitted),
    Queued(u64),
    Dropped(u64),
}

/// An entry that [`Drain::offer_async`] has queued, or dropped.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) ticket: u64,
    pub(crate) dropped: bool,
    /// The wait for it, if its level waits.
    settled: Option<Settled>,
}

impl Recorded {
    /// The entry's ticket, unless it was dropped.
    pub(crate) fn ticket(&self) -> Option<u64> {
        match self {
            Recorded::Submitted(submitted) => Some(submitted.ticket.sequence),
            Recorded::Queued(ticket) => Some(*ticket),
            Recorded::Dropped(_) => None,
        }
    }
}

impl Drain {
    /// Records an entry as the level asks, waiting for room and never for durability.
    pub(crate) fn record(
        self: &Arc<Drain>,
        entry: EncodedEntry,
        level: Level,
        place: Place,
    ) -> Result<Recorded> {
        if level != Level::Batched {
            return Ok(Recorded::Submitted(self.submit(vec![entry])?));
        }
        Ok(match self.enqueue(entry, place)? {
            Admission::Queued(ticket) => Recorded::Queued(ticket),
            Admission::Dropped(ticket) => Recorded::Dropped(ticket),
            // Enqueue waits, or asks the clock, instead.
            Admission::NoRoom(_) | Admission::NoTime(_) => Recorded::Queued(0),
        })
    }

    /// Waits as long as the level asks.
    pub(crate) fn receipt(&self, recorded: Recorded, level: Level) -> Result<Receipt> {
        let (sequence, dropped) = match recorded {
            Recorded::Submitted(submitted) => return receipt(self, submitted, level),
            Recorded::Queued(sequence) => (sequence, false),
            Recorded::Dropped(sequence) => (sequence, true),
        };
        Ok(Receipt { ticket: self.ticket(sequence), lsn: None, dropped })
    }

    /// Records an entry through the queue, whatever its level: waits for room and takes a ticket. Of
    /// what is returned the drop gives up the wait for it, so that a panic, of a clock say, leaves
    /// nobody to be told who is not there.
    pub(crate) async fn offer_async(
        self: &Arc<Drain>,
        entry: EncodedEntry,
        level: Level,
        place: Place,
    ) -> Result<Offered> {
        // What is waited for is not dropped: whoever asks for it is told if it cannot be recorded.
        let place = match place {
            Place::Any if level != Level::Batched => Place::Kept,
            place => place,
        };
        let mut entry = Some(entry);
        let mut wait = RoomWait::of(self);
        let how = (place, level);
        let offered =
            poll_fn(|context| self.poll_enqueue(&mut entry, how, &mut wait, context)).await?;
        let waits = level != Level::Batched;
        Ok(match offered {
            Admission::Queued(ticket) => {
                let settled = waits.then(|| Settled::of(self.clone(), ticket));
                Offered { ticket, dropped: false, settled }
            }
            Admission::Dropped(ticket) => Offered { ticket, dropped: true, settled: None },
            // Poll_enqueue waits, or asks the clock, instead.
            Admission::NoRoom(_) | Admission::NoTime(_) => {
                Offered { ticket: 0, dropped: true, settled: None }
            }
        })
    }

    /// Waits as long as the level asks for an entry that [`Drain::offer_async`] has queued.
    pub(crate) async fn receipt_async(
        self: &Arc<Drain>,
        offered: Offered,
        level: Level,
    ) -> Result<Receipt> {
        let Offered { ticket, dropped, settled } = offered;
        let lsn = match settled {
            Some(settled) => settled.await?,
            None => None,
        };
        let lsn = lsn.filter(|_| level == Level::Durable); // the LSN of an ordered one may be lost
        Ok(Receipt { ticket: self.ticket(ticket), lsn, dropped })
    }

    /// Records an entry that is neither a start nor an end, through the queue.
    pub(crate) async fn record_async(
        self: &Arc<Drain>,
        entry: &mut Entry,
        level: Level,
        place: Place,
    ) -> Result<Receipt> {
        let encoded = self.prepare(entry)?;
        let offered = self.offer_async(encoded, level, place).await?;
        self.receipt_async(offered, level).await
    }

    pub(crate) fn ticket(&self, sequence: u64) -> Ticket {
        Ticket { instance: self.instance(), sequence }
    }

    /// A start has its ticket: its end needs no room, and starts that are overdue are written off.
    pub(crate) fn opened(self: &Arc<Drain>, ticket: u64, start: OpenStart) {
        let now = start.started;
        let overdue = {
            let mut state = self.lock();
            if state.working && !state.looks {
                self.work.notify_one(); // from now on there is something that grows old
            }
            state.open.insert(ticket, start);
            self.overdue(&mut state, now)
        };
        self.write_off(overdue, By::Caller);
    }

    /// Writes off what is open for too long by now, and says how long it takes until the next is; no
    /// time if one could not be written off, and nothing if none is open.
    pub(crate) fn write_off_overdue(self: &Arc<Drain>, by: By) -> Option<Duration> {
        if self.lock().open.is_empty() {
            return None;
        }
        let now = self.clock().mono(); // a caller's code: asked without the lock
        let overdue = {
            let mut state = self.lock();
            if state.closed || state.failed.is_some() {
                return None;
            }
            self.overdue(&mut state, now)
        };
        self.write_off(overdue, by);
        self.lock().open.due_after(now, self.options.delivery.open_start_age_max)
    }

    /// Takes out of the table what is too old, or too much.
    fn overdue(self: &Arc<Drain>, state: &mut State, now: MonoTime) -> Vec<Overdue> {
        let limits = &self.options.delivery;
        let (count, age) = (limits.open_starts_max, limits.open_start_age_max);
        let mut overdue = Vec::new();
        while let Some((ticket, start, reason)) = state.open.take_overdue(now, count, age) {
            // Under the same lock as it leaves the table: the log keeps it all the time.
            state.open.come(start.floor);
            let kept = Coming { drain: self.clone(), floor: start.floor };
            overdue.push(Overdue { ticket, start, reason, written: false, kept });
        }
        overdue
    }

    /// One that fails does not stop the others, and is nobody's failure who is here: it is open as
    /// before, and the health says why.
    fn write_off(self: &Arc<Drain>, overdue: Vec<Overdue>, by: By) {
        for mut overdue in overdue {
            if let Err(error) = self.write_off_one(&mut overdue, by) {
                self.lock().last_error = Some(error);
            }
        }
    }

    /// Says in the log that a start will not be waited for. It needs no room: it stands for the end.
    fn write_off_one(self: &Arc<Drain>, overdue: &mut Overdue, by: By) -> Result<()> {
        let Overdue { ticket, ref start, reason, .. } = *overdue;
        let mut entry = abandoned(&start.end, reason, Some(ticket), start.lsn.map(|lsn| lsn.get()));
        let encoded = match by {
            By::Caller => self.prepare(&mut entry)?,
            By::Worker => {
                // Its names and ids stand as they were written; redactors are no code for that thread.
                (entry.wall, entry.mono) = self.now();
                self.encode(&mut entry)?
            }
        };
        let recorded = self.record(encoded, Level::Batched, Place::Forced)?;
        let floor = start.floor;
        let mut state = self.lock();
        overdue.written = true;
        state.open.left(ticket);
        if let Recorded::Queued(ticket) = recorded {
            state.open.leave(floor, ticket);
        }
        Ok(())
    }

    /// The entry of a call goes with it: its ticket is counted among the dropped.
    pub(crate) fn drop_end(&self, kind: EntryKind) -> Result<Receipt> {
        self.log().check_process()?;
        let mut state = self.lock();
        state.check()?;
        let ticket = state.take_ticket();
        state.note_dropped(ticket, kind);
        Ok(Receipt { ticket: self.ticket(ticket), lsn: None, dropped: true })
    }

    /// An id as it stands in the log: itself, or its hash if a redactor matches it.
    pub(crate) fn written_id(&self, id: &str) -> Option<String> {
        self.options.capture.redaction.name(id)
    }
}

/// Who writes off what is open for too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// Whoever starts another call, or flushes.
    Caller,
    /// The observer's own thread.
    Worker,
}

/// A start that has left the table and is not written off yet. Dropped before it is, because that was
/// refused or a caller's clock panicked, it is open as before.
struct Overdue {
    ticket: u64,
    start: OpenStart,
    reason: &'static str,
    /// The log has the write-off, or will.
    written: bool,
    /// Its log keeps it meanwhile; dropped last.
    kept: Coming,
}

impl Drop for Overdue {
    fn drop(&mut self) {
        let drain = &self.kept.drain;
        if !self.written && drain.log().check_process().is_ok() {
            drain.lock().open.put_back(self.ticket, self.start.clone());
        }
    }
}

/// The entry that writes a start off.
pub(crate) fn abandoned(
    end: &Entry,
    reason: &str,
    start_ticket: Option<u64>,
    start_lsn: Option<u64>,
) -> Entry {
    let mut entry = end.clone();
    entry.kind = EntryKind::Abandoned;
    let call = end.kind.ends().map(|kind| kind.start().to_string());
    let said = serde_json::json!({
        "reason": reason,
        "start": call,
        "start_ticket": start_ticket,
        "start_lsn": start_lsn,
    });
    entry.metadata = Some(JsonText::checked(said.to_string()));
    entry
}

impl Drain {
    /// The end of this start is recorded, in the entry with that ticket, or may be (`None`).
    pub(crate) fn close_start(&self, ticket: u64, end: Option<u64>) {
        let mut state = self.lock();
        match end {
            Some(end) => state.open.end(ticket, end),
            None => state.open.remove(ticket),
        };
    }

    /// Nobody holds this start any more; it stays open, and its end will ask for room.
    pub(crate) fn release_start(&self, ticket: u64) {
        self.lock().open.release(ticket);
    }
}

/// Something that has no ticket yet and an LSN from its floor on: retention keeps that.
#[derive(Debug)]
pub(crate) struct Coming {
    drain: Arc<Drain>,
    pub(crate) floor: Lsn,
}

impl Coming {
    /// What comes next has an LSN after the last durable one.
    ///
    /// # Errors
    /// `Locked` in a forked child, whose copy of the lock nobody may ever give back.
    pub(crate) fn next(drain: &Arc<Drain>) -> Result<Coming> {
        drain.log().check_process()?;
        let mut state = drain.lock();
        // Asked under the lock: whoever looks at floors later sees this one.
        let floor = drain.log().durable_lsn().and_then(Lsn::next).unwrap_or(Lsn::FIRST);
        state.open.come(floor);
        drop(state);
        Ok(Coming { drain: drain.clone(), floor })
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if self.drain.log().check_process().is_ok() {
            self.drain.lock().open.came(self.floor);
        }
    }
}

/// An end that is queued and whose caller waits for its sync. However the wait ends, the start is
/// open no more, unless the end was refused.
#[derive(Debug)]
pub(crate) struct Closing {
    drain: Arc<Drain>,
    start: u64,
    end: u64,
    refused: bool,
}

impl Closing {
    pub(crate) fn of(drain: &Arc<Drain>, start: u64, end: u64) -> Closing {
        Closing { drain: drain.clone(), start, end, refused: false }
    }

    /// The end is certainly not in the log.
    pub(crate) fn refused(mut self) {
        self.refused = true;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if !self.refused && self.drain.log().check_process().is_ok() {
            self.drain.close_start(self.start, Some(self.end));
        }
    }
}

/// A start that is recorded and whose caller has no [`crate::Call`] yet. Dropped before it is
/// [`Opening::done`], its end has no place without room any more; the start is in the table all the
/// same, so that its end is found by its call id, or it is written off.
#[derive(Debug)]
pub(crate) struct Opening {
    drain: Arc<Drain>,
    ticket: u64,
    /// Until it is in the table.
    start: Option<OpenStart>,
    waits: bool,
}

impl Opening {
    /// A start that was just recorded. Its time is asked of a clock, which may be a caller's code and
    /// panic, so it is nobody's loss from here on.
    pub(crate) fn of(drain: &Arc<Drain>, ticket: u64, start: OpenStart) -> Opening {
        Opening { drain: drain.clone(), ticket, start: Some(start), waits: true }
    }

    /// Puts it into the table, as begun at this time.
    pub(crate) fn enter(&mut self, started: MonoTime) {
        if let Some(start) = self.start.take() {
            self.drain.opened(self.ticket, OpenStart { started, ..start });
        }
    }

    /// Somebody has the call: its end, or its drop, sees to the rest. If he had to wait for it: since
    /// when he has it, and where it stands.
    pub(crate) fn done(mut self, begun: Option<(MonoTime, Option<Lsn>)>) {
        self.waits = false;
        if let Some((started, lsn)) = begun {
            self.drain.lock().open.begun(self.ticket, started, lsn);
        }
    }

    /// The start was refused, or nobody knows: it is not waited for.
    pub(crate) fn refused(mut self) {
        self.waits = false;
        self.drain.close_start(self.ticket, None);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.waits && self.drain.log().check_process().is_ok() {
            let mut state = self.drain.lock();
            if state.is_lost(self.ticket) {
                state.forget_start(self.ticket); // it is not in the log, so nothing is open
                return;
            }
            if let Some(start) = self.start.take() {
                state.open.insert(self.ticket, start);
            }
            state.open.release(self.ticket);
        }
    }
}
