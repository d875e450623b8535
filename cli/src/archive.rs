//! `wal archive`: sealed segments handed over to another directory.
//!
//! It owns the log while it works, so a log in use is archived by its own process
//! ([`annals_observer::archive`]). Never here: what may be handed over.

use annals_observer::archive::Target;
use annals_wal::{Options, Sharing};

use crate::args::ArchiveArgs;
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::out::Out;

pub(crate) fn archive(args: &ArchiveArgs, out: &mut Out) -> Result<Exit, Failure> {
    let usage = |error: annals_observer::Error| Failure::new(Exit::Usage, error.to_string());
    let target = Target::new(args.name.as_str(), &args.to).map_err(usage)?.copy(args.copy);
    let log = Options::new().sharing(Sharing::AsMade).create(false).open(&args.dir)?;
    let handed = target.hand_over(&log)?;
    let to = escape(&args.to.display().to_string());
    out.line(&format!(
        "{} segments, {} bytes handed over to {to}; it has every record before LSN {}",
        handed.segments, handed.bytes, handed.next_lsn
    ))?;
    if args.trim {
        let head = log.trim(handed.next_lsn)?;
        out.line(&format!("the log now begins at LSN {head}"))?;
    }
    log.close()?;
    Ok(Exit::Clean)
}
