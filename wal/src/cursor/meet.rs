//! What a cursor does where the walk met no sound frame: an end, or damage.
//!
//! Never here: what damage is ([`crate::scan`] says it). Invariants: damage is read a second time
//! before it counts (the first read may have raced the owner); whoever asks again is answered anew.
//! Next room: [`crate::cursor`].

use std::io;

use super::place::Place;
use super::step::{failed, wanted};
use super::{Advance, Cursor};
use crate::commit::SegmentBound;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::ids::{Lsn, Sequence};
use crate::scan::{Mark, Sound, Step, Trouble};

impl Cursor {
    /// No sound frame. Whoever asks again gets the same answer, or a better one if the bytes have
    /// changed.
    #[cold]
    pub(super) fn turn_aside(
        &mut self,
        error: Option<io::Error>,
        bound: SegmentBound,
        proven_end: u64,
    ) -> Result<Advance> {
        let Some(place) = &self.at else { return Ok(Advance::AtBound) };
        let mark = place.walker.began();
        let advanced = match error {
            None => self.meet(mark, bound, proven_end),
            Some(error) => Err(failed(&self.view, place.sequence, error)),
        };
        if matches!(advanced, Ok(Advance::AtBound) | Err(_))
            && let Some(place) = &mut self.at
        {
            place.walker.source_mut().forget();
            place.walker.reset(mark);
        }
        advanced
    }

    /// Trouble, or an end. Trouble is read a second time before it counts.
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

    #[cold]
    pub(super) fn missing(&self, place: &Place) -> Error {
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

    pub(super) fn location(&self, segment: Sequence, offset: u64, lsn: u64) -> Location {
        let lsn = Lsn::new(lsn.max(1));
        Location { segment: Some(segment), offset: Some(offset), lsns: lsn.zip(lsn) }
    }
}

fn is_trouble(step: &Step) -> bool {
    match step {
        Step::Frame(frame) => frame.trouble.is_some(),
        Step::Unreadable { .. } => true,
        Step::Zeros { from, to } => from < to,
    }
}
