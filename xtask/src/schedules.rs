//! `cargo xtask schedules`: the commit queue under shuttle (`wal/tests/shuttle`).
//!
//! Its own target directory: the cfg that puts shuttle's locks in place of the standard library's
//! would make cargo build everything again.

use std::process::ExitCode;

use crate::tally::{option, tally};

pub(crate) fn run() -> ExitCode {
    let mut command = crate::cargo("target/schedules", "--cfg annals_shuttle");
    command.args(["test", "-p", "annals-wal", "--test", "shuttle"]);
    // What is neither the option nor its value is the name of a scenario.
    let iterations = option("--iterations");
    let name = std::env::args()
        .skip(2)
        .find(|arg| !arg.starts_with("--") && Some(arg) != iterations.as_ref());
    command.args(name).args(["--", "--show-output"]);
    if let Some(iterations) = iterations {
        command.env("ANNALS_SCHEDULES", iterations);
    }
    tally(&mut command)
}
