//! `cargo xtask coverage`: which lines of the log's core the tests of `wal` and of the proofs reach.
//!
//! Never here: a test. Lines that are not reached are counted, not excused; the floor is 95 % of
//! `format`, `scan` and `recover` each. Needs LLVM's `llvm-profdata` and `llvm-cov` (Debian's
//! `llvm-19` reads what Rust 1.95 writes); without them it says so and is skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use crate::{cargo, say};

const TARGET: &str = "target/coverage";
const FLOOR_PERCENT: f64 = 95.0;
/// Rooms and the start of their files' paths.
const ROOMS: [(&str, &str); 3] =
    [("format", "wal/src/format"), ("scan", "wal/src/scan"), ("recover", "wal/src/recover")];

pub(crate) fn run() -> ExitCode {
    let Some((profdata, cov)) = tools() else {
        say("no llvm-profdata and llvm-cov here: install Debian's llvm-19");
        say("0 passed, 0 failed, skipped: no LLVM tools");
        return ExitCode::SUCCESS;
    };
    match measure(&profdata, &cov) {
        Ok((passed, failed)) => {
            say(&format!("{passed} passed, {failed} failed"));
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            say(&why);
            say("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// The first pair of tools that answers.
fn tools() -> Option<(String, String)> {
    let versions = std::iter::once(String::new()).chain((15..30).rev().map(|n| format!("-{n}")));
    versions.map(|v| (format!("llvm-profdata{v}"), format!("llvm-cov{v}"))).find(|(a, b)| {
        [a, b].into_iter().all(|tool| {
            Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success())
        })
    })
}

fn measure(profdata: &str, cov: &str) -> Result<(u32, u32), String> {
    let profiles = Path::new(TARGET).join("profiles");
    let _ = std::fs::remove_dir_all(&profiles);
    let binaries = build()?;
    let pattern = std::env::current_dir().map_err(text)?.join(&profiles).join("%4m.profraw");
    if !tests().env("LLVM_PROFILE_FILE", &pattern).status().map_err(text)?.success() {
        return Err("a test failed under coverage".to_owned());
    }
    let raw = std::fs::read_dir(&profiles).map_err(text)?;
    let raw: Vec<PathBuf> = raw.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let merged = Path::new(TARGET).join("merged.profdata");
    let mut merge = Command::new(profdata);
    merge.args(["merge", "-sparse", "-failure-mode=all", "-o"]).arg(&merged).args(&raw);
    if !merge.status().map_err(text)?.success() {
        return Err(format!("{profdata} cannot read what this compiler wrote"));
    }
    report(&export(cov, &merged, &binaries)?)
}

fn tests() -> Command {
    let mut command = cargo(TARGET, "-Cinstrument-coverage");
    command.args(["test", "-p", "annals-wal", "-p", "xtask", "--tests"]);
    command
}

/// Builds the tests and tells where they are.
fn build() -> Result<Vec<String>, String> {
    let mut command = tests();
    command.args(["--no-run", "--message-format=json"]).stderr(Stdio::inherit());
    let out = command.output().map_err(text)?;
    if !out.status.success() {
        return Err("the tests do not build for coverage".to_owned());
    }
    let lines = String::from_utf8_lossy(&out.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|m| m["executable"].as_str().map(str::to_owned)).collect())
}

fn export(cov: &str, merged: &Path, binaries: &[String]) -> Result<Value, String> {
    let (first, rest) = binaries.split_first().ok_or("no test was built")?;
    let mut command = Command::new(cov);
    command.args(["export", "--summary-only", "--instr-profile"]).arg(merged).arg(first);
    rest.iter().for_each(|binary| {
        command.args(["--object", binary]);
    });
    let out = command.stderr(Stdio::inherit()).output().map_err(text)?;
    serde_json::from_slice(&out.stdout).map_err(text)
}

/// Prints every file of the rooms; a room below the floor fails.
fn report(summary: &Value) -> Result<(u32, u32), String> {
    let files = summary["data"][0]["files"].as_array().ok_or("the export names no files")?;
    let (mut passed, mut failed) = (0, 0);
    for (room, start) in ROOMS {
        let (mut lines, mut covered) = (0, 0);
        for file in files {
            let name = file["filename"].as_str().unwrap_or_default();
            let Some(at) = name.find(start) else { continue };
            let of = |what: &str| file["summary"]["lines"][what].as_u64().unwrap_or(0);
            (lines, covered) = (lines + of("count"), covered + of("covered"));
            say(&format!("  {:32} {:5} of {:5} lines", &name[at..], of("covered"), of("count")));
        }
        let percent = 100.0 * covered as f64 / (lines.max(1)) as f64;
        say(&format!("{room}: {percent:.1} % of {lines} lines"));
        if percent >= FLOOR_PERCENT { passed += 1 } else { failed += 1 }
    }
    Ok((passed, failed))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
