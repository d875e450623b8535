//! What issue 7 asks of the observer on a real disk: tool calls classified after kills
//! ([`classify`]), archives made while writers write ([`archives`]), and durations paired over a
//! million entries ([`pairing`]).
//!
//! Never here: the tests that the last one runs. Invariant: each verb ends with `N passed, N failed`.

pub(crate) mod archives;
pub(crate) mod classify;

use std::process::ExitCode;

use crate::tally::{option, tally};

/// The fleet of async agents, optimized: every duration inside of its task's own bounds.
pub(crate) fn pairing() -> ExitCode {
    let entries = option("--entries").unwrap_or_else(|| "1000000".to_owned());
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let mut command = crate::cargo(&target, "");
    command.args(["test", "--release", "-p", "annals-observer", "--test", "fleet"]);
    command.args(["--", "--show-output"]).env("ANNALS_FLEET_ENTRIES", entries);
    tally(&mut command)
}
