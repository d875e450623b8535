//! The importer: one file at a time, from its name to its done entry.
//!
//! Never here: a shape of file (that is [`super::jsonl`] and [`super::trajectory`]). Invariants:
//! nothing is written before the content is hashed and looked up; a strict import of a file with
//! a bad line writes nothing; an import whose file changed under it is never marked done.
//! Next room: [`super::file`].

use std::path::Path;

use annals_wal::Lsn;

use super::BadLine;
use super::file::{self, TrajectoryFile};
use super::index::{Decision, Index};
use super::lines::Lines;
use super::origin::{FileKind, Origin};
use super::trajectory::Item;
use super::underway::Underway;
use super::writer::Writer;
use crate::error::Result;
use crate::ids::ContentHash;
use crate::observer::Observer;

/// How to import.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImportOptions {
    /// Import nothing of a file that has a bad line.
    pub strict: bool,
    /// Import content that is already there once more.
    pub again: bool,
}

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ImportOutcome {
    /// It is in the log, durably; its done entry is at this LSN.
    Imported(Lsn),
    /// It was there before: its done entry is at this LSN. Nothing was written.
    AlreadyImported(Lsn),
    /// It is not: strict and a line was bad, or a `.traj` could not be read as one at all.
    Stopped,
}

/// What an import found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ImportReport {
    /// Hash of the file's content.
    pub sha256: ContentHash,
    /// What became of it.
    pub outcome: ImportOutcome,
    /// Whether an earlier import of it, cut by a crash or an error, was gone on with.
    pub resumed: bool,
    /// Good lines or steps in the file.
    pub items: u64,
    /// Bad lines or steps in the file.
    pub bad: u64,
    /// Entries written now.
    pub entries: u64,
}

/// Imports files through an observer. Knows what the log already has.
///
/// ```
/// use annals_observer::Observer;
/// use annals_observer::import::{ImportOptions, ImportOutcome, Importer};
///
/// # let dir = tempfile::tempdir()?;
/// let file = dir.path().join("events.jsonl");
/// std::fs::write(&file, "{\"session_id\": \"s-1\", \"n\": 1}\noops\n{\"n\": 2}\n")?;
/// let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
///
/// let mut importer = Importer::new(&observer)?;
/// let mut bad = Vec::new();
/// let report = importer.import(&file, ImportOptions::default(), |line| bad.push(line.clone()))?;
/// assert_eq!((report.items, report.bad), (2, 1));
/// assert!(bad[0].to_string().ends_with("events.jsonl:2: not JSON at column 1"));
///
/// let report = importer.import(&file, ImportOptions::default(), |_| {})?;
/// assert!(matches!(report.outcome, ImportOutcome::AlreadyImported(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Importer {
    observer: Observer,
    index: Index,
    raw: bool,
}

impl Importer {
    /// An importer on the observer's log. Reads the whole log once, to know what is there.
    ///
    /// # Errors
    /// `Log` if the log cannot be read.
    pub fn new(observer: &Observer) -> Result<Importer> {
        let index = Index::read(observer.log())?;
        Ok(Importer { observer: observer.clone(), index, raw: false })
    }

    /// Whether to import without the observer's redactors. Default false: secrets in a line are
    /// replaced, and [`crate::Entry::notes`] marks the line. Every field is kept either way.
    pub fn raw(mut self, yes: bool) -> Importer {
        self.raw = yes;
        self
    }

    /// Imports one file; calls `on_bad` for each bad line. On return everything of it is durable.
    ///
    /// Memory: one line of a `.jsonl`, the whole of a `.traj`. A file that two importers import at
    /// the same time is imported twice.
    ///
    /// # Errors
    /// `Unsupported` for another kind of file, `Io`, `TooLarge` for a `.traj` over 256 MiB,
    /// `Changed` if the file changed meanwhile, `Log`. After an error the same call, or a later
    /// one of another process, goes on where this one stopped.
    pub fn import(
        &mut self,
        path: &Path,
        options: ImportOptions,
        mut on_bad: impl FnMut(&BadLine),
    ) -> Result<ImportReport> {
        match FileKind::of(path)? {
            FileKind::JsonLines => self.json_lines(path, options, &mut on_bad),
            FileKind::Trajectory => self.trajectory(path, options, &mut on_bad),
            FileKind::Sqlite => self.sqlite(path, options, &mut on_bad),
        }
    }

    fn json_lines(
        &mut self,
        path: &Path,
        options: ImportOptions,
        on_bad: &mut dyn FnMut(&BadLine),
    ) -> Result<ImportReport> {
        let max = self.observer.drain().entry_cap();
        let (hash, bad) = file::survey(path, max, options.strict)?;
        let mut import = match self.start(path, hash, options, bad, on_bad)? {
            Step::Over(report) => return Ok(report),
            Step::Import(import) => import,
        };
        let mut lines = Lines::new(file::open(path)?, max);
        while let Some((line, read)) = file::next(&mut lines, path, max)? {
            let time = read.as_ref().ok().and_then(|parsed| parsed.time);
            let entries = read.map(|parsed| vec![parsed.entry]);
            import.item(Item::step(line, entries), time, on_bad)?;
            if import.is_stopped() {
                return Ok(import.stopped());
            }
        }
        if lines.finish() != hash {
            return Err(file::changed(path));
        }
        import.done()
    }

    fn trajectory(
        &mut self,
        path: &Path,
        options: ImportOptions,
        on_bad: &mut dyn FnMut(&BadLine),
    ) -> Result<ImportReport> {
        let content = TrajectoryFile::read(path)?;
        let trajectory = match content.parse(path) {
            Ok(trajectory) => trajectory,
            Err(bad) => {
                on_bad(&bad);
                return Ok(ImportReport::stopped(content.hash()));
            }
        };
        let session = content.session();
        let bad = if options.strict { trajectory.first_bad(path) } else { None };
        let mut import = match self.start(path, content.hash(), options, bad, on_bad)? {
            Step::Over(report) => return Ok(report),
            Step::Import(import) => import,
        };
        for item in trajectory.items(&import.origin(), session) {
            import.item(item, None, on_bad)?;
            if import.is_stopped() {
                return Ok(import.stopped());
            }
        }
        import.done()
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(
        &mut self,
        path: &Path,
        options: ImportOptions,
        on_bad: &mut dyn FnMut(&BadLine),
    ) -> Result<ImportReport> {
        let max = self.observer.drain().entry_cap();
        let hash = file::content_hash(path)?;
        let store = super::sqlite::Store::open(path)?;
        let bad = if options.strict { store.first_bad(max)? } else { None };
        let mut import = match self.start(path, hash, options, bad, on_bad)? {
            Step::Over(report) => return Ok(report),
            Step::Import(import) => import,
        };
        store.rows(max, |row, read| {
            let time = read.as_ref().ok().and_then(|parsed| parsed.time);
            let entries = read.map(|parsed| vec![parsed.entry]);
            import.item(Item::step(row, entries), time, on_bad)?;
            Ok(!import.is_stopped())
        })?;
        if import.is_stopped() {
            return Ok(import.stopped());
        }
        if file::content_hash(path)? != hash {
            return Err(file::changed(path));
        }
        import.done()
    }

    #[cfg(not(feature = "sqlite"))]
    fn sqlite(
        &mut self,
        path: &Path,
        _: ImportOptions,
        _: &mut dyn FnMut(&BadLine),
    ) -> Result<ImportReport> {
        let why = "this was built without SQLite: build it with the feature `sqlite`";
        Err(super::origin::unsupported(path, why))
    }

    /// Decides by what the log has, and begins.
    fn start<'i>(
        &'i mut self,
        path: &'i Path,
        sha256: ContentHash,
        options: ImportOptions,
        first_bad: Option<BadLine>,
        on_bad: &mut dyn FnMut(&BadLine),
    ) -> Result<Step<'i>> {
        let seen = self.index.entry(sha256);
        let decision = seen.decide(options.again);
        let (round, after) = match decision {
            Decision::Already(lsn) => return Ok(Step::Over(ImportReport::already(sha256, lsn))),
            Decision::Begin { round } => (round, None),
            Decision::Resume { round, after } => (round, after),
        };
        if let Some(bad) = first_bad {
            on_bad(&bad);
            return Ok(Step::Over(ImportReport::stopped(sha256)));
        }
        let origin = Origin { file: path.to_string_lossy().into_owned(), sha256, round };
        let redaction = self.observer.drain().options.capture.of_import(self.raw);
        let mut writer = Writer::new(&self.observer, origin, seen, after, redaction);
        let resumed = matches!(decision, Decision::Resume { .. });
        if !resumed {
            writer.begin()?;
        }
        Ok(Step::Import(Underway::new(path, writer, resumed, options.strict)))
    }
}

enum Step<'i> {
    Over(ImportReport),
    Import(Underway<'i>),
}

impl ImportReport {
    pub(crate) fn new(sha256: ContentHash, outcome: ImportOutcome) -> ImportReport {
        ImportReport { sha256, outcome, resumed: false, items: 0, bad: 0, entries: 0 }
    }

    fn already(sha256: ContentHash, lsn: Lsn) -> ImportReport {
        ImportReport::new(sha256, ImportOutcome::AlreadyImported(lsn))
    }

    /// Nothing was written, because of one bad line.
    fn stopped(sha256: ContentHash) -> ImportReport {
        ImportReport { bad: 1, ..ImportReport::new(sha256, ImportOutcome::Stopped) }
    }
}
