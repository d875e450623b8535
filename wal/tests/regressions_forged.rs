//! One test for each finding of the review of what a forger can write: frames with good checksums
//! that no writer of ours makes, and those of a newer version.
//!
//! Never here: chance. Forgeries at random are in `hostile.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use annals_wal::diagnose::{Scope, diagnose_in};
use annals_wal::format::{
    self, Digest, FrameHeader, HeaderVerdict, OwnBody, SealBody, SegmentHeader,
};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::inspect::{Depth, State};
use annals_wal::{ErrorKind, Generation, Log, LogId, LogReader, Lsn, Options, Result, Sequence};

fn open(disk: &MemDir) -> Result<Log> {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir())
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn name(sequence: u64) -> String {
    format::segment_name(Sequence::new(sequence).unwrap())
}

/// Writes forged frames with good checksums into a segment's bytes.
struct Forger {
    bytes: Vec<u8>,
    salt: u32,
    at: usize,
}

impl Forger {
    /// From this offset on.
    fn new(bytes: Vec<u8>, at: usize) -> Forger {
        let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes[..128]) else {
            panic!("not a segment");
        };
        Forger { bytes, salt: header.salt, at: at.next_multiple_of(8) }
    }

    fn put(&mut self, kind: u16, flags: u8, lsn: u64, payload: &[u8]) {
        let header = FrameHeader {
            payload_crc: format::crc32(payload),
            lsn,
            len: payload.len() as u32,
            durable_lag: 0,
            stream: 0,
            kind,
            flags,
            codec: 0,
        };
        let (start, end) = (self.at + 32, self.at + 32 + payload.len());
        self.bytes[self.at..start].copy_from_slice(&header.encode(self.salt, self.at as u64));
        self.bytes[start..end].copy_from_slice(payload);
        self.at = end.next_multiple_of(8);
    }
}

/// A log whose open record says that the last LSN but one came before it, with these records.
fn near_the_last_lsn(records: &[u64]) -> MemDir {
    forged_open(u64::MAX - 1, u64::MAX, records)
}

/// A log whose open record says that this LSN came before it and that this one is the head.
fn forged_open(before: u64, head: u64, records: &[u64]) -> MemDir {
    let first = MemDir::new(5);
    let log = open(&first).unwrap();
    let disk = first.crash(Keep::Everything);
    drop(log);
    let mut bytes = disk.bytes(&name(1)).unwrap();
    bytes[128..].fill(0);
    let mut forger = Forger::new(bytes, 128);
    let head = Some(lsn(head));
    let body = OwnBody { generation: Some(Generation(1)), head, ..OwnBody::default() };
    forger.put(format::KIND_OPEN, 0, before, &body.encode());
    records.iter().for_each(|lsn| forger.put(0, 2, *lsn, b"x"));
    disk.set_bytes(&name(1), forger.bytes);
    disk.lose("CONTROL");
    disk
}

/// t8. Reading the record with the highest LSN of all overflowed; and then a range, which has no
/// higher LSN to wait for, delivered it again and again.
#[test]
fn the_highest_lsn_of_all_is_read_and_read_once() {
    let log = open(&near_the_last_lsn(&[u64::MAX])).unwrap();
    assert_eq!(log.durable_lsn(), Some(lsn(u64::MAX)));
    assert_eq!(log.get(lsn(u64::MAX)).unwrap().payload, b"x");
    let read = log.range(..).unwrap().take(3).map(|record| record.unwrap().lsn.get());
    assert_eq!(read.collect::<Vec<_>>(), [u64::MAX]);
}

/// t8. The same for those who own nothing, before and after an owner has opened it.
#[test]
fn readers_deliver_the_highest_lsn_of_all_once() {
    let disk = near_the_last_lsn(&[u64::MAX]);
    for opened in [false, true] {
        if opened {
            open(&disk).unwrap().close().unwrap();
        }
        let reader = LogReader::open_in(disk.dir()).unwrap().unproven(!opened);
        let read = reader.range(..).unwrap().take(3).map(|record| record.unwrap().lsn.get());
        assert_eq!(read.collect::<Vec<_>>(), [u64::MAX], "opened: {opened}");
        let mut follow = reader.follow(lsn(u64::MAX)).unwrap();
        let followed = [(); 3].map(|()| follow.try_next().unwrap().map(|r| r.lsn.get()));
        assert_eq!(followed, [Some(u64::MAX), None, None], "opened: {opened}");
    }
}

/// t8b. Giving out the highest LSN of all overflowed and took the whole log with it.
#[test]
fn the_lsns_come_to_an_end_without_a_panic_or_a_poison() {
    let disk = near_the_last_lsn(&[]);
    let log = open(&disk).unwrap();
    for _ in 0..2 {
        let refused = log.append("one too many").unwrap_err();
        assert_eq!((refused.kind(), refused.outcome_unknown()), (ErrorKind::Invalid, false));
    }
    assert!(log.poisoned().is_none());
    log.close().unwrap();
    assert_eq!(open(&disk).unwrap().durable_lsn(), Lsn::new(u64::MAX - 1));
}

/// t9. A record of the log's own kinds whose number says that it may be ignored was refused.
#[test]
fn an_own_record_that_may_be_ignored_is_ignored() {
    let first = MemDir::new(4);
    let log = open(&first).unwrap();
    log.append(vec![1; 100]).unwrap();
    log.append(vec![1; 100]).unwrap();
    let disk = first.crash(Keep::Everything);
    drop(log);
    let bytes = disk.bytes(&name(1)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut forger = Forger::new(bytes, end);
    forger.put(0xC001, 0, 2, b"the body of a newer version");
    disk.set_bytes(&name(1), forger.bytes);
    let log = open(&disk).unwrap();
    assert_eq!(log.durable_lsn(), Some(lsn(2)));
    assert_eq!(log.append("goes on").unwrap(), lsn(3));
    assert_eq!(log.range(..).unwrap().map(Result::unwrap).count(), 3);
}

/// Fuzz target `directory`, input `head-beyond-the-end`. A head above the next LSN was believed: the
/// log took records, acknowledged them, and called each of them trimmed.
#[test]
fn a_head_beyond_the_end_of_the_log_is_refused() {
    for (records, head) in [(&[][..], 2), (&[1, 2], 4), (&[1], u64::MAX)] {
        let disk = forged_open(0, head, records);
        let before = disk.bytes(&name(1));
        let refused = open(&disk).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        assert!(refused.to_string().contains("row C"), "{refused}");
        assert_eq!(disk.bytes(&name(1)), before);
        assert_eq!(disk.names().iter().filter(|name| *name != "LOCK").count(), 1);
    }
    // One above the last LSN is where a trim of everything leaves it.
    let log = open(&forged_open(0, 3, &[1, 2])).unwrap();
    let next = log.append("kept").unwrap();
    assert_eq!((log.head_lsn(), log.get(next).unwrap().payload), (next, b"kept".to_vec()));
}

/// `hostile.rs`, seed 120 of the forgeries with indexes. A seal that was written for another segment,
/// at the end of the active one, was taken for its own: the log went on in the next segment, and the
/// opening after that refused all of it.
#[test]
fn another_segments_seal_is_refused_at_the_end_of_the_active_segment_too() {
    let first = MemDir::new(6);
    let log = open(&first).unwrap();
    log.append("one").unwrap();
    let disk = first.crash(Keep::Everything);
    drop(log);
    let bytes = disk.bytes(&name(1)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut forger = Forger::new(bytes, end);
    let digest = Digest { algorithm: 1, bytes: vec![0; 4] };
    let lsns = Some((lsn(1), lsn(1)));
    let seal = SealBody { count: 1, lsns, log_id: LogId([0; 16]), salt: forger.salt, digest };
    let head = Some(lsn(1));
    let body = OwnBody { generation: Some(Generation(1)), head, ..OwnBody::default() };
    forger.put(format::KIND_SEAL, 0, 1, &OwnBody { seal: Some(seal), ..body }.encode());
    disk.set_bytes(&name(1), forger.bytes);
    let refused = open(&disk).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains("row E"), "{refused}");
    assert!(disk.bytes(&name(2)).is_none());
}

/// A seal that an open record names at the end of all offsets is told as missing; adding a frame's
/// length to that offset overflowed.
#[test]
fn a_seal_at_the_last_offset_of_all_is_explained() {
    let first = MemDir::new(9);
    open(&first).unwrap().append("one").unwrap();
    // The next opening seals segment 1.
    let made = first.crash(Keep::Everything);
    drop(open(&made).unwrap());
    let disk = made.crash(Keep::Everything);
    let mut bytes = disk.bytes(&name(2)).unwrap();
    bytes[128..].fill(0);
    let mut forger = Forger::new(bytes, 128);
    let digest = Digest { algorithm: format::DIGEST_CRC32, bytes: vec![0; 4] };
    let sequence = Sequence::new(1).unwrap();
    for offset in [u64::MAX, u64::MAX - 7, u64::MAX - 39] {
        let previous = Some(format::SealReference { sequence, offset, digest: digest.clone() });
        let (generation, head) = (Some(Generation(2)), Some(lsn(1)));
        let body = OwnBody { generation, head, previous, ..OwnBody::default() };
        forger.at = 128;
        forger.put(format::KIND_OPEN, 0, 1, &body.encode());
        disk.set_bytes(&name(2), forger.bytes.clone());
        let whole = disk.bytes(&name(1)).unwrap();
        // With its own seal, and cut before it.
        for cut in [false, true] {
            let mut bytes = whole.clone();
            if cut {
                bytes[128 + 32..].fill(0);
            }
            disk.set_bytes(&name(1), bytes);
            let scope = Scope { depth: Depth::Everything, maps: true, threads: 1 };
            let found = diagnose_in(&disk.dir(), scope, &mut |_| ()).unwrap();
            assert_eq!(found.report.state, State::Corrupt, "{offset}, {cut}: {found:?}");
            assert!(!found.damages.is_empty(), "{offset}, {cut}");
        }
        disk.set_bytes(&name(1), whole);
    }
}
