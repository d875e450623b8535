//! The two ends of a segment that a file of its own kind explains: its header, and the tail that a
//! recovery would cut; and the spare that only looks begun.
//!
//! Never here: what stands between ([`super::look`]). Next room: [`super::set`].

use std::io;

use super::flip;
use super::judge::{self, Place};
use super::look::Looked;
use super::salt::Known;
use super::set::Set;
use super::value::{Class, Damaged, Loss};
use crate::error::Result;
use crate::format::{self, FRAMES_START, HeaderVerdict, SEGMENT_HEADER_LEN};
use crate::fs::Access;
use crate::inspect::State;
use crate::recover::Decision;
use crate::recover::facts::{SegmentFacts, reading};
use crate::scan::{Source, Step, Walker};
use crate::window::Window;

impl Set<'_> {
    /// The first 128 bytes of a segment.
    pub(super) fn header_damage(
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

    /// Whether the highest segment with data is one that was never begun: no sound frame in it, and
    /// no seal in the one before. To the table its bytes look like the beginning of a segment.
    pub(super) fn damaged_spare(
        &mut self,
        segment: &SegmentFacts,
        below: &SegmentFacts,
    ) -> Result<bool> {
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

    /// What recovery would cut is one torn tail, whatever stands in it.
    pub(super) fn torn(&mut self, segment: &SegmentFacts, looked: &mut Looked) {
        let Decision::Plan(plan) = self.decision else { return };
        let Some(cut) = plan.cut.filter(|cut| cut.segment == segment.sequence) else { return };
        let first = looked.damages.first().cloned();
        looked.damages.clear();
        looked.cut = 0;
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
}
