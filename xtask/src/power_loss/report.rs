//! What the cuts came to, in lines for the person who called.
//!
//! Never here: a verdict of its own. Next room: back to [`super`].

use std::collections::BTreeMap;

use super::cuts::{Cut, Mode};
use super::oracle::Met;

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Of these, file systems that did not mount.
    pub(crate) unmountable: u64,
    modes: BTreeMap<Mode, u64>,
    rows: BTreeMap<String, u64>,
    /// Cuts with an open epoch, and the requests in it.
    open: (u64, u64),
    acknowledged: u64,
    records: u64,
    cut_bytes: u64,
    trimmed: u64,
    backups: (u64, u64),
}

impl Tally {
    pub(crate) fn add(&mut self, cut: &Cut, open: usize, told: u64, met: &Met, good: bool) {
        *(if good { &mut self.passed } else { &mut self.failed }) += 1;
        *self.modes.entry(cut.mode).or_default() += 1;
        self.unmountable += u64::from(met.unmountable);
        for row in &met.rows {
            *self.rows.entry(row.clone()).or_default() += 1;
        }
        self.open.0 += u64::from(open > 0);
        self.open.1 += open as u64;
        self.acknowledged += told;
        self.records += met.records;
        self.cut_bytes += met.cut_bytes;
        self.trimmed += u64::from(met.trimmed);
        self.backups.0 += u64::from(met.backups.0);
        self.backups.1 += u64::from(met.backups.1);
    }

    /// Adds what another job came to.
    pub(crate) fn merge(&mut self, other: Tally) {
        let Tally { passed, failed, modes, rows, open, acknowledged, records, .. } = other;
        self.passed += passed;
        self.failed += failed;
        self.unmountable += other.unmountable;
        modes.into_iter().for_each(|(mode, n)| *self.modes.entry(mode).or_default() += n);
        rows.into_iter().for_each(|(row, n)| *self.rows.entry(row).or_default() += n);
        self.open = (self.open.0 + open.0, self.open.1 + open.1);
        self.acknowledged += acknowledged;
        self.records += records;
        self.cut_bytes += other.cut_bytes;
        self.trimmed += other.trimmed;
        self.backups = (self.backups.0 + other.backups.0, self.backups.1 + other.backups.1);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let Tally { passed, failed, modes, rows, open, acknowledged, records, .. } = self;
        let cuts = (passed + failed).max(1);
        let modes: Vec<_> = modes.iter().map(|(mode, n)| format!("{mode:?} {n}")).collect();
        let rows: Vec<_> = rows.iter().map(|(row, n)| format!("{row} x {n}")).collect();
        vec![
            format!(
                "  {} cuts: {passed} passed, {failed} failed; of the open epoch kept: {}",
                passed + failed,
                modes.join(", ")
            ),
            format!(
                "  an epoch was open at {} cuts, {:.1} requests in it on average",
                open.0,
                open.1 as f64 / open.0.max(1) as f64
            ),
            format!(
                "  acknowledged before a cut {} on average (checked {acknowledged}), read back {}",
                acknowledged / cuts,
                records / cuts
            ),
            format!(
                "  rows {}; {} torn bytes cut; head past 1 at {} cuts; a whole backup at {}, half \
                 of one at {}",
                rows.join(", "),
                self.cut_bytes,
                self.trimmed,
                self.backups.0,
                self.backups.1
            ),
        ]
    }
}
