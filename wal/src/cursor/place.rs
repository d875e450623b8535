//! The segment that a cursor has open: how it is found, opened and mapped, and where in it to read.
//!
//! Never here: frames. Invariants: a segment is opened under the name and number that its header
//! gives; where an index leads to anything but the frame that it names, it counts for nothing, and
//! the segment is read from its first frame. Next rooms: [`crate::seek`], [`crate::cursor`].

use std::io;
use std::sync::Arc;

use super::{Advance, Cursor};
use crate::commit::SegmentBound;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::format::{self, HeaderVerdict, Identity, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::fs::{Access, File, read_full};
use crate::ids::{Lsn, Sequence};
use crate::index::Start;
use crate::lens::Lens;
use crate::recover::apply::SegmentSpan;
use crate::recover::facts::reading;
use crate::scan::Walker;
use crate::seek::{self, Run, Want};
use crate::view::Snapshot;
use crate::window::Window;

/// An open segment, and what to read of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) sequence: Sequence,
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn File>,
    pub(super) identity: Identity,
    pub(super) file_len: u64,
    pub(super) walker: Walker<Lens>,
    /// What of it to read after the run that is read; from `jump_at` on there is nothing in this one.
    pub(super) runs: std::vec::IntoIter<Run>,
    pub(super) jump_at: u64,
    /// LSN of the record after the segment's last, where there are runs.
    pub(super) after: u64,
    /// Where the run that is read is to end.
    pub(super) run_to: Option<Start>,
    /// Where an index has led last.
    pub(super) led: Option<u64>,
    /// The record that was next when the segment was opened.
    pub(super) entered: u64,
    /// The limit is the file's end and stays there.
    pub(super) sealed: bool,
}

impl Place {
    /// The active segment is read up to the bound, which moves; a sealed one to its end.
    #[inline(always)]
    pub(super) fn set_limit(&mut self, bound: SegmentBound) {
        let sealed = self.sequence < bound.sequence;
        if !sealed || !self.sealed {
            self.sealed = sealed;
            let end = if sealed { self.file_len } else { bound.end.min(self.file_len) };
            self.walker.source_mut().set_limit(end);
            self.walker.again();
        }
    }

    pub(super) fn lead(&mut self, to: Start) {
        self.led = Some(to.offset);
        self.walker.jump(to.offset, to.lsn.saturating_sub(1));
    }
}

impl Cursor {
    /// Opens the segment that holds the next record. `false`: it is not there yet.
    pub(super) fn seek(&mut self, snapshot: &Snapshot, last: u64) -> Result<bool> {
        let next = Lsn::new(self.next_lsn).unwrap_or(Lsn::FIRST);
        if next < snapshot.head {
            return Err(Error::trimmed(next, snapshot.head));
        }
        let within = |span: &&SegmentSpan| {
            span.sequence.get() >= self.sequence_min && span.sequence <= snapshot.bound.sequence
        };
        let found = snapshot.spans.iter().filter(within).rfind(|span| span.before < next.get());
        let Some(span) = found else {
            let Some(later) = snapshot.spans.iter().find(within) else { return Ok(false) };
            let location = self.location(later.sequence, format::FRAMES_START, next.get());
            let why = format!("LSN {next} is missing: the next segment begins after it");
            return Err(Error::corrupt(why, location));
        };
        let sealed = span.sequence < snapshot.bound.sequence;
        let mut place = self.open(span.sequence, next, snapshot, sealed)?;
        self.find_way(&mut place, *span, snapshot.bound, last);
        self.at = Some(place);
        Ok(true)
    }

    /// Where to begin in a segment, and what to pass over, by its index if that is of use.
    fn find_way(&mut self, place: &mut Place, span: SegmentSpan, bound: SegmentBound, last: u64) {
        // An unproven reader must see every batch whole.
        if self.view.unproven() || self.distrusted == Some(place.sequence) {
            return;
        }
        let midway = self.next_lsn > span.before.saturating_add(1);
        if place.sequence >= bound.sequence {
            let start = self.view.start(place.sequence, self.next_lsn).filter(|_| midway);
            start.into_iter().for_each(|start| place.lead(start));
            return;
        }
        if !midway && !self.filter.is_narrow() {
            return;
        }
        let want = Want { next: self.next_lsn, last, filter: self.filter };
        let (dir, file, scratch) = (&**self.view.dir(), &*place.file, &mut self.scratch);
        let Some(found) = seek::runs(dir, file, &place.header, want, scratch) else {
            return;
        };
        self.bytes_read += found.bytes_read;
        place.runs = found.runs.into_iter();
        place.after = found.after;
        place.jump_at = 0;
    }

    /// Goes to the next run of frames, or past the segment.
    #[cold]
    pub(super) fn jump(&mut self) -> Advance {
        let Some(place) = &mut self.at else { return Advance::AtBound };
        let ends_well = |to: Start| place.walker.stands_at(to.offset, to.lsn);
        if !place.run_to.is_none_or(ends_well) {
            return self.distrust();
        }
        let Some(run) = place.runs.next() else {
            self.next_lsn = self.next_lsn.max(place.after);
            return Advance::NextSegment;
        };
        place.lead(run.from);
        place.walker.source_mut().set_ahead_end(run.to.offset);
        place.jump_at = run.to.offset;
        place.run_to = Some(run.to);
        self.next_lsn = self.next_lsn.max(run.from.lsn);
        Advance::Went
    }

    /// An index led to something else than the frame that it names, or its run ended elsewhere than
    /// it says: the segment is read without, from the last record delivered on, or whole. What it led
    /// past before that record was checked when the segment was opened ([`seek::runs`]).
    #[cold]
    pub(super) fn distrust(&mut self) -> Advance {
        let place = self.leave();
        let entered = place.as_ref().map_or(self.next_lsn, |place| place.entered);
        self.next_lsn = entered.max(self.delivered);
        self.distrusted = place.map(|place| place.sequence);
        Advance::Went
    }

    fn open(
        &self,
        sequence: Sequence,
        next: Lsn,
        snapshot: &Snapshot,
        sealed: bool,
    ) -> Result<Place> {
        let dir = &**self.view.dir();
        let name = format::segment_name(sequence);
        let file = dir.open(&name, Access::Read).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                // A trim took it since the snapshot was made.
                Error::trimmed(next, snapshot.head.max(next))
            } else {
                reading(dir, &name, e)
            }
        })?;
        let reading = |e| reading(dir, &name, e);
        let mut head = [0; SEGMENT_HEADER_LEN];
        let read = read_full(&*file, &mut head, 0).map_err(reading)?;
        let header = check_header(&head[..read], sequence, next)?;
        let identity = file.identity().map_err(reading)?;
        let file_len = file.len().map_err(reading)?.min(header.capacity);
        // Who passes over most of it has no use for its pages being there at once.
        let whole = !self.filter.is_narrow();
        let map = if sealed && self.mapped { file.map(file_len, whole) } else { Ok(None) };
        // No room in the address space, a limit on maps, a file that cannot be mapped: it is read then.
        let lens = match map {
            Ok(Some(map)) => Lens::mapped(map, whole),
            Ok(None) | Err(_) => Lens::Read(Window::limited(file.clone(), file_len)),
        };
        let walker = Walker::new(lens, &header);
        Ok(Place {
            sequence,
            header,
            file,
            identity,
            file_len,
            walker,
            runs: Vec::new().into_iter(),
            jump_at: u64::MAX,
            after: 0,
            run_to: None,
            led: None,
            entered: self.next_lsn,
            sealed: false,
        })
    }
}

fn check_header(bytes: &[u8], sequence: Sequence, next: Lsn) -> Result<SegmentHeader> {
    let location = Location { segment: Some(sequence), offset: Some(0), lsns: Some((next, next)) };
    match SegmentHeader::decode(bytes) {
        HeaderVerdict::Good(header) if header.sequence == sequence => Ok(header),
        HeaderVerdict::Good(header) => {
            let why = format!("the segment's header says it is segment {}", header.sequence);
            Err(Error::corrupt(why, location))
        }
        HeaderVerdict::Bad(why) => Err(Error::corrupt(why, location)),
        HeaderVerdict::Unsupported(why) => {
            Err(Error::new(ErrorKind::Unsupported, why).at(location))
        }
    }
}
