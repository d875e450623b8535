//! Tenures: whoever writes files of its own in the directory owns it to the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and moves real directories"
)]

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use annals_wal::fs::Dir;
use annals_wal::fs::mem::MemDir;
use annals_wal::{ErrorKind, Log, Options};

fn open(disk: &MemDir) -> Result<Log, annals_wal::Error> {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir())
}

#[test]
fn a_close_waits_for_a_tenure_which_learns_of_it() {
    let disk = MemDir::new(1);
    let log = open(&disk).unwrap();
    let tenure = log.tenure().unwrap();
    tenure.check().unwrap();
    let (sender, closed) = channel();
    let closing = log.clone();
    let closer = thread::spawn(move || sender.send(closing.close()));
    while !log.is_closed() {
        thread::yield_now();
    }
    assert_eq!(tenure.check().unwrap_err().kind(), ErrorKind::Closed);
    tenure.stands().unwrap();
    assert_eq!(log.tenure().unwrap_err().kind(), ErrorKind::Closed, "no further one");
    let early = closed.recv_timeout(Duration::from_millis(50));
    assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "it did not wait: {early:?}");
    assert_eq!(open(&disk).unwrap_err().kind(), ErrorKind::Locked, "still ours");
    drop(tenure);
    closed.recv().unwrap().unwrap();
    closer.join().unwrap().unwrap();
    open(&disk).unwrap();
}

#[test]
fn a_log_whose_handles_are_gone_stays_locked_as_long_as_a_tenure_lives() {
    let disk = MemDir::new(1);
    let log = open(&disk).unwrap();
    let tenure = log.tenure().unwrap();
    drop(log);
    assert_eq!(open(&disk).unwrap_err().kind(), ErrorKind::Locked);
    drop(tenure);
    open(&disk).unwrap();
}

#[test]
fn a_lost_lock_file_ends_a_tenure_and_poisons_the_log() {
    let disk = MemDir::new(1);
    let log = open(&disk).unwrap();
    let tenure = log.tenure().unwrap();
    disk.replace("LOCK");
    let error = tenure.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("replaced"), "{error}");
    assert!(log.poisoned().is_some());
    assert_eq!(log.tenure().unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(tenure.stands().is_err());
}

/// What cannot be looked at just now may stand all the same.
#[test]
fn a_lock_file_that_cannot_be_looked_at_fails_the_step_and_not_the_log() {
    let base = tempfile::tempdir().unwrap();
    let (path, aside) = (base.path().join("log"), base.path().join("aside"));
    let log = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    let tenure = log.tenure().unwrap();
    std::fs::rename(&path, &aside).unwrap();
    std::fs::write(&path, "no directory").unwrap(); // ENOTDIR, not ENOENT
    let error = tenure.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(log.tenure().unwrap_err().kind(), ErrorKind::Io);
    assert!(log.poisoned().is_none());
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    tenure.check().unwrap();
    log.append("goes on").unwrap();
}

#[test]
fn a_forked_child_has_no_tenure_and_gives_none_back() {
    let disk = MemDir::new(1);
    let log = open(&disk).unwrap();
    let parent = disk.pid();
    let (tenure, inherited) = (log.tenure().unwrap(), log.tenure().unwrap());
    disk.set_pid(parent + 1);
    assert_eq!(tenure.check().unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(log.tenure().unwrap_err().kind(), ErrorKind::Locked);
    drop(inherited); // the child's copy of it
    disk.set_pid(parent);
    tenure.check().unwrap();
    log.append("goes on").unwrap();
}
