//! `wal export`: entries in the forms that other tools read.
//!
//! Never here: a form ([`annals_observer::export`] has them). A file is made anew, synced, and has its
//! name only when it is whole; one that is broken off is removed, and the message says so.

use std::io::{self, BufWriter, LineWriter, Write};
use std::path::Path;

use annals_observer::export::{ExportError, Exported, chrome, folded, jsonl, otlp, whole};
use annals_observer::{Query, StoredEntry};

use crate::args::{ExportArgs, ExportFormat};
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::out::{Out, message};
use crate::place;
use crate::shield::Shield;
use crate::target::{self, Part};

pub(crate) fn export(args: &ExportArgs, out: &mut Out) -> Result<Exit, Failure> {
    let usage = |error: annals_observer::Error| Failure::new(Exit::Usage, error.to_string());
    if let Some(file) = &args.output {
        target::outside(&args.dir, file)?;
    }
    let mut query = Query::new();
    if let Some(session) = &args.session {
        query = query.session(session.as_str()).map_err(usage)?;
    }
    let reader = place::reader(&args.dir)?;
    let mut undecodable = 0u64;
    // One record that cannot be decoded costs itself and no other; the log's own errors end it.
    let found = query.run(&reader)?;
    // Large texts stand in records of their own; a form without texts need not read them.
    let texts = match args.format {
        ExportFormat::Jsonl | ExportFormat::Sqlite => true,
        ExportFormat::Otlp => args.contents,
        ExportFormat::ChromeTrace | ExportFormat::Folded => false,
    };
    let found: Box<dyn Iterator<Item = annals_observer::Result<StoredEntry>>> =
        if texts { Box::new(whole(&reader, found)) } else { Box::new(found) };
    let entries = found.filter_map(|item| match item {
        Err(error) if error.log_error().is_none() => {
            message(&format!("wal: {}", escape(&error.to_string())));
            undecodable += 1;
            None
        }
        item => Some(item),
    });
    let exported = match (&args.output, args.format) {
        (Some(path), ExportFormat::Sqlite) => sqlite(entries, path)?,
        (None, ExportFormat::Sqlite) => {
            let why = "a database cannot be written to standard output: name a file with --output";
            return Err(Failure::new(Exit::Usage, why));
        }
        (Some(path), _) => {
            // Flushed by `write`.
            Part::begin(path)?.fill(|file| Ok(write(args, entries, &mut BufWriter::new(file))?))?
        }
        (None, _) => {
            out.flush()?;
            // Exact bytes for a pipe or a file; a terminal would obey some of them.
            let stdout = io::stdout().lock();
            let exported = if out.is_terminal() {
                let json = args.format != ExportFormat::Folded;
                write(args, entries, &mut LineWriter::new(Shield::new(stdout, json)))
            } else {
                write(args, entries, &mut BufWriter::with_capacity(64 << 10, stdout))
            };
            match exported {
                Err(ExportError::Write(e)) if e.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(Exit::Clean);
                }
                exported => exported?,
            }
        }
    };
    let Exported { entries, written, unfinished, .. } = exported;
    message(&format!(
        "{entries} entries exported as {written}; {unfinished} calls have no end; {undecodable} \
         records could not be decoded"
    ));
    Ok(if undecodable == 0 { Exit::Clean } else { Exit::Failed })
}

fn write(
    args: &ExportArgs,
    entries: impl Iterator<Item = annals_observer::Result<StoredEntry>>,
    to: &mut impl Write,
) -> Result<Exported, ExportError> {
    let exported = match args.format {
        ExportFormat::Jsonl => jsonl::write(entries, to),
        ExportFormat::Otlp => {
            otlp::write(entries, to, otlp::OtlpOptions { contents: args.contents })
        }
        ExportFormat::ChromeTrace => chrome::write(entries, to),
        ExportFormat::Folded => folded::write(entries, to),
        ExportFormat::Sqlite => Err(ExportError::Write(io::ErrorKind::Unsupported.into())),
    }?;
    to.flush().map_err(ExportError::Write)?;
    Ok(exported)
}

#[cfg(feature = "sqlite")]
fn sqlite(
    entries: impl Iterator<Item = annals_observer::Result<StoredEntry>>,
    to: &Path,
) -> Result<Exported, Failure> {
    let part = Part::begin(to)?;
    let exported = annals_observer::export::sqlite::write(entries, part.path());
    let exported = exported
        .map_err(|error| Failure::from(error).during(&format!("{} was not made", to.display())))?;
    part.done()?;
    Ok(exported)
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(
    _entries: impl Iterator<Item = annals_observer::Result<StoredEntry>>,
    _to: &Path,
) -> Result<Exported, Failure> {
    let why = "this `wal` was built without SQLite: build it with `--features sqlite`";
    Err(Failure::new(Exit::Usage, why))
}
