//! Salvage where a log ends too early: every LSN that it is known to have had is in the new log, as a
//! record or as a placeholder, or is named in the report; and none is given a second time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and damages real files"
)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use annals_wal::format::{FrameHeader, HeaderVerdict, SegmentHeader, SnapshotHeader};
use annals_wal::inspect::{Depth, State, inspect};
use annals_wal::salvage::compare::compare;
use annals_wal::salvage::{SalvageOptions, SalvageReport, salvage, salvage_plan};
use annals_wal::{ErrorKind, Kind, Log, Lsn, Options};

fn segment(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:020}.wal"))
}

fn opened(dir: &Path) -> Log {
    Options::new().segment_bytes(64 << 10).open(dir).unwrap()
}

/// Ten records in segment 1, which the next opening sealed, and segment 2 with the open record alone.
fn made(dir: &Path) {
    let log = opened(dir);
    for n in 1..=10u32 {
        log.append(format!("record {n} ").repeat(20)).unwrap();
    }
    drop(log);
    drop(opened(dir));
}

/// Every sound frame of a segment: LSN, kind, offset and the offset behind it.
fn frames(dir: &Path, sequence: u64) -> Vec<(u64, u16, u64, u64)> {
    let bytes = fs::read(segment(dir, sequence)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!("no header") };
    let (mut frames, mut at) = (Vec::new(), 128);
    while let Some(chunk) = bytes.get(at..at + 32) {
        let frame = FrameHeader::decode(chunk.first_chunk().unwrap(), header.salt, at as u64);
        let Some(frame) = frame else { break };
        let end = at as u64 + frame.frame_size();
        frames.push((frame.lsn, frame.kind, at as u64, end));
        at = end as usize;
    }
    frames
}

const SEAL: u16 = 0x8002;

fn offset_of(dir: &Path, sequence: u64, lsn: u64) -> u64 {
    let is_it = |(own, kind, ..): &&(u64, u16, u64, u64)| *own == lsn && *kind < 0x8000;
    frames(dir, sequence).iter().find(is_it).unwrap().2
}

fn seal_of(dir: &Path, sequence: u64) -> u64 {
    frames(dir, sequence).iter().find(|(_, kind, ..)| *kind == SEAL).unwrap().2
}

fn patch(dir: &Path, sequence: u64, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(segment(dir, sequence)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Noise over the frames of these records, headers too.
fn ruin(dir: &Path, sequence: u64, from: u64, to: u64) {
    patch(dir, sequence, from, &vec![0xA7; (to - from) as usize]);
}

/// One byte of a frame's payload.
fn hurt(dir: &Path, sequence: u64, offset: u64) {
    patch(dir, sequence, offset + 40, &[0xEE]);
}

/// The same bytes in other files: whatever the control block says counts for nothing there.
fn copied(dir: &Path) -> PathBuf {
    let copy = dir.with_extension("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

/// Salvages, and holds the new log against the report and against what was known.
fn told(from: &Path, known: u64) -> SalvageReport {
    let to = PathBuf::from(format!("{}.new", from.display()));
    let planned = salvage_plan(from, SalvageOptions::default(), &mut |_| ()).unwrap();
    let report = salvage(from, &to, SalvageOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(inspect(&to, Depth::Everything, &mut |_| ()).unwrap().state, State::Clean);
    let parts = |r: &SalvageReport| (r.first_lsn, r.last_lsn, r.kept, r.lost.clone(), r.before);
    assert_eq!(parts(&planned), parts(&report), "the plan and what was done");
    let log = opened(&to);
    let records: Vec<_> = log.range(..).unwrap().map(Result::unwrap).collect();
    let lsns: Vec<u64> = records.iter().map(|record| record.lsn.get()).collect();
    let first = report.first_lsn.get();
    assert_eq!(lsns, (first..=known).collect::<Vec<_>>(), "{report:?}");
    let named = |lsn: u64| report.lost.iter().any(|(a, b)| (a.get()..=b.get()).contains(&lsn));
    for record in &records {
        assert_eq!(record.kind == Kind::LOST, named(record.lsn.get()), "LSN {}", record.lsn);
    }
    // What stands below the first one is named, and the next record gets an LSN that nobody had.
    let before = report.before.map_or(first, |(low, high)| {
        assert_eq!(high.get(), first - 1, "{report:?}");
        low.get()
    });
    assert_eq!(before, 1, "none of these logs is trimmed: {report:?}");
    assert_eq!(log.append("next").unwrap().get(), known + 1);
    log.close().unwrap();
    report
}

fn lost(report: &SalvageReport) -> Vec<(u64, u64)> {
    report.lost.iter().map(|(a, b)| (a.get(), b.get())).collect()
}

#[test]
fn the_last_records_of_a_sealed_segment_before_one_without_records() {
    let home = tempfile::tempdir().unwrap();
    // The seal is whole; it is gone, and the open record behind it tells; both are there.
    for (case, with_seal) in [("seal", false), ("none", true)] {
        let dir = home.path().join(case);
        made(&dir);
        let seal = seal_of(&dir, 1);
        let end = if with_seal { seal + 100 } else { seal };
        ruin(&dir, 1, offset_of(&dir, 1, 8), end);
        for dir in [copied(&dir), dir] {
            let report = told(&dir, 10);
            assert_eq!((report.kept, lost(&report)), (7, vec![(8, 10)]), "{case}");
        }
    }
}

#[test]
fn the_last_records_of_a_sealed_segment_that_nothing_follows() {
    let home = tempfile::tempdir().unwrap();
    for header_only in [false, true] {
        let dir = home.path().join(format!("header-{header_only}"));
        made(&dir);
        fs::remove_file(segment(&dir, 2)).unwrap();
        ruin(&dir, 1, offset_of(&dir, 1, 8), seal_of(&dir, 1));
        if header_only {
            // Of the seal the header is left: it bears the last LSN, and vouches for all before it.
            let seal = offset_of_seal_behind_noise(&dir);
            hurt(&dir, 1, seal);
        }
        let copy = copied(&dir);
        // In place the control block names it, too.
        for dir in [copy, dir] {
            let report = told(&dir, 10);
            assert_eq!((report.kept, lost(&report)), (7, vec![(8, 10)]), "{}", dir.display());
        }
    }
}

/// The seal of segment 1, by its kind and LSN 10: the walk of [`frames`] ends at the noise.
fn offset_of_seal_behind_noise(dir: &Path) -> u64 {
    let bytes = fs::read(segment(dir, 1)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!("no header") };
    let at = (128..bytes.len() - 32).step_by(8).find(|at| {
        let chunk = bytes[*at..at + 32].first_chunk().unwrap();
        FrameHeader::decode(chunk, header.salt, *at as u64).is_some_and(|frame| frame.kind == SEAL)
    });
    at.unwrap() as u64
}

/// Damage through records and seal to the end of the file, and everything behind it is gone: the
/// control block is the only one who knows, and in a copy nobody does.
#[test]
fn damage_to_the_end_of_the_last_segment_is_told_by_the_control_block() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    made(&dir);
    fs::remove_file(segment(&dir, 2)).unwrap();
    let end = fs::metadata(segment(&dir, 1)).unwrap().len();
    ruin(&dir, 1, offset_of(&dir, 1, 8), end);
    let copy = copied(&dir);
    assert_eq!(lost(&told(&dir, 10)), vec![(8, 10)]);
    assert_eq!(lost(&told(&copy, 7)), vec![]);
}

#[test]
fn a_last_segment_that_is_gone_is_told_by_the_control_block() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = opened(&dir);
    while log.stats().rotations < 2 {
        log.append("text ".repeat(300)).unwrap();
    }
    let last = log.durable_lsn().unwrap().get();
    log.close().unwrap();
    let before = frames(&dir, 3)[0].0;
    fs::remove_file(segment(&dir, 3)).unwrap();
    assert_eq!(lost(&told(&dir, last)), vec![(before + 1, last)]);
}

/// The active segment: what a later frame vouches for was there; a torn end was promised to nobody.
#[test]
fn a_hurt_record_counts_if_it_was_promised() {
    let home = tempfile::tempdir().unwrap();
    for (case, hurt_ones, known, expected) in [
        // The header of record 10 vouches for all before its group.
        ("two", vec![9, 10], 9, vec![(9, 9)]),
        ("torn", vec![10], 9, vec![]),
    ] {
        let dir = home.path().join(case);
        let log = opened(&dir);
        for n in 1..=10u32 {
            log.append(format!("record {n} ").repeat(20)).unwrap();
        }
        drop(log);
        for lsn in hurt_ones {
            hurt(&dir, 1, offset_of(&dir, 1, lsn));
        }
        assert_eq!(lost(&told(&copied(&dir), known)), expected, "{case}");
        // In place the control block promised all ten.
        assert_eq!(told(&dir, 10).lost.last().unwrap().1.get(), 10, "{case}");
    }
}

/// Of a snapshot that lies above every readable record: it is kept, and its LSN too.
#[test]
fn a_snapshot_above_the_last_readable_record_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    made(&dir);
    let bytes = fs::read(segment(&dir, 1)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!("no header") };
    fs::remove_file(segment(&dir, 2)).unwrap();
    let end = fs::metadata(segment(&dir, 1)).unwrap().len();
    ruin(&dir, 1, offset_of(&dir, 1, 5), end);
    let snapshot = SnapshotHeader {
        log_id: header.log_id,
        lsn: Lsn::new(8).unwrap(),
        generation: annals_wal::Generation::FIRST,
    };
    let copy = copied(&dir);
    fs::write(copy.join(format!("registry-{:020}.snap", 8)), snapshot.encode()).unwrap();
    let report = told(&copy, 8);
    assert_eq!((lost(&report), report.snapshots), (vec![(5, 8)], 1));
}

fn put_snapshot(dir: &Path, named: u64, says: u64) -> String {
    let bytes = fs::read(segment(dir, 1)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!("no header") };
    let snapshot = SnapshotHeader {
        log_id: header.log_id,
        lsn: Lsn::new(says).unwrap(),
        generation: annals_wal::Generation::FIRST,
    };
    let name = format!("registry-{named:020}.snap");
    fs::write(dir.join(&name), snapshot.encode()).unwrap();
    name
}

/// 128 bytes that say that 2^63 records were there cost none of those that can be read: the salvage ends
/// at them and tells who said so.
#[test]
fn a_claim_that_cannot_be_filled_is_told_and_not_followed() {
    const FAR: u64 = 1 << 63;
    let home = tempfile::tempdir().unwrap();
    for all_gone in [false, true] {
        let dir = home.path().join(format!("far-{all_gone}"));
        made(&dir);
        let name = put_snapshot(&dir, FAR, FAR);
        if all_gone {
            ruin(&dir, 1, offset_of(&dir, 1, 1), seal_of(&dir, 1));
        }
        let report = told(&dir, 10);
        assert_eq!(report.claims, [(name, Lsn::new(FAR).unwrap())]);
        assert_eq!((report.kept, report.snapshots), (if all_gone { 0 } else { 10 }, 0));
        assert!(report.lost.is_empty(), "{report:?}");
    }
    // A hole that fills the limit leaves no room for a claim, and the claim does not make it too large.
    let dir = home.path().join("hole");
    made(&dir);
    ruin(&dir, 1, offset_of(&dir, 1, 8), seal_of(&dir, 1));
    put_snapshot(&dir, 12, 12);
    for (fill_max, last, claims) in [(3, 10, 1), (4, 10, 1), (5, 12, 0)] {
        let options = SalvageOptions { fill_max, ..SalvageOptions::default() };
        let report = salvage_plan(&dir, options, &mut |_| ()).unwrap();
        assert_eq!((report.last_lsn.unwrap().get(), report.claims.len()), (last, claims));
    }
}

/// A snapshot whose name and header disagree is no witness, and is not copied.
#[test]
fn a_snapshot_under_another_name_says_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    made(&dir);
    let name = put_snapshot(&dir, 8, 5000);
    let report = told(&dir, 10);
    assert_eq!((report.claims.len(), report.snapshots), (0, 0), "{report:?}");
    assert!(report.left_out.iter().any(|(left, _)| *left == name), "{report:?}");
}

/// Not one record is left: the new log goes on behind the last one, and the report names them all.
#[test]
fn where_no_record_is_left_no_lsn_is_given_a_second_time() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    made(&dir);
    ruin(&dir, 1, offset_of(&dir, 1, 1), seal_of(&dir, 1));
    let report = told(&dir, 10);
    assert_eq!((report.first_lsn.get(), report.last_lsn, report.kept), (11, None, 0));
    // And the whole segment, with its seal.
    let dir = home.path().join("gone");
    made(&dir);
    fs::remove_file(segment(&dir, 1)).unwrap();
    assert_eq!(told(&dir, 10).before.map(|(a, b)| (a.get(), b.get())), Some((1, 10)));
}

/// A log whose records were all trimmed has lost nothing, and goes on where it ended.
#[test]
fn a_log_that_was_trimmed_to_its_end_goes_on_behind_it() {
    let home = tempfile::tempdir().unwrap();
    let (dir, to) = (home.path().join("log"), home.path().join("new"));
    made(&dir);
    let log = opened(&dir);
    assert_eq!(log.trim(Lsn::new(11).unwrap()).unwrap().get(), 11);
    log.close().unwrap();
    let report = salvage(&dir, &to, SalvageOptions::default(), &mut |_| ()).unwrap();
    assert_eq!((report.first_lsn.get(), report.last_lsn, report.before), (11, None, None));
    assert!(report.lost.is_empty(), "{report:?}");
    let log = opened(&to);
    assert_eq!(log.append("next").unwrap().get(), 11);
}

/// The end counts against the limit as a hole does, and a comparison shows what can be read.
#[test]
fn the_limit_holds_at_the_end_too_and_a_comparison_counts_what_is_read() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    made(&dir);
    ruin(&dir, 1, offset_of(&dir, 1, 8), seal_of(&dir, 1));
    let few = SalvageOptions { fill_max: 2, ..SalvageOptions::default() };
    let refused = salvage_plan(&dir, few, &mut |_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert!(refused.to_string().starts_with("3 LSNs are lost"), "{refused}");
    let comparison = compare(&dir, &dir).unwrap();
    let readable = comparison.lsns.0.map(|(a, b)| (a.get(), b.get()));
    assert_eq!((readable, comparison.same, comparison.unreadable), (Some((1, 7)), 7, (3, 3)));
}

/// The first page of a log of one segment is gone: header, open record and what stood beside them. No
/// record names a head any more; segment 1 itself says that there were LSNs from 1 on.
#[test]
fn the_first_page_of_the_only_segment_is_named() {
    let home = tempfile::tempdir().unwrap();
    for closed in [false, true] {
        let dir = home.path().join(format!("closed-{closed}"));
        let log = opened(&dir);
        for n in 1..=40u32 {
            log.append(format!("record {n} ").repeat(20)).unwrap();
        }
        if closed {
            log.close().unwrap()
        } else {
            drop(log)
        }
        let kept = frames(&dir, 1).into_iter().filter(|frame| frame.1 < 0x8000 && frame.2 >= 4096);
        let first = kept.map(|(lsn, ..)| lsn).min().unwrap();
        patch(&dir, 1, 0, &[0; 4096]);
        for dir in [copied(&dir), dir] {
            let report = told(&dir, 40);
            let before = report.before.map(|(a, b)| (a.get(), b.get()));
            assert_eq!(before, Some((1, first - 1)), "{report:?}");
        }
    }
}
