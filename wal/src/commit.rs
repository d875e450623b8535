//! Group commit: one leader at a time writes and syncs the front group outside every lock, then
//! tells exactly that group's waiters.
//!
//! Never here: format, places, file names. One `commit` serves blocking callers (who may lead, so
//! that one writer needs no thread hop) and the committer thread (who leads for everybody else).
//!
//! Locks: `queue` guards [`Queue`]; it is never held during I/O and nobody waits for durability
//! under it. A cohort's lock is taken after it or alone. Order: queue, then the caller's state.
//! Invariant: whoever takes the writer out of the queue puts it back or poisons the log, also when
//! it panics; so nobody waits for ever (okaywal's leader left its flag set on an error).
//! Next room: [`crate::writer`].

use std::sync::Arc;
use std::time::Duration;

use crate::claim::{Claims, Common};
use crate::cohort::Cohort;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::fork::Home;
use crate::fs::{Dir, DirLock};
use crate::ids::{LogId, Lsn, Sequence};
use crate::index::ActiveStarts;
use crate::mutant;
use crate::options::Options;
use crate::queue::{Group, Mode, NoPlace, Queue, poisoned};
use crate::recover::apply::SegmentSpan;
use crate::share::Member;
use crate::share::turn::Pass;
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, PoisonError, thread};
use crate::watch::Watch;
use crate::writer::{Committed, SealState, Writer};

/// What everything that may still write owns together. The directory's lock is free when the
/// last of them is gone.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) queue: Mutex<Queue>,
    /// The committer waits here for a group and no leader.
    pub(crate) work: Condvar,
    /// Callers wait here for room in the queue or for a preparation to end.
    pub(crate) room: Condvar,
    /// The preparer waits here to be asked.
    pub(crate) ahead: Condvar,
    /// Batches admitted so far, about: a leader that gathers looks at it without any lock, and
    /// nothing but its patience depends on it.
    pub(crate) arrivals: AtomicU64,
    pub(crate) options: Options,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lock: Mutex<Option<Box<dyn DirLock>>>,
    /// Where other processes write too.
    pub(crate) member: Option<Member>,
    pub(crate) watch: Watch,
    pub(crate) home: Home,
}

/// Who writes what is admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leads {
    /// Whoever admits goes on to wait for it, and leads if nobody does.
    Caller,
    /// Whoever admits goes away.
    Committer,
}

/// What readers of this process need, and nothing that could write.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) log_id: LogId,
    /// Highest LSN covered by a sync that returned success; 0 if none. Read without any lock,
    /// also under a caller's own state lock.
    pub(crate) durable_lsn: AtomicU64,
    /// Guards what readers go by, all of it at one point of time. Taken last and left at once.
    pub(crate) frontier: Mutex<Frontier>,
    /// Places to begin at in the segment that is written. Its lock is taken alone.
    pub(crate) starts: ActiveStarts,
    /// Guards the segments that a trim took out of the set and has not unlinked yet. Held while
    /// unlinking, so that two trims do it one after the other.
    pub(crate) condemned: Mutex<Vec<Sequence>>,
    /// Names that one room each may have.
    pub(crate) claims: Claims,
    /// What rooms of a kind share.
    pub(crate) common: Common,
}

/// A segment and the offset in it up to which readers may look. Earlier segments are whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SegmentBound {
    pub(crate) sequence: Sequence,
    pub(crate) end: u64,
}

/// How far the log is durable, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frontier {
    pub(crate) bound: SegmentBound,
    pub(crate) durable_lsn: u64,
    /// First LSN kept, its trim record durable.
    pub(crate) head: Lsn,
    /// The segments, lowest first.
    pub(crate) spans: Arc<Vec<SegmentSpan>>,
}

impl Shared {
    pub(crate) fn frontier(&self) -> Frontier {
        self.lock().clone()
    }

    pub(crate) fn head(&self) -> Lsn {
        self.lock().head
    }

    pub(crate) fn edit_frontier(&self, edit: impl FnOnce(&mut Frontier)) {
        edit(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Frontier> {
        self.frontier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic inside `ordered`'s closure happens before the closure applied anything, and
        // every change to the queue itself is complete before a caller's code runs.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a child made by fork, whose last handle goes: its copy of the lock file is closed,
    /// which leaves the parent's lock alone, and nothing else is touched. The committer is not
    /// there.
    pub(crate) fn let_go(&self) {
        if let Ok(mut lock) = self.lock.try_lock() {
            lock.take();
        }
    }

    /// Leads until this cohort is done or somebody else leads; then waits for it.
    pub(crate) fn lead_or_wait(&self, cohort: &Cohort) -> Result<()> {
        loop {
            if let Some(result) = cohort.result() {
                self.hand_over();
                return result;
            }
            if !self.lead_once() {
                return cohort.wait();
            }
        }
    }

    /// Waits until everything that was admitted is written, nobody prepares a segment and no room
    /// has a tenure. For a log that admits nothing more: after this no thread touches a file, so the
    /// directory's lock may go to the next owner.
    pub(crate) fn drain(&self) -> Result<()> {
        loop {
            let last = {
                let mut queue = self.queue();
                while queue.preparing || queue.tenures > 0 {
                    queue = self.wait_room(queue);
                }
                if let Mode::Poisoned(cause) = &queue.mode {
                    return Err(poisoned(cause));
                }
                let waiting = queue.last_cohort();
                waiting.or_else(|| queue.in_flight.as_ref().map(|(_, cohort)| cohort.clone()))
            };
            match last {
                Some(cohort) => self.lead_or_wait(&cohort)?,
                None => return Ok(()),
            }
        }
    }

    /// Leaves what is still queued to the committer. Returns whether there is one.
    pub(crate) fn hand_over(&self) -> bool {
        let mut queue = self.queue();
        self.call_the_committer(&mut queue);
        queue.committer
    }

    /// Wakes the committer if there is something to write and nobody who does.
    pub(crate) fn call_the_committer(&self, queue: &mut Queue) {
        if queue.committer_sleeps && queue.writer.is_some() && !queue.groups.is_empty() {
            queue.committer_sleeps = false;
            self.work.notify_one();
        }
    }

    /// Writes the front group if nobody leads. Returns whether it did.
    pub(crate) fn lead_once(&self) -> bool {
        let mut queue = self.queue();
        if queue.groups.is_empty() {
            return false;
        }
        let Some(writer) = queue.writer.take() else { return false };
        self.leads(&mut queue);
        queue = self.gather(queue);
        // Gone meanwhile if somebody poisoned the log: then everybody was told, and the writer goes.
        let Some(group) = queue.groups.pop_front() else {
            drop(queue);
            drop(writer);
            self.led();
            return true;
        };
        let seal_after = queue.seal_after_front();
        queue.in_flight = Some((group.last_lsn, group.cohort.clone()));
        queue.gather.taken(self.arrivals());
        drop(queue);
        if let Some(member) = &self.member {
            member.let_the_next_queue();
        }
        Leader { core: self, cohort: group.cohort.clone(), told: false }
            .run(group, writer, seal_after);
        true
    }

    /// Lets those join the front group who are on their way back from the last one. The group stays
    /// in the queue until it is taken; the writer in this leader's hands keeps others from it.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        // A group that is not the last one takes nobody any more.
        if queue.groups.len() != 1 || !queue.groups.front().is_some_and(Group::is_open) {
            return queue;
        }
        let Some(wait) = queue.gather.plan(self.arrivals()) else { return queue };
        drop(queue);
        // The writer is in our hands and no leader stands for it yet.
        let guard = Guard { core: self, died: "a leader that gathered panicked", prepared: false };
        let all_came = wait.until(&self.arrivals, &*self.shared.dir);
        std::mem::forget(guard);
        queue = self.queue();
        queue.gather.learn(all_came);
        queue.counters.gathered += u64::from(all_came);
        queue
    }

    fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Publishes a commit's outcome: durable first, then the waiters, then room.
    fn committed(
        &self,
        group: Group,
        writer: Writer,
        done: Committed,
        rotated: bool,
        took: Duration,
    ) {
        let sequence = writer.segment().header.sequence;
        self.publish_durable(sequence, done, rotated);
        // Dropped, and its files closed, after the lock is left.
        let mut given_up = None;
        let wanted = {
            let mut queue = self.queue();
            // Somebody else may have poisoned the log meanwhile (a failed directory sync). This
            // group's own sync succeeded, so its waiters get their answer; the writer goes.
            let poisoned = matches!(queue.mode, Mode::Poisoned(_));
            if poisoned {
                given_up = Some(writer);
            } else {
                queue.writer = Some(writer);
            }
            queue.in_flight = None;
            queue.gather.released(self.arrivals(), took);
            queue.leftovers.keep(group.frames, group.cohort.clone());
            queue.queued_bytes = queue.queued_bytes.saturating_sub(group.bytes);
            queue.counters.groups += 1;
            queue.counters.syncs += done.syncs;
            queue.counters.bytes += done.bytes;
            (queue.waiting_for_room > 0, queue.room_wakers.take())
        };
        drop(given_up);
        let (threads, futures) = wanted;
        if threads {
            self.room.notify_all();
        }
        group.cohort.publish_to(Ok(()), group.batches);
        if !mutant::is("room:futures-forgotten") {
            futures.wake();
        }
    }

    fn publish_durable(&self, sequence: Sequence, done: Committed, rotated: bool) {
        self.shared.edit_frontier(|frontier| {
            if rotated {
                let span = SegmentSpan { sequence, before: frontier.durable_lsn };
                Arc::make_mut(&mut frontier.spans).push(span);
            }
            frontier.bound = SegmentBound { sequence, end: done.durable_end };
            frontier.durable_lsn = done.durable_lsn;
        });
        self.shared.durable_lsn.store(done.durable_lsn, Ordering::Release);
    }

    /// Refuses every write from now on and tells everyone who waits. The writer is gone, so no
    /// byte can follow a failed write or sync, and nothing is ever retried.
    pub(crate) fn poison(&self, cause: Error) {
        let (waiting, writer) = {
            let mut queue = self.queue();
            if !matches!(queue.mode, Mode::Poisoned(_)) {
                queue.mode = Mode::Poisoned(cause.clone());
            }
            let waiting: Vec<Group> = queue.groups.drain(..).collect();
            let bytes: u64 = waiting.iter().map(|group| group.bytes).sum();
            queue.queued_bytes = queue.queued_bytes.saturating_sub(bytes);
            // A group in flight keeps its place: its leader still tells its waiters.
            (waiting, queue.writer.take())
        };
        drop(writer);
        for group in waiting {
            let lied = mutant::is("poison:the-queue-is-told-ok");
            group.cohort.publish(if lied { Ok(()) } else { Err(cause.clone().unknown()) });
        }
        self.work.notify_all();
        self.ahead.notify_all();
        self.tell_of_room();
        // Of groups that nobody led yet, nobody else would end the turn.
        self.see_to_the_turn();
    }

    /// What two mutants do instead of poisoning: the writer stays and the log goes on.
    fn goes_on(&self, writer: Writer, cohort: &Cohort, error: Error) {
        {
            let mut queue = self.queue();
            queue.writer = Some(writer);
            queue.in_flight = None;
        }
        cohort.publish(Err(error.unknown()));
    }

    /// Runs `f` under the queue lock until it has its place: prepares segments and waits for
    /// room outside the lock.
    pub(crate) fn with_place<T>(
        self: &Arc<Self>,
        leads: Leads,
        mut f: impl FnMut(&mut Queue) -> std::result::Result<T, NoPlace>,
    ) -> Result<T> {
        // Before the lock, which in a forked child nobody may ever leave.
        self.home.check()?;
        let mut pass = None;
        loop {
            let frame_bytes = {
                let mut queue = self.wait_for_room(&mut pass)?;
                self.see_to_a_leader(&mut queue, leads)?;
                match f(&mut queue) {
                    Ok(value) => {
                        self.arrivals.fetch_add(1, Ordering::Relaxed);
                        self.see_to_the_spare(&mut queue);
                        return Ok(value);
                    }
                    Err(NoPlace::Failed(error)) => return Err(error),
                    Err(NoPlace::Prepare { frame_bytes }) => frame_bytes,
                }
            };
            self.prepare_spare(frame_bytes)?;
        }
    }

    /// Starts the committer before the first batch that needs it: nobody can be told that there is
    /// no thread once the batch is ordered. A caller that leads and finds the queue idle needs none,
    /// so a log that one thread writes has no other thread, and neither has one that only opens.
    /// Started under the lock, once: two callers must not, and the second must not go on before.
    pub(crate) fn see_to_a_leader(self: &Arc<Self>, queue: &mut Queue, leads: Leads) -> Result<()> {
        let idle = queue.writer.is_some() && queue.groups.is_empty();
        if queue.committer || (leads == Leads::Caller && idle) {
            return Ok(());
        }
        let core = self.clone();
        thread::Builder::new()
            .name("annals-committer".to_owned())
            .spawn(move || committer(core))
            .map_err(|e| Error::io("starting the committer thread", e))?;
        queue.committer = true;
        Ok(())
    }

    /// Waits for room, and on a shared log for the turn, in which the caller stays.
    fn wait_for_room<'a>(&'a self, pass: &mut Option<Pass<'a>>) -> Result<MutexGuard<'a, Queue>> {
        let mut queue = self.queue();
        loop {
            match &queue.mode {
                Mode::Poisoned(cause) => return Err(poisoned(cause)),
                Mode::Closed => return Err(Error::closed()),
                Mode::Open => {}
            }
            queue = if !self.has_room(&queue) {
                self.wait_room(queue)
            } else if self.member.is_some() && pass.is_none() {
                self.ask_for_turn(queue, pass, false)?
            } else {
                return Ok(queue);
            };
        }
    }
}

/// One commit in the hands of its leader. Dropped before its outcome is published (a panic), it
/// poisons and tells the group's waiters.
struct Leader<'a> {
    core: &'a Core,
    cohort: Arc<Cohort>,
    /// Set once the waiters are told. (Forgetting the leader instead leaked its share of the cohort,
    /// 72 bytes a group for as long as the process ran: `tests/resources.rs`.)
    told: bool,
}

impl Leader<'_> {
    fn run(mut self, mut group: Group, mut writer: Writer, seal_after: Option<SealState>) {
        let rotated = group.rotation.is_some();
        let begin = self.core.shared.dir.elapsed();
        let written = || self.cohort.publish_written();
        match writer.commit(&mut group, seal_after.as_ref(), &written) {
            Ok(done) => {
                let took = self.core.shared.dir.elapsed().saturating_sub(begin);
                self.core.committed(group, writer, done, rotated, took);
            }
            Err((doing, e)) => {
                let header = &writer.segment().header;
                let location = Location {
                    segment: Some(header.sequence),
                    offset: Some(writer.end()),
                    lsns: None,
                };
                let error = Error::io(doing, e).with_kind(ErrorKind::Poisoned).at(location);
                let written = doing.starts_with("writing");
                if mutant::is(if written { "poison:write" } else { "poison:sync" }) {
                    self.told = true;
                    return self.core.goes_on(writer, &self.cohort, error);
                }
                // The file is let go before anyone is told: nothing may touch it again.
                drop(writer);
                self.core.poison(error.clone());
                self.cohort.publish(Err(error.unknown()));
            }
        }
        self.told = true;
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if !self.told {
            let error = Error::new(ErrorKind::Poisoned, "the leader of a group panicked");
            self.core.poison(error.clone());
            self.cohort.publish(Err(error.unknown()));
        }
        self.core.led();
    }
}

/// Dropped only by a panic: whoever waits for what this thread was doing must be told.
pub(crate) struct Guard<'a> {
    pub(crate) core: &'a Core,
    pub(crate) died: &'static str,
    /// Whether it was preparing a segment.
    pub(crate) prepared: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.prepared {
            self.core.queue().preparing = false;
        }
        self.core.poison(Error::new(ErrorKind::Poisoned, self.died));
        if !self.prepared {
            self.core.led();
        }
    }
}

/// The committer: leads for callers who never do I/O, and writes what was admitted after the last
/// handle is gone. It owns a share of the directory's lock until it returns.
fn committer(core: Arc<Core>) {
    loop {
        {
            let mut queue = core.queue();
            loop {
                let over = match queue.mode {
                    Mode::Open => queue.handles_gone,
                    Mode::Closed => true,
                    Mode::Poisoned(_) => break,
                };
                if queue.writer.is_some() && (over || !queue.groups.is_empty()) {
                    break;
                }
                queue.committer_sleeps = true;
                queue = core.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.committer_sleeps = false;
            }
            let poisoned = matches!(queue.mode, Mode::Poisoned(_));
            if poisoned || queue.groups.is_empty() {
                return;
            }
        }
        core.lead_once();
    }
}
