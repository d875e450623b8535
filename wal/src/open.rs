//! Opening: lock, facts, decision, repair. The walk of a recovery, in order.
//!
//! Never here: a judgement ([`crate::recover::decide()`]) or a repair
//! ([`crate::recover::apply`]). Invariants: what is refused is left as it was, the lock file apart;
//! a log is created only where no file of one stands. Next room: [`crate::log`].

use std::sync::Arc;

use crate::claim::{Claims, Common};
use crate::commit::{Core, Frontier, SegmentBound, Shared};
use crate::error::{Error, ErrorKind, Location, Result};
use crate::fork::Home;
use crate::format::LOCK_NAME;
use crate::fs::{Dir, SyncPoint};
use crate::lock::take_lock;
use crate::log::Log;
use crate::mutant;
use crate::options::Options;
use crate::queue::{Counters, Mode, Queue, Tail};
use crate::recover::apply::{Opened, apply};
use crate::recover::{Decision, Facts, Plan, RefusalKind, Row, decide};
use crate::report::RecoveryReport;
use crate::share::turn::TurnState;
use crate::share::{self, Member};
use crate::sync::{AtomicU64, Condvar, Mutex};
use crate::trust;
use crate::watch::Watch;

/// Opens the log in `dir` for writing.
pub(crate) fn open(dir: Arc<dyn Dir>, options: Options) -> Result<Log> {
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
    trust::check_directory(&*dir, &options)?;
    if share::open::is_to_be_shared(&*dir, &known, &options)? {
        return share::open::open(dir, options);
    }
    let lock = take_lock(&*dir)?;
    let status = trust::check_lock(&*dir, LOCK_NAME, &*lock, &options)?;
    let watch = Watch::new(dir.clone(), status);
    lock.write_pid(dir.pid());
    let facts = Facts::read(&*dir)?;
    let plan = match decide(&facts) {
        Decision::Plan(plan) => plan,
        Decision::Refuse(refusal) => return Err(refused(refusal)),
    };
    share::open::check_sharing(&*dir, &facts, false)?;
    check_before_writing(&*dir, &facts, &plan, &options)?;
    let opened = apply(&dir, &facts, &plan, options.segment_bytes, &watch, false)?;
    let recovery = RecoveryReport::of(&plan);
    let core = Arc::new(core_of(dir, options, &plan, opened, (lock, None), watch));
    Ok(Log::of(core, recovery))
}

/// What an opening looks at once it has a plan; and a new log's directory is made durable.
pub(crate) fn check_before_writing(
    dir: &dyn Dir,
    facts: &Facts,
    plan: &Plan,
    options: &Options,
) -> Result<()> {
    check_extension(facts, options)?;
    trust::check_files(dir, facts, options)?;
    if plan.row == Row::Fresh {
        check_fresh(dir, facts, options)?;
        dir.sync_parent(SyncPoint::Parent)
            .map_err(|e| Error::io(format!("syncing the parent of {}", dir.path().display()), e))?;
    }
    Ok(())
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
pub(crate) fn check_extension(facts: &Facts, options: &Options) -> Result<()> {
    let Some(active) = &facts.active else { return Ok(()) };
    let segment = &facts.segments[active.index];
    let Some(header) = segment.good_header() else { return Ok(()) };
    let may_be = options.segment_bytes_max.max(segment.file_len);
    if header.capacity <= may_be || mutant::is("length:extension") {
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
        return Err(crate::inspect::no_segment(dir, facts));
    }
    Ok(())
}

pub(crate) fn refused(refusal: crate::recover::Refusal) -> Error {
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

pub(crate) fn core_of(
    dir: Arc<dyn Dir>,
    options: Options,
    plan: &Plan,
    opened: Opened,
    (lock, member): (Box<dyn crate::fs::DirLock>, Option<Member>),
    watch: Watch,
) -> Core {
    let home = Home::here(dir.clone());
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
        starts: writer.starts().clone(),
        condemned: Mutex::default(),
        claims: Claims::default(),
        common: Common::default(),
    };
    let queue = Queue {
        mode: Mode::Open,
        groups: Default::default(),
        leftovers: Default::default(),
        gather: Default::default(),
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
        tenures: 0,
        preparations_failed: 0,
        preparation_error: None,
        writer: Some(writer),
        committer: false,
        committer_sleeps: false,
        preparer: false,
        spare_wanted: false,
        spare_asked: None,
        spare_bytes: 0,
        tried: None,
        waiting_for_room: 0,
        room_wakers: Default::default(),
        handles_gone: false,
        turn: TurnState::default(),
        counters: Counters::default(),
    };
    Core {
        queue: Mutex::new(queue),
        work: Condvar::new(),
        room: Condvar::new(),
        ahead: Condvar::new(),
        arrivals: AtomicU64::new(0),
        options,
        shared: Arc::new(shared),
        lock: Mutex::new(Some(lock).filter(|_| !mutant::is("lock:let-go"))),
        member,
        watch,
        home,
    }
}
