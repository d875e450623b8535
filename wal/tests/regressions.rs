//! One test for each finding of the review of writers: waiting, poison, a full disk, trims.
//!
//! Never here: a sleep. A thread is held at a door of the hooked directory, and what it meets there
//! is decided by the test. What readers got wrong is in `regressions_readers.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use annals_wal::format;
use annals_wal::fs::SyncPoint;
use annals_wal::fs::gate::{Door, Gate, eio};
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::{Batch, ErrorKind, Log, Lsn, Options, Record, Sequence, Slot};

/// How long a test waits for what must come at once, before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn open(disk: &MemDir) -> annals_wal::Result<Log> {
    options().open_in(disk.dir())
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn name(sequence: u64) -> String {
    format::segment_name(Sequence::new(sequence).unwrap())
}

fn payloads(log: &Log) -> Vec<Vec<u8>> {
    log.range(..).unwrap().map(|record| record.unwrap().payload).collect()
}

fn fill(log: &Log, count: usize, len: usize) {
    for _ in 0..count {
        log.append(vec![1; len]).unwrap();
    }
}

/// A log whose active segment is half full and whose next one is prepared: the closure that made
/// the log prepare it declines when it is run again.
fn with_spare(disk: &MemDir, log: &Log) {
    log.append(vec![0; 30_000]).unwrap();
    let mut encoded = Batch::from(Record::new(vec![1; 40_000])).encode(1 << 20).unwrap();
    let mut runs = 0;
    let push_once = log.ordered(|slot| {
        runs += 1;
        if runs == 1 { slot.push(&mut encoded).map(drop) } else { Ok(()) }
    });
    push_once.unwrap();
    assert_eq!((runs, disk.names().contains(&name(2))), (2, true));
}

/// t1. `close` freed the lock while another thread still prepared a segment: the next owner took
/// the old spare into use, and then the late preparer unlinked it with an acknowledged record in it.
#[test]
fn close_waits_for_a_preparer_before_it_frees_the_lock() {
    let disk = MemDir::new(1);
    let door = Arc::new(Door::default());
    let at_door = door.clone();
    let gate = Gate::new(
        disk.dir(),
        move |op| {
            if op == "sync Prepared" { at_door.pass() } else { Ok(()) }
        },
    );
    let log = options().open_in(gate).unwrap();
    with_spare(&disk, &log);
    door.shut();
    let (preparer, closer) = (log.clone(), log.clone());
    // The spare is too small for this batch and is to be replaced.
    let preparer = std::thread::spawn(move || preparer.append(vec![9; 100_000]));
    door.await_guest();
    let closer = std::thread::spawn(move || closer.close());
    while log.ordered(|_| Ok(())).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(open(&disk).unwrap_err().kind(), ErrorKind::Locked);
    door.open();
    let refused = preparer.join().unwrap().unwrap_err();
    assert_eq!((refused.kind(), refused.outcome_unknown()), (ErrorKind::Closed, false));
    closer.join().unwrap().unwrap();
    let next = open(&disk).unwrap();
    assert_eq!(payloads(&next), [vec![0; 30_000]]);
    assert_eq!(next.append(vec![7; 40_000]).unwrap(), lsn(2));
    next.close().unwrap();
    assert_eq!(payloads(&open(&disk).unwrap()), [vec![0; 30_000], vec![7; 40_000]]);
}

/// t3. A failed replacement of a spare left the log without spare and with its name taken, so that
/// every later preparation failed too.
#[test]
fn after_a_failed_replacement_of_a_spare_the_next_call_tries_again() {
    let disk = MemDir::new(2);
    let log = open(&disk).unwrap();
    with_spare(&disk, &log);
    disk.set_bytes_free(Some(0));
    assert_eq!(log.append(vec![9; 100_000]).unwrap_err().kind(), ErrorKind::Full);
    disk.set_bytes_free(None);
    assert_eq!(log.append(vec![9; 100_000]).unwrap(), lsn(2));
}

/// t3b. The spare that a failed replacement leaves in place was forgotten, also for the batches
/// that it holds.
#[test]
fn a_spare_that_could_not_be_replaced_serves_smaller_batches() {
    let disk = MemDir::new(2);
    let log = open(&disk).unwrap();
    with_spare(&disk, &log);
    disk.set_bytes_free(Some(0));
    assert_eq!(log.append(vec![9; 100_000]).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(log.append(vec![9; 40_000]).unwrap(), lsn(2));
}

/// t4. A poison while a group was in flight threw its waiters away: they waited for ever, although
/// their own sync succeeded.
#[test]
fn the_waiters_of_a_group_in_flight_are_told_when_another_thread_poisons() {
    let disk = MemDir::new(3);
    let (door, failing) = (Arc::new(Door::default()), Arc::new(AtomicBool::new(false)));
    let (at_door, fails) = (door.clone(), failing.clone());
    let gate = Gate::new(disk.dir(), move |op| match op {
        "sync Group" => at_door.pass(),
        "sync Prepared" if fails.load(Ordering::SeqCst) => Err(eio()),
        _ => Ok(()),
    });
    let log = options().open_in(gate).unwrap();
    door.shut();
    let pending = log.submit(Record::new(vec![1; 30_000])).unwrap();
    door.await_guest();
    failing.store(true, Ordering::SeqCst);
    let refused = log.submit(Record::new(vec![2; 40_000])).unwrap_err();
    assert_eq!((refused.kind(), refused.outcome_unknown()), (ErrorKind::Io, false));
    assert!(log.poisoned().is_some());
    door.open();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(pending.wait()));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap(), lsn(1)..=lsn(1));
    assert_eq!(log.durable_lsn(), Some(lsn(1)));
}

/// t5. Every trim wrote a record, also one that changed nothing. A caller that trims again and
/// again on a full disk so ate the reserve that a release and a real trim need.
#[test]
fn trims_that_change_nothing_leave_the_reserve_of_a_full_disk() {
    let disk = MemDir::new(5);
    let log = open(&disk).unwrap();
    log.set_hold("consumer", lsn(1)).unwrap();
    fill(&log, 7, 20_000);
    disk.set_bytes_free(Some(0));
    while log.append(vec![1; 100]).is_ok() {}
    for _ in 0..500 {
        assert_eq!(log.trim(lsn(7)).unwrap(), lsn(1));
    }
    log.release_hold("consumer").unwrap();
    assert_eq!(log.trim(lsn(7)).unwrap(), lsn(7));
    log.close().unwrap();
    assert_eq!(open(&disk).unwrap().head_lsn(), lsn(7));
}

/// t10. `wait_durable` waited for the last group instead of the LSN's own, and took its error for
/// an LSN that was durable. Nobody sees from outside when a waiter has begun to wait, hence rounds.
#[test]
fn waiting_for_a_durable_lsn_takes_no_error_of_a_later_group() {
    for round in 0..20 {
        let disk = MemDir::new(round);
        let door = Arc::new(Door::default());
        let (at_door, groups) = (door.clone(), AtomicU32::new(0));
        let gate = Gate::new(disk.dir(), move |op| match op {
            "sync Group" if groups.fetch_add(1, Ordering::SeqCst) == 0 => at_door.pass(),
            "sync Group" => Err(eio()),
            _ => Ok(()),
        });
        let log = options().open_in(gate).unwrap();
        door.shut();
        let first = log.submit(Record::new("first")).unwrap();
        door.await_guest();
        let second = log.submit(Record::new("second")).unwrap();
        let (begin, begun) = mpsc::channel();
        let other = log.clone();
        let waiter = std::thread::spawn(move || {
            begin.send(()).unwrap();
            other.wait_durable(lsn(1))
        });
        begun.recv().unwrap();
        (0..round * 10).for_each(|_| std::thread::yield_now());
        door.open();
        waiter.join().unwrap().expect("LSN 1 is durable");
        assert_eq!(first.wait().unwrap(), lsn(1)..=lsn(1));
        assert!(second.wait().unwrap_err().outcome_unknown());
    }
}

/// t14. A segment whose removal failed was out of the list already, so no later trim of the same
/// opening tried it again.
#[test]
fn a_removal_that_failed_is_tried_again_by_the_next_trim() {
    let disk = MemDir::new(7);
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let gate = Gate::new(disk.dir(), move |op| {
        let now = op == format!("remove {}", name(1)) && fails.swap(false, Ordering::SeqCst);
        if now { Err(eio()) } else { Ok(()) }
    });
    let log = options().open_in(gate).unwrap();
    fill(&log, 10, 30_000);
    failing.store(true, Ordering::SeqCst);
    assert_eq!(log.trim(lsn(6)).unwrap_err().kind(), ErrorKind::Io);
    assert!(disk.names().contains(&name(1)));
    assert_eq!(log.trim(lsn(8)).unwrap(), lsn(8));
    assert!(!disk.names().contains(&name(1)), "{:?}", disk.names());
    assert!(!disk.names().contains(&name(2)), "{:?}", disk.names());
}

/// t15. On a full disk an opening prepared what it needed before it removed the segments that an
/// interrupted trim had left below the head, and so it failed.
#[test]
fn a_full_disk_opens_by_finishing_an_interrupted_trim() {
    let disk = MemDir::new(8);
    let at_first_removal = Arc::new(Mutex::new(None));
    let (slot, seen) = (at_first_removal.clone(), disk.clone());
    let gate = Gate::new(disk.dir(), move |op| {
        if op == format!("remove {}", name(1)) {
            *slot.lock().unwrap() = Some(seen.crash(Keep::Everything));
        }
        Ok(())
    });
    let log = options().open_in(gate).unwrap();
    fill(&log, 10, 30_000);
    log.trim(lsn(9)).unwrap();
    let crashed: MemDir = at_first_removal.lock().unwrap().take().unwrap();
    assert!(crashed.names().contains(&name(1)));
    crashed.set_bytes_free(Some(0));
    let log = open(&crashed).unwrap();
    assert_eq!((log.head_lsn(), log.durable_lsn()), (lsn(9), Some(lsn(10))));
    assert!(!crashed.names().contains(&name(1)), "{:?}", crashed.names());
}

/// t18. A closure that panicked after its push left an admitted batch that nobody was woken for.
/// With a caller that would have led there may be no committer yet: this thread writes it.
#[test]
fn a_batch_pushed_by_a_closure_that_panics_is_written() {
    for durable in [false, true] {
        let disk = MemDir::new(11);
        let (tell, told) = mpsc::channel();
        let gate = Gate::new(disk.dir(), move |op| {
            if op == "sync Group" {
                let _ = tell.send(());
            }
            Ok(())
        });
        let log = options().open_in(gate).unwrap();
        let mut encoded = Batch::from(Record::new("pushed")).encode(100).unwrap();
        let mut push = |slot: Slot<'_>| {
            let pushed = slot.push(&mut encoded).is_ok();
            panic!("the caller's own failure, after a push: {pushed}");
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            if durable {
                log.ordered_durable::<()>(&mut push).map(drop)
            } else {
                log.ordered::<()>(&mut push).map(drop)
            }
        }));
        assert!(panicked.is_err());
        told.recv_timeout(PATIENCE).expect("it is written, though nobody waits");
        log.wait_durable(lsn(1)).unwrap();
        assert_eq!(log.append("next").unwrap(), lsn(2));
        assert_eq!(payloads(&log), [b"pushed".to_vec(), b"next".to_vec()]);
    }
}

/// An opening that cut a torn tail and failed at the sync of the cut left stale frames on the disk
/// behind zeros in the cache; the opening after it sealed the segment in front of them.
#[test]
fn after_a_failed_cut_no_stale_frame_stands_behind_the_seal() {
    let mut torn = 0;
    for seed in 0..30 {
        let disk = MemDir::new(1);
        let log = open(&disk).unwrap();
        fill(&log, 1, 100);
        disk.stop_after(disk.ops() + 1);
        let batch: Batch = (0..8).map(|n| Record::new(vec![10 + n; 900])).collect();
        log.append_batch(batch).unwrap_err();
        let crashed = disk.crash(Keep::Some(seed));
        crashed.fail_sync(SyncPoint::Cut, 0, SyncFailure::CleanNew);
        if open(&crashed).is_ok() {
            continue;
        }
        torn += 1;
        let again = crashed.killed();
        let log = open(&again).unwrap();
        fill(&log, 1, 10);
        log.close().unwrap();
        let after = again.crash(Keep::Nothing);
        let report = inspect_in(&after.dir(), Depth::Everything, &mut |_| ()).unwrap();
        assert!(report.state < State::Corrupt, "seed {seed}: {:?}", report.findings);
    }
    assert!(torn > 5, "the test met only {torn} cuts");
}

/// A full disk halves the size of a segment that would have grown, and half of an odd size is no size
/// that a header may have: the segment took records, and no opening could read it (a review found it).
#[test]
fn a_segment_that_a_full_disk_made_smaller_can_be_read() {
    let disk = MemDir::new(5);
    let options = || Options::new().segment_bytes_first(64 << 10).segment_bytes_max(132 << 10);
    let log = options().open_in(disk.dir()).unwrap();
    fill(&log, 12, 10_000);
    disk.set_bytes_free(Some(100 << 10));
    log.prepare_ahead().unwrap();
    disk.set_bytes_free(None);
    fill(&log, 6, 10_000);
    assert_eq!(log.stats().rotations, 2, "the smaller one is in use");
    log.close().unwrap();
    let log = options().open_in(disk.killed().dir()).unwrap();
    assert_eq!(log.range(..).unwrap().map(Result::unwrap).count(), 18);
}

/// A segment over 1 MiB is prepared in pieces, each with a sync; the sweeps' segments have one piece.
/// The machine stops after each operation of such a preparation.
#[test]
fn a_preparation_in_pieces_may_stop_anywhere() {
    let options = || Options::new().segment_bytes(3 << 20);
    let stopped_after = |ops: Option<u64>| {
        let disk = MemDir::new(6);
        let log = options().open_in(disk.dir()).unwrap();
        log.append("acknowledged").unwrap();
        let before = disk.ops();
        if let Some(ops) = ops {
            disk.stop_after(before + ops);
        }
        let prepared = log.prepare_ahead();
        assert_eq!(prepared.is_ok(), ops.is_none(), "{ops:?}: {prepared:?}");
        drop(log);
        (disk.ops() - before, disk)
    };
    let (ops, disk) = stopped_after(None);
    assert!(ops > 9, "{ops} operations: header, three pieces with a sync each, names");
    assert_eq!(disk.bytes(&name(2)).unwrap().len(), 3 << 20);
    for stop in 0..ops {
        let (_, disk) = stopped_after(Some(stop));
        for keep in [Keep::Nothing, Keep::Everything, Keep::Some(stop)] {
            let after = disk.crash(keep);
            let log = options().open_in(after.dir()).unwrap();
            assert_eq!(payloads(&log), [b"acknowledged"], "stopped after {stop}, {keep:?}");
            log.append("next").unwrap();
            log.close().unwrap();
            // A name proves header and zeros, so whatever has one is whole.
            let names = after.names();
            let segments = names.iter().filter(|name| name.ends_with(".wal"));
            for name in segments {
                assert_eq!(after.bytes(name).unwrap().len(), 3 << 20, "{name}");
            }
            assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
        }
    }
}

/// Simulation, seed 1256, while the active segment was read in pieces: a copy that ends inside the first
/// frame's header had nothing in memory to cut, and could not be opened.
#[test]
fn a_copy_that_ends_inside_its_first_frames_opens_and_keeps_what_it_cuts() {
    let disk = MemDir::new(1);
    let log = open(&disk).unwrap();
    log.append("one").unwrap();
    let whole = disk.bytes(&name(1)).unwrap();
    for len in 129..=260 {
        let copy = disk.copied();
        copy.set_bytes(&name(1), whole[..len].to_vec());
        let log = open(&copy).unwrap_or_else(|e| panic!("{len} bytes: {e}"));
        let cut = log.recovery().cut.unwrap();
        if cut.to > cut.from {
            let kept = copy.bytes(&format::cut_name(cut.segment, cut.from, 0)).unwrap();
            assert_eq!(kept, whole[cut.from as usize..cut.to as usize], "{len} bytes");
        }
        assert_eq!(log.append("on").unwrap().get() - 1, payloads(&log).len() as u64 - 1);
    }
}
