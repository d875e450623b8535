//! `wal import`: files in, one line of result each.

use std::path::Path;

use annals_observer::import::{ImportOptions, ImportOutcome, ImportReport, Importer};
use annals_observer::{ErrorKind, Observer};

use crate::args::ImportArgs;
use crate::damage::shown;
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::inspect::counted;
use crate::opening;
use crate::out::{Out, message, steps_progress};

pub(crate) fn import(args: &ImportArgs, out: &mut Out) -> Result<Exit, Failure> {
    // Looked at before the log is made: a wrong name must not leave an empty log behind.
    let reasons: Vec<_> = args.files.iter().map(|file| why_not(file)).collect();
    if reasons.iter().all(Option::is_some) {
        for reason in reasons.into_iter().flatten() {
            message(&format!("wal: {}", escape(&reason)));
        }
        return Ok(Exit::Failed);
    }
    let log = opening::or_new(&args.dir, args.shared)?;
    opening::closing(log, |log| {
        let observer = Observer::on(log.clone())?;
        let imported = files(args, &observer, out);
        // Every entry that was taken is written, whatever became of the next one.
        let ended = observer.shutdown();
        let (exit, totals) = imported?;
        ended?;
        out.line(&totals.line(&args.dir))?;
        Ok(exit)
    })
}

/// One after the other, as far as the log goes with it.
fn files(args: &ImportArgs, observer: &Observer, out: &mut Out) -> Result<(Exit, Totals), Failure> {
    let mut importer = Importer::new(observer)?.raw(args.raw);
    let options = ImportOptions { strict: args.strict, again: args.again };
    let bar = steps_progress(args.files.len() as u64, "import");
    let mut exit = Exit::Clean;
    let mut totals = Totals::default();
    for file in &args.files {
        let imported = importer.import(file, options, |bad| {
            bar.suspend(|| message(&format!("wal: {}", escape(&bad.to_string()))));
        });
        bar.inc(1);
        match imported {
            Ok(report) => {
                totals.add(&report);
                out.line(&line(file, &report))?;
                let refused = !matches!(report.outcome, ImportOutcome::Imported(_));
                if refused || report.bad > 0 {
                    exit = Exit::Failed;
                }
                if args.strict && report.bad > 0 {
                    break;
                }
            }
            Err(error) if is_the_files_own(&error) => {
                bar.suspend(|| message(&format!("wal: {}", escape(&error.to_string()))));
                exit = Exit::Failed;
            }
            Err(error) => {
                out.flush()?;
                return Err(error.into());
            }
        }
    }
    bar.finish_and_clear();
    Ok((exit, totals))
}

/// One file's trouble does not stop the others; the log's does.
fn is_the_files_own(error: &annals_observer::Error) -> bool {
    error.kind() != ErrorKind::Log && error.kind() != ErrorKind::Closed
}

/// Why a file cannot be imported, as far as can be told without reading it.
fn why_not(file: &Path) -> Option<String> {
    if let Err(error) = annals_observer::import::FileKind::of(file) {
        let is_json = file.extension().is_some_and(|extension| extension == "json");
        let hint = "; a registry of agents and tasks is for `wal registry import`";
        return Some(format!("{error}{}", if is_json { hint } else { "" }));
    }
    let shown = file.display();
    match std::fs::File::open(file).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(_) => Some(format!("{shown} is not a regular file: name the files in it")),
        Err(error) => Some(format!("{shown} cannot be read: {error}")),
    }
}

fn line(file: &Path, report: &ImportReport) -> String {
    let file = escape(&file.display().to_string());
    let what = match report.outcome {
        ImportOutcome::Imported(lsn) => {
            let resumed = if report.resumed { ", going on where an import broke off" } else { "" };
            format!(
                "imported {} lines or steps as {} entries, {} bad, done at LSN {lsn}{resumed}",
                report.items, report.entries, report.bad
            )
        }
        ImportOutcome::AlreadyImported(lsn) => {
            format!(
                "refused: its content was imported at LSN {lsn} already; --again imports it anew"
            )
        }
        _ => "not imported: see the messages".to_owned(),
    };
    format!("{file}: {what}")
}

#[derive(Default)]
struct Totals {
    files: u64,
    items: u64,
    entries: u64,
    bad: u64,
}

impl Totals {
    fn add(&mut self, report: &ImportReport) {
        self.files += u64::from(matches!(report.outcome, ImportOutcome::Imported(_)));
        self.items += report.items;
        self.entries += report.entries;
        self.bad += report.bad;
    }

    fn line(&self, dir: &Path) -> String {
        format!(
            "{} imported: {} lines or steps, {} entries, {} bad. next: wal inspect {}",
            counted(self.files, "file"),
            self.items,
            self.entries,
            self.bad,
            shown(dir)
        )
    }
}
