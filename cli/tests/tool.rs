//! The tool as a user runs it: exit codes, output, bad input, and that reading never writes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use annals_wal::{Batch, Codec, Kind, Log, Options, Record};
use serde_json::Value;

use common::{code, contents, last_used, segment, stderr, stdout, text, wal};

/// A closed log of several 64 KiB segments.
fn closed_log(dir: &Path) -> PathBuf {
    let path = dir.join("log");
    let log = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    for n in 0..200u32 {
        log.append(format!("record {n} ").repeat(50)).unwrap();
    }
    log.close().unwrap();
    path
}

#[test]
fn a_clean_log_is_0_and_reading_it_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    let before = contents(&log);
    for verb in ["inspect", "verify", "cat"] {
        let output = wal(&[verb, text(&log)]);
        assert_eq!(code(&output), 0, "{verb}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{verb} off a terminal has nothing to say");
    }
    assert!(contents(&log) == before, "a reading verb wrote");
    assert_eq!(stdout(&wal(&["cat", text(&log)])).lines().count(), 200);
}

#[test]
fn a_living_log_is_0_and_named_live_and_reading_it_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(&path).unwrap();
    log.append("one").unwrap();
    let before = contents(&path);
    let output = wal(&["inspect", text(&path), "--format", "json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((code(&output), &report["state"]), (0, &Value::from("live")));
    assert_eq!(report["schema"], "wal.inspect/2");
    assert_eq!(code(&wal(&["verify", text(&path)])), 0);
    assert_eq!(stdout(&wal(&["cat", text(&path)])).lines().count(), 1);
    assert!(contents(&path) == before, "a reading verb wrote");
    let samples = dir.path().join("a.jsonl");
    std::fs::write(&samples, "{}\n").unwrap();
    let output = wal(&["import", text(&path), text(&samples)]);
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("process {}", std::process::id())));
}

#[test]
fn damage_has_its_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    // A copy: the control block says nothing about it.
    let copy = dir.path().join("copy");
    let copied = || {
        let _ = std::fs::remove_dir_all(&copy);
        std::fs::create_dir(&copy).unwrap();
        for (name, bytes) in contents(&log) {
            std::fs::write(copy.join(name), bytes).unwrap();
        }
    };
    let last = last_used(&log);
    copied();
    let bytes = std::fs::read(segment(&copy, last)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(segment(&copy, last), &bytes[..end - 100]).unwrap();
    for verb in ["inspect", "verify"] {
        assert_eq!(code(&wal(&[verb, text(&copy)])), 3, "{verb}: torn tail");
    }
    copied();
    let mut bytes = std::fs::read(segment(&copy, 1)).unwrap();
    bytes[30_000] ^= 1;
    std::fs::write(segment(&copy, 1), &bytes).unwrap();
    let output = wal(&["verify", text(&copy)]);
    assert_eq!(code(&output), 4);
    assert!(stdout(&output).contains("segment 1, bytes"), "{}", stdout(&output));
    let output = wal(&["cat", text(&copy)]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stdout(&output).lines().count() > 10, "what lies before the damage is shown");
    copied();
    let mut bytes = std::fs::read(segment(&copy, last)).unwrap();
    bytes[8] = 9;
    let crc = annals_wal::format::crc32(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(segment(&copy, last), &bytes).unwrap();
    assert_eq!(code(&wal(&["inspect", text(&copy)])), 5);
}

/// The in-place cut: the control block is trusted, so what it promised is missed.
#[test]
fn a_cut_in_place_is_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    let last = last_used(&log);
    let file = segment(&log, last);
    let bytes = std::fs::read(&file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let handle = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    handle.set_len(end as u64 - 100).unwrap();
    assert_eq!(code(&wal(&["inspect", text(&log)])), 4);
    assert_eq!(code(&wal(&["verify", text(&log)])), 4);
}

/// 200 single flips through the tool: never a crash, never "clean" where verify reads the byte.
#[test]
fn two_hundred_flips_are_never_missed() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    let whole = std::fs::read(segment(&log, 1)).unwrap();
    for n in 0..200usize {
        let at = n * whole.len() / 200 + n % 7;
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (n % 8);
        std::fs::write(segment(&log, 1), &bytes).unwrap();
        let output = wal(&["verify", text(&log), "--format", "json"]);
        assert_eq!(code(&output), 4, "byte {at}: {}", stdout(&output));
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let finding = &report["findings"][0];
        assert_eq!(finding["segment"], 1, "byte {at}");
        assert!(finding["from_byte"].is_u64(), "byte {at}");
        assert_eq!(finding["class"], "bit_rot", "byte {at}");
        let flip = &finding["flip"];
        assert_eq!((&flip["byte"], &flip["bit"]), (&at.into(), &(n % 8).into()), "byte {at}");
    }
}

#[test]
fn what_is_no_log_is_7_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "text").unwrap();
    for path in [&empty, &file, &dir.path().join("absent")] {
        for verb in ["inspect", "verify", "cat"] {
            let output = wal(&[verb, text(path)]);
            assert_eq!(code(&output), 7, "{verb} {}: {}", path.display(), stderr(&output));
            assert!(stderr(&output).contains("is not a log"), "{}", stderr(&output));
        }
    }
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    assert!(!dir.path().join("absent").exists());
}

#[test]
fn lsns_that_cannot_be_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    assert_eq!(code(&wal(&["cat", text(&log), "--from", "0"])), 2);
    assert_eq!(code(&wal(&["cat", text(&log), "--from", "9", "--to", "3"])), 2);
    let output = wal(&["cat", text(&log), "--from", "201"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("past the end"), "{}", stderr(&output));
    let output = wal(&["cat", text(&log), "--from", "20", "--to", "22"]);
    assert_eq!((code(&output), stdout(&output).lines().count()), (0, 3));
}

#[test]
fn imports_are_reported_line_by_line_and_refused_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let lines = dir.path().join("events.jsonl");
    std::fs::write(
        &lines,
        "{\"session_id\": \"s-1\", \"type\": \"note\", \"n\": 1e400}\nnot json\n\n{\"n\": [2]}\n",
    )
    .unwrap();
    let odd = dir.path().join("registry.json");
    std::fs::write(&odd, "{}").unwrap();
    let output = wal(&["import", text(&log), text(&lines), text(&odd)]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("events.jsonl:2: "), "{}", stderr(&output));
    assert!(stderr(&output).contains("registry.json"), "{}", stderr(&output));
    let output = wal(&["cat", text(&log), "--format", "json", "--kind", "imported"]);
    let printed = stdout(&output);
    let shown: Vec<&str> = printed.lines().collect();
    assert_eq!(shown.len(), 2);
    assert!(
        shown[0].contains("\"input\":{\"session_id\": \"s-1\", \"type\": \"note\", \"n\": 1e400}")
    );
    assert_eq!(stdout(&wal(&["cat", text(&log), "--session", "s-1"])).lines().count(), 1);
    let output = wal(&["import", text(&log), text(&lines)]);
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).contains("refused"), "{}", stdout(&output));
    assert_eq!(code(&wal(&["import", text(&log), text(&lines), "--again"])), 1);
    let printed = stdout(&wal(&["cat", text(&log), "--kind", "imported"]));
    assert_eq!(printed.lines().count(), 4);
    let strict = dir.path().join("strict");
    assert_eq!(code(&wal(&["import", text(&strict), text(&lines), "--strict"])), 1);
    assert_eq!(code(&wal(&["cat", text(&strict), "--kind", "imported"])), 0);
    assert_eq!(stdout(&wal(&["cat", text(&strict), "--kind", "imported"])), "");
}

#[test]
fn hostile_payloads_reach_no_terminal_unescaped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(&path).unwrap();
    log.append("\x1b]0;owned\x07 \u{202e} \r\n \u{9b}31m").unwrap();
    log.append(vec![0xFF, 0x1B, 0x00]).unwrap();
    log.close().unwrap();
    for format in ["text", "json"] {
        let printed = stdout(&wal(&["cat", text(&path), "--format", format]));
        assert_eq!(printed.lines().count(), 2);
        assert!(printed.chars().all(|c| c == '\n' || !c.is_ascii_control()), "{printed:?}");
    }
    let printed = stdout(&wal(&["cat", text(&path)]));
    assert!(!printed.contains('\u{9b}') && !printed.contains('\u{202e}'), "{printed:?}");
}

/// JSON may hold DEL, C1 and bidirectional controls as they are, and tabs between its tokens; the
/// line that `cat` makes of it may not (fuzz target `json`).
#[test]
fn json_output_holds_no_character_that_a_terminal_obeys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(&path).unwrap();
    let json = "{\"a\":\t\"\u{9b}31m \u{7f} \u{202e} \u{e0041}\"}";
    let records = [
        Record::new(json).codec(Codec::JSON),
        Record::new("text \u{9b}31m \u{2066}"),
        // A transaction on a key with a bidirectional control in its name.
        Record::new(*b"\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0\0a\xe2\x80\xae")
            .kind(Kind::new(0x0100).unwrap()),
    ];
    log.append_batch(records.into_iter().collect::<Batch>()).unwrap();
    log.set_hold("\u{9b}\u{202e}", annals_wal::Lsn::FIRST).unwrap();
    log.close().unwrap();
    for verb in ["cat", "inspect", "verify"] {
        let printed = stdout(&wal(&[verb, text(&path), "--format", "json"]));
        let obeyed =
            |c: &char| c.is_control() && *c != '\n' || "\u{202e}\u{2066}\u{e0041}".contains(*c);
        assert_eq!(printed.chars().find(obeyed), None, "{verb}: {printed:?}");
        let first: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
        if verb == "cat" {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(first["payload"], value, "escaping changes no value");
        } else {
            assert_eq!(first["holds"][0]["name"], "\u{9b}\u{202e}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Options::new().open(&path).unwrap();
    for _ in 0..3000 {
        drop(
            log.submit(annals_wal::Batch::from(annals_wal::Record::new(vec![b'x'; 200]))).unwrap(),
        );
    }
    log.close().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wal"))
        .args(["cat", text(&path)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}

#[test]
fn a_short_demo_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let args = ["demo", text(&path), "--agents", "4", "--seconds", "0.1", "--rounds", "3"];
    let output = wal(&[&args[..], &["--seed", "7"]].concat());
    println!("{}", stdout(&output));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("seed 7"));
    assert_eq!(code(&wal(&["verify", text(&path)])), 0);
}

/// Every line and step of the real files is there once, in order.
#[test]
fn the_real_files_come_through() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let mut files = Vec::new();
    collect(&shared, &mut files);
    if files.is_empty() {
        println!("skipped: {} is not there", shared.display());
        return;
    }
    files.sort();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let names: Vec<&str> = files.iter().map(|file| text(file)).collect();
    let output = wal(&[&["import", text(&log)][..], &names].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let printed = stdout(&wal(&["cat", text(&log), "--format", "json"]));
    let records: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (n, record) in (1u64..).zip(&records) {
        assert_eq!(record["lsn"], n);
    }
    let mut lines = 0;
    for file in files.iter().filter(|file| file.extension().unwrap() == "jsonl") {
        let due: Vec<Value> = std::fs::read_to_string(file)
            .unwrap()
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let from_file = |record: &&Value| {
            record["entry"]["source"]["file"] == text(file) && record["kind"] == "imported"
        };
        let found: Vec<_> =
            records.iter().filter(from_file).map(|r| r["entry"]["input"].clone()).collect();
        assert_eq!(found, due, "{}", file.display());
        lines += due.len();
    }
    let report = stdout(&wal(&["inspect", text(&log), "--format", "json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["state"], "clean");
    assert_eq!(report["records"], records.len() as u64);
    println!("{} files, {lines} lines, {} records", files.len(), records.len());
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => collect(&path, files),
            Some("jsonl" | "traj") => files.push(path),
            _ => {}
        }
    }
}

#[test]
fn the_readmes_example_is_the_compiled_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("../README.md")).unwrap();
    let example = std::fs::read_to_string(root.join("examples/ten_lines.rs")).unwrap();
    let shown = readme.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    let (_, example) = example.split_once("\n\n").unwrap();
    assert_eq!(shown, example);
}

/// A control block that cannot be read may claim a great deal: nothing is decided without it.
#[test]
fn a_control_block_that_cannot_be_read_is_not_taken_for_absent() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    std::fs::remove_file(log.join("CONTROL")).unwrap();
    std::fs::create_dir(log.join("CONTROL")).unwrap();
    let before = std::fs::read(segment(&log, 1)).unwrap();
    let samples = dir.path().join("a.jsonl");
    std::fs::write(&samples, "{}\n").unwrap();
    assert_eq!(code(&wal(&["inspect", text(&log)])), 1);
    let output = wal(&["import", text(&log), text(&samples)]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("CONTROL"), "{}", stderr(&output));
    assert!(std::fs::read(segment(&log, 1)).unwrap() == before);
}

#[test]
fn a_lost_last_segment_and_lost_segments_are_told_by_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    let count = last_used(&log);
    std::fs::remove_file(segment(&log, count)).unwrap();
    for verb in ["inspect", "verify", "cat"] {
        assert_eq!(code(&wal(&[verb, text(&log)])), 4, "{verb}");
    }
    for sequence in 1..count {
        std::fs::remove_file(segment(&log, sequence)).unwrap();
    }
    for verb in ["inspect", "verify", "cat"] {
        let output = wal(&[verb, text(&log)]);
        assert_eq!(code(&output), 4, "{verb}: {}", stderr(&output));
    }
}

#[test]
fn a_foreign_file_with_a_segments_name_is_neither_read_as_one_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let samples = dir.path().join("a.jsonl");
    std::fs::write(&samples, "{}\n").unwrap();
    let fresh = dir.path().join("fresh");
    std::fs::create_dir(&fresh).unwrap();
    let log = closed_log(dir.path());
    for (path, sequence) in [(&fresh, 1), (&log, 77)] {
        let file = segment(path, sequence);
        std::fs::write(&file, "precious\n").unwrap();
        assert_eq!(code(&wal(&["inspect", text(path)])), 4);
        assert_eq!(code(&wal(&["import", text(path), text(&samples)])), 4);
        assert_eq!(std::fs::read(&file).unwrap(), b"precious\n");
    }
}

#[test]
fn output_that_does_not_arrive_is_a_failure_unless_nobody_wanted_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = closed_log(dir.path());
    for verb in ["cat", "inspect", "verify"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
        let output = command.args([verb, text(&log)]).stdout(full).output().unwrap();
        assert_eq!(code(&output), 1, "{verb}");
    }
    // An import goes on when the reader of its output is gone.
    let target = dir.path().join("imported");
    let files: Vec<PathBuf> = (0..40).map(|n| dir.path().join(format!("{n}.jsonl"))).collect();
    for (n, file) in files.iter().enumerate() {
        std::fs::write(file, format!("{{\"n\": {n}}}\n")).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_wal"))
        .args(["import", text(&target)])
        .args(&files)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    let printed = stdout(&wal(&["cat", text(&target), "--kind", "imported"]));
    assert_eq!(printed.lines().count(), files.len());
}

#[test]
fn an_import_of_nothing_leaves_no_log_and_an_unknown_kind_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("none");
    std::fs::create_dir(dir.path().join("d.jsonl")).unwrap();
    let (absent, folder) = (dir.path().join("nope.jsonl"), dir.path().join("d.jsonl"));
    assert_eq!(code(&wal(&["import", text(&target), text(&absent), text(&folder)])), 1);
    assert!(!target.exists());
    let log = closed_log(dir.path());
    assert_eq!(code(&wal(&["cat", text(&log), "--kind", "tool-end"])), 2);
    assert_eq!(code(&wal(&["cat", text(&log), "--kind", "tool_end"])), 0);
    assert_eq!(code(&wal(&["cat", text(&log), "--session", ""])), 2);
    let output = wal(&["inspect", "no\u{1b}[31mpe"]);
    assert!(!stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
}

#[test]
fn export_writes_each_form_into_a_new_file_and_no_byte_into_the_log() {
    use annals_observer::{JsonText, Observer};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    {
        let log = Log::open(&path).unwrap();
        let observer = Observer::on(log.clone()).unwrap();
        let mut call = observer.session("s-1").unwrap().tool("search").start().unwrap();
        call.end_ok(JsonText::string("ok")).unwrap();
        drop(observer.session("s-2").unwrap().agent("planner").start().unwrap());
        drop((call, observer));
        log.close().unwrap();
    }
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let run = |args: &[&str]| {
        let wal = std::process::Command::new(env!("CARGO_BIN_EXE_wal"));
        let mut wal = wal;
        wal.arg("export").arg(&path).args(args).output().unwrap()
    };
    for format in ["jsonl", "otlp", "chrome-trace", "folded"] {
        let file = dir.path().join(format);
        let to = file.to_str().unwrap();
        let output = run(&["--format", format, "-o", to]);
        assert!(output.status.success(), "{format}: {output:?}");
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(written.contains("search") || format == "folded", "{format}: {written}");
        let again = run(&["--format", format, "-o", to]);
        assert_eq!(again.status.code(), Some(1), "{format} was written over");
        let piped = run(&["--format", format]);
        assert_eq!(String::from_utf8(piped.stdout).unwrap(), written);
    }
    let one = run(&["--format", "jsonl", "--session", "s-2"]);
    assert_eq!(String::from_utf8(one.stdout).unwrap().lines().count(), 1);
    let database = run(&["--format", "sqlite"]);
    assert_eq!(database.status.code(), Some(2), "a database needs a file");
    assert_eq!(files(), before);
}

/// A protocol store in SQLite is imported like any other file; a build without SQLite says so.
#[test]
fn a_sqlite_store_is_imported_or_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let observer = annals_observer::Observer::on(Log::open(&path).unwrap()).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut call = session.tool("search").start().unwrap();
    call.end_ok(annals_observer::JsonText::string("79")).unwrap();
    drop((call, session));
    observer.log().clone().close().unwrap();
    drop(observer);
    let store = dir.path().join("store.sqlite");
    let wal = || std::process::Command::new(env!("CARGO_BIN_EXE_wal"));
    let export =
        wal().arg("export").arg(&path).args(["--format", "sqlite", "-o"]).arg(&store).output();
    if !cfg!(feature = "sqlite") {
        std::fs::write(&store, "whatever").unwrap();
    } else {
        assert!(export.unwrap().status.success());
    }
    let to = dir.path().join("to");
    let output = wal().arg("import").arg(&to).arg(&store).output().unwrap();
    let said =
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    if cfg!(feature = "sqlite") {
        assert!(output.status.success(), "{said}");
        let entries = annals_observer::session_entries(&Log::open(&to).unwrap(), "s-1").unwrap();
        assert_eq!(entries.count(), 2, "{said}");
    } else {
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("without SQLite"), "{said}");
    }
}

#[test]
fn archive_hands_over_and_the_archive_is_read_and_never_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("log"), dir.path().join("to"));
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    for _ in 0..100 {
        log.append(vec![1; 2_000]).unwrap();
    }
    log.close().unwrap();
    let mut wal = std::process::Command::new(env!("CARGO_BIN_EXE_wal"));
    let output = wal.arg("archive").arg(&path).arg("--to").arg(&to).arg("--trim").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("segments") && said.contains("now begins at LSN"), "{said}");
    annals_observer::archive::verify::verify(&to).unwrap();
    assert_eq!(Log::open(&to).unwrap_err().kind(), annals_wal::ErrorKind::Archived);
    let absent = dir.path().join("absent");
    let mut wal = std::process::Command::new(env!("CARGO_BIN_EXE_wal"));
    let output = wal.arg("archive").arg(&absent).arg("--to").arg(&to).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "no log is made by a wrong name");
    assert!(!absent.exists());
}

/// A text over the observer's limit stands in records of its own: the export has it all the same.
#[test]
fn an_export_has_large_texts_and_an_import_keeps_them() {
    use annals_observer::{JsonText, Observer};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let observer = Observer::on(Log::open(&path).unwrap()).unwrap();
    let large = "0123456789abcdef".repeat(300 << 6);
    let mut call = observer.session("s-1").unwrap().tool("cat").start().unwrap();
    call.end_ok(JsonText::string(&large)).unwrap();
    observer.shutdown().unwrap();
    observer.log().clone().close().unwrap();
    for (format, contents, count) in [
        ("jsonl", false, 1),
        ("otlp", true, 1),
        ("otlp", false, 0),
        ("chrome-trace", false, 0),
        ("folded", false, 0),
    ] {
        let mut args = vec!["export", text(&path), "--format", format];
        args.extend(contents.then_some("--contents"));
        let output = wal(&args);
        assert_eq!(code(&output), 0, "{format}: {}", stderr(&output));
        assert_eq!(stdout(&output).matches(&large).count(), count, "{format}");
    }
    let lines = dir.path().join("run.ndjson");
    let output = wal(&["export", text(&path), "--format", "jsonl", "-o", text(&lines)]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let to = dir.path().join("to");
    let output = wal(&["import", text(&to), text(&lines)]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let output = wal(&["export", text(&to), "--format", "jsonl"]);
    assert!(stdout(&output).contains(&large), "kept");
}
