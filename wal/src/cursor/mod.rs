//! A position in the log that moves forward, record by record, across segments.
//!
//! Never here: the question how far it may go ([`crate::view`] answers it), writes. Invariants: only
//! whole batches; LSNs come without a step, but where an index says that nothing wanted stands between
//! ([`place`]); what is damaged is read again before it is called so ([`meet`]). Next rooms:
//! [`crate::seek`], [`crate::scan`], [`crate::records`].

mod meet;
mod place;

use std::collections::VecDeque;
use std::io;

use self::place::Place;
use crate::commit::SegmentBound;
use crate::error::{Error, ErrorKind, Result};
use crate::filter::Filter;
use crate::format::{self, FrameHeader, KIND_SEAL};
use crate::ids::{Lsn, Sequence};
use crate::mutant;
use crate::record::StoredRecord;
use crate::records::RecordRef;
use crate::recover::facts::reading;
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

    #[inline(always)]
    fn advance(&mut self, bound: SegmentBound, proven_end: u64) -> Result<Advance> {
        let walked = self.walk(bound);
        self.settle(walked, bound, proven_end)
    }

    /// A step of the walk; `None` where there is none to take here: a jump is due.
    #[inline(always)]
    fn walk(&mut self, bound: SegmentBound) -> Option<io::Result<Walked>> {
        let place = self.at.as_mut().filter(|place| place.walker.offset() < place.jump_at)?;
        place.set_limit(bound);
        Some(place.walker.walk(wanted(self.filter, self.next_lsn, &self.view)))
    }

    /// What a step comes to.
    #[inline(always)]
    fn settle(
        &mut self,
        walked: Option<io::Result<Walked>>,
        bound: SegmentBound,
        proven_end: u64,
    ) -> Result<Advance> {
        match walked {
            None => Ok(self.jump()),
            // Sound, and not what has to come next: whoever asks again comes to it anew.
            Some(Ok(Walked::Sound)) => self.take().inspect_err(|_| self.rewind()),
            Some(Ok(Walked::Other)) => self.turn_aside(None, bound, proven_end),
            Some(Err(error)) => self.turn_aside(Some(error), bound, proven_end),
        }
    }

    /// Whether the walker's current frame is what most are: the next record, wanted, and promised.
    #[inline(always)]
    fn is_due(&self) -> bool {
        let is_next = |header: &FrameHeader| {
            !header.is_own() && header.lsn == self.next_lsn && self.filter.wants_header(header)
        };
        let header = self.at.as_ref().map(|place| &place.walker.current().header);
        header.is_some_and(is_next) && !self.view.unproven()
    }

    #[inline(always)]
    fn deliver(&mut self) {
        self.go_past();
        self.delivered = self.next_lsn;
    }

    /// Takes the walker's current frame.
    #[inline(always)]
    fn take(&mut self) -> Result<Advance> {
        let Some(place) = &self.at else { return Ok(Advance::AtBound) };
        let header = &place.walker.current().header;
        if header.is_own() {
            let sealed = header.kind == KIND_SEAL;
            return Ok(if sealed { Advance::NextSegment } else { Advance::Went });
        }
        if header.lsn < self.next_lsn {
            return Ok(Advance::Went);
        }
        if header.lsn > self.next_lsn {
            return Err(self.missing(place));
        }
        let wanted = self.filter.wants_header(header);
        if self.view.unproven() {
            return self.take_unproven(wanted);
        }
        if wanted {
            self.deliver();
            return Ok(Advance::Deliver);
        }
        self.go_past();
        Ok(Advance::Went)
    }

    /// Above the bound a batch may have no end, and then none of it was ever promised.
    fn take_unproven(&mut self, wanted: bool) -> Result<Advance> {
        let Some(place) = &mut self.at else { return Ok(Advance::AtBound) };
        let goes_on = place.walker.current().header.goes_on();
        if wanted {
            let (header, payload) = place
                .walker
                .current_with_payload()
                .map_err(|error| failed(&self.view, place.sequence, error))?;
            let record = RecordRef::of(header, payload);
            self.open_batch.extend(record.map(|record| record.to_stored()));
        }
        self.open_from.get_or_insert(self.next_lsn);
        self.go_past();
        if !goes_on {
            self.open_from = None;
            self.ready.extend(self.open_batch.drain(..));
        }
        Ok(Advance::Went)
    }

    #[inline(always)]
    fn go_past(&mut self) {
        self.at_the_last = self.next_lsn == u64::MAX;
        self.next_lsn = self.next_lsn.saturating_add(1);
    }
}

#[cold]
fn failed(view: &View, sequence: Sequence, error: io::Error) -> Error {
    reading(&**view.dir(), &format::segment_name(sequence), error)
}

/// Above the bound a payload that is not whole ends the walk, wanted or not.
#[inline]
fn wanted(filter: Filter, next: u64, view: &View) -> impl Fn(&FrameHeader) -> bool + use<> {
    let every = view.unproven();
    move |header| {
        let skipped = header.lsn < next || mutant::is("checksum:of-what-is-delivered");
        every || (!skipped && filter.wants_header(header))
    }
}

/// What an outdated snapshot can make of a sound log.
fn is_stale(error: &Error) -> bool {
    let missing = error.kind() == ErrorKind::Corrupt
        && error.location().is_some_and(|l| l.offset == Some(format::FRAMES_START));
    error.kind() == ErrorKind::Trimmed || missing
}
