//! Everything in a walk that is not a sound frame: an end, zeros, damage, and the way on behind it.
//!
//! Never here: a frame with nothing wrong. Invariants: where the step began is kept before anything
//! moves; every step that does not fail ends at a later place, or is the last. Next room: [`crate::scan`].

use std::io;

use super::{Batch, Frame, Header, LastLsn, Sound, Source, Step, Trouble, Walked, Walker};
use crate::format::{ALIGN, FRAME_HEADER_LEN};

/// Why a step does not end at a sound frame.
pub(super) enum Aside {
    /// Fewer bytes than a header, or the end was reported before.
    Short {
        left: u64,
    },
    Zeros,
    Unsound,
    Trouble(Trouble),
    Failed(io::Error),
}

impl<S: Source> Walker<S> {
    /// Everything that is not a sound frame.
    #[cold]
    pub(super) fn step_aside(&mut self, aside: Aside) -> io::Result<Walked> {
        self.began = self.mark();
        match aside {
            Aside::Failed(error) => Err(error),
            Aside::Short { left } => self.finish_short(left),
            Aside::Zeros => self.zeros(self.at),
            Aside::Unsound => self.skip(self.at, "the frame header's checksum is wrong"),
            Aside::Trouble(trouble) => {
                let Sound { offset, header } = self.current;
                self.go_past(self.current);
                Ok(self.meet(Step::Frame(Frame { offset, header, trouble: Some(trouble) })))
            }
        }
    }

    fn meet(&mut self, step: Step) -> Walked {
        self.met = Some(step);
        Walked::Other
    }

    /// Fewer bytes than a header are left, or the end was reported.
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

    fn zeros(&mut self, from: u64) -> io::Result<Walked> {
        if !self.zeros_from(from)? {
            return self.skip(from, "zeros where a frame was expected, and more after");
        }
        self.done = true;
        let to = self.source.len();
        Ok(self.meet(Step::Zeros { from, to }))
    }

    /// Goes on at the next sound header whose LSN could follow.
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
            if let Header::Sound(frame) = self.header_at(at)?
                && self.lsn_follows(&frame.header, at)
                && frame.end() <= self.limits.of(&frame.header)
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
