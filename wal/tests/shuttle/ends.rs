//! Ends: closing and dropping the log while others append, submit, wait, or open it again.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::SyncFailure;
use annals_wal::recover::Row;
use annals_wal::{ErrorKind, Log, Lsn};
use shuttle::thread;

use crate::explore::explore;
use crate::world::{End, Submitted, Told, World, choose, options, refusal};

const CLOSED: Told = Told::Refused(ErrorKind::Closed);

/// What was admitted before the close is acknowledged; what came later was certainly not written.
#[test]
fn a_close_among_appends_and_submits_ends_cleanly() {
    explore("close, appends and submits", || {
        let (world, log) = World::new();
        let (appends, other) = (world.clone(), log.clone());
        let appender = thread::spawn(move || {
            for i in 0..2 {
                let told = appends.append(&other, &format!("append {i}"), 20);
                assert!(told == CLOSED || matches!(told, Told::Durable(_)), "{told:?}");
            }
        });
        let (submits, other) = (world.clone(), log.clone());
        let submitter = thread::spawn(move || {
            for i in 0..2 {
                if let Some(submitted) = submits.submit(&other, &format!("{i}"), 20) {
                    let told = submitted.wait();
                    assert!(
                        matches!(told, Told::Durable(_)),
                        "admitted before the close: {told:?}"
                    );
                }
            }
        });
        log.close().unwrap();
        appender.join().unwrap();
        submitter.join().unwrap();
        world.judge(End::Whole, &[ErrorKind::Closed]);
        let reopened =
            options().open_in(world.disk.crash(annals_wal::fs::mem::Keep::Nothing).dir());
        assert_eq!(reopened.unwrap().recovery().row, Row::A);
    });
}

#[test]
fn of_two_closes_one_ends_the_log() {
    explore("two closes", || {
        let (world, log) = World::new();
        drop(world.submit(&log, "submitted", 20));
        let other = log.clone();
        let closer = thread::spawn(move || other.close());
        let mine = log.close();
        let theirs = closer.join().unwrap();
        assert!(mine.is_ok() != theirs.is_ok(), "{mine:?} {theirs:?}");
        let refused = mine.err().or(theirs.err()).unwrap();
        assert_eq!(refusal(&refused), CLOSED);
        world.judge(End::Whole, &[]);
    });
}

/// A trim that fails poisons the log. A close on its way is told, or was done before.
#[test]
fn a_close_beside_a_trim_that_fails_ends() {
    explore("close, failing trim", || {
        let (world, log) = World::new();
        world.append(&log, "first", 20);
        world.disk.fail_sync(SyncPoint::Trimmed, 0, SyncFailure::CleanNew);
        let other = log.clone();
        let trimmer = thread::spawn(move || other.trim(Lsn::FIRST).map(drop));
        let closed = log.close();
        let trimmed = trimmer.join().unwrap();
        if let Err(refused) = &closed {
            // The close record may have been on its way.
            let told = refusal(refused);
            assert!(
                told == Told::Refused(ErrorKind::Poisoned) || told == Told::Unknown,
                "{told:?}"
            );
        }
        assert!(trimmed.is_err() || closed.is_ok(), "{trimmed:?} {closed:?}");
    });
}

/// A close waits for whoever prepares a segment, and for what was admitted with it.
#[test]
fn a_close_waits_for_a_rotation() {
    explore("close and rotation", || {
        let (world, log) = World::new();
        let threads: Vec<_> = (0..2)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    for i in 0..2 {
                        let told = world.append(&log, &format!("{n}-{i}"), 30_000);
                        assert!(told == CLOSED || matches!(told, Told::Durable(_)), "{told:?}");
                    }
                })
            })
            .collect();
        log.close().unwrap();
        // Free at once: nobody who is still on the way may touch a file any more.
        let next = options().open_in(world.disk.dir()).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(next);
        world.judge(End::Whole, &[ErrorKind::Closed]);
    });
}

fn submit_some(world: &World, log: &Log) -> Vec<Submitted> {
    (0..3).map(|i| world.submit(log, &format!("{i}"), 20).unwrap()).collect()
}

/// The last handle goes while its pendings are awaited, polled or dropped elsewhere: the committer
/// writes them all, tells who asks, and lets the lock go.
#[test]
fn dropping_the_last_handle_leaves_nobody_waiting() {
    explore("drop and pendings", || {
        let (world, log) = World::new();
        let submitted = submit_some(&world, &log);
        let waiting: Vec<_> = submitted
            .into_iter()
            .enumerate()
            .map(|(n, submitted)| {
                thread::spawn(move || match n {
                    0 => assert_eq!(submitted.wait(), Told::Durable(1)),
                    1 => assert_eq!(submitted.block_on(), Told::Durable(2)),
                    _ => drop(submitted),
                })
            })
            .collect();
        drop(log);
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
        world.judge(End::Whole, &[]);
    });
}

/// The next owner opens as soon as the lock is free, and finds all that was admitted.
#[test]
fn the_next_owner_finds_what_a_dropped_log_had_admitted() {
    explore("drop and open", || {
        let (world, log) = World::new();
        let pending = submit_some(&world, &log);
        let disk = world.disk.clone();
        let opener = thread::spawn(move || {
            let next = loop {
                match options().open_in(disk.dir()) {
                    Ok(next) => break next,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Locked, "{error}"),
                }
            };
            assert_eq!(next.durable_lsn().unwrap().get(), 3);
        });
        drop(log);
        drop(pending);
        opener.join().unwrap();
        world.judge(End::Whole, &[]);
    });
}

/// A log whose write fails after its last handle went: its waiters are told, and the lock is free.
#[test]
fn a_failure_after_the_last_handle_is_told_and_frees_the_lock() {
    explore("drop and failure", || {
        let (world, log) = World::new();
        world.disk.fail_sync(
            annals_wal::fs::SyncPoint::Group,
            choose(3),
            annals_wal::fs::mem::SyncFailure::CleanOld,
        );
        // The committer may meet the failure before the last of them is ordered.
        let submitted: Vec<_> =
            (0..3).filter_map(|i| world.submit(&log, &format!("{i}"), 20)).collect();
        let ordered = submitted.len();
        let dropper = thread::spawn(move || drop(log));
        let told: Vec<_> = submitted.into_iter().map(Submitted::wait).collect();
        dropper.join().unwrap();
        let durable = told.iter().take_while(|told| **told != Told::Unknown).count();
        assert!(told[durable..].iter().all(|told| *told == Told::Unknown), "{told:?}");
        let whole = (ordered, durable) == (3, 3);
        let end = if whole { End::Whole } else { End::Poisoned { durable: durable as u64 } };
        world.judge(end, &[]);
    });
}
