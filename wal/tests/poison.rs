//! A failed write or sync is final: fail every operation once, and look at what everybody is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

mod common;

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{MemDir, SyncFailure};
use annals_wal::{Batch, ErrorKind, Record};
use common::{Model, open, recovered};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn script(disk: &MemDir, model: &mut Model) -> Result<(), annals_wal::Error> {
    let log = open(disk)?;
    model.append(&log, 2, 500)?;
    model.append(&log, 1, 30_000)?;
    model.append(&log, 1, 30_000)?;
    model.trim(&log, 3)?;
    model.append(&log, 3, 700)?;
    log.close()?;
    let log = open(disk)?;
    model.append(&log, 1, 100)?;
    drop(log);
    let log = open(disk)?;
    model.append(&log, 1, 100)?;
    log.close()
}

/// Whatever operation fails, and however: what was acknowledged is there after reopening, and a
/// call that was told "unknown" is there whole or not at all.
#[test]
fn any_one_operation_may_fail_and_nothing_acknowledged_is_lost() {
    let whole = MemDir::new(41);
    script(&whole, &mut Model::new()).unwrap();
    let mut failed = 0;
    for errno in [EIO, ENOSPC] {
        for op in 0..whole.ops() {
            let disk = MemDir::new(41);
            disk.fail_op(op, errno);
            let mut model = Model::new();
            failed += u32::from(script(&disk, &mut model).is_err());
            for next in [disk.killed(), disk.crash(annals_wal::fs::mem::Keep::Nothing)] {
                recovered(&next, model.clone()).unwrap_or_else(|violation| {
                    panic!("errno {errno} at {op} ({:?}): {violation}", disk.trace()[op as usize])
                });
            }
        }
    }
    assert!(failed > 40, "{failed} scripts noticed");
}

#[test]
fn a_failed_sync_poisons_and_is_never_called_again() {
    for how in [SyncFailure::CleanNew, SyncFailure::CleanOld] {
        let disk = MemDir::new(42);
        let log = open(&disk).unwrap();
        log.append("before").unwrap();
        disk.fail_sync(SyncPoint::Group, 0, how);
        let error = log.append("lost?").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        assert!(error.outcome_unknown(), "{error}");
        let syncs = disk.syncs_seen()[&SyncPoint::Group];
        let ops = disk.ops();
        let error = log.append("refused").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        assert!(!error.outcome_unknown(), "it was never written: {error}");
        log.clone().close().unwrap_err();
        assert_eq!(disk.syncs_seen()[&SyncPoint::Group], syncs, "no sync was retried");
        assert_eq!(disk.ops(), ops, "nothing touched a file after the failure");
        assert_eq!(log.durable_lsn().unwrap().get(), 1);
        assert_eq!(log.range(..).unwrap().count(), 1, "reads of what was durable go on");
    }
}

#[test]
fn every_waiter_of_a_failed_log_is_told() {
    let disk = MemDir::new(43);
    let log = open(&disk).unwrap();
    disk.fail_sync(SyncPoint::Group, 3, SyncFailure::CleanNew);
    let mut unknown = 0;
    let pending: Vec<_> = (0..200u32)
        .filter_map(|n| log.submit(Batch::from(Record::new(n.to_le_bytes()))).ok())
        .collect();
    let mut acknowledged = 0;
    for handle in pending {
        match handle.wait() {
            Ok(_) => acknowledged += 1,
            Err(error) => unknown += u32::from(error.outcome_unknown()),
        }
    }
    // At most three groups were synced; whoever came later got an error and not silence. How many
    // fit a group is the scheduler's.
    assert_eq!(log.durable_lsn().map_or(0, |lsn| lsn.get()), acknowledged);
    if log.poisoned().is_none() {
        assert_eq!(unknown, 0);
        assert_eq!(acknowledged, 200);
    }
}

#[test]
fn a_full_disk_is_an_ordinary_error_and_ends_when_there_is_space() {
    let disk = MemDir::new(44);
    let log = open(&disk).unwrap();
    let mut model = Model::new();
    disk.set_bytes_free(Some(0));
    let error = loop {
        if let Err(error) = model.append(&log, 1, 9_000) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(!error.outcome_unknown(), "it had no LSN yet: {error}");
    model.maybe.clear();
    assert!(log.poisoned().is_none());
    // A full disk can always be trimmed, and closed.
    model.trim(&log, 3).unwrap();
    assert_eq!(model.append(&log, 1, 9_000).unwrap_err().kind(), ErrorKind::Full);
    model.maybe.clear();
    disk.set_bytes_free(None);
    model.append(&log, 1, 9_000).unwrap();
    log.close().unwrap();
    recovered(&disk, model).unwrap();
}

#[test]
fn everyone_who_waits_for_a_segment_learns_that_the_disk_is_full() {
    let disk = MemDir::new(45);
    let log = open(&disk).unwrap();
    disk.set_bytes_free(Some(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let log = log.clone();
            scope.spawn(move || {
                let error = loop {
                    if let Err(error) = log.append(vec![1; 5_000]) {
                        break error;
                    }
                };
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            });
        }
    });
    disk.set_bytes_free(None);
    log.append(vec![1; 5_000]).unwrap();
}

/// The group in flight and the one behind it: whoever waits for an LSN of the first is told of the
/// first, also when the second fails.
#[test]
fn waiting_for_an_lsn_waits_for_its_own_group() {
    let disk = MemDir::new(46);
    let log = open(&disk).unwrap();
    let first = log.append("durable").unwrap();
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
    let error = log.append("lost").unwrap_err();
    assert!(error.outcome_unknown());
    log.wait_durable(first).unwrap();
    let second = first.next().unwrap();
    assert!(log.wait_durable(second).unwrap_err().outcome_unknown());
    let third = second.next().unwrap();
    assert_eq!(log.wait_durable(third).unwrap_err().kind(), ErrorKind::OutOfRange);
}

/// `cargo xtask full-disk` does the same on a real file system of 32 MiB.
#[test]
fn a_disk_fills_under_four_writers_and_they_go_on_when_there_is_space() {
    const WRITERS: u64 = 4;
    let disk = MemDir::new(46);
    let log = open(&disk).unwrap();
    // What writer `w` wrote as its `n`-th, by LSN.
    let acked = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let fill = |until_full: bool| {
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (log, acked) = (log.clone(), &acked);
                scope.spawn(move || {
                    for n in 0..if until_full { u64::MAX } else { 40 } {
                        let mut payload = format!("{writer} {n} {until_full} ").into_bytes();
                        payload.resize(3_000, writer as u8);
                        match log.append(payload.clone()) {
                            Ok(lsn) => drop(acked.lock().unwrap().insert(lsn.get(), payload)),
                            Err(error) => {
                                assert!(until_full, "{error}");
                                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                                assert!(!error.outcome_unknown(), "no LSN was given: {error}");
                                return;
                            }
                        }
                    }
                });
            }
        });
    };
    disk.set_bytes_free(Some(500_000));
    fill(true);
    let full_at = acked.lock().unwrap().len();
    disk.set_bytes_free(None);
    fill(false);
    assert!(log.poisoned().is_none());
    log.close().unwrap();
    let acked = acked.into_inner().unwrap();
    println!("full after {full_at} records, {} in the end", acked.len());
    assert_eq!(acked.len(), full_at + 160);
    let log = open(&disk.crash(annals_wal::fs::mem::Keep::Nothing)).unwrap();
    let found: Vec<_> = log.range(..).unwrap().map(|r| r.unwrap().payload).collect();
    assert_eq!(found, acked.into_values().collect::<Vec<_>>(), "dense, and each in its place");
}
