//! The bodies of sealed segments against their seals.
//!
//! Never here: the active segment, which an opening reads whole. Invariant: in a sealed segment every
//! bad byte had been promised. Next room: [`crate::bodies`].

use std::sync::Arc;

use super::outline::fill_from;
use super::value::{Depth, Finding, Report, State};
use crate::bodies::{self, Body};
use crate::error::Result;
use crate::format::{self, FRAMES_START};
use crate::fs::Dir;
use crate::ids::{Lsn, Sequence};
use crate::recover::facts::SegmentFacts;
use crate::recover::{Decision, Facts};
use crate::survey::{Damage, DamageClass, Survey};

/// Reads the body of every sealed segment; the active one was read whole already.
pub(super) fn read_bodies(
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
        report.note(sealed_finding(segment.sequence, damage, last));
    }
    report.findings_cut += survey.damages_cut;
    if !survey.damages.is_empty() {
        return;
    }
    let digest = survey.seal().and_then(|own| own.body.seal.as_ref()).map(|body| &body.digest);
    if let Some(digest) = digest.filter(|digest| digest.algorithm != format::DIGEST_CRC32) {
        report.note(Finding {
            state: State::Unsupported,
            segment: Some(segment.sequence),
            bytes: Some((FRAMES_START, survey.kept.end)),
            lsns: survey.kept.first_lsn.zip(Lsn::new(survey.kept.last_lsn)),
            why: format!("its seal has a digest of algorithm {}", digest.algorithm),
        });
        return;
    }
    let mut from = FRAMES_START;
    let why = match survey.seal().and_then(|own| own.body.seal.as_ref().map(|b| (own, b))) {
        None => {
            // There it should stand; the frames before it are good.
            from = survey.kept.end;
            "its frames do not end in a seal".to_owned()
        }
        Some((own, body)) => match digest_before(survey, own.offset, body) {
            true if survey.index_holds == Some(false) => {
                "the index in its seal is not that of its frames".to_owned()
            }
            true => return,
            false => "its frames are not those that its seal was written over".to_owned(),
        },
    };
    report.note(Finding {
        state: State::Corrupt,
        segment: Some(segment.sequence),
        bytes: Some((from, survey.kept.end)),
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
