//! A position in the log that moves forward, record by record, across segments.
//!
//! Never here: the question how far it may go ([`crate::view`] answers it), writes. Invariants:
//! only whole batches; LSNs come without a step, but where an index says that nothing wanted stands
//! between; a damaged range is read a second time before it is called damaged (the first read may
//! have raced the owner); where an index leads to anything but the frame that it names, it counts
//! for nothing, and the segment is read from its first frame. Next rooms: [`crate::seek`],
//! [`crate::reader`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::commit::SegmentBound;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::filter::Filter;
use crate::format::{
    self, FrameHeader, HeaderVerdict, Identity, KIND_SEAL, SEGMENT_HEADER_LEN, SegmentHeader,
};
use crate::fs::{Access, File, read_full};
use crate::ids::{Lsn, Sequence};
use crate::index::Start;
use crate::lens::Lens;
use crate::mutant;
use crate::record::StoredRecord;
use crate::records::RecordRef;
use crate::recover::apply::SegmentSpan;
use crate::recover::facts::reading;
use crate::scan::{Mark, Sound, Step, Trouble, Walked, Walker};
use crate::seek::{self, Run, Scratch, Want};
use crate::view::{Snapshot, View};
use crate::window::Window;

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
}

/// Where the record is that was found.
#[derive(Debug)]
enum Found {
    Nothing,
    /// The walker's current frame.
    InWindow,
    Ready(StoredRecord),
}

#[derive(Debug)]
struct Place {
    sequence: Sequence,
    header: SegmentHeader,
    file: Arc<dyn File>,
    identity: Identity,
    file_len: u64,
    walker: Walker<Lens>,
    /// What of it to read after the run that is read; from `jump_at` on there is nothing in this one.
    runs: std::vec::IntoIter<Run>,
    jump_at: u64,
    /// LSN of the record after the segment's last, where there are runs.
    after: u64,
    /// Where the run that is read is to end.
    run_to: Option<Start>,
    /// Where an index has led last.
    led: Option<u64>,
    /// The record that was next when the segment was opened.
    entered: u64,
}

impl Place {
    fn lead(&mut self, to: Start) {
        self.led = Some(to.offset);
        self.walker.jump(to.offset, to.lsn.saturating_sub(1));
    }
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

    fn find_by(&mut self, snapshot: &Snapshot, last: u64) -> Result<()> {
        self.found = Found::Nothing;
        loop {
            if let Some(record) = self.ready.pop_front() {
                self.found = Found::Ready(record);
                return Ok(());
            }
            if self.at_the_last || (self.next_lsn > last && self.open_from.is_none()) {
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
                Advance::NextSegment => {
                    if let Some(place) = self.leave() {
                        self.sequence_min = place.sequence.get().saturating_add(1);
                    }
                }
            }
        }
    }

    /// Whether there is something to lend.
    pub(crate) fn has_found(&self) -> bool {
        !matches!(self.found, Found::Nothing)
    }

    /// Lends what was found. The walk has just verified it, so it is still in the window.
    #[inline]
    pub(crate) fn found(&mut self) -> Result<Option<RecordRef<'_>>> {
        match (&self.found, &mut self.at) {
            (Found::InWindow, Some(place)) => {
                let (view, sequence) = (&self.view, place.sequence);
                let failed = |error| failed(view, sequence, error);
                let (header, payload) = place.walker.current_with_payload().map_err(failed)?;
                Ok(RecordRef::of(header, payload))
            }
            (Found::Ready(record), _) => Ok(Some(record.into())),
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
    pub(crate) fn rewind(&mut self) {
        if let Some(first) = self.open_from.take() {
            self.next_lsn = first;
            self.at_the_last = false;
        }
        self.open_batch.clear();
        self.found = Found::Nothing;
        self.leave();
        self.sequence_min = 0;
    }

    /// Opens the segment that holds the next record. `false`: it is not there yet.
    fn seek(&mut self, snapshot: &Snapshot, last: u64) -> Result<bool> {
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
    fn jump(&mut self) -> Advance {
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
    fn distrust(&mut self) -> Advance {
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
            Ok(Some(map)) => Lens::mapped(map),
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
        })
    }

    fn advance(&mut self, bound: SegmentBound, proven_end: u64) -> Result<Advance> {
        let Some(place) = &mut self.at else { return Ok(Advance::AtBound) };
        if place.walker.offset() >= place.jump_at {
            return Ok(self.jump());
        }
        let active = place.sequence >= bound.sequence;
        let limit = if active { bound.end.min(place.file_len) } else { place.file_len };
        place.walker.source_mut().set_limit(limit);
        place.walker.again();
        let mark = place.walker.mark();
        let wanted = wanted(self.filter, self.next_lsn, &self.view);
        let advanced = match place.walker.walk(wanted) {
            Ok(Walked::Sound) => self.take(),
            Ok(Walked::Other) => self.meet(mark, bound, proven_end),
            Err(error) => Err(failed(&self.view, place.sequence, error)),
        };
        if matches!(advanced, Ok(Advance::AtBound) | Err(_))
            && let Some(place) = &mut self.at
        {
            // Whoever asks again gets the same answer, or a better one if the bytes have changed.
            place.walker.source_mut().forget();
            place.walker.reset(mark);
        }
        advanced
    }

    /// Trouble, or an end. Trouble is read a second time before it counts.
    #[cold]
    fn meet(&mut self, mark: Mark, bound: SegmentBound, proven_end: u64) -> Result<Advance> {
        let Some(place) = &mut self.at else { return Ok(Advance::AtBound) };
        if place.led == Some(mark.offset()) {
            return Ok(self.distrust());
        }
        let mut met = place.walker.take_met();
        if met.as_ref().is_some_and(is_trouble) {
            place.walker.source_mut().forget();
            place.walker.reset(mark);
            let again = place.walker.step_where(wanted(self.filter, self.next_lsn, &self.view));
            met = again.map_err(|error| failed(&self.view, place.sequence, error))?;
        }
        let active = place.sequence >= bound.sequence;
        // Below, nothing is a torn end: it was promised.
        let unproven = self.view.unproven() && active && mark.offset() >= proven_end;
        match met {
            Some(Step::Frame(frame)) if frame.trouble.is_none() => self.take(),
            Some(_) | None if unproven => Ok(Advance::AtBound),
            Some(Step::Zeros { from, to: end }) if active && from == end => {
                self.check_bound(bound, proven_end, from)
            }
            None => Ok(Advance::AtBound),
            Some(step) => Err(self.damage(&step)),
        }
    }

    /// The window ended at the bound; a file that ends before it lost its tail.
    fn check_bound(&self, bound: SegmentBound, proven_end: u64, at: u64) -> Result<Advance> {
        let Some(place) = &self.at else { return Ok(Advance::AtBound) };
        if place.sequence == bound.sequence && at < bound.end {
            let location = self.location(place.sequence, at, self.next_lsn);
            let end = bound.end.min(proven_end);
            let why = format!("the segment ends here, but bytes up to {end} were durable");
            return Err(Error::corrupt(why, location));
        }
        Ok(Advance::AtBound)
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
        self.go_past();
        if wanted {
            self.delivered = self.next_lsn;
        }
        Ok(if wanted { Advance::Deliver } else { Advance::Went })
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

    #[cold]
    fn missing(&self, place: &Place) -> Error {
        let Sound { offset, header } = place.walker.current();
        let (due, found) = (self.next_lsn, header.lsn);
        let location = self.location(place.sequence, *offset, due);
        Error::corrupt(format!("LSN {due} is missing: LSN {found} stands in its place"), location)
    }

    #[cold]
    fn damage(&self, step: &Step) -> Error {
        let sequence = self.at.as_ref().map_or(Sequence::FIRST, |place| place.sequence);
        let (offset, why, lsn) = match step {
            Step::Frame(frame) => match &frame.trouble {
                Some(Trouble::Unsupported(what)) => {
                    let location = self.location(sequence, frame.offset, frame.header.lsn);
                    let why = format!("written by a newer version: {what}");
                    return Error::new(ErrorKind::Unsupported, why).at(location);
                }
                Some(Trouble::Tearable(why) | Trouble::Impossible(why)) => {
                    (frame.offset, *why, frame.header.lsn)
                }
                None => (frame.offset, "the frame is damaged", frame.header.lsn),
            },
            Step::Unreadable { from, why, .. } => (*from, *why, self.next_lsn),
            Step::Zeros { from, .. } => {
                (*from, "zeros stand where a frame was durable", self.next_lsn)
            }
        };
        Error::corrupt(
            format!("{why}; `wal verify` shows how far it goes"),
            self.location(sequence, offset, lsn),
        )
    }

    fn location(&self, segment: Sequence, offset: u64, lsn: u64) -> Location {
        let lsn = Lsn::new(lsn.max(1));
        Location { segment: Some(segment), offset: Some(offset), lsns: lsn.zip(lsn) }
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

fn is_trouble(step: &Step) -> bool {
    match step {
        Step::Frame(frame) => frame.trouble.is_some(),
        Step::Unreadable { .. } => true,
        Step::Zeros { from, to } => from < to,
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
