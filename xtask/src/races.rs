//! `cargo xtask races`: the registry's transitions from ten threads (`registry/tests/it/races.rs`).
//!
//! Optimized, because a million transitions are; with `--tsan` in a build of nightly's that
//! ThreadSanitizer watches.

use std::process::ExitCode;

use crate::tally::{flag, option, tally};

pub(crate) fn run() -> ExitCode {
    let iterations = option("--iterations").unwrap_or_else(|| "1000".to_owned());
    let mut command = crate::cargo("target", "");
    command.args(["test", "--release", "-p", "annals-registry", "--test", "it", "races"]);
    command.args(["--", "--show-output"]).env("ANNALS_RACES", iterations);
    let _ = flag("--tsan");
    tally(&mut command)
}
