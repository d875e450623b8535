//! The one reader of frames: walks a segment's bytes and says what is there, damage included.
//!
//! Never here: writing, judging (a bad byte is reported, whether it is a torn tail or corruption
//! is [`crate::recover::decide()`]'s word), or stopping at the first damage: it goes on at the next
//! sound header on the 8-byte grid whose LSN could follow.
//! Invariants: terminates on any bytes (every step moves forward), allocates nothing larger than
//! the source, panics on nothing. Next rooms: [`crate::recover`], [`crate::reader`],
//! [`crate::inspect`].

use std::io;

use crate::format::{
    self, ALIGN, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, KIND_SEAL, SegmentHeader,
};
use crate::mutant;
pub use crate::source::Source;

/// One step of a walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A frame whose header checksum holds. Its length, LSN and durable lag can be trusted unless
    /// `trouble` says that they cannot be.
    Frame(Frame),
    /// Bytes that are no frame, up to the next sound header or the end.
    Unreadable {
        /// First bad byte, on the grid.
        from: u64,
        /// First byte after.
        to: u64,
        /// What was wrong with them.
        why: &'static str,
    },
    /// Nothing but zeros from here to the end of the file, which is at `to`.
    Zeros {
        /// First zero.
        from: u64,
        /// End of the file.
        to: u64,
    },
}

/// A frame as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where it stands.
    pub offset: u64,
    /// What its header says.
    pub header: FrameHeader,
    /// What is wrong with it, if anything.
    pub trouble: Option<Trouble>,
}

impl Frame {
    /// First byte after it.
    pub fn end(&self) -> u64 {
        self.place().end()
    }

    /// The durable end it vouches for, unless its lag is impossible.
    pub fn witness(&self) -> Option<u64> {
        self.place().witness()
    }

    fn place(&self) -> Sound {
        Sound { offset: self.offset, header: self.header }
    }
}

impl Sound {
    #[inline]
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.header.frame_size())
    }

    #[inline]
    fn witness(&self) -> Option<u64> {
        let lag = u64::from(self.header.durable_lag) * ALIGN;
        self.offset.checked_sub(lag).filter(|end| *end >= FRAMES_START)
    }
}

/// A frame with nothing wrong: what a reader meets record by record, small and without a drop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sound {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
}

/// One step of a walk, sorted by whether a reader goes on. What was met stays with the walker: a
/// frame that is passed from hand to hand by value cost as much as its checksums.
#[derive(Clone, Copy)]
pub(crate) enum Walked {
    /// A sound frame: [`Walker::current`].
    Sound,
    /// Trouble, or the end: [`Walker::take_met`].
    Other,
}

/// What can be wrong with a frame whose header checksum holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The payload or the padding is not what was written: tearing can do that.
    Tearable(&'static str),
    /// The header says what no writer writes here: tearing cannot do that.
    Impossible(&'static str),
    /// A flag or own kind of a newer version.
    Unsupported(String),
}

/// Walks the frames of one segment.
#[derive(Debug)]
pub struct Walker<S> {
    source: S,
    salt: u32,
    /// Ends of what records, own records and the seal may take.
    limits: Limits,
    at: u64,
    last_lsn: LastLsn,
    in_batch: Batch,
    sealed: bool,
    done: bool,
    current: Sound,
    met: Option<Step>,
}

/// A place in a walk.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: u64,
    last_lsn: LastLsn,
    in_batch: Batch,
    sealed: bool,
    done: bool,
}

impl Mark {
    /// Where it is.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LastLsn {
    /// The walk has not met a frame: the first one says.
    Unknown,
    /// The next record is this plus one.
    Exactly(u64),
    /// Frames were skipped since this one.
    AtLeast { lsn: u64, skipped_from: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    records: u64,
    own_records: u64,
    seal: u64,
}

impl Limits {
    fn of(&self, header: &FrameHeader) -> u64 {
        match header.kind {
            KIND_SEAL => self.seal,
            _ if header.is_own() => self.own_records,
            _ => self.records,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Batch {
    Between,
    Inside,
    Unknown,
}

impl<S: Source> Walker<S> {
    /// Starts at the first frame of a segment with this header.
    pub fn new(source: S, header: &SegmentHeader) -> Walker<S> {
        Walker {
            source,
            salt: header.salt,
            limits: Limits {
                records: header.records_end(),
                own_records: header.own_records_end(),
                seal: header.capacity,
            },
            at: FRAMES_START,
            last_lsn: LastLsn::Unknown,
            in_batch: Batch::Between,
            sealed: false,
            done: false,
            current: Sound { offset: 0, header: FrameHeader::parse(&[0; FRAME_HEADER_LEN]) },
            met: None,
        }
    }

    /// Where the next step begins.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The source.
    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    /// The source back.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Lets a walk that met the end of its source go on, after the source has grown.
    pub fn again(&mut self) {
        self.done = false;
    }

    /// Where the walk stands, to come back to.
    pub fn mark(&self) -> Mark {
        let Walker { at, last_lsn, in_batch, sealed, done, .. } = *self;
        Mark { at, last_lsn, in_batch, sealed, done }
    }

    /// Goes back to a mark of this walk.
    pub fn reset(&mut self, mark: Mark) {
        self.at = mark.at;
        self.last_lsn = mark.last_lsn;
        self.in_batch = mark.in_batch;
        self.sealed = mark.sealed;
        self.done = mark.done;
    }

    /// Goes on at another place, in a batch or not, where the record after the one with this LSN is
    /// said to stand. If it does not, the next step says so.
    pub(crate) fn jump(&mut self, offset: u64, last_lsn: u64) {
        self.at = offset;
        self.last_lsn = LastLsn::Exactly(last_lsn);
        self.in_batch = Batch::Unknown;
        self.sealed = false;
        self.done = false;
    }

    /// Whether the walk stands here, and the next record has this LSN.
    pub(crate) fn stands_at(&self, offset: u64, lsn: u64) -> bool {
        let next = lsn.checked_sub(1).map(LastLsn::Exactly);
        self.at == offset && next == Some(self.last_lsn)
    }

    /// The payload of a frame that this walk has just returned. After [`Walker::step_where`] it is
    /// verified only if it was wanted.
    ///
    /// # Errors
    /// What the file said.
    pub fn payload(&mut self, frame: &Frame) -> io::Result<&[u8]> {
        let start = frame.offset + FRAME_HEADER_LEN as u64;
        self.source.bytes(start, frame.header.len as usize)
    }

    /// The sound frame that was met last, with its payload.
    #[inline(always)]
    pub(crate) fn current_with_payload(&mut self) -> io::Result<(&FrameHeader, &[u8])> {
        let Sound { offset, header } = &self.current;
        let start = offset + FRAME_HEADER_LEN as u64;
        Ok((header, self.source.bytes(start, header.len as usize)?))
    }

    /// The next step; `None` once the end of the file was reported.
    ///
    /// # Errors
    /// What the file said. An error is no verdict about the bytes.
    #[inline]
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        self.step_where(|_| true)
    }

    /// The next step, leaving out the body of every record that is not `wanted`: neither its
    /// payload nor its padding is read, let alone verified. Its header is judged like any other's:
    /// checksum, length, LSN, batch flags, durable lag. The log's own records are always read.
    ///
    /// # Errors
    /// As [`Walker::step`].
    #[inline]
    pub fn step_where(
        &mut self,
        wanted: impl FnOnce(&FrameHeader) -> bool,
    ) -> io::Result<Option<Step>> {
        let Walked::Sound = self.walk(wanted)? else { return Ok(self.take_met()) };
        let Sound { offset, header } = self.current;
        Ok(Some(Step::Frame(Frame { offset, header, trouble: None })))
    }

    /// The sound frame that was met last.
    #[inline]
    pub(crate) fn current(&self) -> &Sound {
        &self.current
    }

    /// What was met last if it was no sound frame; `None` for the end.
    pub(crate) fn take_met(&mut self) -> Option<Step> {
        self.met.take()
    }

    /// [`Walker::step_where`] for a reader, who meets millions of sound frames and little else.
    #[inline(always)]
    pub(crate) fn walk(&mut self, wanted: impl FnOnce(&FrameHeader) -> bool) -> io::Result<Walked> {
        let offset = self.at;
        let left = self.source.len().saturating_sub(offset);
        let short = left < FRAME_HEADER_LEN as u64 && !mutant::is("length:header-in-file");
        if self.done || short {
            return self.finish_short(left);
        }
        match self.header_at(offset)? {
            Header::Sound => {}
            Header::Zeros => return self.zeros(offset),
            Header::Unsound => return self.skip(offset, "the frame header's checksum is wrong"),
        }
        let with_body = self.current.header.is_own() || wanted(&self.current.header);
        let trouble = self.judge(with_body)?;
        self.go_past();
        match trouble {
            None => Ok(Walked::Sound),
            Some(trouble) => Ok(self.meet_frame(trouble)),
        }
    }

    #[cold]
    fn meet_frame(&mut self, trouble: Trouble) -> Walked {
        let Sound { offset, header } = self.current;
        self.meet(Step::Frame(Frame { offset, header, trouble: Some(trouble) }))
    }

    fn meet(&mut self, step: Step) -> Walked {
        self.met = Some(step);
        Walked::Other
    }

    /// Fewer bytes than a header are left, or the end was reported.
    #[cold]
    fn finish_short(&mut self, left: u64) -> io::Result<Walked> {
        self.met = None;
        if self.done {
            return Ok(Walked::Other);
        }
        self.done = true;
        let (from, to) = (self.at, self.source.len().max(self.at));
        if left == 0 || self.zeros_from(from)? {
            return Ok(self.meet(Step::Zeros { from, to }));
        }
        let why = "the file ends inside a frame header";
        Ok(self.meet(Step::Unreadable { from, to, why }))
    }

    #[cold]
    fn zeros(&mut self, from: u64) -> io::Result<Walked> {
        if !self.zeros_from(from)? {
            return self.skip(from, "zeros where a frame was expected, and more after");
        }
        self.done = true;
        let to = self.source.len();
        Ok(self.meet(Step::Zeros { from, to }))
    }

    /// A sound one becomes the current frame.
    #[inline(always)]
    fn header_at(&mut self, offset: u64) -> io::Result<Header> {
        let bytes = self.source.bytes(offset, FRAME_HEADER_LEN)?;
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_LEN>() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if FrameHeader::is_sound(bytes, self.salt, offset) {
            self.current = Sound { offset, header: FrameHeader::parse(bytes) };
            return Ok(Header::Sound);
        }
        Ok(if *bytes == [0; FRAME_HEADER_LEN] { Header::Zeros } else { Header::Unsound })
    }

    /// Judges the current frame against what came before it and reads its body.
    #[inline(always)]
    fn judge(&mut self, with_body: bool) -> io::Result<Option<Trouble>> {
        if let Some(what) = self.current.header.unsupported() {
            return Ok(Some(Trouble::Unsupported(what)));
        }
        if let Some(why) = self.impossible() {
            return Ok(Some(Trouble::Impossible(why)));
        }
        Ok(self.body_trouble(with_body)?.map(Trouble::Tearable))
    }

    /// The header is trusted, so its length is the way on; a length that leaves the file ends the
    /// walk there.
    #[inline(always)]
    fn go_past(&mut self) {
        let Sound { offset, header } = &self.current;
        self.at = self.current.end().min(self.source.len().max(offset + ALIGN));
        self.last_lsn = LastLsn::Exactly(header.lsn);
        if header.is_own() {
            self.sealed |= header.kind == KIND_SEAL;
            self.in_batch = Batch::Between;
        } else {
            self.in_batch = if header.goes_on() { Batch::Inside } else { Batch::Between };
        }
    }

    #[inline(always)]
    fn impossible(&self) -> Option<&'static str> {
        let (frame, header) = (&self.current, &self.current.header);
        if self.sealed {
            return Some("a frame stands after the seal");
        }
        if frame.end() > self.limits.of(header) && !mutant::is("length:frame-in-segment") {
            return Some("the frame reaches beyond what its kind may take of the segment");
        }
        if frame.witness().is_none() && !mutant::is("lag:impossible") {
            return Some("the durable lag points before the first frame");
        }
        if header.is_own() {
            if self.in_batch == Batch::Inside {
                return Some("one of the log's own records stands inside a batch");
            }
            if header.flags != 0 && !mutant::is("flags:own-record") {
                return Some("one of the log's own records carries batch flags");
            }
        } else if mutant::is("batch:begin") {
        } else if self.in_batch == Batch::Between && !header.is_batch_first() {
            return Some("a batch goes on that never began");
        } else if self.in_batch == Batch::Inside && header.is_batch_first() {
            return Some("a batch begins inside another");
        }
        if self.lsn_follows(header, frame.offset) || mutant::is("lsn:any") {
            None
        } else {
            Some("the LSN does not follow the one before")
        }
    }

    /// Records count up by one; own records repeat the last record's LSN.
    #[inline(always)]
    fn lsn_follows(&self, header: &FrameHeader, offset: u64) -> bool {
        let step = u64::from(!header.is_own());
        if step == 1 && header.lsn == 0 {
            return false;
        }
        match self.last_lsn {
            LastLsn::Unknown => true,
            LastLsn::Exactly(last) => last.checked_add(step) == Some(header.lsn),
            LastLsn::AtLeast { lsn, skipped_from } => {
                let skipped_max = offset.saturating_sub(skipped_from) / FRAME_HEADER_LEN as u64;
                let low = lsn.saturating_add(step);
                let high = low.saturating_add(skipped_max);
                (low..=high).contains(&header.lsn)
            }
        }
    }

    #[inline(always)]
    fn body_trouble(&mut self, with_body: bool) -> io::Result<Option<&'static str>> {
        let (frame, header) = (&self.current, &self.current.header);
        if frame.end() > self.source.len() && !mutant::is("length:frame-in-file") {
            return Ok(Some("the file ends inside the frame"));
        }
        if !with_body {
            return Ok(None);
        }
        let (len, payload_crc) = (header.len as usize, header.payload_crc);
        let padding = header.frame_size() as usize - FRAME_HEADER_LEN - len;
        let body = self.source.bytes(frame.offset + FRAME_HEADER_LEN as u64, len + padding)?;
        let (payload, padding) = body.split_at(len);
        let sound = format::crc32(payload) == payload_crc;
        if !sound && !mutant::is("checksum:payload") {
            return Ok(Some("the payload's checksum is wrong"));
        }
        if padding.iter().any(|byte| *byte != 0) && !mutant::is("padding:anything") {
            return Ok(Some("the padding after the payload is not zero"));
        }
        Ok(None)
    }

    /// Goes on at the next sound header whose LSN could follow.
    #[cold]
    fn skip(&mut self, from: u64, why: &'static str) -> io::Result<Walked> {
        let why = if self.sealed { "bytes that are not zero stand after the seal" } else { why };
        let lsn = match self.last_lsn {
            LastLsn::Unknown => 0,
            LastLsn::Exactly(lsn) | LastLsn::AtLeast { lsn, .. } => lsn,
        };
        self.last_lsn = match self.last_lsn {
            LastLsn::Unknown => LastLsn::Unknown,
            _ => LastLsn::AtLeast { lsn, skipped_from: from },
        };
        self.in_batch = Batch::Unknown;
        let mut at = from + ALIGN;
        while at + FRAME_HEADER_LEN as u64 <= self.source.len() {
            if let Header::Sound = self.header_at(at)?
                && self.lsn_follows(&self.current.header, at)
                && self.current.end() <= self.limits.of(&self.current.header)
            {
                self.at = at;
                return Ok(self.meet(Step::Unreadable { from, to: at, why }));
            }
            at += ALIGN;
        }
        self.done = true;
        let to = self.source.len();
        self.at = to;
        Ok(self.meet(Step::Unreadable { from, to, why }))
    }

    fn zeros_from(&mut self, from: u64) -> io::Result<bool> {
        self.source.is_zero_from(from)
    }
}

enum Header {
    Sound,
    Zeros,
    Unsound,
}
