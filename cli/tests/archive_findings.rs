//! One damage of an archive is one finding, and a true one: no consequence is told as a cause, and what
//! a salvage of it cannot have is named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use annals_wal::format::{FrameHeader, HeaderVerdict, SegmentHeader};
use annals_wal::{ErrorKind, Log, Options};
use serde_json::Value;

use common::{code, segment, stderr, stdout, text, wal};

/// The last handle's drop frees the lock a moment later.
fn opened(log: &Path) -> Log {
    for _ in 0..10_000_000 {
        match Options::new().segment_bytes(64 << 10).open(log) {
            Err(error) if error.kind() == ErrorKind::Locked => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
    panic!("the lock was never freed");
}

/// An archive of segments 1, 3, 6 and 7 with fifty records each: those that were sealed without a
/// record are not handed over.
fn made(home: &Path) -> PathBuf {
    let (log, archive) = (home.join("log"), home.join("archive"));
    for records in [50, 0, 50, 0, 0, 50, 50, 1] {
        let made = opened(&log);
        for n in 0..records {
            made.append(format!("record {n} ").repeat(20)).unwrap();
        }
    }
    let target = annals_observer::archive::Target::new("t", &archive).unwrap().copy(true);
    target.hand_over(&opened(&log)).unwrap();
    let held = common::contents(&archive).into_keys();
    let held: Vec<u64> = held.filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect();
    assert_eq!(held, [1, 3, 6, 7]);
    archive
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Offset, end and kind of every frame.
fn frames(dir: &Path, sequence: u64) -> Vec<(u64, u64, u16)> {
    let bytes = fs::read(segment(dir, sequence)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!("no header") };
    let (mut frames, mut at) = (Vec::new(), 128);
    while let Some(chunk) = bytes.get(at..at + 32) {
        let frame = FrameHeader::decode(chunk.first_chunk().unwrap(), header.salt, at as u64);
        let Some(frame) = frame else { break };
        frames.push((at as u64, at as u64 + frame.frame_size(), frame.kind));
        at += frame.frame_size() as usize;
    }
    frames
}

fn patch(dir: &Path, sequence: u64, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(segment(dir, sequence)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn flip(dir: &Path, sequence: u64, at: u64) {
    let byte = fs::read(segment(dir, sequence)).unwrap()[at as usize];
    patch(dir, sequence, at, &[byte ^ 8]);
}

fn findings(verb: &str, dir: &Path) -> Vec<Value> {
    let output = wal(&[verb, text(dir), "--format", "json"]);
    assert_eq!(code(&output), 4, "{verb}: {output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    value["findings"].as_array().unwrap().clone()
}

type Harm = fn(&Path, u64);

/// What is done to one segment, whether the seals tell it, and the class of the one finding.
const HARMS: [(&str, Harm, bool, &str); 9] = [
    ("a record", |dir, n| flip(dir, n, frames(dir, n)[30].0 + 40), false, "bit_rot"),
    ("a record's header", |dir, n| flip(dir, n, frames(dir, n)[30].0 + 9), false, "bit_rot"),
    ("the seal", |dir, n| flip(dir, n, frames(dir, n).last().unwrap().0 + 40), true, "bit_rot"),
    (
        "the seal's header",
        |dir, n| flip(dir, n, frames(dir, n).last().unwrap().0 + 9),
        true,
        "bit_rot",
    ),
    ("the open record", |dir, n| flip(dir, n, 128 + 40), true, "bit_rot"),
    ("the header", |dir, n| flip(dir, n, 45), true, "bit_rot"),
    ("gone", |dir, n| fs::remove_file(segment(dir, n)).unwrap(), true, "gap"),
    ("empty", |dir, n| fs::write(segment(dir, n), "").unwrap(), true, "lost_tail"),
    (
        "a directory",
        |dir, n| {
            fs::remove_file(segment(dir, n)).unwrap();
            fs::create_dir(segment(dir, n)).unwrap();
        },
        true,
        "foreign_bytes",
    ),
];

#[test]
fn one_damage_of_an_archive_is_one_finding() {
    let home = tempfile::tempdir().unwrap();
    let archive = made(home.path());
    let bad = home.path().join("bad");
    let mut wrong = Vec::new();
    for (what, harm, by_seals, class) in HARMS {
        for n in [1, 3, 6, 7] {
            copy(&archive, &bad);
            harm(&bad, n);
            for verb in ["verify", "inspect"] {
                // The last one is read whole in any case.
                if verb == "inspect" && !by_seals && n != 7 {
                    assert_eq!(code(&wal(&["inspect", text(&bad)])), 0, "{what} of {n}");
                    continue;
                }
                let found = findings(verb, &bad);
                let one = found.len() == 1 && found[0]["segment"] == n;
                // Of the last one no later segment says that anything stood in it.
                let class = if (what, n) == ("empty", 7) { "broken_rules" } else { class };
                if !one || found[0]["class"] != class {
                    wrong.push(format!("{verb}, {what} of {n}: {found:#?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Zeros where the seal stood cost no record: no LSN is named, neither there nor of its neighbours.
#[test]
fn a_lost_seal_costs_no_record() {
    let home = tempfile::tempdir().unwrap();
    let archive = made(home.path());
    let (from, to, _) = *frames(&archive, 6).last().unwrap();
    patch(&archive, 6, from, &vec![0; (to - from) as usize]);
    let found = findings("verify", &archive);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((&found[0]["class"], &found[0]["segment"]), (&"zeroed_range".into(), &6.into()));
    assert_eq!(found[0]["first_lsn"], Value::Null, "{found:#?}");
    assert_eq!(found[0]["lost_records"], 0, "{found:#?}");
}

/// A segment of which nothing is left but zeros is no spare: in an archive all are sealed, and without
/// its records `cat` is not clean either.
#[test]
fn a_segment_of_zeros_is_missed() {
    let home = tempfile::tempdir().unwrap();
    let archive = made(home.path());
    let bad = home.path().join("bad");
    for (sequence, from) in [(7, 128), (7, 0), (1, 128)] {
        copy(&archive, &bad);
        patch(&bad, sequence, from, &vec![0; (64 << 10) - from as usize]);
        for verb in ["inspect", "verify", "cat"] {
            let output = wal(&[verb, text(&bad)]);
            let said = stdout(&output) + &stderr(&output);
            assert_eq!(code(&output), 4, "{verb}, {sequence} from {from}: {said}");
        }
        let found = findings("inspect", &bad);
        assert_eq!(found.len(), 1, "{sequence} from {from}: {found:#?}");
        assert_eq!(found[0]["segment"], sequence, "{found:#?}");
        let first = if sequence == 7 { 151 } else { 1 };
        assert_eq!(found[0]["first_lsn"], first, "{sequence} from {from}: {found:#?}");
    }
}

/// Two neighbours are missing: each is named, with its own LSNs.
#[test]
fn each_missing_file_is_named_by_the_manifest() {
    let home = tempfile::tempdir().unwrap();
    let archive = made(home.path());
    for n in [3, 6] {
        fs::remove_file(segment(&archive, n)).unwrap();
    }
    let found = findings("verify", &archive);
    let told: Vec<(u64, u64)> = found
        .iter()
        .map(|f| (f["segment"].as_u64().unwrap(), f["lost_records"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [(3, 50), (6, 50)], "{found:#?}");
}

/// What stood in the last file of an archive only its manifest knows: a salvage names it.
#[test]
fn a_salvage_of_an_archive_names_the_end_that_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let archive = made(home.path());
    fs::remove_file(segment(&archive, 7)).unwrap();
    let output = wal(&["salvage", text(&archive), "--dry-run"]);
    let said = stdout(&output);
    assert!(said.contains("not in it: LSNs 151 to 200 (gap in segment 7"), "{said}");
    assert!(!said.contains("lost: none"), "{said}");
    let output = wal(&["salvage", text(&archive), "--dry-run", "--format", "json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["not_in_it"], serde_json::json!([{ "first_lsn": 151, "last_lsn": 200 }]));
    // And the beginning, which is not filled either.
    fs::remove_file(segment(&archive, 1)).unwrap();
    let said = stdout(&wal(&["salvage", text(&archive), "--dry-run"]));
    assert!(said.contains("not in it: LSNs 1 to 50 (gap in segment 1"), "{said}");
    assert!(said.contains("lost among LSNs 51 to 150: none"), "{said}");
}

/// With which LSN an archive begins and ends its manifest says, whatever became of the first and the
/// last file: gone, nothing but zeros, half of it, or without a seal or an open record.
#[test]
fn a_salvage_of_an_archive_names_both_ends_whatever_the_cause() {
    let home = tempfile::tempdir().unwrap();
    let archive = made(home.path());
    let bad = home.path().join("bad");
    let zeroed: fn(&Path, u64, u64, u64) = |dir, n, from, to| {
        patch(dir, n, from, &vec![0; (to - from) as usize]);
    };
    let end = 64 << 10;
    let middle = frames(&archive, 7)[26].0;
    for (sequence, from, to, named) in [
        (7, 128, end, (151, 200)),
        (7, 0, end, (151, 200)),
        (7, middle, end, (176, 200)),
        (1, 128, end, (1, 50)),
        (1, 0, end, (1, 50)),
        (1, 0, frames(&archive, 1)[11].0, (1, 10)),
        (1, 128, frames(&archive, 1)[11].0, (1, 10)),
    ] {
        copy(&archive, &bad);
        zeroed(&bad, sequence, from, to);
        let said = stdout(&wal(&["salvage", text(&bad), "--dry-run"]));
        let expected = format!("not in it: LSNs {} to {} (", named.0, named.1);
        assert!(said.contains(&expected), "{sequence}, {from} to {to}: {said}");
        assert_eq!(said.matches("not in it").count(), 1, "{sequence}, {from} to {to}: {said}");
        assert!(!said.contains("lost: none"), "{sequence}, {from} to {to}: {said}");
        let json = stdout(&wal(&["salvage", text(&bad), "--dry-run", "--format", "json"]));
        let value: Value = serde_json::from_str(&json).unwrap();
        let (first_lsn, last_lsn) = named;
        let one = serde_json::json!([{ "first_lsn": first_lsn, "last_lsn": last_lsn }]);
        assert_eq!(value["not_in_it"], one, "{sequence}, {from} to {to}");
    }
    // Its first file is not segment 1, and without an open record nothing else says where it began.
    copy(&archive, &bad);
    fs::remove_file(segment(&bad, 1)).unwrap();
    zeroed(&bad, 3, 128, frames(&archive, 3)[11].0);
    let said = stdout(&wal(&["salvage", text(&bad), "--dry-run"]));
    assert!(said.contains("not in it: LSNs 1 to 60 (gap in segment 1"), "{said}");
    // An archive that is whole loses nothing.
    let said = stdout(&wal(&["salvage", text(&archive), "--dry-run"]));
    assert!(said.contains("lost: none") && !said.contains("not in it"), "{said}");
}

/// A log of one segment whose first page is gone, and one whose only file says nothing any more.
#[test]
fn a_salvage_of_a_log_never_says_none_where_it_cannot_know() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("one");
    let log = opened(&dir);
    for n in 1..=40u32 {
        log.append(format!("record {n} ").repeat(20)).unwrap();
    }
    log.close().unwrap();
    patch(&dir, 1, 0, &[0; 4096]);
    let said = stdout(&wal(&["salvage", text(&dir), "--dry-run"]));
    assert!(said.contains("not in it: LSNs 1 to ") && !said.contains("lost: none"), "{said}");
    // Two segments; of the first nothing is left, and of the second no open record tells what was
    // before it: neither is there a head.
    let archive = made(home.path());
    let two = home.path().join("two");
    fs::create_dir(&two).unwrap();
    for n in [6, 7] {
        fs::copy(segment(&archive, n), segment(&two, n)).unwrap();
    }
    patch(&two, 6, 0, &vec![0; 64 << 10]);
    patch(&two, 7, 128 + 40, &[0xEE]);
    patch(&two, 7, frames(&archive, 7).last().unwrap().0 + 40, &[0xEE]);
    let said = stdout(&wal(&["salvage", text(&two), "--dry-run"]));
    assert!(!said.contains("lost: none"), "{said}");
}

/// A file between those that are listed is no more in the archive than one above them.
#[test]
fn a_file_between_the_listed_ones_is_not_read() {
    let home = tempfile::tempdir().unwrap();
    let archive = made(home.path());
    let verbs: [&[&str]; 6] =
        [&["verify"], &["inspect"], &["cat"], &["stats"], &["salvage", "--dry-run"], &["tail"]];
    let answers = || -> Vec<(i32, String)> {
        let run = |verb: &&[&str]| wal(&[&[verb[0], text(&archive)], &verb[1..]].concat());
        verbs.iter().map(run).map(|output| (code(&output), stdout(&output))).collect()
    };
    let before = answers();
    let empty = fs::read(segment(&home.path().join("log"), 2)).unwrap();
    let another = fs::read(segment(&archive, 1)).unwrap();
    for (number, bytes) in [(2, &empty[..]), (4, &another[..]), (5, &[7; 300][..]), (2, &[])] {
        fs::write(segment(&archive, number), bytes).unwrap();
        assert!(answers() == before, "with {number}: {before:?}, now {:?}", answers());
        let said = stderr(&wal(&["verify", text(&archive)]));
        assert!(said.contains("does not list 1 segment file below"), "{said}");
        fs::remove_file(segment(&archive, number)).unwrap();
    }
}
