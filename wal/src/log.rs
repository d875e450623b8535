//! `Log`: the handle. It owns the order of steps and no bytes.
//!
//! Never here: I/O of its own, format. An append walks forward: [`crate::record`] (checksums) ->
//! [`crate::queue`] (place and LSNs) -> [`crate::commit`] (leader) -> [`crate::writer`] (one
//! write, one sync) -> [`crate::fs`]. An opening walks: lock -> [`crate::recover`] -> here.
//! Next rooms: [`crate::reader`] for reads, [`crate::trim`], [`crate::backup`].

use std::fmt;
use std::ops::{RangeBounds, RangeInclusive};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::commit::{Core, Frontier, SegmentBound, Shared, committer};
use crate::error::{Error, ErrorKind, Location, Result};
use crate::format::{KIND_CLOSE, OwnBody};
use crate::fs::{Dir, SyncPoint};
use crate::ids::{Generation, LogId, Lsn};
use crate::lock::take_lock;
use crate::options::Options;
use crate::pending::{Ordered, Pending, Refused, Slot, SlotOutcome};
use crate::queue::{Counters, Mode, NoPlace, Queue, Tail};
use crate::reader::Records;
use crate::record::{Batch, Record, StoredRecord};
use crate::recover::apply::{Opened, apply};
use crate::recover::{Decision, Facts, Plan, RefusalKind, Row, decide};
use crate::report::RecoveryReport;
use crate::stats::Stats;

/// A write-ahead log in one directory, open for writing. Cheap to clone; share it between threads.
///
/// Dropping the last handle admits nothing more and never waits: what was admitted is still
/// written, but no close record is, so the next opening recovers. [`Log::close`] ends cleanly.
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
        self.core.queue().handles_gone = true;
        self.core.work.notify_all();
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

    pub(crate) fn open_with(dir: Arc<dyn Dir>, options: Options) -> Result<Log> {
        if options.create {
            dir.make().map_err(|e| making(&*dir, e))?;
        }
        // Looked at before anything is made, so that a directory that is no log stays as it is.
        let known = crate::recover::facts::list(&*dir)?;
        let is_log = known.iter().any(|entry| crate::format::parse_name(&entry.name).is_some());
        if !is_log && !options.create {
            return Err(Error::not_a_log(dir.path(), "it holds no segment"));
        }
        if known.iter().any(|entry| entry.name == crate::format::ARCHIVE_NAME) {
            return Err(archived(&*dir));
        }
        let lock = take_lock(&*dir)?;
        let facts = Facts::read(&*dir)?;
        let plan = match decide(&facts) {
            Decision::Plan(plan) => plan,
            Decision::Refuse(refusal) => return Err(refused(refusal)),
        };
        check_extension(&facts, &options)?;
        if plan.row == Row::Fresh {
            check_fresh(&*dir, &facts, &options)?;
            dir.sync_parent(SyncPoint::Parent).map_err(|e| {
                Error::io(format!("syncing the parent of {}", dir.path().display()), e)
            })?;
        }
        let opened = apply(&dir, &facts, &plan, options.segment_bytes)?;
        let recovery = RecoveryReport::of(&plan);
        let core = Arc::new(core_of(dir, options, &plan, opened, lock));
        let committing = core.clone();
        std::thread::Builder::new()
            .name("annals-committer".to_owned())
            .spawn(move || committer(committing))
            .map_err(|e| Error::io("starting the committer thread", e))?;
        Ok(Log { handle: Arc::new(Handle { core, recovery }) })
    }

    fn core(&self) -> &Core {
        &self.handle.core
    }

    /// Appends one record. Durable on return.
    ///
    /// # Errors
    /// `TooLarge`, `Full`, `Poisoned`, `Closed`: the record is certainly not in the log, unless
    /// [`Error::outcome_unknown`] says otherwise.
    pub fn append(&self, record: impl Into<Record>) -> Result<Lsn> {
        Ok(*self.append_batch(record.into())?.start())
    }

    /// Appends a batch: all of its records or none. Durable on return.
    ///
    /// # Errors
    /// As [`Log::append`], and `Invalid` for an empty batch.
    pub fn append_batch(&self, batch: impl Into<Batch>) -> Result<RangeInclusive<Lsn>> {
        let mut encoded = batch.into().encode(self.core().options.record_bytes_max)?;
        self.ordered_durable(|slot| slot.push(&mut encoded))
    }

    /// Orders a batch now; the handle says when it is durable. May wait for room in the queue and,
    /// at the end of a segment, prepares the next one on this thread.
    ///
    /// # Errors
    /// As [`Log::append_batch`], but never with an unknown outcome: that is the handle's to tell.
    pub fn submit(&self, batch: impl Into<Batch>) -> Result<Pending> {
        let mut encoded = batch.into().encode(self.core().options.record_bytes_max)?;
        let ordered = self.ordered(|slot| slot.push(&mut encoded))?;
        ordered.pending.ok_or_else(|| Error::invalid("the batch was not pushed"))
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
        let ordered = self.order(f)?;
        let queue = self.core().queue();
        if queue.writer.is_some() && !queue.groups.is_empty() {
            self.core().work.notify_one();
        }
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
        let ordered = self.order(f)?;
        if let Some(pending) = ordered.pending {
            self.core().lead_or_wait(pending.cohort())?;
        }
        Ok(ordered.value)
    }

    fn order<T>(
        &self,
        mut f: impl FnMut(Slot<'_>) -> std::result::Result<T, Refused>,
    ) -> Result<Ordered<T>> {
        let _told = ToldOnPanic { core: self.core() };
        self.core().with_place(|queue| {
            let mut outcome = SlotOutcome::Unused;
            let value = f(Slot::new(queue, &mut outcome));
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

    /// Waits until this LSN is durable. This thread may do the write itself.
    ///
    /// # Errors
    /// `OutOfRange` for an LSN that was not given out yet; `Poisoned` (outcome unknown) if the
    /// log fails first.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        if self.durable_lsn() >= Some(lsn) {
            return Ok(());
        }
        let cohort = {
            let queue = self.core().queue();
            if queue.last_lsn < lsn.get() {
                let why =
                    format!("LSN {lsn} was not given out yet: the last is {}", queue.last_lsn);
                return Err(Error::new(ErrorKind::OutOfRange, why));
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

    /// The cap on one record's payload in bytes.
    pub fn record_bytes_max(&self) -> u32 {
        self.core().options.record_bytes_max
    }

    /// What the opening found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.handle.recovery
    }

    /// Why the log refuses writes, if a write or sync failed.
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

    /// Figures of this opening.
    pub fn stats(&self) -> Stats {
        Stats::of(self.core())
    }

    /// Ends the log cleanly: writes what was admitted and a close record, syncs, and frees the
    /// directory's lock. Other handles get `Closed` from then on.
    ///
    /// # Errors
    /// `Poisoned` or `Closed` if it already was; the lock is then freed by the last handle.
    pub fn close(self) -> Result<()> {
        let core = self.core();
        // From here on nothing is admitted; what was is written first, so that the close record
        // is the last frame and knows the times of the last append.
        core.with_place(|queue| {
            queue.mode = Mode::Closed;
            Ok(())
        })?;
        core.room.notify_all();
        core.drain()?;
        let cohort = {
            let mut queue = core.queue();
            let body = OwnBody {
                generation: Some(queue.generation),
                times_ms: queue.writer.as_ref().map(|writer| writer.times_ms()),
                ..OwnBody::default()
            };
            match queue.admit_own(KIND_CLOSE, &body) {
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
        core.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        core.work.notify_all();
        Ok(())
    }

    pub(crate) fn core_arc(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

/// A closure that panics after its push leaves an admitted batch: somebody must write it.
struct ToldOnPanic<'a> {
    core: &'a Core,
}

impl Drop for ToldOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
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

fn making(dir: &dyn Dir, e: std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
            Error::not_a_log(dir.path(), "it is not a directory")
        }
        _ => Error::io(format!("making the directory {}", dir.path().display()), e),
    }
}

fn archived(dir: &dyn Dir) -> Error {
    let message = format!(
        "{} holds an ARCHIVE file: it is an archive, or a backup that was not finished. Read it \
         with `wal cat`; it is never opened for writing",
        dir.path().display()
    );
    Error::new(ErrorKind::Archived, message)
}

/// A short file is extended to its capacity; a forged header must not make that fill the disk.
fn check_extension(facts: &Facts, options: &Options) -> Result<()> {
    let Some(active) = &facts.active else { return Ok(()) };
    let segment = &facts.segments[active.index];
    let Some(header) = segment.good_header() else { return Ok(()) };
    if header.capacity <= options.segment_bytes_max.max(segment.file_len) {
        return Ok(());
    }
    let why = format!(
        "segment {} is shorter than its capacity of {} bytes, and that is over \
         Options::segment_bytes_max: raise it if the capacity is right",
        segment.sequence, header.capacity
    );
    let location = Location {
        segment: Some(segment.sequence),
        offset: Some(segment.file_len),
        ..Location::default()
    };
    Err(Error::corrupt(why, location))
}

/// A log is created only where no name of the format exists but the lock files and `.wal.tmp`.
fn check_fresh(dir: &dyn Dir, facts: &Facts, options: &Options) -> Result<()> {
    if !options.create {
        return Err(Error::not_a_log(dir.path(), "it holds no segment"));
    }
    if facts.any_log_file && facts.segments.is_empty() {
        let why = "it holds files of a log but no segment: they were moved or deleted";
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} is not a whole log: {why}. Restore them or use a new directory",
                dir.path().display()
            ),
        ));
    }
    Ok(())
}

fn refused(refusal: crate::recover::Refusal) -> Error {
    let kind = match refusal.kind {
        RefusalKind::Corrupt => ErrorKind::Corrupt,
        RefusalKind::Unsupported => ErrorKind::Unsupported,
        RefusalKind::Archived => ErrorKind::Archived,
    };
    let advice = match refusal.kind {
        RefusalKind::Corrupt => ". Nothing was changed; `wal inspect` shows the damage",
        RefusalKind::Unsupported => ". Nothing was changed; use the version that wrote it",
        RefusalKind::Archived => "",
    };
    let message = format!("row {}: {}{advice}", refusal.row.letter(), refusal.why);
    Error::new(kind, message).at(refusal.location)
}

fn core_of(
    dir: Arc<dyn Dir>,
    options: Options,
    plan: &Plan,
    opened: Opened,
    lock: Box<dyn crate::fs::DirLock>,
) -> Core {
    let writer = opened.writer;
    let frontier = Frontier {
        bound: SegmentBound { sequence: writer.segment().header.sequence, end: writer.end() },
        durable_lsn: plan.last_lsn,
        head: plan.head,
        spans: Arc::new(opened.segments),
    };
    let shared = Shared {
        dir,
        log_id: opened.log_id,
        durable_lsn: AtomicU64::new(plan.last_lsn),
        frontier: Mutex::new(frontier),
        condemned: Mutex::default(),
    };
    let queue = Queue {
        mode: Mode::Open,
        groups: Default::default(),
        in_flight: None,
        last_change: None,
        queued_bytes: 0,
        tail: Tail::of(writer.segment(), writer.end()),
        last_lsn: plan.last_lsn,
        generation: plan.generation,
        head: plan.head,
        holds: plan.holds.clone(),
        spare: opened.spare,
        preparing: false,
        preparations_failed: 0,
        preparation_error: None,
        writer: Some(writer),
        handles_gone: false,
        counters: Counters::default(),
    };
    Core {
        queue: Mutex::new(queue),
        work: Condvar::new(),
        room: Condvar::new(),
        options,
        shared: Arc::new(shared),
        lock: Mutex::new(Some(lock)),
    }
}
