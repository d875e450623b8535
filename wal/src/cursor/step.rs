//! One step of a cursor: over a frame, and what that frame is to who reads.
//!
//! Never here: ends and damage ([`crate::cursor::meet`]), another segment. Invariants: what is
//! delivered is the next record and was verified; above the bound a batch is handed on whole or not at
//! all. Next rooms: [`crate::scan`], [`crate::cursor`].

use std::io;

use super::{Advance, Cursor};
use crate::commit::SegmentBound;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::format::{self, FrameHeader, KIND_SEAL};
use crate::ids::Sequence;
use crate::mutant;
use crate::records::RecordRef;
use crate::recover::facts::reading;
use crate::scan::Walked;
use crate::view::View;

impl Cursor {
    #[inline(always)]
    pub(super) fn advance(&mut self, bound: SegmentBound, proven_end: u64) -> Result<Advance> {
        let walked = self.walk(bound);
        self.settle(walked, bound, proven_end)
    }

    /// A step of the walk; `None` where there is none to take here: a jump is due.
    #[inline(always)]
    pub(super) fn walk(&mut self, bound: SegmentBound) -> Option<io::Result<Walked>> {
        let place = self.at.as_mut().filter(|place| place.walker.offset() < place.jump_at)?;
        place.set_limit(bound);
        Some(place.walker.walk(wanted(self.filter, self.next_lsn, &self.view)))
    }

    /// What a step comes to.
    #[inline(always)]
    pub(super) fn settle(
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
    pub(super) fn is_due(&self) -> bool {
        let is_next = |header: &FrameHeader| {
            !header.is_own() && header.lsn == self.next_lsn && self.filter.wants_header(header)
        };
        let header = self.at.as_ref().map(|place| &place.walker.current().header);
        header.is_some_and(is_next) && !self.view.unproven()
    }

    #[inline(always)]
    pub(super) fn deliver(&mut self) {
        self.go_past();
        self.delivered = self.next_lsn;
    }

    /// Takes the walker's current frame.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Result<Advance> {
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
pub(super) fn failed(view: &View, sequence: Sequence, error: io::Error) -> Error {
    reading(&**view.dir(), &format::segment_name(sequence), error)
}

/// Above the bound a payload that is not whole ends the walk, wanted or not.
#[inline]
pub(super) fn wanted(
    filter: Filter,
    next: u64,
    view: &View,
) -> impl Fn(&FrameHeader) -> bool + use<> {
    let every = view.unproven();
    move |header| {
        let skipped = header.lsn < next || mutant::is("checksum:of-what-is-delivered");
        every || (!skipped && filter.wants_header(header))
    }
}
