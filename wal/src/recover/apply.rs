//! Applies a plan: the only code that repairs.
//!
//! Never here: a decision, a second read of bytes already judged, a retry. The order of doing:
//! sync the directory; first control block; repair the active segment and sync it; publish the
//! next segment and sync its open record (which carries the head); only then remove leftovers,
//! lowest first, and sync the directory. A step that fails ends the opening; no later one runs.
//! Invariant: a crash after any step recovers to the same log. Next room: [`crate::log`].

use std::io;
use std::sync::Arc;

use super::facts::{Active, ControlFacts, Facts, is_same_file};
use super::plan::{ActivePlan, Cut, Plan, Row};
use crate::control::ControlBlock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    self, FRAMES_START, KIND_CLOSE, KIND_OPEN, KIND_SEAL, MARK_WRITING, OwnBody, SealReference,
    SegmentHeader,
};
use crate::fs::{Access, Dir, SyncPoint, write_once, write_zeros};
use crate::ids::{LogId, Sequence};
use crate::index::IndexBuilder;
use crate::mutant;
use crate::prepare::{Go, Order, Prepared, prepare, random_log_id};
use crate::survey::{Kept, Survey};
use crate::watch::Watch;
use crate::writer::{SealState, Writer, open_body, own_header, seal_body};

/// A seal has at most so many bytes more than an open record of the same head and holds: 95 for
/// the first segment's, 68 for later ones.
const SEAL_OVER_OPEN: u64 = 128;

/// A log ready for its first append.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) log_id: LogId,
    pub(crate) writer: Writer,
    pub(crate) spare: Option<Prepared>,
    /// Sealed segments kept, with their first and last LSN bounds, and the active one last.
    pub(crate) segments: Vec<SegmentSpan>,
}

/// The LSNs a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentSpan {
    pub(crate) sequence: Sequence,
    /// LSN of the last record before this segment.
    pub(crate) before: u64,
}

/// Applies `plan` to the directory that `facts` were read from.
pub(crate) fn apply(
    dir: &Arc<dyn Dir>,
    facts: &Facts,
    plan: &Plan,
    segment_bytes: u64,
    watch: &Watch,
    shared: bool,
) -> Result<Opened> {
    dir.sync(SyncPoint::DirectoryBeforeWrite)
        .map_err(|e| Error::io(format!("syncing {}", dir.path().display()), e))?;
    let log_id = match facts.segments.iter().rev().find_map(|s| s.good_header()) {
        Some(header) => header.log_id,
        None => random_log_id(&**dir)?,
    };
    let trusted = trusted_claim(facts, log_id);
    // A shared log's mark stands until the recovery is done.
    let marks = if shared { MARK_WRITING } else { 0 };
    let open_control = || {
        let (control, written) =
            ControlBlock::open(&**dir, log_id, plan.generation, trusted, marks);
        match written {
            // Others would go on by what stands there, and find a log that ends elsewhere.
            Err(e) if shared => Err(Error::io("marking the control block before a recovery", e)),
            _ => Ok(control),
        }
    };
    // A log is created only where no control block stands, so one written before the first
    // segment has its name would, after a crash right here, forbid every later creation.
    let early = plan.row != Row::Fresh || mutant::is("control:before-the-first-segment");
    let control = early.then(open_control).transpose()?;
    let state = SealState { head: plan.head, holds: plan.holds.clone() };
    let kept = Kept::empty();
    let mut repair = Repair { dir, facts, plan, log_id, shared, segment_bytes, state, kept };
    let times_ms = repair.known_times();
    if mutant::is("order:removals-last") {
        remove_leftovers(&**dir, plan)?;
    }
    let (segment, spare) = repair.run()?;
    let kept = (repair.kept.clone(), repair.index(&segment));
    let next = plan.next.is_some().then_some(segment.header.sequence);
    let segments = spans(facts, plan, next);
    if !mutant::is("leftovers:kept") {
        remove_leftovers(&**dir, plan)?;
    }
    let control = control.map_or_else(open_control, Ok)?;
    let stays = plan.next.is_none();
    let times_ms = if stays { times_ms } else { (0, 0) };
    let writer =
        Writer::new(dir.clone(), segment, plan.generation, kept, times_ms, control, watch.clone());
    Ok(Opened { log_id, writer, spare, segments })
}

/// The claim to carry forward: only what the decision could have trusted.
fn trusted_claim(facts: &Facts, log_id: LogId) -> Option<&ControlFacts> {
    facts.control.as_ref().filter(|control| {
        control.own_matches
            && control.control.log_id == log_id
            && facts.segments.iter().any(|segment| {
                segment.sequence.get() == control.control.sequence
                    && is_same_file(segment.identity, control.control.segment)
            })
    })
}

struct Repair<'a> {
    dir: &'a Arc<dyn Dir>,
    facts: &'a Facts,
    plan: &'a Plan,
    log_id: LogId,
    shared: bool,
    segment_bytes: u64,
    state: SealState,
    /// What the segment to go on in holds, and before that the one repaired.
    kept: Kept,
}

impl Repair<'_> {
    /// Repairs the active segment, starts the next if the plan says so, and returns the segment
    /// to go on in with the spare after it.
    fn run(&mut self) -> Result<(Prepared, Option<Prepared>)> {
        let mut previous = None;
        let mut salt = 0;
        if let (Some(active_plan), Some(active)) = (&self.plan.active, &self.facts.active) {
            let segment = self.open_segment(active_plan.index)?;
            salt = segment.header.salt;
            let seal = self.repair(active, active_plan, &segment)?;
            if self.plan.next.is_none() {
                let spare = self.plan.spare.map(|sequence| self.open_spare(sequence));
                return Ok((segment, spare.transpose()?));
            }
            previous = seal;
        }
        let segment = self.start_next(previous, salt)?;
        Ok((segment, None))
    }

    /// Rewrites what no witness covers, from memory, zeroes the rest, and appends what the row says.
    fn repair(
        &mut self,
        active: &Active,
        plan: &ActivePlan,
        segment: &Prepared,
    ) -> Result<Option<SealReference>> {
        let Some(survey) = &active.survey else {
            return Err(Error::invalid("a plan repairs a segment whose header is bad"));
        };
        self.kept = survey.kept.clone();
        if plan.open_anew.is_some() {
            self.kept.last_lsn = self.plan.last_lsn;
        }
        if self.plan.next.is_none() {
            self.reopen(active, plan, segment, survey)?;
            return Ok(None);
        }
        self.settle(active, plan, segment)?;
        let mut bytes = Vec::new();
        if let Some(body) = &plan.open_anew {
            bytes.extend(own_frame(&mut self.kept, segment, KIND_OPEN, body, plan.kept_end));
        }
        if !plan.seal {
            return Ok(survey.seal().and_then(|own| reference(segment, own.offset, &own.body)));
        }
        let offset = self.kept.end;
        // A session that died took its times along; one that closed left them.
        let times_ms = if self.plan.row == Row::A { self.known_times() } else { (0, 0) };
        let mut body = seal_body(segment, self.plan.generation, &self.state, &self.kept, times_ms);
        // Row A zeroes no more behind a close than a seal without an index is long.
        if !survey.ends_in_close() {
            body.index = survey.index.encode();
        }
        bytes.extend(own_frame(&mut self.kept, segment, KIND_SEAL, &body, plan.kept_end));
        self.write_and_sync(segment, &bytes, plan.kept_end, SyncPoint::RecoverySeal)?;
        Ok(reference(segment, offset, &body))
    }

    /// Row A: the kept bytes that no witness covers and a new open record, in one sync. A crash
    /// before it returns finds a torn open record at worst, which is row B's to cut; nothing is
    /// acknowledged in between. Behind a close nobody ever wrote anything but such an open record,
    /// of this length and in this place, or row B its seal; zeros for what a seal is longer.
    fn reopen(
        &mut self,
        active: &Active,
        plan: &ActivePlan,
        segment: &Prepared,
        survey: &Survey,
    ) -> Result<()> {
        let from = self.rewritten_from(plan);
        let mut bytes = kept_bytes(active, from, plan.kept_end)?;
        let body = open_body(self.plan.generation, &self.state, self.own_previous(survey));
        let frame = own_frame(&mut self.kept, segment, KIND_OPEN, &body, plan.witnessed_end);
        bytes.extend_from_slice(&frame);
        let room = segment.header.capacity.saturating_sub(self.kept.end);
        bytes.resize(bytes.len() + room.min(SEAL_OVER_OPEN) as usize, 0);
        let doing = |e| self.repairing(segment, e);
        write_once(&*segment.file, &bytes, from).map_err(doing)?;
        segment.file.sync_data(SyncPoint::Kept).map_err(doing)
    }

    /// Rows A' and B up to their first sync: evidence aside, a short file extended, the kept bytes
    /// rewritten, the rest zeroed. Row A without room for another session needs no zeros either.
    ///
    /// After a failed sync the cache may show what the disk does not have, kept bytes as well as
    /// zeros; only writing both and a sync after that makes them so. The seal waits for that
    /// sync: together with it, a crash could leave the seal and stale frames behind it.
    fn settle(&self, active: &Active, plan: &ActivePlan, segment: &Prepared) -> Result<()> {
        if let Some(cut) = &self.plan.cut
            && self.keep_evidence(active, cut)
        {
            // Its name too, before the original is overwritten.
            let path = self.dir.path().display();
            self.dir
                .sync(SyncPoint::Evidence)
                .map_err(|e| Error::io(format!("syncing {path}"), e))?;
        }
        let file = &*segment.file;
        let doing = |e| self.repairing(segment, e);
        let from = self.rewritten_from(plan);
        write_once(file, &kept_bytes(active, from, plan.kept_end)?, from).map_err(doing)?;
        if self.plan.row != Row::A && !mutant::is_one_of("zeros", &self.plan.row) {
            write_zeros(file, plan.kept_end, segment.header.capacity).map_err(doing)?;
        }
        let point = if self.plan.row == Row::B { SyncPoint::Cut } else { SyncPoint::Kept };
        file.sync_data(point).map_err(doing)
    }

    /// The kept bytes above every witness are written again.
    fn rewritten_from(&self, plan: &ActivePlan) -> u64 {
        let rewrites = !mutant::is_one_of("rewrite", &self.plan.row);
        if rewrites { plan.witnessed_end } else { plan.kept_end }
    }

    /// Copies the cut bytes to a file of their own, never over an existing copy. Best effort: a
    /// full disk must not keep a log from opening. Tells whether there is a copy.
    fn keep_evidence(&self, active: &Active, cut: &Cut) -> bool {
        let bytes = active.bytes(cut.from, cut.to).filter(|bytes| !bytes.is_empty());
        let Some(bytes) = bytes else {
            return false;
        };
        if mutant::is("evidence:not-kept") {
            return false;
        }
        for copy in 0..16 {
            let name = format::cut_name(cut.segment, cut.from, copy);
            if mutant::is("evidence:overwritten") {
                let _ = self.dir.remove(&name);
            }
            match self.dir.create(&name) {
                Ok(file) => {
                    let written = write_once(&*file, bytes, 0)
                        .and_then(|()| file.sync_data(SyncPoint::Evidence));
                    if written.is_err() {
                        let _ = self.dir.remove(&name);
                    }
                    return written.is_ok();
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => return false,
            }
        }
        false
    }

    fn write_and_sync(
        &self,
        segment: &Prepared,
        bytes: &[u8],
        at: u64,
        point: SyncPoint,
    ) -> Result<()> {
        let doing = |e| self.repairing(segment, e);
        write_once(&*segment.file, bytes, at).map_err(doing)?;
        segment.file.sync_data(point).map_err(doing)
    }

    /// A spare that shows nothing may have been begun: a rotation's first group in it was torn, and
    /// the sync of that cut failed after the cache had its zeros. Nobody would zero it again, and
    /// the old frames, under the same salt, would stand behind the new ones. The sync of the open
    /// record in front of `from` is theirs too: what a crash before it leaves is a torn tail.
    fn empty(&self, spare: &Prepared, from: u64) -> Result<()> {
        if mutant::is("zeros:Spare") {
            return Ok(());
        }
        let doing = |e| self.repairing(spare, e);
        write_zeros(&*spare.file, from, spare.header.capacity).map_err(doing)
    }

    /// Publishes the next segment, or takes the spare, and makes its open record durable.
    fn start_next(&mut self, previous: Option<SealReference>, salt: u32) -> Result<Prepared> {
        let Some(next) = self.plan.next else {
            return Err(Error::invalid("a plan goes on nowhere"));
        };
        let segment = if next.reuse {
            self.open_spare(next.sequence)?
        } else {
            let order = Order {
                log_id: self.log_id,
                shared: self.shared,
                sequence: next.sequence,
                capacity: self.segment_bytes,
                salts_taken: [salt, self.salt_in_the_way(next.sequence)],
                replaces: true,
            };
            self.prepare(order)?
        };
        self.kept = Kept { last_lsn: self.plan.last_lsn, ..Kept::empty() };
        let body = open_body(self.plan.generation, &self.state, previous);
        let frame = own_frame(&mut self.kept, &segment, KIND_OPEN, &body, FRAMES_START);
        if next.reuse {
            self.empty(&segment, self.kept.end)?;
        }
        self.write_and_sync(&segment, &frame, FRAMES_START, SyncPoint::OpenRecord)?;
        Ok(segment)
    }

    /// Prepares the next segment. On a full disk what lies below the head goes first: the records
    /// that carry that head were made durable just now, so this is as safe as the trim that
    /// would have removed it; without it a trim that a crash interrupted could keep a full disk
    /// from ever being opened.
    fn prepare(&self, order: Order) -> Result<Prepared> {
        let failed = match prepare(&**self.dir, order, &mut |_| Ok(Go::On)) {
            Ok(prepared) => return Ok(prepared),
            Err(failed) => failed,
        };
        let below = self.plan.below_head;
        if failed.error.kind() != ErrorKind::Full || below == 0 {
            return Err(failed.error);
        }
        for name in &self.plan.removals[..below] {
            remove_leftover(&**self.dir, name)?;
        }
        self.dir
            .sync(SyncPoint::Leftovers)
            .map_err(|e| Error::io(format!("syncing {}", self.dir.path().display()), e))?;
        prepare(&**self.dir, order, &mut |_| Ok(Go::On)).map_err(|failed| failed.error)
    }

    /// The salt of an unusable file under the name of the segment to be made.
    fn salt_in_the_way(&self, sequence: Sequence) -> u32 {
        let segment = self.facts.segments.iter().find(|s| s.sequence == sequence);
        segment.and_then(|s| s.good_header()).map_or(0, |header| header.salt)
    }

    fn open_spare(&self, sequence: Sequence) -> Result<Prepared> {
        let index = self.facts.segments.iter().position(|s| s.sequence == sequence);
        self.open_segment(index.ok_or_else(|| Error::invalid("a plan names a missing spare"))?)
    }

    fn open_segment(&self, index: usize) -> Result<Prepared> {
        open_segment(&**self.dir, self.facts, index)
    }

    /// The index of the segment to go on in.
    fn index(&self, segment: &Prepared) -> IndexBuilder {
        let survey = self.facts.active.as_ref().and_then(|active| active.survey.as_ref());
        match survey {
            Some(survey) if self.plan.next.is_none() && !mutant::is("index:of-one-session") => {
                survey.index.clone()
            }
            _ => IndexBuilder::new(segment.header.capacity),
        }
    }

    /// What the first open record of the segment says of its predecessor: a later session's
    /// open record in the same segment says it again.
    fn own_previous(&self, survey: &Survey) -> Option<SealReference> {
        survey.first_open().and_then(|open| open.body.previous.clone())
    }

    /// Append times that the last clean session left in its close record.
    fn known_times(&self) -> (u64, u64) {
        let survey = self.facts.active.as_ref().and_then(|active| active.survey.as_ref());
        let close = survey.and_then(|survey| survey.last_own(KIND_CLOSE));
        close.and_then(|close| close.body.times_ms).unwrap_or((0, 0))
    }

    fn repairing(&self, segment: &Prepared, e: io::Error) -> Error {
        let name = format::segment_name(segment.header.sequence);
        Error::io(format!("repairing {}", self.dir.path().join(name).display()), e)
    }
}

/// The segments the log consists of from now on, `next` among them.
pub(crate) fn spans(facts: &Facts, plan: &Plan, next: Option<Sequence>) -> Vec<SegmentSpan> {
    let removed = |s: &Sequence| plan.removals.contains(&format::segment_name(*s));
    let active = plan.active.as_ref().map_or(0, |plan| plan.index + 1);
    let kept = facts.segments[..active].iter().filter(|s| !removed(&s.sequence));
    let kept = kept.map(|s| SegmentSpan {
        sequence: s.sequence,
        before: s.open.as_ref().map_or(plan.last_lsn, |open| open.lsn),
    });
    kept.chain(next.map(|sequence| SegmentSpan { sequence, before: plan.last_lsn })).collect()
}

/// A segment of the facts, to be written to.
pub(crate) fn open_segment(dir: &dyn Dir, facts: &Facts, index: usize) -> Result<Prepared> {
    let facts = &facts.segments[index];
    let name = format::segment_name(facts.sequence);
    let opening = |e| Error::io(format!("opening {}", dir.path().join(&name).display()), e);
    let header: SegmentHeader = *facts
        .good_header()
        .ok_or_else(|| Error::invalid("a plan opens a segment whose header is bad"))?;
    let file = dir.open(&name, Access::Write).map_err(opening)?;
    let status = file.status().map_err(opening)?;
    Ok(Prepared { header, file, identity: facts.identity, status })
}

/// The kept bytes above the highest witness, from the memory they were judged in.
fn kept_bytes(active: &Active, from: u64, to: u64) -> Result<Vec<u8>> {
    let bytes = active.bytes(from, to);
    Ok(bytes.ok_or_else(|| Error::invalid("a plan keeps bytes that were never read"))?.to_vec())
}

fn own_frame(
    kept: &mut Kept,
    segment: &Prepared,
    kind: u16,
    body: &OwnBody,
    durable_end: u64,
) -> Vec<u8> {
    let payload = body.encode();
    let offset = kept.end;
    let lag = (offset.saturating_sub(durable_end) / format::ALIGN) as u32;
    let header = own_header(kind, kept.last_lsn, lag, &payload);
    let frame = format::encode_frame(&header, &payload, segment.header.salt, offset);
    kept.add(&header, &frame[..format::FRAME_HEADER_LEN], offset + frame.len() as u64);
    frame
}

fn reference(segment: &Prepared, offset: u64, body: &OwnBody) -> Option<SealReference> {
    let digest = body.seal.as_ref()?.digest.clone();
    Some(SealReference { sequence: segment.header.sequence, offset, digest })
}

/// Row H (and D): after everything that replaces them is durable.
fn remove_leftovers(dir: &dyn Dir, plan: &Plan) -> Result<()> {
    // The preparation of the next segment may have used up a leftover or made the name anew.
    let made = plan.next.map(|next| format::segment_name(next.sequence));
    let mut any = false;
    for name in plan.removals.iter().filter(|name| Some(*name) != made.as_ref()) {
        any |= remove_leftover(dir, name)?;
    }
    if any {
        dir.sync(SyncPoint::Leftovers)
            .map_err(|e| Error::io(format!("syncing {}", dir.path().display()), e))?;
    }
    Ok(())
}

/// Whether it was there.
fn remove_leftover(dir: &dyn Dir, name: &str) -> Result<bool> {
    match dir.remove(name) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => {
            let path = dir.path().join(name);
            Err(Error::io(format!("removing the leftover {}", path.display()), e))
        }
    }
}
