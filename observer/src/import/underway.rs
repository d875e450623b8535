//! One import while it runs: counts what was good and bad and places each entry.
//!
//! Never here: where items come from. Invariant: each entry's position is its line or step and its
//! number in it, the same in every run over the same content. Next room: [`super::writer`].

use std::path::Path;

use serde::Serialize;

use super::importer::{ImportOutcome, ImportReport};
use super::origin::Origin;
use super::trajectory::Item;
use super::writer::Writer;
use super::{BadLine, Reason};
use crate::clock::WallTime;
use crate::entry::{Entry, Position, TimeOrigin};
use crate::error::Result;
use crate::json::JsonText;

pub(crate) struct Underway<'i> {
    path: &'i Path,
    writer: Writer<'i>,
    resumed: bool,
    strict: bool,
    stopped: bool,
    items: u64,
    bad: u64,
    last_line: u64,
}

impl<'i> Underway<'i> {
    pub(crate) fn new(
        path: &'i Path,
        writer: Writer<'i>,
        resumed: bool,
        strict: bool,
    ) -> Underway<'i> {
        Underway { path, writer, resumed, strict, stopped: false, items: 0, bad: 0, last_line: 0 }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.writer.origin().clone()
    }

    /// Writes the entries of one line or step, or reports why there are none.
    pub(crate) fn item(
        &mut self,
        item: Item,
        time: Option<(WallTime, TimeOrigin)>,
        on_bad: &mut dyn FnMut(&BadLine),
    ) -> Result<()> {
        self.last_line = item.line;
        let written = match item.entries {
            Ok(entries) => self.put(item.line, entries, time)?,
            Err(reason) => Err(reason),
        };
        match written {
            Ok(()) => self.items += u64::from(item.counts),
            Err(reason) => {
                self.bad += 1;
                self.stopped = self.strict;
                on_bad(&BadLine { file: self.path.to_owned(), line: item.line, reason });
            }
        }
        Ok(())
    }

    /// All of them, or none if one is too large: half a step would look like a call that crashed.
    fn put(
        &mut self,
        line: u64,
        entries: Vec<Entry>,
        time: Option<(WallTime, TimeOrigin)>,
    ) -> Result<std::result::Result<(), Reason>> {
        let mut placed = Vec::with_capacity(entries.len());
        for (part, entry) in (0..).zip(entries) {
            match self.writer.place_in(entry, Position { line, part }, time)? {
                Ok(entry) => placed.push(entry),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        for (encoded, position) in placed {
            self.writer.put(encoded, position)?;
        }
        Ok(Ok(()))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The report of an import that ends without its done entry.
    pub(crate) fn stopped(&self) -> ImportReport {
        self.report(ImportOutcome::Stopped)
    }

    /// Writes the done entry and waits until everything is durable.
    pub(crate) fn done(&mut self) -> Result<ImportReport> {
        let counts = JsonText::of(&Counts { items: self.items, bad: self.bad })?;
        let after = Position { line: self.last_line.saturating_add(1), part: 0 };
        let lsn = self.writer.done(counts, after)?;
        Ok(self.report(ImportOutcome::Imported(lsn)))
    }

    fn report(&self, outcome: ImportOutcome) -> ImportReport {
        let mut report = ImportReport::new(self.writer.origin().sha256, outcome);
        report.resumed = self.resumed;
        (report.items, report.bad) = (self.items, self.bad);
        report.entries = self.writer.written();
        report
    }
}

/// The done entry's metadata.
#[derive(Serialize)]
struct Counts {
    items: u64,
    bad: u64,
}
