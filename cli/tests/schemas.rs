//! Every JSON output against its committed schema; a schema that takes anything is none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use annals_observer::{JsonText, Observer};
use annals_wal::{Codec, Options, Record};
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The schema's own `schema` member is what the output says, and taking away any member that it asks
/// for, or giving it another type, makes it refuse.
fn check(name: &str, value: &Value) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let schema = fs::read_to_string(here.join(format!("{name}.schema.json"))).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:?}");
    let said = value["schema"].as_str().unwrap();
    assert!(said.starts_with("wal.") && said.split('/').count() == 2, "{name}: {said}");
    for member in schema["required"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        let mut without = value.clone();
        without.as_object_mut().unwrap().remove(member).unwrap();
        assert!(!validator.is_valid(&without), "{name} without {member}");
        let mut other = value.clone();
        other[member] = serde_json::json!([["nobody means this"]]);
        assert!(!validator.is_valid(&other), "{name} with an odd {member}");
    }
}

#[test]
fn every_json_output_is_what_its_schema_says() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (log, damaged) = (path("log"), path("damaged"));
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    let observer = Observer::on(made.clone()).unwrap();
    for n in 0..40 {
        let mut call = observer.session("s-1").unwrap().tool("search").by_agent("planner");
        call = call.input(JsonText::string(&format!("query {n} ").repeat(300)));
        let mut call = call.start().unwrap();
        call.tokens(3, 4);
        call.end_ok(JsonText::string("ok")).unwrap();
    }
    observer.shutdown().unwrap();
    drop(observer);
    for record in [
        Record::new("text"),
        Record::new(vec![0xFF, 0]),
        Record::new("{\"a\":1}").codec(Codec::JSON),
        Record::new("none").kind(annals_observer::EntryKind::Error.record_kind()),
    ] {
        made.append_batch(annals_wal::Batch::from(record)).unwrap();
    }
    made.close().unwrap();
    stdout(&["registry", "put", text(&log), "a/b", "{\"n\":1}"]);
    stdout(&["registry", "delete", text(&log), "a/b"]);
    stdout(&["registry", "put", text(&log), "a/c", "[1,\n \"two\"]"]);
    fs::create_dir(&damaged).unwrap();
    for entry in fs::read_dir(&log).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), damaged.join(entry.file_name())).unwrap();
    }
    for at in [9000, 30_000] {
        let file =
            OpenOptions::new().write(true).open(damaged.join("00000000000000000001.wal")).unwrap();
        file.write_all_at(&[9; 700], at).unwrap();
    }
    let json = |args: &[&str]| -> Value {
        serde_json::from_str(&stdout(&[args, &["--format", "json"]].concat())).unwrap()
    };
    for dir in [&log, &damaged] {
        let dir = text(dir);
        check("inspect", &json(&["inspect", dir]));
        check("inspect", &json(&["verify", dir]));
        check("stats", &json(&["stats", dir]));
        check("salvage", &json(&["salvage", dir, "--dry-run"]));
        check("diff", &json(&["diff", text(&log), dir]));
        let read = |name: &str| -> Value {
            serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap()
        };
        let _ = (fs::remove_file(path("plan")), fs::remove_file(path("bundle")));
        stdout(&["repair", dir, "--plan", text(&path("plan"))]);
        check("repair-plan", &read("plan"));
        stdout(&["bundle", dir, "--to", text(&path("bundle"))]);
        let bundle = read("bundle");
        check("bundle", &bundle);
        check("inspect", &bundle["diagnosis"]);
    }
    check("salvage", &json(&["salvage", text(&damaged), "--to", text(&path("new"))]));
    check("diff", &json(&["diff", text(&damaged), text(&path("new"))]));
    let mut shapes = BTreeSet::new();
    for verb in ["cat", "tail"] {
        for line in stdout(&[verb, text(&log), "--format", "json"]).lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            check("record", &value);
            let names = ["entry", "changes", "payload", "payload_hex", "undecodable"];
            shapes.extend(names.into_iter().filter(|name| value.get(name).is_some()));
        }
    }
    assert_eq!(shapes.len(), 5, "{shapes:?}");
    let entry = json(&["registry", "get", text(&log), "a/c"]);
    check("registry-entry", &entry);
    let said = (&entry["key"], &entry["value"]);
    assert_eq!(said, (&Value::from("a/c"), &serde_json::json!([1, "two"])));
    // None is committed that nothing prints.
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    assert_eq!(fs::read_dir(here).unwrap().count(), 8);
}

/// A copy that was broken off, and an archive to which nothing was handed over yet: named, by text,
/// JSON and exit code, and told apart.
#[test]
fn unfinished_copies_and_new_archives_have_their_names() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (log, half, archive) = (path("log"), path("half"), path("archive"));
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    made.append("one").unwrap();
    made.backup(&half).unwrap();
    made.close().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(both).unwrap())
    };
    let mark = "unfinished: a backup was broken off here: remove this directory\n";
    {
        fs::write(half.join("ARCHIVE"), mark).unwrap();
        for verb in ["inspect", "verify"] {
            let (code, said) = run(&[verb, text(&half)]);
            assert!(code == 4 && said.contains("UNFINISHED"), "{verb}: {code} {said}");
            assert!(said.contains("was broken off here") && said.contains("rm -r"), "{said}");
            assert!(!said.contains("clean"), "{said}");
        }
        let (code, said) = run(&["inspect", text(&half), "--format", "json"]);
        let value: Value = serde_json::from_str(&said).unwrap();
        check("inspect", &value);
        assert_eq!((code, &value["state"]), (4, &Value::from("unfinished")));
        for verb in ["cat", "tail", "stats", "timeline"] {
            let (code, said) = run(&[verb, text(&half)]);
            assert!(code != 0 && said.contains("unfinished"), "{verb}: {code} {said}");
            assert!(said.contains("remove this directory"), "{verb}: {said}");
        }
    }
    // Empty, it may be the manifest of an archive: nothing is to be removed on its word.
    fs::write(half.join("ARCHIVE"), "").unwrap();
    for verb in ["inspect", "verify"] {
        let (code, said) = run(&[verb, text(&half)]);
        assert!(code == 4 && said.contains("CORRUPT"), "{verb}: {code} {said}");
        assert!(said.contains("lost its bytes") && !said.contains("rm -r"), "{said}");
        let next = format!("wal salvage {0} --to {0}.salvaged --dry-run", text(&half));
        assert!(said.contains(&next), "{said}");
    }
    let to = format!("{}.salvaged", text(&half));
    assert_eq!(run(&["salvage", text(&half), "--to", &to, "--dry-run"]).0, 0);
    let (code, said) = run(&["cat", text(&half)]);
    assert!(code != 0 && said.contains("--dry-run"), "{code} {said}");
    assert_eq!(run(&["archive", text(&log), "--to", text(&archive)]).0, 0);
    for verb in ["inspect", "verify"] {
        let (code, said) = run(&[verb, text(&archive)]);
        assert_eq!(code, 0, "{verb}: {said}");
        assert!(said.contains("an archive that holds no segment yet"), "{said}");
        check(
            "inspect",
            &serde_json::from_str(&run(&[verb, text(&archive), "--format", "json"]).1).unwrap(),
        );
    }
    // One whose segments are gone is another thing.
    let big = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    for _ in 0..100 {
        big.append(vec![7; 3000]).unwrap();
    }
    big.close().unwrap();
    assert_eq!(run(&["archive", text(&log), "--to", text(&archive)]).0, 0);
    assert_eq!(run(&["verify", text(&archive)]).0, 0);
    for entry in fs::read_dir(&archive).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().ends_with(".wal") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let (code, said) = run(&["inspect", text(&archive)]);
    assert!(code == 4 && said.contains("none is there"), "{code} {said}");
}
