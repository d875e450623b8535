//! The waits for less or other than durability: for a write, and, as a future, for room.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::SyncFailure;
use annals_wal::{ErrorKind, Level, Log, Record};
use shuttle::thread;

use crate::explore::explore;
use crate::world::{Told, World, choose, options};

/// Whoever waits for the write is told once, in every order of leader, committer and failure; and
/// what it is told is on the disk that a killed process leaves.
#[test]
fn whoever_waits_for_a_write_is_told() {
    explore("written", || {
        let (world, log) = World::new();
        let failing = choose(4);
        world.disk.fail_sync(SyncPoint::Group, failing, SyncFailure::CleanNew);
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    if n == 0 {
                        world.append(&log, "durable", 20);
                        return;
                    }
                    let Some(submitted) = world.submit(&log, &format!("{n}"), 20) else { return };
                    match submitted.pending.wait_written() {
                        Ok(_) => {
                            let found = world.disk.killed();
                            let found = options().open_in(found.dir()).unwrap();
                            assert!(found.durable_lsn() >= Some(submitted.lsn()));
                        }
                        Err(error) => assert!(error.outcome_unknown(), "{error}"),
                    }
                    submitted.wait();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.judge_log(log, &[]);
    });
}

fn await_append(world: &World, log: &Log, name: &str, len: usize) -> Told {
    world.note_async(name, len, |record: Record<'_>| {
        shuttle::future::block_on(log.append_async(record)).map(|lsns| *lsns.start())
    })
}

/// The queue is full after one record: futures and threads wait for the same room.
#[test]
fn futures_and_threads_wait_for_room() {
    explore("room for futures", || {
        let (world, log) = World::with(options().queue_bytes_max(1), |_| Ok(()));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    for i in 0..2 {
                        let name = format!("{n}-{i}");
                        let told = match n {
                            0 => world.append(&log, &name, 20),
                            _ => await_append(&world, &log, &name, 20),
                        };
                        assert!(matches!(told, Told::Durable(_)), "{told:?}");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.judge_log(log, &[]);
    });
}

/// Each record needs a segment: the preparer is asked by futures, and callers prepare beside it.
#[test]
fn futures_wait_for_segments() {
    explore("segments for futures", || {
        let (world, log) = World::new();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    let name = format!("{n}");
                    let told = match n {
                        0 => world.append(&log, &name, 40_000),
                        _ => await_append(&world, &log, &name, 40_000),
                    };
                    assert!(matches!(told, Told::Durable(_)), "{told:?}");
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.judge_log(log, &[]);
    });
}

/// The log is closed, or a sync fails, while they wait; the rest of the handles goes at once.
#[test]
fn an_end_reaches_futures_that_wait_for_room() {
    explore("room and an end", || {
        let (world, log) = World::with(options().queue_bytes_max(1), |_| Ok(()));
        let how = choose(3);
        if how == 0 {
            world.disk.fail_sync(SyncPoint::Group, choose(3), SyncFailure::CleanNew);
        }
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                // Some wait for room in the queue, some for a segment.
                let len = [20, 40_000][choose(2) as usize];
                thread::spawn(move || await_append(&world, &log, &format!("{n}"), len))
            })
            .collect();
        if how == 1 {
            log.clone().close().unwrap();
        }
        threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
        world.judge_log(log, &[ErrorKind::Closed]);
    });
}

/// Futures dropped at any poll, beside one that stays: it gets its room.
#[test]
fn futures_that_give_up_their_wait_keep_nobody_from_room() {
    use std::pin::pin;
    use std::task::{Context, Waker};
    explore("room given up", || {
        let (world, log) = World::with(options().queue_bytes_max(1), |_| Ok(()));
        let (other_world, other) = (world.clone(), log.clone());
        let stays = thread::spawn(move || await_append(&other_world, &other, "stays", 20));
        for n in 0..2 {
            let polls = choose(3);
            world.note_dropped(&format!("dropped {n}"), 20, |record| {
                let mut future = pin!(log.append_async(record));
                for _ in 0..polls {
                    let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    thread::yield_now();
                }
                future.is_admitted()
            });
        }
        assert!(matches!(stays.join().unwrap(), Told::Durable(_)));
        world.judge_log(log, &[ErrorKind::WouldBlock]);
    });
}

/// The clock goes as on a real disk, so that a leader has time to wait for the last group's writers.
#[test]
fn leaders_gather() {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    static GATHERED: AtomicU64 = AtomicU64::new(0);
    explore("gather", || {
        let (world, log) = World::new();
        world.disk.set_clock(Duration::from_micros(5), Duration::from_micros(100));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    for i in 0..3 {
                        let level = if n == 2 { Level::Written } else { Level::Durable };
                        let told = world.append_at(&log, level, &format!("{n}-{i}"), 20);
                        assert!(matches!(told, Told::Durable(_)), "{told:?}");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        GATHERED.fetch_add(log.stats().gathered, Ordering::Relaxed);
        world.judge_log(log, &[]);
    });
    if std::env::var_os("ANNALS_SCHEDULE").is_none() {
        assert!(GATHERED.load(Ordering::Relaxed) > 0, "no leader ever gathered");
    }
}
