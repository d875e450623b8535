//! Writes and syncs that fail, and a full disk: everyone is told, exactly those behind the failure
//! are told *unknown*, and nothing is written after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use annals_wal::fs::SyncPoint;
use annals_wal::fs::gate::eio;
use annals_wal::fs::mem::SyncFailure;
use annals_wal::{ErrorKind, Log};
use shuttle::thread;

use crate::explore::explore;
use crate::world::{Told, World, choose, options};

/// Two appenders and a submitter; after the first failure that one of them is told, its next call
/// is refused and its outcome is known.
fn everybody(world: &World, log: &Log, len: usize) {
    let appenders = (0..2).map(|n| {
        let (world, log) = (world.clone(), log.clone());
        thread::spawn(move || {
            for i in 0..2 {
                if world.append(&log, &format!("{n}-{i}"), len) == Told::Unknown {
                    assert_poisoned(&world, &log);
                }
            }
        })
    });
    let (submits, other) = (world.clone(), log.clone());
    let submitter = thread::spawn(move || {
        let submitted: Vec<_> =
            (0..3).filter_map(|i| submits.submit(&other, &format!("{i}"), len)).collect();
        for submitted in submitted {
            if submitted.wait() == Told::Unknown {
                assert_poisoned(&submits, &other);
            }
        }
    });
    for thread in appenders.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    submitter.join().unwrap();
}

fn assert_poisoned(world: &World, log: &Log) {
    assert!(log.poisoned().is_some(), "the poison comes before the bad news");
    let later = format!("later {}", world.calls());
    assert_eq!(world.append(log, &later, 20), Told::Refused(ErrorKind::Poisoned));
}

#[test]
fn a_failed_sync_is_told_to_exactly_those_behind_it() {
    static SHARED: AtomicU64 = AtomicU64::new(0);
    explore("a failed group sync", || {
        let (world, log) = World::new();
        world.disk.fail_sync(SyncPoint::Group, choose(4), SyncFailure::CleanNew);
        everybody(&world, &log, 20);
        SHARED.fetch_add(u64::from(world.unknown() > 1), Ordering::SeqCst);
        world.judge_log(log, &[]);
    });
    assert!(SHARED.load(Ordering::SeqCst) > 0, "no failure met more than one waiter");
}

/// Any one operation on the files of a log that rotates: a write, a name, a sync.
#[test]
fn any_operation_may_fail() {
    explore("any failed operation", || {
        let countdown = Arc::new(AtomicU64::new(u64::MAX));
        let left = countdown.clone();
        let (world, log) = World::with(options(), move |_| {
            if left.fetch_sub(1, Ordering::SeqCst) == 0 { Err(eio()) } else { Ok(()) }
        });
        countdown.store(choose(40), Ordering::SeqCst);
        everybody(&world, &log, 30_000);
        // Preparing a segment fails with what the system said, and not always poisons.
        world.judge_log(log, &[ErrorKind::Io, ErrorKind::Poisoned]);
    });
}

/// Somebody else's preparation poisons while a group is in flight: its own sync succeeds, and its
/// waiters are told so.
#[test]
fn a_failed_preparation_poisons_beside_a_group_in_flight() {
    explore("a failed preparation", || {
        let failing = Arc::new(AtomicBool::new(false));
        let fails = failing.clone();
        let (world, log) = World::with(options(), move |op| match op {
            "sync Prepared" | "dirsync Published" if fails.load(Ordering::SeqCst) => Err(eio()),
            _ => Ok(()),
        });
        failing.store(true, Ordering::SeqCst);
        everybody(&world, &log, 30_000);
        assert!(log.poisoned().is_some());
        world.judge_log(log, &[ErrorKind::Io]);
    });
}

/// Whoever waits for an LSN is told of its own group, whatever became of a later one. Found here: a
/// group that ended between the look at the durable LSN and the queue lock was taken for the one
/// behind it, so a durable LSN got *outcome unknown* (what was left of t10).
#[test]
fn wait_durable_takes_no_error_of_another_group() {
    static FAILED: AtomicU64 = AtomicU64::new(0);
    explore("wait_durable and a failed sync", || {
        let (world, log) = World::new();
        world.disk.fail_sync(SyncPoint::Group, 1, SyncFailure::CleanNew);
        let submitted: Vec<_> =
            (0..3).filter_map(|i| world.submit(&log, &format!("{i}"), 20)).collect();
        let waiters: Vec<_> = submitted
            .iter()
            .map(|submitted| {
                let (log, lsn) = (log.clone(), submitted.lsn());
                thread::spawn(move || (lsn, log.wait_durable(lsn)))
            })
            .collect();
        let told: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
        for (lsn, told) in told {
            match told {
                Ok(()) => assert!(log.durable_lsn() >= Some(lsn)),
                Err(error) => {
                    FAILED.fetch_add(1, Ordering::SeqCst);
                    assert!(error.outcome_unknown(), "{error}");
                    assert!(log.durable_lsn() < Some(lsn), "LSN {lsn} is durable: {error}");
                }
            }
        }
        drop(submitted);
        world.judge_log(log, &[]);
    });
    assert!(FAILED.load(Ordering::SeqCst) > 0, "no sync failed");
}

/// The disk is full, several wait for a segment, and then there is space. Who waits for another's
/// preparation takes its answer: so in some schedules fewer try than are refused.
#[test]
fn a_full_disk_is_told_to_everyone_who_waits_and_then_forgotten() {
    static SHARED: AtomicU64 = AtomicU64::new(0);
    explore("a full disk", || {
        let tried = Arc::new(AtomicU64::new(0));
        let tries = tried.clone();
        let (world, log) = World::with(options(), move |op| {
            tries.fetch_add(u64::from(op.starts_with("create")), Ordering::SeqCst);
            Ok(())
        });
        tried.store(0, Ordering::SeqCst);
        world.disk.set_bytes_free(Some(0));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    let told = world.append(&log, &format!("{n}"), 40_000);
                    let full = Told::Refused(ErrorKind::Full);
                    assert!(told == full || matches!(told, Told::Durable(_)), "{told:?}");
                    if n == 0 {
                        world.disk.set_bytes_free(None);
                    }
                })
            })
            .collect();
        // A small one needs no segment, or waits for none.
        let small = world.append(&log, "small", 20);
        assert!(matches!(small, Told::Durable(_)), "{small:?}");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let fewer = tried.load(Ordering::SeqCst) < world.refused() as u64;
        SHARED.fetch_add(u64::from(fewer), Ordering::SeqCst);
        let told = world.append(&log, "space again", 40_000);
        assert!(matches!(told, Told::Durable(_)), "{told:?}");
        assert!(log.poisoned().is_none());
        world.judge_log(log, &[ErrorKind::Full]);
    });
    assert!(SHARED.load(Ordering::SeqCst) > 0, "nobody waited for another's preparation");
}
