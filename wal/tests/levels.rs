//! Levels: who is told when, and what is there after the process was killed and after the power
//! went.
//!
//! Never here: a sleep. Write and sync of a group wait at doors until the test has looked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::sync::{Arc, mpsc};
use std::time::Duration;

use annals_wal::fs::gate::{Door, Gate};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Batch, ErrorKind, Level, Log, Lsn, Options, Record, Result};

/// How long a test waits for what must come at once, before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

/// A log whose group writes and group syncs pass a door each.
struct Gated {
    disk: MemDir,
    write: Arc<Door>,
    sync: Arc<Door>,
    log: Log,
}

fn gated() -> Gated {
    let disk = MemDir::new(1);
    let (write, sync) = (Arc::new(Door::default()), Arc::new(Door::default()));
    let doors = (write.clone(), sync.clone());
    let gate = Gate::new(disk.dir(), move |op| match op {
        "sync Group" => doors.1.pass(),
        op if op.starts_with("write 0") => doors.0.pass(),
        _ => Ok(()),
    });
    let log = options().open_in(gate).unwrap();
    Gated { disk, write, sync, log }
}

fn append_on_a_thread(log: &Log, level: Level, text: &'static str) -> mpsc::Receiver<Result<Lsn>> {
    let (tell, told) = mpsc::channel();
    let log = log.clone();
    std::thread::spawn(move || tell.send(log.append_at(level, text)));
    told
}

fn told<T>(told: &mpsc::Receiver<T>) -> T {
    told.recv_timeout(PATIENCE).expect("somebody waits for ever")
}

fn payloads(disk: &MemDir) -> Vec<Vec<u8>> {
    let log = options().open_in(disk.dir()).unwrap();
    log.range(..).unwrap().map(|record| record.unwrap().payload).collect()
}

#[test]
fn written_is_told_before_the_sync_and_survives_the_process_alone() {
    let Gated { disk, sync, log, .. } = gated();
    log.append("durable").unwrap();
    let _shut = sync.shut_for_now();
    let answer = append_on_a_thread(&log, Level::Written, "written");
    assert_eq!(told(&answer).unwrap().get(), 2);
    sync.await_guest();
    assert_eq!(log.durable_lsn().unwrap().get(), 1, "written moves no durable LSN");
    assert_eq!(payloads(&disk.killed()), [b"durable".to_vec(), b"written".to_vec()]);
    assert_eq!(payloads(&disk.crash(Keep::Nothing)), [b"durable".to_vec()]);
}

/// The other half: nobody is told while the write has not happened.
#[test]
fn written_is_not_told_before_the_write() {
    let Gated { disk, write, log, .. } = gated();
    log.append("durable").unwrap();
    let _shut = write.shut_for_now();
    let pending = log.submit(Record::new("written")).unwrap();
    write.await_guest();
    assert!(!pending.is_written(), "told, and not written");
    assert_eq!(payloads(&disk.killed()), [b"durable".to_vec()]);
    write.open();
    assert_eq!(pending.wait_written().unwrap().start().get(), 2);
    assert!(pending.is_written());
    assert_eq!(payloads(&disk.killed()).len(), 2);
}

#[test]
fn buffered_waits_for_nothing_and_survives_nothing_but_an_orderly_end() {
    let Gated { disk, write, log, .. } = gated();
    log.append("durable").unwrap();
    let shut = write.shut_for_now();
    let lsns: Vec<_> =
        (0..3).map(|_| log.append_at(Level::Buffered, "buffered").unwrap().get()).collect();
    assert_eq!(lsns, [2, 3, 4]);
    assert_eq!(payloads(&disk.killed()), [b"durable".to_vec()]);
    drop(shut);
    log.close().unwrap();
    assert_eq!(payloads(&disk.crash(Keep::Nothing)).len(), 4, "a close writes what was admitted");
}

#[test]
fn levels_share_one_order_and_durable_takes_the_lower_ones_with_it() {
    let disk = MemDir::new(1);
    let log = options().open_in(disk.dir()).unwrap();
    let two = || Batch::from_iter(["a", "b"].map(Record::new));
    assert_eq!(log.append_at(Level::Buffered, "1").unwrap().get(), 1);
    assert_eq!(log.append_batch_at(Level::Written, two()).unwrap().end().get(), 3);
    assert_eq!(log.append_batch_at(Level::Buffered, two()).unwrap().start().get(), 4);
    assert_eq!(log.append_at(Level::Durable, "6").unwrap().get(), 6);
    assert_eq!(payloads(&disk.crash(Keep::Nothing)).len(), 6);
    assert_eq!(log.append_batch_at(Level::Durable, two()).unwrap().end().get(), 8);
    assert_eq!(payloads(&disk.crash(Keep::Nothing)).len(), 8);
    assert_eq!(Level::default(), Level::Durable);
    let empty = log.append_batch_at(Level::Buffered, Batch::new()).unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Invalid);
}

/// A write that fails: who waits for it is told, and so is who waits behind it.
#[test]
fn a_failed_write_is_told_to_whoever_waits_for_it() {
    let Gated { write, log, .. } = gated();
    write.shut();
    let first = append_on_a_thread(&log, Level::Written, "in flight");
    write.await_guest();
    let behind = log.submit(Record::new("behind")).unwrap();
    let (tell, second) = mpsc::channel();
    std::thread::spawn(move || tell.send(behind.wait_written()));
    write.fail();
    for error in [told(&first).unwrap_err(), told(&second).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        assert!(error.outcome_unknown(), "{error}");
    }
    for level in [Level::Buffered, Level::Written, Level::Durable] {
        let error = log.append_at(level, "later").unwrap_err();
        assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Poisoned, false));
    }
}

/// A sync that fails after the write: whoever was told stays told, the log is poisoned all the same,
/// and who waits for the sync hears of it.
#[test]
fn a_sync_that_fails_later_poisons_as_always() {
    let Gated { disk, sync, log, .. } = gated();
    sync.shut();
    let pending = log.submit(Record::new("written")).unwrap();
    sync.await_guest();
    assert_eq!(pending.wait_written().unwrap().start().get(), 1);
    assert!(!pending.is_done());
    sync.fail();
    let lsns = pending.wait_written().unwrap();
    let error = pending.wait().unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert!(log.poisoned().is_some() && log.durable_lsn().is_none(), "{lsns:?}");
    assert_eq!(payloads(&disk.killed()), [b"written".to_vec()]);
}

#[test]
fn a_close_and_the_last_handle_leave_nobody_who_waits_for_a_write() {
    let Gated { write, log, .. } = gated();
    write.shut();
    let pending = log.submit(Record::new("admitted")).unwrap();
    write.await_guest();
    let (tell, answer) = mpsc::channel();
    std::thread::spawn(move || tell.send(pending.wait_written()));
    drop(log);
    write.open();
    assert_eq!(told(&answer).unwrap().start().get(), 1);

    let Gated { log, .. } = gated();
    let pending = log.submit(Record::new("admitted")).unwrap();
    let other = log.clone();
    log.close().unwrap();
    assert_eq!(pending.wait_written().unwrap().start().get(), 1);
    assert_eq!(other.append_at(Level::Written, "late").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_forked_child_is_refused_at_every_level() {
    let disk = MemDir::new(1);
    let log = options().open_in(disk.dir()).unwrap();
    let pending = log.submit(Record::new("parent's")).unwrap();
    log.wait_durable(Lsn::FIRST).unwrap();
    let parent = annals_wal::fs::Dir::pid(&disk);
    disk.set_pid(parent + 1);
    for level in [Level::Buffered, Level::Written, Level::Durable] {
        assert_eq!(log.append_at(level, "child's").unwrap_err().kind(), ErrorKind::Locked);
    }
    assert_eq!(pending.wait_written().unwrap_err().kind(), ErrorKind::Locked);
    disk.set_pid(parent);
    assert_eq!(pending.wait_written().unwrap().start().get(), 1);
}
