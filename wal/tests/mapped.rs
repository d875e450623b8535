//! Mapped segments against read ones, over real files: the same records, the same refusals, byte by
//! byte; and what the documentation says of a file that is cut shorter under a map.
//!
//! Never here: a SIGBUS in this process. The one test that provokes it does so in a child.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and damages files from outside"
)]

use std::fs::{File, OpenOptions};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use annals_wal::{
    Batch, Error, Filter, Kind, Log, Lsn, Options, Record, Records, StoredRecord, Stream,
};

const CAPACITY: u64 = 64 << 10;
const CHILD: &str = "ANNALS_TEST_CUT_UNDER_A_MAP";

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn record(n: u64) -> Record<'static> {
    let payload = vec![n as u8; (n as usize * 577) % 3000];
    Record::new(payload).stream(Stream(n as u32 % 7)).kind(Kind::new(n as u16 % 3).unwrap())
}

/// Batches of one to four records until there are so many segments.
fn made(dir: &Path, segments: usize) -> Log {
    let log = Options::new().segment_bytes(CAPACITY).open(dir).unwrap();
    let mut n = 1;
    while log.stats().segments < segments {
        log.append_batch((n..=n + n % 4).map(record).collect::<Batch>()).unwrap();
        n += 1 + n % 4;
    }
    log
}

fn segment(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("{n:020}.wal"))
}

fn written(dir: &Path, n: u64) -> File {
    OpenOptions::new().read(true).write(true).open(segment(dir, n)).unwrap()
}

/// Records up to an error, and what it says, its place included; each lent, then owned.
type Seen = (Vec<StoredRecord>, Option<String>);

fn seen(mut records: Records) -> Seen {
    let mut seen = Vec::new();
    while let Some(record) = records.next_ref() {
        match record {
            Ok(record) => seen.push(record.to_stored()),
            Err(error) => return (seen, Some(told(&error))),
        }
    }
    (seen, None)
}

fn told(error: &Error) -> String {
    format!("{:?} {error} {:?}", error.kind(), error.location())
}

fn filters() -> [Filter; 4] {
    let one = Filter::new().stream(Stream(1));
    let none = Filter::new().stream(Stream(70));
    [Filter::new(), one, none, one.and(Filter::new().kind(Kind::new(2).unwrap()))]
}

/// Both ways say the same of this range; what that was.
fn alike(log: &Log, lsns: RangeInclusive<u64>, filter: Filter, when: &str) -> Seen {
    let range = || log.range(lsn(*lsns.start())..=lsn(*lsns.end())).unwrap().only(filter);
    let (read, mapped) = (seen(range()), seen(range().mapped()));
    assert_eq!(mapped.1, read.1, "{when}, {lsns:?}, {filter:?}");
    assert!(mapped.0 == read.0, "{when}, {lsns:?}, {filter:?}: other records");
    read
}

#[test]
fn what_is_mapped_is_what_is_read() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("log");
    let log = made(&dir, 6);
    let last = log.durable_lsn().unwrap().get();
    for filter in filters() {
        for range in [1..=last, 1..=1, 2..=last - 1, last / 2..=last / 2 + 9, last..=last] {
            assert_eq!(alike(&log, range, filter, "whole").1, None);
        }
    }
    let (mut read, mut mapped) = (log.range(..).unwrap(), log.range(..).unwrap().mapped());
    assert_eq!(read.by_ref().count() as u64, last);
    assert_eq!(mapped.by_ref().count() as u64, last);
    // The active segment, and headers and indexes, are read by both.
    let (read, mapped) = (read.bytes_read(), mapped.bytes_read());
    println!("{read} bytes read, {mapped} where segments are mapped");
    assert!(read > 5 * CAPACITY * 9 / 10 && mapped < 2 * CAPACITY, "{read}, {mapped}");
    // A trim unlinks under the map: what was begun is read to its segment's end.
    let mut records = log.range(..).unwrap().mapped();
    records.next().unwrap().unwrap();
    log.trim(lsn(last)).unwrap();
    let left = records.by_ref().map_while(Result::ok).count();
    assert!(left > 10, "{left} records after a trim");
    log.close().unwrap();
}

/// A flip in a sealed segment, at every place in turn: the same records, then the same words.
#[test]
fn damage_is_seen_through_a_map_as_through_a_read() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("log");
    let log = made(&dir, 4);
    let last = log.durable_lsn().unwrap().get();
    let file = written(&dir, 2);
    let (mut flips, mut refused) = (0, 0);
    // The header, then a step that meets every offset within eight bytes.
    for at in (0..128).step_by(3).chain((128..CAPACITY).step_by(61)) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
        let all = alike(&log, 1..=last, Filter::new(), &format!("byte {at}"));
        if at % 5 == 0 {
            for filter in filters() {
                alike(&log, 5..=last - 5, filter, &format!("byte {at}"));
            }
        }
        file.write_all_at(&byte, at).unwrap();
        flips += 1;
        refused += u64::from(all.1.is_some());
    }
    println!("{refused} of {flips} flips refused");
    // The others are in what no record needs: the seal's reserve, behind the last frame.
    assert!(refused * 10 > flips * 8, "{refused} of {flips}");
    assert_eq!(alike(&log, 1..=last, Filter::new(), "mended").0.len() as u64, last);
    log.close().unwrap();
}

/// A sealed segment cut shorter, or away, after the log was opened and before it is mapped.
#[test]
fn a_segment_that_was_cut_is_refused_alike() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("log");
    let log = made(&dir, 4);
    let last = log.durable_lsn().unwrap().get();
    let whole = std::fs::read(segment(&dir, 2)).unwrap();
    for to in [0, 1, 64, 128, 130, 4096, 4097, 20_000, CAPACITY / 2 + 24, CAPACITY * 3 / 4] {
        let file = written(&dir, 2);
        file.set_len(to).unwrap();
        let cut = alike(&log, 1..=last, Filter::new(), &format!("cut to {to}"));
        assert!(cut.1.is_some() && (cut.0.len() as u64) < last, "cut to {to}: {:?}", cut.1);
        for filter in filters() {
            alike(&log, 1..=last, filter, &format!("cut to {to}"));
        }
        file.write_all_at(&whole, 0).unwrap();
    }
    assert_eq!(alike(&log, 1..=last, Filter::new(), "mended").1, None);
    log.close().unwrap();
}

/// What [`Records::mapped`] warns of, done by a child of this process.
#[test]
fn a_file_cut_under_a_map_ends_the_process_with_sigbus() {
    if let Some(dir) = std::env::var_os(CHILD) {
        cut_under_a_map(Path::new(&dir));
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let name = "a_file_cut_under_a_map_ends_the_process_with_sigbus";
    let out = Command::new("sh")
        .args(["-c", "ulimit -c 0; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(CHILD, base.path().join("log"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("cut now"), "{said} {}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.signal(), Some(7), "{:?}: {said}", out.status);
}

fn cut_under_a_map(dir: &Path) {
    let log = made(dir, 3);
    let mut records = log.range(..).unwrap().mapped();
    records.next().unwrap().unwrap();
    println!("cut now");
    written(dir, 1).set_len(4096).unwrap();
    let left = records.map_while(Result::ok).count();
    println!("{left} records read out of a file that has them no more");
}
