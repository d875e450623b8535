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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use crate::cohort::Cohort;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::fs::{Dir, DirLock};
use crate::ids::{LogId, Lsn, Sequence};
use crate::options::Options;
use crate::prepare::{Order, prepare};
use crate::queue::{Group, Mode, NoPlace, Queue, poisoned};
use crate::recover::apply::SegmentSpan;
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
    pub(crate) options: Options,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lock: Mutex<Option<Box<dyn DirLock>>>,
}

/// What readers of this process need, and nothing that could write.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) log_id: LogId,
    /// Highest LSN covered by a sync that returned success; 0 if none. Read without any lock,
    /// also under a caller's own state lock.
    pub(crate) durable_lsn: AtomicU64,
    /// First LSN kept.
    pub(crate) head: AtomicU64,
    /// Guards the bound for readers. Taken alone.
    pub(crate) frontier: Mutex<Frontier>,
    /// Guards the set of segments, lowest first. Taken alone.
    pub(crate) segments: RwLock<Vec<SegmentSpan>>,
}

/// A segment and the offset in it up to which readers may look. Earlier segments are whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentBound {
    pub(crate) sequence: Sequence,
    pub(crate) end: u64,
}

/// How far the log is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frontier {
    pub(crate) sequence: Sequence,
    pub(crate) durable_end: u64,
    pub(crate) durable_lsn: u64,
}

impl Shared {
    pub(crate) fn frontier(&self) -> Frontier {
        *self.frontier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn spans(&self) -> Vec<SegmentSpan> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn head(&self) -> Lsn {
        Lsn::new(self.head.load(Ordering::Acquire)).unwrap_or(Lsn::FIRST)
    }
}

impl Core {
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic inside `ordered`'s closure happens before the closure applied anything, and
        // every change to the queue itself is complete before a caller's code runs.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Leaves what is still queued to the committer.
    fn hand_over(&self) {
        let queue = self.queue();
        if queue.writer.is_some() && !queue.groups.is_empty() {
            self.work.notify_one();
        }
    }

    /// Writes the front group if nobody leads. Returns whether it did.
    pub(crate) fn lead_once(&self) -> bool {
        let mut queue = self.queue();
        if queue.writer.is_none() {
            return false;
        }
        let Some(group) = queue.groups.pop_front() else { return false };
        let Some(writer) = queue.writer.take() else { return false };
        let seal_after = queue.seal_after_front();
        queue.in_flight = Some((group.last_lsn, group.cohort.clone()));
        drop(queue);
        Leader { core: self, group, writer: Some(writer) }.run(seal_after);
        true
    }

    /// Publishes a commit's outcome: durable first, then the waiters, then room.
    fn committed(&self, group: Group, writer: Writer, done: Committed, rotated: bool) {
        let sequence = writer.segment().header.sequence;
        self.publish_durable(sequence, done, rotated);
        {
            let mut queue = self.queue();
            queue.writer = Some(writer);
            queue.in_flight = None;
            queue.queued_bytes -= group.bytes;
            queue.counters.groups += 1;
            queue.counters.syncs += done.syncs;
            queue.counters.bytes += done.bytes;
        }
        self.room.notify_all();
        group.cohort.publish(Ok(()));
    }

    fn publish_durable(&self, sequence: Sequence, done: Committed, rotated: bool) {
        let frontier =
            Frontier { sequence, durable_end: done.durable_end, durable_lsn: done.durable_lsn };
        if rotated {
            let before = self.shared.durable_lsn.load(Ordering::Acquire);
            let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
            segments.push(SegmentSpan { sequence, before });
        }
        *self.shared.frontier.lock().unwrap_or_else(PoisonError::into_inner) = frontier;
        self.shared.durable_lsn.store(done.durable_lsn, Ordering::Release);
    }

    /// Refuses every write from now on and tells everyone who waits. The writer is gone, so no
    /// byte can follow a failed write or sync, and nothing is ever retried.
    pub(crate) fn poison(&self, cause: Error) {
        let waiting: Vec<Group> = {
            let mut queue = self.queue();
            if !matches!(queue.mode, Mode::Poisoned(_)) {
                queue.mode = Mode::Poisoned(cause.clone());
            }
            queue.writer = None;
            queue.in_flight = None;
            queue.queued_bytes = 0;
            queue.preparing = false;
            queue.groups.drain(..).collect()
        };
        for group in waiting {
            group.cohort.publish(Err(cause.clone().unknown()));
        }
        self.room.notify_all();
        self.work.notify_all();
    }

    /// Runs `f` under the queue lock until it has its place: prepares segments and waits for
    /// room outside the lock.
    pub(crate) fn with_place<T>(
        &self,
        mut f: impl FnMut(&mut Queue) -> std::result::Result<T, NoPlace>,
    ) -> Result<T> {
        loop {
            let frame_bytes = {
                let mut queue = self.wait_for_room()?;
                match f(&mut queue) {
                    Ok(value) => return Ok(value),
                    Err(NoPlace::Failed(error)) => return Err(error),
                    Err(NoPlace::Prepare { frame_bytes }) => frame_bytes,
                }
            };
            self.prepare_spare(frame_bytes)?;
        }
    }

    fn wait_for_room(&self) -> Result<MutexGuard<'_, Queue>> {
        let mut queue = self.queue();
        loop {
            match &queue.mode {
                Mode::Poisoned(cause) => return Err(poisoned(cause)),
                Mode::Closed => return Err(Error::closed()),
                Mode::Open => {}
            }
            if queue.queued_bytes == 0 || queue.queued_bytes < self.options.queue_bytes_max {
                return Ok(queue);
            }
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes a spare ready that holds this many bytes of frames, or waits for whoever is at it.
    fn prepare_spare(&self, frame_bytes: u64) -> Result<()> {
        let mut queue = self.queue();
        if queue.preparing {
            let failed_before = queue.preparations_failed;
            while queue.preparing {
                queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.preparations_failed == failed_before {
                return Ok(());
            }
            let error = queue.preparation_error.clone();
            return Err(error.unwrap_or_else(Error::closed));
        }
        if let Mode::Poisoned(cause) = &queue.mode {
            return Err(poisoned(cause));
        }
        let order = self.order(&mut queue, frame_bytes)?;
        queue.preparing = true;
        drop(queue);
        let guard = PrepareGuard { core: self };
        let prepared = prepare(&*self.shared.dir, order);
        std::mem::forget(guard);
        let mut queue = self.queue();
        queue.preparing = false;
        let outcome = match prepared {
            Ok(spare) => {
                queue.spare = Some(spare);
                Ok(())
            }
            Err(failed) => {
                queue.preparations_failed += 1;
                queue.preparation_error = Some(failed.error.clone());
                Err(failed)
            }
        };
        drop(queue);
        self.room.notify_all();
        outcome.map_err(|failed| {
            if failed.poison {
                self.poison(failed.error.clone().with_kind(ErrorKind::Poisoned));
            }
            failed.error
        })
    }

    /// Which segment to prepare. A spare that is there and too small is given up for it.
    fn order(&self, queue: &mut Queue, frame_bytes: u64) -> Result<Order> {
        let capacity = capacity_for(frame_bytes, &self.options)?;
        let sequence = queue
            .tail
            .sequence
            .next()
            .ok_or_else(|| Error::invalid("the log has used its last segment number"))?;
        let replaced = queue.spare.take();
        Ok(Order {
            log_id: self.shared.log_id,
            sequence,
            capacity,
            salts_taken: [queue.tail.salt, replaced.as_ref().map_or(0, |s| s.header.salt)],
            replaces: replaced.is_some(),
        })
    }
}

/// The usual capacity, or the next power of two that holds the batch.
fn capacity_for(frame_bytes: u64, options: &Options) -> Result<u64> {
    let fits = |capacity: u64| {
        let used = crate::format::FRAMES_START + crate::format::reserve_bytes(capacity);
        used.checked_add(frame_bytes).is_some_and(|needed| needed <= capacity)
    };
    let mut capacity = options.segment_bytes;
    while !fits(capacity) {
        if capacity >= options.segment_bytes_max {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "a batch of {frame_bytes} bytes does not fit a segment of the largest size \
                     ({} bytes): split it, or raise Options::segment_bytes_max",
                    options.segment_bytes_max
                ),
            ));
        }
        capacity = (capacity + 1).next_power_of_two().min(options.segment_bytes_max);
    }
    Ok(capacity)
}

/// One commit in the hands of its leader. Dropped without an outcome (a panic), it poisons.
struct Leader<'a> {
    core: &'a Core,
    group: Group,
    writer: Option<Writer>,
}

impl Leader<'_> {
    fn run(mut self, seal_after: Option<SealState>) {
        let rotated = self.group.rotation.is_some();
        let Some(mut writer) = self.writer.take() else { return };
        let outcome = writer.commit(&mut self.group, seal_after.as_ref());
        let group = std::mem::replace(&mut self.group, empty_group());
        let core = self.core;
        std::mem::forget(self);
        match outcome {
            Ok(done) => core.committed(group, writer, done, rotated),
            Err((doing, e)) => {
                let header = &writer.segment().header;
                let location = Location {
                    segment: Some(header.sequence),
                    offset: Some(writer.end()),
                    lsns: None,
                };
                let error = Error::io(doing, e).with_kind(ErrorKind::Poisoned).at(location);
                // The file is let go before anyone is told: nothing may touch it again.
                drop(writer);
                core.poison(error.clone());
                group.cohort.publish(Err(error.unknown()));
            }
        }
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Poisoned, "the leader of a group panicked");
        self.core.poison(error.clone());
        self.group.cohort.publish(Err(error.unknown()));
    }
}

fn empty_group() -> Group {
    Group { rotation: None, batches: Vec::new(), bytes: 0, last_lsn: 0, cohort: Arc::default() }
}

/// A preparer that panics must not leave the others waiting for its end.
struct PrepareGuard<'a> {
    core: &'a Core,
}

impl Drop for PrepareGuard<'_> {
    fn drop(&mut self) {
        self.core.poison(Error::new(ErrorKind::Poisoned, "preparing a segment panicked"));
    }
}

/// The committer: leads for callers who never do I/O, and writes what was admitted after the last
/// handle is gone. It owns a share of the directory's lock until it returns.
pub(crate) fn committer(core: Arc<Core>) {
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
                queue = core.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let poisoned = matches!(queue.mode, Mode::Poisoned(_));
            if poisoned || queue.groups.is_empty() {
                return;
            }
        }
        core.lead_once();
    }
}
