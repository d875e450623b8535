//! `cargo xtask races`: the registry's transitions from ten threads (`registry/tests/it/races.rs`),
//! optimized, because a million transitions are many.
//!
//! Not under ThreadSanitizer: without the source of the standard library (`rust-src`, for
//! `-Zbuild-std`) it does not see what `Condvar::wait` and the last drop of an `Arc` synchronize,
//! and calls correct code a race: 119 reports in two iterations. Data races as such cannot be had
//! without `unsafe`, which the libraries forbid; what is left to race is the order of whole steps.

use std::process::ExitCode;

use crate::tally::{option, tally};

pub(crate) fn run() -> ExitCode {
    let iterations = option("--iterations").unwrap_or_else(|| "1000".to_owned());
    let mut command = crate::cargo("target", "");
    command.args(["test", "--release", "-p", "annals-registry", "--test", "it", "races"]);
    command.args(["--", "--show-output"]).env("ANNALS_RACES", iterations);
    tally(&mut command)
}
