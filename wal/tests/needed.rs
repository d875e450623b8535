//! Every sync, and the rewrite of rows A and A', is needed: leaving any one of them out loses or
//! breaks something on the crashable directory. One named test each; `no_sync_point_is_forgotten`
//! keeps the list whole.
//!
//! A sync is left out by its [`SyncPoint`]: the directory reports success and makes nothing
//! durable, which is what deleting the line would do. A rewrite is left out by ignoring writes of
//! the bytes that a clean sector already shows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

mod common;

use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};
use annals_wal::fs::{Access, Dir, SyncPoint};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::recover::Row;
use annals_wal::salvage::{SalvageOptions, salvage_in};
use annals_wal::{Batch, Error, Lsn, Record};
use common::{Model, Sweep, open, recovered, sweep};

/// The points that the tests below leave out, by test.
const COVERED: [SyncPoint; 27] = [
    SyncPoint::Parent,
    SyncPoint::DirectoryBeforeWrite,
    SyncPoint::Prepared,
    SyncPoint::Published,
    SyncPoint::Kept,
    SyncPoint::Cut,
    SyncPoint::RecoverySeal,
    SyncPoint::OpenRecord,
    SyncPoint::Group,
    SyncPoint::Seal,
    SyncPoint::Trimmed,
    SyncPoint::Leftovers,
    SyncPoint::Evidence,
    SyncPoint::BackupParent,
    SyncPoint::BackupMark,
    SyncPoint::BackupMarked,
    SyncPoint::BackupFile,
    SyncPoint::BackupNames,
    SyncPoint::BackupDone,
    // The registry's: `registry/tests/it/snapshot.rs`.
    SyncPoint::SnapshotFile,
    SyncPoint::SnapshotName,
    // The observer's archives: `observer/tests/archive_crashes.rs`.
    SyncPoint::ArchiveParent,
    SyncPoint::ArchivedSegment,
    SyncPoint::ArchiveCopy,
    SyncPoint::ArchiveNames,
    SyncPoint::ArchiveManifest,
    SyncPoint::ArchiveListed,
];

#[test]
fn no_sync_point_is_forgotten() {
    assert_eq!(COVERED, SyncPoint::ALL);
}

thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<SyncPoint>> = const { std::cell::Cell::new(None) };
}

/// The sweep must survive with every sync, and must find a violation with one left out.
fn needed(point: SyncPoint, script: common::Script, nested: bool) {
    let leave_out = |disk: &MemDir| disk.leave_out(LEFT_OUT.get());
    let how = Sweep { prepare: leave_out, seeds: 4, nested };
    LEFT_OUT.set(None);
    sweep(script, how).unwrap_or_else(|violation| panic!("with every sync: {violation}"));
    LEFT_OUT.set(Some(point));
    match sweep(script, how) {
        Ok(crashes) => panic!("{crashes} crashes survived without {point:?}: is it needed?"),
        Err(violation) => println!("without {point:?}: {violation}"),
    }
}

/// Rotations, an unclean end, a clean end, and batches that span sectors right after openings.
fn usual(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    let log = open(disk)?;
    for _ in 0..4 {
        model.append(&log, 1, 30_000)?;
    }
    model.append(&log, 1, 100)?;
    drop(log);
    let log = open(disk)?;
    model.append(&log, 3, 700)?;
    log.close()?;
    let log = open(disk)?;
    model.append(&log, 3, 700)?;
    drop(log);
    Ok(())
}

#[test]
fn the_parent_sync_is_needed() {
    needed(SyncPoint::Parent, usual, false);
}

#[test]
fn the_directory_sync_before_an_openings_first_write_is_needed() {
    needed(SyncPoint::DirectoryBeforeWrite, usual, false);
}

#[test]
fn the_sync_of_a_prepared_segment_is_needed() {
    needed(SyncPoint::Prepared, usual, false);
}

#[test]
fn the_directory_sync_of_a_published_segment_is_needed() {
    needed(SyncPoint::Published, usual, false);
}

#[test]
fn the_sync_of_what_recovery_keeps_is_needed() {
    needed(SyncPoint::Kept, usual, false);
}

#[test]
fn the_sync_of_the_open_record_is_needed() {
    needed(SyncPoint::OpenRecord, usual, false);
}

#[test]
fn the_group_sync_is_needed() {
    needed(SyncPoint::Group, usual, false);
}

#[test]
fn the_sync_of_a_seal_is_needed() {
    needed(SyncPoint::Seal, usual, false);
}

/// One unclean session of batches that span sectors: crashes in it make row B.
fn torn(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    let log = open(disk)?;
    for _ in 0..3 {
        model.append(&log, 4, 700)?;
    }
    Ok(())
}

#[test]
fn the_sync_of_a_cut_is_needed() {
    needed(SyncPoint::Cut, torn, true);
}

#[test]
fn the_sync_of_the_seal_that_recovery_appends_is_needed() {
    needed(SyncPoint::RecoverySeal, torn, true);
}

/// Six segments, the first four trimmed.
fn trimmed(left_out: Option<SyncPoint>) -> MemDir {
    let disk = MemDir::new(11);
    let log = open(&disk).unwrap();
    let mut model = Model::new();
    for _ in 0..6 {
        model.append(&log, 1, 30_000).unwrap();
    }
    disk.leave_out(left_out);
    model.trim(&log, 5).unwrap();
    disk.crash(Keep::Nothing)
}

fn first_segment_is_there(disk: &MemDir) -> bool {
    disk.names().iter().any(|name| name == "00000000000000000001.wal")
}

/// What `trim` promises on return: the bytes do not come back after a crash.
#[test]
fn the_directory_sync_after_a_trim_is_needed() {
    assert!(!first_segment_is_there(&trimmed(None)));
    assert!(first_segment_is_there(&trimmed(Some(SyncPoint::Trimmed))));
}

/// The same for what recovery removes: leftovers of a trim that a crash interrupted.
#[test]
fn the_directory_sync_after_removing_leftovers_is_needed() {
    for (left_out, comes_back) in [(None, false), (Some(SyncPoint::Leftovers), true)] {
        let disk = trimmed(Some(SyncPoint::Trimmed));
        assert!(first_segment_is_there(&disk), "the crash brought the segments back");
        disk.leave_out(left_out);
        let log = open(&disk).unwrap();
        assert_eq!(log.head_lsn(), Lsn::new(5).unwrap());
        assert!(!first_segment_is_there(&disk));
        assert_eq!(first_segment_is_there(&disk.crash(Keep::Nothing)), comes_back);
    }
}

/// What recovery cut is kept aside, durably, before the original is zeroed.
#[test]
fn the_sync_of_the_evidence_is_needed() {
    for (left_out, kept) in [(None, true), (Some(SyncPoint::Evidence), false)] {
        let disk = MemDir::new(12);
        let log = open(&disk).unwrap();
        let mut model = Model::new();
        model.append(&log, 1, 100).unwrap();
        drop(log);
        let name = "00000000000000000001.wal";
        let mut bytes = disk.bytes(name).unwrap();
        bytes[5000..5100].fill(0xEE);
        disk.set_bytes(name, bytes);
        let disk = disk.crash(Keep::Everything);
        disk.leave_out(left_out);
        let log = open(&disk).unwrap();
        assert!(log.recovery().cut.is_some(), "{}", log.recovery());
        model.check(&log).unwrap();
        let crashed = disk.crash(Keep::Nothing);
        let copies: Vec<_> =
            crashed.names().into_iter().filter(|name| name.starts_with("cut-")).collect();
        let bytes = copies.first().and_then(|name| crashed.bytes(name)).unwrap_or_default();
        assert_eq!(bytes.contains(&0xEE), kept, "{copies:?}");
    }
}

/// Crashes a backup after each of its operations: a half-made one is refused or not there, one
/// that returned opens whole.
fn backup(left_out: Option<SyncPoint>) -> Result<(), String> {
    let disk = MemDir::new(13);
    let log = open(&disk).unwrap();
    let mut model = Model::new();
    for _ in 0..3 {
        model.append(&log, 1, 30_000).unwrap();
    }
    let backup_to = |stop: u64| {
        let target = MemDir::new(14);
        target.leave_out(left_out);
        target.stop_after(stop);
        let done = log.backup_in(target.dir()).is_ok();
        (target, done)
    };
    let (whole, _) = backup_to(u64::MAX);
    for stop in 0..=whole.ops() {
        let (target, done) = backup_to(stop);
        for keep in common::keeps(12, stop) {
            let crashed = target.crash(keep);
            let is_log = crashed.names().iter().any(|name| name.contains(".wal"));
            let at = format!("backup stopped after {stop}, {keep:?}");
            match open(&crashed) {
                Err(error) if done => return Err(format!("{at}: finished, and now {error}")),
                Err(_) => {}
                Ok(_) if !is_log && !done => {}
                Ok(opened) => {
                    model.clone().check(&opened).map_err(|e| format!("{at}: {e}"))?;
                }
            }
        }
    }
    Ok(())
}

fn backup_needs(point: SyncPoint) {
    backup(None).unwrap();
    println!("without {point:?}: {}", backup(Some(point)).unwrap_err());
}

#[test]
fn the_sync_of_a_backups_parent_is_needed() {
    backup_needs(SyncPoint::BackupParent);
}

/// A salvage or a backup that was broken off is known for what it is, whatever a crash took: a mark
/// with a name and no words is as good as none, for it may be an archive's manifest that is damaged.
#[test]
fn the_sync_of_what_a_backups_mark_says_is_needed() {
    let source = MemDir::new(19);
    let log = open(&source).unwrap();
    Model::new().append(&log, 1, 3000).unwrap();
    log.close().unwrap();
    let doubtful = |left_out: Option<SyncPoint>| {
        let salvage_to = |stop: u64| {
            let target = MemDir::new(14);
            target.leave_out(left_out);
            target.stop_after(stop);
            let options = SalvageOptions::default();
            let _ = salvage_in(&*source.dir(), Some(&*target.dir()), options, &mut |_| ());
            target
        };
        let (mut doubts, mut known) = (0, 0);
        for stop in 0..salvage_to(u64::MAX).ops() {
            for keep in common::keeps(12, stop) {
                let crashed = salvage_to(stop).crash(keep);
                let names = crashed.names();
                // Before the first file is made there is nothing that could be mistaken.
                if names.iter().any(|name| name.contains(".wal")) {
                    let report = inspect_in(&crashed.dir(), Depth::Seals, &mut |_| ()).unwrap();
                    let marked = names.iter().any(|name| name == "ARCHIVE");
                    known += u32::from(report.state == State::Unfinished);
                    doubts += u32::from(marked && report.state != State::Unfinished);
                }
            }
        }
        assert!(known > 10, "{known} broken-off salvages");
        doubts
    };
    assert_eq!(doubtful(None), 0);
    assert!(doubtful(Some(SyncPoint::BackupMark)) > 0, "is it needed?");
}

#[test]
fn the_sync_of_a_backups_mark_is_needed() {
    backup_needs(SyncPoint::BackupMarked);
}

#[test]
fn the_syncs_of_a_backups_files_are_needed() {
    backup_needs(SyncPoint::BackupFile);
}

#[test]
fn the_sync_of_a_backups_names_is_needed() {
    backup_needs(SyncPoint::BackupNames);
}

#[test]
fn the_sync_that_ends_a_backup_is_needed() {
    backup_needs(SyncPoint::BackupDone);
}

/// A group's sync fails and the cache shows bytes that the disk does not have: what the next
/// opening shows, a crash must not take away. Only the rewrite makes those pages dirty again.
#[test]
fn the_rewrite_of_row_a_prime_is_needed() {
    let run = |ignore: bool| {
        let disk = MemDir::new(15);
        let log = open(&disk).unwrap();
        let mut model = Model::new();
        model.append(&log, 1, 100).unwrap();
        disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
        let error = model.append(&log, 2, 3000).unwrap_err();
        assert!(error.outcome_unknown());
        drop(log);
        let next = disk.killed();
        next.ignore_rewrites(ignore);
        recovered(&next, model)
    };
    run(false).unwrap();
    println!("{}", run(true).unwrap_err());
}

/// The same for a close record whose sync failed (row A). Only the close record is unwitnessed
/// there, so it shows where that record has a sector of its own: every alignment is tried.
#[test]
fn the_rewrite_of_row_a_is_needed() {
    let run = |ignore: bool, len: usize| {
        let disk = MemDir::new(16);
        let log = open(&disk).unwrap();
        let mut model = Model::new();
        model.append(&log, 1, len).unwrap();
        disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
        log.close().unwrap_err();
        let next = disk.killed();
        next.ignore_rewrites(ignore);
        recovered(&next, model)
    };
    for len in (800..1312).step_by(8) {
        run(false, len).unwrap_or_else(|violation| panic!("{len}: {violation}"));
    }
    let lost = (800..1312).step_by(8).filter(|len| run(true, *len).is_err()).count();
    assert!(lost > 0, "no alignment lost anything without the rewrite: is it needed?");
    println!("lost at {lost} of 64 alignments");
}

/// Row B rewrites what it keeps for the same reason: a group whose sync failed, then bytes in the
/// tail that make it torn.
#[test]
fn the_rewrite_of_row_b_is_needed() {
    let run = |ignore: bool| {
        let disk = MemDir::new(17);
        let log = open(&disk).unwrap();
        let mut model = Model::new();
        model.append(&log, 1, 100).unwrap();
        disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
        model.append(&log, 2, 3000).unwrap_err();
        drop(log);
        let next = disk.killed();
        let file = next.open("00000000000000000001.wal", Access::Write).unwrap();
        file.write_at(&[0xEE; 64], 20_000).unwrap();
        next.ignore_rewrites(ignore);
        assert_eq!(open(&next.crash(Keep::Everything)).unwrap().recovery().row, Row::B);
        recovered(&next, model)
    };
    run(false).unwrap();
    println!("{}", run(true).unwrap_err());
}

/// The zeros after what row A' keeps: a cut whose sync failed leaves zeros in the cache and
/// torn frames on the disk, and the next opening sees only the zeros.
#[test]
fn the_zeros_of_row_a_prime_are_needed() {
    let run = |ignore: bool| {
        let (mut torn, mut bad) = (0, 0);
        for seed in 0..60 {
            let disk = MemDir::new(18);
            let log = open(&disk).unwrap();
            let mut model = Model::new();
            model.append(&log, 1, 100).unwrap();
            disk.stop_after(disk.ops() + 1);
            model.append(&log, 8, 900).unwrap_err();
            let crashed = disk.crash(Keep::Some(seed));
            crashed.fail_sync(SyncPoint::Cut, 0, SyncFailure::CleanNew);
            if open(&crashed).is_ok() {
                continue;
            }
            torn += 1;
            let again = crashed.killed();
            again.ignore_rewrites(ignore);
            model.maybe.clear();
            let log = open(&again).unwrap();
            model.append(&log, 1, 100).unwrap();
            log.close().unwrap();
            let report =
                inspect_in(&again.crash(Keep::Nothing).dir(), Depth::Everything, &mut |_| ());
            bad += u32::from(report.unwrap().state >= State::Corrupt);
        }
        assert!(torn > 10, "{torn} seeds tore the tail");
        bad
    };
    assert_eq!(run(false), 0);
    assert!(run(true) > 0, "nothing was left behind the seal: are they needed?");
}

/// A group that a rotation began in segment 2 was torn by a crash, and the sync of its cut failed:
/// the cache shows an unused segment, the disk has the old frames. The opening that follows takes
/// it for a spare, under the same salt.
fn taken(ignore: bool) -> u32 {
    let (mut lying, mut bad) = (0, 0);
    for (stop, seed) in (7..12).flat_map(|stop| (0..60).map(move |seed| (stop, seed))) {
        let disk = MemDir::new(18);
        let log = open(&disk).unwrap();
        log.append(Record::new(vec![1; 56_000])).unwrap();
        disk.stop_after(disk.ops() + stop);
        let batch: Batch = (0..100).map(|_| Record::new(vec![2; 264])).collect();
        if log.append_batch(batch).is_ok() {
            continue;
        }
        drop(log);
        let crashed = disk.crash(Keep::Some(seed));
        crashed.fail_sync(SyncPoint::Cut, 0, SyncFailure::CleanNew);
        if open(&crashed).is_ok() {
            continue;
        }
        let second = crashed.bytes("00000000000000000002.wal").unwrap_or_default();
        if second.len() < 128 || second[128..].iter().any(|byte| *byte != 0) {
            continue;
        }
        lying += 1;
        let next = crashed.killed();
        // Power goes at each operation of the opening that takes it, and after an append.
        for ops in 0..14 {
            let now = next.killed();
            now.ignore_rewrites(ignore);
            now.stop_after(ops);
            let lsn = open(&now).and_then(|log| log.append(Record::new(vec![3; 264])));
            let after = now.crash(Keep::Some(seed + 1));
            bad += u32::from(match (open(&after), lsn) {
                (Err(_), _) => true,
                (Ok(_), Err(_)) => false,
                // Nothing may stand behind what was acknowledged last.
                (Ok(log), Ok(lsn)) => log.durable_lsn() != Some(lsn),
            });
        }
    }
    assert!(lying > 10, "{lying} disks lie");
    bad
}

#[test]
fn the_zeros_of_a_taken_spare_are_needed() {
    assert_eq!(taken(false), 0);
    assert!(taken(true) > 0, "nothing came back: are they needed?");
}
