//! One entry on its way from a handle into the queue or the log, at its level, sync or async.
//!
//! Never here: what the entry says. Invariant: at [`Level::Batched`] and in futures nothing here
//! does I/O on the caller's thread. Next rooms: [`crate::drain`], [`crate::worker`].

use std::future::poll_fn;
use std::sync::Arc;

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
use crate::queue::{Admission, Place};

/// An entry that has its ticket.
#[derive(Debug)]
pub(crate) enum Recorded {
    Submitted(Submitted),
    Queued(u64),
    Dropped(u64),
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
            Admission::NoRoom(_) => Recorded::Queued(0), // enqueue waits instead
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

    /// Records an entry through the queue, whatever its level. A durable one is durable when the
    /// future is ready.
    pub(crate) async fn record_async(
        self: &Arc<Drain>,
        entry: EncodedEntry,
        level: Level,
        place: Place,
    ) -> Result<Receipt> {
        let (ticket, dropped) = self.offer_async(entry, level, place).await?;
        self.receipt_async(ticket, dropped, level).await
    }

    /// Waits for room and takes a ticket: its sequence, and whether it was dropped. To be followed
    /// in the same poll by [`Drain::receipt_async`], which takes what stands ready for the ticket.
    pub(crate) async fn offer_async(
        self: &Arc<Drain>,
        entry: EncodedEntry,
        level: Level,
        place: Place,
    ) -> Result<(u64, bool)> {
        let durable = level == Level::Durable;
        // A durable entry is not dropped: whoever asks for it is told if it cannot be.
        let place = match place {
            Place::Any if durable => Place::Kept,
            place => place,
        };
        let mut entry = Some(entry);
        let offered =
            poll_fn(|context| self.poll_enqueue(&mut entry, place, durable, context)).await?;
        Ok(match offered {
            Admission::Queued(ticket) => (ticket, false),
            Admission::Dropped(ticket) => (ticket, true),
            Admission::NoRoom(_) => (0, true), // poll_enqueue waits instead
        })
    }

    /// Waits as long as the level asks for an entry that [`Drain::offer_async`] has queued.
    pub(crate) async fn receipt_async(
        self: &Arc<Drain>,
        ticket: u64,
        dropped: bool,
        level: Level,
    ) -> Result<Receipt> {
        let lsn = match level == Level::Durable && !dropped {
            true => Settled::of(self.clone(), ticket).await?,
            false => None,
        };
        Ok(Receipt { ticket: self.ticket(ticket), lsn, dropped })
    }

    pub(crate) fn ticket(&self, sequence: u64) -> Ticket {
        Ticket { instance: self.instance(), sequence }
    }

    /// A start has its ticket: its end has a place, and starts that are overdue are written off.
    pub(crate) fn opened(self: &Arc<Drain>, ticket: u64, start: OpenStart) -> Result<()> {
        let now = start.started;
        let limits = &self.options.delivery;
        let mut overdue = Vec::new();
        {
            let mut state = self.lock();
            state.open.insert(ticket, start);
            let (count, age) = (limits.open_starts_max, limits.open_start_age_max);
            while let Some(old) = state.open.take_overdue(now, count, age) {
                overdue.push(old);
            }
        }
        for (ticket, start, reason) in overdue {
            self.write_off(ticket, &start, reason)?;
        }
        Ok(())
    }

    /// Says in the log that a start will not be waited for. It needs no room: it takes the place of
    /// the end, or stands for a start that the log took without one.
    fn write_off(self: &Arc<Drain>, ticket: u64, start: &OpenStart, reason: &str) -> Result<()> {
        let mut entry = abandoned(&start.end, reason, Some(ticket), start.lsn.map(|lsn| lsn.get()));
        let encoded = self.prepare(&mut entry)?;
        let place = if start.reserved { Place::Reserved } else { Place::Forced };
        self.record(encoded, Level::Batched, place)?;
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

    /// Takes an open start out of the table and says which place its end has: the one that was
    /// reserved, else this one.
    pub(crate) fn end_place(&self, start_ticket: u64, otherwise: Place) -> Place {
        let start = self.lock().open.remove(start_ticket);
        match start {
            Some(start) if start.reserved => Place::Reserved,
            _ => otherwise,
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
    /// The end of this start is recorded.
    pub(crate) fn close_start(&self, ticket: u64) {
        let mut state = self.lock();
        if state.open.remove(ticket).is_some_and(|start| start.reserved) {
            state.reserved = state.reserved.saturating_sub(1);
            drop(state);
            self.room.notify_all();
        }
    }

    /// Nobody holds this start any more; it stays open.
    pub(crate) fn release_start(&self, ticket: u64) {
        let mut state = self.lock();
        if state.open.release(ticket) {
            state.reserved = state.reserved.saturating_sub(1);
            drop(state);
            self.room.notify_all();
        }
    }
}

/// A start that is in the table and whose caller has no [`crate::Call`] yet. Dropped before it is
/// [`Opening::done`], it gives back the place of the end and leaves the start in the table.
#[derive(Debug)]
pub(crate) struct Opening {
    drain: Arc<Drain>,
    ticket: u64,
    waits: bool,
}

impl Opening {
    /// # Errors
    /// That of writing off what is overdue; the start is in the table and has no place then.
    pub(crate) fn of(drain: &Arc<Drain>, ticket: u64, start: OpenStart) -> Result<Opening> {
        let opening = Opening { drain: drain.clone(), ticket, waits: true };
        drain.opened(ticket, start)?;
        Ok(opening)
    }

    /// Somebody has the call: its end, or its drop, sees to the place.
    pub(crate) fn done(mut self, lsn: Option<annals_wal::Lsn>) {
        self.waits = false;
        if lsn.is_some() {
            self.drain.lock().open.set_lsn(self.ticket, lsn);
        }
    }

    /// The start was refused, or nobody knows: it is not waited for.
    pub(crate) fn refused(mut self) {
        self.waits = false;
        self.drain.close_start(self.ticket);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.waits && self.drain.log().check_process().is_ok() {
            self.drain.release_start(self.ticket);
        }
    }
}
