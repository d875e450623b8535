//! `Log`: the handle. It owns the order of steps and no bytes.
//!
//! Never here: I/O of its own, format. An append walks forward: [`crate::record`] (checksums) ->
//! [`crate::queue`] (place and LSNs) -> [`crate::commit`] (leader) -> [`crate::writer`] (one
//! write, one sync) -> [`crate::fs`]. An opening walks [`crate::open`] and ends here.
//! Next rooms: [`crate::reader`] for reads, [`crate::trim`], [`crate::backup`].

use std::fmt;
use std::ops::{RangeBounds, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::commit::{Core, Leads};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, FLAG_BATCH_FIRST, KIND_CLOSE, OwnBody};
use crate::fs::Dir;
use crate::ids::{Generation, LogId, Lsn};
use crate::mutant;
use crate::options::Options;
use crate::pending::{Ordered, Pending, Refused, Slot, SlotOutcome};
use crate::queue::{LINKED_BYTES, Mode, NoPlace};
use crate::reader::Follow;
use crate::record::{Batch, EncodedBatch, Record, StoredRecord};
use crate::records::Records;
use crate::report::RecoveryReport;
use crate::stats::Stats;
use crate::sync::{Ordering, PoisonError};
use crate::view::View;

/// A write-ahead log in one directory, open for writing. Cheap to clone; share it between threads.
///
/// Dropping the last handle admits nothing more and never waits: what was admitted is still
/// written by the log's own thread, if the process lives long enough (a return from `main` ends it),
/// but no close record is, so the next opening recovers. [`Log::close`] waits and ends cleanly.
///
/// A child made by fork (without exec) inherits the handle and not the log: whatever would write or
/// wait for a write is `Locked` there, and its drop changes nothing. Read there by a new
/// [`crate::LogReader`]; methods of this handle may meet a lock that a thread of the parent held at
/// the moment of the fork.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals_wal::Log;
/// let log = Log::open(dir.path().join("log"))?;
/// let lsn = log.append("the agent began")?; // durable when this returns
/// assert_eq!(log.get(lsn)?.payload, b"the agent began");
/// log.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

impl fmt::Debug for Log {
    /// The place and nothing more: what is queued is payload, and payload is nobody's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// What the clones of a handle share. Its drop is the last handle's.
#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    recovery: RecoveryReport,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.core.home.is_here() {
            self.core.let_go();
            return;
        }
        self.core.queue().handles_gone = true;
        self.core.work.notify_all();
        self.core.ahead.notify_all();
    }
}

impl Log {
    /// Opens the log in `path` with default options, creating or recovering it as needed.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Log> {
        Options::default().open(path)
    }

    /// The first handle of an opening.
    pub(crate) fn of(core: Arc<Core>, recovery: RecoveryReport) -> Log {
        Log { handle: Arc::new(Handle { core, recovery }) }
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// Appends one record. Durable on return.
    ///
    /// # Errors
    /// `TooLarge`, `Full`, `Poisoned`, `Closed`: the record is certainly not in the log, unless
    /// [`Error::outcome_unknown`] says otherwise.
    pub fn append<'a>(&self, record: impl Into<Record<'a>>) -> Result<Lsn> {
        let pushed = self.push(Leads::Caller, &record.into())?;
        self.core().lead_or_wait(pushed.cohort())?;
        Ok(*pushed.lsns_if_durable().start())
    }

    /// Appends a batch: all of its records or none. Durable on return.
    ///
    /// # Errors
    /// As [`Log::append`], and `Invalid` for an empty batch.
    pub fn append_batch<'a>(&self, batch: impl Into<Batch<'a>>) -> Result<RangeInclusive<Lsn>> {
        let mut encoded = batch.into().encode(self.core().options.record_bytes_max)?;
        self.ordered_durable(|slot| slot.push(&mut encoded))
    }

    /// Orders a batch now; the handle says when it is durable. May wait for room in the queue and,
    /// at the end of a segment, for the next one, or prepares it on this thread.
    ///
    /// # Errors
    /// As [`Log::append_batch`], but never with an unknown outcome: that is the handle's to tell.
    pub fn submit<'a>(&self, batch: impl Into<Batch<'a>>) -> Result<Pending> {
        let batch = batch.into();
        if let Some(record) = batch.only() {
            return self.submit_record(record);
        }
        let mut encoded = batch.encode(self.core().options.record_bytes_max)?;
        let ordered = self.ordered(|slot| slot.push(&mut encoded))?;
        ordered.pending.ok_or_else(|| Error::invalid("the batch was not pushed"))
    }

    /// [`Log::submit`] of one record, which asks the allocator for no batch.
    pub(crate) fn submit_record(&self, record: &Record<'_>) -> Result<Pending> {
        self.push(Leads::Committer, record)
    }

    /// Orders one record; its payload is copied once, under the queue lock, straight into the group
    /// that will be written. A large one is laid out before, and the group takes its buffer.
    fn push(&self, leads: Leads, record: &Record<'_>) -> Result<Pending> {
        let core = self.core();
        let header = record.header(FLAG_BATCH_FIRST, core.options.record_bytes_max)?;
        let large = format::frame_size_usize(record.payload().len()) >= LINKED_BYTES;
        let mut encoded = large.then(|| EncodedBatch::of_one(&header, record.payload()));
        core.with_place(leads, |queue| {
            let lsns = match &mut encoded {
                Some(encoded) => queue.admit(encoded)?,
                None => queue.admit_record(&header, record.payload())?,
            };
            if leads == Leads::Committer {
                core.call_the_committer(queue);
            }
            Ok(Pending::of(lsns, queue, &core.home))
        })
    }

    /// Runs `f` at one point of the log's order: under the queue lock, after waiting for room.
    ///
    /// `f` checks whatever it must, calls [`Slot::push`] at most once and applies its effects only
    /// after the push succeeded; it may lock the caller's own state (order: queue, then state).
    /// A refused push has changed nothing; `f` returns the [`Refused`] and may be run again once a
    /// segment was prepared. `f` never calls the log and never blocks.
    ///
    /// # Errors
    /// As [`Log::submit`].
    pub fn ordered<T>(
        &self,
        f: impl FnMut(Slot<'_>) -> std::result::Result<T, Refused>,
    ) -> Result<Ordered<T>> {
        let ordered = self.order(Leads::Committer, f)?;
        self.core().hand_over();
        Ok(ordered)
    }

    /// [`Log::ordered`], then waits until what `f` pushed is durable. This thread may do the write
    /// itself, so one writer needs no thread hop.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn ordered_durable<T>(
        &self,
        f: impl FnMut(Slot<'_>) -> std::result::Result<T, Refused>,
    ) -> Result<T> {
        let ordered = self.order(Leads::Caller, f)?;
        if let Some(pending) = ordered.pending {
            self.core().lead_or_wait(pending.cohort())?;
        }
        Ok(ordered.value)
    }

    fn order<T>(
        &self,
        leads: Leads,
        mut f: impl FnMut(Slot<'_>) -> std::result::Result<T, Refused>,
    ) -> Result<Ordered<T>> {
        let _told = ToldOnPanic { core: self.core() };
        self.core().with_place(leads, |queue| {
            let mut outcome = SlotOutcome::Unused;
            let value = f(Slot::new(queue, &mut outcome, &self.core().home));
            match (value, outcome) {
                (_, SlotOutcome::Refused(refused)) => Err(refused),
                (Ok(value), SlotOutcome::Pushed(pending)) => {
                    Ok(Ordered { value, pending: Some(pending) })
                }
                (Ok(value), SlotOutcome::Unused) => Ok(Ordered { value, pending: None }),
                (Err(Refused { .. }), _) => {
                    let why = "the closure of `ordered` returned a refusal of another slot";
                    Err(NoPlace::Failed(Error::invalid(why).unknown()))
                }
            }
        })
    }

    /// Makes the next segment ready now and on this thread, unless it is: for a caller who would
    /// rather wait here than at the record that needs it. The log does it by itself when half of the
    /// active segment is used. On a shared log it does nothing: the turn that needs one makes it.
    ///
    /// # Errors
    /// `Full`, `Poisoned`, `Closed`, `Io`; `Locked` in a child that inherited the handle by fork.
    pub fn prepare_ahead(&self) -> Result<()> {
        self.core().home.check()?;
        if self.is_shared() {
            return Ok(());
        }
        self.core().prepare_spare(0)
    }

    /// Waits until this LSN is durable. This thread may do the write itself.
    ///
    /// # Errors
    /// `OutOfRange` for an LSN that was not given out yet; `Poisoned` (outcome unknown) if the
    /// log fails first.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        if self.durable_lsn() >= Some(lsn) {
            return Ok(());
        }
        self.core().home.check()?;
        // A listener may have heard of another process's record a moment before the queue has.
        self.refresh()?;
        let cohort = {
            let queue = self.core().queue();
            if queue.last_lsn < lsn.get() {
                let why =
                    format!("LSN {lsn} was not given out yet: the last is {}", queue.last_lsn);
                return Err(Error::new(ErrorKind::OutOfRange, why));
            }
            // Again, under the lock: its group may have ended since, and then the first group found
            // would be a later one, whose failure is not this LSN's (found by shuttle).
            if self.durable_lsn() >= Some(lsn) {
                return Ok(());
            }
            queue.cohort_of(lsn)
        };
        if let Some(cohort) = cohort {
            self.core().lead_or_wait(&cohort)?;
        }
        if self.durable_lsn() >= Some(lsn) {
            return Ok(());
        }
        Err(match self.poisoned() {
            Some(error) => error.unknown(),
            None => Error::closed(),
        })
    }

    /// Highest durable LSN; `None` before the first record. One atomic load.
    pub fn durable_lsn(&self) -> Option<Lsn> {
        Lsn::new(self.core().shared.durable_lsn.load(Ordering::Acquire))
    }

    /// The first LSN kept.
    pub fn head_lsn(&self) -> Lsn {
        self.core().shared.head()
    }

    /// The generation this handle writes in.
    pub fn generation(&self) -> Generation {
        self.core().queue().generation
    }

    /// The log's random id.
    pub fn log_id(&self) -> LogId {
        self.core().shared.log_id
    }

    /// The directory, for messages.
    pub fn path(&self) -> &Path {
        self.core().shared.dir.path()
    }

    /// The directory, for rooms that keep files of their own beside the segments, under the names
    /// of `docs/FORMAT.md` section 1 that are theirs. Whoever writes there while the log is open
    /// owns it, and nobody else does.
    pub fn dir(&self) -> &Arc<dyn Dir> {
        &self.core().shared.dir
    }

    /// The cap on one record's payload in bytes.
    pub fn record_bytes_max(&self) -> u32 {
        self.core().options.record_bytes_max
    }

    /// What the opening found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.handle.recovery
    }

    /// Whether this process may write by this handle. Touches no lock: for callers with locks of
    /// their own, which a child made by fork may find taken for ever.
    ///
    /// # Errors
    /// `Locked` in a child that inherited the handle by fork.
    pub fn check_process(&self) -> Result<()> {
        self.core().home.check()
    }

    /// Why the log refuses writes, if a write or sync failed. A group that was in flight at that
    /// moment may still become durable: its waiters are told, and [`Log::durable_lsn`] moves.
    pub fn poisoned(&self) -> Option<Error> {
        match &self.core().queue().mode {
            Mode::Poisoned(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    /// The durable record with this number.
    ///
    /// # Errors
    /// `Trimmed` below the head, `OutOfRange` past the durable end, `Corrupt`, `Io`.
    pub fn get(&self, lsn: Lsn) -> Result<StoredRecord> {
        let end = self.durable_lsn();
        if end < Some(lsn) {
            return Err(past_the_end(lsn, end));
        }
        let mut records = self.range(lsn..=lsn)?;
        records.next().unwrap_or_else(|| Err(past_the_end(lsn, end)))
    }

    /// The durable records of a range, in order. The end of the log is taken when this is called;
    /// records appended later are not delivered.
    ///
    /// # Errors
    /// `Trimmed` if the range names a first LSN below the head. The items carry their own.
    pub fn range(&self, lsns: impl RangeBounds<Lsn>) -> Result<Records> {
        Records::of_log(self.core().shared.clone(), lsns)
    }

    /// Follows this log from an LSN on: what is durable now, then what becomes durable. Takes no
    /// lock between records and holds nothing: a trim that overtakes it is `Trimmed`.
    ///
    /// # Errors
    /// `Trimmed` below the head.
    pub fn follow(&self, from: Lsn) -> Result<Follow> {
        if self.is_shared() {
            // Others write, whether this process looks or not.
            let dir = self.core().shared.dir.clone();
            return Follow::of(View::Foreign { dir, unproven: false }, from);
        }
        Follow::of(View::Own(self.core().shared.clone()), from)
    }

    /// Figures of this opening.
    pub fn stats(&self) -> Stats {
        Stats::of(self.core())
    }

    /// Whether [`Log::close`] has ended the log through any handle: nothing more is appended.
    pub fn is_closed(&self) -> bool {
        matches!(self.core().queue().mode, Mode::Closed)
    }

    /// Ends the log cleanly: writes what was admitted and a close record, syncs, and frees the
    /// directory's lock. Of a shared log only the last process writes the record. Other handles get
    /// `Closed` from then on. A room that has a [`Tenure`] (a registry's snapshot under way) is waited
    /// for; it learns of this before its next step.
    ///
    /// [`Tenure`]: crate::Tenure
    ///
    /// # Errors
    /// `Poisoned` or `Closed` if it already was; the lock is then freed by the last handle.
    pub fn close(self) -> Result<()> {
        let core = self.core();
        core.home.check()?;
        let turn = core.hold_turn()?;
        // From here on nothing is admitted; what was is written first, so that the close record
        // is the last frame and knows the times of the last append.
        core.with_place(Leads::Caller, |queue| {
            queue.mode = Mode::Closed;
            Ok(())
        })?;
        if mutant::is("close:futures-forgotten") {
            core.room.notify_all();
        } else {
            core.tell_of_room();
        }
        core.ahead.notify_all();
        core.drain()?;
        let last = core.is_last();
        let cohort = {
            let mut queue = core.queue();
            // Whoever failed since the drain has told every waiter there was; one that comes now
            // would wait for ever.
            if let Mode::Poisoned(cause) = &queue.mode {
                return Err(crate::queue::poisoned(cause));
            }
            let body = OwnBody {
                generation: Some(queue.generation),
                times_ms: queue.writer.as_ref().map(|writer| writer.times_ms()),
                ..OwnBody::default()
            };
            match if last { queue.admit_own(KIND_CLOSE, &body) } else { Ok(()) } {
                Ok(()) => queue.last_cohort(),
                Err(NoPlace::Failed(error)) => return Err(error),
                // Room for a close record is always spared, so this is not met; and if it were,
                // the next opening would find an unclean end, which loses nothing.
                Err(NoPlace::Prepare { .. }) => None,
            }
        };
        if let Some(cohort) = cohort {
            core.lead_or_wait(&cohort)?;
        }
        drop(turn);
        core.await_turns_end();
        // A trim that is unlinking ends first.
        drop(core.shared.condemned.lock().unwrap_or_else(PoisonError::into_inner));
        core.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        core.work.notify_all();
        Ok(())
    }

    pub(crate) fn core_arc(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

/// A closure that panics after its push leaves an admitted batch: somebody must write it, and if
/// there is no committer this thread does, on its way out.
struct ToldOnPanic<'a> {
    core: &'a Core,
}

impl Drop for ToldOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if self.core.hand_over() {
                return;
            }
            // A panic in here would abort the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.core.lead_once()));
            // Whoever came meanwhile found this thread leading.
            self.core.hand_over();
        }
    }
}

fn past_the_end(lsn: Lsn, end: Option<Lsn>) -> Error {
    let why = match end {
        Some(end) => format!("LSN {lsn} is past the end: the last durable LSN is {end}"),
        None => format!("LSN {lsn} is past the end: the log holds no record yet"),
    };
    Error::new(ErrorKind::OutOfRange, why)
}
