//! A position in the log that moves forward, record by record, across segments.
//!
//! Never here: the question how far it may go ([`crate::view`] answers it), writes. Invariants: only
//! whole batches; LSNs come without a step, but where an index says that nothing wanted stands between
//! ([`place`]); what is damaged is read again before it is called so ([`meet`]). Next rooms:
//! [`crate::seek`], [`crate::scan`], [`crate::records`].

mod meet;
mod place;
mod step;

use std::collections::VecDeque;
use std::io;

use self::place::Place;
use self::step::failed;
use crate::error::{Error, ErrorKind, Result};
use crate::filter::Filter;
use crate::format;
use crate::ids::{Lsn, Sequence};
use crate::record::StoredRecord;
use crate::records::RecordRef;
use crate::scan::Walked;
use crate::seek::Scratch;
use crate::view::{Snapshot, View};

/// A position and what is needed to go on from it.
#[derive(Debug)]
pub(crate) struct Cursor {
    view: View,
    /// The next record to deliver.
    next_lsn: u64,
    /// The record with the highest number there is was read: no other can follow.
    at_the_last: bool,
    at: Option<Place>,
    /// Segments below this were read to their seal.
    sequence_min: u64,
    filter: Filter,
    /// Sealed segments are mapped and not read.
    mapped: bool,
    /// A segment whose index led astray.
    distrusted: Option<Sequence>,
    /// For the seals that are looked at.
    scratch: Scratch,
    /// LSN of the record after the last one that was wanted and found.
    delivered: u64,
    /// Bytes read of files that were left.
    bytes_read: u64,
    /// The first record of a batch whose end was not seen yet; for unproven readers only.
    open_from: Option<u64>,
    /// Its wanted records so far.
    open_batch: Vec<StoredRecord>,
    ready: VecDeque<StoredRecord>,
    /// What is lent next.
    found: Found,
    /// The record, if it does not lie in a window.
    ready_found: Option<StoredRecord>,
}

/// Where the record is that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    /// The walker's current frame.
    InWindow,
    /// [`Cursor::ready_found`].
    Ready,
}

enum Advance {
    Went,
    Deliver,
    NextSegment,
    AtBound,
}

impl Cursor {
    pub(crate) fn new(view: View, from: Lsn) -> Cursor {
        Cursor {
            view,
            next_lsn: from.get(),
            at_the_last: false,
            at: None,
            sequence_min: 0,
            filter: Filter::new(),
            mapped: false,
            distrusted: None,
            scratch: Scratch::default(),
            delivered: 0,
            bytes_read: 0,
            open_from: None,
            open_batch: Vec::new(),
            ready: VecDeque::new(),
            found: Found::Nothing,
            ready_found: None,
        }
    }

    /// Records that this does not want are passed over from here on, besides those before.
    pub(crate) fn narrow(&mut self, filter: Filter) {
        self.filter = self.filter.and(filter);
        let wanted = |record: &StoredRecord| filter.wants(record.stream, record.kind);
        self.open_batch.retain(wanted);
        self.ready.retain(wanted);
    }

    /// Sealed segments are mapped from the next one on, where that is possible. Only for the owner.
    pub(crate) fn map(&mut self) {
        self.mapped = self.view.is_own();
    }

    /// Bytes read of segments and their indexes so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read + self.at.as_ref().map_or(0, |at| at.walker.source().bytes_read())
    }

    /// Leaves the segment that is open.
    fn leave(&mut self) -> Option<Place> {
        self.bytes_read = self.bytes_read();
        self.at.take()
    }

    pub(crate) fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// The next record, or `None` at the snapshot's bound and past `last`. What fails by a snapshot
    /// that time has passed by (a trim took a segment) is tried once more by a fresh one.
    ///
    /// `follow`: the fresh one's bound counts too; otherwise the old bound stays.
    #[inline]
    pub(crate) fn next(
        &mut self,
        snapshot: &mut Snapshot,
        last: u64,
        follow: bool,
    ) -> Result<Option<RecordRef<'_>>> {
        self.find(snapshot, last, follow)?;
        self.found()
    }

    /// [`Cursor::next`] without the record, which [`Cursor::found`] then lends.
    #[inline]
    pub(crate) fn find(&mut self, snapshot: &mut Snapshot, last: u64, follow: bool) -> Result<()> {
        match self.find_by(snapshot, last) {
            Err(error) if is_stale(&error) => self.find_afresh(snapshot, last, follow),
            other => other,
        }
    }

    #[cold]
    fn find_afresh(&mut self, snapshot: &mut Snapshot, last: u64, follow: bool) -> Result<()> {
        let (old, proven_end) = (snapshot.bound, snapshot.proven_end);
        *snapshot = self.view.snapshot()?;
        if !follow {
            if old.sequence < snapshot.bound.sequence {
                snapshot.proven_end = proven_end;
            }
            snapshot.bound = snapshot.bound.min(old);
        }
        self.rewind();
        self.find_by(snapshot, last)
    }

    /// Mostly the next frame is the record that is looked for. What is set up for a loop costs more
    /// than the step does, so the loop is for the rest.
    #[inline]
    fn find_by(&mut self, snapshot: &Snapshot, last: u64) -> Result<()> {
        self.found = Found::Nothing;
        if self.at.is_none() || !self.ready.is_empty() || self.is_past(last) {
            return self.find_on(snapshot, last);
        }
        match self.walk(snapshot.bound) {
            Some(Ok(Walked::Sound)) if self.is_due() => {
                self.deliver();
                self.found = Found::InWindow;
                Ok(())
            }
            walked => self.find_after(walked, snapshot, last),
        }
    }

    /// Another step than most.
    #[inline(never)]
    fn find_after(
        &mut self,
        walked: Option<io::Result<Walked>>,
        snapshot: &Snapshot,
        last: u64,
    ) -> Result<()> {
        self.ready_found = None;
        match self.settle(walked, snapshot.bound, snapshot.proven_end)? {
            Advance::Deliver => {
                self.found = Found::InWindow;
                return Ok(());
            }
            Advance::AtBound => return Ok(()),
            Advance::Went => {}
            Advance::NextSegment => self.leave_behind(),
        }
        self.find_on(snapshot, last)
    }

    fn is_past(&self, last: u64) -> bool {
        self.at_the_last || (self.next_lsn > last && self.open_from.is_none())
    }

    #[inline(never)]
    fn find_on(&mut self, snapshot: &Snapshot, last: u64) -> Result<()> {
        self.ready_found = None;
        loop {
            if let Some(record) = self.ready.pop_front() {
                (self.found, self.ready_found) = (Found::Ready, Some(record));
                return Ok(());
            }
            if self.is_past(last) {
                return Ok(());
            }
            if self.at.is_none() && !self.seek(snapshot, last)? {
                return Ok(());
            }
            match self.advance(snapshot.bound, snapshot.proven_end)? {
                Advance::Went => {}
                Advance::Deliver => {
                    self.found = Found::InWindow;
                    return Ok(());
                }
                Advance::AtBound => return Ok(()),
                Advance::NextSegment => self.leave_behind(),
            }
        }
    }

    #[cold]
    fn leave_behind(&mut self) {
        if let Some(place) = self.leave() {
            self.sequence_min = place.sequence.get().saturating_add(1);
        }
    }

    /// Whether there is something to lend.
    pub(crate) fn has_found(&self) -> bool {
        self.found != Found::Nothing
    }

    /// Lends what was found. The walk has just verified it, so it is still in the window.
    #[inline]
    pub(crate) fn found(&mut self) -> Result<Option<RecordRef<'_>>> {
        match (self.found, &mut self.at) {
            (Found::InWindow, Some(place)) => {
                let (view, sequence) = (&self.view, place.sequence);
                let failed = |error| failed(view, sequence, error);
                let (header, payload) = place.walker.current_with_payload().map_err(failed)?;
                Ok(RecordRef::of(header, payload))
            }
            (Found::Ready, _) => Ok(self.ready_found.as_ref().map(RecordRef::from)),
            _ => Ok(None),
        }
    }

    /// Forgets the open file if another one stands behind its name now.
    pub(crate) fn check_identity(&mut self) {
        let Some(place) = &self.at else { return };
        let name = format::segment_name(place.sequence);
        let now = self.view.dir().identity(&name);
        if now.is_ok_and(|now| now != place.identity) {
            self.rewind();
        }
    }

    /// Goes back to the record after the last one delivered and looks for it anew. Records of a
    /// batch whose end was not seen are read again: after a recovery they may be gone.
    #[cold]
    pub(crate) fn rewind(&mut self) {
        if let Some(first) = self.open_from.take() {
            self.next_lsn = first;
            self.at_the_last = false;
        }
        self.open_batch.clear();
        (self.found, self.ready_found) = (Found::Nothing, None);
        self.leave();
        self.sequence_min = 0;
    }
}

/// What an outdated snapshot can make of a sound log.
fn is_stale(error: &Error) -> bool {
    let missing = error.kind() == ErrorKind::Corrupt
        && error.location().is_some_and(|l| l.offset == Some(format::FRAMES_START));
    error.kind() == ErrorKind::Trimmed || missing
}
