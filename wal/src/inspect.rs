//! What a log looks like, as a value: the report behind `wal inspect` and `wal verify`.
//!
//! Never here: writing of any kind, not even a lock file; printing. Invariant: the verdict is the
//! recovery table's own ([`crate::recover::decide()`]), so inspector and recovery cannot disagree.
//! With a living owner, bytes above its control block are in flight and no finding.

use std::path::Path;
use std::sync::Arc;

use crate::bodies::{self, Body};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, FRAMES_START, HeaderVerdict, KIND_OPEN, KIND_SEAL, KIND_TRIM};
use crate::fs::{Dir, os::OsDir};
use crate::ids::{Generation, LogId, Lsn, Sequence};
use crate::lock::is_live;
use crate::recover::facts::SegmentFacts;
use crate::recover::{Decision, Facts, Plan, Refusal, RefusalKind, Row, decide};
use crate::survey::{Damage, DamageClass, Survey};

/// How much is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Headers, open records and seals, and the active segment whole: what an opening reads.
    Seals,
    /// Every byte of every segment.
    Everything,
    /// As [`Depth::Seals`], and every byte of so many of a hundred sealed segments, spread evenly;
    /// at least one. Which ones hangs on `offset`: another number, another sample.
    Sample {
        /// Of a hundred; from 1 to 100.
        percent: u8,
        /// Any number.
        offset: u64,
    },
}

impl Depth {
    /// Whether the sealed segment with this index, of so many, is read whole.
    fn takes(self, index: usize, count: usize) -> bool {
        match self {
            Depth::Seals => false,
            Depth::Everything => true,
            Depth::Sample { percent, offset } => {
                let (index, count) = (index as u64, count.max(1) as u64);
                let place = (index + offset % count) % count;
                let wanted = (count * u64::from(percent)).div_ceil(100).clamp(1, count);
                place * wanted / count != (place + 1) * wanted / count
            }
        }
    }
}

/// The state of a log in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Closed cleanly.
    Clean,
    /// A process has it open for writing.
    Live,
    /// Ended without a close record; every batch is whole.
    Unclean,
    /// Ended inside a write; nothing that was promised is affected.
    TornTail,
    /// Something that a sync had promised is damaged or missing.
    Corrupt,
    /// Written by a newer version.
    Unsupported,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Torn tail, corruption or unsupported.
    pub state: State,
    /// The segment, where there is one.
    pub segment: Option<Sequence>,
    /// First and one past the last byte, as far as known.
    pub bytes: Option<(u64, u64)>,
    /// First and last LSN concerned, as far as known.
    pub lsns: Option<(Lsn, Lsn)>,
    /// What was expected and what was found.
    pub why: String,
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentReport {
    /// Its sequence.
    pub sequence: Sequence,
    /// Size of its file.
    pub file_bytes: u64,
    /// Sealed, active, prepared or bad.
    pub role: Role,
    /// Records in it, where a seal or a full read tells.
    pub records: Option<u64>,
    /// Bytes used by frames, header included.
    pub used_bytes: Option<u64>,
    /// First and last LSN in it.
    pub lsns: Option<(Lsn, Lsn)>,
    /// The generation it was begun in.
    pub generation: Option<Generation>,
    /// When it was prepared, Unix ms.
    pub created_ms: Option<u64>,
    /// When its last record was appended, Unix ms; 0 or `None` where its seal does not know.
    pub last_append_ms: Option<u64>,
}

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Takes appends.
    Active,
    /// Never changes again.
    Sealed,
    /// Empty and waiting.
    Prepared,
    /// Its header is bad.
    Bad,
}

/// A whole log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The worst that was found, or how it ended.
    pub state: State,
    /// Whether a process has it open for writing.
    pub live: bool,
    /// The row of the recovery table that an opening would take.
    pub row: Row,
    /// The log's id.
    pub log_id: Option<LogId>,
    /// The highest generation read.
    pub generation: Option<Generation>,
    /// The first LSN kept.
    pub head: Lsn,
    /// Named holds.
    pub holds: Vec<(String, Lsn)>,
    /// The last record that can be read.
    pub last_lsn: Option<Lsn>,
    /// The last record that something proves durable (a later frame or the control block).
    pub proven_lsn: Option<Lsn>,
    /// Records in all, where every segment's count is known.
    pub records: Option<u64>,
    /// Lowest first.
    pub segments: Vec<SegmentReport>,
    /// Lowest offset first within a segment.
    pub findings: Vec<Finding>,
    /// Leftovers that the next opening removes.
    pub leftovers: Vec<String>,
}

/// Reports on the log in `path`; `progress` is told how many bytes were read since the last call.
/// Sealed segments are read by as many threads as there are processors, but at most four.
///
/// # Errors
/// `NotALog`, `Io`. Damage is in the report, not an error.
pub fn inspect(
    path: impl AsRef<Path>,
    depth: Depth,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    let dir = Arc::new(OsDir::new(path.as_ref())) as Arc<dyn Dir>;
    inspect_with(&dir, depth, bodies::threads(), progress)
}

/// [`inspect`] on any file system behind the seam, by this thread alone.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_in(
    dir: &Arc<dyn Dir>,
    depth: Depth,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    inspect_with(dir, depth, 1, progress)
}

/// [`inspect_in`] by so many threads. The report does not depend on how many; nor does the sum that
/// `progress`, always called on this thread, is told of a log that can be read.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// # annals_wal::Log::open(&path)?.close()?;
/// use annals_wal::fs::{Dir, os::OsDir};
/// use annals_wal::inspect::{Depth, State, inspect_with};
/// let dir: std::sync::Arc<dyn Dir> = std::sync::Arc::new(OsDir::new(&path));
/// let report = inspect_with(&dir, Depth::Everything, 2, &mut |_| ())?;
/// assert_eq!(report.state, State::Clean);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`inspect`].
pub fn inspect_with(
    dir: &Arc<dyn Dir>,
    depth: Depth,
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    const TRIES: usize = 5;
    let mut tries = 0;
    loop {
        tries += 1;
        let before = is_live(&**dir)?;
        let outcome = report(dir, depth, threads, progress);
        let live = before || is_live(&**dir)?;
        // A living owner may rotate or trim between two reads of ours: what looks bad is looked
        // at again before it is called bad.
        let suspicious = match &outcome {
            Ok(report) => report.state >= State::Corrupt,
            Err(error) => error.kind() == ErrorKind::Io,
        };
        if live && suspicious && tries < TRIES {
            continue;
        }
        let mut report = outcome?;
        report.live = live;
        if live && report.state < State::Corrupt {
            report.state = State::Live;
            report.findings.retain(|finding| finding.state >= State::Corrupt);
        }
        return Ok(report);
    }
}

fn report(
    dir: &Arc<dyn Dir>,
    depth: Depth,
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    let facts = Facts::read(&**dir)?;
    if facts.segments.is_empty() {
        return Err(no_segment(&**dir, &facts));
    }
    let decision = decide(&facts);
    let mut report = outline(&facts, &decision);
    match &decision {
        Decision::Plan(plan) => note_torn(&mut report, &facts, plan),
        Decision::Refuse(refusal) => note_refusal(&mut report, &facts, refusal),
    }
    if depth != Depth::Seals {
        read_bodies(dir, &facts, &decision, &mut report, (depth, threads), progress)?;
    }
    report.records = report
        .segments
        .iter()
        .filter(|segment| matches!(segment.role, Role::Active | Role::Sealed))
        .filter(|segment| !report.leftovers.contains(&format::segment_name(segment.sequence)))
        .map(|segment| segment.records)
        // A seal says how many, and a forged one says anything.
        .try_fold(0u64, |sum, records| Some(sum.saturating_add(records?)));
    let worst = report.findings.iter().map(|finding| finding.state).max();
    report.state = report.state.max(worst.unwrap_or(report.state));
    report.findings.sort_by_key(|finding| (finding.segment, finding.bytes));
    merge_same_place(&mut report.findings);
    Ok(report)
}

/// What the table refused and what the full read found at the same place is one finding: the
/// table's sentence with the wider extent.
fn merge_same_place(findings: &mut Vec<Finding>) {
    let start = |finding: &Finding| (finding.segment, finding.bytes.map(|(from, _)| from));
    findings.dedup_by(|later, kept| {
        let same = start(later) == start(kept) && kept.bytes.is_some();
        if same {
            let to = later.bytes.max(kept.bytes).map_or(0, |(_, to)| to);
            kept.bytes = kept.bytes.map(|(from, own)| (from, own.max(to)));
        }
        same
    });
}

/// An empty directory is no log; a log whose segments are gone is a broken one.
pub(crate) fn no_segment(dir: &dyn Dir, facts: &Facts) -> Error {
    if !facts.any_log_file {
        return Error::not_a_log(dir.path(), "it holds no segment");
    }
    let why = "it holds files of a log but no segment: they were moved or deleted";
    let path = dir.path().display();
    Error::new(
        ErrorKind::Corrupt,
        format!("{path} is not a whole log: {why}. Restore them or use a new directory"),
    )
}

fn outline(facts: &Facts, decision: &Decision) -> Report {
    let active = facts.active.as_ref();
    let survey = active.and_then(|active| active.survey.as_ref());
    let own = survey.and_then(|survey| {
        let kinds = [KIND_OPEN, KIND_TRIM, KIND_SEAL];
        kinds.into_iter().filter_map(|kind| survey.last_own(kind)).max_by_key(|own| own.offset)
    });
    let before = active
        .and_then(|active| active.index.checked_sub(1))
        .and_then(|index| facts.segments[index].seal.as_ref());
    let body = own.or(before).map(|own| &own.body);
    let (row, state, leftovers, last) = match decision {
        Decision::Plan(plan) => (plan.row, state_of(plan), plan.removals.clone(), plan.last_lsn),
        Decision::Refuse(refusal) => {
            let last = survey.map_or(0, |survey| survey.kept.last_lsn);
            (refusal.row, refused_state(refusal), Vec::new(), last)
        }
    };
    Report {
        state,
        live: false,
        row,
        log_id: facts.segments.iter().rev().find_map(|s| s.good_header()).map(|h| h.log_id),
        generation: survey.and_then(|survey| survey.generation_max),
        head: body.and_then(|body| body.head).unwrap_or(Lsn::FIRST),
        holds: body.map_or_else(Vec::new, |body| {
            body.holds.iter().map(|hold| (hold.name.clone(), hold.lsn)).collect()
        }),
        last_lsn: Lsn::new(last),
        proven_lsn: proven(facts),
        records: None,
        segments: (0..facts.segments.len()).map(|index| segment_report(facts, index)).collect(),
        findings: Vec::new(),
        leftovers,
    }
}

fn state_of(plan: &Plan) -> State {
    match plan.row {
        Row::A | Row::Fresh => State::Clean,
        Row::B => State::TornTail,
        _ => State::Unclean,
    }
}

fn refused_state(refusal: &Refusal) -> State {
    match refusal.kind {
        RefusalKind::Corrupt => State::Corrupt,
        RefusalKind::Unsupported => State::Unsupported,
        RefusalKind::Archived => State::Clean,
    }
}

/// The last LSN that a control block of this very log claims, or the one before the active
/// segment: its first frame proves everything earlier.
fn proven(facts: &Facts) -> Option<Lsn> {
    let active = facts.active.as_ref()?;
    let segment = &facts.segments[active.index];
    let before = segment.open.as_ref().map_or(0, |open| open.lsn);
    let log_id = segment.good_header().map(|header| header.log_id);
    let control = facts
        .control
        .as_ref()
        .filter(|c| c.own_matches && Some(c.control.log_id) == log_id)
        .map_or(0, |c| c.control.durable_lsn);
    let survey = active.survey.as_ref();
    let all = survey.filter(|survey| survey.witness >= survey.kept.end || survey.ends_in_close());
    let kept = all.map_or(0, |survey| survey.kept.last_lsn);
    Lsn::new(before.max(control).max(kept))
}

fn segment_report(facts: &Facts, index: usize) -> SegmentReport {
    let segment = &facts.segments[index];
    let active = facts.active.as_ref();
    let role = match (&segment.header, active) {
        (HeaderVerdict::Bad(_), _) => Role::Bad,
        (_, Some(active)) if index == active.index => Role::Active,
        (_, Some(active)) if index < active.index => Role::Sealed,
        _ => Role::Prepared,
    };
    let survey = active.filter(|a| a.index == index).and_then(|a| a.survey.as_ref());
    let seal = segment.seal.as_ref();
    let body = seal.and_then(|own| own.body.seal.as_ref());
    let mut report = SegmentReport {
        sequence: segment.sequence,
        file_bytes: segment.file_len,
        role,
        records: body.map(|body| body.count),
        used_bytes: seal.map(|own| own.offset),
        lsns: body.and_then(|body| body.lsns),
        generation: segment.open.as_ref().and_then(|open| open.body.generation),
        created_ms: segment.good_header().map(|header| header.created_ms),
        last_append_ms: seal.and_then(|own| own.body.times_ms).map(|(_, last)| last),
    };
    if let Some(survey) = survey {
        fill_from(&mut report, survey);
    }
    report
}

fn fill_from(report: &mut SegmentReport, survey: &Survey) {
    report.records = Some(survey.kept.records);
    report.used_bytes = Some(survey.kept.end);
    report.lsns = survey.kept.first_lsn.zip(Lsn::new(survey.kept.last_lsn));
}

fn note_torn(report: &mut Report, facts: &Facts, plan: &Plan) {
    let Some(cut) = plan.cut else { return };
    let survey = facts.active.as_ref().and_then(|active| active.survey.as_ref());
    let why = survey
        .and_then(|survey| survey.damages.first())
        .map_or_else(|| "the file is shorter than its capacity".to_owned(), |d| d.why.clone());
    report.findings.push(Finding {
        state: State::TornTail,
        segment: Some(cut.segment),
        bytes: Some((cut.from, cut.to)),
        lsns: cut.lsns,
        why: format!("torn tail: {why}; no sync had promised these bytes"),
    });
}

fn note_refusal(report: &mut Report, facts: &Facts, refusal: &Refusal) {
    if refusal.kind == RefusalKind::Archived {
        return;
    }
    let location = &refusal.location;
    let to = facts
        .active
        .as_ref()
        .filter(|active| Some(facts.segments[active.index].sequence) == location.segment)
        .and_then(|active| active.survey.as_ref())
        .and_then(|s| s.damages.iter().find(|d| Some(d.from) == location.offset))
        .map(|damage| damage.to);
    report.findings.push(Finding {
        state: refused_state(refusal),
        segment: location.segment,
        bytes: location.offset.map(|from| {
            let header = if from == 0 { FRAMES_START } else { from };
            (from, to.unwrap_or(header))
        }),
        lsns: location.lsns,
        why: refusal.why.clone(),
    });
}

/// Reads the body of every sealed segment; the active one was read whole already.
fn read_bodies(
    dir: &Arc<dyn Dir>,
    facts: &Facts,
    decision: &Decision,
    report: &mut Report,
    (depth, threads): (Depth, usize),
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let active = facts.active.as_ref().map_or(0, |active| active.index);
    let below_head = match decision {
        Decision::Plan(plan) => plan.removals.clone(),
        Decision::Refuse(_) => Vec::new(),
    };
    let readable = |segment: &SegmentFacts| {
        let header = *segment.good_header()?;
        let name = format::segment_name(segment.sequence);
        let (sequence, file_len) = (segment.sequence, segment.file_len);
        (!below_head.contains(&name)).then_some(Body { sequence, header, file_len })
    };
    let sealed = facts.segments[..active].iter().enumerate();
    let sealed = sealed.filter(|(index, _)| depth.takes(*index, active));
    let (indexes, bodies): (Vec<_>, Vec<_>) =
        sealed.filter_map(|(index, segment)| Some((index, readable(segment)?))).unzip();
    let surveys = bodies::surveys(dir, &bodies, threads, progress)?;
    for (index, survey) in indexes.into_iter().zip(&surveys) {
        if survey.damages.is_empty() {
            fill_from(&mut report.segments[index], survey);
        }
        check_sealed_body(report, &facts.segments[index], survey);
    }
    if let Some(active) = &facts.active {
        progress(facts.segments[active.index].file_len);
    }
    Ok(())
}

/// In a sealed segment every bad byte had been promised.
fn check_sealed_body(report: &mut Report, segment: &SegmentFacts, survey: &Survey) {
    let last = segment.seal.as_ref().map(|seal| seal.lsn);
    for damage in &survey.damages {
        report.findings.push(sealed_finding(segment.sequence, damage, last));
    }
    if !survey.damages.is_empty() {
        return;
    }
    let digest = survey.seal().and_then(|own| own.body.seal.as_ref()).map(|body| &body.digest);
    if let Some(digest) = digest.filter(|digest| digest.algorithm != format::DIGEST_CRC32) {
        report.findings.push(Finding {
            state: State::Unsupported,
            segment: Some(segment.sequence),
            bytes: Some((FRAMES_START, survey.kept.end)),
            lsns: survey.kept.first_lsn.zip(Lsn::new(survey.kept.last_lsn)),
            why: format!("its seal has a digest of algorithm {}", digest.algorithm),
        });
        return;
    }
    let why = match survey.seal().and_then(|own| own.body.seal.as_ref().map(|b| (own, b))) {
        None => "its frames do not end in a seal".to_owned(),
        Some((own, body)) => match digest_before(survey, own.offset, body) {
            true if survey.index_holds == Some(false) => {
                "the index in its seal is not that of its frames".to_owned()
            }
            true => return,
            false => "its frames are not those that its seal was written over".to_owned(),
        },
    };
    report.findings.push(Finding {
        state: State::Corrupt,
        segment: Some(segment.sequence),
        bytes: Some((FRAMES_START, survey.kept.end)),
        lsns: survey.kept.first_lsn.zip(Lsn::new(survey.kept.last_lsn)),
        why,
    });
}

/// Count, LSNs and digest of the seal against what was read.
fn digest_before(survey: &Survey, seal_offset: u64, body: &format::SealBody) -> bool {
    survey.digest_before(seal_offset).as_ref() == Some(&body.digest)
        && body.count == survey.kept.records
        && body.lsns == survey.kept.first_lsn.zip(Lsn::new(survey.kept.last_lsn))
}

fn sealed_finding(sequence: Sequence, damage: &Damage, last: Option<u64>) -> Finding {
    let state = match damage.class {
        DamageClass::Unsupported => State::Unsupported,
        _ => State::Corrupt,
    };
    let (low, high) = damage.lsns;
    let high = last.map_or(high, |last| high.min(last.max(low)));
    Finding {
        state,
        segment: Some(sequence),
        bytes: Some((damage.from, damage.to)),
        lsns: Lsn::new(low).zip(Lsn::new(high)),
        why: damage.why.clone(),
    }
}
