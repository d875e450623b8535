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

use annals_wal::fs::mem::{Fault, Keep, MemDir, SyncFailure};
use annals_wal::fs::os::OsDir;
use annals_wal::fs::{Access, Dir, File, FileSystem, LockMode, SyncPoint};

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

/// Runs a check on two directories of one file system.
fn on_two(check: fn(&dyn Dir, &dyn Dir)) {
    let base = tempfile::tempdir().unwrap();
    let (one, two) = (OsDir::new(base.path().join("log")), OsDir::new(base.path().join("to")));
    check(&one, &two);
    let disk = MemDir::new(2);
    check(&disk, &disk.beside("to"));
}

fn content(dir: &dyn Dir, name: &str) -> Vec<u8> {
    let file = dir.open(name, Access::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn a_rename_replaces_and_moves_the_file_itself() {
    on_both(|dir| {
        dir.make().unwrap();
        dir.create("old").unwrap().write_at(b"old", 0).unwrap();
        dir.create("new").unwrap().write_at(b"new one", 0).unwrap();
        let moved = dir.identity("new").unwrap();
        dir.rename("new", "old").unwrap();
        assert_eq!((names(dir), dir.identity("old").unwrap()), (vec!["old".to_owned()], moved));
        assert_eq!(content(dir, "old"), b"new one");
        assert_eq!(dir.rename("new", "old").unwrap_err().kind(), ErrorKind::NotFound);
        dir.rename("old", "other").unwrap();
        assert_eq!(names(dir), ["other"]);
    });
}

#[test]
fn a_file_may_have_names_in_two_directories() {
    on_two(|one, two| {
        one.make().unwrap();
        one.create("a").unwrap().write_at(b"one", 0).unwrap();
        let absent = two.hard_link_from(one.absolute(), "a", "b").unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        assert_eq!(two.create("c").unwrap_err().kind(), ErrorKind::NotFound);
        two.make().unwrap();
        two.hard_link_from(one.absolute(), "a", "b").unwrap();
        two.create("c").unwrap();
        let there = two.hard_link_from(one.absolute(), "a", "c").unwrap_err();
        assert_eq!(there.kind(), ErrorKind::AlreadyExists);
        let none = two.hard_link_from(one.absolute(), "x", "y").unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NotFound);
        assert_eq!((names(one), names(two)), (vec!["a".to_owned()], vec!["b".into(), "c".into()]));
        assert_eq!(one.identity("a").unwrap(), two.identity("b").unwrap());
        assert_eq!((one.status("a").unwrap().links, two.status("b").unwrap().links), (2, 2));
        one.open("a", Access::Write).unwrap().write_at(b"two", 0).unwrap();
        one.remove("a").unwrap();
        assert_eq!(content(two, "b"), b"two");
    });
}

/// One disk, and yet each directory's names are made durable by its own syncs alone.
#[test]
fn directories_of_one_disk_are_synced_each_for_itself() {
    let disk = MemDir::new(3);
    let (one, two) = (disk.dir(), disk.beside("to").dir());
    for dir in [&one, &two] {
        dir.make().unwrap();
        dir.sync_parent(SyncPoint::Parent).unwrap();
        dir.create("a").unwrap();
    }
    one.sync(SyncPoint::Published).unwrap();
    let crashed = disk.crash(Keep::Nothing);
    assert_eq!((crashed.names(), crashed.beside("to").names()), (vec!["a".to_owned()], vec![]));
    two.sync(SyncPoint::Published).unwrap();
    one.remove("a").unwrap();
    two.rename("a", "b").unwrap();
    let crashed = disk.crash(Keep::Nothing);
    assert_eq!(crashed.beside("to").names(), ["a"]);
    let crashed = disk.crash(Keep::Everything);
    assert_eq!((crashed.names(), crashed.beside("to").names()), (vec![], vec!["b".to_owned()]));
    // A parent that was not synced may lose the directory, and only that one.
    disk.beside("third").dir().make().unwrap();
    let crashed = disk.crash(Keep::Nothing);
    assert!(
        crashed.beside("third").dir().list().is_err() && crashed.beside("to").dir().list().is_ok()
    );
}

#[test]
fn what_is_above_a_directory_is_made_and_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("a").join("b").join("c");
    for _ in 0..2 {
        annals_wal::fs::os::make_above(&path).unwrap();
    }
    assert!(!path.exists() && path.parent().unwrap().is_dir());
    let mode = std::fs::metadata(base.path().join("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    std::fs::write(base.path().join("file"), "").unwrap();
    assert!(annals_wal::fs::os::make_above(&base.path().join("file").join("x").join("y")).is_err());
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

/// What is allocated reads as zeros, is the file's, and leaves alone what was written before it.
#[test]
fn what_is_allocated_is_there_and_zero() {
    on_both(|dir| {
        dir.make().unwrap();
        let file = dir.create("a").unwrap();
        file.write_at(b"xyz", 0).unwrap();
        file.allocate(3, 10_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        let mut read = vec![1; 10_001];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), 10_000);
        assert_eq!(
            (&read[..3], read[3..10_000].iter().all(|byte| *byte == 0)),
            (&b"xyz"[..], true)
        );
        file.write_at(b"end", 9_997).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        file.sync_data(SyncPoint::Prepared).unwrap();
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

/// The bytes of the file as this descriptor reads them.
fn shown(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    let read = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

/// A file with durable bytes, seen through two descriptors, and new bytes in the cache.
fn old_and_new() -> (MemDir, Arc<dyn File>, Arc<dyn File>) {
    let disk = MemDir::new(1);
    let dir = disk.dir();
    dir.make().unwrap();
    dir.sync_parent(SyncPoint::Parent).unwrap();
    let file = dir.create("a").unwrap();
    file.write_at(b"old", 0).unwrap();
    file.sync_data(SyncPoint::Group).unwrap();
    dir.sync(SyncPoint::Published).unwrap();
    let other = dir.open("a", Access::Write).unwrap();
    file.write_at(b"new", 0).unwrap();
    (disk, file, other)
}

fn eio(result: std::io::Result<()>) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
}

/// What Linux 6.18 was seen to do on ext4, xfs and btrfs alike when one write to the device fails
/// (`cargo xtask fsyncgate` looks again): the first sync fails, the second succeeds and has done
/// nothing; every descriptor that was open is told once; the cache shows the new bytes, the disk
/// has the old ones; writing them again and a sync make them durable.
#[test]
fn a_failed_sync_lies_as_linux_was_seen_to() {
    let (disk, file, other) = old_and_new();
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
    eio(file.sync_data(SyncPoint::Group));
    file.sync_data(SyncPoint::Group).unwrap();
    eio(other.sync_data(SyncPoint::Group));
    other.sync_data(SyncPoint::Group).unwrap();
    let after = disk.dir().open("a", Access::Write).unwrap();
    after.sync_data(SyncPoint::Group).unwrap();
    assert_eq!(shown(&*file), b"new");
    for keep in [Keep::Nothing, Keep::Some(1), Keep::Some(2)] {
        assert_eq!(disk.crash(keep).bytes("a").unwrap(), b"old", "{keep:?}");
    }
    after.write_at(b"new", 0).unwrap();
    after.sync_data(SyncPoint::Group).unwrap();
    assert_eq!(disk.crash(Keep::Nothing).bytes("a").unwrap(), b"new");
}

/// The same when the kernel's own writeback meets the error: nobody is told until a sync, and the
/// first descriptor opened afterwards is told too, if nobody was before.
#[test]
fn a_failed_writeback_is_told_late_and_once() {
    for how in [SyncFailure::CleanNew, SyncFailure::CleanOld] {
        let (disk, file, other) = old_and_new();
        disk.fault_at(disk.ops(), Fault::Writeback(how));
        disk.dir().create("b").unwrap();
        let after = disk.dir().open("a", Access::Write).unwrap();
        eio(after.sync_data(SyncPoint::Group));
        let later = disk.dir().open("a", Access::Write).unwrap();
        later.sync_data(SyncPoint::Group).unwrap();
        eio(file.sync_data(SyncPoint::Group));
        eio(other.sync_data(SyncPoint::Group));
        file.sync_data(SyncPoint::Group).unwrap();
        let seen = if how == SyncFailure::CleanNew { b"new" } else { b"old" };
        assert_eq!(shown(&*file), seen);
        assert_eq!(disk.crash(Keep::Nothing).bytes("a").unwrap(), b"old");
    }
}

/// Short writes store a prefix and say so, EINTR stores nothing, a full disk stores nothing.
#[test]
fn short_interrupted_and_full_writes_say_what_they_did() {
    let (disk, file, _) = old_and_new();
    disk.fault_at(disk.ops(), Fault::Short(3));
    let stored = file.write_at(&[7; 100], 0).unwrap();
    assert!(stored < 100);
    let bytes = shown(&*file);
    assert!(bytes.iter().take(stored).all(|byte| *byte == 7) && bytes.len() >= stored);
    disk.fault_at(disk.ops(), Fault::Interrupted);
    let error = file.write_at(b"x", 500).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    disk.set_bytes_free(Some(10));
    let error = file.write_at(&[1; 100], 1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(shown(&*file), bytes);
    disk.set_bytes_free(None);
    disk.short_reads(Some(1));
    let mut read = [0; 100];
    let lengths: Vec<_> = (0..40).filter_map(|_| file.read_at(&mut read, 0).ok()).collect();
    assert!(lengths.iter().all(|len| *len > 0) && lengths.iter().any(|len| *len < bytes.len()));
    assert!(lengths.len() < 40, "some reads are interrupted");
}

/// Copy on write needs space for an overwrite until it is synced; in place needs none.
#[test]
fn an_overwrite_needs_space_where_the_file_system_copies() {
    for copies in [false, true] {
        let (disk, file, _) = old_and_new();
        file.sync_data(SyncPoint::Group).unwrap();
        disk.copy_on_write(copies);
        disk.set_bytes_free(Some(512));
        file.write_at(b"one", 0).unwrap();
        file.sync_data(SyncPoint::Group).unwrap();
        disk.set_bytes_free(Some(0));
        assert_eq!(file.write_at(b"two", 0).is_err(), copies);
    }
}

/// With `tear_sectors` a sector can come out of a crash as the head of one image and the tail of
/// another; without, never.
#[test]
fn a_sector_tears_inside_only_when_asked() {
    let torn = |tear: bool| {
        let disk = MemDir::new(1);
        disk.tear_sectors(tear);
        let dir = disk.dir();
        dir.make().unwrap();
        dir.sync_parent(SyncPoint::Parent).unwrap();
        let file = dir.create("a").unwrap();
        file.write_at(&[1; 512], 0).unwrap();
        file.sync_data(SyncPoint::Group).unwrap();
        dir.sync(SyncPoint::Published).unwrap();
        file.write_at(&[2; 512], 0).unwrap();
        let crashed = |seed| disk.crash(Keep::Some(seed)).bytes("a").unwrap();
        (0..20).map(crashed).filter(|bytes| bytes.contains(&1) && bytes.contains(&2)).count()
    };
    assert_eq!(torn(false), 0);
    assert!(torn(true) > 0);
}

/// Where a crash has few outcomes, all of them can be had by number, each once.
#[test]
fn every_outcome_of_a_crash_has_a_number() {
    let (disk, file, _) = old_and_new();
    assert_eq!(disk.crash_outcomes(), 2);
    file.write_at(b"newer", 600).unwrap();
    // The old sector or the new one; the second sector or not; three sizes.
    assert_eq!(disk.crash_outcomes(), 12);
    let outcomes: std::collections::BTreeSet<_> =
        (0..12).map(|n| disk.crash(Keep::Nth(n)).bytes("a").unwrap()).collect();
    assert!(outcomes.len() >= 8, "{} different ones", outcomes.len());
}
