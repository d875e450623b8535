//! How a verb that writes opens a log: as it was made, so that it owns one of one process and joins those
//! who share one of several.
//!
//! Never here: a guess. Whether a log is shared stands in it; where one is made, the caller says.
//! Next room: [`crate::registry`].

use std::path::Path;

use annals_wal::{ErrorKind, Log, Options, Sharing};

use crate::exit::{Exit, Failure};

/// A log that must be there.
pub(crate) fn existing(dir: &Path) -> Result<Log, Failure> {
    Ok(Options::new().create(false).sharing(Sharing::AsMade).open(dir)?)
}

/// A log that is made if it is not there, `shared` for several processes. With `shared` one that is
/// there must have been made so.
pub(crate) fn or_new(dir: &Path, shared: bool) -> Result<Log, Failure> {
    let sharing = if shared { Sharing::Processes } else { Sharing::AsMade };
    Options::new().sharing(sharing).open(dir).map_err(|error| match error.kind() {
        ErrorKind::Sharing if shared => {
            let dir = dir.display();
            let why =
                format!("{dir} was made for one process: leave --shared away. Nothing was changed");
            Failure::new(Exit::Failed, why)
        }
        _ => error.into(),
    })
}

/// Works with a log and closes it whatever becomes of the work: one that is left open ends uncleanly, and
/// its next opening begins a generation and a segment.
pub(crate) fn closing<T>(
    log: Log,
    work: impl FnOnce(&Log) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let done = work(&log);
    let closed = log.close();
    let done = done?;
    closed?;
    Ok(done)
}
