//! Reading on from one's own end over what other processes have written, frame by frame, over seals
//! into the next segments, and telling who listens.
//!
//! Never here: a write, a repair, trust in a tail that somebody claims. Invariants: only what is
//! durable is read (under `APPEND` with a clean mark that is everything; without, it is what
//! `CONTROL` says a sync has covered); what does not check out is an error, after which this
//! writer is not used. Next room: [`super::begin`].

use std::io;
use std::sync::Arc;

use crate::commit::Core;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::format::{
    self, Control, FRAME_HEADER_LEN, FRAMES_START, HeaderVerdict, Hold, KIND_OPEN, KIND_SEAL,
    OWN_KIND_IGNORABLE, OwnBody, SEGMENT_HEADER_LEN, SealReference, SegmentHeader,
};
use crate::fs::{Access, Dir, File, read_full};
use crate::ids::{Generation, Lsn, Sequence};
use crate::mutant;
use crate::prepare::Prepared;
use crate::queue::{Queue, Tail};
use crate::records::RecordRef;
use crate::recover::apply::SegmentSpan;
use crate::recover::facts::reading;
use crate::scan::{Frame, Source, Step, Walker};
use crate::sync::Ordering;
use crate::window::Window;
use crate::writer::Writer;

/// What was read besides records.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Segments begun since.
    spans: Vec<SegmentSpan>,
    /// How the segment before the last of them was sealed.
    previous: Option<SealReference>,
    head_and_holds: Option<(Lsn, Vec<Hold>)>,
    generation: Option<Generation>,
    frames: u64,
}

/// How far to read without `APPEND`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    sequence: u64,
    end: u64,
}

impl Until {
    pub(super) fn of(control: &Control) -> Until {
        Until { sequence: control.sequence, end: control.durable_end }
    }

    fn reached_by(self, writer: &Writer) -> bool {
        let sequence = writer.segment().header.sequence.get();
        sequence > self.sequence || (sequence == self.sequence && writer.end() >= self.end)
    }
}

/// Whether a writer stands where a control block says that the log ends, before it, or beyond.
pub(super) fn compare(writer: &Writer, control: &Control) -> std::cmp::Ordering {
    let own = (writer.segment().header.sequence.get(), writer.end());
    own.cmp(&(control.sequence, control.durable_end))
}

/// Reads on.
///
/// # Errors
/// `Trimmed` where the next segment is gone; `Corrupt`, `Unsupported`, `Io`.
pub(super) fn catch_up(
    writer: &mut Writer,
    dir: &dyn Dir,
    until: Option<Until>,
    tell: &mut dyn FnMut(RecordRef<'_>),
) -> Result<News> {
    let mut news = News::default();
    let reached = |writer: &Writer| until.is_some_and(|until| until.reached_by(writer));
    while !reached(writer) {
        if writer.sealed().is_none() {
            let limit = limit(writer, until);
            if !has_frame(writer, dir, limit)? {
                break;
            }
            read_frames(writer, dir, limit, &mut news, tell)?;
        }
        if writer.sealed().is_none() {
            break;
        }
        begin_next(writer, dir, &mut news)?;
    }
    Ok(news)
}

fn limit(writer: &Writer, until: Option<Until>) -> u64 {
    let header = &writer.segment().header;
    let here = until.filter(|until| until.sequence == header.sequence.get());
    here.map_or(header.capacity, |until| until.end.min(header.capacity))
}

/// The short answer for a log that nobody else has written to: one small read.
fn has_frame(writer: &Writer, dir: &dyn Dir, limit: u64) -> Result<bool> {
    let at = writer.end();
    if at + FRAME_HEADER_LEN as u64 > limit {
        return Ok(false);
    }
    let mut head = [0; FRAME_HEADER_LEN];
    let read = read_full(&*writer.segment().file, &mut head, at);
    let read = read.map_err(|e| reading_segment(dir, writer, e))?;
    Ok(head[..read].iter().any(|byte| *byte != 0))
}

fn read_frames(
    writer: &mut Writer,
    dir: &dyn Dir,
    limit: u64,
    news: &mut News,
    tell: &mut dyn FnMut(RecordRef<'_>),
) -> Result<()> {
    let header = writer.segment().header;
    let mut walker = Walker::new(Window::limited(writer.segment().file.clone(), limit), &header);
    walker.jump(writer.end(), writer.kept().last_lsn);
    let mut in_batch = false;
    while writer.sealed().is_none()
        && at_frame(&mut walker, limit).map_err(|e| reading_segment(dir, writer, e))?
    {
        let step = walker.step().map_err(|e| reading_segment(dir, writer, e))?;
        let frame = match step {
            Some(Step::Frame(frame)) if frame.trouble.is_none() => frame,
            _ => return Err(damaged(writer, "what another process has written is damaged")),
        };
        let payload = walker.payload(&frame).map_err(|e| reading_segment(dir, writer, e))?;
        if frame.header.is_own() {
            take_own(writer, &frame, payload, news)?;
        } else if let Some(record) = RecordRef::of(&frame.header, payload)
            && !mutant::is("share:nobody-listens")
        {
            tell(record);
        }
        in_batch = frame.header.goes_on() && !frame.header.is_own();
        writer.go_past(&frame.header);
        news.frames += 1;
    }
    if in_batch && !mutant::is("share:half-a-batch") {
        return Err(damaged(writer, "a batch that another process has written has no end"));
    }
    Ok(())
}

fn at_frame(walker: &mut Walker<Window>, limit: u64) -> io::Result<bool> {
    let at = walker.offset();
    if at + FRAME_HEADER_LEN as u64 > limit {
        return Ok(false);
    }
    let head = walker.source_mut().bytes(at, FRAME_HEADER_LEN)?;
    Ok(head.iter().any(|byte| *byte != 0))
}

fn take_own(writer: &Writer, frame: &Frame, payload: &[u8], news: &mut News) -> Result<()> {
    let header = &frame.header;
    let begins = frame.offset == FRAMES_START;
    if begins && header.kind != KIND_OPEN {
        return Err(damaged(writer, "a segment does not begin with an open record"));
    }
    if header.kind >= OWN_KIND_IGNORABLE {
        return Ok(());
    }
    let body = OwnBody::decode(payload)?;
    if header.kind == KIND_SEAL {
        let said = body.seal.as_ref().map(|seal| &seal.digest);
        if said != Some(&writer.kept().digest()) && !mutant::is("share:any-seal") {
            return Err(damaged(writer, "a seal's digest is not that of the frames before it"));
        }
    }
    news.generation = news.generation.max(body.generation);
    if let Some(head) = body.head {
        news.head_and_holds = Some((head, body.holds.clone()));
    }
    let goes_on = body.previous.is_some() && body.previous == news.previous;
    if begins && !goes_on && !mutant::is("share:any-predecessor") {
        return Err(damaged(writer, "an open record does not name the seal of the segment before"));
    }
    Ok(())
}

fn begin_next(writer: &mut Writer, dir: &dyn Dir, news: &mut News) -> Result<()> {
    let before = writer.kept().last_lsn;
    let header = writer.segment().header;
    let sequence = header.sequence.next();
    let sequence = sequence.ok_or_else(|| Error::invalid("the last segment number is used"))?;
    let name = format::segment_name(sequence);
    let file = dir.open(&name, Access::Write).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => slept_past_a_trim(dir, sequence, before),
        _ => reading(dir, &name, e),
    })?;
    let prepared = look_at(dir, &header, sequence, file)?;
    news.previous = writer.begin(prepared);
    news.spans.push(SegmentSpan { sequence, before });
    Ok(())
}

fn look_at(
    dir: &dyn Dir,
    before: &SegmentHeader,
    sequence: Sequence,
    file: Arc<dyn File>,
) -> Result<Prepared> {
    let name = format::segment_name(sequence);
    let reading = |e| reading(dir, &name, e);
    let mut head = [0; SEGMENT_HEADER_LEN];
    let read = read_full(&*file, &mut head, 0).map_err(reading)?;
    let header = match SegmentHeader::decode(&head[..read]) {
        HeaderVerdict::Good(header) => header,
        HeaderVerdict::Unsupported(why) => return Err(Error::new(ErrorKind::Unsupported, why)),
        HeaderVerdict::Bad(why) => return Err(bad_segment(sequence, why)),
    };
    let follows = header.sequence == sequence
        && header.log_id == before.log_id
        && header.shared == before.shared
        && header.salt != before.salt;
    if !follows && !mutant::is("share:any-successor") {
        return Err(bad_segment(sequence, "it is no successor of the segment before"));
    }
    let identity = file.identity().map_err(reading)?;
    let status = file.status().map_err(reading)?;
    Ok(Prepared { header, file, identity, status })
}

fn slept_past_a_trim(dir: &dyn Dir, sequence: Sequence, before: u64) -> Error {
    let why = format!(
        "{}: segment {sequence}, after LSN {before}, was trimmed by another process before this \
         one had read it: open the log again",
        dir.path().display()
    );
    Error::new(ErrorKind::Trimmed, why)
}

fn bad_segment(sequence: Sequence, why: &str) -> Error {
    let location = Location { segment: Some(sequence), offset: Some(0), lsns: None };
    Error::corrupt(why, location)
}

pub(super) fn damaged(writer: &Writer, why: &str) -> Error {
    let segment = Some(writer.segment().header.sequence);
    let offset = Some(writer.end());
    let next = Lsn::new(writer.kept().last_lsn.saturating_add(1));
    Error::corrupt(why, Location { segment, offset, lsns: next.zip(next) })
}

fn reading_segment(dir: &dyn Dir, writer: &Writer, e: io::Error) -> Error {
    reading(dir, &format::segment_name(writer.segment().header.sequence), e)
}

impl Core {
    /// Puts what was read where callers and readers of this process find it.
    pub(super) fn publish_news(&self, queue: &mut Queue, writer: &mut Writer, news: News) {
        let moved = news.frames > 0;
        if let Some((head, holds)) = news.head_and_holds {
            (queue.head, queue.holds) = (head, holds);
        }
        queue.generation = queue.generation.max(news.generation.unwrap_or(queue.generation));
        queue.tail = Tail::of(writer.segment(), writer.end());
        queue.last_lsn = writer.kept().last_lsn;
        if !moved {
            return;
        }
        writer.went_past(queue.generation);
        let (sequence, end) = (writer.segment().header.sequence, writer.end());
        let (head, last_lsn) = (queue.head, queue.last_lsn);
        self.shared.edit_frontier(|frontier| {
            let spans = Arc::make_mut(&mut frontier.spans);
            spans.extend(news.spans);
            frontier.head = frontier.head.max(head);
            // What lies below the head, somebody else unlinks.
            let below = spans.windows(2).take_while(|pair| pair[1].before < head.get()).count();
            spans.drain(..below);
            frontier.bound = crate::commit::SegmentBound { sequence, end };
            frontier.durable_lsn = last_lsn;
        });
        self.shared.durable_lsn.store(last_lsn, Ordering::Release);
    }
}
