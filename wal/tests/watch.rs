//! Files deleted or replaced under a living owner: found at the next sync, before anyone is told
//! that a record is durable. What an owner must never do is to go on writing into a file that has
//! no name (NousResearch/hermes-agent#90837), or to touch whatever took the place of its
//! directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use annals_wal::fs::gate::Gate;
use annals_wal::fs::mem::MemDir;
use annals_wal::{ErrorKind, Log, Lsn, Options};

const SEGMENT: &str = "00000000000000000001.wal";

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

/// The call that met it has an unknown outcome, the next one none at all; reads of the handle and
/// of the durable LSN stay where they were.
fn must_be_halted(log: &Log, what: &str, named: &str) {
    let durable = log.durable_lsn();
    let error = log.append("after").unwrap_err();
    println!("{what}: {error}");
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{what}: {error}");
    assert!(error.outcome_unknown(), "{what}: {error}");
    assert!(error.to_string().contains(named), "{what}: {error}");
    assert_eq!(log.durable_lsn(), durable, "{what}");
    assert!(log.poisoned().is_some());
    let error = log.append("again").unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Poisoned, false), "{what}");
    let error = log.clone().close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{what}");
}

/// Replaces a file as a restore from a backup does: a copy, renamed over it.
fn restore(file: &Path) {
    let copy = file.with_extension("restored");
    std::fs::copy(file, &copy).unwrap();
    std::fs::rename(&copy, file).unwrap();
}

type Call = fn(&Log) -> annals_wal::Result<()>;
type Damage = (&'static str, &'static str, fn(&Path));

#[test]
fn a_file_or_directory_that_goes_away_is_found_before_the_next_acknowledgement() {
    let damages: [Damage; 9] = [
        ("segment deleted", SEGMENT, |log| std::fs::remove_file(log.join(SEGMENT)).unwrap()),
        ("segment restored", SEGMENT, |log| restore(&log.join(SEGMENT))),
        ("segment renamed", SEGMENT, |log| {
            std::fs::rename(log.join(SEGMENT), log.join("00000000000000000009.old")).unwrap();
        }),
        ("segment is a link to itself", SEGMENT, |log| {
            std::fs::rename(log.join(SEGMENT), log.join("moved")).unwrap();
            std::os::unix::fs::symlink("moved", log.join(SEGMENT)).unwrap();
        }),
        ("lock deleted", "LOCK", |log| std::fs::remove_file(log.join("LOCK")).unwrap()),
        ("lock restored", "LOCK", |log| restore(&log.join("LOCK"))),
        ("directory deleted", "LOCK", |log| std::fs::remove_dir_all(log).unwrap()),
        ("directory moved away", "LOCK", |log| {
            std::fs::rename(log, log.with_extension("moved")).unwrap();
        }),
        ("directory restored", "LOCK", |log| {
            let away = log.with_extension("moved");
            std::fs::rename(log, &away).unwrap();
            std::fs::create_dir(log).unwrap();
            for entry in std::fs::read_dir(&away).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), log.join(entry.file_name())).unwrap();
            }
        }),
    ];
    for (what, named, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = options().open(&path).unwrap();
        log.append("before").unwrap();
        damage(&path);
        must_be_halted(&log, what, named);
        assert_eq!(log.durable_lsn(), Lsn::new(1));
    }
}

/// Every way of writing meets it: a batch of another caller's, a hold, a trim, a close.
#[test]
fn every_writing_call_meets_a_lost_file() {
    let calls: [(&str, Call); 4] = [
        ("submit", |log| log.submit(annals_wal::Record::new("x"))?.wait().map(drop)),
        ("hold", |log| log.set_hold("h", Lsn::FIRST)),
        ("trim", |log| log.trim(Lsn::new(2).unwrap()).map(drop)),
        ("close", |log| log.clone().close()),
    ];
    for (what, call) in calls {
        let disk = MemDir::new(5);
        let log = options().open_in(disk.dir()).unwrap();
        log.append("one").unwrap();
        log.append("two").unwrap();
        disk.lose(SEGMENT);
        let error = call(&log).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{what}: {error}");
        assert!(error.outcome_unknown(), "{what}: {error}");
        assert_eq!(log.durable_lsn(), Lsn::new(2), "{what}");
    }
}

fn contents(path: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let mut all: Vec<_> =
        entries.map(|e| (e.file_name(), std::fs::read(e.path()).unwrap())).collect();
    all.sort();
    all
}

/// `rm -rf` and a new log of the same name, by somebody else: the old owner must not prepare, trim
/// or write in it. Its own segments of the same numbers stand there.
#[test]
fn an_owner_whose_directory_was_replaced_never_touches_the_new_one() {
    let calls: [(&str, Call); 3] = [
        ("append", |log| log.append("x").map(drop)),
        // Too large for what is left, and for a spare: a segment must be prepared.
        ("prepare", |log| log.append(vec![1; 100_000]).map(drop)),
        ("trim", |log| log.trim(log.durable_lsn().unwrap()).map(drop)),
    ];
    for (what, call) in calls {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = options().open(&path).unwrap();
        for _ in 0..30 {
            log.append(vec![1; 9000]).unwrap();
        }
        std::fs::rename(&path, path.with_extension("moved")).unwrap();
        let other = options().open(&path).unwrap();
        for _ in 0..40 {
            other.append(vec![2; 9000]).unwrap();
        }
        // Its preparer has ended before anybody looks.
        other.prepare_ahead().unwrap();
        let before = contents(&path);
        let error = call(&log).unwrap_err();
        println!("{what}: {error}");
        assert!(log.poisoned().is_some(), "{what}: {error}");
        drop(log);
        assert_eq!(contents(&path), before, "{what}");
        other.append("goes on").unwrap();
        assert_eq!(other.range(..).unwrap().map(Result::unwrap).count(), 41);
    }
}

/// Only the lock file was deleted: a second owner gets in, and the first must not acknowledge a
/// thing from then on, rotation or not.
#[test]
fn a_second_owner_through_a_deleted_lock_file_halts_the_first() {
    let disk = MemDir::new(8);
    let first = options().open_in(disk.dir()).unwrap();
    first.append("by the first").unwrap();
    assert_eq!(options().open_in(disk.dir()).unwrap_err().kind(), ErrorKind::Locked);
    disk.lose("LOCK");
    let second = options().open_in(disk.dir()).unwrap();
    second.append("by the second").unwrap();
    must_be_halted(&first, "second owner", "LOCK");
    drop(first);
    second.append("goes on").unwrap();
    let payloads: Vec<_> = second.range(..).unwrap().map(|r| r.unwrap().payload).collect();
    assert_eq!(payloads[..2], [&b"by the first"[..], b"by the second"]);
    second.close().unwrap();
}

/// At every operation of a script with rotations, preparations and a trim, a name goes away or
/// leads to another file: nothing that began to be synced after that is acknowledged.
#[test]
fn whenever_a_name_is_lost_nothing_later_is_acknowledged() {
    let targets: [fn(&str) -> bool; 2] = [|name| name == "LOCK", |name| name.ends_with(".wal")];
    let mut halted = 0;
    for replace in [false, true] {
        for target in targets {
            for at in 0.. {
                let disk = MemDir::new(9);
                let acked = Arc::new(AtomicU64::new(0));
                let acked_before = Arc::new(Mutex::new(None));
                let operations = Arc::new(AtomicU64::new(0));
                let hook = {
                    let (disk, acked, before) = (disk.clone(), acked.clone(), acked_before.clone());
                    let operations = operations.clone();
                    move |op: &str| {
                        // The opening itself is not meant, nor what follows the last look: the
                        // control block is written when the group is durable and looked after.
                        if acked.load(Ordering::SeqCst) == 0 || op == "write CONTROL" {
                            return Ok(());
                        }
                        if operations.fetch_add(1, Ordering::SeqCst) == at {
                            *before.lock().unwrap() = Some(acked.load(Ordering::SeqCst));
                            for name in disk.names().into_iter().filter(|name| target(name)) {
                                if replace { disk.replace(&name) } else { disk.lose(&name) }
                            }
                        }
                        Ok(())
                    }
                };
                let log = options().open_in(Gate::new(disk.dir(), hook)).unwrap();
                let result = script(&log, &acked);
                let Some(before) = *acked_before.lock().unwrap() else {
                    result.unwrap();
                    assert!(at > 20, "the script has only {at} operations");
                    break;
                };
                let error = result.expect_err("nobody noticed");
                assert_eq!(acked.load(Ordering::SeqCst), before, "operation {at}: {error}");
                assert!(log.poisoned().is_some(), "operation {at}: {error}");
                halted += 1;
            }
        }
    }
    println!("halted {halted} times");
}

fn script(log: &Log, acked: &AtomicU64) -> annals_wal::Result<()> {
    for n in 0..16u64 {
        log.append(vec![n as u8; 9000])?;
        acked.fetch_add(1, Ordering::SeqCst);
    }
    log.trim(Lsn::new(12).unwrap())?;
    for n in 0..8u64 {
        log.append(vec![n as u8; 9000])?;
        acked.fetch_add(1, Ordering::SeqCst);
    }
    log.set_hold("end", Lsn::new(20).unwrap())
}
