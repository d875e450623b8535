//! `cargo xtask mutants`: leaves one line of the code out at a time ([`table`]) and sees which proof
//! dies of it: the conformance suite of the directory seam, the test of real threads, that of
//! several processes, the registry's tests, those of archives, a sweep, or the simulation, of one process or of two.
//!
//! Never here: a unit test that names a mutant. Invariants: one build for all, the mutant is chosen
//! by the environment (`wal/src/mutant.rs`); without a mutant every proof passes, or nothing is
//! tried; what was found becomes `docs/MUTANTS.md`; the last line counts those killed as passed,
//! and the exit code agrees with it. A run that was ended goes on where it was, if what it built is
//! the same ([`kept`]). Next rooms: [`hunt`], [`judge`].

mod hunt;
pub(crate) mod judge;
mod kept;
mod page;
mod table;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::say;
use crate::tally::option;
use hunt::{Fate, Proofs};
use kept::Kept;
use table::{Mutant, TABLE};

/// Where the page goes.
const PAGE: &str = "docs/MUTANTS.md";

/// All mutants, or those whose name contains one of `--only`, which commas divide.
pub(crate) fn command() -> ExitCode {
    let only = option("--only");
    let jobs = option("--jobs").and_then(|text| text.parse().ok()).unwrap_or(2);
    let names: Vec<&str> = TABLE.iter().map(|mutant| mutant.name).collect();
    let parts = || only.iter().flat_map(|only| only.split(','));
    if let Some(unknown) = parts().find(|part| !names.iter().any(|name| name.contains(part))) {
        return crate::proofs::no_such("mutant", unknown, &names);
    }
    let Some(proofs) = build() else {
        say("the mutants' build failed\n0 passed, 1 failed");
        return ExitCode::FAILURE;
    };
    // One that is asked for by name is tried anew.
    let kept = only.is_none().then(|| Kept::of(&target(), &proofs.programs()));
    if !kept.as_ref().is_some_and(Kept::passed) {
        say("without a mutant ...");
        if let Fate::Killed { by, saw } = proofs.hunt(None) {
            say(&format!("without a mutant: {by}: {saw}\n0 passed, 1 failed"));
            return ExitCode::FAILURE;
        }
        kept.iter().for_each(Kept::keep_passed);
    }
    let wanted =
        |mutant: &&Mutant| only.is_none() || parts().any(|part| mutant.name.contains(part));
    let mutants: Vec<&Mutant> = TABLE.iter().filter(wanted).collect();
    let fates = hunt_all(&proofs, &mutants, jobs, kept.as_ref());
    if only.is_none()
        && let Err(e) = std::fs::write(PAGE, page::page(&mutants, &fates))
    {
        say(&format!("writing {PAGE}: {e}"));
    }
    let killed = fates.iter().filter(|fate| matches!(fate, Fate::Killed { .. })).count();
    say(&format!("{killed} passed, {} failed", fates.len() - killed));
    if killed == fates.len() && killed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hunt_all(proofs: &Proofs, mutants: &[&Mutant], jobs: usize, kept: Option<&Kept>) -> Vec<Fate> {
    let (next, fates) = (AtomicUsize::new(0), Mutex::new(vec![None; mutants.len()]));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(index) else { return };
                    let known = kept.and_then(|kept| kept.fate(mutant.name));
                    let fate = known.clone().unwrap_or_else(|| proofs.hunt(Some(mutant)));
                    if let (Some(kept), None) = (kept, known) {
                        kept.keep(mutant.name, &fate);
                    }
                    say(&match &fate {
                        Fate::Killed { by, saw } => format!("{}  {by}  {saw}", mutant.name),
                        Fate::Survived(how) => format!("{}  SURVIVED  {how}", mutant.name),
                    });
                    let mut fates = fates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    fates[index] = Some(fate);
                }
            });
        }
    });
    let fates = fates.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let missing = || Fate::Survived("not tried".to_owned());
    fates.into_iter().map(|fate| fate.unwrap_or_else(missing)).collect()
}

/// Where these builds and what they found are kept.
fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    PathBuf::from(target).join("mutants")
}

/// Builds this program and the conformance suite with the mutants in them.
fn build() -> Option<Proofs> {
    let target = target();
    let target = target.to_string_lossy();
    let cargo = |arguments: &[&str]| {
        let mut command = crate::cargo(&target, "--cfg annals_mutants");
        command.args(arguments).args(["--release", "--message-format", "json"]);
        executable(&mut command)
    };
    let xtask = cargo(&["build", "-p", "xtask", "--bin", "xtask"])?;
    let seam = cargo(&["test", "-p", "annals-wal", "--test", "seam", "--no-run"])?;
    let threads = cargo(&["test", "-p", "annals-wal", "--test", "threads", "--no-run"])?;
    let shared = cargo(&["test", "-p", "annals-wal", "--test", "shared", "--no-run"])?;
    let seconds_max = option("--seconds").and_then(|text| text.parse().ok()).unwrap_or(600);
    let rooms = cargo(&["test", "-p", "annals-registry", "--test", "it", "--no-run"])?;
    let archives = ["test", "-p", "annals-observer", "--test", "archive_crashes", "--no-run"];
    let archives = cargo(&archives)?;
    let levels = cargo(&["test", "-p", "annals-wal", "--test", "levels", "--no-run"])?;
    let room = cargo(&["test", "-p", "annals-wal", "--test", "room", "--no-run"])?;
    let waits = [levels, room];
    Some(Proofs { seam, threads, shared, rooms, archives, waits, xtask, seconds_max })
}

/// Runs cargo; the last program that it says it has made.
fn executable(command: &mut Command) -> Option<PathBuf> {
    let out = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().ok()?;
    let made = String::from_utf8_lossy(&out.stdout);
    let mut made = made.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    // Cargo names them in the order in which it made them.
    made.next_back().filter(|_| out.status.success())
}
