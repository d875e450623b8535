//! One test for each finding of the review of readers: followers, ranges, backups.
//!
//! Never here: a sleep. What a reader meets is put before it by hand, or looked at from inside the
//! writer through the hooked directory. What writers got wrong is in `regressions.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::sync::{Arc, Mutex};

use annals_wal::format;
use annals_wal::fs::gate::{Door, Gate};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{
    Batch, ErrorKind, Follow, Log, LogReader, Lsn, Options, Record, Result, Sequence,
};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn open(disk: &MemDir) -> Result<Log> {
    options().open_in(disk.dir())
}

fn reader(disk: &MemDir) -> LogReader {
    LogReader::open_in(disk.dir()).unwrap()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn name(sequence: u64) -> String {
    format::segment_name(Sequence::new(sequence).unwrap())
}

fn fill(log: &Log, count: usize, len: usize) {
    for _ in 0..count {
        log.append(vec![1; len]).unwrap();
    }
}

/// The next LSN that a follower delivers now.
fn next(follow: &mut Follow) -> std::result::Result<Option<u64>, ErrorKind> {
    follow.try_next().map(|record| record.map(|r| r.lsn.get())).map_err(|e| e.kind())
}

fn last_byte(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// t6b. A follower that stood at the end of a segment said `Trimmed` for a record that was there,
/// and said it for ever, once a trim had taken that segment.
#[test]
fn a_follower_goes_on_when_a_trim_took_the_segment_behind_it() {
    let disk = MemDir::new(1);
    let log = open(&disk).unwrap();
    fill(&log, 3, 15_000);
    let mut follow = reader(&disk).follow(lsn(4)).unwrap();
    fill(&log, 6, 25_000);
    assert_eq!(log.trim(lsn(4)).unwrap(), lsn(4));
    assert!(!disk.names().contains(&name(1)), "the trim took what the follower had seen");
    let delivered: Vec<_> = (0..7).map(|_| next(&mut follow)).collect();
    let want: Vec<_> = (4..=9).map(|n| Ok(Some(n))).chain([Ok(None)]).collect();
    assert_eq!(delivered, want);
}

/// t7. A follower told of a damaged record once and then said "nothing new" for ever.
#[test]
fn a_follower_before_a_damaged_record_never_falls_silent() {
    let disk = MemDir::new(2);
    let log = open(&disk).unwrap();
    fill(&log, 3, 100);
    let mut bytes = disk.bytes(&name(1)).unwrap();
    let third = bytes.windows(100).rposition(|window| window == [1; 100]).unwrap();
    bytes[third] ^= 1;
    disk.set_bytes(&name(1), bytes);
    let mut follow = reader(&disk).follow(lsn(1)).unwrap();
    assert_eq!([next(&mut follow), next(&mut follow)], [Ok(Some(1)), Ok(Some(2))]);
    for _ in 0..4 {
        assert_eq!(next(&mut follow), Err(ErrorKind::Corrupt));
    }
}

/// t7b. A follower that may see unproven records met one half written, and skipped it for ever
/// when it was whole.
#[test]
fn an_unproven_follower_reads_again_what_it_saw_half_written() {
    let disk = MemDir::new(3);
    let log = open(&disk).unwrap();
    fill(&log, 1, 100);
    let (mut half, before) = (disk.bytes(&name(1)).unwrap(), disk.bytes("CONTROL").unwrap());
    let mut follow = reader(&disk).unproven(true).follow(lsn(1)).unwrap();
    log.append(vec![2; 5000]).unwrap();
    let (whole, after) = (disk.bytes(&name(1)).unwrap(), disk.bytes("CONTROL").unwrap());
    // The first page of the write has arrived, and no sync has covered any of it.
    half[..4096].copy_from_slice(&whole[..4096]);
    disk.set_bytes(&name(1), half);
    disk.set_bytes("CONTROL", before);
    assert_eq!([next(&mut follow), next(&mut follow)], [Ok(Some(1)), Ok(None)]);
    disk.set_bytes(&name(1), whole);
    disk.set_bytes("CONTROL", after);
    assert_eq!(next(&mut follow), Ok(Some(2)));
    fill(&log, 1, 10);
    assert_eq!([next(&mut follow), next(&mut follow)], [Ok(Some(3)), Ok(None)]);
}

/// t11. A backup took its end, its head and its segments at three moments; with a trim in between
/// it was a set with a gap, reported as good. Here a trim comes before each step of the copy.
#[test]
fn a_backup_that_meets_a_trim_is_whole_or_refused() {
    let mut outcomes = [0; 2];
    for step in 0..80 {
        let disk = MemDir::new(13);
        let log = open(&disk).unwrap();
        fill(&log, 8, 30_000);
        let copy = MemDir::new(100);
        let (owner, steps) = (log.clone(), Mutex::new(0));
        let gate = Gate::new(copy.dir(), move |_| {
            let mut steps = steps.lock().unwrap();
            if *steps == step {
                fill(&owner, 4, 30_000);
                owner.trim(lsn(12)).unwrap();
            }
            *steps += 1;
            Ok(())
        });
        let backup = log.backup_in(gate);
        let copied = open(&copy.crash(Keep::Nothing));
        let Ok(report) = backup else {
            assert_eq!(backup.unwrap_err().kind(), ErrorKind::Trimmed);
            assert_eq!(copied.unwrap_err().kind(), ErrorKind::Archived);
            outcomes[0] += 1;
            continue;
        };
        let copied = copied.unwrap();
        assert_eq!((copied.head_lsn(), report.last_lsn), (lsn(1), Some(lsn(8))));
        assert_eq!(copied.range(..).unwrap().map(Result::unwrap).count(), 8);
        outcomes[1] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// t12. A range of the owner that began while a segment was sealed and the next one not yet known
/// said `Trimmed`. Here one begins before every step of a writer that rotates.
#[test]
fn a_range_of_the_owner_reads_the_last_record_at_every_step_of_a_rotation() {
    let disk = MemDir::new(12);
    let owner: Arc<Mutex<Option<Log>>> = Arc::default();
    let seen = owner.clone();
    let gate = Gate::new(disk.dir(), move |op| {
        let log = seen.lock().unwrap().clone();
        let Some((log, last)) = log.and_then(|log| Some((log.clone(), log.durable_lsn()?))) else {
            return Ok(());
        };
        let read: Vec<_> = log.range(last..).unwrap().map(|r| r.unwrap().lsn).collect();
        assert_eq!(read, [last], "before {op}");
        Ok(())
    });
    let log = options().open_in(gate).unwrap();
    *owner.lock().unwrap() = Some(log.clone());
    fill(&log, 30, 20_000);
    log.trim(lsn(20)).unwrap();
    fill(&log, 10, 30_000);
    assert!(log.stats().rotations >= 10);
    assert!(log.poisoned().is_none());
    owner.lock().unwrap().take();
}

/// t13. A listing of the directory that a trim had made old was taken for a log with a hole.
#[test]
fn a_listing_older_than_a_trim_is_read_again() {
    let disk = MemDir::new(6);
    let log = open(&disk).unwrap();
    fill(&log, 10, 30_000);
    let gate = Gate::new(disk.dir(), |_| Ok(()));
    let mut follow = LogReader::open_in(gate.clone()).unwrap().follow(lsn(9)).unwrap();
    assert_eq!([next(&mut follow), next(&mut follow)], [Ok(Some(9)), Ok(Some(10))]);
    let before = disk.dir().list().unwrap();
    fill(&log, 1, 60_000);
    log.trim(lsn(8)).unwrap();
    gate.list_once(before);
    assert_eq!(next(&mut follow), Ok(Some(11)));
    assert!(gate.was_listed());
    let before = disk.dir().list().unwrap();
    log.trim(lsn(11)).unwrap();
    gate.list_once(before);
    let reader = LogReader::open_in(gate.clone()).unwrap();
    assert!(gate.was_listed());
    assert_eq!(reader.head_lsn(), lsn(11));
    assert_eq!(reader.range(..).unwrap().map(|r| r.unwrap().lsn).collect::<Vec<_>>(), [lsn(11)]);
}

/// t16. A reader believed the head of a trim record that no sync had covered.
#[test]
fn a_reader_does_not_believe_a_trim_that_is_not_durable_yet() {
    let disk = MemDir::new(9);
    let door = Arc::new(Door::default());
    let at_door = door.clone();
    let gate =
        Gate::new(disk.dir(), move |op| if op == "sync Group" { at_door.pass() } else { Ok(()) });
    let log = options().open_in(gate).unwrap();
    fill(&log, 10, 30_000);
    door.shut();
    let other = log.clone();
    let trimming = std::thread::spawn(move || other.trim(lsn(9)));
    door.await_guest();
    let early = reader(&disk);
    assert_eq!((early.head_lsn(), log.head_lsn()), (lsn(1), lsn(1)));
    assert_eq!(early.range(lsn(1)..).unwrap().map(Result::unwrap).count(), 10);
    door.open();
    assert_eq!(trimming.join().unwrap().unwrap(), lsn(9));
    assert_eq!((reader(&disk).head_lsn(), log.head_lsn()), (lsn(9), lsn(9)));
}

/// What the first mend of t16 broke: after a power cut nothing vouches for the last trim record, but
/// the segments that it let go are gone. The reader took the head before it and called that a hole.
#[test]
fn after_a_power_cut_a_reader_begins_at_the_first_segment_that_is_left() {
    let disk = MemDir::new(14);
    let log = open(&disk).unwrap();
    fill(&log, 10, 30_000);
    log.trim(lsn(9)).unwrap();
    for keep in [Keep::Nothing, Keep::Everything] {
        let crashed = disk.crash(keep);
        assert!(!crashed.names().contains(&name(4)));
        let read = reader(&crashed).range(..).unwrap().map(|record| record.unwrap().lsn.get());
        assert_eq!(read.collect::<Vec<_>>(), [9, 10]);
        let mut follow = reader(&crashed).follow(lsn(9)).unwrap();
        assert_eq!([next(&mut follow), next(&mut follow)], [Ok(Some(9)), Ok(Some(10))]);
    }
}

/// t17. A follower that may see unproven records kept half of a batch that a recovery then cut, and
/// skipped the new records in its place.
#[test]
fn an_unproven_follower_reads_anew_after_a_recovery_has_cut() {
    let disk = MemDir::new(10);
    let log = open(&disk).unwrap();
    fill(&log, 1, 100);
    let kept = last_byte(&disk.bytes(&name(1)).unwrap()).next_multiple_of(8);
    let batch: Batch = (0..3).map(|n| Record::new(vec![10 + n; 1000])).collect();
    log.append_batch(batch).unwrap();
    let mut half = disk.bytes(&name(1)).unwrap();
    // Two of the batch's three frames reached the file.
    half[kept + 2 * (32 + 1000)..].fill(0);
    let dead = disk.killed();
    dead.lose("CONTROL");
    dead.set_bytes(&name(1), half);
    let mut follow = reader(&dead).unproven(true).follow(lsn(1)).unwrap();
    assert_eq!([next(&mut follow), next(&mut follow)], [Ok(Some(1)), Ok(None)]);
    let log = open(&dead).unwrap();
    for n in 0..4 {
        assert_eq!(log.append(vec![50 + n]).unwrap().get(), 2 + u64::from(n));
    }
    for n in 0..4 {
        let record = follow.try_next().unwrap().unwrap();
        assert_eq!((record.lsn.get(), record.payload), (2 + u64::from(n), vec![50 + n]));
    }
    assert_eq!(next(&mut follow), Ok(None));
}
