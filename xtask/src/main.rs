//! `cargo xtask`: the menu of heavy proofs. Prints its menu when called without a verb.
//!
//! Never here: a proof of its own. It builds and runs what the rooms have, or walks into a room of
//! its own: [`power_loss`], [`fsyncgate`], [`full_disk`], [`kill_loop`].

mod fsyncgate;
mod full_disk;
mod kill_loop;
mod power_loss;

use std::process::{Command, ExitCode};

const MENU: &str = "cargo xtask VERB
  demo-rounds [N]   N rounds (default 200) of `wal demo`, kills after 5 to 300 ms
  lossy-demo [N]    the same against a build that acknowledges before it writes: it must fail
  power-loss        replayed power cuts on a real file system; --help says more
  fsyncgate         what a failed fsync does on ext4, xfs, btrfs, and what the log makes of it
  full-disk         a 32 MiB file system fills under four writers
  kill-loop         kill -9 of the demo's fleet, thousands of times; --rounds N --jobs J";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next();
    let rest: Vec<String> = std::env::args().skip(2).collect();
    let rounds = args.next().unwrap_or_else(|| "200".to_owned());
    match verb.as_deref() {
        Some("demo-rounds") => demo_rounds(&rounds),
        Some("lossy-demo") => lossy_demo(&rounds),
        Some("power-loss") => power_loss::command(&rest),
        Some(power_loss::WRITER) => power_loss::writer_command(&rest),
        Some("fsyncgate") => fsyncgate::command(&rest),
        Some("full-disk") => full_disk::command(&rest),
        Some("kill-loop") => kill_loop::command(&rest),
        _ => {
            say(MENU);
            ExitCode::from(2)
        }
    }
}

fn demo_rounds(rounds: &str) -> ExitCode {
    if run(&mut demo("target/xtask-demo", "", rounds)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Succeeds if the lying build is found out.
fn lossy_demo(rounds: &str) -> ExitCode {
    let mut build = cargo("target/lossy", "--cfg annals_lossy");
    if !run(build.args(["build", "--release", "-p", "annals-cli"])) {
        return ExitCode::FAILURE;
    }
    if run(&mut demo("target/lossy", "--cfg annals_lossy", rounds)) {
        say("the lossy build passed the demo: the demo proves nothing");
        return ExitCode::FAILURE;
    }
    say("the lossy build was found out, as it must be");
    ExitCode::SUCCESS
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

fn cargo(target: &str, flags: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("CARGO_TARGET_DIR", target);
    if !flags.is_empty() {
        command.env("RUSTFLAGS", flags);
    }
    command
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

#[expect(clippy::print_stderr, reason = "xtask talks to the person who called it")]
fn say(text: &str) {
    eprintln!("{text}");
}
