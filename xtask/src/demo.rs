//! `demo-rounds` and `lossy-demo`: the tool's own demo, and the proof that it would notice a log
//! that lies.
//!
//! Never here: what the demo checks (`cli/src/demo`).

use std::process::{Command, ExitCode};

use crate::{cargo, run, say};

/// So many rounds of `wal demo`.
pub(crate) fn rounds(rest: &[String]) -> ExitCode {
    if run(&mut demo("target/xtask-demo", "", count(rest))) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Succeeds if the lying build is found out.
pub(crate) fn lossy(rest: &[String]) -> ExitCode {
    let mut build = cargo("target/lossy", "--cfg annals_lossy");
    if !run(build.args(["build", "--release", "-p", "annals-cli"])) {
        return ExitCode::FAILURE;
    }
    if run(&mut demo("target/lossy", "--cfg annals_lossy", count(rest))) {
        say("the lossy build passed the demo: the demo proves nothing");
        return ExitCode::FAILURE;
    }
    say("the lossy build was found out, as it must be");
    ExitCode::SUCCESS
}

fn count(rest: &[String]) -> &str {
    rest.first().map_or("200", String::as_str)
}

/// The demo in a fresh directory below the target directory.
fn demo(target: &str, flags: &str, rounds: &str) -> Command {
    let dir = format!("{target}/demo-log");
    let _ = std::fs::remove_dir_all(&dir);
    let _ = std::fs::create_dir_all(target);
    let mut command = cargo(if flags.is_empty() { "target" } else { target }, flags);
    command.args(["run", "--release", "-p", "annals-cli", "--", "demo", &dir]);
    command.args(["--agents", "8", "--seconds", "0.3", "--rounds", rounds]);
    command
}
