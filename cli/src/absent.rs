//! What a salvaged log has not in it, not even as a placeholder: below its first LSN and above its last.
//!
//! Never here: what is lost between those two (the library's report has that). Invariant: above the last
//! one only whole files are named that somebody lists, for how far a torn end reached nobody knows.
//! Next room: [`crate::salvage`].

use annals_wal::Lsn;
use annals_wal::diagnose::{Class, Damaged};
use annals_wal::salvage::SalvageReport;

use crate::damage::{class_word, place};

/// A run of LSNs without a placeholder, and why.
pub(crate) struct Absent {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) why: String,
}

/// Lowest first. An archive's manifest names files that its segments know nothing of.
pub(crate) fn absent(report: &SalvageReport, damages: &[Damaged]) -> Vec<Absent> {
    let before = report.before.map(|(first, last)| Absent {
        first,
        last,
        why: why(damages, first, last).unwrap_or_else(|| "no sound frame".to_owned()),
    });
    let begin = report.before.map_or(report.first_lsn, |(first, _)| first);
    let end = report.last_lsn.map_or(report.first_lsn.get(), |last| last.get() + 1);
    let exact = |damage: &&Damaged| damage.class == Class::Gap && damage.loss.records != Some(0);
    let gaps = damages.iter().filter(exact).filter_map(|damage| damage.lsns);
    let outside = gaps.flat_map(|(first, last)| {
        [
            range(first.get(), last.get().min(begin.get() - 1)),
            range(first.get().max(end), last.get()),
        ]
    });
    let outside = outside.flatten().map(|(first, last)| Absent {
        first,
        last,
        why: why(damages, first, last).unwrap_or_default(),
    });
    let mut absent: Vec<Absent> = before.into_iter().chain(outside).collect();
    absent.sort_by_key(|absent| (absent.first, absent.last));
    absent
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
    let causes: Vec<String> = causes(damages, first, last)
        .map(|damage| format!("{} in {}", class_word(damage.class), place(damage)))
        .take(2)
        .collect();
    (!causes.is_empty()).then(|| causes.join("; "))
}
