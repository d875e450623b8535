//! Whom a log trusts: modes of what it makes under any umask, directories that others may change,
//! files with a second name or another owner, file systems that are not local.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use annals_wal::fs::mem::MemDir;
use annals_wal::fs::os::OsDir;
use annals_wal::fs::{Dir, FileSystem, Standing};
use annals_wal::inspect::{Depth, inspect, inspect_in};
use annals_wal::{ErrorKind, Log, LogReader, Options};

const SEGMENT: &str = "00000000000000000001.wal";

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything a log can make: segments, a spare, a lock, a control block, a copy of cut bytes, a
/// backup.
fn make_everything(path: &Path) {
    let log = options().open(path).unwrap();
    for _ in 0..20 {
        log.append(vec![7; 9000]).unwrap();
    }
    log.backup(path.with_extension("copy")).unwrap();
    log.close().unwrap();
    let log = options().open(path).unwrap();
    log.append("torn").unwrap();
    drop(log);
    drop(options().open(path).unwrap());
    let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "wal"));
    names.sort();
    std::fs::remove_file(path.join("CONTROL")).unwrap();
    let last = names.last().unwrap();
    let mut bytes = std::fs::read(last).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used + 8..used + 20].fill(0xEE);
    std::fs::write(last, bytes).unwrap();
    drop(options().open(path).unwrap());
}

/// Not a test of its own: the other process of the next one, with an umask of its own.
#[test]
fn child_process() {
    let Ok(path) = std::env::var("ANNALS_TEST_MODES") else { return };
    make_everything(Path::new(&path));
    println!("made");
}

#[test]
fn directories_are_0700_and_files_0600_under_any_umask() {
    for umask in ["0000", "0002", "0022", "0077", "0177"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let script = format!("umask {umask} && exec \"$@\"");
        let out = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture"])
            .env("ANNALS_TEST_MODES", &path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        if umask == "0177" && std::fs::metadata(dir.path()).unwrap().uid() != 0 {
            // Nobody but root can enter what it just made, so there is nothing in it.
            assert!(!said.contains("made"), "{said}");
            assert_eq!(mode(&path), 0o600);
            assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
            continue;
        }
        assert!(said.contains("made"), "{umask}: {said} {}", String::from_utf8_lossy(&out.stderr));
        let copy = path.with_extension("copy");
        // An umask may take the owner's own bits, too: nobody gets more than 0700 and 0600.
        let taken = u32::from_str_radix(umask, 8).unwrap();
        let mut kinds = Vec::new();
        for made in [&path, &copy] {
            assert_eq!(mode(made), 0o700 & !taken, "{umask}: {}", made.display());
            for entry in std::fs::read_dir(made).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                assert_eq!(mode(&entry.path()), 0o600 & !taken, "{umask}: {name}");
                kinds.push(name.split(['-', '.']).next_back().unwrap().to_owned());
            }
        }
        for kind in ["wal", "LOCK", "CONTROL", "bin"] {
            assert!(kinds.iter().any(|made| made == kind), "no {kind} was made: {kinds:?}");
        }
    }
}

fn private(path: &Path) {
    std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

fn refused(options: Options, path: &Path) -> String {
    let error = options.open(path).unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    error.to_string()
}

#[test]
fn a_directory_that_others_may_write_in_is_refused_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    private(&path);
    for others in [0o777, 0o1777, 0o702, 0o770, 0o2775, 0o720] {
        set_mode(&path, others);
        let said = refused(options(), &path);
        assert!(said.contains(&format!("{others:04o}")) && said.contains("chmod go-w"), "{said}");
        assert!(said.contains("allow_writable_by_others"), "{said}");
        refused(options().allow_foreign_owner(true).allow_network_file_system(true), &path);
        assert_eq!(
            std::fs::read_dir(&path).unwrap().count(),
            0,
            "nothing was made, no LOCK either"
        );
    }
    for mode in [0o700, 0o750, 0o755, 0o500 | 0o200] {
        set_mode(&path, mode);
        options().open(&path).unwrap().close().unwrap();
    }
    set_mode(&path, 0o777);
    // Readers and the inspector own nothing and may look at anything.
    LogReader::open(&path).unwrap().range(..).unwrap().count();
    inspect(&path, Depth::Everything, &mut |_| ()).unwrap();
    options().allow_writable_by_others(true).open(&path).unwrap().close().unwrap();
    refused(options(), &path);
}

/// Needs root, which alone can give files away. Whoever else runs this has nothing to test it
/// with.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_directory_of_another_user_is_refused_unless_asked_for_by_root_too() {
    if !is_root() {
        println!("skipped: only root can give a directory away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    private(&path);
    chown(&path, Some(12345), None).unwrap();
    let said = refused(options(), &path);
    assert!(said.contains("user 12345") && said.contains("user 0"), "{said}");
    assert!(said.contains("allow_foreign_owner"), "{said}");
    refused(options().allow_writable_by_others(true).allow_network_file_system(true), &path);
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    options().allow_foreign_owner(true).open(&path).unwrap().close().unwrap();
    LogReader::open(&path).unwrap();
    refused(options(), &path);
    // One of its files alone: what an opening would write to, and only that.
    chown(&path, Some(0), None).unwrap();
    options().open(&path).unwrap().close().unwrap();
    for name in ["LOCK", "CONTROL", SEGMENT] {
        chown(path.join(name), Some(12345), None).unwrap();
        let said = refused(options(), &path);
        assert!(said.contains(name) && said.contains("chown"), "{said}");
        options().allow_foreign_owner(true).open(&path).unwrap().close().unwrap();
        chown(path.join(name), Some(0), None).unwrap();
    }
    options().open(&path).unwrap().close().unwrap();
}

/// The same by the seam, for whoever is not root.
#[test]
fn the_seam_decides_about_owners_modes_and_file_systems() {
    let disk = MemDir::new(1);
    options().open_in(disk.dir()).unwrap().close().unwrap();
    let honest = disk.dir().standing().unwrap();
    let names = disk.names();
    let open = |options: Options, standing: Standing| {
        disk.set_standing(standing);
        let opened = options.open_in(disk.dir()).map(|log| log.close().unwrap());
        opened.map_err(|error| {
            println!("{error}");
            error.kind()
        })
    };
    let foreign = Standing { owner: 7, ..honest };
    let shared = Standing { mode: 0o777, ..honest };
    let remote = Standing { file_system: FileSystem::Network("NFS"), ..honest };
    for standing in [foreign, shared, remote] {
        assert_eq!(open(options(), standing), Err(ErrorKind::Untrusted), "{standing:?}");
        inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap();
        LogReader::open_in(disk.dir()).unwrap();
    }
    assert_eq!(disk.names(), names);
    // Each refusal has its own way round it, and no other's.
    let all = [
        options().allow_foreign_owner(true),
        options().allow_writable_by_others(true),
        options().allow_network_file_system(true),
    ];
    for (allowed, option) in all.into_iter().enumerate() {
        for (asked, standing) in [foreign, shared, remote].into_iter().enumerate() {
            assert_eq!(open(option.clone(), standing).is_ok(), allowed == asked, "{standing:?}");
        }
    }
    assert_eq!(open(options(), honest), Ok(()));
}

/// A second name elsewhere would be written through. The error names the file and nothing changes.
#[test]
fn a_file_with_a_second_name_elsewhere_is_not_written_to() {
    for name in ["LOCK", "CONTROL", SEGMENT, "00000000000000000002.wal"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = options().open(&path).unwrap();
        if name.contains('2') {
            prepare_a_spare(&log);
        }
        log.append("one").unwrap();
        log.close().unwrap();
        let other = dir.path().join("other");
        std::fs::hard_link(path.join(name), &other).unwrap();
        let before = std::fs::read(&other).unwrap();
        let error = options().open(&path).unwrap_err();
        println!("{error}");
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains(name) && error.to_string().contains("2 names"));
        assert_eq!(std::fs::read(&other).unwrap(), before);
        std::fs::remove_file(&other).unwrap();
        let log = options().open(&path).unwrap();
        assert!(log.range(..).unwrap().all(|record| record.is_ok()));
    }
}

/// Makes the log prepare the next segment, and does not use it.
fn prepare_a_spare(log: &Log) {
    log.append(vec![1; 40_000]).unwrap();
    let mut batch: annals_wal::Batch = annals_wal::Record::new(vec![2; 40_000]).into();
    batch.push("x");
    let mut encoded = batch.encode(u32::MAX).unwrap();
    let mut tries = 0;
    let _ = log.ordered(|slot| {
        tries += 1;
        if tries == 1 { slot.push(&mut encoded).map(drop) } else { Ok(()) }
    });
}

/// Publishing gives a segment two names for a moment. A crash there is nobody else's file.
#[test]
fn a_segment_with_its_own_preparation_name_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = options().open(&path).unwrap();
    log.append("one").unwrap();
    log.close().unwrap();
    let tmp = path.join("00000000000000000001.wal.tmp");
    std::fs::hard_link(path.join(SEGMENT), &tmp).unwrap();
    let log = options().open(&path).unwrap();
    assert!(!tmp.exists(), "row H removes it");
    assert_eq!(log.append("two").unwrap().get(), 2);
    log.close().unwrap();
    // Another file of that name excuses no second name.
    std::fs::write(&tmp, "other").unwrap();
    std::fs::hard_link(path.join(SEGMENT), dir.path().join("elsewhere")).unwrap();
    assert_eq!(options().open(&path).unwrap_err().kind(), ErrorKind::Untrusted);
}

#[test]
fn a_backup_goes_to_no_directory_that_others_may_write_in() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path().join("log")).unwrap();
    log.append("secret").unwrap();
    let to = dir.path().join("copy");
    private(&to);
    set_mode(&to, 0o777);
    let error = log.backup(&to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 0);
    set_mode(&to, 0o700);
    log.backup(&to).unwrap();
}

#[test]
fn file_systems_are_told_by_their_numbers_and_this_one_is_local() {
    let network = [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x00C3_6400, 0x6573_5546, 0x0102_1997];
    for magic in network {
        assert!(matches!(FileSystem::of_magic(magic), FileSystem::Network(_)), "{magic:#x}");
    }
    // ext4, xfs, btrfs, tmpfs, overlayfs, ZFS, F2FS
    let local =
        [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0xF2F5_2010];
    for magic in local {
        assert_eq!(FileSystem::of_magic(magic), FileSystem::Local, "{magic:#x}");
    }
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o700);
    let standing = OsDir::new(dir.path()).standing().unwrap();
    assert_eq!((standing.mode, standing.owner), (0o700, standing.user));
    assert_eq!(standing.file_system, FileSystem::Local, "run the tests on a local disk");
}

/// A path is taken from where the process stood when it was named.
#[test]
fn a_relative_path_does_not_follow_the_working_directory() {
    let Ok(path) = std::env::var("ANNALS_TEST_CHDIR") else {
        let dir = tempfile::tempdir().unwrap();
        let name = "a_relative_path_does_not_follow_the_working_directory";
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("ANNALS_TEST_CHDIR", dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && said.contains("went on"), "{said}");
        return;
    };
    let path = PathBuf::from(path);
    std::env::set_current_dir(&path).unwrap();
    let log = options().open("log").unwrap();
    std::fs::create_dir(path.join("elsewhere")).unwrap();
    std::env::set_current_dir(path.join("elsewhere")).unwrap();
    for _ in 0..20 {
        log.append(vec![7; 9000]).unwrap();
    }
    log.close().unwrap();
    assert_eq!(std::fs::read_dir(path.join("elsewhere")).unwrap().count(), 0);
    println!("went on");
}
