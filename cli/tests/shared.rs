//! Verbs that write to a log which several processes share: they find that out and join; one that was
//! made for one process stays so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use annals_registry::{Key, Registry, Value};
use annals_wal::{Log, Options, Sharing};
use serde_json::Value as Json;

use common::{code, contents, stderr, stdout, text, wal};

fn ok(args: &[&str]) -> String {
    let output = wal(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    stdout(&output)
}

fn shared() -> Options {
    Options::new().segment_bytes(64 << 10).sharing(Sharing::Processes)
}

fn inspected(log: &Path) -> Json {
    serde_json::from_str(&ok(&["inspect", text(log), "--format", "json"])).unwrap()
}

struct Living {
    _dir: tempfile::TempDir,
    path: PathBuf,
    log: Log,
    /// Of the tests of registries.
    registry: Option<Registry>,
}

/// A member in this process, while the tool is one in others.
fn living() -> Living {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = shared().open(&path).unwrap();
    Living { _dir: dir, path, log, registry: None }
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

impl Living {
    fn registry(&self) -> &Registry {
        self.registry.as_ref().unwrap()
    }

    /// What this process knows of a key, once it has read on.
    fn get(&self, name: &str) -> Option<String> {
        self.log.refresh().unwrap();
        let entry = self.registry().get(&key(name))?;
        Some(String::from_utf8(entry.value.bytes().to_vec()).unwrap())
    }

    fn put(&self, name: &str, json: &str) {
        let value = Value::new(json.as_bytes(), annals_wal::Codec::JSON);
        self.registry().put(&key(name), value).unwrap();
    }

    fn end(self) {
        drop(self.registry);
        self.log.close().unwrap();
        assert_eq!(code(&wal(&["verify", text(&self.path)])), 0);
        assert_eq!(inspected(&self.path)["state"], "clean");
    }
}

#[test]
fn registry_verbs_join_a_living_member() {
    let mut living = living();
    living.registry = Some(Registry::on(living.log.clone()).unwrap());
    let log = text(&living.path);
    living.put("mine", "1");
    assert!(ok(&["registry", "put", log, "theirs", "2"]).starts_with("revision "));
    assert_eq!(living.get("theirs").unwrap(), "2");
    // Both ways: the tool sees what this process did, and the other way round.
    living.put("theirs", "3");
    assert!(
        stderr(&wal(&["registry", "cas", log, "theirs", "absent", "4"])).contains("it has rev")
    );
    let revision = living.registry().get(&key("theirs")).unwrap().revision.to_string();
    ok(&["registry", "cas", log, "theirs", &revision, "4"]);
    assert_eq!(living.get("theirs").unwrap(), "4");
    ok(&["registry", "delete", log, "mine"]);
    assert_eq!(living.get("mine"), None);
    let file = living.path.with_file_name("AGENT_REGISTRY.json");
    std::fs::write(&file, r#"{"task_id":"T1","agents":[{"id":"A7"}],"active_count":0}"#).unwrap();
    ok(&["registry", "import", log, text(&file)]);
    assert!(living.get("tasks/T1/agents/A7").is_some());
    assert!(ok(&["registry", "compact", log]).contains("snapshot at revision"));
    living.put("after", "5");
    assert_eq!(ok(&["registry", "get", log, "after"]), "5\n");
    living.end();
}

#[test]
fn log_verbs_join_a_living_member() {
    let living = living();
    let log = text(&living.path);
    let beside = |name: &str| living.path.with_file_name(name);
    for _ in 0..200 {
        living.log.append(vec![7; 1000]).unwrap();
    }
    let lines = beside("a.jsonl");
    std::fs::write(&lines, "{\"session_id\":\"s\",\"type\":\"note\",\"n\":1}\n".repeat(20))
        .unwrap();
    assert!(ok(&["import", log, text(&lines)]).contains("imported 20 lines"));
    let (copy, archive) = (beside("copy"), beside("archive"));
    ok(&["backup", log, "--to", text(&copy)]);
    assert_eq!(inspected(&copy)["shared"], true);
    assert!(ok(&["archive", log, "--to", text(&archive)]).contains("handed over"));
    // The archive's hold, which another process made, is known here before it trims.
    living.log.refresh().unwrap();
    assert_eq!(living.log.holds().len(), 1);
    ok(&["trim", log, "--before", "100"]);
    living.log.refresh().unwrap();
    assert!(living.log.head_lsn().get() > 1);
    living.log.append("still here").unwrap();
    assert_eq!(ok(&["tail", log, "-n", "1"]).lines().count(), 1);
    living.end();
}

#[test]
fn tools_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = text(&path);
    // Nobody made the log before: whoever comes first does.
    let output: Vec<Output> = std::thread::scope(|scope| {
        let put = |tool: usize| {
            let put = move |n: usize| {
                let key = format!("k/{tool}/{n}");
                let put = || wal(&["registry", "put", log, &key, "1", "--shared"]);
                // On a slow disk forty recoveries in a row outlast a tool's patience: it says that
                // nothing was done, and the call may be made again.
                (0..20).map(|_| put()).find(|output| code(output) != 6).unwrap_or_else(put)
            };
            (0..10).map(put).collect::<Vec<_>>()
        };
        let tools: Vec<_> = (0..4).map(|tool| scope.spawn(move || put(tool))).collect();
        tools.into_iter().flat_map(|tool| tool.join().unwrap()).collect()
    });
    for output in &output {
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(ok(&["registry", "list", log]).lines().count(), 40);
    assert_eq!(code(&wal(&["verify", log])), 0);
}

#[test]
fn whether_a_log_is_shared_is_said_when_it_is_made_and_by_inspect() {
    let dir = tempfile::tempdir().unwrap();
    let (one, many) = (dir.path().join("one"), dir.path().join("many"));
    ok(&["registry", "put", text(&one), "k", "1"]);
    ok(&["registry", "put", text(&many), "k", "1", "--shared"]);
    assert_eq!(
        (&inspected(&one)["shared"], &inspected(&many)["shared"]),
        (&false.into(), &true.into())
    );
    assert!(!ok(&["inspect", text(&one)]).contains("shared"));
    assert!(ok(&["inspect", text(&many)]).contains(", shared by processes"));
    // As it was made, without the option and with it.
    ok(&["registry", "put", text(&many), "k", "2"]);
    ok(&["registry", "put", text(&many), "k", "3", "--shared"]);
    assert_eq!(inspected(&many)["shared"], true);
    // Not made otherwise by a verb.
    let before = contents(&one);
    let lines = dir.path().join("a.jsonl");
    std::fs::write(&lines, "{\"session_id\":\"s\",\"type\":\"note\"}\n").unwrap();
    for verb in [
        &["registry", "put", text(&one), "k", "2", "--shared"][..],
        &["import", text(&one), text(&lines), "--shared"],
    ] {
        let output = wal(verb);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(stderr(&output).contains("leave --shared away"), "{output:?}");
    }
    assert!(contents(&one) == before, "a refused verb wrote");
    let many = dir.path().join("imported");
    ok(&["import", text(&many), text(&lines), "--shared"]);
    assert_eq!(inspected(&many)["shared"], true);
}

#[test]
fn an_exclusive_owner_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(&path).unwrap();
    log.append("mine").unwrap();
    let path = text(&path);
    for verb in [&["registry", "put", path, "k", "1"][..], &["trim", path, "--before", "1"]] {
        let output = wal(verb);
        assert_eq!(code(&output), 6, "{output:?}");
        let holder = format!("process {}", std::process::id());
        assert!(stderr(&output).contains(&holder), "{output:?}");
    }
}
