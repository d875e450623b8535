//! How reading ends: whether all was there that should be, what damage costs, where it is explained.
//!
//! Never here: judgement (the libraries have it), results on stdout. Invariant: every reading verb ends
//! here, so that damage is 4 whichever of them meets it first. Next room: [`crate::exit`].

use std::path::Path;

use annals_wal::inspect::State;

use crate::damage::shown;
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::out::{Out, message};
use crate::{archived, place};

/// Sentences about an end that is not as it should be; `wal inspect` has all.
const COMPLAINTS_SHOWN: usize = 30;

/// Whether the end that was reached is the end there should be: a log whose last segment is gone
/// ends early without a bad byte.
pub(crate) fn check_the_end(dir: &Path, exit: &mut Exit) -> Result<(), Failure> {
    let report = place::inspect(dir)?;
    let mut complaints: Vec<String> = report.findings.into_iter().map(|f| f.why).collect();
    let mut state = report.state;
    if state < State::Corrupt {
        (state, complaints) = archived::complaints(dir)?;
        if complaints.is_empty() {
            return Ok(());
        }
    }
    for why in complaints.iter().take(COMPLAINTS_SHOWN) {
        message(&format!("wal: {}", escape(why)));
    }
    if complaints.len() > COMPLAINTS_SHOWN {
        message(&format!("wal: and {} more", complaints.len() - COMPLAINTS_SHOWN));
    }
    message(&format!("wal: next: wal inspect {}", shown(dir)));
    *exit = state.into();
    Ok(())
}

/// What a verb gave that looks at the end by itself. One that could not even begin, or broke off, may
/// have met damage in a form that the system names: a link in a segment's place is no record.
pub(crate) fn explained(
    dir: &Path,
    outcome: Result<Exit, Failure>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    match outcome {
        Err(failure) if failure.exit() == Exit::Failed => or_damaged(dir, Err(failure), out),
        outcome => outcome.map_err(|failure| failure.then_inspect(dir)),
    }
}

/// What a verb gave that reads the log by a library of its own: where the log is damaged, it need not
/// be all that was there, nor the newest, and the exit code says so.
pub(crate) fn or_damaged(
    dir: &Path,
    outcome: Result<Exit, Failure>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    if let Err(error) = out.flush() {
        return outcome.and(Err(error.into()));
    }
    let mut exit = match &outcome {
        Ok(exit) => *exit,
        Err(failure) => failure.exit(),
    };
    if exit == Exit::Usage {
        return outcome; // nothing was read
    }
    let plain = exit;
    // Where it cannot be looked at, what the verb says counts.
    if check_the_end(dir, &mut exit).is_err() || exit == plain {
        return outcome.map_err(|failure| failure.then_inspect(dir));
    }
    if let Err(failure) = outcome {
        message(&format!("wal: {}", escape(&failure.to_string())));
    }
    Ok(exit)
}
