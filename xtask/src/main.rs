//! `cargo xtask`: the menu of heavy proofs. Prints its menu when called without a verb.
//!
//! Never here: a proof of its own; it builds and runs what the rooms have.

mod fuzz;
mod races;
mod schedules;
mod tally;

use std::process::{Command, ExitCode};

const MENU: &str = "cargo xtask VERB
  demo-rounds [N]   N rounds (default 200) of `wal demo`, kills after 5 to 300 ms
  lossy-demo [N]    the same against a build that acknowledges before it writes: it must fail
  races [--iterations N]
                    N times (default 1000) 10 threads x 100 status transitions in a registry
  schedules [--iterations N] [NAME]
                    N schedules (default 2000) of each scenario of the commit queue, by shuttle
  fuzz [--minutes N] [--target T]
                    each fuzz target N (default 10) minutes; needs cargo-fuzz and a nightly";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next();
    if verb.as_deref() == Some("fuzz") {
        return fuzz::fuzz(args);
    }
    let rounds = args.next().unwrap_or_else(|| "200".to_owned());
    match verb.as_deref() {
        Some("demo-rounds") => demo_rounds(&rounds),
        Some("crash-sweep") => crash_sweep(),
        Some("simulate") => simulate(&rounds),
        Some("lossy-demo") => lossy_demo(&rounds),
        Some("races") => races::run(),
        Some("schedules") => schedules::run(),
        _ => {
            say(MENU);
            ExitCode::from(2)
        }
    }
}

fn crash_sweep() -> ExitCode {
    let start = std::time::Instant::now();
    let told = |script: &xtask::sweep::Script, s: &xtask::sweep::Swept| {
        say(&format!(
            "{:32} {:4} ops {:?} crashes {:?} errors {} states {:.1}s",
            script.name,
            s.ops,
            s.crashes,
            s.errors,
            s.states,
            start.elapsed().as_secs_f64()
        ));
        for v in &s.violations {
            say(v);
        }
    };
    let s = xtask::sweep::sweep_all(xtask::sweep::Depth::WHOLE, 2, &told);
    say(&format!("{s:?}"));
    ExitCode::SUCCESS
}

fn simulate(seeds: &str) -> ExitCode {
    let from: u64 = std::env::args().nth(3).and_then(|s| s.parse().ok()).unwrap_or(0);
    let seeds: u64 = seeds.parse().unwrap_or(1000);
    let start = std::time::Instant::now();
    let done = xtask::simulate::simulate(from..from + seeds, 2);
    let t = start.elapsed().as_secs_f64();
    say(&format!(
        "{:?} {:.1}/s ops/seed {:.0} crashes/seed {:.2} faults/seed {:.2}",
        done.tally,
        seeds as f64 / t,
        done.tally.ops as f64 / seeds as f64,
        done.tally.crashes as f64 / seeds as f64,
        done.tally.faults as f64 / seeds as f64
    ));
    for v in &done.violations {
        say(&format!("{v:?}"));
    }
    say(&format!("{} passed, {} failed", done.seeds - done.failed, done.failed));
    ExitCode::SUCCESS
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
