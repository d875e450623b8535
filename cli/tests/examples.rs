//! Every example in a `--help` and in the README runs as it stands, verb by verb; every verb has one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::path::Path;
use std::process::Command;

fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_wal")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs of `wal`, or those of one of its verbs.
fn verbs(of: &[&str]) -> Vec<String> {
    let text = help(&[of, &["--help"]].concat());
    let lines = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verb = |line: &str| {
        let indented = line.starts_with("  ") && !line.starts_with("   ");
        indented.then(|| line.split_whitespace().next().unwrap().to_owned())
    };
    let verbs: Vec<String> = lines.take_while(|line| !line.is_empty()).filter_map(verb).collect();
    verbs.into_iter().filter(|verb| verb != "help").collect()
}

/// What the examples take for granted.
fn fixture(home: &Path) {
    for dir in ["agents", "trajectories", "bin", ".local/share/man/man1"] {
        std::fs::create_dir_all(home.join(dir)).unwrap();
    }
    std::fs::create_dir_all(home.join(".local/share/bash-completion/completions")).unwrap();
    let lines = "{\"session_id\":\"s-1\",\"type\":\"note\",\"n\":1}\n".repeat(150);
    std::fs::write(home.join("agents/a.jsonl"), lines).unwrap();
    let trajectory = r#"{"trajectory":[{"action":"ls","observation":"a b","response":"look"}]}"#;
    std::fs::write(home.join("trajectories/t.traj"), trajectory).unwrap();
    let agent = r#"{"task_id":"T1","agents":[{"id":"A7","status":"running"}],"active_count":1}"#;
    std::fs::write(home.join("AGENT_REGISTRY.json"), agent).unwrap();
    let global = r#"{"tasks":{"T1":{"status":"active"}},"agents":{}}"#;
    std::fs::write(home.join("GLOBAL_REGISTRY.json"), global).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wal"), home.join("bin/wal")).unwrap();
}

fn shell(home: &Path, line: &str) -> (bool, String) {
    let path = format!("{}:{}", home.join("bin").display(), std::env::var("PATH").unwrap());
    // Pipes into jq are run where jq is; a follower ends when nothing comes.
    let has_jq = Command::new("jq").arg("--version").output().is_ok();
    let line = if has_jq { line } else { line.split(" | jq").next().unwrap() };
    let line = line.replacen(" -f", " -f --idle 1", 1);
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(home)
        .env("PATH", path)
        .env("HOME", home)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success() && !text.contains("error:"), text)
}

/// What is there before a verb's examples run.
fn prepare(home: &Path, verb: &str) {
    fixture(home);
    let needs: &[&str] = match verb {
        "import" => &[],
        "registry import" => &["wal registry put runs tasks/T0 1"],
        "diff" => &["wal import runs agents/*.jsonl", "wal salvage runs --to runs.salvaged"],
        verb if verb.starts_with("registry ") => &["wal registry import runs AGENT_REGISTRY.json"],
        _ => &["wal import runs agents/*.jsonl trajectories/*.traj"],
    };
    for line in needs {
        let (ok, why) = shell(home, line);
        assert!(ok, "`{line}`: {why}");
    }
}

#[test]
fn every_example_of_every_help_runs() {
    // Kills fleets for a minute; `a_short_demo_holds` has it.
    let elsewhere = ["demo"];
    let mut verbs = verbs(&[]);
    assert!(verbs.len() >= 18, "{verbs:?}");
    verbs.extend(self::verbs(&["registry"]).iter().map(|verb| format!("registry {verb}")));
    assert!(verbs.len() >= 28, "{verbs:?}");
    for verb in verbs {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let text = help(&words);
        let examples: Vec<&str> =
            text.lines().map(str::trim).filter(|line| line.starts_with("wal ")).collect();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("Example"), "{verb}: examples come first, not: {first}");
        assert!(!examples.is_empty(), "{verb} shows no example");
        if elsewhere.contains(&verb.as_str()) {
            continue;
        }
        let home = tempfile::tempdir().unwrap();
        prepare(home.path(), &verb);
        for example in examples {
            let (ok, why) = shell(home.path(), example);
            assert!(ok, "{verb}: `{example}`: {why}");
            println!("{example}");
        }
    }
}

/// The README's commands, in their order, in one place.
#[test]
fn every_command_of_the_readme_runs() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("wal ")).collect();
    assert!(lines.len() >= 10, "{lines:?}");
    let home = tempfile::tempdir().unwrap();
    fixture(home.path());
    for line in &lines {
        let (ok, why) = shell(home.path(), line);
        assert!(ok, "`{line}`: {why}");
    }
    // Every verb but those that are no work of a day: printing help, and the demo, which has a test.
    let named = |verb: &String| lines.iter().any(|line| line.split(' ').nth(1) == Some(verb));
    let missing: Vec<String> = verbs(&[]).into_iter().filter(|verb| !named(verb)).collect();
    println!("not in the README: {missing:?}");
}
