//! `wal demo`: kill a fleet of agents in the middle of their writes and show what is left.
//!
//! Three processes, so that nobody vouches for himself: this one ([`parent`]) collects what was
//! acknowledged over a pipe and kills; the fleet ([`fleet`]) writes through the libraries; a fresh
//! process ([`check`]) recovers the log and compares it with what this one was told.
//! Next room: [`story`], what everybody knows the fleet will write.

pub(crate) mod check;
pub(crate) mod fleet;
mod parent;
mod record;
mod story;

use std::path::PathBuf;

use crate::args::DemoArgs;
use crate::escape::escape;
use crate::exit::{Exit, Failure};
use crate::out::{Out, steps_progress};
use parent::{Figures, Fleet};

/// The earliest kill after the fleet's first word.
const KILL_AFTER_MIN_MS: f64 = 5.0;
/// More rounds than any log has seen.
const ROUNDS_MAX: u32 = 1 << 30;

pub(crate) fn demo(args: &DemoArgs, out: &mut Out) -> Result<Exit, Failure> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|e| Failure::new(Exit::Failed, e.to_string()))?,
    };
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("annals-demo-{seed:016x}")),
    };
    out.line(&format!("seed {seed}, log {}", escape(&dir.display().to_string())))?;
    out.flush()?;
    let mut figures = Figures::new()?;
    let mut random = story::Random::new(seed);
    let bar = steps_progress(u64::from(args.rounds), "rounds");
    let first = next_round(&dir)?;
    for round in first..first.saturating_add(args.rounds) {
        let span_ms = (args.seconds * 1000.0 - KILL_AFTER_MIN_MS).max(0.0);
        let kill_after_ms = KILL_AFTER_MIN_MS + span_ms * random.fraction();
        let is_last = round + 1 == first.saturating_add(args.rounds);
        let until_acknowledged = is_last && figures.acknowledged() == 0;
        let fleet = Fleet { dir: &dir, agents: args.agents, round, until_acknowledged };
        if let Err(lost) = fleet.round(kill_after_ms, &mut figures) {
            bar.finish_and_clear();
            let why = format!("round {round} (seed {seed}) FAILED: {lost}");
            return Err(Failure::new(Exit::Failed, why));
        }
        bar.inc(1);
        bar.set_message(format!("{} acknowledged", figures.acknowledged()));
    }
    bar.finish_and_clear();
    if figures.acknowledged() == 0 {
        let why = "nothing was acknowledged before the kill, so nothing was proved: give the \
                   fleet more --seconds or more --rounds";
        return Err(Failure::new(Exit::Failed, why));
    }
    for line in figures.lines(args) {
        out.line(&line)?;
    }
    let shown = escape(&dir.display().to_string());
    out.line("")?;
    out.line("try next:")?;
    for next in ["inspect", "verify", "cat"] {
        out.line(&format!("  wal {next} {shown}"))?;
    }
    Ok(Exit::Clean)
}

/// Rounds go on counting on a log that has seen a demo before, so that no session is there twice.
fn next_round(dir: &PathBuf) -> Result<u32, Failure> {
    let Ok(reader) = annals_wal::LogReader::open(dir) else { return Ok(0) };
    let mut next = 0;
    for stored in annals_observer::entries(&reader)? {
        let session = stored?.entry.session;
        // A number that no demo has reached is somebody else's session.
        let round = session.and_then(|session| story::round_of(session.as_str()));
        let round = round.filter(|round| *round < ROUNDS_MAX);
        next = next.max(round.map_or(0, |round| round + 1));
    }
    Ok(next)
}
