//! `wal archive`: sealed segments handed over to another directory.
//!
//! It owns the log while it works, so a log in use is archived by its own process
//! ([`annals_observer::archive`]), unless it is shared. Never here: what may be handed over.

use annals_observer::archive::Target;
use annals_observer::archive::manifest::Manifest;

use crate::args::ArchiveArgs;
use crate::damage::shown;
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::inspect::counted;
use crate::out::Out;
use crate::target::outside;
use crate::{opening, place};

pub(crate) fn archive(args: &ArchiveArgs, out: &mut Out) -> Result<Exit, Failure> {
    let usage = |error: annals_observer::Error| Failure::new(Exit::Usage, error.to_string());
    let target = Target::new(args.name.as_str(), &args.to).map_err(usage)?.copy(args.copy);
    check(args)?;
    opening::closing(opening::existing(&args.dir)?, |log| {
        let handed = target.hand_over(log)?;
        let to = shown(&args.to);
        out.line(&format!(
            "{}, {} bytes handed over to {to}; it has every record before LSN {}",
            counted(handed.segments, "segment"),
            handed.bytes,
            handed.next_lsn
        ))?;
        if handed.segments == 0 {
            out.line(
                "  no sealed segment is there that it does not have yet: a segment is sealed when it \
                 is full, and handed over once a record behind it is durable. Until then its records \
                 are in the log alone; `wal backup` copies those too",
            )?;
        }
        if args.trim {
            let head = log.trim(handed.next_lsn)?;
            out.line(&format!("the log now begins at LSN {head}"))?;
        }
        Ok(Exit::Clean)
    })
}

/// What a hand-over would refuse: seen before the log is opened, and before a lock file is made in a
/// directory that is none of its own.
fn check(args: &ArchiveArgs) -> Result<(), Failure> {
    outside(&args.dir, &args.to)?;
    let to = shown(&args.to);
    let refused = |why: String| {
        Err(Failure::new(
            Exit::Failed,
            format!("{to} {why}. Nothing was written, there or in the log"),
        ))
    };
    let names = match std::fs::read_dir(&args.to) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            return refused("is no directory: name another".to_owned());
        }
        // What else is wrong there is said by who makes it.
        Err(_) => return Ok(()),
    };
    match Manifest::read(&args.to)? {
        None => {
            let own = |name: &std::ffi::OsString| name == "ARCHIVE.lock" || name == "ARCHIVE.tmp";
            if names.into_iter().all(|name| own(&name)) {
                return Ok(());
            }
            refused("is neither empty nor an archive: name another directory".to_owned())
        }
        Some(manifest) if manifest.name != args.name => refused(format!(
            "is the archive {}: name it with --name, or name another directory",
            escape(&manifest.name)
        )),
        Some(manifest) => match place::inspect(&args.dir)?.log_id {
            Some(id) if id.to_string() != manifest.log_id => {
                let its = escape(&manifest.log_id);
                refused(format!("is an archive of another log ({its}, this one is {id})"))
            }
            _ => Ok(()),
        },
    }
}
