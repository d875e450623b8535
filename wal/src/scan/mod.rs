//! The one reader of frames: walks a segment's bytes and says what is there, damage included.
//!
//! Never here: writing, saying what damage means (whether a bad byte is a torn tail or corruption is
//! [`crate::recover::decide()`]'s word), or stopping at the first damage: it goes on at the next
//! sound header on the 8-byte grid whose LSN could follow (`aside`).
//! Invariants: terminates on any bytes (every step moves forward), allocates nothing larger than
//! the source, panics on nothing. Next rooms: `judge`, [`crate::recover`], [`crate::reader`],
//! [`crate::inspect`].

mod aside;
mod judge;
mod step;

use std::io;

use self::aside::Aside;
use self::judge::Limits;
pub use self::step::{Frame, Step, Trouble};
pub(crate) use self::step::{Sound, Walked};
use crate::format::{ALIGN, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, KIND_SEAL, SegmentHeader};
use crate::mutant;
pub use crate::source::Source;

/// Walks the frames of one segment.
#[derive(Debug)]
pub struct Walker<S> {
    source: S,
    salt: u32,
    limits: Limits,
    at: u64,
    last_lsn: LastLsn,
    in_batch: Batch,
    sealed: bool,
    done: bool,
    current: Sound,
    /// Where the step began that ended at no sound frame.
    began: Mark,
    met: Option<Step>,
    /// Of no bytes yet. A new one asks what the processor can do, which a record need not pay for.
    digest: crc32fast::Hasher,
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
    const START: Mark = Mark {
        at: FRAMES_START,
        last_lsn: LastLsn::Unknown,
        in_batch: Batch::Between,
        sealed: false,
        done: false,
    };

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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Batch {
    Between,
    Inside,
    Unknown,
}

impl<S: Source> Walker<S> {
    /// Starts at the first frame of a segment with this header.
    pub fn new(source: S, header: &SegmentHeader) -> Walker<S> {
        let Mark { at, last_lsn, in_batch, sealed, done } = Mark::START;
        Walker {
            source,
            salt: header.salt,
            limits: Limits::by(header),
            at,
            last_lsn,
            in_batch,
            sealed,
            done,
            current: Sound { offset: 0, header: FrameHeader::parse(&[0; FRAME_HEADER_LEN]) },
            began: Mark::START,
            met: None,
            digest: crc32fast::Hasher::new(),
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
        match self.pass(wanted) {
            Ok(frame) => {
                self.go_past(frame);
                Ok(Walked::Sound)
            }
            Err(aside) => self.step_aside(aside),
        }
    }

    /// Where the step began that did not end at a sound frame, or failed: to take it again.
    pub(crate) fn began(&self) -> Mark {
        self.began
    }

    /// Looks at the next frame and leaves the walk where it is.
    #[inline(always)]
    fn pass(&mut self, wanted: impl FnOnce(&FrameHeader) -> bool) -> Result<Sound, Aside> {
        let left = self.source.len().saturating_sub(self.at);
        let short = left < FRAME_HEADER_LEN as u64 && !mutant::is("length:header-in-file");
        if self.done || short {
            return Err(Aside::Short { left });
        }
        let frame = match self.header_at(self.at) {
            Ok(Header::Sound(frame)) => frame,
            Ok(Header::Zeros) => return Err(Aside::Zeros),
            Ok(Header::Unsound) => return Err(Aside::Unsound),
            Err(error) => return Err(Aside::Failed(error)),
        };
        if frame.header.is_own() {
            self.judge_own(frame)?;
        } else {
            self.judge(frame, wanted(&frame.header))?;
        }
        Ok(frame)
    }

    /// A sound one becomes the current frame.
    #[inline(always)]
    fn header_at(&mut self, offset: u64) -> io::Result<Header> {
        let bytes = self.source.bytes(offset, FRAME_HEADER_LEN)?;
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_LEN>() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if FrameHeader::is_sound(bytes, self.salt, offset) {
            let frame = Sound { offset, header: FrameHeader::parse(bytes) };
            self.current = frame;
            return Ok(Header::Sound(frame));
        }
        Ok(if *bytes == [0; FRAME_HEADER_LEN] { Header::Zeros } else { Header::Unsound })
    }

    /// The header is trusted, so its length is the way on; a length that leaves the file ends the
    /// walk there.
    #[inline(always)]
    fn go_past(&mut self, frame: Sound) {
        let header = &frame.header;
        self.at = frame.end().min(self.source.len().max(frame.offset + ALIGN));
        self.source.come_to(self.at);
        self.last_lsn = LastLsn::Exactly(header.lsn);
        if header.is_own() {
            self.sealed |= header.kind == KIND_SEAL;
            self.in_batch = Batch::Between;
        } else {
            self.in_batch = if header.goes_on() { Batch::Inside } else { Batch::Between };
        }
    }
}

enum Header {
    Sound(Sound),
    Zeros,
    Unsound,
}
