//! Whole files of a log: under another's name, of another log, missing, too long.
//!
//! Never here: what stands in them ([`super::look`]). Invariant: of a long row of missing segments a
//! few are drawn, however long it is. Next room: [`super::set`].

use super::set::Set;
use super::value::{Class, Damaged, Loss, SegmentMap, Span, SpanKind};
use crate::error::Result;
use crate::format::{self, FRAMES_START, HeaderVerdict, SegmentHeader};
use crate::fs::Access;
use crate::ids::{Lsn, Sequence};
use crate::inspect::State;
use crate::recover::facts::{SegmentFacts, reading};
use crate::recover::{is_gap, trusted_control};
use crate::source::zeros_from;
use crate::window::Window;

impl Set<'_> {
    /// Why a file does not count as the segment that its name says.
    pub(super) fn misplaced(&self, segment: &SegmentFacts) -> Option<Damaged> {
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

    /// The table takes the highest file for the active segment, one under another's name too, and
    /// all below for sealed. That file is explained; those that were never sealed are looked at as
    /// what they are.
    pub(super) fn excuse_the_unsealed(&mut self, chain: &[&SegmentFacts], active: Option<usize>) {
        let Some(active) = active.filter(|_| self.took_misplaced(chain)) else { return };
        self.done.excused.extend(chain[active..].iter().map(|segment| segment.sequence));
    }

    pub(super) fn took_misplaced(&self, chain: &[&SegmentFacts]) -> bool {
        let taken = self.facts.active.as_ref().map(|active| &self.facts.segments[active.index]);
        taken.is_some_and(|taken| chain.iter().all(|s| s.sequence != taken.sequence))
    }

    /// Whether anything but zeros stands behind its header.
    pub(super) fn is_begun(&self, segment: &SegmentFacts) -> Result<bool> {
        let Some(header) = segment.good_header().filter(|_| segment.open.is_none()) else {
            return Ok(true);
        };
        let name = format::segment_name(segment.sequence);
        let failed = |e| reading(self.dir, &name, e);
        let file = self.dir.open(&name, Access::Read).map_err(failed)?;
        let mut window = Window::limited(file, header.capacity.min(segment.file_len));
        Ok(!zeros_from(&mut window, FRAMES_START).map_err(failed)?)
    }

    /// Segments that are not there.
    pub(super) fn gaps(&mut self, chain: &[&SegmentFacts], active: Option<usize>) {
        let Some(active) = active else { return };
        let head = self.report.head;
        // With which segment an archive begins its manifest says, and what was trimmed from the log
        // since is kept there.
        let archive = self.facts.archive;
        if let Some(first) = chain.first().filter(|_| !archive) {
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
            let trimmed = !archive && open.is_some_and(|lsn| lsn < head.get());
            let Some(missing) = low.sequence.next().filter(|m| *m < next.sequence) else {
                continue;
            };
            if trimmed || !is_gap(self.facts, low, next) {
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

    pub(super) fn beyond_capacity(&mut self, segment: &SegmentFacts, header: &SegmentHeader) {
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
