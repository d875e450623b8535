//! Nothing fails: whoever waits is told, and told the truth.

use std::sync::{Arc, Mutex};

use annals_wal::{Batch, Record};
use shuttle::thread;

use crate::explore::explore;
use crate::world::{Told, World, options};

#[test]
fn appenders_lead_for_each_other() {
    explore("appenders", || {
        let (world, log) = World::new();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    for i in 0..2 {
                        let told = world.append(&log, &format!("{n}-{i}"), 20);
                        assert!(matches!(told, Told::Durable(_)), "{told:?}");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.durable_lsn().unwrap().get(), 6);
        world.judge_log(log, &[]);
    });
}

#[test]
fn the_committer_writes_for_submitters_among_appenders() {
    explore("appenders and submitters", || {
        let (world, log) = World::new();
        let (appends, other) = (world.clone(), log.clone());
        let appender = thread::spawn(move || {
            for i in 0..2 {
                let told = appends.append(&other, &format!("append {i}"), 20);
                assert!(matches!(told, Told::Durable(_)), "{told:?}");
            }
        });
        let (submits, other) = (world.clone(), log.clone());
        let submitter = thread::spawn(move || {
            let submitted: Vec<_> =
                (0..3).map(|i| submits.submit(&other, &format!("{i}"), 20).unwrap()).collect();
            assert!(submitted.is_sorted_by_key(|submitted| submitted.lsn()), "ordered as called");
            for submitted in submitted {
                let told = submitted.wait();
                assert!(matches!(told, Told::Durable(_)), "{told:?}");
            }
        });
        appender.join().unwrap();
        submitter.join().unwrap();
        assert_eq!(log.durable_lsn().unwrap().get(), 5);
        world.judge_log(log, &[]);
    });
}

#[test]
fn a_batch_has_neighbouring_lsns() {
    explore("batches", || {
        let (_world, log) = World::new();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let log = log.clone();
                thread::spawn(move || {
                    let batch: Batch = (0..3).map(|i| Record::new(vec![n, i])).collect();
                    let lsns = log.append_batch(batch).unwrap();
                    let read: Vec<_> =
                        log.range(lsns).unwrap().map(|r| r.unwrap().payload).collect();
                    assert_eq!(read, [[n, 0], [n, 1], [n, 2]]);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.durable_lsn().unwrap().get(), 9);
    });
}

/// The waiter leads, waits, or finds it done; what it is told is true.
#[test]
fn wait_durable_returns_when_the_lsn_is_durable() {
    explore("wait_durable", || {
        let (world, log) = World::new();
        let given = Arc::new(Mutex::new(None));
        let (submits, other, gives) = (world.clone(), log.clone(), given.clone());
        let submitter = thread::spawn(move || {
            for i in 0..3 {
                let submitted = submits.submit(&other, &format!("{i}"), 20).unwrap();
                *gives.lock().unwrap() = Some(submitted.lsn());
            }
        });
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (log, given) = (log.clone(), given.clone());
                thread::spawn(move || {
                    let lsn = loop {
                        let given = *given.lock().unwrap();
                        match given {
                            Some(lsn) => break lsn,
                            None => thread::yield_now(),
                        }
                    };
                    log.wait_durable(lsn).unwrap();
                    assert!(log.durable_lsn() >= Some(lsn));
                })
            })
            .collect();
        submitter.join().unwrap();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        world.judge_log(log, &[]);
    });
}

/// The queue is full after the first record, so everyone else waits for room, appenders too.
#[test]
fn whoever_waits_for_room_gets_it() {
    explore("a full queue", || {
        let (world, log) = World::with(options().queue_bytes_max(1), |_| Ok(()));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || match n {
                    0 => drop(world.append(&log, "append", 20)),
                    n => drop(world.submit(&log, &format!("{n}"), 20).unwrap().wait()),
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.durable_lsn().unwrap().get(), 3);
        world.judge_log(log, &[]);
    });
}

/// Every second record or so begins a segment; several callers want one prepared at once.
#[test]
fn rotations_lose_nothing_and_nobody() {
    explore("rotations", || {
        let (world, log) = World::new();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    for i in 0..2 {
                        let told = world.append(&log, &format!("{n}-{i}"), 30_000);
                        assert!(matches!(told, Told::Durable(_)), "{told:?}");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(log.stats().rotations >= 3);
        world.judge_log(log, &[]);
    });
}
