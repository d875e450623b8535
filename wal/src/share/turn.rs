//! A process's turn, between its threads: who opens it, who shares it, when it ends.
//!
//! Never here: `APPEND` itself, files ([`super::begin`]). The first thread that wants a place opens
//! the turn: it stands in line without the writer, so that others may look meanwhile
//! ([`super::look`]), and takes the writer when it has `APPEND`; threads that come while the turn
//! is open share its groups; after [`GROUPS_MAX`] groups no one joins, so that a turn ends whatever
//! comes; how many turns a process takes one after the other is [`super::append`]'s (a row of them,
//! for its time); when nobody is in it and nothing is left to write, whoever notices ends it.
//! Invariants: the phase changes only under the queue's lock; while a turn is open or closing this
//! process holds `APPEND`, while it ends perhaps, and at no other time (an opening's moments and
//! the end of a wait apart); whoever opens or ends a turn changes the phase again, also when it
//! fails; no look begins once `APPEND` is had, so that a turn waits for one at most. Next rooms:
//! [`super::look`], [`crate::commit`].

use crate::commit::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::LockMode;
use crate::mutant;
use crate::queue::{Mode, Queue};
use crate::sync::{MutexGuard, PoisonError};
use crate::writer::Writer;

use super::Member;
use super::append::Meanwhile;
use super::begin::Failed;
use super::catch_up::News;

/// Groups of one turn, after which it takes nobody in any more.
const GROUPS_MAX: u32 = 4;

/// Guarded by the queue's lock.
#[derive(Debug, Default)]
pub(crate) struct TurnState {
    pub(super) phase: Phase,
    /// A thread has the writer for a look ([`super::look`]): while no turn is open, and none is
    /// begun before it is back.
    pub(super) looking: bool,
    /// Threads that are in it: between asking for a place and having one or none.
    users: u32,
    /// Of those, who keeps it ([`crate::Log::turn`]): for them it never closes.
    kept: u32,
    groups: u32,
    /// Who took the writer to write a group and has not said that it is done: one may go on to tell
    /// its waiters while the next one already writes.
    leaders: u32,
    /// Counts openings that failed, so that everybody who waits for one learns of its failure.
    failed: u64,
    error: Option<Error>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    /// Somebody else's turn, or nobody's.
    #[default]
    Closed,
    /// A thread waits for `APPEND`. It has nothing of the queue's.
    Waiting,
    /// It has `APPEND`, takes the writer, and looks at what others did.
    Opening,
    /// LSNs are given.
    Open,
    /// The last groups are written.
    Closing,
    /// A thread gives `APPEND` back.
    Ending,
}

/// A thread's part in a turn. The turn lasts at least as long.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    core: &'a Core,
    kept: bool,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.core.leave_turn(self.kept);
    }
}

impl Core {
    /// For an owner nothing; for a member a part in a turn that is open, or a wait, after which it
    /// is to be asked for again.
    pub(crate) fn ask_for_turn<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        pass: &mut Option<Pass<'a>>,
        keep: bool,
    ) -> Result<MutexGuard<'a, Queue>> {
        let Some(member) = &self.member else { return Ok(queue) };
        match queue.turn.phase {
            Phase::Open => Ok(self.enter(queue, pass, keep)),
            Phase::Closed => {
                let queue = self.open_turn(member, queue)?;
                Ok(self.enter(queue, pass, keep))
            }
            Phase::Waiting | Phase::Opening | Phase::Closing | Phase::Ending => {
                let before = queue.turn.failed;
                queue = self.wait_room(queue);
                match &queue.turn.error {
                    Some(error) if queue.turn.failed != before => Err(error.clone()),
                    _ => Ok(queue),
                }
            }
        }
    }

    /// In an open turn; not in one whose opener found the log poisoned.
    fn enter<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        pass: &mut Option<Pass<'a>>,
        keep: bool,
    ) -> MutexGuard<'a, Queue> {
        if queue.turn.phase == Phase::Open {
            queue.turn.users += 1;
            queue.turn.kept += u32::from(keep);
            *pass = Some(Pass { core: self, kept: keep });
        }
        queue
    }

    fn open_turn<'a>(
        &'a self,
        member: &'a Member,
        mut queue: MutexGuard<'a, Queue>,
    ) -> Result<MutexGuard<'a, Queue>> {
        queue.turn.phase = Phase::Waiting;
        drop(queue);
        let guard = Opening { core: self, member };
        let mut writer = None;
        let begun = self.wait_and_begin(member, &mut writer);
        std::mem::forget(guard);
        let mut queue = self.queue();
        match begun {
            Ok(news) => {
                if let Some(writer) = &mut writer {
                    self.publish_news(&mut queue, writer, news);
                }
                queue.writer = writer;
                let failed = queue.turn.failed;
                queue.turn = TurnState { phase: Phase::Open, failed, ..TurnState::default() };
                // Before anybody could end it, it is the opener's.
                if queue.waiting_for_room > 0 {
                    self.room.notify_all();
                }
                Ok(queue)
            }
            Err(Failed { error, poisons }) => {
                queue.turn.phase = Phase::Closed;
                queue.turn.failed += 1;
                queue.turn.error = Some(error.clone());
                if poisons {
                    poison_at_once(&mut queue, &error);
                }
                self.give_back(queue, writer);
                if poisons {
                    self.poison(error.clone().with_kind(ErrorKind::Poisoned));
                }
                Err(error)
            }
        }
    }

    /// `APPEND`, then the writer, then the turn. Whoever fails has not got `APPEND`.
    fn wait_and_begin(
        &self,
        member: &Member,
        writer: &mut Option<Writer>,
    ) -> std::result::Result<News, Failed> {
        let in_line = InLine { core: self, member };
        member.append.take(&*self.shared.dir, self.options.lock_timeout, &in_line)?;
        let taken = self.take_writer().inspect_err(|_| member.append.release());
        let writer = writer.insert(taken?);
        self.begin_turn(member, writer)
    }

    /// For who has `APPEND`. Another thread may be at a look and bring the writer back; none begins
    /// one any more. It is gone for good only if the log was poisoned, which then is the answer.
    fn take_writer(&self) -> Result<Writer> {
        let mut queue = self.queue();
        queue.turn.phase = Phase::Opening;
        while queue.turn.looking {
            queue = self.wait_room(queue);
        }
        queue.check_mode()?;
        let gone = || Error::new(ErrorKind::Poisoned, "the log has no writer any more");
        queue.writer.take().ok_or_else(gone)
    }

    /// The writer comes back, if the caller had it, and who waits for that or for a change of the
    /// phase is told. Of a log that was poisoned meanwhile it is dropped.
    pub(super) fn give_back(&self, mut queue: MutexGuard<'_, Queue>, writer: Option<Writer>) {
        let given_up = match writer {
            Some(writer) if matches!(queue.mode, Mode::Poisoned(_)) => Some(writer),
            Some(writer) => queue.writer.replace(writer),
            None => None,
        };
        // It sleeps on where it has nothing to write and is to go on: a turn wakes it for nothing.
        let over = queue.handles_gone || !matches!(queue.mode, Mode::Open);
        let (waited, committer) = (queue.waiting_for_room > 0, queue.committer_sleeps && over);
        drop(queue);
        drop(given_up);
        if waited {
            self.room.notify_all();
        }
        if committer {
            self.work.notify_all();
        }
    }

    /// A part in a turn that does not close, for an owner nothing.
    pub(crate) fn hold_turn(&self) -> Result<Option<Pass<'_>>> {
        let mut pass = None;
        let mut queue = self.queue();
        while self.member.is_some() && pass.is_none() {
            queue.check_mode()?;
            queue = self.ask_for_turn(queue, &mut pass, true)?;
        }
        Ok(pass)
    }

    pub(crate) fn leave_turn(&self, kept: bool) {
        {
            let mut queue = self.queue();
            queue.turn.users = queue.turn.users.saturating_sub(1);
            queue.turn.kept = queue.turn.kept.saturating_sub(u32::from(kept));
        }
        self.see_to_the_turn();
    }

    /// Until this process has no turn any more. Whoever led tells its waiters first: a process that
    /// ended right then would leave its mark behind, and the next holder would recover. A turn that
    /// somebody keeps is not waited for: it may be this very thread's. It ends as any, later.
    pub(crate) fn await_turns_end(&self) {
        let mut queue = self.queue();
        let lasts = |queue: &Queue| queue.turn.phase != Phase::Closed && queue.turn.kept == 0;
        while self.member.is_some() && lasts(&queue) {
            queue = self.wait_room(queue);
        }
    }

    /// Somebody takes the writer, to write the front group.
    pub(crate) fn leads(&self, queue: &mut Queue) {
        if self.member.is_some() {
            queue.turn.leaders += 1;
            queue.turn.groups += 1;
            let enough = queue.turn.groups >= GROUPS_MAX && queue.turn.kept == 0;
            if enough && queue.turn.phase == Phase::Open {
                queue.turn.phase = Phase::Closing;
            }
        }
    }

    /// Whoever led is done, however that ended.
    pub(crate) fn led(&self) {
        if self.member.is_some() {
            {
                let mut queue = self.queue();
                queue.turn.leaders = queue.turn.leaders.saturating_sub(1);
            }
            self.see_to_the_turn();
        }
    }

    /// Ends the turn if nobody is in it and nothing is left to write. The mark of a turn that
    /// failed stays.
    pub(crate) fn see_to_the_turn(&self) {
        let Some(member) = &self.member else { return };
        let (mut writer, spare) = {
            let mut queue = self.queue();
            let turn = &queue.turn;
            let writes = turn.leaders > 0 || !queue.groups.is_empty();
            let lasts = turn.users > 0 || (writes && !mutant::is("share:a-turn-leaves-its-groups"));
            if lasts || !matches!(turn.phase, Phase::Open | Phase::Closing) {
                return;
            }
            queue.turn.phase = Phase::Ending;
            // Another process may make the next segment anew.
            (queue.writer.take(), queue.spare.take())
        };
        if let Some(writer) = &mut writer {
            let _ = writer.control().clear();
        }
        member.append.release();
        drop(spare);
        let mut queue = self.queue();
        queue.turn.phase = Phase::Closed;
        self.give_back(queue, writer);
    }

    /// Whether nobody else has the log open, so that its end may be written. Asked in a turn, in
    /// which nobody can join.
    pub(crate) fn is_last(&self) -> bool {
        if self.member.is_none() || mutant::is("share:anybody-is-last") {
            return true;
        }
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = lock.as_ref().map(|lock| lock.relock(LockMode::Exclusive));
        matches!(alone, Some(Ok(true)))
    }
}

/// While the queue is still locked: whoever comes next must not find the writer gone and the log
/// open, and go round and round under the lock that [`Core::poison`] waits for.
pub(super) fn poison_at_once(queue: &mut Queue, error: &Error) {
    if !matches!(queue.mode, Mode::Poisoned(_)) {
        queue.mode = Mode::Poisoned(error.clone().with_kind(ErrorKind::Poisoned));
    }
}

/// What the thread that waits for `APPEND` does meanwhile.
struct InLine<'a> {
    core: &'a Core,
    member: &'a Member,
}

impl Meanwhile for InLine<'_> {
    /// A look of another thread may have found that the log is lost for this process.
    fn check(&self) -> Result<()> {
        self.core.queue().check_mode()
    }

    fn read_on(&self) -> std::result::Result<(), Failed> {
        self.core.look_in_line(self.member)
    }
}

/// Dropped only by a panic (a listener's, say): the turn is given back, and the log is poisoned.
struct Opening<'a> {
    core: &'a Core,
    member: &'a Member,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Poisoned, "the beginning of a turn panicked");
        {
            let mut queue = self.core.queue();
            queue.turn.phase = Phase::Closed;
            queue.turn.failed += 1;
            queue.turn.error = Some(error.clone());
            poison_at_once(&mut queue, &error);
        }
        self.core.poison(error);
        self.member.append.release();
    }
}
