//! Bugs that reviews of the tool's side found, one test each: copies that were broken off, memory that
//! followed the damage, reads that were longer than asked for, holds, backups, forged indexes.
//!
//! Those of readers and their indexes are in `index.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and damages real files"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_wal::diagnose::{DAMAGES_MAX, Scope, diagnose, diagnose_in};
use annals_wal::format::{self, FrameHeader, KIND_OPEN, OwnBody, SegmentHeader};
use annals_wal::fs::gate::Gate;
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::fs::{Dir, os::OsDir};
use annals_wal::inspect::{Depth, FINDINGS_MAX, State, inspect_in};
use annals_wal::recover::Facts;
use annals_wal::salvage::{SalvageOptions, salvage, salvage_in};
use annals_wal::survey::{DAMAGES_KEPT, DamageClass, Survey};
use annals_wal::{ErrorKind, Generation, Log, LogReader, Lsn, Options, Sequence};

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn name(n: u64) -> String {
    format::segment_name(Sequence::new(n).unwrap())
}

fn small(disk: &MemDir, segments: u64) -> Log {
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    while log.stats().rotations + 1 < segments {
        log.append(vec![7; 3000]).unwrap();
    }
    log
}

/// Wherever a copy is broken off, it is no log to a reader either, and the inspector says which it is.
/// The mark's words are synced before its name: only a crash in between, before there is any file,
/// leaves one that may as well be an archive's.
#[test]
fn a_copy_that_was_broken_off_is_named_and_not_read() {
    let source = MemDir::new(1);
    small(&source, 3).close().unwrap();
    let run = |to: &MemDir| {
        salvage_in(&*source.dir(), Some(&*to.dir()), SalvageOptions::default(), &mut |_| ())
    };
    let target = MemDir::new(2);
    run(&target).unwrap();
    let (mut told, mut doubts) = (0, 0);
    for stop in 0..target.ops() {
        for keep in [Keep::Nothing, Keep::Everything, Keep::Some(stop)] {
            let target = MemDir::new(2);
            target.stop_after(stop);
            let _ = run(&target);
            let after = target.crash(keep);
            if !after.names().contains(&"ARCHIVE".to_owned()) {
                continue;
            }
            told += 1;
            let error = LogReader::open_in(after.dir()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Archived, "after {stop}: {error}");
            assert!(error.to_string().contains("unfinished"), "after {stop}: {error}");
            let report = inspect_in(&after.dir(), Depth::Everything, &mut |_| ()).unwrap();
            let scope = Scope { depth: Depth::Seals, maps: true, threads: 1 };
            let diagnosis = diagnose_in(&after.dir(), scope, &mut |_| ()).unwrap();
            if report.state == State::Unfinished {
                assert!(diagnosis.unfinished.is_some() && diagnosis.damages.is_empty());
                assert!(error.to_string().contains("remove this directory"), "{error}");
            } else {
                doubts += 1;
                assert!(!after.names().iter().any(|name| name.contains(".wal")), "after {stop}");
                assert_eq!(report.state, State::Corrupt, "after {stop}");
                assert!(report.findings.iter().any(|f| f.why.contains("lost its bytes")));
                assert!(diagnosis.unfinished.is_none() && diagnosis.doubtful);
            }
        }
    }
    assert!(told - doubts > 10 && doubts > 0, "{told} broken-off copies, {doubts} in doubt");
}

/// An archive whose manifest is damaged is no broken-off copy: what it holds may be all there is.
#[test]
fn a_damaged_manifest_is_no_mark_of_a_copy() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("archive");
    let log = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    while log.stats().rotations < 2 {
        log.append(vec![7; 3000]).unwrap();
    }
    log.close().unwrap();
    let mark = "unfinished: a backup was broken off here: remove this directory\n";
    let cases: [(Vec<u8>, bool); 7] = [
        (Vec::new(), true),
        (vec![0; 1], true),
        (vec![0; mark.len()], true),
        (mark.as_bytes()[..20].to_vec(), true),
        (mark.as_bytes()[..5].to_vec(), true),
        (vec![0; 300], false),
        ([mark.as_bytes(), &[b' '; 300]].concat(), false),
    ];
    let segment = path.join(name(1));
    for damaged in [false, true] {
        if damaged {
            let mut bytes = std::fs::read(&segment).unwrap();
            bytes[9000] ^= 1;
            std::fs::write(&segment, bytes).unwrap();
        }
        for (bytes, doubt) in &cases {
            let what = format!("{damaged} {:?}", String::from_utf8_lossy(bytes));
            std::fs::write(path.join("ARCHIVE"), bytes).unwrap();
            let scope = Scope { depth: Depth::Everything, maps: false, threads: 1 };
            let diagnosis = diagnose(&path, scope, &mut |_| ()).unwrap();
            assert_eq!((diagnosis.doubtful, diagnosis.unfinished), (*doubt, None), "{what}");
            let found = diagnosis.damages.iter().any(|d| d.segment == Sequence::new(1));
            assert_eq!(found, damaged, "{what}: {:?}", diagnosis.damages);
            let bad = *doubt || damaged || bytes.first() == Some(&0);
            let due = if bad { State::Corrupt } else { State::Clean };
            assert_eq!(diagnosis.report.state, due, "{what}");
            let read = LogReader::open(&path);
            let planned = annals_wal::salvage::repair::plan(&path, SalvageOptions::default());
            if *doubt {
                let error = read.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Archived, "{what}");
                assert!(error.to_string().contains("--dry-run"), "{what}: {error}");
                assert_eq!(planned.unwrap_err().kind(), ErrorKind::Archived, "{what}");
            } else {
                // Damaged or not: no log that can be written takes an archive's place.
                let error = planned.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Archived, "{what}");
                assert!(error.to_string().contains("--to NEW"), "{what}: {error}");
                let mut records = read.unwrap().range(..).unwrap();
                assert!(records.next().unwrap().is_ok(), "{what}");
                // What is called clean is read to its end.
                let rest = records.find_map(Result::err);
                assert_eq!(rest.is_some(), damaged, "{what}: {rest:?}");
            }
        }
    }
    // And what is without doubt a mark has no plan: it is no log.
    std::fs::write(path.join("ARCHIVE"), mark).unwrap();
    let error = annals_wal::salvage::repair::plan(&path, SalvageOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Archived, "{error}");
    assert!(error.to_string().contains("remove this directory"), "{error}");
}

/// A limit on maps or on address space is no reason to refuse a read.
#[test]
fn a_map_that_is_refused_is_read_instead() {
    let base = tempfile::tempdir().unwrap();
    let refused = Arc::new(AtomicU64::new(0));
    let count = refused.clone();
    let dir = Gate::new(Arc::new(OsDir::new(base.path().join("log"))), move |operation| {
        if operation.starts_with("map ") {
            count.fetch_add(1, Ordering::Relaxed);
            return Err(std::io::Error::from_raw_os_error(12));
        }
        Ok(())
    });
    let log = Options::new().segment_bytes(64 << 10).open_in(dir as Arc<dyn Dir>).unwrap();
    while log.stats().rotations < 3 {
        log.append(vec![7; 3000]).unwrap();
    }
    let due: Vec<_> = log.range(..).unwrap().map(Result::unwrap).collect();
    let read: Vec<_> = log.range(..).unwrap().mapped().map(Result::unwrap).collect();
    assert!(refused.load(Ordering::Relaxed) >= 3, "every sealed segment was to be mapped");
    assert!(read == due, "other records");
    log.close().unwrap();
}

/// A foreign reader's `get` reads the control block, and the segment up to the record.
#[test]
fn a_get_beside_the_owner_reads_no_more_of_the_active_segment_than_it_needs() {
    let disk = MemDir::new(3);
    let log = Options::new().segment_bytes(8 << 20).open_in(disk.dir()).unwrap();
    for n in 0..700u32 {
        log.append(n.to_le_bytes().repeat(2500)).unwrap();
    }
    let reader = LogReader::open_in(disk.dir()).unwrap();
    let reads = |n: u64| {
        let before = disk.reads();
        let record = reader.get(lsn(n)).unwrap();
        assert_eq!(record.payload[..4], (n as u32 - 1).to_le_bytes());
        disk.reads() - before
    };
    let (first, middle, last) = (reads(2), reads(350), reads(700));
    println!("{first}, {middle} and {last} reads");
    assert!(first < 12 && middle < last, "{first}, {middle} and {last} reads");
    // What was appended since is there, across rotations too; what is not durable is not.
    assert_eq!(reader.get(lsn(701)).unwrap_err().kind(), ErrorKind::OutOfRange);
    let next = log.append(700u32.to_le_bytes().repeat(2500)).unwrap();
    assert_eq!(reader.get(next).unwrap().lsn, next);
    while log.stats().rotations < 2 {
        log.append(vec![1; 100_000]).unwrap();
    }
    let last = log.durable_lsn().unwrap();
    assert_eq!(reader.get(last).unwrap().lsn, last);
    log.trim(last).unwrap();
    assert_eq!(reader.get(lsn(5)).unwrap_err().kind(), ErrorKind::Trimmed);
    // Without a rotation the head is the one of this reader's opening, as long as the segment is there.
    let reader = LogReader::open_in(disk.dir()).unwrap();
    let first = log.head_lsn();
    assert_eq!(reader.head_lsn(), first);
    let next = log.append(vec![1; 100]).unwrap();
    log.trim(next).unwrap();
    assert!(log.head_lsn() > first && log.get(first).is_err());
    assert_eq!(reader.get(first).unwrap().lsn, first);
    let again = LogReader::open_in(disk.dir()).unwrap();
    assert_eq!(again.get(first).unwrap_err().kind(), ErrorKind::Trimmed);
    log.close().unwrap();
}

/// Every second frame of a segment is bad: what is listed has a cap, and the rest is counted.
#[test]
fn damages_beyond_a_cap_are_counted_and_take_no_memory() {
    let disk = MemDir::new(4);
    let log = Options::new().segment_bytes(1 << 20).open_in(disk.dir()).unwrap();
    let one = annals_wal::Record::new(vec![3; 8]);
    while log.stats().rotations < 14 {
        log.append_batch((0..200).map(|_| one.clone()).collect::<annals_wal::Batch>()).unwrap();
    }
    log.close().unwrap();
    let mut broken = 0;
    for segment in 1..=14 {
        let mut bytes = disk.bytes(&name(segment)).unwrap();
        // Records of 40 bytes from the first one on: every fourth payload is hit.
        let first = bytes.windows(8).position(|window| window == [3; 8]).unwrap();
        for at in (first..900_000)
            .step_by(160)
            .filter(|at| bytes[*at..at + 8] == [3; 8])
            .collect::<Vec<_>>()
        {
            bytes[at] = 4;
            broken += 1;
        }
        disk.set_bytes(&name(segment), bytes);
    }
    assert!(broken > 2 * DAMAGES_MAX, "{broken}");
    let scope = Scope { depth: Depth::Everything, maps: true, threads: 1 };
    let diagnosis = diagnose_in(&disk.dir(), scope, &mut |_| ()).unwrap();
    let report = &diagnosis.report;
    assert_eq!(report.state, State::Corrupt);
    assert_eq!(report.findings.len() as u64 + report.findings_cut, broken as u64);
    assert!(report.findings.len() <= FINDINGS_MAX);
    assert_eq!(diagnosis.damages.len() as u64 + diagnosis.damages_cut, broken as u64);
    assert!(diagnosis.damages.len() <= DAMAGES_MAX);
    let spans = diagnosis.maps.iter().map(|map| map.spans.len()).max().unwrap();
    assert!(spans <= 4096, "{spans} spans in a map");
    for map in &diagnosis.maps {
        assert!(map.spans.windows(2).all(|pair| pair[0].to == pair[1].from), "no step in a map");
        assert_eq!(map.spans.last().map(|span| span.to), Some(map.len));
    }
}

/// The same in the active segment, which an opening reads: what is listed of it has a cap, the rest is
/// counted, and what decides on the verdict is listed wherever it stands.
#[test]
fn damages_of_the_active_segment_have_a_cap_and_hide_no_verdict() {
    let header = SegmentHeader {
        shared: false,
        compatible: 0,
        log_id: annals_wal::LogId([1; 16]),
        sequence: Sequence::FIRST,
        capacity: 1 << 20,
        salt: 7,
        created_ms: 0,
    };
    // Records of no payload with a wrong checksum, and one in the middle that no writer writes.
    let survey = |odd: Option<(u64, u8, u16)>, hole: bool| {
        let mut bytes = header.encode().to_vec();
        for n in 1..=5000 {
            let mut frame = FrameHeader {
                payload_crc: 1,
                lsn: n,
                len: 0,
                durable_lag: 0,
                stream: 0,
                kind: 1,
                flags: format::FLAG_BATCH_FIRST,
                codec: 0,
            };
            if let Some((_, flags, kind)) = odd.filter(|odd| odd.0 == n) {
                (frame.flags, frame.kind) = (flags, kind);
            }
            let lost = hole && n == 4990;
            let frame = frame.encode(header.salt, bytes.len() as u64);
            bytes.extend_from_slice(if lost { &[0xEE; 32] } else { &frame });
        }
        bytes.resize(1 << 20, 0);
        Survey::of(&bytes[..], &header).unwrap()
    };
    let classes = |survey: &Survey| {
        let mut classes: Vec<DamageClass> = survey.damages.iter().map(|d| d.class).collect();
        classes.dedup();
        (classes, survey.damages.len() as u64 + survey.damages_cut)
    };
    let plain = survey(None, false);
    assert_eq!(classes(&plain), (vec![DamageClass::Tearable], 5000));
    assert_eq!((plain.damages.len(), plain.damaged_lsn), (DAMAGES_KEPT, 5000));
    // Own kinds that may not be passed over are a newer version's.
    for (flags, kind, class) in [
        (0, 0x8020, DamageClass::Unsupported),
        (0x80 | format::FLAG_BATCH_FIRST, 1, DamageClass::Unsupported),
        (0, 1, DamageClass::Impossible),
    ] {
        let odd = survey(Some((4000, flags, kind)), false);
        assert_eq!(classes(&odd).0, [DamageClass::Tearable, class], "{flags:x} {kind:x}");
        assert_eq!(odd.damages.last().unwrap().lsns, (4000, 4000));
        assert!(odd.damages.len() <= DAMAGES_KEPT + 2);
    }
    // A run that no frame stands in is bounded by the frame after it, listed or counted.
    let hole = survey(None, true);
    assert_eq!((classes(&hole).1, hole.damaged_lsn), (5000, 5000));
}

/// A hold below the new head holds what is left: without it the next trim would take records that
/// an archive has not got.
#[test]
fn a_salvage_keeps_holds_whose_records_are_partly_lost() {
    let base = tempfile::tempdir().unwrap();
    let (from, to) = (base.path().join("log"), base.path().join("new"));
    let log = Options::new().segment_bytes(64 << 10).open(&from).unwrap();
    log.set_hold("archive:nightly", lsn(5)).unwrap();
    while log.stats().rotations < 3 {
        log.append(vec![7; 3000]).unwrap();
    }
    log.close().unwrap();
    for lost in 1..=2 {
        std::fs::remove_file(from.join(name(lost))).unwrap();
    }
    let report = salvage(&from, &to, SalvageOptions::default(), &mut |_| ()).unwrap();
    assert!(report.first_lsn > lsn(5), "{report:?}");
    let log = Log::open(&to).unwrap();
    assert_eq!(log.holds(), vec![("archive:nightly".to_owned(), report.first_lsn)]);
    log.append(vec![7; 100]).unwrap();
    assert_eq!(log.trim(lsn(u64::MAX / 2)).unwrap_or(report.first_lsn), report.first_lsn);
    log.close().unwrap();
}

/// A checkpoint that is made while a backup runs: its snapshot says of records that the copy has not.
#[test]
fn a_snapshot_that_is_made_during_a_backup_is_not_in_it() {
    let disk = MemDir::new(6);
    let log = small(&disk, 2);
    let (later, target) = (log.clone(), MemDir::new(7));
    let made = Arc::new(AtomicU64::new(0));
    let (disk_of_hook, count) = (disk.clone(), made.clone());
    let gate = Gate::new(target.dir(), move |operation| {
        if operation == "create ARCHIVE" {
            let lsn = later.append("after the bound").unwrap();
            let (log_id, generation) = (later.log_id(), Generation::FIRST);
            let header = format::SnapshotHeader { log_id, lsn, generation };
            let name = format!("registry-{}.snap", lsn.get());
            disk_of_hook.dir().create(&name).unwrap();
            disk_of_hook.set_bytes(&name, header.encode().to_vec());
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    log.backup_in(gate as Arc<dyn Dir>).unwrap();
    assert_eq!(made.load(Ordering::Relaxed), 1);
    let copy = Options::new().open_in(target.dir()).unwrap();
    assert_eq!(copy.durable_lsn(), log.durable_lsn().and_then(|last| lsn(last.get() - 1).into()));
    copy.close().unwrap();
    log.close().unwrap();
}

/// A backup is finished, and its mark gone, between an inspector's look at the names and its look at the
/// mark: what is there is a log, and not an archive whose last segment has no seal.
#[test]
fn a_backup_that_is_finished_while_somebody_looks_is_a_log() {
    let disk = MemDir::new(8);
    drop(small(&disk, 2));
    let mark = "unfinished: a backup was broken off here: remove this directory\n";
    disk.dir().create("ARCHIVE").unwrap();
    disk.set_bytes("ARCHIVE", mark.as_bytes().to_vec());
    let gate = Gate::new(disk.dir(), |_| Ok(()));
    let finished = disk.clone();
    // The mark is the first file that is opened.
    gate.before_open(0, move || finished.lose("ARCHIVE"));
    let facts = Facts::read(&*gate).unwrap();
    assert!(gate.was_called());
    assert!(!facts.archive && facts.mark.is_none());
    let report = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap();
    assert!(report.state < State::TornTail, "{report:?}");
}

/// An index that stands in an own record which is no seal means nothing and is compared with nothing:
/// a forged segment of such records took hours.
#[test]
fn an_index_in_another_own_record_is_not_compared() {
    let header = SegmentHeader {
        shared: false,
        compatible: 0,
        log_id: annals_wal::LogId([1; 16]),
        sequence: Sequence::FIRST,
        capacity: 64 << 10,
        salt: 7,
        created_ms: 0,
    };
    let body = OwnBody {
        generation: Some(Generation::FIRST),
        head: Some(Lsn::FIRST),
        index: Some([1u32.to_le_bytes(), 0u32.to_le_bytes()].concat()),
        ..OwnBody::default()
    };
    let payload = body.encode();
    let frame = FrameHeader {
        payload_crc: format::crc32(&payload),
        lsn: 0,
        len: payload.len() as u32,
        durable_lag: 0,
        stream: 0,
        kind: KIND_OPEN,
        flags: 0,
        codec: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&frame.encode(header.salt, 128));
    bytes.extend_from_slice(&payload);
    bytes.resize(64 << 10, 0);
    let survey = Survey::of(&bytes[..], &header).unwrap();
    assert_eq!((survey.own.len(), survey.damages.len()), (1, 0), "{:?}", survey.damages);
    assert_eq!(survey.index_holds, None);
}
