//! The recovery table as a pure function: facts in, a plan or a refusal out.
//!
//! Never here: I/O, clocks, randomness. Rows are tried in the order H, F, G, D, E, then the active
//! segment's (the order of judging; [`super::apply`] has the order of doing). Invariants: exactly
//! one row names the outcome; damage below a witness never becomes a plan; head and holds come
//! only from records that the plan keeps. `tests/recovery_table.rs` visits every row.

use super::facts::{Active, Facts, SegmentFacts};
use super::plan::{ActivePlan, Cut, Decision, NextSegment, Plan, Refusal, RefusalKind, Row};
use super::refusal::{before, corrupt, gap, lost_segment, refuse_damage, with_lsns};
use super::set::{
    check_control_reach, check_header, check_own_seal, check_regular, check_sealed, check_set,
    check_start, check_supported, trusted_control,
};
use crate::error::Location;
use crate::format::{
    self, FRAME_HEADER_LEN, FRAMES_START, Hold, KIND_OPEN, KIND_SEAL, KIND_TRIM, OwnBody,
    SealReference, SegmentHeader,
};
use crate::ids::{Generation, Lsn, Sequence};
use crate::mutant;
use crate::survey::{Damage, DamageClass, OwnRecord, Survey};

pub(super) type Judged<T> = std::result::Result<T, Refusal>;

/// Applies the table.
pub fn decide(facts: &Facts) -> Decision {
    match judge(facts) {
        Ok(plan) => Decision::Plan(Box::new(plan)),
        Err(refusal) => Decision::Refuse(with_lsns(facts, refusal)),
    }
}

fn judge(facts: &Facts) -> Judged<Plan> {
    if facts.archive {
        check_archive(facts)?;
        let why = "the directory holds an archive manifest: read it with `wal cat`, never write";
        return Err(Refusal {
            row: Row::F,
            kind: RefusalKind::Archived,
            why: why.to_owned(),
            location: Location::default(),
        });
    }
    match &facts.active {
        None => judge_unused(facts),
        Some(active) => judge_used(facts, active),
    }
}

/// The segments of an archive: each whole, each the one that its successor names, and without a step
/// in the LSNs where numbers are left out. Which one should be the first and which the last is its
/// manifest's to say.
fn check_archive(facts: &Facts) -> Judged<()> {
    for segment in &facts.segments {
        check_supported(segment)?;
    }
    let Some(active) = &facts.active else {
        check_set(facts, &facts.segments, &[])?;
        return facts.segments.first().map_or(Ok(()), |first| Err(nothing_in(first)));
    };
    let (kept, beyond) = facts.segments.split_at(active.index + 1);
    let segment = &facts.segments[active.index];
    if let Some(damage) = active.survey.as_ref().and_then(unsupported_damage) {
        return Err(refuse_damage(Row::F, RefusalKind::Unsupported, segment.sequence, damage));
    }
    check_set(facts, kept, beyond)?;
    kept.iter().try_for_each(check_header)?;
    let closed = active.survey.as_ref().is_some_and(Survey::ends_in_close);
    let spare = segment.good_header().filter(|_| closed);
    let spare = spare.and_then(|header| spare_after(facts, active.index, header));
    if let Some(empty) = beyond.iter().find(|empty| Some(empty.sequence) != spare) {
        return Err(nothing_in(empty));
    }
    check_sealed(kept)?;
    match &active.survey {
        Some(survey) => check_last(segment, survey),
        None => Err(corrupt(Row::DPrime, segment.sequence, 0, "its header is bad")),
    }
}

/// What a hand-over that is at work, or was broken off, leaves has another name or is whole.
fn nothing_in(empty: &SegmentFacts) -> Refusal {
    let why = "nothing stands in it, and no segment without a record is handed over";
    corrupt(Row::E, empty.sequence, FRAMES_START, why)
}

/// The last segment of an archive: as whole as those that a later one names.
fn check_last(segment: &SegmentFacts, survey: &Survey) -> Judged<()> {
    if let Some(damage) = survey.damages.first() {
        return Err(refuse_damage(Row::E, RefusalKind::Corrupt, segment.sequence, damage));
    }
    if survey.first_open().is_none() {
        let why = "its first frame is not an open record";
        return Err(corrupt(Row::E, segment.sequence, FRAMES_START, why));
    }
    let capacity = segment.good_header().map_or(0, |header| header.capacity);
    if segment.file_len < capacity {
        let why = format!("its file has {} bytes of {capacity}", segment.file_len);
        return Err(corrupt(Row::E, segment.sequence, segment.file_len, why));
    }
    match survey.seal() {
        Some(seal) => check_own_seal(segment, seal),
        None if survey.ends_in_close() => Ok(()),
        None => {
            let why = "it does not end in a seal, as every segment of an archive does";
            Err(corrupt(Row::E, segment.sequence, survey.kept.end, why))
        }
    }
}

/// No segment has a byte of data.
fn judge_unused(facts: &Facts) -> Judged<Plan> {
    for segment in &facts.segments {
        check_supported(segment)?;
        check_regular(segment)?;
    }
    // A log that once wrote an open record has a control block or a snapshot that says so.
    if let Some(control) = trusted_control(facts).filter(|c| c.control.sequence > 0) {
        return Err(lost_segment(control.control.sequence, control.control.durable_lsn));
    }
    if let Some(snapshot) = facts.snapshots.first() {
        return Err(lost_segment(1, snapshot.lsn.get()));
    }
    // A second segment is prepared only after the first one's open record was durable.
    if let Some(later) = facts.segments.iter().find(|s| s.sequence != Sequence::FIRST) {
        if facts.segments[0].sequence != Sequence::FIRST {
            return Err(gap(Sequence::FIRST, later.sequence));
        }
        let why = format!("it is empty, though segment {} was prepared after it", later.sequence);
        return Err(corrupt(Row::G, Sequence::FIRST, FRAMES_START, why));
    }
    let reusable = facts.segments.first().filter(|s| is_spare(s, None));
    let reuse = reusable.is_some();
    let removals = facts
        .segments
        .iter()
        .filter(|s| !(reuse && s.sequence == Sequence::FIRST))
        .map(|s| format::segment_name(s.sequence))
        .chain(facts.tmp_names.iter().cloned())
        .collect();
    Ok(Plan {
        row: Row::Fresh,
        generation: Generation::FIRST,
        head: Lsn::FIRST,
        holds: Vec::new(),
        last_lsn: 0,
        active: None,
        next: Some(NextSegment { sequence: Sequence::FIRST, reuse }),
        spare: None,
        removals,
        below_head: 0,
        cut: None,
    })
}

fn judge_used(facts: &Facts, active: &Active) -> Judged<Plan> {
    let segment = &facts.segments[active.index];
    // The head decides what row H takes out of every other row's sight, and it stands in the
    // active segment; so that segment's header and frames are looked at first.
    let state = active.survey.as_ref().map(|survey| State::of(facts, active, survey));
    let head = state.as_ref().map_or(Lsn::FIRST, |state| state.head);
    let first_kept = first_kept(facts, active, head);
    let kept = &facts.segments[first_kept..=active.index];
    let beyond = &facts.segments[active.index + 1..];
    for segment in kept.iter().chain(beyond) {
        check_supported(segment)?;
    }
    if let Some(damage) = active.survey.as_ref().and_then(unsupported_damage) {
        return Err(refuse_damage(Row::F, RefusalKind::Unsupported, segment.sequence, damage));
    }
    check_set(facts, kept, beyond)?;
    check_control_reach(facts, segment)?;
    // D': the header of a kept segment.
    for segment in kept {
        check_header(segment)?;
    }
    check_sealed(kept)?;
    check_start(kept, head)?;
    let (Some(survey), Some(state)) = (&active.survey, state) else {
        return Err(corrupt(Row::DPrime, segment.sequence, 0, "its header is bad"));
    };
    plan_active(facts, active, survey, state, first_kept)
}

/// What the kept records of the active segment, or else the seal before it, say.
struct State {
    head: Lsn,
    holds: Vec<Hold>,
    last_lsn: u64,
    generation: Generation,
    previous: Option<OwnRecord>,
}

impl State {
    fn of(facts: &Facts, active: &Active, survey: &Survey) -> State {
        let previous =
            active.index.checked_sub(1).and_then(|index| facts.segments[index].seal.clone());
        let source = [KIND_OPEN, KIND_TRIM, KIND_SEAL]
            .into_iter()
            .filter_map(|kind| survey.last_own(kind))
            .max_by_key(|own| own.offset)
            .or(previous.as_ref());
        let head = source.and_then(|own| own.body.head).unwrap_or(Lsn::FIRST);
        let holds = source.map(|own| own.body.holds.clone()).unwrap_or_default();
        let open_is_whole = survey.first_open().is_some();
        let last_lsn = match &previous {
            Some(seal) if !open_is_whole => seal.lsn,
            _ => survey.kept.last_lsn,
        };
        let generation = survey
            .generation_max
            .max(previous.as_ref().and_then(|seal| seal.body.generation))
            .unwrap_or(Generation::FIRST);
        State { head, holds, last_lsn, generation, previous }
    }
}

/// Row H, first half: the first segment that is not wholly below the head. Everything before it
/// is what a crash left of a trim.
fn first_kept(facts: &Facts, active: &Active, head: Lsn) -> usize {
    let below = (1..=active.index).rev().find(|index| {
        let open = facts.segments[*index].open.as_ref();
        open.is_some_and(|open| open.lsn < head.get())
    });
    // `open.lsn + 1` is the first LSN of that segment. Where it is at or below the head, all
    // segments before it are below the head.
    below.unwrap_or(0)
}

fn unsupported_damage(survey: &Survey) -> Option<&Damage> {
    survey.damages.iter().find(|damage| damage.class == DamageClass::Unsupported)
}

/// The active segment's own rows: A, A', B, C.
fn plan_active(
    facts: &Facts,
    active: &Active,
    survey: &Survey,
    state: State,
    first_kept: usize,
) -> Judged<Plan> {
    let segment = &facts.segments[active.index];
    let header = segment
        .good_header()
        .ok_or_else(|| corrupt(Row::DPrime, segment.sequence, 0, "its header is bad"))?;
    check_active_open(segment, survey, &state)?;
    let witness = witness(facts, segment, survey);
    let torn = judge_damage(segment, survey, witness, &state, facts)?;
    check_head(segment, survey, &state)?;
    // The next opening would refuse it, after this one had gone on behind it.
    if let Some(seal) = survey.seal() {
        check_own_seal(segment, seal)?;
    }
    let short = segment.file_len < header.capacity;
    let clean = survey.ends_in_close() && !torn && !short;
    let mut plan = Plan {
        row: if torn || short {
            Row::B
        } else if clean {
            Row::A
        } else {
            Row::APrime
        },
        generation: if clean || mutant::is("generation:not-bumped") {
            state.generation
        } else {
            state.generation.next()
        },
        head: state.head,
        holds: state.holds.clone(),
        last_lsn: state.last_lsn,
        active: None,
        next: None,
        spare: None,
        removals: removals(facts, active.index, first_kept),
        below_head: first_kept,
        cut: None,
    };
    if plan.row == Row::B {
        plan.cut = Some(cut(active, segment.sequence, survey, &state));
    }
    let stay = clean && room_for_another_session(header, survey, &plan);
    let sequence = segment.sequence.next().ok_or_else(|| {
        corrupt(Row::G, segment.sequence, 0, "it has the last possible sequence number")
    })?;
    let spare = spare_after(facts, active.index, header);
    if stay {
        plan.spare = spare;
    } else {
        plan.next = Some(NextSegment { sequence, reuse: spare.is_some() });
    }
    if let Some(spare) = spare {
        plan.removals.retain(|name| *name != format::segment_name(spare));
    }
    let open_is_whole = survey.first_open().is_some();
    let kept_end = survey.kept.end;
    plan.active = Some(ActivePlan {
        index: active.index,
        witnessed_end: witness.min(kept_end),
        kept_end,
        open_anew: (!open_is_whole).then(|| OwnBody {
            generation: Some(plan.generation),
            head: Some(plan.head),
            holds: plan.holds.clone(),
            previous: state.previous.as_ref().and_then(|seal| reference(facts, active, seal)),
            ..OwnBody::default()
        }),
        seal: !stay && survey.seal().is_none(),
    });
    Ok(plan)
}

fn reference(facts: &Facts, active: &Active, seal: &OwnRecord) -> Option<SealReference> {
    Some(SealReference {
        sequence: facts.segments[active.index.checked_sub(1)?].sequence,
        offset: seal.offset,
        digest: seal.body.seal.as_ref()?.digest.clone(),
    })
}

/// The first frame of a segment is its open record, and a later segment's names its predecessor.
fn check_active_open(segment: &SegmentFacts, survey: &Survey, state: &State) -> Judged<()> {
    let first_of_log = segment.sequence == Sequence::FIRST;
    if survey.first_open().is_none() {
        if survey.kept.end > FRAMES_START {
            let why = "its first frame is not an open record";
            return Err(corrupt(Row::C, segment.sequence, FRAMES_START, why));
        }
        if !first_of_log && state.previous.is_none() {
            return Err(gap(before(segment.sequence), segment.sequence));
        }
        return Ok(());
    }
    let has_previous = survey.first_open().is_some_and(|open| open.body.previous.is_some());
    if first_of_log == has_previous && !mutant::is("row-g:any-predecessor") {
        let why = "its open record does not name the segment before it";
        return Err(corrupt(Row::G, segment.sequence, FRAMES_START, why));
    }
    Ok(())
}

/// A trim keeps nothing above the LSN after the last durable one, so no writer of ours names a
/// higher head; a log that had one would call every record that it takes trimmed.
fn check_head(segment: &SegmentFacts, survey: &Survey, state: &State) -> Judged<()> {
    let next = state.last_lsn.saturating_add(1);
    if state.head.get() <= next || mutant::is("row-c:any-head") {
        return Ok(());
    }
    let why = format!("its head is LSN {}, and the next record is LSN {next}", state.head);
    let named = survey.own.iter().rev().find(|own| own.body.head == Some(state.head));
    Err(corrupt(Row::C, segment.sequence, named.map_or(FRAMES_START, |own| own.offset), why))
}

/// The highest offset in the active segment that something proves to have been durable.
fn witness(facts: &Facts, segment: &SegmentFacts, survey: &Survey) -> u64 {
    let log_id = segment.good_header().map(|header| header.log_id);
    let control = trusted_control(facts)
        .map(|control| control.control)
        .filter(|c| c.sequence == segment.sequence.get() && Some(c.log_id) == log_id)
        .map_or(0, |c| c.durable_end);
    let control = if mutant::is("witness:control") { 0 } else { control };
    survey.witness.max(control)
}

/// Whether the tail is torn; corruption if what is damaged was promised.
fn judge_damage(
    segment: &SegmentFacts,
    survey: &Survey,
    witness: u64,
    state: &State,
    facts: &Facts,
) -> Judged<bool> {
    if let Some(damage) =
        survey.damages.iter().find(|damage| damage.class == DamageClass::Impossible)
        && !mutant::is("row-c:impossible-is-torn")
    {
        return Err(refuse_damage(Row::C, RefusalKind::Corrupt, segment.sequence, damage));
    }
    if witness > survey.kept.end {
        return Err(match survey.damages.first() {
            Some(damage) => {
                let mut damage = damage.clone();
                damage.why = format!(
                    "{}, below offset {witness} which a later frame or the control block proves \
                     durable",
                    damage.why
                );
                refuse_damage(Row::C, RefusalKind::Corrupt, segment.sequence, &damage)
            }
            None => lost_tail(facts, segment, survey, witness),
        });
    }
    let highest = facts.snapshots.iter().map(|snapshot| snapshot.lsn.get()).max().unwrap_or(0);
    if highest > state.last_lsn && !mutant::is("witness:snapshot") {
        let low = Lsn::new(state.last_lsn.saturating_add(1));
        let why = format!("a registry snapshot contains LSN {highest}, which is not in the log");
        let mut refusal = corrupt(Row::C, segment.sequence, survey.kept.end, why);
        refusal.location.lsns = low.zip(Lsn::new(highest));
        return Err(refusal);
    }
    Ok(!survey.damages.is_empty())
}

/// Everything is whole, and yet something proves that there was more.
fn lost_tail(facts: &Facts, segment: &SegmentFacts, survey: &Survey, witness: u64) -> Refusal {
    let why = format!(
        "it ends here, but bytes up to offset {witness} were durable (the control block says so)"
    );
    let mut refusal = corrupt(Row::C, segment.sequence, survey.kept.end, why);
    let low = survey.kept.last_lsn.saturating_add(1);
    let high = trusted_control(facts).map_or(low, |c| c.control.durable_lsn.max(low));
    refusal.location.lsns = Lsn::new(low).zip(Lsn::new(high));
    refusal
}

/// From the kept end to the last byte that means anything.
fn cut(active: &Active, segment: Sequence, survey: &Survey, state: &State) -> Cut {
    let from = survey.kept.end;
    let tail = active.bytes_from(from).unwrap_or_default();
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    let low = state.last_lsn.saturating_add(1);
    // No frame is shorter than its header, so the cut bytes bound how many there can have been.
    let bound = state.last_lsn.saturating_add(used / FRAME_HEADER_LEN as u64);
    let high = survey.damaged_lsn.min(bound).max(survey.highest_lsn);
    let lsns = Lsn::new(low).zip(Lsn::new(high)).filter(|_| high >= low && used > 0);
    Cut { segment, from, to: from + used, lsns }
}

/// Whether another session's open and close records, and one trim, still fit before the half of
/// the reserve that is the seal's alone.
fn room_for_another_session(header: &SegmentHeader, survey: &Survey, plan: &Plan) -> bool {
    let body = OwnBody {
        generation: Some(plan.generation),
        head: Some(plan.head),
        holds: plan.holds.clone(),
        ..OwnBody::default()
    };
    let one = body.encode().len() as u64 + 2 * FRAME_HEADER_LEN as u64;
    survey.kept.end + 3 * one <= header.own_records_end()
}

/// Rows D and H: whatever is not part of the log any more, or never was.
fn removals(facts: &Facts, active: usize, first_kept: usize) -> Vec<String> {
    let below = facts.segments[..first_kept].iter();
    let beyond = facts.segments[active + 1..].iter();
    below
        .chain(beyond)
        .map(|segment| format::segment_name(segment.sequence))
        .chain(facts.tmp_names.iter().cloned())
        .collect()
}

/// Row H: a whole prepared segment right after the active one.
fn spare_after(facts: &Facts, active: usize, header: &SegmentHeader) -> Option<Sequence> {
    let next = facts.segments.get(active + 1)?;
    let follows = header.sequence.next() == Some(next.sequence);
    (follows && is_spare(next, Some(header))).then_some(next.sequence)
}

fn is_spare(segment: &SegmentFacts, before: Option<&SegmentHeader>) -> bool {
    segment.good_header().is_some_and(|header| {
        !segment.has_data
            && segment.file_len == header.capacity
            && header.sequence == segment.sequence
            && before.is_none_or(|b| b.log_id == header.log_id && b.salt != header.salt)
    })
}
