//! Two processes on one log, and the threads of one of them: who reads beside who stands in line,
//! what fails under them, and the log's end while batches are pending.
//!
//! The processes are two members in one scheduler, each with locks of its own on the crashable
//! directory. A committer that sleeps for ever is seen by what it holds.

use annals_wal::{ErrorKind, Log, Lsn};
use shuttle::thread;

use crate::explore::explore;
use crate::world::{End, Submitted, Told, World, choose};

fn durable(told: Told) {
    assert!(matches!(told, Told::Durable(_)), "{told:?}");
}

/// The last handle goes while its batches are pending, waited for, awaited and dropped, and another
/// process writes: the committer writes them, ends the turn, and goes.
#[test]
fn dropping_the_last_handle_of_a_member_leaves_nobody_waiting() {
    explore("shared: drop and pendings", || {
        let (world, [(a, a_dir), (b, b_dir)]) = World::shared();
        let (other, others) = (world.clone(), b.clone());
        let neighbour = thread::spawn(move || durable(other.append(&others, "neighbour", 20)));
        let submitted: Vec<_> =
            (0..3).map(|i| world.submit(&a, &format!("{i}"), 20).unwrap()).collect();
        let waiting = submitted.into_iter().enumerate().map(|(n, submitted)| {
            thread::spawn(move || match n {
                0 => durable(submitted.wait()),
                1 => durable(submitted.block_on()),
                _ => drop(submitted),
            })
        });
        let waiting: Vec<_> = waiting.collect();
        drop(a);
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
        World::await_forgotten(&a_dir);
        neighbour.join().unwrap();
        drop(b);
        World::await_forgotten(&b_dir);
        world.judge(End::Whole, &[]);
    });
}

/// A handle that leads its own append goes beside one that only submitted.
#[test]
fn dropping_handles_that_lead_leaves_nobody_waiting() {
    explore("shared: drop, appends and pendings", || {
        let (world, [(a, a_dir), (b, _b_dir)]) = World::shared();
        drop(b);
        let threads: Vec<_> = (0..2)
            .map(|n| {
                let (world, log) = (world.clone(), a.clone());
                thread::spawn(move || {
                    let pending = world.submit(&log, &format!("submit {n}"), 20).unwrap();
                    if n == 0 {
                        durable(world.append(&log, "append", 20));
                    }
                    drop(log);
                    pending
                })
            })
            .collect();
        drop(a);
        let pendings = threads.into_iter().map(|thread| thread.join().unwrap());
        pendings.map(Submitted::wait).for_each(durable);
        World::await_forgotten(&a_dir);
        world.judge(End::Whole, &[]);
    });
}

/// A close ends the committer too, also while another thread of the process reads on.
#[test]
fn a_close_beside_a_look_ends_every_thread() {
    explore("shared: close and look", || {
        let (world, [(a, a_dir), (b, _b_dir)]) = World::shared();
        durable(world.append(&b, "neighbour", 20));
        let pending = world.submit(&a, "submitted", 20).unwrap();
        let reader = a.clone();
        let looks = thread::spawn(move || {
            reader.refresh().unwrap();
            reader.refresh().unwrap();
            reader
        });
        a.close().unwrap();
        durable(pending.wait());
        let reader = looks.join().unwrap();
        drop(reader);
        World::await_forgotten(&a_dir);
        drop(b);
        world.judge(End::Whole, &[]);
    });
}

/// Reads beside appends of the same process, which stand in line behind another.
#[test]
fn looks_beside_who_stands_in_line_end_and_see_all_that_was_durable() {
    explore("shared: looks and appends", || {
        let (world, [(a, a_dir), (b, b_dir)]) = World::shared();
        let mut threads = Vec::new();
        for (log, name) in [(&a, "a0"), (&a, "a1"), (&b, "b")] {
            let (world, log) = (world.clone(), log.clone());
            threads.push(thread::spawn(move || durable(world.append(&log, name, 20))));
        }
        for _ in 0..2 {
            let (a, b) = (a.clone(), b.clone());
            threads.push(thread::spawn(move || {
                let known = b.durable_lsn();
                a.refresh().unwrap();
                assert!(a.durable_lsn() >= known, "{:?} {known:?}", a.durable_lsn());
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        a.refresh().unwrap();
        assert_eq!(a.durable_lsn(), Lsn::new(3));
        drop((a, b));
        World::await_forgotten(&a_dir);
        World::await_forgotten(&b_dir);
        world.judge(End::Whole, &[]);
    });
}

/// One read fails somewhere: whoever it befalls says so, or finds the log poisoned; nobody waits for
/// ever, and the other process goes on.
#[test]
fn a_read_that_fails_under_them_leaves_nobody_waiting() {
    explore("shared: a failing read", || {
        let (world, [(a, a_dir), (b, b_dir)]) = World::shared();
        durable(world.append(&b, "before", 20));
        world.disk.fail_read(choose(16), 5);
        let mut threads = Vec::new();
        for (log, name) in [(&a, "a0"), (&a, "a1"), (&b, "b")] {
            let (world, log) = (world.clone(), log.clone());
            threads.push(thread::spawn(move || {
                let told = world.append(&log, name, 20);
                assert!(matches!(told, Told::Durable(_)) || REFUSALS.contains(&told), "{told:?}");
            }));
        }
        let reader = a.clone();
        threads.push(thread::spawn(move || drop(reader.refresh())));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.disk.clear_faults();
        let alive: Vec<Log> = [a, b].into_iter().filter(|log| log.poisoned().is_none()).collect();
        assert!(!alive.is_empty(), "one read failed, and both are poisoned");
        for (n, log) in alive.iter().enumerate() {
            durable(world.append(log, &format!("after {n}"), 20));
        }
        drop(alive);
        World::await_forgotten(&a_dir);
        World::await_forgotten(&b_dir);
        world.judge(End::Whole, &[ErrorKind::Io, ErrorKind::Poisoned]);
    });
}

const REFUSALS: [Told; 2] = [Told::Refused(ErrorKind::Io), Told::Refused(ErrorKind::Poisoned)];
