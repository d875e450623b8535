//! What the menu answers to names that nothing has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::process::Command;

/// A sweep of no script passed, and said so.
#[test]
fn a_name_that_nothing_has_fails_and_lists_the_names() {
    for (verb, known) in [("crash-sweep", "torn sectors"), ("mutants", "control:any-file")] {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let output = xtask.args([verb, "--only", "no-such-name"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success(), "{verb}: {said}");
        assert!(said.contains("no-such-name") && said.contains("\n  "), "{verb}: {said}");
        assert!(said.contains(known), "{verb} lists its names: {said}");
        assert!(said.trim_end().ends_with("0 passed, 1 failed"), "{verb}: {said}");
    }
}

/// `crash-sweep --help` swept for four minutes.
#[test]
fn who_asks_for_help_gets_it_and_nothing_is_run() {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let menu = String::from_utf8(xtask.output().unwrap().stdout).unwrap();
    let verb = |line: &str| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned);
    let verbs: Vec<String> = menu.lines().filter_map(verb).filter(|v| !v.is_empty()).collect();
    assert!(verbs.len() >= 20, "{verbs:?}");
    // The bench of other engines is a program of its own, and would be built.
    for verb in verbs.iter().map(String::as_str).filter(|verb| *verb != "bench-peers") {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let output = xtask.args([verb, "--help"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{verb}: {said}");
        assert!(said.contains(verb) && !said.contains("passed"), "{verb}: {said}");
    }
}
