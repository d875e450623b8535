//! The control block: tells readers in other processes, and the next recovery, what is durable.
//!
//! Never here: a sync. The block is a hint whose loss costs nothing; what it claims can be too
//! low, never too high, because it is written only after a sync has returned. A failed write of
//! it fails nothing. Next room: back to [`crate::commit`].

use std::sync::Arc;

use crate::format::{CONTROL_NAME, Control, Identity};
use crate::fs::{Access, Dir, File, write_once};
use crate::ids::{Generation, LogId, Sequence};
use crate::mutant;
use crate::recover::facts::ControlFacts;

/// The open control block of a log that this process owns.
#[derive(Debug)]
pub(crate) struct ControlBlock {
    file: Option<Arc<dyn File>>,
    block: Control,
}

impl ControlBlock {
    /// Opens or creates the file and writes the first block of this opening. A claim that the
    /// recovery trusted is carried forward unchanged: until the plan's last sync has returned it
    /// is still the highest truth there is.
    pub(crate) fn open(
        dir: &dyn Dir,
        log_id: LogId,
        generation: Generation,
        trusted: Option<&ControlFacts>,
    ) -> ControlBlock {
        let file = dir.open(CONTROL_NAME, Access::Write).or_else(|_| dir.create(CONTROL_NAME)).ok();
        let own = file.as_ref().and_then(|file| file.identity().ok()).unwrap_or_default();
        let claim = trusted.filter(|_| !mutant::is("control:claim-not-carried"));
        let claim = claim.map(|facts| facts.control);
        let block = Control {
            log_id,
            generation,
            own,
            segment: claim.map_or(Identity::default(), |claim| claim.segment),
            sequence: claim.map_or(0, |claim| claim.sequence),
            durable_end: claim.map_or(0, |claim| claim.durable_end),
            durable_lsn: claim.map_or(0, |claim| claim.durable_lsn),
            pid: dir.pid(),
            marks: 0,
        };
        let control = ControlBlock { file, block };
        control.write();
        control
    }

    /// Says that every byte of the segment below `durable_end` is durable. Call it only after
    /// the sync that made it so.
    pub(crate) fn publish(
        &mut self,
        sequence: Sequence,
        segment: Identity,
        durable_end: u64,
        durable_lsn: u64,
    ) {
        self.block.sequence = sequence.get();
        self.block.segment = segment;
        self.block.durable_end = durable_end;
        self.block.durable_lsn = durable_lsn;
        self.write();
    }

    fn write(&self) {
        if let Some(file) = &self.file {
            let _ = write_once(&**file, &self.block.encode(), 0);
        }
    }
}
