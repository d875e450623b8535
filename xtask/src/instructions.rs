//! `cargo xtask instructions [--save]`: counts instructions of the hot path under callgrind and
//! holds them against `bench/instructions.json`.
//!
//! A clock on a shared machine says little about ten per cent; a count says the same twice. Never
//! here: the operations (`bench/examples/instructions.rs`). Invariants: a case that grew by more
//! than the tolerance fails; a case without a baseline, or a baseline without its case, fails too;
//! the baseline changes by `--save` only. A count depends on the compiler, on valgrind and on what
//! the processor can do, so the baseline names them and a difference is said. Kernel time, waits
//! and cache misses are not in it. Next room: `bench/examples/instructions.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use crate::{cargo, run, say};

const BASELINE: &str = "bench/instructions.json";
const CASES: [&str; 6] =
    ["encode_128", "append_128", "scan_128", "mapped_128", "transact_one_key", "observe_1k"];
/// Operations of a run, as in the example.
const OPERATIONS: f64 = 1000.0;
const TOLERANCE: f64 = 0.02;

/// Counts, compares, and with `--save` keeps the counts.
pub(crate) fn command(args: &[String]) -> ExitCode {
    let save = match args {
        [] => false,
        [flag] if flag == "--save" => true,
        _ => {
            say("cargo xtask instructions [--save]");
            return ExitCode::from(2);
        }
    };
    match count_all().and_then(|counts| if save { keep(&counts) } else { compare(&counts) }) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("instructions: {error}"));
            ExitCode::FAILURE
        }
    }
}

type Counts = BTreeMap<String, f64>;

/// Instructions of each case, by operation.
fn count_all() -> Result<Counts, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = PathBuf::from(target);
    let mut build = cargo(target.to_str().ok_or("the target directory is not UTF-8")?, "");
    build.args(["build", "--release", "--locked", "-p", "annals-bench"]);
    if !run(build.args(["--example", "instructions"])) {
        return Err("the example does not build".to_owned());
    }
    let program = target.join("release/examples/instructions");
    CASES.iter().map(|case| Ok(((*case).to_owned(), count(&program, case)? / OPERATIONS))).collect()
}

fn count(program: &Path, case: &str) -> Result<f64, String> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    valgrind.args(["--toggle-collect=*counted_section*", "--"]).arg(program).arg(case);
    // The environment lies on the stack and moves what is aligned on it.
    let kept = ["PATH", "TMPDIR"].map(|name| (name, std::env::var_os(name).unwrap_or_default()));
    valgrind.env_clear().envs(kept.into_iter().filter(|(_, value)| !value.is_empty()));
    let output = valgrind.output().map_err(|error| {
        format!("valgrind does not start ({error}): install the package `valgrind`")
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(why_not(case, &said));
    }
    let count = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, n)| n.trim());
    match count.and_then(|count| count.parse::<f64>().ok()) {
        Some(count) if count > 0.0 => Ok(count),
        _ => Err(format!("callgrind counted nothing in {case}: is `counted_section` still there?")),
    }
}

/// Valgrind ends a program at an instruction that it does not know; AVX-512 it does not.
fn why_not(case: &str, said: &str) -> String {
    let last = said.lines().rev().find(|line| line.contains("Assert") || line.contains("panicked"));
    if said.contains("unrecognised instruction") || said.contains("SIGILL") {
        return format!(
            "{case}: this valgrind does not know an instruction of the program. Build for a \
             processor without AVX-512 (no `-C target-cpu=native` in RUSTFLAGS) or take a newer \
             valgrind"
        );
    }
    format!("{case} failed under valgrind: {}", last.unwrap_or("it said nothing"))
}

/// Whatever a count depends on and this repository does not fix.
fn tools() -> Value {
    let first_line = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().next()?.trim().to_owned())
    };
    let libc = first_line("getconf", &["GNU_LIBC_VERSION"]);
    json!({
        "rustc": first_line("rustc", &["--version"]),
        "valgrind": first_line("valgrind", &["--version"]),
        "libc": libc,
    })
}

fn keep(counts: &Counts) -> Result<usize, String> {
    let rounded: BTreeMap<_, _> = counts.iter().map(|(case, n)| (case, n.round())).collect();
    let baseline = json!({ "tools": tools(), "instructions": rounded });
    std::fs::write(BASELINE, format!("{baseline:#}\n")).map_err(|e| format!("{BASELINE}: {e}"))?;
    counts.iter().for_each(|(case, count)| say(&format!("{case:<20} {count:>10.0}")));
    say(&format!("{BASELINE} is written: {} passed, 0 failed", counts.len()));
    Ok(0)
}

/// Prints each case beside its baseline; tells how many failed.
fn compare(counts: &Counts) -> Result<usize, String> {
    let text = std::fs::read_to_string(BASELINE)
        .map_err(|error| format!("{BASELINE}: {error}; `--save` writes it"))?;
    let baseline: Value =
        serde_json::from_str(&text).map_err(|error| format!("{BASELINE}: {error}"))?;
    let tools = tools();
    if baseline["tools"] != tools {
        say(&format!(
            "the baseline was counted with {}, and this with {tools}: a difference may be theirs",
            baseline["tools"]
        ));
    }
    let known = baseline["instructions"].as_object().ok_or("the baseline has no instructions")?;
    let (lines, failed) = judge(counts, |case| known.get(case)?.as_f64());
    say(&format!("{:<20} {:>10} {:>10} {:>8}", "instructions of", "baseline", "now", "change"));
    lines.iter().for_each(|line| say(line));
    let gone = known.keys().filter(|case| !counts.contains_key(*case));
    let gone: Vec<&String> = gone.collect();
    gone.iter().for_each(|case| say(&format!("{case:<20} is in the baseline and not counted")));
    let failed = failed + gone.len();
    say(&format!("{} passed, {failed} failed", counts.len() + gone.len() - failed));
    Ok(failed)
}

/// A line for each case, and how many are wrong.
fn judge(counts: &Counts, baseline: impl Fn(&str) -> Option<f64>) -> (Vec<String>, usize) {
    let mut failed = 0;
    let lines = counts.iter().map(|(case, now)| {
        let Some(before) = baseline(case).filter(|before| *before > 0.0) else {
            failed += 1;
            return format!("{case:<20} {:>10} {now:>10.0}          no baseline: --save", "-");
        };
        let change = now / before - 1.0;
        let verdict = if change > TOLERANCE {
            failed += 1;
            "  FAILED: grew by more than 2 %"
        } else if change < -TOLERANCE {
            "  fewer: --save keeps it so"
        } else {
            ""
        };
        format!("{case:<20} {before:>10.0} {now:>10.0} {:>+7.2}%{verdict}", change * 100.0)
    });
    let lines = lines.collect();
    (lines, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(now: f64, before: Option<f64>) -> usize {
        judge(&Counts::from([("append_128".to_owned(), now)]), |_| before).1
    }

    #[test]
    fn growth_past_the_tolerance_and_a_missing_baseline_fail() {
        assert_eq!(judged(1019.0, Some(1000.0)), 0);
        assert_eq!(judged(1021.0, Some(1000.0)), 1);
        assert_eq!(judged(500.0, Some(1000.0)), 0);
        assert_eq!(judged(500.0, None), 1);
    }

    #[test]
    fn an_instruction_that_valgrind_does_not_know_is_named() {
        let said = "==1== vex amd64->IR: unrecognised instruction bytes\n==1== SIGILL";
        assert!(why_not("append_128", said).contains("AVX-512"));
    }
}
