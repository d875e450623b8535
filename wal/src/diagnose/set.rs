//! The files of a log against each other: which is missing, misplaced, foreign, cut; and which of
//! them to look at closely.
//!
//! Never here: bytes of frames ([`super::look`]). The *chain* is the segments that bear their own
//! name or whose header is lost; a file under another's name is explained and then left out, so that
//! it accuses nobody. Invariant: nothing is invented: whatever the report found and this room cannot
//! explain keeps the report's own words ([`of_finding`]); what is beyond the caps is counted. Next
//! rooms: [`super::files`], [`super::ends`], [`super::look`].

use super::Scope;
use super::judge::Place;
use super::look::{Around, DAMAGES_MAX, Looked, look};
use super::salt::{Known, header_from_frames};
use super::value::{Class, Damaged, Loss, SegmentMap, Span, SpanKind};
use crate::error::Result;
use crate::format::{self, FRAMES_START, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::fs::{Access, Dir, read_full};
use crate::ids::{LogId, Sequence};
use crate::inspect::{Finding, Report, State};
use crate::recover::facts::{SegmentFacts, reading};
use crate::recover::{Decision, Facts, Row, trusted_control};
use crate::survey::Survey;
use crate::window::Window;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Explained {
    pub(super) damages: Vec<Damaged>,
    pub(super) maps: Vec<SegmentMap>,
    /// Segments that the table accuses because of a damage elsewhere, which is explained.
    pub(super) excused: Vec<Sequence>,
    /// Damages that are counted and not explained, and the segments that they are in.
    pub(super) cut: u64,
    pub(super) cut_segments: Vec<Sequence>,
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
    if set.took_misplaced(&chain) {
        // Below that file everything looks begun.
        while let Some(index) = active.filter(|index| *index > 0)
            && !set.is_begun(chain[index])?
        {
            active = Some(index - 1);
        }
    }
    if let Some(index) = active.filter(|index| *index > 0)
        && set.damaged_spare(chain[index], chain[index - 1])?
    {
        active = Some(index - 1);
    }
    set.excuse_the_unsealed(&chain, active);
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

pub(super) struct Set<'a> {
    pub(super) dir: &'a dyn Dir,
    pub(super) facts: &'a Facts,
    pub(super) decision: &'a Decision,
    pub(super) report: &'a Report,
    pub(super) log_id: Option<LogId>,
    pub(super) done: Explained,
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
        // An archive takes no appends: its last segment was whole when it was handed over, too.
        let sealed = Some(index) != active || self.facts.archive && self.facts.mark.is_none();
        let mut around = self.around(chain, index, sealed, &header, known);
        let limit = header.capacity.min(segment.file_len);
        if !sealed && (bad_header.is_some() || self.took_misplaced(chain)) {
            // An opening reads nothing behind a bad header, nor what it does not take for the active
            // segment; its frames are witnesses all the same.
            let survey = Survey::of(Window::limited(file.clone(), limit), &header);
            around.promised_end = around.promised_end.max(survey.map_err(failed)?.witness);
        }
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
        // Nobody names its seal where an archive leaves a number out; what is damaged here has it.
        let left_out = next.is_some() && around.seal_at.is_none() && !unnamed;
        if left_out && !looked.sealed && !looked.damages.is_empty() {
            self.done.excused.push(segment.sequence);
        }
        if !sealed {
            self.torn(segment, &mut looked);
        }
        self.keep(segment.sequence, &mut looked);
        self.map(segment, looked.spans, (!sealed).then_some(around.promised_end));
        Ok(())
    }

    /// As many damages as there is room for; the others are counted.
    fn keep(&mut self, segment: Sequence, looked: &mut Looked) {
        let room = DAMAGES_MAX.saturating_sub(self.done.damages.len());
        let cut = looked.cut + looked.damages.len().saturating_sub(room) as u64;
        looked.damages.truncate(room);
        self.done.damages.append(&mut looked.damages);
        if cut > 0 {
            self.done.cut += cut;
            self.done.cut_segments.push(segment);
        }
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
}

/// The map of a segment at which nobody looked closely, because nothing was wrong with it.
fn far_map(segment: &SegmentFacts, report: &Report, beyond: bool) -> SegmentMap {
    let own = report.segments.iter().find(|own| own.sequence == segment.sequence);
    let used = own.and_then(|own| own.used_bytes).filter(|_| !beyond);
    let len = segment.file_len;
    let end = used.map_or(if beyond { FRAMES_START } else { len }, |used| used.min(len));
    // A seal, or a walk of all of it, tells how many records there are.
    let told = own.is_some_and(|own| own.records.is_some());
    let data = if told { SpanKind::Data } else { SpanKind::Unread };
    let spans = [
        Span { from: 0, to: FRAMES_START.min(len), kind: SpanKind::Header },
        Span { from: FRAMES_START, to: end, kind: data },
        Span { from: end.max(FRAMES_START), to: len, kind: SpanKind::Free },
    ];
    let spans = spans.into_iter().filter(|span| span.from < span.to).collect();
    SegmentMap { segment: segment.sequence, len, present: true, durable_end: None, spans }
}
