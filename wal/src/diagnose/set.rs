//! The files of a log against each other: which is missing, misplaced, foreign, cut; and which of
//! them to look at closely.
//!
//! Never here: bytes of frames ([`super::look`]). The *chain* is the segments that bear their own
//! name or whose header is lost; a file under another's name is explained and then left out, so that
//! it accuses nobody. Invariant: nothing is invented: whatever the report found and this room cannot
//! explain keeps the report's own words ([`of_finding`]). Next room: [`super::look`].

use std::io;

use super::Scope;
use super::flip;
use super::judge::{self, Place};
use super::look::{Around, Looked, look};
use super::salt::{Known, header_from_frames};
use super::value::{Class, Damaged, Loss, SegmentMap, Span, SpanKind};
use crate::error::Result;
use crate::format::{self, FRAMES_START, HeaderVerdict, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::fs::{Access, Dir, read_full};
use crate::ids::{LogId, Lsn, Sequence};
use crate::inspect::{Finding, Report, State};
use crate::recover::facts::{SegmentFacts, reading};
use crate::recover::{Decision, Facts, Row, trusted_control};
use crate::scan::{Source, Step, Walker};
use crate::window::Window;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Explained {
    pub(super) damages: Vec<Damaged>,
    pub(super) maps: Vec<SegmentMap>,
    /// Segments that the table accuses because of a damage elsewhere, which is explained.
    pub(super) excused: Vec<Sequence>,
}

/// A finding in its own words, where nothing closer was found.
pub(super) fn of_finding(finding: &Finding, row: Row) -> Damaged {
    let class = match (finding.state, row) {
        (State::TornTail, _) => Class::TornTail,
        (State::Unsupported, _) => Class::Unsupported,
        (_, Row::G) => Class::Gap,
        _ => Class::BrokenRules,
    };
    Damaged {
        class,
        state: finding.state,
        segment: finding.segment,
        bytes: finding.bytes,
        lsns: finding.lsns,
        expected: "what the recovery table asks for".to_owned(),
        found: finding.why.clone(),
        decided: format!("row {} of the recovery table", row.letter()),
        loss: Loss { records: None, promised: Some(finding.state == State::Corrupt) },
        flip: None,
    }
}

pub(super) fn explain(
    dir: &dyn Dir,
    facts: &Facts,
    decision: &Decision,
    report: &Report,
    scope: Scope,
) -> Result<Explained> {
    let log_id = log_id(facts);
    let mut set = Set { dir, facts, decision, report, log_id, done: Explained::default() };
    let chain = set.chain();
    let mut active = chain.iter().rposition(|segment| segment.has_data);
    if let Some(index) = active.filter(|index| *index > 0)
        && set.damaged_spare(chain[index], chain[index - 1])?
    {
        active = Some(index - 1);
    }
    set.gaps(&chain, active);
    let known: Vec<Known> = facts.segments.iter().filter_map(known).collect();
    for (index, segment) in chain.iter().enumerate() {
        let beyond = active.is_none_or(|active| index > active);
        let named = report.findings.iter().any(|f| f.segment == Some(segment.sequence));
        // Without its open record it accuses the one before, whose seal nobody names then.
        let close = segment.good_header().is_none()
            || segment.open.is_none()
            || named
            || Some(index) == active;
        if beyond || !close {
            if scope.maps {
                set.done.maps.push(far_map(segment, report, beyond));
            }
            continue;
        }
        set.segment(&chain, index, active, &known)?;
    }
    if !scope.maps {
        set.done.maps.clear();
    }
    set.done.maps.sort_by_key(|map| map.segment);
    Ok(set.done)
}

/// The id that most segments bear.
fn log_id(facts: &Facts) -> Option<LogId> {
    let ids = || facts.segments.iter().filter_map(SegmentFacts::good_header).map(|h| h.log_id);
    ids().max_by_key(|id| ids().filter(|other| other == id).count())
}

fn known(segment: &SegmentFacts) -> Option<Known> {
    let header = segment.good_header()?;
    let SegmentHeader { sequence, salt, capacity, .. } = *header;
    Some(Known { sequence, salt, capacity })
}

struct Set<'a> {
    dir: &'a dyn Dir,
    facts: &'a Facts,
    decision: &'a Decision,
    report: &'a Report,
    log_id: Option<LogId>,
    done: Explained,
}

impl<'a> Set<'a> {
    /// The segments under their own names, and those whose header is lost.
    fn chain(&mut self) -> Vec<&'a SegmentFacts> {
        let facts = self.facts;
        let mut chain = Vec::new();
        for segment in &facts.segments {
            if self.is_leftover(segment) {
                continue;
            }
            match self.misplaced(segment) {
                Some(damage) => self.done.damages.push(damage),
                None => chain.push(segment),
            }
        }
        chain
    }

    /// Below the head: a crash left it of a trim.
    fn is_leftover(&self, segment: &SegmentFacts) -> bool {
        self.report.leftovers.contains(&format::segment_name(segment.sequence))
    }

    /// Why a file does not count as the segment that its name says.
    fn misplaced(&self, segment: &SegmentFacts) -> Option<Damaged> {
        let whole = |class, expected: &str, found: String, decided: &str| Damaged {
            class,
            state: if class == Class::Unsupported { State::Unsupported } else { State::Corrupt },
            segment: Some(segment.sequence),
            bytes: Some((0, segment.file_len)),
            lsns: None,
            expected: expected.to_owned(),
            found,
            decided: decided.to_owned(),
            loss: Loss { records: None, promised: None },
            flip: None,
        };
        if segment.irregular {
            let found = "something that is no regular file".to_owned();
            return Some(whole(Class::ForeignBytes, "a segment's file", found, "its type"));
        }
        match &segment.header {
            HeaderVerdict::Unsupported(what) => {
                let decided = "the header's checksum holds, so a newer version wrote it";
                Some(whole(Class::Unsupported, "format version 1", what.clone(), decided))
            }
            HeaderVerdict::Good(header) if header.sequence != segment.sequence => {
                let real = self.facts.segments.iter().find(|s| s.sequence == header.sequence);
                let real = match real.and_then(SegmentFacts::good_header) {
                    Some(real) if real.salt == header.salt => {
                        "that segment is there too, under its own name: this file is a copy"
                    }
                    Some(_) => "another file bears that segment's name",
                    None => "no file bears that segment's name: this file was renamed",
                };
                let expected = format!("segment {}", segment.sequence);
                let found = format!("the header of segment {}; {real}", header.sequence);
                let decided = "a segment's header repeats the number in its file's name";
                Some(whole(Class::Overlap, &expected, found, decided))
            }
            HeaderVerdict::Good(header) if Some(header.log_id) != self.log_id => {
                let expected = self.log_id.map_or_else(String::new, |id| format!("log {id}"));
                let found = format!("a segment of log {}", header.log_id);
                let decided = "all segments of a log bear its id; most here bear another";
                Some(whole(Class::ForeignBytes, &expected, found, decided))
            }
            _ => None,
        }
    }

    /// Segments that are not there.
    fn gaps(&mut self, chain: &[&SegmentFacts], active: Option<usize>) {
        let Some(active) = active else { return };
        let head = self.report.head;
        if let Some(first) = chain.first() {
            let base = first.open.as_ref().map_or(0, |open| open.lsn);
            if first.sequence > Sequence::FIRST && base >= head.get() {
                let lsns = Lsn::new(base).map(|last| (head, last));
                let from = Sequence::FIRST;
                let found = format!("the lowest segment is {}", first.sequence);
                self.gap(from, before(first.sequence), lsns, found, first.file_len);
            }
        }
        for pair in chain[..=active].windows(2) {
            let (low, next) = (pair[0], pair[1]);
            let open = next.open.as_ref().map(|open| open.lsn);
            let trimmed = open.is_some_and(|lsn| lsn < head.get());
            let Some(missing) = low.sequence.next().filter(|m| *m < next.sequence) else {
                continue;
            };
            if trimmed {
                continue;
            }
            let last = self.last_lsn_of(low);
            let lsns = last.and_then(|last| Lsn::new(last + 1)).zip(open.and_then(Lsn::new));
            let found = format!("segment {} is followed by {}", low.sequence, next.sequence);
            self.gap(missing, before(next.sequence), lsns, found, low.file_len);
        }
        let control = trusted_control(self.facts).map(|control| control.control);
        if let Some(control) = control
            && let Some(lost) = Sequence::new(control.sequence)
            && lost > chain[active].sequence
        {
            let low = self.last_lsn_of(chain[active]).and_then(|last| Lsn::new(last + 1));
            let lsns = low.zip(Lsn::new(control.durable_lsn)).filter(|(a, b)| a <= b);
            let found = format!("the last segment with data is {}", chain[active].sequence);
            let missing = chain[active].sequence.next().unwrap_or(lost);
            self.gap(missing, lost, lsns, found, chain[active].file_len);
        }
    }

    /// The LSN at a segment's seal, or of the last record that its survey kept.
    fn last_lsn_of(&self, segment: &SegmentFacts) -> Option<u64> {
        let active = self.facts.active.as_ref();
        let survey = active
            .filter(|active| self.facts.segments[active.index].sequence == segment.sequence)
            .and_then(|active| active.survey.as_ref());
        let seal = segment.seal.as_ref().map(|seal| seal.lsn);
        seal.or(survey.map(|survey| survey.kept.last_lsn))
    }

    fn gap(
        &mut self,
        first: Sequence,
        last: Sequence,
        lsns: Option<(Lsn, Lsn)>,
        found: String,
        len: u64,
    ) {
        let lsns = lsns.filter(|(low, high)| low <= high);
        let expected = if first == last {
            format!("segment {first}")
        } else {
            format!("segments {first} to {last}")
        };
        self.done.damages.push(Damaged {
            class: Class::Gap,
            state: State::Corrupt,
            segment: Some(first),
            bytes: None,
            lsns,
            expected,
            found,
            decided: "segments are numbered without a step, and its records are above the log's \
                      head"
                .to_owned(),
            loss: Loss {
                records: lsns.map(|(low, high)| high.get() - low.get() + 1),
                promised: Some(true),
            },
            flip: None,
        });
        // A few of a long row stand for it.
        let mut at = Some(first);
        for _ in 0..16 {
            let Some(segment) = at.filter(|at| *at <= last) else { break };
            let spans = vec![Span { from: 0, to: len, kind: SpanKind::Bad(Class::Gap) }];
            self.done.maps.push(SegmentMap {
                segment,
                len,
                present: false,
                durable_end: None,
                spans,
            });
            at = segment.next();
        }
    }

    /// A close look at one segment of the chain.
    fn segment(
        &mut self,
        chain: &[&SegmentFacts],
        index: usize,
        active: Option<usize>,
        known: &[Known],
    ) -> Result<()> {
        let segment = chain[index];
        let name = format::segment_name(segment.sequence);
        let failed = |e| reading(self.dir, &name, e);
        let file = self.dir.open(&name, Access::Read).map_err(failed)?;
        let mut bad_header = None;
        let header = match segment.good_header() {
            Some(header) => Some(*header),
            None => {
                let mut head = [0; SEGMENT_HEADER_LEN];
                let read = read_full(&*file, &mut head, 0).map_err(failed)?;
                let damage = self.header_damage(segment, &head[..read], known).map_err(failed)?;
                bad_header = Some(self.done.damages.len());
                self.done.damages.push(damage);
                let mut window = Window::limited(file.clone(), segment.file_len);
                let id = self.log_id.unwrap_or(LogId([0; 16]));
                header_from_frames(&mut window, segment.sequence, id).map_err(failed)?
            }
        };
        let Some(header) = header else {
            let spans =
                vec![Span { from: 0, to: segment.file_len, kind: SpanKind::Bad(Class::BitRot) }];
            if let Some(damage) = bad_header.and_then(|index| self.done.damages.get_mut(index)) {
                damage.bytes = Some((0, segment.file_len));
                damage.decided.push_str("; its salt is gone, and no frames name one");
            }
            self.map(segment, spans, None);
            return Ok(());
        };
        let sealed = Some(index) != active;
        let around = self.around(chain, index, sealed, &header, known);
        let limit = header.capacity.min(segment.file_len);
        let mut looked = look(Window::limited(file, limit), &header, around).map_err(failed)?;
        self.beyond_capacity(segment, &header);
        if let Some(damage) = bad_header.and_then(|index| self.done.damages.get_mut(index)) {
            damage.loss.records = Some(0);
            damage.decided.push_str(&format!(
                "; its frames agree on its salt, and {} records can still be read",
                looked.records
            ));
            if let Some(first) = looked.spans.first_mut().filter(|_| looked.records > 0) {
                first.kind = SpanKind::Bad(damage.class);
            }
        }
        let next = chain.get(index + 1).filter(|_| sealed);
        let unnamed = next.is_some_and(|next| next.open.is_none());
        if looked.sealed && looked.damages.is_empty() && unnamed && bad_header.is_none() {
            self.done.excused.push(segment.sequence);
        }
        if !sealed {
            self.torn(segment, &mut looked);
        }
        self.done.damages.append(&mut looked.damages);
        self.map(segment, looked.spans, (!sealed).then_some(around.promised_end));
        Ok(())
    }

    /// Whether the highest segment with data is one that was never begun: no sound frame in it, and
    /// no seal in the one before. To the table its bytes look like the beginning of a segment.
    fn damaged_spare(&mut self, segment: &SegmentFacts, below: &SegmentFacts) -> Result<bool> {
        let Some(header) = segment.good_header() else { return Ok(false) };
        if segment.open.is_some() || below.seal.is_some() || below.good_header().is_none() {
            return Ok(false);
        }
        let name = format::segment_name(segment.sequence);
        let failed = |e| reading(self.dir, &name, e);
        let file = self.dir.open(&name, Access::Read).map_err(failed)?;
        let mut window = Window::limited(file, header.capacity.min(segment.file_len));
        let end = window.len();
        let mut walker = Walker::new(&mut window, header);
        while let Some(step) = walker.step().map_err(failed)? {
            if matches!(step, Step::Frame(_)) {
                return Ok(false);
            }
        }
        let stray = judge::stray(&mut window, (FRAMES_START.min(end), end)).map_err(failed)?;
        let Some(stray) = stray else { return Ok(false) };
        self.done.excused.push(below.sequence);
        self.done.damages.push(Damaged {
            class: Class::BitRot,
            state: State::Corrupt,
            segment: Some(segment.sequence),
            bytes: Some((stray.first, stray.last + 1)),
            lsns: None,
            expected: "a spare: a header, then zeros".to_owned(),
            found: format!("{} bytes that are not zero, and no frame", stray.count),
            decided: format!(
                "segment {} has no seal, so this one was never begun; because of these bytes an \
                 opening takes it for the active one",
                below.sequence
            ),
            loss: Loss { records: Some(0), promised: Some(false) },
            flip: stray.flip,
        });
        Ok(true)
    }

    fn map(&mut self, segment: &SegmentFacts, spans: Vec<Span>, durable_end: Option<u64>) {
        let (segment, len) = (segment.sequence, segment.file_len);
        self.done.maps.push(SegmentMap { segment, len, present: true, durable_end, spans });
    }

    fn around<'b>(
        &self,
        chain: &[&SegmentFacts],
        index: usize,
        sealed: bool,
        header: &SegmentHeader,
        known: &'b [Known],
    ) -> Around<'b> {
        let segment = chain[index];
        let next =
            chain.get(index + 1).filter(|next| segment.sequence.next() == Some(next.sequence));
        let open = next.and_then(|next| next.open.as_ref());
        let seal_at = open.and_then(|open| open.body.previous.as_ref()).map(|p| p.offset);
        let below = index.checked_sub(1).map(|below| chain[below]);
        let below = below.filter(|below| below.sequence.next() == Some(segment.sequence));
        let first = segment.open.as_ref().or(below.and_then(|below| below.seal.as_ref()));
        let first = first.map(|own| own.lsn);
        let first = first.or((segment.sequence == Sequence::FIRST).then_some(0));
        Around {
            sequence: segment.sequence,
            promised_end: if sealed { u64::MAX } else { self.witness(segment) },
            seal_at: seal_at.filter(|_| sealed),
            lsns: (first, open.filter(|_| sealed).map(|open| open.lsn)),
            capacity: header.capacity.min(2 * segment.file_len.max(1) + header.capacity / 2),
            place: Place { salt: header.salt, known },
        }
    }

    /// The offset in the active segment below which everything was durable.
    fn witness(&self, segment: &SegmentFacts) -> u64 {
        let active = self.facts.active.as_ref();
        let survey = active
            .filter(|active| self.facts.segments[active.index].sequence == segment.sequence)
            .and_then(|active| active.survey.as_ref());
        let control = trusted_control(self.facts).map(|control| control.control);
        let control = control.filter(|c| c.sequence == segment.sequence.get());
        let control = control.map_or(0, |control| control.durable_end);
        survey.map_or(FRAMES_START, |survey| survey.witness).max(control)
    }

    /// What recovery would cut is one torn tail, whatever stands in it.
    fn torn(&mut self, segment: &SegmentFacts, looked: &mut Looked) {
        let Decision::Plan(plan) = self.decision else { return };
        let Some(cut) = plan.cut.filter(|cut| cut.segment == segment.sequence) else { return };
        let first = looked.damages.first().cloned();
        looked.damages.clear();
        let found = first.map_or_else(
            || format!("the file has {} bytes", segment.file_len),
            |damage| damage.found,
        );
        let records = cut.lsns.map_or(0, |(low, high)| high.get() - low.get() + 1);
        looked.damages.push(Damaged {
            class: Class::TornTail,
            state: State::TornTail,
            segment: Some(cut.segment),
            bytes: Some((cut.from, cut.to.max(cut.from))),
            lsns: cut.lsns,
            expected: "a whole batch, or zeros".to_owned(),
            found,
            decided:
                "it stands at the end, and nothing proves that a sync had covered it: no later \
                      frame and no control block that was written here"
                    .to_owned(),
            loss: Loss { records: Some(records), promised: Some(false) },
            flip: None,
        });
    }

    /// The first 128 bytes of a segment.
    fn header_damage(
        &self,
        segment: &SegmentFacts,
        head: &[u8],
        known: &[Known],
    ) -> io::Result<Damaged> {
        let why = match &segment.header {
            HeaderVerdict::Bad(why) => *why,
            _ => "",
        };
        let flipped = flip::in_segment_header(head);
        let fits = flipped.filter(|(_, header)| header.sequence == segment.sequence);
        let mut source = head;
        let place = Place { salt: 0, known };
        let judged = judge::by_content(&mut source, (0, head.len() as u64), place, why)?;
        let (class, decided) = match fits {
            Some(_) => (Class::BitRot, "with one bit flipped back it is a good header".to_owned()),
            None if head.len() < SEGMENT_HEADER_LEN => {
                (Class::LostTail, format!("the file has {} bytes", head.len()))
            }
            None => (judged.class, judged.decided),
        };
        Ok(Damaged {
            class,
            state: State::Corrupt,
            segment: Some(segment.sequence),
            bytes: Some((0, FRAMES_START)),
            lsns: None,
            expected: format!("the header of segment {}", segment.sequence),
            found: if fits.is_some() || judged.found == why {
                why.to_owned()
            } else {
                format!("{why}: {}", judged.found)
            },
            decided,
            loss: Loss { records: None, promised: Some(true) },
            flip: fits.map(|(flip, _)| flip),
        })
    }

    fn beyond_capacity(&mut self, segment: &SegmentFacts, header: &SegmentHeader) {
        if segment.good_header().is_none() || segment.file_len <= header.capacity {
            return;
        }
        self.done.damages.push(Damaged {
            class: Class::ForeignBytes,
            state: State::Corrupt,
            segment: Some(segment.sequence),
            bytes: Some((header.capacity, segment.file_len)),
            lsns: None,
            expected: format!("a file of {} bytes, its capacity", header.capacity),
            found: format!("{} bytes", segment.file_len),
            decided: "a segment gets its full size when it is made; nothing makes it longer"
                .to_owned(),
            loss: Loss { records: Some(0), promised: Some(false) },
            flip: None,
        });
    }
}

fn before(sequence: Sequence) -> Sequence {
    sequence.previous().unwrap_or(sequence)
}

/// The map of a segment at which nobody looked closely, because nothing was wrong with it.
fn far_map(segment: &SegmentFacts, report: &Report, beyond: bool) -> SegmentMap {
    let own = report.segments.iter().find(|own| own.sequence == segment.sequence);
    let used = own.and_then(|own| own.used_bytes).filter(|_| !beyond);
    let len = segment.file_len;
    let end = used.map_or(if beyond { FRAMES_START } else { len }, |used| used.min(len));
    let data = if report.records.is_some() { SpanKind::Data } else { SpanKind::Unread };
    let spans = [
        Span { from: 0, to: FRAMES_START.min(len), kind: SpanKind::Header },
        Span { from: FRAMES_START, to: end, kind: data },
        Span { from: end.max(FRAMES_START), to: len, kind: SpanKind::Free },
    ];
    let spans = spans.into_iter().filter(|span| span.from < span.to).collect();
    SegmentMap { segment: segment.sequence, len, present: true, durable_end: None, spans }
}
