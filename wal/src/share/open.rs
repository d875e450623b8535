//! An opening of a shared log: under `APPEND` from the first look to the last write, so that nobody
//! joins, leaves or writes meanwhile.
//!
//! Never here: a judgement or a repair; they are an owner's ([`crate::recover`]). Invariants: who
//! finds nobody alive recovers, whatever `CONTROL` says, for it was never synced; who joins the
//! living writes nothing where nothing is to be repaired. Next room: [`crate::log`].

use std::sync::Arc;

use crate::control::ControlBlock;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::format::{APPEND_NAME, Control, HeaderVerdict, LOCK_NAME, Name, SegmentHeader};
use crate::fs::{Access, Dir, DirEntry, DirLock, LockMode, read_full};
use crate::lock::take_membership;
use crate::log::Log;
use crate::mutant;
use crate::open::{check_before_writing, core_of, refused};
use crate::options::{Options, Sharing};
use crate::recover::apply::{Opened, apply, open_segment, spans};
use crate::recover::facts::is_same_file;
use crate::recover::{Decision, Facts, Plan, Row, decide};
use crate::report::RecoveryReport;
use crate::sync::thread;
use crate::trust;
use crate::watch::Watch;
use crate::writer::Writer;

use super::Member;
use super::append::Append;

/// How often an opener tries to turn its `LOCK` from alone into shared, should somebody who opens
/// the other way be in between for a moment.
const TRIES: u32 = 1000;

/// Whether this opening shares the log, by its options and by what is there.
///
/// # Errors
/// `Sharing` where they disagree.
pub(crate) fn is_to_be_shared(
    dir: &dyn Dir,
    known: &[DirEntry],
    options: &Options,
) -> Result<bool> {
    let made = made_shared(dir, known);
    match (options.sharing, made) {
        (Sharing::AsMade, made) => Ok(made.unwrap_or(false)),
        (Sharing::Processes, Some(false)) => Err(made_otherwise(dir, false)),
        (Sharing::Exclusive, Some(true)) => Err(made_otherwise(dir, true)),
        (sharing, _) => Ok(sharing == Sharing::Processes),
    }
}

/// What the highest segment with a good header says.
fn made_shared(dir: &dyn Dir, known: &[DirEntry]) -> Option<bool> {
    let mut names: Vec<_> = known
        .iter()
        .filter_map(|entry| match crate::format::parse_name(&entry.name) {
            Some(Name::Segment(sequence)) if entry.regular => Some((sequence, &entry.name)),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.iter().rev().find_map(|(_, name)| {
        let file = dir.open(name, Access::Read).ok()?;
        let mut head = [0; crate::format::SEGMENT_HEADER_LEN];
        let read = read_full(&*file, &mut head, 0).ok()?;
        match SegmentHeader::decode(&head[..read]) {
            HeaderVerdict::Good(header) => Some(header.shared),
            _ => None,
        }
    })
}

/// The same of the facts, under the locks.
pub(crate) fn check_sharing(dir: &dyn Dir, facts: &Facts, shared: bool) -> Result<()> {
    let made = facts.segments.iter().rev().find_map(|segment| segment.good_header());
    match made {
        Some(header) if header.shared != shared => Err(made_otherwise(dir, header.shared)),
        _ => Ok(()),
    }
}

fn made_otherwise(dir: &dyn Dir, shared: bool) -> Error {
    let path = dir.path().display();
    let why = if shared {
        format!(
            "{path} was made for several processes: open it with \
             Options::sharing(Sharing::Processes). Nothing was changed"
        )
    } else {
        format!(
            "{path} was made for one process: open it with Sharing::Exclusive, or copy its records \
             into a log that is made for several. Nothing was changed"
        )
    };
    Error::new(ErrorKind::Sharing, why)
}

/// Opens the log in `dir` as a member.
pub(crate) fn open(dir: Arc<dyn Dir>, options: Options) -> Result<Log> {
    let options = options.sharing(Sharing::Processes);
    let append = Append::open(&*dir, options.lock_timeout)?;
    let append_status = trust::check_lock(&*dir, APPEND_NAME, &*append, &options)?;
    let (lock, alone) = take_membership(&*dir)?;
    let lock_status = trust::check_lock(&*dir, LOCK_NAME, &*lock, &options)?;
    let watch = Watch::of_member(dir.clone(), lock_status, append_status);
    lock.write_pid(dir.pid());
    let facts = Facts::read(&*dir)?;
    let mut plan = match decide(&facts) {
        Decision::Plan(plan) => plan,
        Decision::Refuse(refusal) => return Err(refused(refusal)),
    };
    check_sharing(&*dir, &facts, true)?;
    if plan.row == Row::Fresh && !alone {
        let why = "every segment is gone while processes have the log open";
        return Err(Error::corrupt(why, Location::default()));
    }
    check_before_writing(&*dir, &facts, &plan, &options)?;
    let clean = if alone && !mutant::is("share:control-outlives-its-members") {
        None
    } else {
        nothing_to_repair(&facts, &plan)
    };
    let opened = match &clean {
        Some(control) => {
            plan.generation = control.generation;
            join(&dir, &facts, &plan, &watch)?
        }
        None => {
            let bytes = options.segment_bytes;
            let mut opened = apply(&dir, &facts, &plan, bytes, &watch, true)?;
            // The caller will see what was recovered, and may tell the members, who look here.
            let told = opened.writer.control().clear();
            told.map_err(|e| Error::io("telling other processes of a recovery", e))?;
            // The next turn that needs it makes it anew.
            opened.spare = None;
            opened
        }
    };
    if alone {
        share(&*dir, &*lock)?;
    }
    let path = dir.path().join(APPEND_NAME);
    append.release().map_err(|e| Error::io(format!("unlocking {}", path.display()), e))?;
    let recovery = RecoveryReport { joined: clean.is_some(), ..RecoveryReport::of(&plan) };
    let member = Member::new(Append::of(append));
    let core = core_of(dir, options, &plan, opened, (lock, Some(member)), watch);
    Ok(Log::of(Arc::new(core), recovery))
}

/// The control block, if it is this log's, without a mark, and says that the log ends just where
/// its whole batches do.
fn nothing_to_repair(facts: &Facts, plan: &Plan) -> Option<Control> {
    let active = facts.active.as_ref()?;
    let segment = &facts.segments[active.index];
    let survey = active.survey.as_ref()?;
    let control = facts.control.as_ref().filter(|control| control.own_matches)?.control;
    let whole = plan.row == Row::APrime
        && survey.seal().is_none()
        && survey.kept.end == control.durable_end;
    let ours = segment.good_header().is_some_and(|header| header.log_id == control.log_id)
        && control.sequence == segment.sequence.get()
        && is_same_file(control.segment, segment.identity);
    (whole && ours && (control.marks == 0 || mutant::is("share:joins-a-marked-log")))
        .then_some(control)
}

/// Takes its place at the end of a log that others have open. Nothing is written but the control
/// block, which says the same as before.
fn join(dir: &Arc<dyn Dir>, facts: &Facts, plan: &Plan, watch: &Watch) -> Result<Opened> {
    let missing = || Error::invalid("a log without an active segment is joined");
    let active = facts.active.as_ref().ok_or_else(missing)?;
    let survey = active.survey.as_ref().ok_or_else(missing)?;
    let segment = open_segment(&**dir, facts, active.index)?;
    let log_id = segment.header.log_id;
    let (control, written) =
        ControlBlock::open(&**dir, log_id, plan.generation, facts.control.as_ref(), 0);
    written.map_err(|e| Error::io("writing the control block", e))?;
    let kept = (survey.kept.clone(), survey.index.clone());
    let segments = spans(facts, plan, None);
    let writer =
        Writer::new(dir.clone(), segment, plan.generation, kept, (0, 0), control, watch.clone());
    Ok(Opened { log_id, writer, spare: None, segments })
}

/// From alone to shared. flock lets go of the one before it takes the other; an opener of the other
/// kind may come in between, and leaves at once because it may not open this log.
fn share(dir: &dyn Dir, lock: &dyn DirLock) -> Result<()> {
    let failed = |e| Error::io(format!("sharing {}", dir.path().join(LOCK_NAME).display()), e);
    for _ in 0..TRIES {
        if lock.relock(LockMode::Shared).map_err(failed)? {
            return Ok(());
        }
        thread::yield_now();
    }
    let why = format!("{} is held by somebody", dir.path().join(LOCK_NAME).display());
    Err(Error::new(ErrorKind::Locked, why))
}
