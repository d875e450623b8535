//! Is every acknowledged record in an archive, in the log, or in both, while writers go on?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_observer::archive::{MANIFEST, Target, hand_over_all, union, verify};
use annals_observer::{ErrorKind, JsonText, Observer, Retention, WallTime};
use annals_wal::fs::gate::{Door, Gate};
use annals_wal::fs::mem::MemDir;
use annals_wal::fs::os::OsDir;
use annals_wal::{Log, Lsn, Options};

fn small(path: &Path) -> Log {
    Options::new().segment_bytes(64 << 10).open(path).unwrap()
}

/// LSN and payload of everything in archives and log, which must be each LSN once.
fn everything(log: &Log, archives: &[&Path]) -> BTreeMap<u64, Vec<u8>> {
    let records = union::union(log, archives, Lsn::FIRST).unwrap();
    records.map(|record| record.map(|r| (r.lsn.get(), r.payload)).unwrap()).collect()
}

#[test]
fn archives_and_log_together_are_what_was_acknowledged_under_eight_writers() {
    let dir = tempfile::tempdir().unwrap();
    let log = small(&dir.path().join("log"));
    let targets: Vec<Target> = (0..5)
        .map(|n| Target::new(format!("t{n}"), dir.path().join(format!("a{n}"))).unwrap())
        .map(|target| target.clone().copy(target.name() == "t1"))
        .collect();
    let acknowledged = Mutex::new(BTreeMap::new());
    let done = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8u8)
            .map(|writer| {
                let (log, acknowledged) = (&log, &acknowledged);
                scope.spawn(move || {
                    for n in 0..150u32 {
                        let mut payload = vec![writer; 900];
                        payload.extend(n.to_le_bytes());
                        let lsn = log.append(&payload).unwrap();
                        acknowledged.lock().unwrap().insert(lsn.get(), payload);
                    }
                })
            })
            .collect();
        let archivers: Vec<_> = targets
            .iter()
            .map(|target| {
                let (log, done) = (&log, &done);
                scope.spawn(move || {
                    let mut rounds = 0;
                    loop {
                        // One round at least is behind the last writer, however late a thread is.
                        let is_last = done.load(SeqCst);
                        let handed = target.hand_over(log).unwrap();
                        log.trim(handed.next_lsn).unwrap();
                        rounds += 1;
                        if is_last {
                            return rounds;
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, SeqCst);
        archivers.into_iter().map(|archiver| archiver.join().unwrap()).sum::<u32>()
    });
    assert!(rounds >= 5, "{rounds}");
    let acknowledged = acknowledged.into_inner().unwrap();
    assert_eq!(acknowledged.len(), 1200);
    assert!(log.head_lsn() > Lsn::FIRST, "nothing was ever trimmed: it tells little");
    for n in 0..5 {
        let path = dir.path().join(format!("a{n}"));
        assert_eq!(everything(&log, &[&path]), acknowledged, "archive {n}");
        assert!(verify::verify(&path).unwrap().segments > 0);
        assert_eq!(Log::open(&path).unwrap_err().kind(), annals_wal::ErrorKind::Archived);
    }
    // The log with its other names is still a log that opens.
    let path = log.path().to_owned();
    drop(log);
    let again = reopen(&path);
    assert_eq!(everything(&again, &[&dir.path().join("a0")]), acknowledged);
}

/// The last handle's drop frees the lock a moment later.
#[expect(clippy::disallowed_methods, reason = "a bounded poll: the committer tells nobody")]
fn reopen(path: &Path) -> Log {
    for _ in 0..5_000 {
        match Options::new().segment_bytes(64 << 10).open(path) {
            Err(e) if e.kind() == annals_wal::ErrorKind::Locked => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the lock was never freed");
}

fn filled(path: &Path, records: u32) -> Log {
    let log = small(path);
    for n in 0..records {
        let mut payload = vec![5; 2_000];
        payload.extend(n.to_le_bytes());
        log.append(&payload).unwrap();
    }
    log
}

#[test]
fn a_hand_over_that_broke_off_anywhere_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("log"), dir.path().join("to"));
    let log = filled(&path, 100);
    let target = Target::new("t", &to).unwrap();
    let whole = target.hand_over(&log).unwrap();
    assert!(whole.segments >= 2, "{whole:?}");
    let files: Vec<_> = std::fs::read_dir(&to).unwrap().map(|e| e.unwrap().path()).collect();
    let segments: Vec<_> = files.iter().filter(|p| p.extension() == Some("wal".as_ref())).collect();
    // As if stopped after the first link, before any manifest named it; and with half a copy there.
    let manifest = std::fs::read_to_string(to.join(MANIFEST)).unwrap();
    let mut none: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    none["segments"] = serde_json::json!([]);
    none["next_lsn"] = serde_json::json!(1);
    std::fs::write(to.join(MANIFEST), none.to_string()).unwrap();
    std::fs::write(to.join("ARCHIVE.tmp"), "half a mani").unwrap();
    std::fs::remove_file(segments[0]).unwrap();
    std::fs::write(segments[0], "half a copy").unwrap();
    let again = target.hand_over(&log).unwrap();
    assert_eq!((again.segments, again.next_lsn), (whole.segments, whole.next_lsn));
    assert_eq!(verify::verify(&to).unwrap().segments, whole.segments);
    assert_eq!(target.hand_over(&log).unwrap().segments, 0, "nothing twice");
}

#[test]
fn damage_to_an_archive_is_told_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("log"), dir.path().join("to"));
    let log = filled(&path, 100);
    Target::new("t", &to).unwrap().copy(true).hand_over(&log).unwrap();
    verify::verify(&to).unwrap();
    let name = "00000000000000000001.wal";
    let mut bytes = std::fs::read(to.join(name)).unwrap();
    let good = bytes.clone();
    bytes[20_000] ^= 1;
    std::fs::write(to.join(name), &bytes).unwrap();
    let error = verify::verify(&to).unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(name), "{error}");
    std::fs::write(to.join(name), &good[..good.len() - 1]).unwrap();
    assert!(verify::verify(&to).unwrap_err().to_string().contains("length"));
    std::fs::remove_file(to.join(name)).unwrap();
    assert!(verify::verify(&to).unwrap_err().to_string().contains("missing"));
    std::fs::write(to.join(MANIFEST), "{\"version\": 7}").unwrap();
    assert_eq!(verify::verify(&to).unwrap_err().kind(), ErrorKind::Unsupported);
    std::fs::write(to.join(MANIFEST), "not finished").unwrap();
    assert_eq!(verify::verify(&to).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_target_that_fails_is_named_and_keeps_its_hold_while_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("log"), 60);
    let good = Target::new("good", dir.path().join("good")).unwrap();
    let bad = Target::new("bad", dir.path().join("bad")).unwrap();
    bad.hand_over(&log).unwrap();
    let hold = |name: &str| {
        let holds = log.holds();
        holds.iter().find(|(hold, _)| hold == name).map(|(_, lsn)| *lsn).unwrap()
    };
    let before = hold("archive:bad");
    for n in 0..60u32 {
        log.append(vec![n as u8; 2_000]).unwrap();
    }
    std::fs::write(dir.path().join("bad").join(MANIFEST), "scribble").unwrap();
    let results = hand_over_all(&log, &[bad, good]);
    assert_eq!(results[0].0, "bad");
    assert_eq!(results[0].1.as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    let handed = results[1].1.as_ref().unwrap();
    assert_eq!(hold("archive:bad"), before);
    assert!(hold("archive:good") > before);
    let head = log.trim(handed.next_lsn).unwrap();
    assert!(head <= before, "the failed target's records are kept");
}

#[test]
fn a_directory_of_something_else_is_no_target() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("log"), 40);
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("thesis.txt"), "mine").unwrap();
    let target = Target::new("t", &other).unwrap();
    assert_eq!(target.hand_over(&log).unwrap_err().kind(), ErrorKind::Invalid);
    let of_another = dir.path().join("a");
    Target::new("t", &of_another).unwrap().hand_over(&log).unwrap();
    let second = filled(&dir.path().join("second"), 40);
    let error = Target::new("t", &of_another).unwrap().hand_over(&second).unwrap_err();
    assert!(error.to_string().contains("another log"), "{error}");
    assert!(Target::new("", &other).is_err() && Target::new("x".repeat(25), &other).is_err());
}

#[test]
fn a_gap_between_archives_and_log_is_an_error_and_never_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("log"), 100);
    let to = dir.path().join("to");
    let handed = Target::new("t", &to).unwrap().hand_over(&log).unwrap();
    let head = log.trim(handed.next_lsn).unwrap();
    assert!(head > Lsn::FIRST);
    let error = union::union(&log, &[], Lsn::FIRST).unwrap_err();
    assert!(error.to_string().contains("LSN 1 is in no archive"), "{error}");
    assert_eq!(everything(&log, &[&to]).len(), 100);
}

#[test]
fn retention_keeps_what_is_asked_what_is_held_and_what_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = small(&dir.path().join("log"));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let big = JsonText::string(&"x".repeat(4_000));
    let mut open_call = session.tool("long").start().unwrap();
    for _ in 0..100 {
        session.error(big.clone()).unwrap();
    }
    let all = Retention::new().records_max(10);
    assert_eq!(observer.retain(all).unwrap().get(), 1, "an open call is kept");
    open_call.end_ok(big.clone()).unwrap();
    let head = observer.retain(all).unwrap().get();
    assert_eq!(head, 93, "102 records, the last ten kept");
    for _ in 0..100 {
        session.error(big.clone()).unwrap();
    }
    let files = || {
        let names = std::fs::read_dir(log.path()).unwrap();
        names.filter(|e| e.as_ref().unwrap().path().extension() == Some("wal".as_ref())).count()
    };
    let before = files();
    observer.retain(Retention::new().bytes_max(256 << 10)).unwrap();
    assert!(files() < before && files() <= 6, "{} of {before}", files());
    let future = WallTime(i64::MAX);
    observer.retain(Retention::new().since(future)).unwrap();
    assert!(files() <= 3, "what is active or prepared stays, {}", files());
    let past = observer.retain(Retention::new().since(WallTime(0))).unwrap();
    assert_eq!(past, log.head_lsn(), "nothing is older than that");
}

/// Two directories of one name would share a hold, and a trim would drop what only one of them has.
#[test]
fn one_name_is_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("log"), 100);
    let target = |name: &str, to: &str| Target::new(name, dir.path().join(to)).unwrap();
    let results = hand_over_all(&log, &[target("a", "one"), target("a", "two")]);
    let handed = results[0].1.as_ref().unwrap();
    let refused = results[1].1.as_ref().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("archive:a"), "{refused}");
    assert_eq!(log.holds(), [("archive:a".to_owned(), handed.next_lsn)]);
    let renamed = target("b", "one").hand_over(&log).unwrap_err();
    assert!(renamed.to_string().contains("is the archive a"), "{renamed}");
    assert_eq!(log.holds().len(), 1, "a refused target leaves no hold behind");
    // Stopped after the manifest and before the hold: gone on with.
    log.release_hold("archive:a").unwrap();
    assert_eq!(target("a", "one").hand_over(&log).unwrap().next_lsn, handed.next_lsn);
    assert_eq!(log.holds().len(), 1);
}

/// A target that fails at first has a hold all the same: what the log had then, it gets later.
#[test]
fn a_target_that_fails_at_first_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("log"), 50);
    let unmounted = dir.path().join("unmounted");
    std::fs::write(&unmounted, "no directory").unwrap();
    let bad = Target::new("bad", unmounted.join("to")).unwrap();
    let good = Target::new("good", dir.path().join("good")).unwrap();
    let results = hand_over_all(&log, &[bad.clone(), good]);
    assert_eq!(results[0].1.as_ref().unwrap_err().kind(), ErrorKind::Io);
    let next = results[1].1.as_ref().unwrap().next_lsn;
    assert!(next > Lsn::FIRST);
    assert_eq!(log.trim(next).unwrap(), Lsn::FIRST, "it waits for the other one");
    std::fs::remove_file(&unmounted).unwrap();
    assert_eq!(bad.hand_over(&log).unwrap().next_lsn, next);
    assert_eq!(everything(&log, &[&unmounted.join("to")]), everything(&log, &[]));
    let names: Vec<_> = log.holds().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["archive:good", "archive:bad"]);
    assert_eq!(log.trim(next).unwrap(), next);
}

/// What nobody can read is not in an archive: the log does not let go of it on the strength of one.
#[test]
fn a_segment_that_has_rotted_is_not_handed_over() {
    for copy in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (path, to) = (dir.path().join("log"), dir.path().join("to"));
        let log = filled(&path, 200);
        let second = path.join("00000000000000000002.wal");
        let mut bytes = std::fs::read(&second).unwrap();
        bytes[30_000] ^= 4;
        std::fs::write(&second, bytes).unwrap();
        let target = Target::new("t", &to).unwrap().copy(copy);
        let error = target.hand_over(&log).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("00000000000000000002.wal is damaged"), "{error}");
        let verified = verify::verify(&to).unwrap();
        assert_eq!(verified.segments, 1, "what came before is there");
        let (_, held) = log.holds().into_iter().next().unwrap();
        let head = log.trim(log.durable_lsn().unwrap()).unwrap();
        assert!(head <= held, "the log keeps it");
        assert_eq!(target.hand_over(&log).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// The log was restored from an older copy and went on differently: its segments do not go on where
/// the archive ends, and nothing there is replaced or passed over.
#[test]
fn an_archive_is_not_gone_on_with_by_a_log_that_went_another_way() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old, to) = (dir.path().join("log"), dir.path().join("old"), dir.path().join("to"));
    let log = filled(&path, 50);
    std::fs::create_dir(&old).unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, old.join(from.file_name().unwrap())).unwrap();
    }
    for n in 0..70u32 {
        log.append(vec![n as u8; 2_500]).unwrap();
    }
    let target = Target::new("t", &to).unwrap();
    let handed = target.hand_over(&log).unwrap();
    let manifest = std::fs::read(to.join(MANIFEST)).unwrap();
    drop(log);
    let restored = reopen(&old);
    for n in 0..200u32 {
        restored.append(vec![n as u8; 900]).unwrap();
    }
    let refused = target.hand_over(&restored).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains("Nothing was changed"), "{refused}");
    assert_eq!(std::fs::read(to.join(MANIFEST)).unwrap(), manifest);
    let held = restored.holds().into_iter().find(|(name, _)| name == "archive:t");
    assert!(held.is_none_or(|(_, lsn)| lsn <= handed.next_lsn), "it let go of nothing");
    assert_eq!(verify::verify(&to).unwrap().segments, handed.segments);
}

/// A directory that was cleared, or that has another manifest by now, is not taken for the one that
/// was left.
#[test]
fn a_target_that_somebody_changed_is_looked_at_anew() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let log = filled(&dir.path().join("log"), 60);
    let target = Target::new("t", &to).unwrap();
    target.hand_over(&log).unwrap();
    let manifest = std::fs::read(to.join(MANIFEST)).unwrap();
    std::fs::remove_dir_all(&to).unwrap();
    let refused = target.hand_over(&log).unwrap_err();
    assert!(refused.to_string().contains("of another directory"), "{refused}");
    assert!(to.is_dir(), "made anew, and nothing is in it");
    std::fs::write(to.join(MANIFEST), &manifest).unwrap();
    // It names segments that are not there: that is what verification is for.
    target.hand_over(&log).unwrap();
    assert!(verify::verify(&to).unwrap_err().to_string().contains("missing"));
}

/// One hand-over at a time works on one log; one whose disk does not answer stops nobody else.
#[test]
fn a_target_that_hangs_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(&dir.path().join("log"), 100);
    let door = Arc::new(Door::default());
    let (at, behind) = (dir.path().join("hung"), door.clone());
    let hung = Gate::new(Arc::new(OsDir::new(&at)), move |what| match what {
        "dirsync ArchiveNames" => behind.pass(),
        _ => Ok(()),
    });
    let hung = Target::in_dir("hung", hung).unwrap();
    std::thread::scope(|scope| {
        let shut = door.shut_for_now();
        let log = &log;
        let waiting = scope.spawn(move || hung.hand_over(log).unwrap().segments);
        door.await_guest();
        let (tell, told) = std::sync::mpsc::channel();
        for n in 0..3 {
            let (to, tell) = (dir.path().join(format!("to-{n}")), tell.clone());
            scope.spawn(move || {
                let target = Target::new(format!("t-{n}"), &to).unwrap();
                let handed = (0..3).map(|_| target.hand_over(log).unwrap().segments).sum::<u64>();
                assert_eq!(verify::verify(&to).unwrap().segments, handed);
                tell.send(handed).unwrap();
            });
        }
        let others: std::result::Result<Vec<u64>, _> =
            (0..3).map(|_| told.recv_timeout(Duration::from_secs(30))).collect();
        drop(shut);
        assert!(others.as_ref().is_ok_and(|all| all.iter().all(|n| *n > 2)), "{others:?}");
        assert!(waiting.join().unwrap() > 2, "and it goes on when its disk answers");
    });
}

/// What cannot be read is not replaced, its hold stays, and the error names it.
#[test]
fn a_manifest_that_cannot_be_read_is_kept_and_named() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("log"), dir.path().join("to"));
    let log = filled(&path, 60);
    let target = Target::new("t", &to).unwrap();
    target.hand_over(&log).unwrap();
    let holds = log.holds();
    for n in 0..60u32 {
        log.append(vec![n as u8; 2_000]).unwrap();
    }
    let manifest = to.join(MANIFEST);
    let good = std::fs::read(&manifest).unwrap();
    let refused = |what: &str, kind: ErrorKind| {
        // By those that have written there before, and by a new one.
        for target in [&target, &Target::new("t", &to).unwrap()] {
            let error = target.hand_over(&log).unwrap_err();
            assert_eq!(error.kind(), kind, "{what}: {error}");
            assert!(error.to_string().contains(MANIFEST), "{what}: {error}");
        }
        let errors = [
            verify::verify(&to).map(drop).unwrap_err(),
            union::union(&log, &[&to], Lsn::FIRST).map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), kind, "{what}: {error}");
            assert!(error.to_string().contains(MANIFEST), "{what}: {error}");
        }
        assert_eq!(log.holds(), holds, "{what}");
        println!("{what}: {}", verify::verify(&to).unwrap_err());
    };
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("zeros", vec![0; good.len()]),
        ("half", good[..good.len() / 2].to_vec()),
        ("no text", vec![0xff; 100]),
        ("another thing", b"[1, 2, 3]".to_vec()),
    ] {
        std::fs::write(&manifest, &bytes).unwrap();
        refused(what, ErrorKind::Corrupt);
        assert!(std::fs::read(&manifest).unwrap() == bytes, "{what}: it was replaced");
    }
    std::fs::remove_file(&manifest).unwrap();
    std::fs::create_dir(&manifest).unwrap();
    refused("a directory", ErrorKind::Io);
    std::fs::remove_dir(&manifest).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, &good).unwrap();
    symlink(&elsewhere, &manifest).unwrap();
    refused("a link", ErrorKind::Io);
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, &good).unwrap();
    std::fs::set_permissions(&manifest, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::read(&manifest).is_err() {
        refused("no permission", ErrorKind::Io);
    } else {
        println!("no permission: not tried, this user may read everything");
    }
    std::fs::set_permissions(&manifest, PermissionsExt::from_mode(0o644)).unwrap();
    // Whole again, it goes on where it stood.
    assert!(target.hand_over(&log).unwrap().segments > 0);
    verify::verify(&to).unwrap();
    assert_eq!(everything(&log, &[&to]).len(), 120);
}

/// The wall clock steps back between segments: what was written before the step has later dates than
/// what came after it, and is kept with all that follows until those dates have passed, too.
#[test]
fn a_wall_clock_that_stepped_back_makes_retention_keep_more_and_never_less() {
    let disk = MemDir::new(9);
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let day = 86_400_000u64;
    let ms = |days: u64| WallTime(i64::try_from(days * day * 1_000_000).unwrap());
    let mut ends = Vec::new();
    // Days as the clock said them: it was set back from 20 to 12 and then went on.
    for days in [10, 20, 12, 14, 30] {
        disk.set_now_ms(days * day - day / 2);
        for _ in 0..2 {
            log.append(vec![1; 25_000]).unwrap(); // two to a segment
        }
        ends.push(log.durable_lsn().unwrap());
    }
    let head = |days| observer.retain(Retention::new().since(ms(days))).unwrap();
    assert_eq!(head(5), Lsn::FIRST);
    assert_eq!(head(13), ends[0].next().unwrap(), "day 10 only: day 12 stands behind day 20");
    assert_eq!(head(19), ends[0].next().unwrap(), "day 20 is younger");
    assert_eq!(head(21), ends[3].next().unwrap(), "all four, day 30 is kept");
    // By number and by size it goes as it always does, whatever the clock said.
    assert_eq!(observer.retain(Retention::new().records_max(1)).unwrap().get(), 10);
}

/// What an opening seals after an unclean end says no times, and what was never written in has no
/// LSNs. Neither may keep everything behind it for ever.
#[test]
fn segments_of_which_nobody_knows_the_age_go_with_the_next_old_one() {
    let disk = MemDir::new(11);
    // A log that was just dropped may keep its lock for a moment.
    let try_open = || Options::new().segment_bytes(64 << 10).open_in(disk.dir());
    let open = || (0..100).find_map(|_| try_open().ok()).expect("the lock is never free");
    disk.set_now_ms(86_400_000);
    for life in 0..4 {
        let log = open();
        if life != 2 {
            log.append(vec![1; 25_000]).unwrap();
        }
        drop(log);
    }
    let log = open();
    let observer = Observer::on(log.clone()).unwrap();
    for _ in 0..6 {
        log.append(vec![1; 25_000]).unwrap();
    }
    assert_eq!(observer.retain(Retention::new().since(WallTime(1))).unwrap(), Lsn::FIRST);
    let future = WallTime(i64::MAX);
    assert_eq!(observer.retain(Retention::new().since(future)).unwrap().get(), 8);
    // By size: all that stands before the newest two.
    assert_eq!(observer.retain(Retention::new().bytes_max(130 << 10)).unwrap().get(), 8);
}

/// By size no clock is asked; and a clock that is behind drops nothing.
#[test]
fn a_clock_in_the_past_drops_nothing_by_age_and_size_still_counts() {
    let disk = MemDir::new(10);
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    disk.set_now_ms(1_000_000_000);
    for _ in 0..8 {
        log.append(vec![1; 25_000]).unwrap();
    }
    disk.set_now_ms(1); // and on from 1970
    log.append(vec![1; 25_000]).unwrap();
    let policy = Retention::new().since(WallTime(500_000_000_000_000));
    assert_eq!(observer.retain(policy).unwrap(), Lsn::FIRST);
    let head = observer.retain(policy.bytes_max(3 * (64 << 10))).unwrap();
    assert!(head > Lsn::FIRST && head.get() <= 7, "{head}");
}
