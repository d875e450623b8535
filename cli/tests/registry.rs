//! `wal registry` as a user runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail loudly"
)]

mod common;

use std::process::Output;

use serde_json::{Value, json};

use common::{code, contents, stderr, stdout};

/// The tool's verbs for registries.
fn wal(args: &[&str]) -> Output {
    common::wal(&[&["registry"], args].concat())
}

/// Runs, and must end well: what it printed.
fn ok(args: &[&str]) -> String {
    let output = wal(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    stdout(&output)
}

/// Runs, and must end with this code: what it said.
fn fails(expected: i32, args: &[&str]) -> String {
    let output = wal(args);
    assert_eq!(code(&output), expected, "{args:?}: {output:?}");
    stderr(&output)
}

/// The process that has the log open and shares it stays where it is.
#[test]
fn writing_verbs_join_a_log_that_processes_share() {
    use annals_registry::{Key, Registry};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = path.to_str().unwrap();
    let shared = annals_wal::Options::new().sharing(annals_wal::Sharing::Processes);
    let registry = Registry::on(shared.open(&path).unwrap()).unwrap();
    let (a, b) = (Key::new("a").unwrap(), Key::new("b").unwrap());
    registry.put_json(&a, &1).unwrap();
    assert!(ok(&["put", log, "b", "2"]).starts_with("revision "));
    assert_eq!(registry.get_json::<u64>(&b).unwrap(), Some(2));
    let at = registry.put_json(&b, &3).unwrap();
    assert!(ok(&["cas", log, "b", &at.to_string(), "4"]).starts_with("revision "));
    assert!(fails(1, &["cas", log, "b", &at.to_string(), "5"]).contains("it has revision"));
    assert_eq!(registry.get_json::<u64>(&b).unwrap(), Some(4));
    assert!(ok(&["delete", log, "a"]).starts_with("revision "));
    assert!(registry.get(&a).is_none());
    ok(&["compact", log]);
    registry.put_json(&a, &5).unwrap();
    // Nobody had to recover, and nobody closed it.
    assert_eq!(registry.log().generation(), annals_wal::Generation::FIRST);
    // One for a single process is locked, as ever.
    let alone = dir.path().join("alone");
    let _owner = annals_wal::Log::open(&alone).unwrap();
    assert!(fails(6, &["put", alone.to_str().unwrap(), "a", "1"]).contains("is open for writing"));
}

#[test]
fn put_get_cas_delete_list_history_watch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = path.to_str().unwrap();
    assert_eq!(ok(&["put", log, "a/b", r#"{"n":1.50}"#]), "revision 1\n");
    assert_eq!(ok(&["get", log, "a/b"]), "{\"n\":1.50}\n");
    let got: Value = serde_json::from_str(&ok(&["get", log, "a/b", "--format", "json"])).unwrap();
    let due = json!({"key": "a/b", "revision": 1, "value": {"n": 1.5}});
    let schema = json!({"schema": "wal.registry-entry/1"});
    let due: Vec<_> = due.as_object().unwrap().iter().chain(schema.as_object().unwrap()).collect();
    assert_eq!(got.as_object().unwrap().len(), due.len());
    assert!(due.iter().all(|(name, value)| got[name.as_str()] == **value), "{got}");
    assert_eq!(ok(&["cas", log, "a/b", "1", "2"]), "revision 2\n");
    assert!(fails(1, &["cas", log, "a/b", "1", "3"]).contains("it has revision 2"));
    assert!(fails(1, &["cas", log, "a/b", "absent", "3"]).contains("it has revision 2"));
    assert_eq!(ok(&["cas", log, "c", "absent", "\"x\""]), "revision 3\n");
    assert_eq!(ok(&["list", log]), "a/b\nc\n");
    assert_eq!(ok(&["list", log, "a"]), "a/b\n");
    assert_eq!(ok(&["list", log, "--as-of", "2"]), "a/b\n");
    assert_eq!(ok(&["delete", log, "a/b"]), "revision 4\n");
    assert!(fails(1, &["delete", log, "a/b"]).contains("no such key"));
    assert!(fails(1, &["get", log, "a/b"]).contains("no such key"));
    assert_eq!(ok(&["history", log, "a/b"]), "1 put a/b {\"n\":1.50}\n2 put a/b 2\n4 delete a/b\n");
    let watched = ok(&["watch", log, "--once", "--after", "2"]);
    assert_eq!(watched, "3 put c \"x\"\n4 delete a/b\n");
    assert_eq!(ok(&["export", log]), "{\"c\":\"x\"}\n");
}

#[test]
fn bad_input_is_a_sentence_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = path.to_str().unwrap();
    assert!(fails(1, &["put", log, "k", "no json"]).contains("no JSON"));
    assert!(!path.exists(), "nothing was made");
    for verb in [&["get", log, "k"][..], &["list", log], &["delete", log, "k"], &["compact", log]] {
        fails(7, verb);
        assert!(!path.exists(), "{verb:?}");
    }
    ok(&["put", log, "k", "1"]);
    let before = contents(&path);
    for key in ["", "/k", "a//b", "a\tb", &"x".repeat(1025)] {
        assert!(fails(2, &["put", log, key, "1"]).contains("not a key"), "{key:?}");
    }
    assert!(fails(2, &["cas", log, "k", "soon", "1"]).contains("neither"));
    assert!(fails(1, &["watch", log, "--once", "--after", "99"]).len() > 10);
    let bad = dir.path().join("bad.json");
    for text in ["{", "[1]", "{}", r#"{"task_id":"T","agents":[{"x":1}]}"#, r#"{"a":1,"a":2}"#] {
        std::fs::write(&bad, text).unwrap();
        let said = fails(1, &["import", log, bad.to_str().unwrap()]);
        assert!(said.contains("bad.json was not imported"), "{text}: {said}");
    }
    assert_eq!(contents(&path), before);
    assert_eq!(ok(&["list", log]), "k\n");
}

#[test]
fn reading_verbs_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = path.to_str().unwrap();
    ok(&["put", log, "k", "1"]);
    ok(&["compact", log]);
    ok(&["put", log, "k", "2"]);
    let before = contents(&path);
    ok(&["get", log, "k"]);
    ok(&["list", log]);
    ok(&["history", log, "k"]);
    ok(&["watch", log, "--once"]);
    ok(&["export", log]);
    assert_eq!(contents(&path), before);
}

const TASK: &str = r#"{
  "task_id": "T1", "cost": 1.50, "agents": [
    {"id": "a-1", "status": "completed", "parent": "orchestrator", "x": 1e2},
    {"id": "a-2", "status": "working", "parent": "a-9"},
    {"id": "a-3", "status": "working", "parent": "a-1"}],
  "agent_hierarchy": {"orchestrator": ["a-1", "a-7"]},
  "total_spawned": 4, "active_count": 1, "completed_count": 1}"#;

const GLOBAL: &str = r#"{"total_tasks": 2, "active_tasks": 1,
  "tasks": {"T1": {"status": "INITIALIZED"}}, "agents": {
    "a-1": {"task_id": "T1", "status": "working"}, "a-3": {"task_id": "T1", "status": "working"},
    "a-4": {"task_id": "T1", "status": "completed"}, "b-1": {"task_id": "T9", "status": "failed"}},
  "active_agents": 3}"#;

#[test]
fn registries_are_imported_compared_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = path.to_str().unwrap();
    let (task, global) = (dir.path().join("AGENT_REGISTRY.json"), dir.path().join("GLOBAL.json"));
    std::fs::write(&task, TASK).unwrap();
    std::fs::write(&global, GLOBAL).unwrap();
    let files = [task.to_str().unwrap(), global.to_str().unwrap()];
    let said = ok(&["import", log, files[0], files[1]]);
    let expected = [
        "AGENT_REGISTRY.json: 3 agents, 0 tasks under tasks/T1 at revision 1, 4 inconsistencies",
        "tasks/T1: active_count says 1, but 2 of the 3 agents listed are active",
        "tasks/T1: total_spawned says 4, but 3 agents are listed",
        "tasks/T1: a-7 is named as a child in agent_hierarchy and is not listed",
        "tasks/T1: a-9 is named as a parent and is not listed",
        "GLOBAL.json: 4 agents, 1 tasks under global at revision 2, 6 inconsistencies",
        "global: active_agents says 3, but 2 of the 4 agents listed are active",
        "global: total_tasks says 2, but 1 tasks is listed",
        "task T9: named in global/agents and not listed in global/tasks",
        "agent a-1: its task's registry says completed, the global one working",
        "agent a-2: listed in tasks/T1 and not in global",
        "agent a-4: listed in global and not in tasks/T1",
    ];
    for line in expected {
        assert!(said.contains(line), "{line}\n in\n{said}");
    }
    assert_eq!(said.lines().count(), expected.len(), "{said}");
    let listed = ok(&["list", log]);
    for agent in ["tasks/T1/agents/a-1", "tasks/T1/agents/a-2", "global/agents/b-1"] {
        assert!(listed.lines().any(|line| line == agent), "{listed}");
    }
    assert_eq!(ok(&["get", log, "tasks/T1/active_count"]), "1\n");
    // Out again: equal as JSON, numbers as they were spelled.
    let same = |exported: &str, text: &str| {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(exported), value(text));
    };
    let exported = ok(&["export", log, "tasks/T1"]);
    same(&exported, TASK);
    assert!(exported.contains("\"cost\":1.50") && exported.contains("\"x\": 1e2"), "{exported}");
    same(&ok(&["export", log, "global"]), GLOBAL);
    let all: Value = serde_json::from_str(&ok(&["export", log])).unwrap();
    assert_eq!(all.as_object().unwrap().len(), 2);

    // The same again changes nothing; another one is refused, or replaces it.
    assert!(ok(&["import", log, files[0]]).contains("was there already"));
    std::fs::write(&task, TASK.replace("\"active_count\": 1", "\"active_count\": 2")).unwrap();
    assert!(
        fails(1, &["import", log, files[0]]).contains("another document stands under tasks/T1")
    );
    assert_eq!(ok(&["get", log, "tasks/T1/active_count"]), "1\n");
    ok(&["import", log, files[0], "--replace"]);
    assert_eq!(ok(&["get", log, "tasks/T1/active_count"]), "2\n");
    assert!(fails(1, &["import", log, "none.json"]).contains("cannot be read"));
}

#[test]
fn compact_trims_what_two_snapshots_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = path.to_str().unwrap();
    ok(&["put", log, "k", "1"]);
    assert!(ok(&["compact", log]).contains("snapshot at revision 1"));
    assert!(ok(&["compact", log]).contains("newest there can be"));
    ok(&["put", log, "k", "2"]);
    assert!(ok(&["compact", log]).contains("hold at LSN 2"));
    assert_eq!(ok(&["get", log, "k"]), "2\n");
    // A compact writes a checkpoint record too, so revisions have gaps.
    assert!(ok(&["put", log, "k", "3"]).starts_with("revision "));
    assert_eq!(ok(&["get", log, "k"]), "3\n");
}

/// What an export of all cannot say as it is stored is said; a document that would be wrong is none.
#[test]
fn an_export_is_exact_or_says_what_is_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = path.to_str().unwrap();
    // Broken into lines, it is JSON all the same.
    ok(&["put", log, "a", "{\n \"n\": 1.50\n}"]);
    let output = wal(&["export", log]);
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        ("{\"a\":{  \"n\": 1.50 }}\n", "")
    );
    let got = ok(&["get", log, "a", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&got).unwrap()["value"], json!({"n": 1.5}));
    // No JSON at all.
    let registry = annals_registry::Registry::on(annals_wal::Log::open(&path).unwrap()).unwrap();
    let raw = annals_registry::Value::raw(*b"text");
    registry.put(&annals_registry::Key::new("b").unwrap(), raw).unwrap();
    let open = registry.log().clone();
    drop(registry);
    open.close().unwrap();
    let output = wal(&["export", log]);
    assert_eq!(stdout(&output), "{\"a\":{  \"n\": 1.50 },\"b\":\"text\"}\n");
    assert!(stderr(&output).contains("1 values are no JSON"), "{output:?}");
    assert!(stderr(&output).contains("the first is b"), "{output:?}");
    // Beside an imported document.
    let file = dir.path().join("T1.json");
    std::fs::write(&file, r#"{"task_id":"T1","agents":[{"id":"A7"}]}"#).unwrap();
    ok(&["import", log, file.to_str().unwrap()]);
    let output = wal(&["export", log]);
    assert_eq!(stdout(&output), "{\"task_id\":\"T1\",\"agents\":[{\"id\":\"A7\"}]}\n");
    assert!(stderr(&output).contains("2 keys are of no imported registry"), "{output:?}");
    ok(&["put", log, "tasks/T1/agents/A7/notes", "1"]);
    for args in [&["export", log][..], &["export", log, "tasks/T1"]] {
        let said = fails(1, args);
        assert!(said.contains("tasks/T1/agents/A7/notes"), "{said}");
    }
}
