//! Names: which mean something, and what stands behind them. Near misses are passed over, odd
//! files under good names are refused by kind, nothing outside the directory is ever touched,
//! nobody waits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use annals_wal::format::{self, Name, parse_name};
use annals_wal::fs::mem::MemDir;
use annals_wal::inspect::{Depth, inspect};
use annals_wal::{ErrorKind, Log, LogReader, Options, Sequence};

const SEGMENT: &str = "00000000000000000001.wal";
const NEXT: &str = "00000000000000000002.wal";

/// One step away from a name that means something.
const NEAR_MISSES: [&str; 52] = [
    "0000000000000000001.wal",   // 19 digits
    "000000000000000000001.wal", // 21
    "00000000000000000000.wal",  // segment 0 is none
    "18446744073709551616.wal",  // one more than the largest number
    "99999999999999999999.wal",
    "+0000000000000000001.wal",
    "-0000000000000000001.wal",
    " 0000000000000000001.wal",
    "0000000000000000001 .wal",
    "0x000000000000000001.wal",
    "0000000000000000000a.wal",
    "0000000000000000_001.wal",
    "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠١.wal", // digits, but not ASCII
    "00000000000000000001.WAL",
    "00000000000000000001.wal\n",
    "\n00000000000000000001.wal",
    "00000000000000000001.wal ",
    "00000000000000000001.wal\0",
    "00000000000000000001.wal.tmp.tmp",
    "00000000000000000001.tmp",
    "00000000000000000000.wal.tmp",
    "00000000000000000001.wal~",
    "00000000000000000001.wal.bak",
    ".00000000000000000001.wal",
    "./00000000000000000001.wal",
    "../00000000000000000001.wal",
    "a/00000000000000000001.wal",
    "/00000000000000000001.wal",
    "00000000000000000001",
    ".wal",
    "wal",
    "",
    "lock",
    "LOCK ",
    "LOCK\n",
    "LOCK.tmp",
    "./LOCK",
    "control",
    "CONTROL.tmp",
    "ARCHIVE.txt",
    "append",
    "cut-.bin",
    "cut-1.bin",
    "cut-0-128.bin",
    "cut-01-128.bin",
    "cut-1-+8.bin",
    "cut-1-128.0.bin",
    "cut-1-128.1.1.bin",
    "cut-../1-128.bin",
    "observer-.lock",
    "observer-../x.lock",
    "registry-+5.snap",
];

#[test]
fn a_near_miss_of_a_name_is_no_name() {
    for name in NEAR_MISSES {
        assert_eq!(parse_name(name), None, "{name:?}");
    }
    let sequence = |n| Sequence::new(n).unwrap();
    for n in [1, 7, 10_u64.pow(19), u64::MAX] {
        let sequence = sequence(n);
        assert_eq!(parse_name(&format::segment_name(sequence)), Some(Name::Segment(sequence)));
        let tmp = format::segment_tmp_name(sequence);
        assert_eq!(parse_name(&tmp), Some(Name::SegmentTmp(sequence)));
        for (offset, copy) in [(0, 0), (128, 1), (u64::MAX, 15)] {
            let cut = format::cut_name(sequence, offset, copy);
            assert_eq!(parse_name(&cut), Some(Name::Cut), "{cut}");
        }
    }
    assert_eq!(parse_name("00000000000000000001.wal"), Some(Name::Segment(sequence(1))));
}

/// Every name that parses is the one that its number prints, so that no two names mean one segment
/// and a path made from the number is the file that was seen.
#[test]
fn a_segments_name_and_its_number_say_the_same() {
    let mut digits = *b"00000000000000000000";
    for place in 0..20 {
        for digit in b'0'..=b'9' {
            digits[place] = digit;
            let name = format!("{}.wal", str::from_utf8(&digits).unwrap());
            match parse_name(&name) {
                Some(Name::Segment(sequence)) => assert_eq!(format::segment_name(sequence), name),
                other => assert_eq!(other, None, "{name}"),
            }
        }
    }
}

/// A directory full of near misses is no log, and a log among them lives and leaves them alone.
#[test]
fn foreign_files_are_never_opened_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    make_private(&path);
    let possible =
        NEAR_MISSES.iter().filter(|name| !name.contains(['/', '\0']) && !name.is_empty());
    let foreign: Vec<&&str> = possible.collect();
    for name in &foreign {
        std::fs::write(path.join(name), "foreign").unwrap();
    }
    assert_eq!(LogReader::open(&path).unwrap_err().kind(), ErrorKind::NotALog);
    let log = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    for _ in 0..20 {
        log.append(vec![7; 9000]).unwrap();
    }
    log.trim(log.durable_lsn().unwrap()).unwrap();
    drop(log);
    reopen(&path).unwrap().close().unwrap();
    for name in foreign {
        assert_eq!(std::fs::read(path.join(name)).unwrap(), b"foreign", "{name:?}");
    }
}

fn make_private(path: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

/// Opens once the threads of a dropped handle have let go.
fn reopen(path: &Path) -> annals_wal::Result<Log> {
    let open = || Options::new().segment_bytes(64 << 10).open(path);
    let is_locked = |e: &annals_wal::Error| e.kind() == ErrorKind::Locked;
    let opened = (0..100).map(|_| open()).find(|opened| !opened.as_ref().is_err_and(is_locked));
    opened.unwrap_or_else(open)
}

/// Ways in which a name can be something else than a file.
#[derive(Clone, Copy, Debug)]
enum Odd {
    LinkToFile,
    LinkToNothing,
    LinkToItself,
    Fifo,
    Socket,
    Directory,
}

const ODD: [Odd; 6] = [
    Odd::LinkToFile,
    Odd::LinkToNothing,
    Odd::LinkToItself,
    Odd::Fifo,
    Odd::Socket,
    Odd::Directory,
];

/// Puts an odd file at `at`; what a link leads to is `outside`.
fn put(odd: Odd, at: &Path, outside: &Path) {
    let _ = std::fs::remove_file(at);
    match odd {
        Odd::LinkToFile | Odd::LinkToNothing => symlink(outside, at).unwrap(),
        Odd::LinkToItself => symlink(at, at).unwrap(),
        Odd::Fifo => assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        Odd::Socket => drop(UnixListener::bind(at).unwrap()),
        Odd::Directory => std::fs::create_dir(at).unwrap(),
    }
}

/// A closed log with a record, and beside it a file that nobody may touch.
fn with_log(odd: Odd) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    log.append("one").unwrap();
    log.close().unwrap();
    let outside = dir.path().join("outside");
    if !matches!(odd, Odd::LinkToNothing) {
        // A whole segment would even check out.
        std::fs::copy(path.join(SEGMENT), &outside).unwrap();
    }
    (dir, path, outside)
}

/// Under every name of the format, every odd file: an opening that needs the name is refused with
/// a kind, one that does not goes on; what lies outside keeps its bytes, or stays absent.
#[test]
fn an_odd_file_under_a_logs_name_is_refused_or_passed_over_and_never_followed() {
    // Which kinds an opening for writing may end in; none: it must succeed.
    let refused: &[ErrorKind] = &[ErrorKind::Corrupt, ErrorKind::Io];
    let names: [(&str, &[ErrorKind]); 9] = [
        (SEGMENT, refused),
        ("CONTROL", refused),
        ("LOCK", refused),
        (NEXT, refused),
        ("00000000000000000002.wal.tmp", &[]),
        ("00000000000000000001.wal.tmp", &[]),
        ("cut-1-128.bin", &[]),
        ("registry-1.snap", &[]),
        ("ARCHIVE", &[ErrorKind::Archived]),
    ];
    for odd in ODD {
        for (name, kinds) in names {
            let (_dir, path, outside) = with_log(odd);
            put(odd, &path.join(name), &outside);
            let before = std::fs::read(&outside).ok();
            let _ = LogReader::open(&path).map(|reader| reader.range(..).map(Iterator::count));
            let _ = inspect(&path, Depth::Everything, &mut |_| ());
            match reopen(&path) {
                Ok(log) => {
                    assert!(kinds.is_empty(), "{odd:?} as {name} was accepted");
                    // Far enough to need the next segment, and to meet a leftover of its name.
                    let fills = (0..10).try_for_each(|_| log.append(vec![1; 9000]).map(drop));
                    if let Err(error) = fills {
                        println!("{odd:?} as {name}: {error}");
                        assert!(name.ends_with(".tmp"), "{odd:?} as {name}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Io);
                    }
                }
                Err(error) => {
                    println!("{odd:?} as {name}: {error}");
                    assert!(kinds.contains(&error.kind()), "{odd:?} as {name}: {error:?}");
                }
            }
            assert_eq!(std::fs::read(&outside).ok(), before, "{odd:?} as {name}");
        }
    }
}

/// A torn log whose copy of the cut bytes would go through a link: it goes beside it.
#[test]
fn evidence_never_goes_through_a_link() {
    let (_dir, path, outside) = with_log(Odd::LinkToFile);
    let log = reopen(&path).unwrap();
    log.append(vec![1; 500]).unwrap();
    drop(log);
    drop(reopen(&path).unwrap());
    std::fs::remove_file(path.join("CONTROL")).unwrap();
    let last = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
    let last = last.filter(|name| name.to_string_lossy().ends_with(".wal")).max().unwrap();
    let segment = path.join(last);
    let mut bytes = std::fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used + 8..used + 20].fill(0xEE);
    std::fs::write(&segment, bytes).unwrap();
    // The dropped log's committer may still be on its way out: while the log is live, bytes above
    // the control block are in flight and no finding.
    let look = || inspect(&path, Depth::Seals, &mut |_| ()).unwrap();
    let report = std::iter::repeat_with(look).find(|report| !report.live).unwrap();
    let cut =
        report.findings.iter().find_map(|finding| finding.segment.zip(finding.bytes)).unwrap();
    let name = format::cut_name(cut.0, cut.1.0, 0);
    symlink(&outside, path.join(&name)).unwrap();
    let before = std::fs::read(&outside).unwrap();
    drop(reopen(&path).unwrap());
    assert!(path.join(format::cut_name(cut.0, cut.1.0, 1)).exists(), "the copy is beside the link");
    assert_eq!(std::fs::read(&outside).unwrap(), before);
}

/// The directory itself may be reached through a link: its owner made that link, and what the log
/// relies on is the directory behind it.
#[test]
fn the_directory_may_be_a_link_and_a_lock_through_it_is_the_same_lock() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    let link = dir.path().join("link");
    make_private(&real);
    symlink(&real, &link).unwrap();
    let log = Log::open(&link).unwrap();
    log.append("one").unwrap();
    assert_eq!(Log::open(&real).unwrap_err().kind(), ErrorKind::Locked);
    log.close().unwrap();
    assert!(real.join(SEGMENT).exists());
    // One that leads nowhere makes nothing.
    let nowhere = dir.path().join("nowhere");
    symlink(dir.path().join("absent"), &nowhere).unwrap();
    assert!(Log::open(&nowhere).is_err());
    assert!(!dir.path().join("absent").exists());
}

/// Segment 0 is foreign: it is passed over, also where it would be a whole segment.
#[test]
fn segment_zero_is_foreign() {
    let disk = MemDir::new(3);
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    log.append("one").unwrap();
    log.close().unwrap();
    let bytes = disk.bytes(SEGMENT).unwrap();
    disk.dir().create("00000000000000000000.wal").unwrap().write_at(&bytes, 0).unwrap();
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    assert_eq!(log.range(..).unwrap().count(), 1);
    log.close().unwrap();
    assert_eq!(disk.bytes("00000000000000000000.wal").unwrap(), bytes);
}
