//! A close look at one segment: every damage in it with its class, and what lies where.
//!
//! Never here: other files; [`super::set`] tells what they say about this one. Invariant: a walk as
//! the scanner does it, so that what is sound here is sound to a reader. Next room:
//! [`super::judge`].

use std::io;

use super::judge::{self, Judged, Place};
use super::value::{Class, Damaged, Loss, Span, SpanKind};
use crate::format::{FRAME_HEADER_LEN, FRAMES_START, FrameHeader, SegmentHeader};
use crate::ids::{Lsn, Sequence};
use crate::inspect::State;
use crate::scan::{Frame, Source, Step, Trouble, Walker};

/// So many damages of a log are explained, and of one segment a tenth; the others are counted.
pub const DAMAGES_MAX: usize = 10_000;
/// Of one segment.
const DAMAGES_HERE_MAX: usize = DAMAGES_MAX / 10;
/// A map of more spans than this is drawn coarser: neighbours become one, and the worst of them shows.
const SPANS_MAX: usize = 4096;

/// What the other files and the recovery table say about a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) sequence: Sequence,
    /// Everything below this offset was durable; `u64::MAX` for a sealed segment.
    pub(crate) promised_end: u64,
    /// Where its seal stands, if the next segment says so.
    pub(crate) seal_at: Option<u64>,
    /// The LSN before its first record and that of its last, if other segments say so.
    pub(crate) lsns: (Option<u64>, Option<u64>),
    /// Its size as its header has it.
    pub(crate) capacity: u64,
    pub(crate) place: Place<'a>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) damages: Vec<Damaged>,
    /// Damages beyond the cap.
    pub(crate) cut: u64,
    pub(crate) spans: Vec<Span>,
    pub(crate) records: u64,
    pub(crate) first_lsn: Option<u64>,
    pub(crate) last_lsn: u64,
    pub(crate) sealed: bool,
}

pub(crate) fn look<S: Source>(
    source: S,
    header: &SegmentHeader,
    around: Around<'_>,
) -> io::Result<Looked> {
    let len = source.len();
    let mut look =
        Look { around, len, last: around.lsns.0, open: None, grain: 32, done: Looked::default() };
    look.span(0, FRAMES_START.min(len), SpanKind::Header);
    let mut walker = Walker::new(source, header);
    while let Some(step) = walker.step()? {
        match step {
            Step::Frame(frame) => look.frame(&frame, walker.source_mut())?,
            Step::Unreadable { from, to, why } => look.bad(from, to, why, walker.source_mut())?,
            Step::Zeros { from, to } => look.zeros(from, to),
        }
    }
    look.finish();
    Ok(look.done)
}

struct Look<'a> {
    around: Around<'a>,
    len: u64,
    /// LSN of the last record passed, where known.
    last: Option<u64>,
    /// A damage whose last LSN the next frame tells.
    open: Option<usize>,
    /// Spans that are together no longer than this become one.
    grain: u64,
    done: Looked,
}

impl Look<'_> {
    fn frame(&mut self, frame: &Frame, source: &mut impl Source) -> io::Result<()> {
        let header = &frame.header;
        self.close(if header.is_own() { header.lsn } else { header.lsn.saturating_sub(1) });
        self.last = Some(header.lsn);
        self.done.sealed |= header.kind == crate::format::KIND_SEAL && frame.trouble.is_none();
        let Some(trouble) = &frame.trouble else {
            if !header.is_own() {
                self.done.records += 1;
                self.done.first_lsn = self.done.first_lsn.or(Some(header.lsn));
                self.done.last_lsn = header.lsn;
            }
            self.span(frame.offset, frame.end(), SpanKind::Data);
            return Ok(());
        };
        let (judged, range) = self.trouble(frame, trouble, source)?;
        let records = u64::from(!header.is_own());
        // An own record bears the LSN of a record before it, which is somewhere else.
        let lsns = Lsn::new(header.lsn).filter(|_| records > 0).map(|lsn| (lsn, lsn));
        let (from, to) = range;
        let body = frame.offset + FRAME_HEADER_LEN as u64;
        let expected = match trouble {
            Trouble::Tearable(_) => format!(
                "the {} bytes of {} with CRC-32 {:08x}, as its header at {} says",
                header.len,
                what(header),
                header.payload_crc,
                frame.offset
            ),
            Trouble::Impossible(_) => "a frame that follows from those before it".to_owned(),
            Trouble::Unsupported(_) => "a frame of format version 1".to_owned(),
        };
        if from >= body {
            self.span(frame.offset, from.min(self.len), SpanKind::Data);
        }
        self.add(judged, (from, to.min(self.len).max(from)), lsns, Some(records), expected);
        Ok(())
    }

    /// What is wrong with a frame under a sound header, and with which bytes.
    fn trouble(
        &self,
        frame: &Frame,
        trouble: &Trouble,
        source: &mut impl Source,
    ) -> io::Result<(Judged, (u64, u64))> {
        let whole = (frame.offset, frame.end());
        let start = frame.offset + FRAME_HEADER_LEN as u64;
        let end = start + u64::from(frame.header.len);
        let plain = |class, found: &str, decided: &str| Judged {
            class,
            found: found.to_owned(),
            decided: decided.to_owned(),
            flip: None,
        };
        Ok(match trouble {
            Trouble::Tearable(_) if frame.end() > self.len => {
                let found = format!("the file ends at {}, inside the frame", self.len);
                let decided = "a sound header says how long the frame is";
                (plain(Class::LostTail, &found, decided), (start.min(self.len), self.len))
            }
            Trouble::Tearable(_) => {
                let payload = source.bytes(start, frame.header.len as usize)?;
                if crate::format::crc32(payload) == frame.header.payload_crc {
                    let padding = judge::by_content(
                        source,
                        (end, frame.end()),
                        self.around.place,
                        "padding that is not zero",
                    )?;
                    let flip = judge::stray(source, (end, frame.end()))?.and_then(|s| s.flip);
                    (Judged { flip, class: Class::BitRot, ..padding }, (end, frame.end()))
                } else {
                    let crc = frame.header.payload_crc;
                    let judged = judge::payload(source, (start, end), crc, self.around.place)?;
                    (judged, (start, end))
                }
            }
            Trouble::Impossible(why) => {
                let decided = "its checksum holds here, so the bytes are as they were written; \
                               what they say, no writer writes here";
                (plain(Class::BrokenRules, why, decided), whole)
            }
            Trouble::Unsupported(what) => {
                let decided = "its checksum holds, so a newer version wrote it";
                (plain(Class::Unsupported, what, decided), whole)
            }
        })
    }

    /// Bytes without a sound header.
    fn bad(&mut self, from: u64, to: u64, why: &str, source: &mut impl Source) -> io::Result<()> {
        if self.done.sealed {
            return self.after_the_seal(from, to, source);
        }
        let last = self.last;
        let fits = |header: &FrameHeader| {
            let follows = match last {
                Some(last) => header.lsn == last + u64::from(!header.is_own()),
                None => true,
            };
            follows && from.saturating_add(header.frame_size()) <= to.max(from + 8)
        };
        let judged = judge::no_header(source, (from, to), self.around.place, fits)?;
        let judged = Judged { found: format!("{why}; {}", judged.found), ..judged };
        self.open = Some(self.done.damages.len());
        let low = last.map(|last| last.saturating_add(1));
        let lsns = low.and_then(Lsn::new).map(|low| (low, low));
        self.add(judged, (from, to), lsns, None, "a frame".to_owned());
        Ok(())
    }

    /// A sealed segment is zeros from its seal to its end.
    fn after_the_seal(&mut self, from: u64, to: u64, source: &mut impl Source) -> io::Result<()> {
        let stray = judge::stray(source, (from, to))?;
        let Some(stray) = stray else { return Ok(()) };
        let range = (stray.first, stray.last + 1);
        let place = self.around.place;
        let content = judge::by_content(source, range, place, "bytes that are not zero")?;
        let class = match content.class {
            Class::ForeignBytes => Class::ForeignBytes,
            _ => Class::BitRot,
        };
        let decided = match class {
            Class::ForeignBytes => content.decided,
            _ => "its seal is sound, and nothing is ever written after a seal".to_owned(),
        };
        let found = format!("{} bytes that are not zero", stray.count);
        let judged = Judged { class, found, decided, flip: stray.flip };
        self.span(from, range.0, SpanKind::Free);
        let expected = "zeros from the seal to the end of the file".to_owned();
        self.add(judged, range, None, Some(0), expected);
        self.span(range.1, to, SpanKind::Free);
        Ok(())
    }

    /// Free bytes, unless frames should be there.
    fn zeros(&mut self, from: u64, to: u64) {
        let due = self.around.seal_at.map(|at| at.saturating_add(FRAME_HEADER_LEN as u64));
        let due = due.or((self.around.promised_end < u64::MAX).then_some(self.around.promised_end));
        let missing = due.filter(|due| *due > from && !self.done.sealed);
        let Some(due) = missing else { return self.span(from, to, SpanKind::Free) };
        let cut = to < due;
        let (class, found) = if cut {
            (Class::LostTail, format!("the file ends at {to}"))
        } else {
            (Class::ZeroedRange, format!("zeros from {from} to the end of the file"))
        };
        let who = match self.around.seal_at {
            Some(at) => format!("the next segment's open record names a seal at {at}"),
            None => {
                format!(
                    "a later frame or the control block says that bytes up to {due} were durable"
                )
            }
        };
        let judged = Judged { class, found, decided: who, flip: None };
        let low = self.last.map(|last| last.saturating_add(1)).and_then(Lsn::new);
        self.open = Some(self.done.damages.len());
        let end = if cut { due } else { due.min(to) };
        self.add(judged, (from, end), low.map(|low| (low, low)), None, "more frames".to_owned());
        self.span(end.min(to), to, SpanKind::Free);
    }

    fn add(
        &mut self,
        judged: Judged,
        (from, to): (u64, u64),
        lsns: Option<(Lsn, Lsn)>,
        records: Option<u64>,
        expected: String,
    ) {
        let promised = from < self.around.promised_end;
        let state = match judged.class {
            Class::Unsupported => State::Unsupported,
            _ if promised => State::Corrupt,
            Class::BrokenRules => State::Corrupt,
            _ => State::TornTail,
        };
        let class = if state == State::TornTail { Class::TornTail } else { judged.class };
        self.span(from, to.min(self.len), SpanKind::Bad(class));
        if self.done.damages.len() >= DAMAGES_HERE_MAX {
            self.done.cut += 1;
            return;
        }
        self.done.damages.push(Damaged {
            class,
            state,
            segment: Some(self.around.sequence),
            bytes: Some((from, to)),
            lsns,
            expected,
            found: judged.found,
            decided: judged.decided,
            loss: Loss { records, promised: Some(promised) },
            flip: judged.flip,
        });
    }

    /// The last LSN before the frame that was met tells how many the open damage took.
    fn close(&mut self, high: u64) {
        let Some(damage) = self.open.take().and_then(|index| self.done.damages.get_mut(index))
        else {
            return;
        };
        let Some((low, _)) = damage.lsns else {
            damage.lsns = Lsn::new(high.max(1)).map(|lsn| (lsn, lsn));
            return;
        };
        damage.loss.records = Some((high + 1).saturating_sub(low.get()));
        // Of the log's own records alone: no LSN stood there.
        damage.lsns = Lsn::new(high).filter(|high| *high >= low).map(|high| (low, high));
    }

    fn finish(&mut self) {
        let open = self.open;
        if let Some(last) = self.around.lsns.1 {
            self.close(last);
        }
        let (len, capacity) = (self.len, self.around.capacity);
        let Some(damage) = open.and_then(|index| self.done.damages.get_mut(index)) else { return };
        // Nothing sound after it, and the file is shorter than it was.
        let at_the_end = damage.bytes.is_some_and(|(_, to)| to >= len) && len < capacity;
        if at_the_end && damage.state == State::Corrupt {
            damage.class = Class::LostTail;
            damage.decided =
                format!("the file has {len} bytes of {capacity}, and nothing sound follows");
        }
    }

    fn span(&mut self, from: u64, to: u64, kind: SpanKind) {
        if to <= from {
            return;
        }
        match self.done.spans.last_mut() {
            Some(last) if last.kind == kind && last.to == from => last.to = to,
            _ => self.done.spans.push(Span { from, to, kind }),
        }
        if self.done.spans.len() > SPANS_MAX {
            self.coarsen();
        }
    }

    #[cold]
    fn coarsen(&mut self) {
        while self.done.spans.len() > SPANS_MAX / 2 {
            self.grain = self.grain.saturating_mul(2);
            let mut coarse: Vec<Span> = Vec::with_capacity(SPANS_MAX);
            for span in self.done.spans.drain(..) {
                match coarse.last_mut() {
                    Some(last) if span.to - last.from <= self.grain => {
                        last.to = span.to;
                        let bad = matches!(last.kind, SpanKind::Bad(_));
                        last.kind = if bad { last.kind } else { span.kind };
                    }
                    _ => coarse.push(span),
                }
            }
            self.done.spans = coarse;
        }
    }
}

fn what(header: &FrameHeader) -> String {
    if header.is_own() {
        "one of the log's own records".to_owned()
    } else {
        format!("record {}", header.lsn)
    }
}
