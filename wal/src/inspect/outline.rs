//! What the facts of an opening say about a log, before a body of a sealed segment is read.
//!
//! Never here: I/O, judgement of its own: what is wrong is the recovery table's word. Next room:
//! [`super::sealed`].

use super::value::{Finding, Report, Role, SegmentReport, State};
use crate::format::{FRAMES_START, HeaderVerdict, KIND_OPEN, KIND_SEAL, KIND_TRIM, OwnBody};
use crate::ids::Lsn;
use crate::recover::facts::{Active, SegmentFacts};
use crate::recover::{Decision, Facts, Plan, Refusal, RefusalKind, Row, trusted_control};
use crate::survey::Survey;

pub(super) fn outline(facts: &Facts, decision: &Decision) -> Report {
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
    let header = facts.segments.iter().rev().find_map(|segment| segment.good_header());
    Report {
        state,
        live: false,
        shared: header.map(|header| header.shared),
        row,
        log_id: header.map(|header| header.log_id),
        generation: survey.and_then(|survey| survey.generation_max),
        head: head(facts, body),
        holds: body.filter(|_| !facts.archive).map_or_else(Vec::new, |body| {
            body.holds.iter().map(|hold| (hold.name.clone(), hold.lsn)).collect()
        }),
        last_lsn: Lsn::new(last),
        proven_lsn: proven(facts),
        copied_lsn: copied(facts).filter(|lsn| lsn.get() > last),
        records: None,
        segments: (0..facts.segments.len()).map(|index| segment_report(facts, index)).collect(),
        findings: Vec::new(),
        findings_cut: 0,
        leftovers,
    }
}

/// An archive begins where its first segment does: heads and holds in it are its log's, which may have
/// let go since of just what is kept here.
fn head(facts: &Facts, body: Option<&OwnBody>) -> Lsn {
    if facts.archive {
        let before = facts.segments.first().and_then(|segment| segment.open.as_ref());
        return before.and_then(|open| Lsn::new(open.lsn.saturating_add(1))).unwrap_or(Lsn::FIRST);
    }
    body.and_then(|body| body.head).unwrap_or(Lsn::FIRST)
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
    // What was handed over was durable, to the seal.
    let sealed = |survey: &Survey| facts.archive && survey.seal().is_some();
    let all = survey.filter(|survey| {
        survey.witness >= survey.kept.end || survey.ends_in_close() || sealed(survey)
    });
    let kept = all.map_or(0, |survey| survey.kept.last_lsn);
    Lsn::new(before.max(control).max(kept))
}

/// The claim of a control block that came with a copy.
fn copied(facts: &Facts) -> Option<Lsn> {
    let control = facts.control.filter(|_| trusted_control(facts).is_none())?.control;
    let mut headers = facts.segments.iter().filter_map(SegmentFacts::good_header);
    headers.any(|header| header.log_id == control.log_id).then_some(())?;
    Lsn::new(control.durable_lsn)
}

fn segment_report(facts: &Facts, index: usize) -> SegmentReport {
    let segment = &facts.segments[index];
    let active = facts.active.as_ref();
    let role = match (&segment.header, active) {
        (HeaderVerdict::Bad(_), _) => Role::Bad,
        (_, Some(active)) if index == active.index && is_last_of_archive(facts, active) => {
            Role::Sealed
        }
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

/// An archive has no segment that takes appends.
fn is_last_of_archive(facts: &Facts, active: &Active) -> bool {
    let sealed = active.survey.as_ref().is_some_and(|survey| survey.seal().is_some());
    facts.archive && facts.mark.is_none() && sealed
}

pub(super) fn fill_from(report: &mut SegmentReport, survey: &Survey) {
    report.records = Some(survey.kept.records);
    report.used_bytes = Some(survey.kept.end);
    report.lsns = survey.kept.first_lsn.zip(Lsn::new(survey.kept.last_lsn));
}

pub(super) fn note_torn(report: &mut Report, facts: &Facts, plan: &Plan) {
    let Some(cut) = plan.cut else { return };
    let survey = facts.active.as_ref().and_then(|active| active.survey.as_ref());
    let why = survey
        .and_then(|survey| survey.damages.first())
        .map_or_else(|| "the file is shorter than its capacity".to_owned(), |d| d.why.clone());
    report.note(Finding {
        state: State::TornTail,
        segment: Some(cut.segment),
        bytes: Some((cut.from, cut.to)),
        lsns: cut.lsns,
        why: format!("torn tail: {why}; no sync had promised these bytes"),
    });
}

pub(super) fn note_refusal(report: &mut Report, facts: &Facts, refusal: &Refusal) {
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
    report.note(Finding {
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
