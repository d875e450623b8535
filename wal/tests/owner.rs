//! One owner at a time, and every bad directory: refused by kind, with nothing changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use annals_wal::{Error, ErrorKind, Log, LogReader, Lsn, Options};

/// Not a test of its own: the other process of the tests below, run with a directory to open.
#[test]
fn child_process() {
    let Ok(dir) = std::env::var("ANNALS_TEST_DIR") else { return };
    match Log::open(dir) {
        Ok(log) => {
            let lsn = log.append("from the child").unwrap();
            println!("opened, LSN {lsn}");
            log.close().unwrap();
        }
        Err(error) => println!("refused {:?}: {error}", error.kind()),
    }
}

fn child(dir: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_process", "--nocapture"]).env("ANNALS_TEST_DIR", dir);
    command.stdout(Stdio::piped());
    command
}

#[test]
fn a_second_process_is_refused_with_path_and_pid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(&path).unwrap();
    let out = child(&path).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("refused Locked"), "{said}");
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    log.close().unwrap();
    let said = String::from_utf8_lossy(&child(&path).output().unwrap().stdout).into_owned();
    assert!(said.contains("opened, LSN 1"), "{said}");
}

#[test]
fn a_second_handle_in_the_same_process_is_refused_with_our_own_pid() {
    let dir = tempfile::tempdir().unwrap();
    let _log = Log::open(dir.path().join("log")).unwrap();
    let error = Log::open(dir.path().join("log")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("this process itself"), "{error}");
}

#[test]
fn processes_that_create_the_same_log_at_once_make_one_log() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let children: Vec<_> = (0..4).map(|_| child(&path).spawn().unwrap()).collect();
        let mut opened = 0;
        for child in children {
            let out = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            opened += u64::from(said.contains("opened, LSN"));
            assert!(said.contains("opened, LSN") || said.contains("refused Locked"), "{said}");
        }
        assert!(opened >= 1);
        let log = Log::open(&path).unwrap();
        assert_eq!(log.durable_lsn(), Lsn::new(opened));
    }
}

fn kind(error: &Error) -> ErrorKind {
    println!("{error}");
    error.kind()
}

#[test]
fn directories_that_are_no_log_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let absent = dir.path().join("absent");
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("notes.txt"), "text").unwrap();
    for path in [&empty, &file, &absent, &foreign] {
        assert_eq!(kind(&LogReader::open(path).unwrap_err()), ErrorKind::NotALog);
        let error = Options::new().create(false).open(path).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::NotALog);
    }
    assert_eq!(kind(&Log::open(&file).unwrap_err()), ErrorKind::NotALog);
    assert!(!absent.exists());
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1);
    assert_eq!(kind(&Log::open(dir.path().join("no/such/parent")).unwrap_err()), ErrorKind::Io);
}

#[test]
fn links_and_other_odd_files_in_a_segments_place_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(&path).unwrap();
    log.append("one").unwrap();
    log.close().unwrap();
    let name = "00000000000000000001.wal";
    std::fs::rename(path.join(name), dir.path().join("moved")).unwrap();
    symlink(dir.path().join("moved"), path.join(name)).unwrap();
    assert_eq!(kind(&Log::open(&path).unwrap_err()), ErrorKind::Corrupt);
    std::fs::remove_file(path.join(name)).unwrap();
    std::fs::create_dir(path.join(name)).unwrap();
    assert_eq!(kind(&Log::open(&path).unwrap_err()), ErrorKind::Corrupt);
}

#[test]
fn files_are_private_to_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    Log::open(&path).unwrap().append("secret").unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path) & 0o777, 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap().path();
        assert_eq!(mode(&entry) & 0o777, 0o600, "{}", entry.display());
    }
}
