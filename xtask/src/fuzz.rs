//! `cargo xtask fuzz [--minutes N] [--target T]`: libFuzzer on every target of `fuzz/`, one after
//! the other, with the limits that are part of what is proven.
//!
//! Never here: a target or an oracle (`fuzz/src`). Invariants: a tool that is missing is said and
//! counted as skipped, never as passed; a finding fails the run and stays in `fuzz/artifacts`.
//! New inputs go to `target/fuzz-corpus/TARGET`, not to the committed corpus; what is worth keeping
//! is copied there by hand, under a name that says what it is.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// 5 s for an input, 512 MiB for the process. One allocation has 64 MiB: that limit stands in
/// `fuzz/src/memory.rs`, because libFuzzer's own needs a sanitizer. None is used: no code of ours
/// is `unsafe`, and without it an input runs several times as fast.
const LIMITS: [&str; 5] =
    ["-timeout=5", "-rss_limit_mb=512", "-max_len=4096", "-len_control=0", "-print_final_stats=1"];

/// Reads the arguments after the verb and runs what they name.
pub(crate) fn fuzz(args: impl Iterator<Item = String>) -> ExitCode {
    let (mut minutes, mut wanted) = (10, None);
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let value = args.next();
        match (arg.as_str(), value) {
            ("--minutes", Some(value)) if value.parse::<u64>().is_ok_and(|n| n > 0) => {
                minutes = value.parse().unwrap_or(minutes);
            }
            ("--target", Some(value)) => wanted = Some(value),
            _ => {
                crate::say("cargo xtask fuzz [--minutes N] [--target T]");
                return ExitCode::from(2);
            }
        }
    }
    let targets: Vec<String> = match targets() {
        targets if wanted.is_none() => targets,
        targets => targets.into_iter().filter(|t| Some(t) == wanted.as_ref()).collect(),
    };
    if targets.is_empty() {
        crate::say("fuzz: there is no such target in fuzz/fuzz_targets");
        return ExitCode::from(2);
    }
    if let Some(missing) = missing() {
        crate::say(&format!(
            "fuzz: skipped, {missing}\n0 passed, 0 failed, {} skipped",
            targets.len()
        ));
        return ExitCode::SUCCESS;
    }
    let failed: Vec<_> = targets.iter().filter(|target| !run(target, minutes)).collect();
    for target in &failed {
        crate::say(&format!("fuzz: {target} failed; the input is in fuzz/artifacts/{target}"));
    }
    crate::say(&format!("{} passed, {} failed", targets.len() - failed.len(), failed.len()));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The names of the files in `fuzz/fuzz_targets`, sorted.
fn targets() -> Vec<String> {
    let files = std::fs::read_dir("fuzz/fuzz_targets").into_iter().flatten().flatten();
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut names: Vec<_> = files.filter_map(|file| stem(file.path())).collect();
    names.sort();
    names
}

fn missing() -> Option<&'static str> {
    let there = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
    };
    if !there("cargo", &["+nightly", "--version"]) {
        return Some("no nightly toolchain: rustup toolchain install nightly");
    }
    if !there("cargo", &["+nightly", "fuzz", "--version"]) {
        return Some("no cargo-fuzz: cargo install cargo-fuzz");
    }
    None
}

/// One target for so many minutes. The committed corpus is read and not added to.
fn run(target: &str, minutes: u64) -> bool {
    let found = PathBuf::from("target/fuzz-corpus").join(target);
    if let Err(error) = std::fs::create_dir_all(&found) {
        crate::say(&format!("fuzz: making {}: {error}", found.display()));
        return false;
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let corpus = PathBuf::from("fuzz/corpus").join(target);
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", "--sanitizer", "none"]);
    command.args(["--features", "fuzzing", target]);
    command.arg(absolute(&found)).arg(absolute(&corpus)).arg("--").args(LIMITS);
    command.arg(format!("-max_total_time={}", minutes * 60));
    // Set by `cargo xtask`, and it names another toolchain.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command.status().is_ok_and(|status| status.success())
}
