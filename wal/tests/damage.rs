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
use annals_wal::{
    Batch, ErrorKind, Filter, Kind, Log, LogReader, Options, Record, Sequence, StoredRecord, Stream,
};

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
/// Owned records, lent ones and a replay deliver the same and fail with the same words.
fn read_all(disk: &MemDir, whole: &[StoredRecord]) -> Result<usize, annals_wal::Error> {
    let reader = LogReader::open_in(disk.dir())?;
    let (mut owned, mut read) = (Ok(()), 0);
    for record in reader.range(..)? {
        match record {
            Ok(record) => assert_eq!(record, whole[read], "wrong data returned as good"),
            Err(error) => {
                owned = Err(error);
                break;
            }
        }
        read += 1;
    }
    let (mut lent, mut records) = (0, reader.range(..)?);
    let lending = loop {
        match records.next_ref() {
            Some(Ok(record)) => assert_eq!(record, (&whole[lent]).into(), "wrong data lent"),
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
        lent += 1;
    };
    assert!(lending.is_ok() || records.next_ref().is_none(), "fused after an error");
    let mut replayed = 0;
    let replay = reader.range(..)?.replay(|record| {
        assert_eq!(record, (&whole[replayed]).into(), "wrong data replayed");
        replayed += 1;
        Ok::<(), annals_wal::Error>(())
    });
    assert_eq!((lent, replayed), (read, read));
    let words = |result: &Result<(), annals_wal::Error>| format!("{result:?}");
    assert_eq!([words(&lending), words(&replay)], [words(&owned), words(&owned)]);
    owned.map(|()| read)
}

/// Reads on without wanting any record.
fn skip_all(disk: &MemDir, nothing: Filter) -> Result<(), annals_wal::Error> {
    let mut records = LogReader::open_in(disk.dir())?.range(..)?.only(nothing);
    records.next_ref().map_or(Ok(()), |record| panic!("wanted by nobody: {:?}", record?))
}

/// First byte of a record's payload and first byte after its padding, for every record.
fn bodies(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let HeaderVerdict::Good(header) = SegmentHeader::decode(bytes) else { panic!() };
    let mut walker = annals_wal::scan::Walker::new(bytes, &header);
    let mut bodies = Vec::new();
    while let Some(annals_wal::scan::Step::Frame(frame)) = walker.step().unwrap() {
        if !frame.header.is_own() {
            bodies.push(frame.offset as usize + 32..frame.end() as usize);
        }
    }
    bodies
}

/// What is verified of a record that a filter skips: the header, all of it; the rest not at all. And
/// nothing of a block that holds nothing wanted.
#[test]
fn every_flipped_byte_is_seen_by_who_skips_but_for_payloads_and_padding() {
    let (disk, whole) = mixed();
    let sealed = disk.bytes(&name(1)).unwrap();
    let bodies = bodies(&sealed);
    let (mut seen, mut unseen, mut passed) = (0, 0, 0);
    // Of a page of kinds that is there, so that the index says that a look is worth it.
    let by_header = Filter::new().kind(Kind::new(0x00FF).unwrap());
    let by_index = Filter::new().stream(Stream(77));
    for at in 0..sealed.len() {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1 << (at % 8);
        disk.set_bytes(&name(1), bytes);
        let skipped = skip_all(&disk, by_header).map_err(|e| format!("{e:?}"));
        let blocks_passed = skip_all(&disk, by_index).map_err(|e| format!("{e:?}"));
        assert!(blocks_passed.is_ok() || blocks_passed == skipped, "byte {at}: {blocks_passed:?}");
        passed += usize::from(blocks_passed != skipped);
        // The first block begins at the first record, behind the open record.
        let open = 128..bodies[0].start - 32;
        if open.contains(&at) || bodies.iter().any(|body| body.contains(&at)) {
            assert_eq!(skipped, Ok(()), "byte {at}");
            unseen += 1;
        } else {
            let read = read_all(&disk, &whole).map(|_| ()).map_err(|e| format!("{e:?}"));
            // The seal's padding is what no index needs.
            let of_seal = at >= bodies.last().unwrap().end;
            assert!(skipped == read || (of_seal && skipped == Ok(())), "byte {at}: {skipped:?}");
            seen += usize::from(skipped.is_err());
        }
    }
    println!("{seen} flips seen, {unseen} in bodies that were not read");
    println!("{passed} of them in headers of blocks that were passed over");
    assert!(passed >= 32 * bodies.len(), "{passed}");
    assert!(seen > 32 * bodies.len() && unseen > 40_000, "{seen}, {unseen}");
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
