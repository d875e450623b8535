//! Trims and holds beside appends, rotations and a reader: the head never goes below a hold, what
//! is unlinked is below a durable head, and a reader meets no hole.

use annals_wal::fs::mem::Keep;
use annals_wal::{ErrorKind, Log, Lsn};
use shuttle::thread;

use crate::explore::explore;
use crate::world::{Told, World, options};

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn append_some(world: &World, log: &Log, count: u32) {
    for i in 0..count {
        let told = world.append(log, &format!("{i}"), 30_000);
        assert!(matches!(told, Told::Durable(_)), "{told:?}");
    }
}

/// A range is dense from where it begins; one that a trim overtakes says `Trimmed`.
fn read(log: &Log) {
    let mut before = None;
    for record in log.range(..).unwrap() {
        match record {
            Ok(record) => {
                assert!(before.is_none_or(|before| record.lsn.get() == before + 1));
                before = Some(record.lsn.get());
            }
            Err(error) => return assert_eq!(error.kind(), ErrorKind::Trimmed, "{error}"),
        }
    }
}

#[test]
fn trims_and_holds_beside_rotations() {
    explore("trims, holds, rotations", || {
        let (world, log) = World::new();
        append_some(&world, &log, 3);
        let (appends, other) = (world.clone(), log.clone());
        let appender = thread::spawn(move || {
            for i in 3..6 {
                let told = appends.append(&other, &format!("{i}"), 30_000);
                assert!(matches!(told, Told::Durable(_)), "{told:?}");
            }
        });
        let other = log.clone();
        let holder = thread::spawn(move || match other.set_hold("consumer", lsn(2)) {
            Ok(()) => {
                assert!(other.head_lsn() <= lsn(2));
                other.set_hold("consumer", lsn(3)).unwrap();
                assert!(other.head_lsn() <= lsn(3));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Trimmed, "{error}"),
        });
        let other = log.clone();
        let disk = world.disk.clone();
        let reader = thread::spawn(move || {
            read(&other);
            // What is shown is durable: a crash at this moment does not take it back.
            let head = other.head_lsn();
            let crashed = options().open_in(disk.crash(Keep::Nothing).dir()).unwrap();
            assert!(crashed.head_lsn() >= head, "{head} was shown too early");
        });
        let first = log.trim(lsn(2)).unwrap();
        let second = log.trim(lsn(5)).unwrap();
        assert!(lsn(2) <= second && first <= second && second <= lsn(5), "{first} {second}");
        appender.join().unwrap();
        holder.join().unwrap();
        reader.join().unwrap();
        for (name, held) in log.holds() {
            assert!(name == "consumer" && log.head_lsn() <= held, "{held}");
        }
        assert_eq!(log.head_lsn(), second);
        world.judge_log(log, &[]);
    });
}

#[test]
fn trims_at_the_same_time_leave_the_higher_head() {
    explore("two trims", || {
        let (world, log) = World::new();
        append_some(&world, &log, 5);
        let other = log.clone();
        let lower = thread::spawn(move || other.trim(lsn(3)).unwrap());
        let higher = log.trim(lsn(5)).unwrap();
        assert_eq!(higher, lsn(5));
        let lower = lower.join().unwrap();
        assert!(lower == lsn(3) || lower == lsn(5), "{lower}");
        assert_eq!(log.head_lsn(), lsn(5));
        let names = world.disk.names();
        assert_eq!(names.iter().filter(|name| name.ends_with(".wal")).count(), 1, "{names:?}");
        world.judge_log(log, &[]);
    });
}

/// The second of two equal changes waits for the first one's record.
#[test]
fn a_hold_is_durable_for_whoever_was_told_so() {
    explore("the same hold twice", || {
        let (world, log) = World::new();
        append_some(&world, &log, 1);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    log.set_hold("consumer", lsn(1)).unwrap();
                    let crashed = world.disk.crash(Keep::Nothing);
                    let reopened = options().open_in(crashed.dir()).unwrap();
                    assert_eq!(reopened.holds(), [("consumer".to_owned(), lsn(1))]);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.judge_log(log, &[]);
    });
}
