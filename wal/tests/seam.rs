//! The seam's contract, on the real file system and on the crashable one: what one says, the other
//! says too. Whatever the log relies on stands here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::io::ErrorKind;
use std::sync::Arc;

use annals_wal::fs::mem::MemDir;
use annals_wal::fs::os::OsDir;
use annals_wal::fs::{Access, Dir, FileSystem, LockMode, SyncPoint};

/// Runs a check on both.
fn on_both(check: fn(&dyn Dir)) {
    let base = tempfile::tempdir().unwrap();
    let real: Arc<dyn Dir> = Arc::new(OsDir::new(base.path().join("log")));
    for dir in [real, MemDir::new(1).dir()] {
        println!("{dir:?}");
        check(&*dir);
    }
}

fn names(dir: &dyn Dir) -> Vec<String> {
    let mut names: Vec<_> = dir.list().unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn a_directory_is_made_once_and_an_absent_one_is_not_found() {
    on_both(|dir| {
        assert_eq!(dir.list().unwrap_err().kind(), ErrorKind::NotFound);
        dir.make().unwrap();
        dir.make().unwrap();
        assert_eq!(names(dir), Vec::<String>::new());
        dir.sync_parent(SyncPoint::Parent).unwrap();
        dir.sync(SyncPoint::Published).unwrap();
    });
}

#[test]
fn creating_and_linking_never_replace() {
    on_both(|dir| {
        dir.make().unwrap();
        let file = dir.create("a").unwrap();
        assert_eq!(dir.create("a").unwrap_err().kind(), ErrorKind::AlreadyExists);
        file.write_at(b"one", 0).unwrap();
        dir.hard_link("a", "b").unwrap();
        dir.create("c").unwrap();
        assert_eq!(dir.hard_link("a", "c").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(dir.hard_link("x", "y").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(dir.identity("a").unwrap(), dir.identity("b").unwrap());
        assert_ne!(dir.identity("a").unwrap().inode, dir.identity("c").unwrap().inode);
        dir.remove("a").unwrap();
        assert_eq!(dir.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(dir.identity("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(names(dir), ["b", "c"]);
        let mut read = [0; 3];
        assert_eq!(dir.open("b", Access::Read).unwrap().read_at(&mut read, 0).unwrap(), 3);
        assert_eq!(&read, b"one");
    });
}

#[test]
fn reads_end_at_the_end_and_writes_extend_with_zeros() {
    on_both(|dir| {
        dir.make().unwrap();
        let file = dir.create("a").unwrap();
        assert!(file.is_empty().unwrap());
        assert_eq!(file.write_at(b"xyz", 10).unwrap(), 3);
        assert_eq!(file.len().unwrap(), 13);
        let mut read = [1; 20];
        assert_eq!(file.read_at(&mut read, 8).unwrap(), 5);
        assert_eq!(&read[..5], b"\0\0xyz");
        assert_eq!(file.read_at(&mut read, 13).unwrap(), 0);
        assert_eq!(file.read_at(&mut read, 1 << 40).unwrap(), 0);
        file.sync_data(SyncPoint::Group).unwrap();
    });
}

#[test]
fn a_file_opened_for_reading_cannot_be_written_and_outlives_its_name() {
    on_both(|dir| {
        dir.make().unwrap();
        dir.create("a").unwrap().write_at(b"kept", 0).unwrap();
        let file = dir.open("a", Access::Read).unwrap();
        assert!(file.write_at(b"x", 0).is_err());
        assert_eq!(dir.open("b", Access::Read).unwrap_err().kind(), ErrorKind::NotFound);
        let before = file.identity().unwrap();
        dir.remove("a").unwrap();
        let mut read = [0; 4];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), 4);
        assert_eq!((&read, file.identity().unwrap().inode), (b"kept", before.inode));
    });
}

#[test]
fn a_lock_is_one_holders_until_it_is_dropped() {
    on_both(|dir| {
        dir.make().unwrap();
        let absent = dir.try_lock("LOCK", LockMode::Shared, false);
        assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
        let held = dir.try_lock("LOCK", LockMode::Exclusive, true).unwrap().unwrap();
        held.write_pid(77);
        assert!(dir.try_lock("LOCK", LockMode::Exclusive, true).unwrap().is_none());
        assert!(dir.try_lock("LOCK", LockMode::Shared, false).unwrap().is_none());
        drop(held);
        let one = dir.try_lock("LOCK", LockMode::Shared, false).unwrap().unwrap();
        let two = dir.try_lock("LOCK", LockMode::Shared, false).unwrap().unwrap();
        assert!(dir.try_lock("LOCK", LockMode::Exclusive, true).unwrap().is_none());
        drop((one, two));
        assert!(dir.try_lock("LOCK", LockMode::Exclusive, true).unwrap().is_some());
        let mut pid = [0; 2];
        dir.open("LOCK", Access::Read).unwrap().read_at(&mut pid, 0).unwrap();
        assert_eq!(&pid, b"77");
    });
}

#[test]
fn randomness_differs_and_identities_have_a_birth() {
    on_both(|dir| {
        dir.make().unwrap();
        let (mut a, mut b) = ([0; 16], [0; 16]);
        dir.random(&mut a).unwrap();
        dir.random(&mut b).unwrap();
        assert_ne!(a, b);
        let file = dir.create("a").unwrap();
        assert_eq!(file.identity().unwrap(), dir.identity("a").unwrap());
        assert!(dir.now_ms() > 0 && dir.pid() > 0);
    });
}

#[test]
fn status_tells_a_files_names_and_a_replacement_from_it() {
    on_both(|dir| {
        assert_eq!(dir.standing().unwrap_err().kind(), ErrorKind::NotFound);
        dir.make().unwrap();
        let standing = dir.standing().unwrap();
        assert_eq!((standing.mode, standing.owner), (0o700, standing.user));
        assert_eq!(standing.file_system, FileSystem::Local);
        let file = dir.create("a").unwrap();
        let status = file.status().unwrap();
        assert_eq!((status.links, status.owner), (1, standing.user));
        assert_eq!(dir.status("a").unwrap(), status);
        dir.hard_link("a", "b").unwrap();
        assert_eq!((dir.status("a").unwrap().links, file.status().unwrap().links), (2, 2));
        dir.remove("a").unwrap();
        assert_eq!(dir.status("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(dir.status("b").unwrap().is_same_file(&status));
        dir.remove("b").unwrap();
        assert_eq!(file.status().unwrap().links, 0);
        dir.create("a").unwrap();
        assert!(!dir.status("a").unwrap().is_same_file(&status), "the open one keeps its number");
        let lock = dir.try_lock("LOCK", LockMode::Exclusive, true).unwrap().unwrap();
        assert_eq!(lock.status().unwrap(), dir.status("LOCK").unwrap());
        dir.remove("LOCK").unwrap();
        let other = dir.try_lock("LOCK", LockMode::Exclusive, true).unwrap();
        assert!(other.is_some(), "another file, another lock");
        assert_eq!(lock.status().unwrap().links, 0);
    });
}
