//! `wal registry import`: JSON registries in, one line of result each, then what does not fit.
//!
//! Never here: shapes and comparisons; those are the library's. All files are read and looked at
//! before the log is opened: a wrong name or a text that is no registry must not leave a trace.

use std::path::PathBuf;

use annals_registry::{ErrorKind, Imported, Options, check_json};
use annals_wal::Log;

use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::out::{Out, message};

pub(super) fn import(
    files: &[PathBuf],
    replace: bool,
    open: impl FnOnce() -> Result<Log, Failure>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let mut texts = Vec::new();
    let mut exit = Exit::Clean;
    for file in files {
        match std::fs::read_to_string(file) {
            Ok(text) => {
                let name = file.display().to_string();
                match check_json(&name, &text) {
                    Ok(()) => texts.push((name, text)),
                    Err(error) => {
                        message(&format!("wal: {}", escape(&error.to_string())));
                        exit = Exit::Failed;
                    }
                }
            }
            Err(error) => {
                let shown = file.display().to_string();
                message(&format!("wal: {} cannot be read: {error}", escape(&shown)));
                exit = Exit::Failed;
            }
        }
    }
    if texts.is_empty() {
        return Ok(Exit::Failed);
    }
    super::with(open()?, Options::new(), |registry| {
        for (name, text) in &texts {
            match registry.import_json(name, text, replace) {
                Ok(imported) => print(name, &imported, out)?,
                // One file's trouble does not stop the others; the log's does.
                Err(error) if error.kind() == ErrorKind::Import => {
                    message(&format!("wal: {}", escape(&error.to_string())));
                    exit = Exit::Failed;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(exit)
    })
}

fn print(name: &str, imported: &Imported, out: &mut Out) -> Result<(), Failure> {
    let what = match imported.revision {
        Some(revision) => format!("at revision {revision}"),
        None => "was there already".to_owned(),
    };
    out.line(&format!(
        "{}: {} agents, {} tasks under {} {what}, {} inconsistencies",
        escape(name),
        imported.agents,
        imported.tasks,
        escape(imported.root.as_str()),
        imported.findings.len()
    ))?;
    for finding in &imported.findings {
        out.line(&format!("  inconsistent: {}", escape(&finding.to_string())))?;
    }
    Ok(())
}
