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

use annals_wal::{ErrorKind, Log, Options, Record};

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
    assert_eq!(codes, [0; 3], "{said}");
    assert!(said.contains("the manifest does not list"), "{said}");
    for bytes in [0, 40, 128, 200] {
        fs::write(segment(&bad, held + 1), &whole[..bytes]).unwrap();
        let (codes, said) = judged(&bad);
        assert_eq!(codes, [0; 3], "{bytes} bytes: {said}");
    }
    // It hides no damage of what is in the archive.
    let last = OpenOptions::new().write(true).open(segment(&bad, held)).unwrap();
    last.write_all_at(&[0xEE], 20_001).unwrap();
    let (codes, said) = judged(&bad);
    assert_eq!((codes[0], codes[2]), (4, 4), "{said}");
}

/// A manifest with these members in place of an archive's own.
fn with_manifest(archive: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = archive.join("ARCHIVE");
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
}

#[test]
fn a_newer_manifest_is_unsupported_and_no_damage() {
    let home = tempfile::tempdir().unwrap();
    let (_, archive, _) = made(home.path());
    with_manifest(&archive, |manifest| manifest["version"] = 2.into());
    let (codes, said) = judged(&archive);
    assert_eq!(codes, [5; 3], "{said}");
    assert!(said.contains("use a newer `wal`") && !said.contains("CORRUPT"), "{said}");
}

/// A manifest from a stranger: what is listed twice, backwards or beyond the last LSN is refused
/// unread, and of many that are missing as many are told as of any log.
#[test]
fn a_hostile_manifest_costs_no_more_than_the_files_that_are_there() {
    let home = tempfile::tempdir().unwrap();
    let (_, archive, _) = made(home.path());
    let bad = home.path().join("bad");
    let listed = |number: u64, first: u64, last: u64| {
        serde_json::json!({
            "name": format!("{number:020}.wal"), "first_lsn": first, "last_lsn": last,
            "bytes": 65536, "sha256": "0".repeat(64),
        })
    };
    let max = u64::MAX;
    let wrong = [
        (vec![listed(1, 1, 1), listed(1, 2, 2)], 3),
        (vec![listed(2, 1, 1), listed(1, 2, 2)], 3),
        (vec![listed(1, 0, 1)], 2),
        (vec![listed(1, 0, max)], max),
        (vec![listed(1, 1, max)], max),
        (vec![listed(1, 2, 1)], 2),
        (vec![], 0),
    ];
    for (segments, next) in wrong {
        copy(&archive, &bad);
        with_manifest(&bad, |manifest| {
            manifest["segments"] = segments.clone().into();
            manifest["next_lsn"] = next.into();
        });
        let (codes, said) = judged(&bad);
        assert_eq!(codes, [4; 3], "{segments:?}: {said}");
        assert!(said.contains("is no manifest"), "{segments:?}: {said}");
    }
    copy(&archive, &bad);
    let many = annals_wal::diagnose::DAMAGES_MAX as u64 + 50;
    with_manifest(&bad, |manifest| {
        let last = manifest["segments"].as_array_mut().unwrap();
        let (numbers, next) = (last.len() as u64 + 1.., manifest["next_lsn"].as_u64().unwrap());
        let more = numbers.zip(next..).take(many as usize).map(|(n, lsn)| listed(n, lsn, lsn));
        manifest["segments"].as_array_mut().unwrap().extend(more);
        manifest["next_lsn"] = (next + many).into();
    });
    let output = wal(&["verify", text(&bad), "--format", "json"]);
    assert_eq!(code(&output), 4);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = value["findings"].as_array().unwrap().len() as u64;
    assert_eq!((told, value["findings_cut"].as_u64()), (many - 50, Some(50)));
}

/// No salvage takes an archive's place: it would be open for writing, and nobody would know the archive.
#[test]
fn an_archive_is_not_repaired_in_place() {
    let home = tempfile::tempdir().unwrap();
    let (_, archive, held) = made(home.path());
    let plan = home.path().join("plan");
    let file = OpenOptions::new().write(true).open(segment(&archive, held)).unwrap();
    file.write_all_at(&[0xEE], 20_001).unwrap();
    let before = common::contents(&archive);
    let output = wal(&["repair", text(&archive), "--plan", text(&plan)]);
    assert_eq!((code(&output), plan.exists()), (1, false), "{output:?}");
    assert!(stderr(&output).contains("wal salvage"), "{output:?}");
    // Nor by a plan that was made by hand.
    let files: Vec<_> = Vec::<serde_json::Value>::new();
    let by_hand = serde_json::json!({
        "schema": "wal.repair-plan/1", "method": "rebuild", "files": files,
    });
    fs::write(&plan, by_hand.to_string()).unwrap();
    let output = wal(&["repair", text(&archive), "--apply", text(&plan)]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains("wal salvage"), "{output:?}");
    assert!(common::contents(&archive) == before, "something was written");
}

/// What cannot be read is not the same on both sides, and whoever asks by exit code is told.
#[test]
fn a_comparison_with_a_damaged_side_is_not_clean() {
    let home = tempfile::tempdir().unwrap();
    let (log, archive, held) = made(home.path());
    let other = home.path().join("other");
    copy(&archive, &other);
    let diff = |a: &Path, b: &Path| code(&wal(&["diff", text(a), text(b)]));
    assert_eq!((diff(&archive, &other), diff(&log, &archive)), (0, 1));
    fs::remove_file(segment(&other, held)).unwrap();
    assert_eq!((diff(&archive, &other), diff(&other, &archive), diff(&other, &other)), (4, 4, 4));
    fs::remove_file(segment(&log, 2)).unwrap();
    assert_eq!(diff(&log, &log), 4);
}

/// Two archives of one log, and an archive and its log, compared record by record: what one of them
/// has more of is told by its LSNs, and what a log let go of is not called a difference of the records.
#[test]
fn archives_are_compared_with_each_other_and_with_their_log() {
    let home = tempfile::tempdir().unwrap();
    let (log, early, _) = made(home.path());
    let later = home.path().join("later");
    let opened = opened(&log);
    let first = annals_observer::archive::manifest::Manifest::read(&early).unwrap().unwrap();
    for _ in 0..100 {
        opened.append(Record::new("another ".repeat(300))).unwrap();
    }
    let linked = annals_observer::archive::Target::new("later", &later).unwrap();
    let handed = linked.hand_over(&opened).unwrap();
    let end = opened.durable_lsn().unwrap().get();
    opened.close().unwrap();
    let diff = |a: &Path, b: &Path| {
        let output = wal(&["diff", text(a), text(b)]);
        (code(&output), stdout(&output) + &stderr(&output))
    };
    let (shared, more) = (first.next_lsn - 1, handed.next_lsn.get() - first.next_lsn);
    let told = |said: &str, from: u64, to: u64, why: &str| {
        let words: Vec<&str> = said.split_whitespace().collect();
        let line = format!("LSNs {from} to {to} {} {why}", to - from + 1);
        assert!(words.join(" ").contains(&line), "{line}: {said}");
    };
    let (same, said) = diff(&early, &early);
    assert_eq!(same, 0, "{said}");
    assert!(said.contains(&format!("{shared} records are the same in both")), "{said}");
    for (a, b, side) in [(&early, &later, "B"), (&later, &early, "A")] {
        let (code, said) = diff(a, b);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{shared} records are the same in both")), "{said}");
        told(&said, shared + 1, shared + more, &format!("only in {side}"));
    }
    // The active segment is the log's alone.
    let (code, said) = diff(&log, &later);
    assert_eq!(code, 1, "{said}");
    told(&said, shared + more + 1, end, "only in A");
    // And what it let go of is the archive's alone, which is no damage of the log.
    let trimmed = self::opened(&log);
    let head = trimmed.trim(handed.next_lsn).unwrap().get();
    assert!(head > 1, "nothing was trimmed");
    trimmed.close().unwrap();
    let (code, said) = diff(&log, &later);
    assert_eq!(code, 1, "{said}");
    told(&said, 1, head - 1, "only in B");
    assert!(!said.contains("CORRUPT"), "{said}");
    // Of another log's archive a record that is not the same is named.
    let two = home.path().join("two");
    fs::create_dir(&two).unwrap();
    let other = Options::new().segment_bytes(64 << 10).open(two.join("log")).unwrap();
    for n in 1..=shared {
        let word = if n == 7 { "another" } else { "a text " };
        other.append(Record::new(word.repeat(300))).unwrap();
    }
    let of_other = two.join("archive");
    let target = annals_observer::archive::Target::new("two", &of_other).unwrap();
    target.hand_over(&other).unwrap();
    let (code, said) = diff(&early, &of_other);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("two different logs"), "{said}");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("LSN 7 1 different") && !words.contains("LSN 8"), "{said}");
}

/// A log whose first segments are 1, 2 and 4, as far as they have records: opened and left without a
/// close and without a record.
fn left_twice(log: &Path) {
    for records in [5, 0, 5, 0, 0, 5, 5] {
        let made = opened(log);
        for n in 0..records {
            made.append(Record::new(format!("record {n}"))).unwrap();
        }
    }
}

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

/// The numbers of an archive's segments.
fn held(archive: &Path) -> Vec<u64> {
    let names = common::contents(archive).into_keys();
    names.filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect()
}

/// A segment that was sealed without a record is not handed over: its number is missing, and nothing is.
#[test]
fn an_archive_without_the_empty_segments_is_whole() {
    let home = tempfile::tempdir().unwrap();
    let (log, archive) = (home.path().join("log"), home.path().join("archive"));
    left_twice(&log);
    drop(opened(&log));
    let target = annals_observer::archive::Target::new("t", &archive).unwrap().copy(true);
    target.hand_over(&opened(&log)).unwrap();
    let held = held(&archive);
    let gap = held.windows(2).find(|pair| pair[0] + 1 != pair[1]);
    let gap = gap.unwrap_or_else(|| panic!("no gap: {held:?}")).to_vec();
    annals_observer::archive::verify::verify(&archive).unwrap();
    let (codes, said) = judged(&archive);
    assert_eq!(codes, [0; 3], "{held:?}: {said}");
    // Beside a damage the numbers that were left out are still no gap.
    let bad = home.path().join("bad");
    copy(&archive, &bad);
    let last = segment(&bad, *held.last().unwrap());
    OpenOptions::new().write(true).open(&last).unwrap().write_all_at(&[0xEE], 150).unwrap();
    let (codes, said) = judged(&bad);
    assert_eq!(codes[0], 4, "{held:?}: {said}");
    assert!(!said.contains("gap: segment"), "{held:?}: {said}");
    // And a segment with records, whose number is missing, too, is one.
    for lost in gap {
        copy(&archive, &bad);
        fs::remove_file(segment(&bad, lost)).unwrap();
        let (codes, said) = judged(&bad);
        assert_eq!(codes, [4; 3], "{held:?} without {lost}: {said}");
        assert!(said.contains("gap: segment"), "{held:?} without {lost}: {said}");
    }
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

/// A log with entries, keys and plain records, and an archive of the segments that are sealed.
fn busy(home: &Path) -> (PathBuf, PathBuf, u64) {
    let (log, archive) = (home.join("log"), home.join("archive"));
    let made = Options::new().segment_bytes(64 << 10).open(&log).unwrap();
    let registry = annals_registry::Registry::on(made.clone()).unwrap();
    let observer = annals_observer::Observer::on(made.clone()).unwrap();
    let mut n = 0;
    while made.stats().rotations < 4 {
        n += 1;
        let mut call = observer.session("s-1").unwrap().tool("search").start().unwrap();
        call.end_ok(annals_observer::JsonText::string(&"a text ".repeat(100))).unwrap();
        let key = annals_registry::Key::new(format!("k/{n}")).unwrap();
        registry.put_json(&key, &"v".repeat(1000)).unwrap();
    }
    observer.shutdown().unwrap();
    drop((observer, registry));
    made.close().unwrap();
    let output = wal(&["archive", text(&log), "--to", text(&archive), "--copy"]);
    assert_eq!(code(&output), 0, "{output:?}");
    (log, archive.clone(), held(&archive).last().copied().unwrap())
}

/// What the manifest does not name is in no verb's answer: a hand-over that was broken off between
/// the link and the manifest leaves a whole segment there, another crash half of one.
#[test]
fn no_verb_reads_a_segment_that_the_manifest_does_not_name() {
    let home = tempfile::tempdir().unwrap();
    let (log, archive, last) = busy(home.path());
    let key = annals_registry::RegistryReader::open(&archive).unwrap();
    let key = key.scan(&annals_registry::Prefix::all()).last().unwrap().0.to_string();
    let (dir, plan) = (text(&archive), text(&log));
    let verbs: &[&[&str]] = &[
        &["cat", dir],
        &["tail", dir],
        &["tail", dir, "-f", "--idle", "1"],
        &["stats", dir],
        &["timeline", dir],
        &["timeline", dir, "s-1"],
        &["export", dir, "--format", "jsonl"],
        &["salvage", dir, "--dry-run"],
        &["diff", dir, plan],
        &["inspect", dir],
        &["inspect", dir, "--deep", "--map"],
        &["verify", dir],
        &["registry", "get", dir, &key],
        &["registry", "list", dir],
        &["registry", "history", dir, &key],
        &["registry", "export", dir],
        &["registry", "watch", dir, "--once"],
    ];
    let answers = || -> Vec<(i32, String)> {
        verbs.iter().map(|verb| wal(verb)).map(|output| (code(&output), stdout(&output))).collect()
    };
    let before = answers();
    for (verb, (code, said)) in verbs.iter().zip(&before) {
        assert_eq!((*code, said.is_empty()), (i32::from(verb[0] == "diff"), false), "{verb:?}");
    }
    let whole = fs::read(segment(&log, last + 1)).unwrap();
    let strays = [
        (last + 1, &whole[..]),
        (last + 1, &whole[..30_000]),
        (last + 2, &whole[..]),
        (99, b"12345"),
    ];
    for (number, bytes) in strays {
        fs::write(segment(&archive, number), bytes).unwrap();
        for ((verb, before), now) in verbs.iter().zip(&before).zip(answers()) {
            assert!(*before == now, "{verb:?} with {number}: {before:?}, now {now:?}");
        }
        let said = stderr(&wal(&["verify", dir]));
        assert!(said.contains("1 file lies above"), "{said}");
        fs::remove_file(segment(&archive, number)).unwrap();
    }
}
