//! The control block: tells readers in other processes, and the next recovery, what is durable.
//!
//! Never here: a sync. The block is a hint whose loss costs nothing; what it claims can be too
//! low, never too high, because it is written only after a sync has returned. A failed write of
//! it fails nothing on an owner's log. On a shared one two must succeed: the mark of a turn
//! ([`ControlBlock::mark`]), and what others are to see of a group before anybody is told of it.
//! Next room: back to [`crate::commit`]; [`crate::share`] reads it back.

use std::io;
use std::sync::Arc;

use crate::error::Result;
use crate::format::{CONTROL_LEN, CONTROL_NAME, Control, Identity, MARK_WRITING};
use crate::fs::{Access, Dir, File, Status, read_full, write_once};
use crate::ids::{Generation, LogId, Sequence};
use crate::mutant;
use crate::recover::facts::{ControlFacts, reading};

/// The open control block of a log that this process owns.
#[derive(Debug)]
pub(crate) struct ControlBlock {
    file: Option<Arc<dyn File>>,
    status: Option<Status>,
    block: Control,
}

impl ControlBlock {
    /// Opens or creates the file and writes the first block of this opening. A claim that the
    /// recovery trusted is carried forward unchanged: until the plan's last sync has returned it
    /// is still the highest truth there is. Also says whether the block was written: on a shared log
    /// it must be, for what others are to find there.
    pub(crate) fn open(
        dir: &dyn Dir,
        log_id: LogId,
        generation: Generation,
        trusted: Option<&ControlFacts>,
        marks: u32,
    ) -> (ControlBlock, io::Result<()>) {
        let opened = dir.open(CONTROL_NAME, Access::Write).or_else(|_| dir.create(CONTROL_NAME));
        let (file, opened) = match opened {
            Ok(file) => (Some(file), Ok(())),
            Err(e) => (None, Err(e)),
        };
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
            marks,
        };
        let status = file.as_ref().and_then(|file| file.status().ok());
        let control = ControlBlock { file, status, block };
        let written = opened.and_then(|()| control.write());
        (control, written)
    }

    /// Says that every byte of the segment below `durable_end` is durable. Call it only after
    /// the sync that made it so.
    ///
    /// # Errors
    /// What the file said. On a shared log nobody may then be told: others believe this block, and
    /// whoever they are told of must be in it.
    pub(crate) fn publish(
        &mut self,
        sequence: Sequence,
        segment: Identity,
        durable_end: u64,
        durable_lsn: u64,
    ) -> io::Result<()> {
        self.block.sequence = sequence.get();
        self.block.segment = segment;
        self.block.durable_end = durable_end;
        self.block.durable_lsn = durable_lsn;
        self.write()
    }

    /// What the file says by now, others having written it; `None` where it is not the file that
    /// this is, or says nothing of this log.
    ///
    /// # Errors
    /// A file that cannot be read is no verdict.
    pub(crate) fn read_back(&self, dir: &dyn Dir) -> Result<Option<Control>> {
        let (Some(file), Some(status)) = (&self.file, &self.status) else { return Ok(None) };
        match dir.status(CONTROL_NAME) {
            Ok(now) if now.is_same_file(status) => {}
            Ok(_) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(reading(dir, CONTROL_NAME, e)),
        }
        let mut bytes = [0; CONTROL_LEN];
        let read = read_full(&**file, &mut bytes, 0).map_err(|e| reading(dir, CONTROL_NAME, e))?;
        let known = Control::decode(&bytes[..read]);
        let ours = |control: &Control| {
            control.log_id == self.block.log_id && control.own == self.block.own
        };
        Ok(known.filter(|control| ours(control) || mutant::is("share:any-control-block")))
    }

    /// Goes on from what another process has made of it.
    pub(crate) fn adopt(&mut self, control: Control) {
        self.block = Control { pid: self.block.pid, ..control };
    }

    /// What was written last.
    pub(crate) fn block(&self) -> &Control {
        &self.block
    }

    /// Says that from here on something may be written that no sync has covered. The one write of
    /// this file that must succeed.
    ///
    /// # Errors
    /// What the file said; then nothing may be written.
    pub(crate) fn mark(&mut self) -> io::Result<()> {
        let file =
            self.file.as_ref().ok_or_else(|| io::Error::other("there is no control block"))?;
        let marks = if mutant::is("share:no-mark") { 0 } else { MARK_WRITING };
        let marked = Control { marks, ..self.block };
        write_once(&**file, &marked.encode(), 0)?;
        self.block = marked;
        Ok(())
    }

    /// Says that all that was written is durable, and what that is. A mark that cannot be cleared
    /// stays, and the next holder recovers.
    ///
    /// # Errors
    /// What the file said. It matters to whoever has told nobody yet what the block is to say.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.block.marks = 0;
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        match &self.file {
            Some(file) => write_once(&**file, &self.block.encode(), 0),
            None => Ok(()),
        }
    }
}
