//! Archives by the tool: whole ones are clean, and whatever of one is missing, cut, damaged or not in its
//! manifest is found, by `verify` and by every verb that reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use annals_wal::{Options, Record};

use common::{code, segment, stderr, stdout, text, wal};

/// A log, and an archive of the segments that are sealed.
fn made(home: &Path) -> (PathBuf, PathBuf, u64) {
    let (log, archive) = (home.join("log"), home.join("archive"));
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    while made.stats().rotations < 4 {
        made.append(Record::new("a text ".repeat(300))).unwrap();
    }
    made.close().unwrap();
    let output = wal(&["archive", text(&log), "--to", text(&archive), "--copy"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let held = fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path());
    let held = held.filter(|path| path.extension().is_some_and(|e| e == "wal")).count() as u64;
    assert!(held >= 3, "{held} segments");
    (log, archive, held)
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Exit codes of `verify`, `inspect` and `cat`, and what `verify` says.
fn judged(dir: &Path) -> ([i32; 3], String) {
    let verified = wal(&["verify", text(dir)]);
    let codes =
        [code(&verified), code(&wal(&["inspect", text(dir)])), code(&wal(&["cat", text(dir)]))];
    (codes, stdout(&verified) + &stderr(&verified))
}

#[test]
fn what_an_archive_has_lost_is_found() {
    let home = tempfile::tempdir().unwrap();
    let (_, archive, held) = made(home.path());
    let bad = home.path().join("bad");
    assert_eq!(judged(&archive).0, [0; 3]);
    for n in 1..=held {
        let file = |dir: &Path| OpenOptions::new().write(true).open(segment(dir, n)).unwrap();
        let name = format!("{n:020}.wal");
        copy(&archive, &bad);
        fs::remove_file(segment(&bad, n)).unwrap();
        let (codes, said) = judged(&bad);
        assert_eq!(codes, [4; 3], "without {n}: {said}");
        assert!(said.contains("gap: segment") && said.contains(&name), "without {n}: {said}");
        copy(&archive, &bad);
        file(&bad).set_len(40_000).unwrap();
        let (codes, said) = judged(&bad);
        assert_eq!(codes, [4; 3], "a cut {n}: {said}");
        copy(&archive, &bad);
        file(&bad).write_all_at(&[0xEE], 20_001).unwrap();
        let (codes, said) = judged(&bad);
        // Only who reads all of it meets that, if it is not the last one.
        assert_eq!((codes[0], codes[2]), (4, 4), "a byte of {n}: {said}");
        assert!(said.contains("bit rot") && said.contains(&format!("segment {n}")), "{said}");
        // Zeros where no frame stands are nobody's payload; the manifest knows them all the same.
        copy(&archive, &bad);
        file(&bad).write_all_at(&[1], (64 << 10) - 1).unwrap();
        assert_eq!(judged(&bad).0[0], 4, "the last byte of {n}");
        copy(&archive, &bad);
        file(&bad).write_all_at(&vec![0; 44_000], 20_000).unwrap();
        let (codes, said) = judged(&bad);
        assert_eq!((codes[0], codes[2]), (4, 4), "zeros in {n}: {said}");
    }
}

#[test]
fn a_manifest_that_is_none_and_a_file_that_is_not_listed_are_named() {
    let home = tempfile::tempdir().unwrap();
    let (log, archive, held) = made(home.path());
    let bad = home.path().join("bad");
    copy(&archive, &bad);
    fs::write(bad.join("ARCHIVE"), "{\"version\": 1, \"log_id\": ").unwrap();
    let (codes, said) = judged(&bad);
    assert_eq!(codes, [4; 3], "{said}");
    assert!(said.contains("is no manifest"), "{said}");
    // What a hand-over leaves that was broken off: not in the manifest, and no loss.
    copy(&archive, &bad);
    let whole = fs::read(segment(&log, held + 1)).unwrap();
    fs::write(segment(&bad, held + 1), &whole[..30_000]).unwrap();
    let (codes, said) = judged(&bad);
    assert_eq!(codes, [4; 3], "{said}");
    assert!(said.contains("the manifest does not list this file"), "{said}");
}

/// The newest changes stood in a segment that is gone: an answer without them says so.
#[test]
fn a_registry_that_lost_its_end_says_so() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    let registry = annals_registry::Registry::on(made.clone()).unwrap();
    let key = |n: u64| annals_registry::Key::new(format!("k/{n}")).unwrap();
    let mut last = 0;
    while made.stats().rotations < 2 {
        last += 1;
        registry.put_json(&key(last), &"v".repeat(1000)).unwrap();
    }
    drop(registry);
    made.close().unwrap();
    let (log, last) = (text(&log).to_owned(), format!("k/{last}"));
    let verbs: [&[&str]; 6] = [
        &["registry", "get", &log, &last],
        &["registry", "get", &log, "k/1"],
        &["registry", "list", &log],
        &["registry", "history", &log, &last],
        &["registry", "export", &log],
        &["registry", "watch", &log, "--once"],
    ];
    for verb in verbs {
        assert_eq!(code(&wal(verb)), 0, "{verb:?}");
    }
    let used = common::last_used(Path::new(&log));
    fs::remove_file(segment(Path::new(&log), used)).unwrap();
    for verb in verbs.iter().chain([&["export", &log, "--format", "jsonl"] as &[&str]].iter()) {
        let output = wal(verb);
        let said = stderr(&output);
        assert_eq!(code(&output), 4, "{verb:?}: {said}");
        assert!(said.contains("is missing") && said.contains("next: wal inspect"), "{said}");
    }
}
