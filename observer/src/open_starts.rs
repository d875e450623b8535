//! The starts of a living process that have no end yet: a table bounded by number and by age.
//!
//! Never here: pairing by order or name. The end handle carries its own start, so an end needs this
//! table only to be queued without asking for room and, where the handle is lost, for its duration.
//! Invariant: what leaves the table without an end leaves it as a write-off, and the log keeps a start
//! until what ends it, or writes it off, is durable. Next room: [`crate::retention`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_wal::Lsn;

use crate::clock::MonoTime;
use crate::entry::Entry;
use crate::ids::{CallId, RunId, SessionId};
use crate::kind::EntryKind;

/// A start without an end.
#[derive(Clone, Debug)]
pub(crate) struct OpenStart {
    /// The end entry as far as it is known.
    pub(crate) end: Arc<Entry>,
    pub(crate) started: MonoTime,
    pub(crate) lsn: Option<Lsn>,
    /// No later than its LSN, which a batched start learns late: what was durable before it came.
    pub(crate) floor: Lsn,
    /// Whether its end is queued without asking for room.
    pub(crate) reserved: bool,
    /// Somebody is recording its end by its call id.
    pub(crate) ending: bool,
}

/// By ticket of the start, so the oldest comes first.
#[derive(Debug, Default)]
pub(crate) struct OpenStarts {
    table: BTreeMap<u64, OpenStart>,
    /// Starts that left the table: by the ticket of what took them out, until that is durable.
    leaving: BTreeMap<u64, Lsn>,
    /// Floors of what has no ticket yet, and how many have the same.
    coming: BTreeMap<Lsn, usize>,
    /// Tickets of starts that are out of the table while somebody writes them off.
    overdue: BTreeSet<u64>,
    pub(crate) written_off: u64,
}

impl OpenStarts {
    pub(crate) fn insert(&mut self, ticket: u64, start: OpenStart) {
        self.table.insert(ticket, start);
    }

    pub(crate) fn remove(&mut self, ticket: u64) -> Option<OpenStart> {
        self.overdue.remove(&ticket);
        self.table.remove(&ticket)
    }

    /// When its caller could go on and where it stands, learnt later than that it was open.
    pub(crate) fn begun(&mut self, ticket: u64, started: MonoTime, lsn: Option<Lsn>) {
        if let Some(start) = self.table.get_mut(&ticket) {
            start.started = started;
            start.lsn = lsn.or(start.lsn);
        }
    }

    /// The oldest of which nobody is recording the end.
    fn oldest(&self) -> Option<(u64, &OpenStart)> {
        let mut starts = self.table.iter().filter(|(_, start)| !start.ending);
        starts.next().map(|(ticket, start)| (*ticket, start))
    }

    /// How long it takes until the oldest is too old; `None` if there is none.
    pub(crate) fn due_after(&self, now: MonoTime, age_max: Duration) -> Option<Duration> {
        let (_, oldest) = self.oldest()?;
        Some(age_max.saturating_sub(now.since(oldest.started)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Nobody holds the start any more; its end may still come by its call id.
    pub(crate) fn release(&mut self, ticket: u64) {
        if let Some(start) = self.table.get_mut(&ticket) {
            start.reserved = false;
        }
    }

    /// Whether the end of this start is queued without asking for room.
    pub(crate) fn has_place(&self, ticket: u64) -> bool {
        self.table.get(&ticket).is_some_and(|start| start.reserved)
    }

    /// The newest open call of this id, for whoever records its end now; nobody else finds it then.
    /// Of this run, if both name one: another run's call of the same id is another call.
    pub(crate) fn ending_by_call_id(
        &mut self,
        session: &SessionId,
        run: Option<&RunId>,
        end: EntryKind,
        call_id: &CallId,
    ) -> Option<(u64, OpenStart)> {
        let (ticket, start) = self.table.iter_mut().rev().find(|(_, start)| {
            let entry = &start.end;
            !start.ending
                && entry.kind == end
                && entry.call_id.as_ref() == Some(call_id)
                && entry.session.as_ref() == Some(session)
                && (run.is_none() || entry.run.is_none() || entry.run.as_ref() == run)
        })?;
        start.ending = true;
        Some((*ticket, start.clone()))
    }

    /// Its end was refused: it can be found again.
    pub(crate) fn not_ending(&mut self, ticket: u64) {
        if let Some(start) = self.table.get_mut(&ticket) {
            start.ending = false;
        }
    }

    /// What has this ticket ends the start. The log keeps the start until that is durable.
    pub(crate) fn end(&mut self, start: u64, ticket: u64) -> Option<OpenStart> {
        let start = self.remove(start)?;
        self.leaving.insert(ticket, start.floor);
        Some(start)
    }

    /// The log keeps what begins here until what has this ticket is durable.
    pub(crate) fn leave(&mut self, floor: Lsn, ticket: u64) {
        self.leaving.insert(ticket, floor);
    }

    /// Everything up to this ticket is durable.
    pub(crate) fn settle(&mut self, durable: u64) {
        while self.leaving.first_key_value().is_some_and(|(ticket, _)| *ticket <= durable) {
            self.leaving.pop_first();
        }
    }

    /// What comes next has this LSN or a later one.
    pub(crate) fn come(&mut self, floor: Lsn) {
        *self.coming.entry(floor).or_default() += 1;
    }

    /// It came.
    pub(crate) fn came(&mut self, floor: Lsn) {
        if let Some(count) = self.coming.get_mut(&floor) {
            *count -= 1;
            if *count == 0 {
                self.coming.remove(&floor);
            }
        }
    }

    /// Takes out the oldest start if the table holds too many or it is too old, and says which. Not
    /// one whose end is on its way, which would have two; if that is refused, the next look finds it.
    pub(crate) fn take_overdue(
        &mut self,
        now: MonoTime,
        count_max: usize,
        age_max: Duration,
    ) -> Option<(u64, OpenStart, &'static str)> {
        let (ticket, start) = self.oldest()?;
        let reason = if self.table.len() > count_max {
            "too many calls are open"
        } else if now.since(start.started) > age_max {
            "open for too long"
        } else {
            return None;
        };
        self.written_off += 1;
        let start = self.table.remove(&ticket)?;
        self.overdue.insert(ticket);
        Some((ticket, start, reason))
    }

    /// It is written off: the log has that, or will.
    pub(crate) fn left(&mut self, ticket: u64) {
        self.overdue.remove(&ticket);
    }

    /// It could not be written off: it is open as before, unless it ended meanwhile.
    pub(crate) fn put_back(&mut self, ticket: u64, start: OpenStart) {
        self.written_off = self.written_off.saturating_sub(1);
        if self.overdue.remove(&ticket) {
            self.table.insert(ticket, start);
        }
    }

    /// No later than the LSN of the oldest start that is open or whose end is not durable.
    pub(crate) fn floor(&self) -> Option<Lsn> {
        let open = self.table.values().map(|start| start.floor);
        open.chain(self.leaving.values().copied()).chain(self.coming.keys().copied()).min()
    }
}
