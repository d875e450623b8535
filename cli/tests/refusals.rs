//! What a verb leaves behind when it refuses or fails: the log as it was, no lock file in a stranger's
//! directory, no half file under a name; and what the tool says of archives, links and trimmed logs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use annals_observer::{JsonText, Observer};
use annals_wal::{Log, Lsn, Options};
use serde_json::Value;

use common::{code, contents, last_used, segment, stderr, stdout, text, wal};

/// A log of several segments, closed: entries and, if asked for, keys.
fn made(path: &Path, keys: bool) {
    let log = Options::new().segment_bytes(64 << 10).open(path).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let registry = keys.then(|| annals_registry::Registry::on(log.clone()).unwrap());
    for n in 0..100u32 {
        let mut call = observer.session("s-1").unwrap().tool("search").start().unwrap();
        call.end_ok(JsonText::string(&"a text ".repeat(200))).unwrap();
        if let Some(registry) = &registry {
            let key = annals_registry::Key::new(format!("k/{n}")).unwrap();
            registry.put_json(&key, &"v".repeat(500)).unwrap();
        }
    }
    observer.shutdown().unwrap();
    drop((observer, registry));
    log.close().unwrap();
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn inspected(dir: &Path) -> Value {
    let output = wal(&["inspect", text(dir), "--format", "json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    contents(dir).into_keys().collect()
}

/// Flips a bit in a segment's body.
fn rot(dir: &Path) {
    let byte = fs::read(segment(dir, 1)).unwrap()[30_000];
    let file = OpenOptions::new().write(true).open(segment(dir, 1)).unwrap();
    file.write_all_at(&[byte ^ 4], 30_000).unwrap();
}

#[test]
fn a_refused_writing_verb_leaves_log_and_target_as_they_were() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (log, other, full, archive) = (path("log"), path("other"), path("full"), path("archive"));
    made(&log, false);
    made(&other, false);
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "a letter").unwrap();
    assert_eq!(code(&wal(&["archive", text(&other), "--to", text(&archive), "--copy"])), 0);
    let (inside, file) = (log.join("sub"), path("file"));
    fs::write(&file, "a letter").unwrap();
    let l = text(&log);
    let refused: &[&[&str]] = &[
        &["archive", l, "--to", text(&full)],
        &["archive", l, "--to", l],
        &["archive", l, "--to", text(&other)],
        &["archive", l, "--to", text(&archive)],
        &["archive", text(&other), "--to", text(&archive), "--name", "another"],
        &["archive", l, "--to", text(&file)],
        &["archive", l, "--to", text(&inside)],
        &["backup", l, "--to", text(&full)],
        &["backup", l, "--to", text(&inside)],
        &["salvage", l, "--to", text(&file)],
        &["salvage", l, "--to", text(&inside)],
        &["export", l, "--format", "jsonl", "-o", text(&inside)],
        &["bundle", l, "--to", text(&inside)],
        &["inspect", l, "--html", text(&inside)],
        &["inspect", l, "--svg", text(&inside)],
        &["timeline", l, "--html", text(&inside)],
        &["repair", l, "--plan", text(&inside)],
    ];
    let all = || [&log, &other, &archive, &full].map(|dir| contents(dir));
    let before = all();
    for verb in refused {
        let output = wal(verb);
        let said = stderr(&output);
        assert!([1, 2].contains(&code(&output)), "{verb:?}: {said}");
        assert!(!said.contains("listing the backup"), "{verb:?}: {said}");
        assert!(all() == before, "{verb:?} wrote: {:?}", all().map(|files| files.into_keys()));
    }
}

/// What fails after the log was opened ends it with a close: no unclean end, no generation, no segment.
#[test]
fn a_writing_verb_that_fails_closes_the_log() {
    let home = tempfile::tempdir().unwrap();
    let (whole, bad, log) =
        (home.path().join("whole"), home.path().join("bad"), home.path().join("log"));
    made(&whole, true);
    // Its first transactions are gone, and there is no snapshot: no registry is opened on it.
    copy(&whole, &bad);
    fs::remove_file(segment(&bad, 1)).unwrap();
    assert_eq!(code(&wal(&["salvage", text(&bad), "--to", text(&log)])), 0);
    Log::open(&log).unwrap().close().unwrap();
    let held = |report: &Value| (report["generation"].clone(), report["state"].clone());
    let (before, files) = (inspected(&log), names(&log));
    assert_eq!(before["state"], "clean");
    for verb in [
        &["registry", "put", text(&log), "a", "1"][..],
        &["registry", "compact", text(&log)],
        &["registry", "delete", text(&log), "a"],
    ] {
        let output = wal(verb);
        assert_eq!(code(&output), 1, "{verb:?}: {}", stderr(&output));
        assert_eq!(held(&inspected(&log)), held(&before), "{verb:?}");
        assert_eq!(names(&log), files, "{verb:?}");
    }
}

/// An export that is broken off leaves no file that looks whole.
#[test]
fn an_export_has_its_name_only_when_it_is_whole() {
    let home = tempfile::tempdir().unwrap();
    let (log, out) = (home.path().join("log"), home.path().join("out.jsonl"));
    made(&log, false);
    let export = || wal(&["export", text(&log), "--format", "jsonl", "-o", text(&out)]);
    assert_eq!(code(&export()), 0);
    let whole = fs::read(&out).unwrap();
    assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 200);
    // What is there stays.
    assert!(code(&export()) == 1 && fs::read(&out).unwrap() == whole);
    fs::remove_file(&out).unwrap();
    rot(&log);
    let output = export();
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("was not made"), "{}", stderr(&output));
    assert!(stderr(&output).contains("next: wal inspect"), "{}", stderr(&output));
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["log"]);
}

fn repaired(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

/// The directory itself is repaired, however it is named, and keeps its mode.
#[test]
fn a_repair_goes_through_links_and_dots() {
    for (cwd, name) in [("", "link"), ("log", "."), ("", "log/")] {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let log = home.join("log");
        made(&log, false);
        symlink("log", home.join("link")).unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o750)).unwrap();
        rot(&log);
        let plan = home.join("plan.json");
        for step in ["--plan", "--apply"] {
            let output = repaired(&home.join(cwd), &["repair", name, step, text(&plan)]);
            assert_eq!(code(&output), 0, "{name} {step}: {}", stderr(&output));
        }
        assert!(home.join("link").is_symlink(), "{name}");
        assert_eq!(code(&wal(&["verify", text(&log)])), 0, "{name}");
        assert_eq!(code(&wal(&["verify", text(&home.join("log.damaged"))])), 4, "{name}");
        let mode = fs::metadata(&log).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o750, "{name}");
        let mut left: Vec<_> =
            fs::read_dir(home).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["link", "log", "log.damaged", "plan.json"], "{name}");
    }
}

/// A rescued log whose first transactions are gone says that its registry went with them.
#[test]
fn a_salvage_that_loses_the_registry_says_so() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    for (keys, lost) in [(true, true), (false, false)] {
        let (log, bad) = (path("log"), path("bad"));
        let _ = fs::remove_dir_all(&log);
        made(&log, keys);
        copy(&log, &bad);
        fs::remove_file(segment(&bad, 1)).unwrap();
        let (plan, new) = (path(&format!("plan-{keys}")), path(&format!("new-{keys}")));
        let verbs: &[&[&str]] = &[
            &["salvage", text(&bad), "--dry-run"],
            &["salvage", text(&bad), "--to", text(&new)],
            &["repair", text(&bad), "--plan", text(&plan)],
            &["repair", text(&bad), "--apply", text(&plan)],
        ];
        for verb in verbs {
            let output = wal(verb);
            assert_eq!(code(&output), 0, "{verb:?}: {}", stderr(&output));
            let said = stdout(&output);
            assert_eq!(said.contains("the registry in it is lost"), lost, "{verb:?}: {said}");
        }
        let registry = wal(&["registry", "list", text(&new)]);
        assert!(!lost || code(&registry) != 0, "{registry:?}");
    }
    // Nothing is lost, nothing is said.
    let log = path("whole");
    made(&log, true);
    assert!(!stdout(&wal(&["salvage", text(&log), "--dry-run"])).contains("registry"));
}

/// A sound archive is called one, with what is true of it.
#[test]
fn an_archive_and_a_trimmed_log_are_told_as_they_are() {
    let home = tempfile::tempdir().unwrap();
    let (log, archive) = (home.path().join("log"), home.path().join("archive"));
    made(&log, false);
    let output = wal(&["archive", text(&log), "--to", text(&archive), "--trim", "--copy"]);
    assert_eq!(code(&output), 0, "{output:?}");
    // The second hand-over brings segments that tell of the trim.
    let opened = Options::new().open(&log).unwrap();
    let observer = Observer::on(opened.clone()).unwrap();
    for _ in 0..60 {
        let mut call = observer.session("s-1").unwrap().tool("search").start().unwrap();
        call.end_ok(JsonText::string(&"a text ".repeat(200))).unwrap();
    }
    observer.shutdown().unwrap();
    drop(observer);
    opened.close().unwrap();
    let output = wal(&["archive", text(&log), "--to", text(&archive), "--copy"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let printed = stdout(&wal(&["inspect", text(&archive)]));
    let report = inspected(&archive);
    let last = report["last_lsn"].as_u64().unwrap();
    let count = stdout(&wal(&["cat", text(&archive)])).lines().count() as u64;
    assert_eq!((&report["head_lsn"], last), (&Value::from(1), count), "{report}");
    assert_eq!(report["proven_lsn"], last, "{report}");
    assert_eq!(report["holds"].as_array().unwrap().len(), 0, "{report}");
    let line = format!("LSNs 1 to {last}, proven durable up to {last}, {last} records");
    assert!(printed.contains(&line), "{printed}");
    assert!(printed.contains("an archive: it is read") && !printed.contains("row"), "{printed}");
    assert!(!printed.contains("active"), "{printed}");
    // What the log let go of is just what is kept there: by whoever rescues it, too.
    let printed = stdout(&wal(&["salvage", text(&archive), "--dry-run"]));
    assert!(printed.contains(&format!("LSNs 1 to {last} under their own numbers")), "{printed}");
    let both = stdout(&wal(&["diff", text(&archive), text(&archive)]));
    assert!(both.contains(&format!("{last} records are the same in both")), "{both}");
    // Of a trimmed log, how many are kept, and how many are only still there.
    let copied = home.path().join("trimmed");
    made(&copied, false);
    let opened = Log::open(&copied).unwrap();
    let head = opened.trim(Lsn::new(150).unwrap()).unwrap().get();
    opened.close().unwrap();
    let first = inspected(&copied)["segments"][0]["first_lsn"].as_u64().unwrap();
    assert!(first < head, "{first}");
    let kept = format!("{} records and {} below the head", 200 - head + 1, head - first);
    for verb in ["inspect", "verify"] {
        let printed = stdout(&wal(&[verb, text(&copied)]));
        assert!(printed.contains(&kept), "{verb}: {printed}");
    }
}

/// What stands in a file's place and is none is damage by every verb, and not a failure of some.
#[test]
fn what_is_no_file_is_damage_by_every_verb() {
    let home = tempfile::tempdir().unwrap();
    let (log, bad, aside) =
        (home.path().join("log"), home.path().join("bad"), home.path().join("aside"));
    made(&log, false);
    let b = text(&bad);
    let verbs: &[&[&str]] = &[
        &["inspect", b],
        &["verify", b],
        &["cat", b],
        &["tail", b],
        &["stats", b],
        &["timeline", b],
        &["timeline", b, "s-1"],
        &["export", b, "--format", "jsonl"],
        &["registry", "list", b],
        &["registry", "watch", b, "--once"],
    ];
    type Put<'a> = &'a dyn Fn(&PathBuf);
    let harms: [(&str, Put<'_>); 2] = [
        ("link", &|at| symlink(&aside, at).unwrap()),
        ("directory", &|at| fs::create_dir(at).unwrap()),
    ];
    for (odd, put) in harms {
        for n in [1, last_used(&log)] {
            copy(&log, &bad);
            let at = segment(&bad, n);
            fs::rename(&at, &aside).unwrap();
            put(&at);
            for verb in verbs {
                let output = wal(verb);
                let said = stderr(&output);
                assert_eq!(code(&output), 4, "{odd} in place of {n}: {verb:?}: {said}");
            }
        }
    }
    copy(&log, &bad);
    fs::write(bad.join("ARCHIVE"), b"").unwrap();
    for verb in verbs {
        let output = wal(verb);
        assert_eq!(code(&output), 4, "an empty ARCHIVE: {verb:?}: {}", stderr(&output));
    }
}

/// Small things that a newcomer met.
#[test]
fn what_cannot_be_done_is_said_in_the_callers_words() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (log, page, nosuch) = (path("a log"), path("page.html"), path("no such"));
    made(&log, true);
    let observer = Observer::on(Log::open(&log).unwrap()).unwrap();
    drop(observer.session("s-2").unwrap().tool("search").start().unwrap());
    observer.shutdown().unwrap();
    observer.log().clone().close().unwrap();
    drop(observer);
    let l = text(&log);
    let output = wal(&["timeline", l, "--html", text(&page)]);
    assert_eq!((code(&output), page.exists()), (2, false), "{output:?}");
    assert!(stderr(&output).contains("was not written"), "{output:?}");
    let output = wal(&["man", "--to", text(&nosuch)]);
    assert!(code(&output) == 1 && stderr(&output).contains("no such/wal.1"), "{output:?}");
    let output = wal(&["tail", l, "--since", "2026-11-22"]);
    assert!(stderr(&output).contains("2026-11-22T00:00:00Z"), "{output:?}");
    assert_eq!(code(&wal(&["registry", "compact", l])), 0);
    let output = wal(&["cat", l, "--kind", "registry-checkpoint"]);
    assert!(stdout(&output).contains("a snapshot of the registry is whole"), "{output:?}");
    let json = path("AGENT_REGISTRY.json");
    fs::write(&json, "{}").unwrap();
    let output = wal(&["import", l, text(&json)]);
    assert!(stderr(&output).contains("wal registry import"), "{output:?}");
    let lines = path("a.jsonl");
    fs::write(&lines, "{\"session_id\":\"s-1\"}\n").unwrap();
    let output = wal(&["import", l, text(&lines)]);
    let said = stdout(&output);
    assert!(said.contains("1 file imported: "), "{said}");
    assert!(said.contains(&format!("next: wal inspect '{l}'")), "{said}");
    // Nothing is sealed in a log of one segment: why nothing was handed over is said.
    let (small, archive) = (path("small"), path("archive"));
    assert_eq!(code(&wal(&["import", text(&small), text(&lines)])), 0);
    let output = wal(&["archive", text(&small), "--to", text(&archive)]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("a segment is sealed when it is full"), "{output:?}");
    // In use: no command is named that is refused in turn.
    let _open = Log::open(&small).unwrap();
    let output = wal(&["salvage", text(&small), "--dry-run"]);
    assert!(code(&output) == 6 && !stderr(&output).contains("wal backup"), "{output:?}");
}
