//! Readers that own nothing: what they see, what they never see, and that they never write.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeMap;
use std::path::Path;

use annals_wal::fs::mem::MemDir;
use annals_wal::inspect::{Depth, State, inspect, inspect_in};
use annals_wal::{Batch, ErrorKind, Log, LogReader, Lsn, Options, Record};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

#[test]
fn a_reader_sees_every_acknowledged_record_of_a_living_owner() {
    let disk = MemDir::new(51);
    let log = options().open_in(disk.dir()).unwrap();
    let reader = LogReader::open_in(disk.dir()).unwrap();
    for n in 1..=100u64 {
        log.append(vec![n as u8; 2000]).unwrap();
        assert_eq!(reader.range(..).unwrap().map(Result::unwrap).count() as u64, n);
    }
    assert!(reader.is_live().unwrap());
    drop(log);
}

#[test]
fn following_goes_across_rotation_restart_and_trim_by_lsn() {
    let disk = MemDir::new(52);
    let mut written = 0u64;
    let mut write = |log: &Log, count: u64| {
        for _ in 0..count {
            written += 1;
            log.append(written.to_le_bytes().repeat(400)).unwrap();
        }
    };
    let log = options().open_in(disk.dir()).unwrap();
    write(&log, 1);
    let mut follow = LogReader::open_in(disk.dir()).unwrap().follow(lsn(1)).unwrap();
    let mut next = 1u64;
    let mut catch_up = |to: u64| {
        while let Some(record) = follow.try_next().unwrap() {
            assert_eq!(record.lsn.get(), next);
            assert_eq!(record.payload[..8], next.to_le_bytes());
            next += 1;
        }
        assert_eq!(next, to + 1);
    };
    catch_up(1);
    write(&log, 30);
    catch_up(31);
    log.close().unwrap();
    let log = options().open_in(disk.dir()).unwrap();
    write(&log, 5);
    catch_up(36);
    drop(log);
    let log = options().open_in(disk.dir()).unwrap();
    write(&log, 40);
    catch_up(76);
    log.trim(lsn(70)).unwrap();
    write(&log, 40);
    catch_up(116);
}

#[test]
fn a_follower_that_was_overtaken_by_a_trim_is_told() {
    let disk = MemDir::new(53);
    let log = options().open_in(disk.dir()).unwrap();
    log.append("one").unwrap();
    let mut follow = LogReader::open_in(disk.dir()).unwrap().follow(lsn(1)).unwrap();
    for _ in 0..60 {
        log.append(vec![0; 9_000]).unwrap();
    }
    log.trim(lsn(50)).unwrap();
    let error = loop {
        match follow.try_next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was told nothing"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Trimmed, "{error}");
    assert_eq!(log.get(lsn(3)).unwrap_err().kind(), ErrorKind::Trimmed);
    let kind = LogReader::open_in(disk.dir()).unwrap().range(lsn(1)..).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::Trimmed);
}

/// Bytes that a write has put into the file but no sync has covered are nobody's to see.
#[test]
fn a_reader_never_sees_what_no_sync_covered_unless_it_asks() {
    let disk = MemDir::new(54);
    let log = options().open_in(disk.dir()).unwrap();
    log.append("durable").unwrap();
    // The machine stops between the write and the sync of the next group.
    disk.stop_after(disk.ops() + 1);
    log.append("written only").unwrap_err();
    let next = disk.killed();
    let reader = LogReader::open_in(next.dir()).unwrap();
    let seen: Vec<_> = reader.range(..).unwrap().map(|r| r.unwrap().payload).collect();
    assert_eq!(seen, [b"durable".to_vec()]);
    let all: Vec<_> =
        reader.unproven(true).range(..).unwrap().map(|r| r.unwrap().payload).collect();
    assert_eq!(all, [b"durable".to_vec(), b"written only".to_vec()]);
    let report = inspect_in(&next.dir(), Depth::Everything, &mut |_| ()).unwrap();
    assert_eq!((report.state, report.proven_lsn), (State::Unclean, Some(lsn(1))));
}

#[test]
fn an_unproven_batch_without_its_end_is_not_shown() {
    let disk = MemDir::new(55);
    let log = options().open_in(disk.dir()).unwrap();
    log.append("durable").unwrap();
    let batch: Batch = (0..3).map(|n| Record::new(vec![n; 600])).collect();
    disk.stop_after(disk.ops() + 1);
    log.append_batch(batch).unwrap_err();
    let torn = disk.killed().copied();
    let name = "00000000000000000001.wal";
    let mut bytes = torn.bytes(name).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 300..].fill(0);
    torn.set_bytes(name, bytes);
    let reader = LogReader::open_in(torn.dir()).unwrap().unproven(true);
    assert_eq!(reader.range(..).unwrap().map(Result::unwrap).count(), 1);
}

/// Asking for what no sync has covered takes nothing away from what one has: damage there is
/// corruption, not a torn end.
#[test]
fn an_unproven_reader_calls_damage_to_what_was_promised_by_its_name() {
    let disk = MemDir::new(56);
    let log = options().open_in(disk.dir()).unwrap();
    for n in 1..=10u8 {
        log.append(vec![n; 100]).unwrap();
    }
    let name = "00000000000000000001.wal";
    let killed = disk.killed();
    let sound = killed.bytes(name).unwrap();
    let fifth = sound.windows(100).position(|bytes| bytes == [5; 100]).unwrap();
    let tenth = sound.windows(100).position(|bytes| bytes == [10; 100]).unwrap();
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut zeroed = sound.clone();
    zeroed[fifth - 32..].fill(0);
    let cases = [
        ("a flipped byte", flipped(fifth), 5),
        ("zeros", zeroed, 5),
        ("a cut file", sound[..fifth - 32].to_vec(), 5),
        ("the last record, which CONTROL vouches for", flipped(tenth), 10),
    ];
    for (what, bytes, bad) in cases {
        killed.set_bytes(name, bytes);
        let reader = LogReader::open_in(killed.dir()).unwrap().unproven(true);
        let mut records = reader.range(..).unwrap();
        let kind = |error: annals_wal::Error| error.kind();
        for n in 1..bad {
            assert_eq!(records.next().unwrap().unwrap().lsn, lsn(n), "{what}");
        }
        assert_eq!(records.next().unwrap().map_err(kind), Err(ErrorKind::Corrupt), "{what}");
        for n in bad..=10 {
            assert_eq!(reader.get(lsn(n)).map_err(kind), Err(ErrorKind::Corrupt), "{what} {n}");
        }
        let mut follow = reader.follow(lsn(bad)).unwrap();
        assert_eq!(follow.try_next().map_err(kind), Err(ErrorKind::Corrupt), "{what}");
    }
    drop(log);
}

/// Every file of a directory, its times left out: reading may set those.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

#[test]
fn reading_and_inspecting_change_no_byte_and_make_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = options().open(&path).unwrap();
    for n in 0..50u32 {
        log.append(vec![n as u8; 3000]).unwrap();
    }
    // Whoever prepares has ended before anybody looks.
    log.prepare_ahead().unwrap();
    for closed in [false, true] {
        if closed {
            log.clone().close().unwrap();
        }
        let before = contents(&path);
        let report = inspect(&path, Depth::Everything, &mut |_| ()).unwrap();
        let want = if closed { State::Clean } else { State::Live };
        assert_eq!((report.state, report.live), (want, !closed));
        assert_eq!(report.records, Some(50));
        assert_eq!(report.findings, []);
        let reader = LogReader::open(&path).unwrap();
        assert_eq!(reader.range(..).unwrap().map(Result::unwrap).count(), 50);
        assert!(reader.follow(lsn(1)).unwrap().try_next().unwrap().is_some());
        assert!(contents(&path) == before, "a reading tool wrote");
    }
}

#[test]
fn inspecting_a_writer_at_full_speed_never_cries_wolf() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = options().open(&path).unwrap();
    std::thread::scope(|scope| {
        // So many records, and no more: a reader that is slower than the writers would never end.
        let write = || {
            for _ in 0..4_000 {
                log.append(vec![7; 1500]).unwrap();
            }
        };
        let writers = [scope.spawn(write), scope.spawn(write)];
        let mut rounds = 0;
        while rounds < 20 || !writers.iter().all(|writer| writer.is_finished()) {
            rounds += 1;
            let report = inspect(&path, Depth::Everything, &mut |_| ()).unwrap();
            assert_eq!(report.state, State::Live, "{:?}", report.findings);
            let reader = LogReader::open(&path).unwrap();
            for (due, record) in (1..).zip(reader.range(..).unwrap()) {
                assert_eq!(record.unwrap().lsn.get(), due);
            }
        }
        println!("{rounds} rounds");
    });
}

/// Wrong answers that a race could give; a trim that overtook the reader is none.
fn unless_trimmed<T>(answer: annals_wal::Result<T>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::Trimmed => None,
        Err(error) => panic!("a sound log beside its writer: {error:?}"),
    }
}

/// Follows until the writer is done and everything up to its last record was seen or trimmed.
fn follow_to(path: &Path, last: u64) {
    let reader = LogReader::open(path).unwrap();
    let (mut from, mut seen) = (1, 0);
    while seen < last {
        let Some(mut follow) = unless_trimmed(reader.follow(lsn(from))) else {
            from = LogReader::open(path).unwrap().head_lsn().get();
            continue;
        };
        while let Some(next) = unless_trimmed(follow.try_next()) {
            let Some(record) = next else { continue };
            seen = record.lsn.get();
            assert!(record.payload.iter().all(|byte| *byte == seen as u8), "LSN {seen}");
            if seen == last {
                return;
            }
        }
        from = LogReader::open(path).unwrap().head_lsn().get();
    }
}

/// One range near the end; every LSN comes once and nothing acknowledged before it is left out.
fn range_reaches(path: &Path, acknowledged: u64) {
    let from = acknowledged.saturating_sub(30).max(1);
    let reader = unless_trimmed(LogReader::open(path));
    let Some(range) = reader.and_then(|reader| unless_trimmed(reader.range(lsn(from)..))) else {
        return;
    };
    let mut next = from;
    for record in range {
        let Some(record) = unless_trimmed(record) else { return };
        assert_eq!(record.lsn.get(), next);
        next += 1;
    }
    assert!(next > acknowledged, "{acknowledged} was durable, the range ended before {next}");
}

/// Appending, rotating and trimming at full speed: whoever looks on from outside gets no error of
/// the system, no damage that is not there, and no hole.
#[test]
fn onlookers_of_a_writer_that_rotates_and_trims_are_never_misled() {
    use std::sync::atomic::{AtomicU64, Ordering};
    const LAST: u64 = 4_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = options().open(&path).unwrap();
    log.append(vec![1; 100]).unwrap();
    let acknowledged = AtomicU64::new(1);
    let now = || acknowledged.load(Ordering::Acquire);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 2..=LAST {
                log.append(vec![n as u8; (n * 37 % 9000) as usize]).unwrap();
                acknowledged.store(n, Ordering::Release);
                if n % 300 == 0 {
                    log.trim(lsn(n - 100)).unwrap();
                }
            }
        });
        scope.spawn(|| follow_to(&path, LAST));
        scope.spawn(|| {
            while now() < LAST {
                range_reaches(&path, now());
            }
        });
        for depth in [Depth::Seals, Depth::Everything].into_iter().cycle().take(60) {
            let report = inspect(&path, depth, &mut |_| ()).unwrap();
            assert_eq!(report.state, State::Live, "{:?}", report.findings);
        }
    });
    range_reaches(&path, LAST);
}

/// Nothing stands behind a copy's last group: what is damaged there would be cut as a torn end.
#[test]
fn a_backup_of_a_damaged_end_is_refused() {
    let name = "00000000000000000001.wal";
    for (what, cut) in [("a flipped byte", false), ("a cut file", true)] {
        let disk = MemDir::new(57);
        let log = options().open_in(disk.dir()).unwrap();
        for n in 1..=3u8 {
            log.append(vec![n; 100]).unwrap();
        }
        let mut bytes = disk.bytes(name).unwrap();
        let third = bytes.windows(100).position(|bytes| bytes == [3; 100]).unwrap();
        if cut {
            bytes.truncate(third);
        } else {
            bytes[third] ^= 1;
        }
        disk.set_bytes(name, bytes);
        let copy = MemDir::new(58);
        let error = log.backup_in(copy.dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        let error = options().open_in(copy.dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Archived, "{what}: {error}");
    }
}

#[test]
fn a_backup_of_a_living_log_is_whole_and_refuses_a_full_directory() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path().join("log")).unwrap();
    let copy = dir.path().join("copy");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..300u32 {
                log.append(n.to_le_bytes().repeat(300)).unwrap();
            }
        });
        let report = log.backup(&copy).unwrap();
        let backup = options().open(&copy).unwrap();
        let read: Vec<_> = backup.range(..).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.last().map(|r| r.lsn), report.last_lsn);
        for (n, record) in (0u32..).zip(&read) {
            assert_eq!(record.payload, n.to_le_bytes().repeat(300));
        }
        assert_eq!(log.backup(&copy).unwrap_err().kind(), ErrorKind::Invalid);
        writer.join().unwrap();
    });
}
