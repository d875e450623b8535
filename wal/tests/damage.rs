//! Damage, byte by byte: every flip in a sealed segment, every cut of the last one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use annals_wal::format::{self, HeaderVerdict, SegmentHeader};
use annals_wal::fs::mem::MemDir;
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::{Batch, ErrorKind, Log, LogReader, Options, Record, Sequence, StoredRecord};

fn name(sequence: u64) -> String {
    format::segment_name(Sequence::new(sequence).unwrap())
}

fn open(disk: &MemDir) -> annals_wal::Result<Log> {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir())
}

/// A first segment of 64 KiB with mixed sizes and batches, sealed, and a second one after it.
fn mixed() -> (MemDir, Vec<StoredRecord>) {
    let disk = MemDir::new(31);
    let log = open(&disk).unwrap();
    let mut n = 0usize;
    while log.stats().rotations == 0 {
        let batch: Batch =
            (0..1 + n % 4).map(|i| Record::new(vec![n as u8; (n * 37 + i * 101) % 1900])).collect();
        log.append_batch(batch).unwrap();
        n += 1;
    }
    log.append("the second segment goes on").unwrap();
    let records = log.range(..).unwrap().map(Result::unwrap).collect();
    log.close().unwrap();
    (disk, records)
}

/// Reads everything the way a user would and compares: wrong data is a failure, an error is not.
fn read_all(disk: &MemDir, whole: &[StoredRecord]) -> Result<usize, annals_wal::Error> {
    let reader = LogReader::open_in(disk.dir())?;
    let mut read = 0;
    for record in reader.range(..)? {
        let record = record?;
        assert_eq!(record, whole[read], "wrong data returned as good");
        read += 1;
    }
    Ok(read)
}

#[test]
fn every_flipped_byte_of_a_sealed_segment_is_corruption_with_its_place() {
    let (disk, whole) = mixed();
    let sealed = disk.bytes(&name(1)).unwrap();
    assert_eq!(sealed.len(), 64 << 10);
    for at in 0..sealed.len() {
        // One bit a byte, all eight over the file: which bit is not what the checksums turn on.
        let mut bytes = sealed.clone();
        bytes[at] ^= 1 << (at % 8);
        disk.set_bytes(&name(1), bytes.clone());
        let report = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap();
        let unsupported = matches!(SegmentHeader::decode(&bytes), HeaderVerdict::Unsupported(_));
        let want = if unsupported { State::Unsupported } else { State::Corrupt };
        assert_eq!(report.state, want, "byte {at}");
        let finding = &report.findings[0];
        assert_eq!(finding.segment.map(Sequence::get), Some(1), "byte {at}");
        let (from, to) = finding.bytes.unwrap();
        assert!(from <= at as u64 && at as u64 <= to.max(from + 128), "byte {at}: {finding:?}");
        let (low, high) = finding.lsns.unwrap_or_else(|| panic!("byte {at}: {finding:?}"));
        assert!(low <= high && high.get() <= whole.len() as u64, "byte {at}: {finding:?}");
        match read_all(&disk, &whole) {
            Ok(read) => assert_eq!(read, whole.len(), "byte {at}: records missing"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
                let location = error.location().unwrap();
                assert_eq!(location.segment.map(Sequence::get), Some(1), "byte {at}");
                assert!(location.offset.is_some() && location.lsns.is_some(), "byte {at}");
            }
        }
    }
}

/// Where the frames of the last segment end.
fn data_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// A log whose last segment holds batches of several sizes; closed or not.
fn tailed(close: bool) -> (MemDir, Vec<Vec<StoredRecord>>) {
    let disk = MemDir::new(32);
    let log = open(&disk).unwrap();
    let mut batches = Vec::new();
    for n in 0..60usize {
        let count = 1 + n % 3;
        let batch: Batch =
            (0..count).map(|i| Record::new(vec![n as u8; (n * 13 + i * 59) % 400])).collect();
        let lsns = log.append_batch(batch).unwrap();
        batches.push(log.range(lsns).unwrap().map(Result::unwrap).collect());
    }
    if close {
        log.close().unwrap();
    }
    (disk, batches)
}

/// End offset of every batch in the first segment.
fn batch_ends(bytes: &[u8], batches: &[Vec<StoredRecord>]) -> Vec<usize> {
    let HeaderVerdict::Good(header) = SegmentHeader::decode(bytes) else { panic!() };
    let mut walker = annals_wal::scan::Walker::new(bytes, &header);
    let mut ends = Vec::new();
    while let Some(annals_wal::scan::Step::Frame(frame)) = walker.step().unwrap() {
        if !frame.header.is_own() && !frame.header.goes_on() {
            ends.push(frame.end() as usize);
        }
    }
    assert_eq!(ends.len(), batches.len());
    ends
}

#[test]
fn a_copied_log_cut_at_any_byte_opens_with_every_whole_batch_before_the_cut() {
    for close in [false, true] {
        let (original, batches) = tailed(close);
        let whole = original.bytes(&name(1)).unwrap();
        let ends = batch_ends(&whole, &batches);
        let end = data_end(&whole);
        for cut in end - 4096..=end {
            let disk = original.copied();
            disk.set_bytes(&name(1), whole[..cut].to_vec());
            let state = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap().state;
            assert!(state <= State::TornTail, "cut at {cut}: {state:?}");
            let log = open(&disk).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            let due: Vec<_> = batches
                .iter()
                .zip(&ends)
                .filter(|(_, end)| **end <= cut)
                .flat_map(|(batch, _)| batch.clone())
                .collect();
            let read: Vec<_> = log.range(..).unwrap().map(Result::unwrap).collect();
            assert_eq!(read, due, "cut at {cut}");
        }
    }
}

#[test]
fn the_same_cut_in_place_is_corruption_wherever_it_is_below_the_durable_end() {
    for close in [false, true] {
        let (disk, _) = tailed(close);
        let whole = disk.bytes(&name(1)).unwrap();
        let end = data_end(&whole);
        // The last frame's padding is durable too: cutting into it cuts below the durable end.
        let durable_end = end.next_multiple_of(8);
        for cut in end - 4096..=end {
            disk.set_bytes(&name(1), whole[..cut].to_vec());
            let state = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap().state;
            let opened = open(&disk);
            if cut < durable_end {
                assert_eq!(state, State::Corrupt, "cut at {cut} of {durable_end}");
                assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corrupt, "cut at {cut}");
            } else {
                assert!(state <= State::TornTail, "cut at {cut}: {state:?}");
            }
        }
    }
}
