//! The beginning of a turn: `APPEND`, a look at what others did, what one of them left recovered,
//! the rest read, the mark set.
//!
//! Never here: the queue's lock, order, a retry. Invariants: nothing is written before the mark
//! stands, the recovery of another's turn apart, under whose mark it is done; a turn that cannot
//! begin gives `APPEND` back and leaves the mark as it found it. Next rooms: [`super::catch_up`],
//! [`crate::recover::apply`].

use std::cmp::Ordering;

use crate::commit::Core;
use crate::error::{Error, Location, Result};
use crate::format::Control;
use crate::mutant;
use crate::open;
use crate::records::RecordRef;
use crate::recover::apply::apply;
use crate::recover::{Decision, Facts, Row, decide};
use crate::sync::thread;
use crate::trust;
use crate::writer::Writer;

use super::Member;
use super::catch_up::{News, Until, catch_up, compare, damaged};

/// How often a control block is read that says nothing: 128 bytes are written in one go.
const LOOKS: u32 = 16;

/// A turn that could not begin.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether this handle is of no use any more.
    pub(super) poisons: bool,
}

impl Failed {
    fn poisons(error: Error) -> Failed {
        Failed { error, poisons: true }
    }
}

impl From<Error> for Failed {
    /// The handle stays usable: nothing was taken in halfway.
    fn from(error: Error) -> Failed {
        Failed { error, poisons: false }
    }
}

impl Core {
    /// With `APPEND` held. From here on the writer stands at the log's end, and the mark is set; or
    /// `APPEND` is given back.
    pub(super) fn begin_turn(
        &self,
        member: &Member,
        writer: &mut Writer,
    ) -> std::result::Result<News, Failed> {
        let begun = self.begin_under_append(member, writer);
        if begun.is_err() {
            member.append.release();
        }
        begun
    }

    fn begin_under_append(
        &self,
        member: &Member,
        writer: &mut Writer,
    ) -> std::result::Result<News, Failed> {
        let dir = &*self.shared.dir;
        // Whoever has another file under one of these names takes turns with nobody of us.
        let stands = self.watch.lock_stands();
        if !mutant::is("share:any-append-file") {
            stands.map_err(|e| Failed::poisons(Error::io("taking a turn", e)))?;
        }
        let (control, recovered) = match writer.control().read_back(dir)? {
            Some(control) if control.marks == 0 || mutant::is("share:mark-overlooked") => {
                writer.control().adopt(control);
                (control, false)
            }
            _ => (self.recover_after_another(writer).map_err(Failed::poisons)?, true),
        };
        // Before anything is taken in, so that a call that fails here has changed nothing.
        let marked = writer.control().mark();
        marked.map_err(|e| Error::io("marking the control block before a turn", e))?;
        let read = self.read_to(member, writer, &control);
        if read.is_err() && !recovered {
            // Nothing was written under it: no reason for others to recover.
            let _ = writer.control().clear();
        }
        read.map_err(Failed::poisons)
    }

    /// Reads on to where the log ends, which is just where its control block says.
    fn read_to(&self, member: &Member, writer: &mut Writer, control: &Control) -> Result<News> {
        if mutant::is("share:no-catch-up") {
            return Ok(News::default());
        }
        let listeners = member.living();
        let mut tell = |record: RecordRef<'_>| {
            listeners.iter().for_each(|listener| listener.appended(record));
        };
        let news = catch_up(writer, &*self.shared.dir, None, &mut tell)?;
        if compare(writer, control).is_ne() {
            let why = "the log does not end where its control block says that it does";
            return Err(damaged(writer, why));
        }
        Ok(news)
    }

    /// A member died in its turn, or could not end it, or the control block is not the one that was
    /// there: rows A' and B, as an opening does them. The mark stands until the turn's end.
    fn recover_after_another(&self, writer: &mut Writer) -> Result<Control> {
        let dir = &self.shared.dir;
        let facts = Facts::read(&**dir)?;
        let plan = match decide(&facts) {
            Decision::Plan(plan) => plan,
            Decision::Refuse(refusal) => return Err(open::refused(refusal)),
        };
        if plan.row == Row::Fresh {
            let why = "every segment is gone while processes have the log open";
            return Err(Error::corrupt(why, Location::default()));
        }
        open::check_extension(&facts, &self.options)?;
        trust::check_files(&**dir, &facts, &self.options)?;
        let bytes = self.options.segment_bytes;
        let opened = apply(dir, &facts, &plan, bytes, &self.watch, true)?;
        let mut control = opened.writer.into_control();
        std::mem::swap(writer.control(), &mut control);
        Ok(*writer.control().block())
    }

    /// What others have made durable, without a turn: up to where `CONTROL` says that a sync has
    /// covered everything. `None` where it says nothing: only a turn can tell then.
    pub(super) fn look(
        &self,
        member: &Member,
        writer: &mut Writer,
    ) -> std::result::Result<Option<News>, Failed> {
        let dir = &*self.shared.dir;
        let mut control = writer.control().read_back(dir)?;
        for _ in 1..LOOKS {
            if control.is_some() {
                break;
            }
            // Its holder may be writing it.
            thread::yield_now();
            control = writer.control().read_back(dir)?;
        }
        let Some(control) = control else { return Ok(None) };
        // A block that is behind is one that a recovery has begun anew and not finished.
        match compare(writer, &control) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(News::default())),
            Ordering::Greater => return Ok(None),
        }
        let listeners = member.living();
        let mut tell = |record: RecordRef<'_>| {
            listeners.iter().for_each(|listener| listener.appended(record));
        };
        let until = Some(Until::of(&control)).filter(|_| !mutant::is("share:looks-past-the-sync"));
        // Whoever failed halfway has told some of it already, and would tell it again.
        catch_up(writer, dir, until, &mut tell).map(Some).map_err(Failed::poisons)
    }
}
