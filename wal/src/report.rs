//! What an opening found and did, for the caller to log.
//!
//! Never here: prints. Next room: back to [`crate::log`].

use std::fmt;

use crate::ids::{Generation, Lsn};
use crate::recover::{Cut, Plan, Row};

/// The outcome of recovery. Every opening has one, also a clean one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryReport {
    /// The row of the recovery table that matched.
    pub row: Row,
    /// Whether other processes had the log open already, and there was nothing to repair.
    pub joined: bool,
    /// The generation from now on.
    pub generation: Generation,
    /// The last record kept.
    pub last_lsn: Option<Lsn>,
    /// What was cut from the tail. No sync had ever promised these bytes, with one exception to
    /// know about: damage inside the very last acknowledged group, with nothing written after it
    /// and no control block, looks the same.
    pub cut: Option<Cut>,
    /// How many leftover files were removed.
    pub removed: usize,
}

impl RecoveryReport {
    pub(crate) fn of(plan: &Plan) -> RecoveryReport {
        RecoveryReport {
            row: plan.row,
            joined: false,
            generation: plan.generation,
            last_lsn: Lsn::new(plan.last_lsn),
            cut: plan.cut,
            removed: plan.removals.len(),
        }
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, generation {}", self.row.letter(), self.generation)?;
        match self.last_lsn {
            Some(lsn) => write!(f, ", last LSN {lsn}")?,
            None => write!(f, ", no records")?,
        }
        let Some(cut) = self.cut else { return Ok(()) };
        write!(
            f,
            ", cut {} bytes at offset {} of segment {}",
            cut.to - cut.from,
            cut.from,
            cut.segment
        )?;
        match cut.lsns {
            Some((first, last)) => write!(f, " (unacknowledged LSNs {first} to {last})"),
            None => Ok(()),
        }
    }
}
