//! The starts of a living process that have no end yet: a table bounded by number and by age.
//!
//! Never here: pairing by order or name. The end handle carries its own start, so an end needs this
//! table only for its reserved place and, where the handle is lost, for its duration. Invariant:
//! what leaves the table without an end leaves it as a write-off. Next room: [`crate::write_off`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_wal::Lsn;

use crate::clock::MonoTime;
use crate::entry::Entry;
use crate::ids::{CallId, SessionId};
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
    /// Whether a place in the queue is kept for its end.
    pub(crate) reserved: bool,
}

/// By ticket of the start, so the oldest comes first.
#[derive(Debug, Default)]
pub(crate) struct OpenStarts {
    table: BTreeMap<u64, OpenStart>,
    pub(crate) written_off: u64,
}

impl OpenStarts {
    pub(crate) fn insert(&mut self, ticket: u64, start: OpenStart) {
        self.table.insert(ticket, start);
    }

    pub(crate) fn remove(&mut self, ticket: u64) -> Option<OpenStart> {
        self.table.remove(&ticket)
    }

    /// Where it stands, learnt later than that it was open.
    pub(crate) fn set_lsn(&mut self, ticket: u64, lsn: Option<Lsn>) {
        if let Some(start) = self.table.get_mut(&ticket) {
            start.lsn = lsn;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Nobody holds the start any more; its end may still come by its call id.
    pub(crate) fn release(&mut self, ticket: u64) -> bool {
        let start = self.table.get_mut(&ticket);
        start.is_some_and(|start| std::mem::take(&mut start.reserved))
    }

    /// Takes out the newest open call of this id.
    pub(crate) fn take_by_call_id(
        &mut self,
        session: &SessionId,
        end: EntryKind,
        call_id: &CallId,
    ) -> Option<(u64, OpenStart)> {
        let found = self.table.iter().rev().find(|(_, start)| {
            let entry = &start.end;
            entry.kind == end
                && entry.call_id.as_ref() == Some(call_id)
                && entry.session.as_ref() == Some(session)
        });
        let ticket = *found?.0;
        Some((ticket, self.table.remove(&ticket)?))
    }

    /// Takes out the oldest start if the table holds too many or it is too old, and says which.
    pub(crate) fn take_overdue(
        &mut self,
        now: MonoTime,
        count_max: usize,
        age_max: Duration,
    ) -> Option<(u64, OpenStart, &'static str)> {
        let (ticket, start) = self.table.first_key_value()?;
        let reason = if self.table.len() > count_max {
            "too many calls are open"
        } else if now.since(start.started) > age_max {
            "open for too long"
        } else {
            return None;
        };
        let ticket = *ticket;
        self.written_off += 1;
        Some((ticket, self.table.remove(&ticket)?, reason))
    }

    /// No later than the LSN of the oldest open start.
    pub(crate) fn floor(&self) -> Option<Lsn> {
        self.table.values().map(|start| start.floor).min()
    }
}
