//! A look: what other processes have made durable, read on without a turn.
//!
//! Never here: how it is read ([`super::begin`], [`super::catch_up`]), `APPEND`. One thread at a
//! time has the writer for a look, while this process has no turn: also while another thread stands
//! in line for one, which so keeps no reader waiting. Invariants: whoever takes the writer puts it
//! back or poisons the log, also when it panics, and tells who waits; a look never changes the
//! phase of the turn. Next room: [`super::turn`].

use crate::commit::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{Mode, Queue, poisoned};
use crate::sync::MutexGuard;
use crate::writer::Writer;

use super::Member;
use super::begin::Failed;
use super::turn::{Phase, poison_at_once};

impl Core {
    /// See [`crate::Log::refresh`].
    pub(crate) fn refresh(&self) -> Result<()> {
        let Some(member) = &self.member else { return Ok(()) };
        self.home.check()?;
        let mut queue = self.queue();
        // Whoever reads on now may have begun before what this call is to see was durable; and
        // whoever ends a turn gives `APPEND` back before it says so, to another process that has
        // written since (found by shuttle).
        while queue.turn.looking || matches!(queue.turn.phase, Phase::Opening | Phase::Ending) {
            queue = self.wait_room(queue);
        }
        // In its own turn a process knows everything.
        if !matches!(queue.turn.phase, Phase::Closed | Phase::Waiting) {
            return Ok(());
        }
        let Some(writer) = queue.writer.take() else {
            // It is behind from then on, and must not answer as if it were not.
            return match &queue.mode {
                Mode::Poisoned(cause) => Err(poisoned(cause)),
                _ => Ok(()),
            };
        };
        match self.look_with(member, queue, writer) {
            Ok(true) => Ok(()),
            // A turn reads on to the end, and recovers what there is to recover.
            Ok(false) => self.hold_turn().map(drop),
            Err(failed) => Err(failed.error),
        }
    }

    /// For who stands in line: the same once, unless another thread is at it.
    pub(super) fn look_in_line(&self, member: &Member) -> std::result::Result<(), Failed> {
        let mut queue = self.queue();
        match queue.writer.take() {
            Some(writer) => self.look_with(member, queue, writer).map(drop),
            None => Ok(()),
        }
    }

    /// Whether `CONTROL` said how far to read. On an error that poisons, everybody was told.
    fn look_with(
        &self,
        member: &Member,
        mut queue: MutexGuard<'_, Queue>,
        mut writer: Writer,
    ) -> std::result::Result<bool, Failed> {
        queue.turn.looking = true;
        drop(queue);
        let guard = Looking { core: self };
        let looked = self.look(member, &mut writer);
        std::mem::forget(guard);
        let mut queue = self.queue();
        queue.turn.looking = false;
        let looked = looked.map(|news| match news {
            Some(news) => {
                self.publish_news(&mut queue, &mut writer, news);
                true
            }
            None => false,
        });
        let poison = match &looked {
            Err(Failed { error, poisons: true }) => Some(error.clone()),
            _ => None,
        };
        if let Some(error) = &poison {
            poison_at_once(&mut queue, error);
        }
        self.give_back(queue, Some(writer));
        if let Some(error) = poison {
            self.poison(error.with_kind(ErrorKind::Poisoned));
        }
        looked
    }
}

/// Dropped only by a panic (a listener's, say), with the writer: the log is poisoned. `APPEND` is
/// not this thread's to give back.
struct Looking<'a> {
    core: &'a Core,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Poisoned, "a look at what others wrote panicked");
        {
            let mut queue = self.core.queue();
            queue.turn.looking = false;
            poison_at_once(&mut queue, &error);
        }
        self.core.poison(error);
    }
}
