//! `cargo xtask`: the menu of heavy proofs. Prints its menu when called without a verb.
//!
//! Never here: a proof. The proofs that need all rooms at once are the library beside this
//! ([`xtask::sweep`], [`xtask::simulate`]); those on real file systems have a room each:
//! [`power_loss`], [`fsyncgate`], [`full_disk`], [`kill_loop`], [`observed`]; the rest runs what
//! other crates have. Invariant: every verb of a proof ends with a line `N passed, N failed`, and exits with
//! non-zero if anything failed.

mod bench_peers;
mod coverage;
mod damage_table;
mod demo;
mod fsyncgate;
mod full_disk;
mod fuzz;
mod instructions;
mod kill_loop;
mod mutants;
mod observed;
mod power_loss;
mod process_storm;
mod proofs;
mod races;
mod schedules;
mod tally;
mod two_processes;

use std::process::{Command, ExitCode};

const MENU: &str = "cargo xtask VERB
  crash-sweep [--only SCRIPT]
                    crash and error at every operation of every script, nested twice
  simulate [--seeds N] [--from S] [--threads T]
                    N random lives (default 10000) with crashes, faults and damage
  two-processes [--seeds N] [--from S]
                    two processes on one log: stopped, killed and failed at every operation of
                    their scripts, and N random lives (default 10000)
  mutants [--only NAME,..] [--jobs N]
                    one line of the code left out at a time: which proof dies of it?
  schedules [--iterations N] [NAME]
                    N schedules (default 2000) of each scenario of the commit queue, by shuttle
  model             explores the protocol of a shared log, and five broken ones
  races [--iterations N]
                    N times (default 1000) 10 threads x 100 status transitions in a registry
  fuzz [--minutes N] [--target T]
                    each fuzz target N (default 10) minutes; needs cargo-fuzz and a nightly
  coverage          lines of format, scan and recover that the tests reach; needs LLVM's tools
  kill-loop [--rounds N] [--jobs J]
                    kill -9 of the demo's fleet, N times
  classify [--runs N]
                    kill -9 in the middle of N (default 100) runs of tools, each call classified
  archives [--rounds N] [--targets T]
                    archives made while eight writers write: nothing lost, p99, cost of a hand-over
  pairing [--entries N]
                    64 async agents with 3 tools at once: durations, failures, memory
  process-storm [--writers registry|entries] [--minutes N]
                    eight processes on one log, one killed every 50 ms; --help says more
  power-loss --fs ext4|xfs|btrfs [--cuts N]
                    replayed power cuts on a real file system; --help says more
  fsyncgate         what a failed fsync does on ext4, xfs, btrfs, and what the log makes of it
  damage-table [--seeds N] [--from S]
                    N random damages (default 1000) and what the diagnosis calls them
  full-disk         a 32 MiB file system fills under four writers
  bench-peers [--help] [...]
                    other engines beside this one, each durable: throughput, latency, syncs
  instructions [--save]
                    instructions of the hot path beside the committed count; needs valgrind
  demo-rounds [N]   N rounds (default 200) of `wal demo`, kills after 5 to 300 ms
  lossy-demo [N]    the same against a build that acknowledges before it writes: it must fail";

/// Verbs whose lines above are all there is to say. (`crash-sweep --help` swept for four minutes.)
const SAID_ABOVE: [&str; 15] = [
    "crash-sweep",
    "simulate",
    "two-processes",
    "mutants",
    "schedules",
    "model",
    "races",
    "coverage",
    "fuzz",
    "pairing",
    "damage-table",
    "instructions",
    "full-disk",
    "demo-rounds",
    "lossy-demo",
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next();
    let rest: Vec<String> = args.collect();
    let asks = rest.iter().any(|arg| arg == "--help");
    match verb.as_deref() {
        Some(verb) if asks && SAID_ABOVE.contains(&verb) => {
            say(MENU);
            ExitCode::SUCCESS
        }
        Some("crash-sweep") => proofs::crash_sweep(),
        Some("simulate") => proofs::simulation(),
        Some("two-processes") => two_processes::command(),
        Some("mutants") => mutants::command(),
        Some(mutants::judge::VERB) => mutants::judge::command(&rest),
        Some("schedules") => schedules::run(),
        Some("model") => proofs::model(),
        Some("races") => races::run(),
        Some("coverage") => coverage::run(),
        Some("fuzz") => fuzz::fuzz(rest.into_iter()),
        Some("kill-loop") => kill_loop::command(&rest),
        Some("classify") => observed::classify::command(&rest),
        Some(observed::classify::WRITER) => observed::classify::writer(&rest),
        Some("archives") => observed::archives::command(&rest),
        Some("pairing") => observed::pairing(),
        Some("power-loss") => power_loss::command(&rest),
        Some(power_loss::WRITER) => power_loss::writer_command(&rest),
        Some("process-storm") => process_storm::command(&rest),
        Some(process_storm::CHILD) => process_storm::child::command(&rest),
        Some("fsyncgate") => fsyncgate::command(&rest),
        Some("damage-table") => damage_table::command(),
        Some("full-disk") => full_disk::command(&rest),
        Some("instructions") => instructions::command(&rest),
        Some("bench-peers") => bench_peers::command(&rest),
        Some("demo-rounds") => demo::rounds(&rest),
        Some("lossy-demo") => demo::lossy(&rest),
        _ => {
            say(MENU);
            ExitCode::from(2)
        }
    }
}

/// Cargo with a target directory and flags of its own.
fn cargo(target: &str, flags: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("CARGO_TARGET_DIR", target);
    if !flags.is_empty() {
        command.env("RUSTFLAGS", flags);
    }
    command
}

/// Runs it; tells whether it succeeded.
fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

#[expect(clippy::print_stdout, reason = "xtask talks to the person who called it")]
fn say(text: &str) {
    println!("{text}");
}
