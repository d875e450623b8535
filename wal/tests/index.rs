//! The index in a seal: what a reader finds by it is what a scan finds, it reads little, and no index
//! that anybody could write makes it deliver a wrong record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use annals_wal::format::{
    self, FrameHeader, HeaderVerdict, IndexBlock, KIND_OPEN, KIND_SEAL, OwnBody, SegmentHeader,
};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::{
    Batch, ErrorKind, Filter, Kind, Log, LogReader, Lsn, Options, Record, Sequence, StoredRecord,
    Stream,
};

const CAPACITY: u64 = 256 << 10;
const STREAMS: u64 = 100;

fn open(disk: &MemDir) -> Log {
    Options::new().segment_bytes(CAPACITY).open_in(disk.dir()).unwrap()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn name(n: u64) -> String {
    format::segment_name(Sequence::new(n).unwrap())
}

/// A generator of its own: the seed says all.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 ^ (self.0 >> 31)) >> 8
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Batches of random records, until the log has this many segments.
fn fill(log: &Log, rng: &mut Rng, segments: u64) {
    while log.stats().rotations + 1 < segments {
        let record = |rng: &mut Rng| {
            let len = if rng.below(8) == 0 { rng.below(9000) } else { rng.below(700) };
            let kind = [0, 0x0101, 0x0200, 0x1234][rng.below(4) as usize];
            Record::new(vec![rng.next() as u8; len as usize])
                .stream(Stream(rng.below(STREAMS) as u32))
                .kind(Kind::new(kind).unwrap())
        };
        let count = 1 + rng.below(5);
        log.append_batch((0..count).map(|_| record(rng)).collect::<Batch>()).unwrap();
    }
}

/// What a scan of everything finds, which uses no index.
fn scanned(log: &Log) -> Vec<StoredRecord> {
    log.range(..).unwrap().map(Result::unwrap).collect()
}

fn filters(rng: &mut Rng) -> Vec<Filter> {
    let kind = |n| Kind::new(n).unwrap();
    let stream = Filter::new().stream(Stream(rng.below(STREAMS + 20) as u32));
    let kinds = Filter::new().kinds(kind(0x0100)..=kind(0x0FFF));
    vec![Filter::new(), stream, kinds, stream.and(kinds), Filter::new().kind(kind(0x7000))]
}

fn wanted(due: &[StoredRecord], from: u64, to: u64, filter: Filter) -> Vec<StoredRecord> {
    let within = |r: &&StoredRecord| (from..=to).contains(&r.lsn.get());
    let wants = |r: &&StoredRecord| filter.wants(r.stream, r.kind);
    due.iter().filter(within).filter(wants).cloned().collect()
}

#[test]
fn every_lsn_and_every_range_is_what_a_scan_finds() {
    let seeds = 1..=12;
    for seed in seeds {
        println!("seed {seed}");
        let rng = &mut Rng(seed);
        let mut disk = MemDir::new(seed);
        let mut log = open(&disk);
        // Sessions that end in all ways, so that seals come from a rotation, from recovery, and
        // from a segment that several sessions wrote.
        for session in 0..4 {
            let segments = 1 + rng.below(3);
            fill(&log, rng, segments);
            log.append(vec![1; rng.below(60_000) as usize]).unwrap();
            match (session + seed) % 3 {
                0 => drop(log),
                1 => log.close().unwrap(),
                _ => {
                    disk = disk.killed();
                    drop(log);
                }
            }
            log = open(&disk);
        }
        if seed % 2 == 0 {
            log.trim(lsn(1 + rng.below(300))).unwrap();
        }
        let due = scanned(&log);
        let reader = LogReader::open_in(disk.dir()).unwrap();
        let first = log.head_lsn().get();
        let last = due.last().unwrap().lsn.get();
        for record in &due {
            assert_eq!(log.get(record.lsn).unwrap(), *record);
        }
        for record in due.iter().step_by(37) {
            assert_eq!(reader.get(record.lsn).unwrap(), *record);
        }
        for _ in 0..40 {
            let from = first + rng.below(last - first + 1);
            let to = from + rng.below(last - from + 1);
            for filter in filters(rng) {
                let read = log.range(lsn(from)..=lsn(to)).unwrap().only(filter);
                let read: Vec<_> = read.map(Result::unwrap).collect();
                assert_eq!(read, wanted(&due, from, to, filter), "{from} to {to}, {filter:?}");
            }
        }
        for filter in filters(rng) {
            let mut follow = reader.follow(lsn(first)).unwrap().only(filter);
            let mut read = Vec::new();
            while let Some(record) = follow.try_next().unwrap() {
                read.push(record);
            }
            assert_eq!(read, wanted(&due, first, last, filter), "followed, {filter:?}");
        }
        assert_eq!(log.get(lsn(last + 1)).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(reader.get(lsn(last + 1)).unwrap_err().kind(), ErrorKind::OutOfRange);
        if first > 1 {
            assert_eq!(log.get(lsn(first - 1)).unwrap_err().kind(), ErrorKind::Trimmed);
            assert_eq!(reader.get(lsn(first - 1)).unwrap_err().kind(), ErrorKind::Trimmed);
        }
        log.close().unwrap();
        let report = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap();
        assert_eq!((report.state, report.findings), (State::Clean, Vec::new()));
    }
}

#[test]
fn a_get_and_a_query_read_little() {
    let disk = MemDir::new(1);
    let log = Options::new().segment_bytes(4 << 20).open_in(disk.dir()).unwrap();
    let record = |n: u64| {
        let rare = n.is_multiple_of(1000);
        Record::new(vec![n as u8; 1000]).stream(Stream(if rare { 7 } else { 100 + n as u32 % 40 }))
    };
    let batch = |n: u64| (n..n + 10).map(record).collect::<Batch>();
    for n in 0..2000 {
        log.append_batch(batch(n * 10)).unwrap();
    }
    let (stride, last) = (format::index_stride(4 << 20), log.durable_lsn().unwrap().get());
    let mut most = 0;
    for n in (1..=last).step_by(97) {
        let mut records = log.range(lsn(n)..=lsn(n)).unwrap();
        assert_eq!(records.next().unwrap().unwrap().payload, vec![(n - 1) as u8; 1000]);
        most = most.max(records.bytes_read());
    }
    println!("a get reads at most {most} bytes; the stride is {stride}");
    assert!(most < 3 * stride, "{most}");
    let mut records = log.range(..).unwrap().only(Filter::new().stream(Stream(7)));
    assert_eq!(records.by_ref().filter(|r| r.as_ref().is_ok()).count(), 20);
    let (read, all) = (records.bytes_read(), 1032 * last);
    println!("a query for 20 records of {last} reads {read} bytes of {all}");
    // The active segment has no index; of the five sealed ones a block for each record.
    assert!(read < (4 << 20) + 20 * 2 * stride, "{read}");
}

/// The last own record of this kind: its place and body.
fn own(disk: &MemDir, segment: u64, kind: u16) -> Option<(u64, FrameHeader, OwnBody)> {
    let bytes = disk.bytes(&name(segment)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!() };
    let (mut at, mut found) = (128u64, None);
    while let Some(head) = bytes[at as usize..].first_chunk::<32>() {
        let Some(frame) = FrameHeader::decode(head, header.salt, at) else { break };
        if frame.kind == kind {
            let start = at as usize + 32;
            let body = OwnBody::decode(&bytes[start..start + frame.len as usize]).unwrap();
            found = Some((at, frame, body));
        }
        at += frame.frame_size();
    }
    found
}

/// Replaces the index in a segment's seal. The next open record names place and digest of the seal
/// and neither changes, so nothing but the index itself can tell.
fn forge(disk: &MemDir, segment: u64, index: Option<Vec<u8>>) {
    let mut bytes = disk.bytes(&name(segment)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!() };
    let (at, mut frame, mut body) = own(disk, segment, KIND_SEAL).unwrap();
    body.index = index;
    let payload = body.encode();
    frame.len = payload.len() as u32;
    frame.payload_crc = format::crc32(&payload);
    let at = at as usize;
    bytes[at..].fill(0);
    bytes[at..at + 32].copy_from_slice(&frame.encode(header.salt, at as u64));
    bytes[at + 32..at + 32 + payload.len()].copy_from_slice(&payload);
    disk.set_bytes(&name(segment), bytes);
}

fn honest(disk: &MemDir, segment: u64) -> Vec<IndexBlock> {
    let (_, _, body) = own(disk, segment, KIND_SEAL).unwrap();
    format::decode_index(&body.index.unwrap()).unwrap()
}

fn forged_index(rng: &mut Rng, honest: &[IndexBlock]) -> Vec<u8> {
    let mut blocks = honest.to_vec();
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(blocks.len() as u64) as usize;
        let small = 1 + rng.below(40) as u32;
        match rng.below(12) {
            0 => blocks[at].offset_8th = blocks[at].offset_8th.wrapping_add(small),
            1 => blocks[at].offset_8th = blocks[at].offset_8th.wrapping_sub(small),
            2 => blocks[at].offset_8th = rng.next() as u32,
            3 => blocks[at].lsn_delta = blocks[at].lsn_delta.wrapping_add(1),
            4 => blocks[at].lsn_delta = blocks[at].lsn_delta.wrapping_sub(1),
            5 => blocks[at].lsn_delta = rng.next() as u32,
            6 if blocks.len() > 1 => drop(blocks.remove(at)),
            7 => blocks.swap(0, at),
            8 => blocks[at] = IndexBlock::new(blocks[at].offset(), blocks[at].lsn_delta),
            9 => blocks[at].lsn_delta = u32::MAX,
            // One entry of the other's: the LSNs go with the wrong places.
            10 => {
                let next = blocks[(at + 1) % honest.len().min(blocks.len())];
                blocks[at].lsn_delta = next.lsn_delta;
            }
            _ => blocks[at].kinds = rng.next() as u16,
        }
    }
    let mut bytes = format::encode_index(&blocks);
    match rng.below(8) {
        0 => bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize),
        1 => bytes.extend_from_slice(&[0; 5]),
        2 => {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        3 => bytes[rng.below(4) as usize] ^= 6,
        _ => {}
    }
    bytes
}

/// The index is a hint: whatever it says, unfiltered reads are those of a scan, filtered ones deliver
/// nothing that is not there, and verification tells.
#[test]
fn no_forged_index_makes_a_wrong_record_or_hides_one_that_is_asked_for_by_number() {
    let rng = &mut Rng(7);
    let disk = MemDir::new(7);
    let log = open(&disk);
    fill(&log, rng, 4);
    let (due, last) = (scanned(&log), log.durable_lsn().unwrap().get());
    log.close().unwrap();
    let blocks = honest(&disk, 2);
    assert!(blocks.len() > 3, "{blocks:?}");
    let (mut told, mut layouts) = (0, 0);
    for n in 0..600 {
        let index = forged_index(rng, &blocks);
        let same = index == format::encode_index(&blocks);
        let known = index.get(..4) == Some(&[1, 0, 0, 0]);
        let disk = disk.copied();
        forge(&disk, 2, Some(index));
        let report = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap();
        let state = if same || !known { State::Clean } else { State::Corrupt };
        assert_eq!(report.state, state, "forgery {n}: {:?}", report.findings);
        told += u64::from(state == State::Corrupt);
        layouts += u64::from(!known);

        let log = open(&disk);
        for record in due.iter().step_by(1 + rng.below(60) as usize) {
            assert_eq!(log.get(record.lsn).unwrap(), *record, "forgery {n}");
        }
        let from = 1 + rng.below(last);
        for filter in filters(rng) {
            let read: Vec<_> =
                log.range(lsn(from)..).unwrap().only(filter).map(Result::unwrap).collect();
            let due = wanted(&due, from, last, filter);
            assert!(read.iter().all(|record| due.contains(record)), "forgery {n}");
            assert!(read.is_sorted_by_key(|record| record.lsn), "forgery {n}");
            assert!(filter != Filter::new() || read == due, "forgery {n}");
        }
    }
    println!("{told} of 600 told as corrupt, {layouts} of an unknown layout");
    assert!(told > 400 && layouts > 0);
}

/// A log of three segments: of stream 1 the first record of each of these blocks of segment 2, of
/// stream 2 all others. What there is of stream 1.
fn sparse(disk: &MemDir, wanted: &[usize]) -> Vec<StoredRecord> {
    let open = |disk: &MemDir| Options::new().segment_bytes(4 << 20).open_in(disk.dir()).unwrap();
    let record = |stream| Batch::from(Record::new(vec![9; 5000]).stream(Stream(stream)));
    // Sizes are fixed, so a dry run tells where the blocks begin.
    let trial = MemDir::new(13);
    let log = open(&trial);
    while log.stats().rotations < 2 {
        log.append_batch(record(2)).unwrap();
    }
    let blocks = honest(&trial, 2);
    assert!(blocks.len() > 8, "{blocks:?}");
    let first = own(&trial, 2, KIND_SEAL).unwrap().2.seal.unwrap().lsns.unwrap().0.get();
    let lsns: Vec<u64> = wanted.iter().map(|at| first + u64::from(blocks[*at].lsn_delta)).collect();
    let log = open(disk);
    while log.stats().rotations < 2 {
        let next = log.durable_lsn().map_or(1, |last| last.get() + 1);
        log.append_batch(record(if lsns.contains(&next) { 1 } else { 2 })).unwrap();
    }
    let wanted = scanned(&log).into_iter().filter(|record| record.stream == Stream(1));
    let wanted: Vec<_> = wanted.collect();
    assert_eq!(wanted.iter().map(|record| record.lsn.get()).collect::<Vec<_>>(), lsns);
    log.close().unwrap();
    wanted
}

/// An index that is caught in one lie is believed in nothing: what it hid in an earlier block, behind
/// which a record was delivered already, is found.
#[test]
fn a_distrusted_index_means_that_the_whole_segment_is_read() {
    let disk = MemDir::new(11);
    let due = sparse(&disk, &[1, 3, 5, 7]);
    let mut blocks = honest(&disk, 2);
    // Block 3 says that it has nothing of stream 1; block 7 begins where no frame does.
    let hidden = &blocks[3];
    blocks[3] = IndexBlock::new(hidden.offset(), hidden.lsn_delta);
    blocks[7].offset_8th += 1;
    forge(&disk, 2, Some(format::encode_index(&blocks)));
    let log = open(&disk);
    let filter = Filter::new().stream(Stream(1));
    let read: Vec<_> = log.range(..).unwrap().only(filter).map(Result::unwrap).collect();
    assert_eq!(read, due);
    let reader = LogReader::open_in(disk.dir()).unwrap();
    let mut follow = reader.follow(lsn(1)).unwrap().only(filter);
    for record in due {
        assert_eq!(follow.try_next().unwrap().unwrap(), record);
    }
}

/// What a seal says of its own last LSN no digest binds: believed, it led past the segments after it.
#[test]
fn a_seal_that_claims_a_later_last_lsn_hides_no_later_record() {
    let disk = MemDir::new(12);
    let due = sparse(&disk, &[2, 4]);
    let log = open(&disk);
    log.append_batch(Batch::from(Record::new("behind").stream(Stream(1)))).unwrap();
    log.close().unwrap();
    let mut bytes = disk.bytes(&name(2)).unwrap();
    let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!() };
    let (at, mut frame, mut body) = own(&disk, 2, KIND_SEAL).unwrap();
    let seal = body.seal.as_mut().unwrap();
    seal.lsns = seal.lsns.map(|(first, _)| (first, lsn(1_000_000)));
    let payload = body.encode();
    frame.payload_crc = format::crc32(&payload);
    assert_eq!(frame.len as usize, payload.len());
    let at = at as usize;
    bytes[at..at + 32].copy_from_slice(&frame.encode(header.salt, at as u64));
    bytes[at + 32..at + 32 + payload.len()].copy_from_slice(&payload);
    disk.set_bytes(&name(2), bytes);
    let log = open(&disk);
    let filter = Filter::new().stream(Stream(1));
    let read: Vec<_> = log.range(..).unwrap().only(filter).map(Result::unwrap).collect();
    assert_eq!(read.len(), due.len() + 1, "the one behind too");
    assert_eq!(read[..due.len()], due);
}

/// More blocks than any writer makes are none: a reader takes no memory for them.
#[test]
fn an_index_of_more_blocks_than_there_can_be_is_none() {
    let blocks = |count| (0..count).map(|n| IndexBlock::new(128 + 64 * n, n as u32));
    let of = |count| format::encode_index(&blocks(count).collect::<Vec<_>>());
    assert!(format::decode_index(&of(format::INDEX_BLOCKS_MAX)).is_some());
    assert_eq!(format::decode_index(&of(format::INDEX_BLOCKS_MAX + 1)), None);
}

/// A seal without an index is what a recovery behind a close writes, and what older logs have.
#[test]
fn a_seal_without_an_index_is_as_good_and_slower() {
    let rng = &mut Rng(9);
    let disk = MemDir::new(9);
    let log = open(&disk);
    fill(&log, rng, 4);
    let due = scanned(&log);
    log.close().unwrap();
    (1..=3).for_each(|segment| forge(&disk, segment, None));
    assert_eq!(
        inspect_in(&disk.dir(), Depth::Everything, &mut |_| ()).unwrap().state,
        State::Clean
    );
    let log = open(&disk);
    for record in due.iter().step_by(11) {
        assert_eq!(log.get(record.lsn).unwrap(), *record);
    }
    for filter in filters(rng) {
        let read: Vec<_> = log.range(..).unwrap().only(filter).map(Result::unwrap).collect();
        assert_eq!(read, wanted(&due, 1, u64::MAX, filter));
    }
}

#[test]
fn a_recovery_seals_with_an_index_but_not_behind_a_close() {
    let disk = MemDir::new(3);
    let log = open(&disk);
    log.append("one").unwrap();
    let killed = disk.killed();
    drop(log);
    drop(open(&killed));
    assert_eq!(honest(&killed, 1).len(), 1);

    // The same behind a close: the next session's open record is torn.
    let disk = MemDir::new(3);
    open(&disk).append("one").unwrap();
    open(&disk).close().unwrap();
    let ops = disk.ops();
    let torn = (0..200).find_map(|stop| {
        let disk = disk.copied();
        disk.tear_sectors(true);
        disk.stop_after(stop);
        let _ = Options::new().segment_bytes(CAPACITY).open_in(disk.dir());
        (0..64).map(|seed| disk.crash(Keep::Some(seed))).find(|disk| {
            open(disk);
            let closed = own(disk, 2, format::KIND_CLOSE);
            let seal = own(disk, 2, KIND_SEAL);
            let open = own(disk, 2, KIND_OPEN);
            closed.zip(seal.clone()).zip(open).is_some_and(|((closed, seal), open)| {
                closed.0 + closed.1.frame_size() == seal.0 && open.0 < closed.0
            })
        })
    });
    let torn = torn.unwrap_or_else(|| panic!("no crash tears that open record ({ops})"));
    assert_eq!(own(&torn, 2, KIND_SEAL).unwrap().2.index, None);
}

/// Of a get, the record's own two checksums count; what stands before it in its block is walked by
/// its headers.
#[test]
fn a_get_tells_damage_to_its_record_and_passes_by_other_damage() {
    let disk = MemDir::new(5);
    let log = open(&disk);
    while log.stats().rotations < 2 {
        log.append(vec![3; 1000]).unwrap();
    }
    let (at, frame) = {
        let bytes = disk.bytes(&name(1)).unwrap();
        let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) else { panic!() };
        let first = honest(&disk, 1)[1];
        let head = bytes[first.offset() as usize..].first_chunk::<32>().unwrap();
        (first.offset(), FrameHeader::decode(head, header.salt, first.offset()).unwrap())
    };
    let third = 1 + u64::from(honest(&disk, 1)[2].lsn_delta);
    let whole = disk.bytes(&name(1)).unwrap();
    let get = |n: u64| log.get(lsn(n)).map(|record| record.lsn.get()).map_err(|e| e.kind());
    for (byte, before, of_it, behind) in [
        // The payload of the first frame of the second block.
        (at + 40, Ok(()), Err(ErrorKind::Corrupt), Ok(())),
        // Its header: nobody behind it in this block can be reached, and the scan says why.
        (at + 8, Ok(()), Err(ErrorKind::Corrupt), Err(ErrorKind::Corrupt)),
        // The payload of the first frame of all.
        (128 + 32 + 40 + 40, Ok(()), Ok(()), Ok(())),
    ] {
        let mut bytes = whole.clone();
        bytes[byte as usize] ^= 1;
        disk.set_bytes(&name(1), bytes);
        let lsns = [frame.lsn - 1, frame.lsn, frame.lsn + 1];
        let due = [before, of_it, behind];
        for (n, due) in lsns.into_iter().zip(due) {
            assert_eq!(get(n), due.map(|()| n), "byte {byte}, LSN {n}");
        }
        // The third block is another start.
        assert_eq!(get(third), Ok(third));
    }
}
