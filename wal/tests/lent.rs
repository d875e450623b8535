//! Lent records, filters and replays: the same records as the owned ones, fewer bytes touched.
//! That both paths fail alike is in `damage.rs` and `hostile.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use annals_wal::fs::mem::MemDir;
use annals_wal::{
    Batch, Error, ErrorKind, Filter, Follow, Kind, Log, LogReader, Lsn, Options, Record, Records,
    StoredRecord, Stream,
};

const NAME: &str = "00000000000000000001.wal";

fn open(disk: &MemDir) -> Log {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap()
}

fn reader(disk: &MemDir) -> LogReader {
    LogReader::open_in(disk.dir()).unwrap()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn kind(n: u64) -> Kind {
    Kind::new(0x1000 + (n % 5) as u16).unwrap()
}

/// Record `n`: stream, kind and bytes follow from it.
fn record(n: u64) -> Record<'static> {
    let payload = vec![n as u8; (n as usize * 577) % 3000];
    Record::new(payload).stream(Stream(n as u32 % 3)).kind(kind(n))
}

/// Batches of one to four records over several segments.
fn fill(log: &Log, count: u64) {
    let mut n = log.durable_lsn().map_or(0, Lsn::get);
    let end = n + count;
    while n < end {
        let size = (1 + n % 4).min(end - n);
        log.append_batch((n + 1..=n + size).map(record).collect::<Batch>()).unwrap();
        n += size;
    }
}

fn owned(records: Records) -> Vec<StoredRecord> {
    records.map(Result::unwrap).collect()
}

fn lent(mut records: Records) -> Vec<StoredRecord> {
    let mut lent = Vec::new();
    while let Some(record) = records.next_ref() {
        lent.push(record.unwrap().to_stored());
    }
    assert!(records.next_ref().is_none(), "after the end it stays at the end");
    lent
}

/// The LSNs that a follower has now.
fn follow_on(follow: &mut Follow) -> Vec<u64> {
    let mut lsns = Vec::new();
    while let Some(record) = follow.try_next_ref().unwrap() {
        assert_eq!(record.payload, &[record.lsn.get() as u8; 3000][..record.payload.len()]);
        lsns.push(record.lsn.get());
    }
    lsns
}

#[test]
fn whatever_range_and_filter_the_lent_records_are_the_owned_ones() {
    let disk = MemDir::new(1);
    let log = open(&disk);
    fill(&log, 200);
    assert!(log.stats().rotations >= 3);
    let all = owned(log.range(..).unwrap());
    assert_eq!(all.len(), 200);
    let one = Filter::new().stream(Stream(1));
    let two = Filter::new().kinds(kind(1)..=kind(2));
    let filters = [Filter::new(), one, two, one.and(two), one.and(Filter::new().stream(Stream(2)))];
    for (from, to) in [(1, 200), (1, 1), (17, 18), (60, 140), (200, 200), (150, 149)] {
        for filter in filters {
            let due: Vec<_> = all
                .iter()
                .filter(|r| (from..=to).contains(&r.lsn.get()) && filter.wants(r.stream, r.kind))
                .cloned()
                .collect();
            let reader = reader(&disk);
            let ranges = || {
                let (from, to) = (lsn(from), lsn(to));
                let open_end = reader.clone().unproven(true).range(from..=to).unwrap();
                [log.range(from..=to).unwrap(), reader.range(from..=to).unwrap(), open_end]
            };
            for range in ranges() {
                assert_eq!(owned(range.only(filter)), due, "{from} to {to}, {filter:?}");
            }
            for range in ranges() {
                assert_eq!(lent(range.only(filter)), due, "{from} to {to}, {filter:?}");
            }
        }
    }
    let streams = |n: u32| all.iter().filter(|r| r.stream == Stream(n)).count();
    assert_eq!((streams(1), lent(log.range(..).unwrap().only(one)).len()), (67, 67));
}

#[test]
fn a_filter_set_in_the_middle_counts_from_the_next_record_on() {
    let disk = MemDir::new(2);
    let log = open(&disk);
    log.append_batch((1..=9).map(record).collect::<Batch>()).unwrap();
    for unproven in [false, true] {
        let mut records = reader(&disk).unproven(unproven).range(..).unwrap();
        assert_eq!(records.next().unwrap().unwrap().lsn, lsn(1));
        let rest = lent(records.only(Filter::new().stream(Stream(0))));
        assert_eq!(rest.iter().map(|r| r.lsn.get()).collect::<Vec<_>>(), [3, 6, 9]);
    }
}

#[test]
fn a_replay_visits_all_until_its_visitor_refuses() {
    let disk = MemDir::new(3);
    let log = open(&disk);
    fill(&log, 50);
    let mut visited = Vec::new();
    log.range(..)
        .unwrap()
        .replay(|record| {
            visited.push(record.to_stored());
            Ok::<(), Error>(())
        })
        .unwrap();
    assert_eq!(visited, owned(log.range(..).unwrap()));
    let mut count = 0;
    let refused = log.range(..).unwrap().replay(|record| {
        count += 1;
        if record.lsn == lsn(7) { Err(Box::<dyn std::error::Error>::from("seven")) } else { Ok(()) }
    });
    assert_eq!((refused.unwrap_err().to_string(), count), ("seven".to_owned(), 7));
}

#[test]
fn a_follower_lends_and_filters_across_rotation_restart_and_trim() {
    let disk = MemDir::new(4);
    let log = open(&disk);
    fill(&log, 10);
    let mut all = reader(&disk).follow(lsn(1)).unwrap();
    let mut some = reader(&disk).follow(lsn(1)).unwrap().only(Filter::new().stream(Stream(2)));
    let mut next = 1;
    let mut catch_up = |to: u64| {
        assert_eq!(follow_on(&mut all), (next..=to).collect::<Vec<_>>());
        let wanted: Vec<_> = (next..=to).filter(|n| n % 3 == 2).collect();
        assert_eq!(follow_on(&mut some), wanted);
        assert_eq!((all.position(), some.position()), (Lsn::new(to + 1), Lsn::new(to + 1)));
        next = to + 1;
    };
    catch_up(10);
    fill(&log, 100);
    catch_up(110);
    log.close().unwrap();
    let log = open(&disk);
    fill(&log, 1);
    catch_up(111);
    log.trim(lsn(100)).unwrap();
    fill(&log, 80);
    catch_up(191);
}

/// Where the bytes of the last record begin, and of the batch of `count` before its end.
fn last_payload(bytes: &[u8], len: usize) -> usize {
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    end - len
}

/// Above the bound only whole batches are shown, and whole means every payload, skipped or not.
#[test]
fn an_unproven_batch_with_a_torn_payload_is_not_shown_in_parts() {
    let disk = MemDir::new(5);
    let log = open(&disk);
    fill(&log, 1);
    let batch: Batch = (2..=4).map(|n| Record::new(vec![7; 600]).stream(Stream(n))).collect();
    disk.stop_after(disk.ops() + 1);
    log.append_batch(batch).unwrap_err();
    let whole = disk.killed().copied();
    let filter = Filter::new().stream(Stream(2));
    let shown =
        |disk: &MemDir| lent(reader(disk).unproven(true).range(lsn(2)..).unwrap().only(filter));
    assert_eq!(shown(&whole).iter().map(|r| r.lsn.get()).collect::<Vec<_>>(), [2]);
    let mut bytes = whole.bytes(NAME).unwrap();
    let torn = last_payload(&bytes, 600);
    bytes[torn + 512..].fill(0);
    whole.set_bytes(NAME, bytes);
    assert_eq!(shown(&whole), []);
}

/// As t17 of `regressions_readers.rs`, with the batch's first record skipped: what comes in its
/// place after a recovery is wanted.
#[test]
fn an_unproven_follower_that_skipped_what_a_recovery_cut_reads_what_came_instead() {
    let disk = MemDir::new(6);
    let log = open(&disk);
    log.append(Record::new("one").stream(Stream(1))).unwrap();
    let kept = last_payload(&disk.bytes(NAME).unwrap(), 0).next_multiple_of(8);
    let batch: Batch =
        [9, 1, 1].iter().map(|n| Record::new(vec![8; 1000]).stream(Stream(*n))).collect();
    log.append_batch(batch).unwrap();
    for frames in [1, 2] {
        let mut half = disk.bytes(NAME).unwrap();
        half[kept + frames * (32 + 1000)..].fill(0);
        let dead = disk.killed();
        dead.lose("CONTROL");
        dead.set_bytes(NAME, half);
        let wanted = Filter::new().stream(Stream(1));
        let mut follow = reader(&dead).unproven(true).follow(lsn(1)).unwrap().only(wanted);
        let mut next = || follow.try_next_ref().unwrap().map(|r| (r.lsn.get(), r.payload.to_vec()));
        assert_eq!([next(), next()], [Some((1, b"one".to_vec())), None]);
        let log = open(&dead);
        log.append(Record::new("two").stream(Stream(1))).unwrap();
        assert_eq!([next(), next()], [Some((2, b"two".to_vec())), None], "{frames} frames");
    }
}

/// A follower that lends falls silent before damage no more than one that copies.
#[test]
fn a_lending_follower_before_a_damaged_record_is_told_every_time() {
    let disk = MemDir::new(7);
    let log = open(&disk);
    for _ in 0..3 {
        log.append(vec![1; 100]).unwrap();
    }
    let whole = disk.bytes(NAME).unwrap();
    let mut bytes = whole.clone();
    bytes[last_payload(&whole, 100)] ^= 1;
    disk.set_bytes(NAME, bytes);
    let mut follow = reader(&disk).follow(lsn(1)).unwrap();
    let mut next = || follow.try_next_ref().map(|r| r.map(|r| r.lsn.get())).map_err(|e| e.kind());
    assert_eq!([next(), next()], [Ok(Some(1)), Ok(Some(2))]);
    assert_eq!([next(), next()], [Err(ErrorKind::Corrupt), Err(ErrorKind::Corrupt)]);
    disk.set_bytes(NAME, whole);
    assert_eq!([next(), next()], [Ok(Some(3)), Ok(None)]);
}

/// What was read ahead while the owner wrote, and looked damaged, is read again before it is called
/// so: by whoever copies, lends, follows or skips.
#[test]
fn what_was_damaged_when_it_was_read_ahead_is_read_a_second_time() {
    let disk = MemDir::new(8);
    let log = open(&disk);
    for n in 1..=3u32 {
        log.append(Record::new(vec![1; 100]).stream(Stream(n))).unwrap();
    }
    let whole = disk.bytes(NAME).unwrap();
    let third = last_payload(&whole, 100);
    let not_third = Filter::new().stream(Stream(9));
    for (at, heals) in [(third, true), (third - 20, true), (third, false), (third - 20, false)] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        let range = || {
            disk.set_bytes(NAME, whole.clone());
            let mut records = log.range(..).unwrap();
            disk.set_bytes(NAME, damaged.clone());
            assert_eq!(records.next_ref().unwrap().unwrap().lsn, lsn(1));
            disk.set_bytes(NAME, if heals { whole.clone() } else { damaged.clone() });
            records
        };
        assert_eq!(range().filter(Result::is_ok).count(), if heals { 2 } else { 1 });
        assert_eq!(range().any(|r| r.is_err()), !heals, "owned, byte {at}");
        let mut records = range();
        records.next_ref().unwrap().unwrap();
        assert_eq!(records.next_ref().unwrap().is_ok(), heals, "lent, byte {at}");
        let skipped = range().only(not_third).next_ref().map(|r| r.is_ok());
        let seen = !heals && at < third;
        assert_eq!(skipped, seen.then_some(false), "skipped, byte {at}");
    }
    disk.set_bytes(NAME, whole.clone());
    let mut follow = reader(&disk).follow(lsn(1)).unwrap();
    let mut damaged = whole.clone();
    damaged[third] ^= 1;
    disk.set_bytes(NAME, damaged);
    let mut next = || follow.try_next_ref().map(|r| r.map(|r| r.lsn.get())).map_err(|e| e.kind());
    assert_eq!(next(), Ok(Some(1)));
    disk.set_bytes(NAME, whole);
    assert_eq!([next(), next(), next()], [Ok(Some(2)), Ok(Some(3)), Ok(None)]);
}

/// An error of the system is no verdict: whoever asks again gets the record.
#[test]
fn a_read_that_fails_leaves_a_follower_where_it_is() {
    let disk = MemDir::new(9);
    let log = open(&disk);
    fill(&log, 40);
    let (mut failed, mut read) = (0, Vec::new());
    let mut follow = reader(&disk).follow(lsn(1)).unwrap();
    for attempt in 1..2000 {
        if attempt % 3 == 0 {
            disk.fail_read(0, 5);
        }
        match follow.try_next_ref() {
            Ok(Some(record)) => read.push(record.lsn.get()),
            Ok(None) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io);
                failed += 1;
            }
        }
    }
    println!("{failed} reads failed");
    assert_eq!(read, (1..=40).collect::<Vec<_>>());
    assert!(failed > 2, "{failed}");
}

/// Whichever read fails, in a sealed segment or the active one, at its begin, in a header, in a
/// payload, in a batch whose end is not seen yet: each record comes once, in order.
#[test]
fn a_read_that_fails_anywhere_costs_a_follower_no_record() {
    let disk = MemDir::new(10);
    let log = open(&disk);
    fill(&log, 400);
    assert!(log.stats().rotations > 1);
    for unproven in [false, true] {
        // Reads of the first snapshot come before those of a follower.
        let begin = |fail: Option<u64>| {
            let mut follow = reader(&disk).unproven(unproven).follow(lsn(1)).unwrap();
            let before = disk.reads();
            fail.inspect(|nth| disk.fail_read(*nth, 5));
            let (mut read, mut failed) = (Vec::new(), 0);
            loop {
                match follow.try_next_ref() {
                    Ok(Some(record)) => read.push(record.lsn.get()),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Io, "{fail:?}");
                        failed += 1;
                        assert!(failed < 3, "one read fails: {fail:?}, unproven: {unproven}");
                    }
                }
            }
            assert_eq!(read, (1..=400).collect::<Vec<_>>(), "{fail:?}, unproven: {unproven}");
            (disk.reads() - before, failed)
        };
        let (reads, failed) = begin(None);
        assert!(reads > 20 && failed == 0, "{reads}");
        let failed: u64 = (0..reads).map(|nth| begin(Some(nth)).1).sum();
        println!("unproven {unproven}: {reads} reads, {failed} of them failed a call");
        assert!(failed > reads / 2, "{failed} of {reads}");
    }
}
