//! Entries of one import on their way into the log: in atomic batches, each position once.
//!
//! Never here: parsing, a wait for every batch. The done entry goes last and the flush after it
//! covers them all. Invariants: batches are submitted in file order; [`Seen`] says what was
//! accepted, so an import that failed half way can go on in the same process too.
//! Next room: [`crate::drain`].

use annals_wal::Lsn;

use super::Reason;
use super::index::Seen;
use super::origin::Origin;
use crate::capture::redact;
use crate::clock::WallTime;
use crate::codec::EncodedEntry;
use crate::drain::Submitted;
use crate::entry::{Entry, Position, TimeOrigin};
use crate::error::{Error, Result};
use crate::json::JsonText;
use crate::kind::EntryKind;
use crate::observer::Observer;
use crate::redact::Redaction;

/// A batch is submitted when it holds this much. Small enough to fit any segment of default size.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_ENTRIES: usize = 512;

pub(crate) struct Writer<'w> {
    observer: &'w Observer,
    origin: Origin,
    redaction: Redaction,
    seen: &'w mut Seen,
    /// What is at or before this position is in the log from an earlier try.
    after: Option<Position>,
    batch: Vec<EncodedEntry>,
    batch_bytes: usize,
    batch_last: Option<Position>,
    written: u64,
}

impl<'w> Writer<'w> {
    pub(crate) fn new(
        observer: &'w Observer,
        origin: Origin,
        seen: &'w mut Seen,
        after: Option<Position>,
        redaction: Redaction,
    ) -> Writer<'w> {
        Writer {
            observer,
            origin,
            redaction,
            seen,
            after,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_last: None,
            written: 0,
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many entries were accepted.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The first entry of an import from the start.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let entry = Entry::new(EntryKind::ImportBegin);
        self.own(entry, Position { line: 0, part: 0 })
    }

    /// An entry encoded for its place in the file. `Ok(Err(_))` if it is too large for the log.
    pub(crate) fn place_in(
        &self,
        mut entry: Entry,
        position: Position,
        time: Option<(WallTime, TimeOrigin)>,
    ) -> Result<std::result::Result<(EncodedEntry, Position), Reason>> {
        self.place(&mut entry, position, time);
        redact(&self.redaction, &mut entry);
        let encoded = self.observer.drain().encode(&mut entry)?;
        let (bytes, max) = (encoded.len(), self.observer.drain().entry_cap());
        if bytes > max {
            return Ok(Err(Reason::TooLong { bytes: bytes as u64, max: max as u64 }));
        }
        Ok(Ok((encoded, position)))
    }

    /// Adds an entry unless an import that broke off has brought it already.
    pub(crate) fn put(&mut self, encoded: EncodedEntry, position: Position) -> Result<()> {
        if self.after.is_some_and(|after| position <= after) {
            return Ok(());
        }
        self.add(encoded, Some(position))
    }

    /// The last entry: the import is whole. Durable on return, and so is all before it.
    pub(crate) fn done(&mut self, counts: JsonText, after: Position) -> Result<Lsn> {
        let mut entry = Entry::new(EntryKind::ImportDone);
        entry.metadata = Some(counts);
        self.own(entry, after)?;
        let lsn = match self.submit()? {
            // Covers every batch before it: they stand in one order.
            Some(submitted) => self.observer.drain().wait(submitted)?,
            None => None,
        };
        let lsn = lsn.ok_or_else(|| Error::invalid("the import's done entry was not pushed"))?;
        self.seen.finish(self.origin.round, lsn);
        Ok(lsn)
    }

    fn own(&mut self, mut entry: Entry, position: Position) -> Result<()> {
        self.place(&mut entry, position, None);
        let encoded = self.observer.drain().encode(&mut entry)?;
        self.add(encoded, None)
    }

    fn place(&self, entry: &mut Entry, position: Position, time: Option<(WallTime, TimeOrigin)>) {
        let clock = self.observer.drain().clock();
        let (wall, origin) = time.unwrap_or_else(|| (clock.wall(), TimeOrigin::Import));
        (entry.wall, entry.mono) = (wall, clock.mono());
        entry.source = Some(self.origin.source(position, origin));
    }

    fn add(&mut self, encoded: EncodedEntry, position: Option<Position>) -> Result<()> {
        let bytes = self.batch_bytes.saturating_add(encoded.len());
        if bytes > BATCH_BYTES || self.batch.len() >= BATCH_ENTRIES {
            self.submit()?;
        }
        self.batch_bytes = self.batch_bytes.saturating_add(encoded.len());
        self.batch_last = self.batch_last.max(position);
        self.batch.push(encoded);
        Ok(())
    }

    /// Submits what has gathered, if anything.
    fn submit(&mut self) -> Result<Option<Submitted>> {
        if self.batch.is_empty() {
            return Ok(None);
        }
        let count = self.batch.len() as u64;
        let submitted = self.observer.drain().submit(std::mem::take(&mut self.batch))?;
        self.seen.advance(self.origin.round, self.batch_last.take());
        self.written += count;
        self.batch_bytes = 0;
        Ok(Some(submitted))
    }
}
