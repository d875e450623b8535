//! What only real threads and the real kernel show: whoever sleeps on a group's end is woken, however
//! many there are, and nobody waits for zeros.
//!
//! The schedules of `tests/shuttle` see no futex. Here the operations of a disk in memory are held at
//! a door until everybody stands where the test wants them. Never here: a sleep for an order, an
//! endless wait: whoever is not told within [`PATIENCE`] was forgotten. Next room: `shuttle`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use annals_wal::fs::SyncPoint;
use annals_wal::fs::gate::{Door, Gate};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Log, Options, Sequence, format};

/// More than one thread wakes alone (`WOKEN_HERE_MIN` in `cohort.rs`), twice over.
const WAITERS: usize = 64;
const ROUNDS: usize = 20;
/// A waiter is told within microseconds; a machine that is busy takes longer, and none this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk whose syncs at one point are held at a door.
fn held(point: SyncPoint) -> (MemDir, Arc<Door>, Arc<Gate>) {
    let (disk, door) = (MemDir::new(1), Arc::new(Door::default()));
    let (passed, name) = (door.clone(), format!("sync {point:?}"));
    let gate = Gate::new(disk.dir(), move |op| if op == name { passed.pass() } else { Ok(()) });
    (disk, door, gate)
}

/// Each appends once, on a thread of its own, and says how it ended. The threads are not joined: one
/// that waits for ever must not hold up the verdict.
fn append_apart(log: &Log, writers: usize) -> Receiver<Result<u64, annals_wal::Error>> {
    let (told, results) = channel();
    for _ in 0..writers {
        let (log, told) = (log.clone(), told.clone());
        thread::spawn(move || told.send(log.append("x").map(|lsn| lsn.get())));
    }
    results
}

/// Until so many batches are admitted and not written yet: each is one record of one byte.
fn await_queued(log: &Log, bytes: u64) {
    while log.stats().queued_bytes < bytes {
        thread::yield_now();
    }
}

/// A group of 64 threads that all sleep: one call wakes a half, and the first of these the others.
/// Then the same group fails, and all are told that.
#[test]
fn of_a_large_group_everybody_is_woken() {
    let (_, door, gate) = held(SyncPoint::Group);
    let log = Options::new().segment_bytes(1 << 20).open_in(gate).unwrap();
    for round in 0..=ROUNDS {
        let shut = door.shut_for_now();
        let first = append_apart(&log, 1);
        door.await_guest();
        let one = log.stats().queued_bytes;
        let others = append_apart(&log, WAITERS);
        // They stand in the next group, which nobody takes while the first is at the door.
        await_queued(&log, one * (1 + WAITERS as u64));
        if round == ROUNDS {
            door.fail();
        }
        drop(shut);
        let mut told = Vec::new();
        for n in 0..=WAITERS {
            let results = if n == 0 { &first } else { &others };
            let result = results.recv_timeout(PATIENCE);
            told.push(result.unwrap_or_else(|e| {
                panic!("round {round}: {n} of {} were told, then {e}", 1 + WAITERS)
            }));
        }
        let last = (WAITERS + 1) * round;
        if round == ROUNDS {
            assert!(told.iter().all(|result| result.as_ref().is_err_and(|e| e.outcome_unknown())));
            continue;
        }
        let mut lsns: Vec<_> = told.into_iter().map(|result| result.unwrap() as usize).collect();
        lsns.sort_unstable();
        assert_eq!(lsns, (last + 1..=last + 1 + WAITERS).collect::<Vec<_>>());
    }
}

const SEGMENT: u64 = 4 << 20;
/// A preparation's first 256 KiB, and what was allocated after them.
const PIECES: u64 = 2;

fn prepared(disk: &MemDir) -> u64 {
    disk.syncs_seen().get(&SyncPoint::Prepared).copied().unwrap_or_default()
}

/// A caller whose batch does not fit what is left has 256 KiB of zeros written, and not sixteen times
/// that, however little of the active segment is used; and the room is there all the same.
#[test]
fn a_caller_who_prepares_waits_for_no_zeros() {
    let disk = MemDir::new(1);
    let log = Options::new().segment_bytes(SEGMENT).open_in(disk.dir()).unwrap();
    log.append(vec![1; 100 << 10]).unwrap();
    let before = prepared(&disk);
    log.append(vec![2; SEGMENT as usize - (64 << 10)]).unwrap();
    assert_eq!((log.stats().rotations, prepared(&disk) - before), (1, PIECES));
    // Its frames end before its segment does, and the file does not.
    log.append(vec![3; SEGMENT as usize - (64 << 10)]).unwrap();
    let name = format::segment_name(Sequence::new(3).unwrap());
    assert_eq!(disk.bytes(&name).map(|bytes| bytes.len() as u64), Some(SEGMENT));
}

/// The log's own thread writes zeros while there is time, and stops once there is none.
#[test]
fn a_spare_that_is_wanted_soon_is_hurried() {
    let (disk, door, gate) = held(SyncPoint::Prepared);
    disk.set_background(true);
    let log = Options::new().segment_bytes(SEGMENT).open_in(gate).unwrap();
    let before = prepared(&disk);
    let shut = door.shut_for_now();
    let fill = || {
        log.append(vec![1; 100 << 10]).unwrap();
    };
    // Half of it: the thread begins, and stands at the door with its first piece.
    for _ in 0..21 {
        fill();
    }
    door.await_guest();
    // All but the last eighth of it.
    for _ in 0..17 {
        fill();
    }
    assert_eq!(log.stats().rotations, 0, "the spare would be waited for, and the door is shut");
    drop(shut);
    while log.stats().rotations == 0 {
        fill();
    }
    assert_eq!(prepared(&disk) - before, PIECES);
    log.close().unwrap();
}
