//! The queue of an observer as plain data: tickets, places, and what was dropped.
//!
//! Never here: I/O, waiting, a clock read. Whoever calls holds the lock of [`crate::drain`].
//! Invariants: tickets are taken in the order in which entries stand here; only what stands here, or
//! was taken out and has not reached the log, takes room from others; the end of a start that was
//! admitted here needs none, as long as somebody holds its call, so at most as many entries as there
//! may be open calls stand here beyond the cap; a ticket that never becomes an entry is in the account of
//! the dropped until that account is an entry itself. (Places kept for ends once took room from starts:
//! open calls filled an empty queue, and a start then waited for an end that nobody could reach;
//! `docs/adr/0024`.) Next room: [`crate::drain`].

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::thread::ThreadId;

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
    /// What an account's entry says, so that it is not lost with an entry that no segment takes.
    pub(crate) account: Option<Box<Account>>,
}

/// What an entry needs of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A place; its end needs none then.
    Start,
    /// The end of the call that began with this ticket: no place if its start was admitted to the
    /// queue and somebody holds the call, else as [`Place::Kept`]. Once it is queued the start is
    /// open no more, unless somebody waits for it: then it is when that is over.
    End(u64),
    /// The same, else as [`Place::Forced`].
    EndForced(u64),
    /// A place, and it must not be dropped: an end whose start has none for it, an error.
    Kept,
    /// No place: room or not. For what comes from a drop, where nobody may wait, and for what stands
    /// for an end; at most one for each call.
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
    /// An account goes before it, and nobody has said what time it is: ask the clock without the
    /// lock and offer it again.
    NoTime(EncodedEntry),
}

/// Somebody who waits until one entry is durable, or has its place in the log.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// Its place is enough.
    pub(crate) ordered: bool,
    pub(crate) lsn: Option<Lsn>,
    pub(crate) lost: Option<Error>,
    pub(crate) waker: Option<Waker>,
}

impl Waiter {
    /// Whether it has what was asked, before any sync.
    pub(crate) fn placed(&self) -> bool {
        self.ordered && self.lsn.is_some()
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
    /// What every later entry is told then: it is certainly not in the log.
    pub(crate) refusal: Option<Error>,
    /// The last try failed and left the log whole: a full disk, a passing error. It is tried again.
    pub(crate) stuck: Option<Error>,
    /// How often what is queued was tried to be written.
    pub(crate) tries: u64,
    /// Up to this ticket somebody waits for durability.
    pub(crate) wanted: u64,
    /// Up to this ticket somebody waits for a place in the log.
    pub(crate) ordered: u64,
    /// The thread that writes.
    pub(crate) worker: Option<ThreadId>,
    /// It will look for starts that are too old without being told.
    pub(crate) looks: bool,
    pub(crate) closed: bool,
    pub(crate) handles_gone: bool,
    pub(crate) working: bool,
    pub(crate) open: OpenStarts,
    pub(crate) waiters: BTreeMap<u64, Waiter>,
    /// Futures that wait for room, each with a key of its own.
    pub(crate) room_waits: BTreeMap<u64, Waker>,
    pub(crate) room_keys: u64,
    /// Futures that flush, each with a key of its own and the ticket up to which it waits.
    pub(crate) flush_waits: BTreeMap<u64, (u64, Waker)>,
    pub(crate) flush_keys: u64,
    /// Woken when the lock is given back ([`crate::locked`]).
    pub(crate) to_wake: Vec<Waker>,
    /// Dropped when the lock is given back.
    pub(crate) stale: Vec<Waker>,
    /// The oldest start of an earlier opening that is neither ended nor written off, once known.
    pub(crate) old_floor: Option<Option<Lsn>>,
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
        account: Option<impl FnOnce(&Account) -> Result<EncodedEntry>>,
    ) -> Result<Admission> {
        let (place, start) = self.place_of(place);
        if !self.has_room(&entry, place, limits) {
            if place != Place::Any && place != Place::Start || limits.overflow == Overflow::Wait {
                return Ok(Admission::NoRoom(entry));
            }
            let ticket = self.take_ticket();
            self.note_dropped(ticket, entry.kind());
            return Ok(Admission::Dropped(ticket));
        }
        match account {
            Some(account) => self.settle_account(true, account)?,
            None if self.account.is_empty() => {}
            None => return Ok(Admission::NoTime(entry)),
        }
        if let Some(start) = start {
            self.open.release(start);
        }
        let ticket = self.take_ticket();
        entry.stamp(ticket);
        self.queue_bytes += entry.weight();
        self.queue.push_back(Queued { ticket, entry, with_next: false, account: None });
        Ok(Admission::Queued(ticket))
    }

    /// The place that an entry really has, and the start that it ends.
    fn place_of(&self, place: Place) -> (Place, Option<u64>) {
        match place {
            Place::End(start) | Place::EndForced(start) if self.open.has_place(start) => {
                (Place::Forced, Some(start))
            }
            Place::End(start) => (Place::Kept, Some(start)),
            Place::EndForced(start) => (Place::Forced, Some(start)),
            place => (place, None),
        }
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
        let account = Some(Box::new(std::mem::take(&mut self.account)));
        let ticket = self.take_ticket();
        entry.stamp(ticket);
        self.queue_bytes += entry.weight();
        self.queue.push_back(Queued { ticket, entry, with_next, account });
        Ok(())
    }

    pub(crate) fn note_dropped(&mut self, ticket: u64, kind: EntryKind) {
        self.account.note(ticket, kind);
        self.dropped += 1;
    }

    pub(crate) fn has_room(&self, entry: &EncodedEntry, place: Place, limits: &Delivery) -> bool {
        if matches!(place, Place::Forced | Place::EndForced(_)) {
            return true;
        }
        // Only what the worker, or whoever has the order, will take away: a wait for it ends.
        let used = self.queue.len() + self.taken;
        let bytes = self.queue_bytes.saturating_add(entry.weight());
        used == 0 || used < limits.queue_entries_max && bytes <= limits.queue_bytes_max
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
            if self.tell_lost(entry.ticket, error) {
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
        self.open.remove(ticket);
    }

    /// Tells whoever waits for this entry that it is not in the log; whether somebody does.
    pub(crate) fn tell_lost(&mut self, ticket: u64, error: &Error) -> bool {
        let Some(waiter) = self.waiters.get_mut(&ticket) else { return false };
        waiter.lost = Some(error.clone());
        self.to_wake.extend(waiter.waker.take());
        true
    }

    /// Whether somebody waits for this entry who is told that it is not in the log.
    pub(crate) fn is_lost(&self, ticket: u64) -> bool {
        self.waiters.get(&ticket).is_some_and(|waiter| waiter.lost.is_some())
    }

    /// Up to this ticket somebody waits for it to be written.
    pub(crate) fn asked(&self) -> u64 {
        self.wanted.max(self.ordered)
    }

    /// Everybody who waits for room looks again.
    pub(crate) fn wake_room(&mut self) {
        self.to_wake.extend(std::mem::take(&mut self.room_waits).into_values());
    }

    /// Those who flush up to this ticket, or to an earlier one, look again; all of them where what
    /// they wait for may never come.
    pub(crate) fn wake_flushes(&mut self, up_to: u64) {
        let reached = self.flush_waits.extract_if(.., |_, (target, _)| *target <= up_to);
        self.to_wake.extend(reached.map(|(_, (_, waker))| waker));
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
            self.open.settle(self.durable);
        }
    }

    /// Tickets that no sync has covered.
    pub(crate) fn pending(&self) -> u64 {
        self.last.saturating_sub(self.durable)
    }
}
