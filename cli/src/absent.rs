//! What a salvaged log has not in it, not even as a placeholder: below its first LSN and above its last.
//!
//! Never here: what is lost between those two (the library's report has that). Invariants: what an
//! archive held its manifest decides, whatever became of the files; above the last LSN of a log only
//! whole files are named, for how far a torn end reached nobody knows; a damage that may have cost an
//! LSN is named, filled or [`unexplained`], and never passed over.
//! Next room: [`crate::salvage`].

use annals_wal::Lsn;
use annals_wal::diagnose::{Class, Damaged};
use annals_wal::inspect::State;
use annals_wal::salvage::SalvageReport;

use crate::damage::{class_word, place};

/// What is known of the source besides what the library's salvage says.
#[derive(Default)]
pub(crate) struct Known {
    /// To say why something is lost.
    pub(crate) damages: Vec<Damaged>,
    /// What a control block says that was written for other files.
    pub(crate) copied: Option<Lsn>,
    /// The first and the last LSN of an archive, by its manifest.
    pub(crate) listed: Option<(Lsn, Lsn)>,
}

/// A run of LSNs without a placeholder, and why.
pub(crate) struct Absent {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) why: String,
}

/// Lowest first.
pub(crate) fn absent(report: &SalvageReport, known: &Known) -> Vec<Absent> {
    let first = report.first_lsn.get();
    let end = report.last_lsn.map_or(first, |last| last.get().saturating_add(1));
    let mut runs: Vec<(Lsn, Lsn)> = match known.listed {
        Some((low, high)) => {
            let below = range(low.get(), high.get().min(first - 1));
            below.into_iter().chain(range(low.get().max(end), high.get())).collect()
        }
        None => of_log(report, &known.damages, end),
    };
    runs.sort_unstable();
    runs.dedup();
    let named = |(first, last)| Absent {
        first,
        last,
        why: why(&known.damages, first, last).unwrap_or_else(|| "no sound frame".to_owned()),
    };
    runs.into_iter().map(named).collect()
}

/// Where no manifest tells: what the library says, and what a damage says where the library cannot.
fn of_log(report: &SalvageReport, damages: &[Damaged], end: u64) -> Vec<(Lsn, Lsn)> {
    let below = report.first_lsn.get() - 1;
    let costly = || damages.iter().filter(|damage| is_costly(damage));
    let unknown = costly().filter(|_| report.begin.is_none()).filter_map(|damage| damage.lsns);
    let unknown = unknown.filter_map(|(low, high)| range(low.get(), high.get().min(below)));
    let gaps = costly().filter(|damage| damage.class == Class::Gap);
    let above = gaps.filter_map(|damage| damage.lsns);
    let above = above.filter_map(|(low, high)| range(low.get().max(end), high.get()));
    report.before.into_iter().chain(unknown).chain(above).collect()
}

fn is_costly(damage: &Damaged) -> bool {
    damage.state == State::Corrupt && damage.loss.records != Some(0)
}

/// Damages of which neither the copy nor `absent` accounts for every LSN that they concern, or that
/// concern nobody knows which.
pub(crate) fn unexplained<'a>(
    report: &SalvageReport,
    known: &'a Known,
    absent: &[Absent],
) -> Vec<&'a Damaged> {
    if known.listed.is_some() {
        // All that it held is in the copy or named.
        return Vec::new();
    }
    let begin = report.begin.map_or(0, |begin| begin.get() - 1);
    let mut told = vec![(1, begin)];
    told.extend(report.last_lsn.map(|last| (report.first_lsn.get(), last.get())));
    told.extend(absent.iter().map(|run| (run.first.get(), run.last.get())));
    told.sort_unstable();
    let is_told = |(low, high): (Lsn, Lsn)| {
        let reached = told.iter().fold(low.get(), |at, (first, last)| {
            if *first <= at { at.max(last.saturating_add(1)) } else { at }
        });
        reached > high.get()
    };
    let open = |damage: &&Damaged| is_costly(damage) && !damage.lsns.is_some_and(is_told);
    known.damages.iter().filter(open).collect()
}

fn range(first: u64, last: u64) -> Option<(Lsn, Lsn)> {
    Lsn::new(first).zip(Lsn::new(last)).filter(|(first, last)| first <= last)
}

/// The damages that can have cost these LSNs.
pub(crate) fn causes(damages: &[Damaged], first: Lsn, last: Lsn) -> impl Iterator<Item = &Damaged> {
    damages
        .iter()
        .filter(move |damage| damage.lsns.is_some_and(|(low, high)| low <= last && high >= first))
}

/// Two of them in words.
pub(crate) fn why(damages: &[Damaged], first: Lsn, last: Lsn) -> Option<String> {
    in_words(causes(damages, first, last))
}

/// The first two of these.
pub(crate) fn in_words<'a>(damages: impl Iterator<Item = &'a Damaged>) -> Option<String> {
    let causes: Vec<String> = damages
        .map(|damage| format!("{} in {}", class_word(damage.class), place(damage)))
        .take(2)
        .collect();
    (!causes.is_empty()).then(|| causes.join("; "))
}
