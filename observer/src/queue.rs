//! The queue of an observer as plain data: tickets, places, reservations, and what was dropped.
//!
//! Never here: I/O, waiting, a clock read. Whoever calls holds the lock of [`crate::drain`].
//! Invariants: tickets are taken in the order in which entries stand here; a start that was
//! admitted has reserved the place of its end; a ticket that never becomes an entry is in the
//! account of the dropped until that account is an entry itself. Next room: [`crate::drain`].

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use annals_wal::Lsn;

use crate::codec::EncodedEntry;
use crate::error::{Error, Result};
use crate::kind::EntryKind;
use crate::open_starts::OpenStarts;
use crate::options::{Delivery, Overflow};

/// An entry that has its ticket and not yet its place in the log.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) ticket: u64,
    pub(crate) entry: EncodedEntry,
    /// The next one goes into the same batch: this is the account of what was dropped before it.
    pub(crate) with_next: bool,
}

/// What an entry needs of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Its own place and one for its end.
    Start,
    /// The place that its start has reserved.
    Reserved,
    /// A place, and it must not be dropped: an end without a reservation, an error.
    Kept,
    /// No place: room or not. For what comes from a drop, where nobody may wait; at most one for
    /// each call.
    Forced,
    /// A place; it may be dropped.
    Any,
}

/// What became of an entry that was offered.
#[derive(Debug)]
pub(crate) enum Admission {
    Queued(u64),
    /// Its ticket is in the account of the dropped.
    Dropped(u64),
    /// There is no room; here it is again.
    NoRoom(EncodedEntry),
}

/// Somebody who waits until one entry is durable.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    pub(crate) lsn: Option<Lsn>,
    pub(crate) lost: Option<Error>,
    pub(crate) waker: Option<Waker>,
}

impl Waiter {
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Tickets that were taken and never became entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) ranges: Vec<(u64, u64)>,
    pub(crate) by_kind: BTreeMap<EntryKind, u64>,
}

impl Account {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn note(&mut self, ticket: u64, kind: EntryKind) {
        *self.by_kind.entry(kind).or_default() += 1;
        match self.ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(ticket) => *last = ticket,
            Some((first, _)) if ticket.checked_add(1) == Some(*first) => *first = ticket,
            _ => self.ranges.push((ticket, ticket)),
        }
    }

    /// What was noted earlier, put back before what was noted since.
    pub(crate) fn put_back(&mut self, earlier: Account) {
        let later = std::mem::replace(self, earlier);
        self.ranges.extend(later.ranges);
        for (kind, count) in later.by_kind {
            *self.by_kind.entry(kind).or_default() += count;
        }
    }
}

/// Everything behind the short lock of an observer.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Sequence of the last ticket, 0 before the first.
    pub(crate) last: u64,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_bytes: usize,
    /// Entries that were taken out of the queue and have not reached the log.
    pub(crate) taken: usize,
    /// Places kept for the ends of starts that were admitted here.
    pub(crate) reserved: usize,
    pub(crate) last_lsn: Option<Lsn>,
    /// Last ticket and last LSN of what the log has and no sync is known to have covered.
    pub(crate) flights: VecDeque<(u64, Lsn)>,
    /// Everything up to this ticket is durable or accounted for.
    pub(crate) durable: u64,
    pub(crate) durable_lsn: Option<Lsn>,
    pub(crate) account: Account,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
    pub(crate) last_error: Option<Error>,
    /// The log refuses everything from now on.
    pub(crate) failed: Option<Error>,
    /// The last try found the disk full.
    pub(crate) full: Option<Error>,
    /// How often what is queued was tried to be written.
    pub(crate) tries: u64,
    /// Up to this ticket somebody waits for durability.
    pub(crate) wanted: u64,
    pub(crate) closed: bool,
    pub(crate) handles_gone: bool,
    pub(crate) working: bool,
    pub(crate) open: OpenStarts,
    pub(crate) waiters: BTreeMap<u64, Waiter>,
    pub(crate) room_wakers: Vec<Waker>,
}

impl State {
    /// # Errors
    /// `Closed` after a shutdown.
    pub(crate) fn check(&self) -> Result<()> {
        if self.closed { Err(Error::closed()) } else { Ok(()) }
    }

    pub(crate) fn take_ticket(&mut self) -> u64 {
        self.last = self.last.saturating_add(1);
        self.last
    }

    /// Takes a ticket for the entry and a place, if there is one.
    pub(crate) fn admit(
        &mut self,
        mut entry: EncodedEntry,
        place: Place,
        limits: &Delivery,
        account: impl FnOnce(&Account) -> Result<EncodedEntry>,
    ) -> Result<Admission> {
        if !self.has_room(&entry, place, limits) {
            if place != Place::Any && place != Place::Start || limits.overflow == Overflow::Wait {
                return Ok(Admission::NoRoom(entry));
            }
            let ticket = self.take_ticket();
            self.note_dropped(ticket, entry.kind());
            return Ok(Admission::Dropped(ticket));
        }
        self.settle_account(true, account)?;
        if place == Place::Reserved {
            self.reserved = self.reserved.saturating_sub(1);
        } else if place == Place::Start {
            self.reserved += 1;
        }
        let ticket = self.take_ticket();
        entry.stamp(ticket);
        self.queue_bytes += entry.weight();
        self.queue.push_back(Queued { ticket, entry, with_next: false });
        Ok(Admission::Queued(ticket))
    }

    /// Makes an entry of the account and queues it, room or not: it stands for many.
    pub(crate) fn settle_account(
        &mut self,
        with_next: bool,
        account: impl FnOnce(&Account) -> Result<EncodedEntry>,
    ) -> Result<()> {
        if self.account.is_empty() {
            return Ok(());
        }
        let mut entry = account(&self.account)?;
        self.account = Account::default();
        let ticket = self.take_ticket();
        entry.stamp(ticket);
        self.queue_bytes += entry.weight();
        self.queue.push_back(Queued { ticket, entry, with_next });
        Ok(())
    }

    pub(crate) fn note_dropped(&mut self, ticket: u64, kind: EntryKind) {
        self.account.note(ticket, kind);
        self.dropped += 1;
    }

    pub(crate) fn has_room(&self, entry: &EncodedEntry, place: Place, limits: &Delivery) -> bool {
        let used = self.queue.len() + self.taken + self.reserved;
        let needed = match place {
            Place::Reserved | Place::Forced => return true,
            Place::Start => 2,
            Place::Kept | Place::Any => 1,
        };
        let empty = self.queue.is_empty() && self.taken == 0;
        let bytes = self.queue_bytes.saturating_add(entry.weight());
        used + needed <= limits.queue_entries_max && (empty || bytes <= limits.queue_bytes_max)
    }

    /// Takes out everything that is queued; it counts against the room until it is in the log.
    pub(crate) fn take(&mut self) -> VecDeque<Queued> {
        self.queue_bytes = 0;
        let taken = std::mem::take(&mut self.queue);
        self.taken += taken.len();
        taken
    }

    /// Puts back at the front what could not be written. What somebody waits for does not come
    /// back: he is told, and it is not written behind his back.
    pub(crate) fn put_back(&mut self, entries: VecDeque<Queued>, error: &Error) {
        self.taken = self.taken.saturating_sub(entries.len());
        for entry in entries.into_iter().rev() {
            if let Some(waiter) = self.waiters.get_mut(&entry.ticket) {
                waiter.lost = Some(error.clone());
                waiter.wake();
                self.forget_start(entry.ticket);
                self.account.note(entry.ticket, entry.entry.kind());
                self.refused += 1;
                continue;
            }
            self.queue_bytes += entry.entry.weight();
            self.queue.push_front(entry);
        }
    }

    /// A start that somebody waited for is not in the log and will not be: nothing is open. What
    /// is not in the table yet is taken back by whoever puts it there, in the same poll.
    pub(crate) fn forget_start(&mut self, ticket: u64) {
        if self.open.remove(ticket).is_some_and(|start| start.reserved) {
            self.reserved = self.reserved.saturating_sub(1);
        }
    }

    /// What a sync has covered by now.
    pub(crate) fn advance(&mut self, durable: Option<Lsn>) {
        while let Some((ticket, lsn)) = self.flights.front().copied() {
            if Some(lsn) > durable {
                return;
            }
            self.flights.pop_front();
            self.durable = self.durable.max(ticket);
            self.durable_lsn = Some(lsn);
        }
    }

    /// Tickets that no sync has covered.
    pub(crate) fn pending(&self) -> u64 {
        self.last.saturating_sub(self.durable)
    }
}
