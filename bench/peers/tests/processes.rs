//! `processes_4` as it is run: the program, its child, and the processes of that one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::process::Command;

use serde_json::Value;

fn rows(workload: &str, engines: &str) -> Vec<Value> {
    let home = tempfile::tempdir().unwrap();
    let json = home.path().join("rows.json");
    let mut program = Command::new(env!("CARGO_BIN_EXE_annals-peers"));
    program.args(["--workloads", workload, "--engines", engines, "--no-trace"]);
    program.args(["--rounds", "1", "--seconds", "0.2", "--json"]).arg(&json);
    let output = program.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

#[test]
fn four_processes_are_told_apart_and_nothing_is_lost() {
    let rows = rows("processes_4", "annals-registry,sqlite-registry,json-file,lmdb-registry");
    assert_eq!(rows.len(), 3, "LMDB has no such workload here");
    for row in &rows {
        assert_eq!((&row["writers"], &row["error"]), (&4.into(), &Value::Null), "{row}");
        let each: Vec<f64> =
            row["each_ops_per_s"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(each.len() == 4 && each.iter().all(|rate| *rate > 0.0), "{row}");
        let rate = row["ops_per_s"].as_f64().unwrap();
        assert!((each.iter().sum::<f64>() / rate - 1.0).abs() < 1e-9, "{row}");
        let slowest = each.iter().copied().fold(f64::INFINITY, f64::min) * 4.0 / rate;
        assert!((slowest - row["slowest_over_mean"].as_f64().unwrap()).abs() < 1e-9, "{row}");
        assert!(row["records"].as_u64().unwrap() > 0, "the check found no update: {row}");
    }
}

#[test]
fn a_log_of_several_processes_runs_beside_one_of_one() {
    let rows = rows("shared_1", "annals,annals-shared,jsonl");
    let engines: Vec<&str> = rows.iter().map(|row| row["engine"].as_str().unwrap()).collect();
    assert_eq!(engines, ["annals", "annals-shared"]);
    assert!(rows.iter().all(|row| row["error"].is_null()), "{rows:?}");
}
