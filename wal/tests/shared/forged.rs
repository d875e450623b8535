//! What a member reads on over is checked as an opening checks it: sound frames that no writer of
//! ours leaves behind are damage, by name, and the member is of no use any more.
//!
//! Never here: chance; what another wrote is rewritten with good checksums, one thing at a time.

use annals_wal::Batch;
use annals_wal::format::{
    self, FrameHeader, HeaderVerdict, KIND_OPEN, KIND_SEAL, OwnBody, SegmentHeader,
};

use super::*;

const FIRST: &str = "00000000000000000001.wal";
const SECOND: &str = "00000000000000000002.wal";

/// Calls `edit` with each frame's header and payload, and writes what it leaves back, checksums and
/// all.
fn rewrite(disk: &MemDir, name: &str, mut edit: impl FnMut(&mut FrameHeader, &mut Vec<u8>)) {
    let mut bytes = disk.bytes(name).unwrap();
    let HeaderVerdict::Good(segment) = SegmentHeader::decode(&bytes[..128]) else {
        panic!("no segment")
    };
    let mut at = 128;
    while bytes[at..at + 32].iter().any(|byte| *byte != 0) {
        let head: &[u8; 32] = bytes[at..at + 32].try_into().unwrap();
        let mut header = FrameHeader::decode(head, segment.salt, at as u64).unwrap();
        let size = header.frame_size() as usize;
        let mut payload = bytes[at + 32..at + 32 + header.len as usize].to_vec();
        edit(&mut header, &mut payload);
        assert_eq!(payload.len(), header.len as usize, "a frame keeps its place");
        header.payload_crc = format::crc32(&payload);
        bytes[at..at + 32].copy_from_slice(&header.encode(segment.salt, at as u64));
        bytes[at + 32..at + 32 + payload.len()].copy_from_slice(&payload);
        at += size;
    }
    disk.set_bytes(name, bytes);
}

/// What `b` says of what `a` wrote, which was then forged.
fn forged(write: impl Fn(&Log), forge: impl Fn(&MemDir)) -> Error {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("seen").unwrap();
    b.refresh().unwrap();
    write(&a);
    forge(&one);
    let error = b.refresh().unwrap_err();
    assert_eq!(b.append("no").unwrap_err().kind(), ErrorKind::Poisoned);
    error
}

fn over_a_rotation(log: &Log) {
    for _ in 0..3 {
        log.append("x".repeat(30_000)).unwrap();
    }
}

#[test]
fn a_seal_of_other_frames_is_damage() {
    let error = forged(over_a_rotation, |disk| {
        rewrite(disk, FIRST, |header, payload| {
            if header.kind == KIND_SEAL {
                let mut body = OwnBody::decode(payload).unwrap();
                let seal = body.seal.as_mut().unwrap();
                seal.digest.bytes[0] ^= 1;
                *payload = body.encode();
            }
        });
    });
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("a seal's digest"), "{error}");
}

#[test]
fn an_open_record_after_another_seal_is_damage() {
    let error = forged(over_a_rotation, |disk| {
        rewrite(disk, SECOND, |header, payload| {
            if header.kind == KIND_OPEN {
                let mut body = OwnBody::decode(payload).unwrap();
                body.previous.as_mut().unwrap().offset += 8;
                *payload = body.encode();
            }
        });
    });
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("does not name the seal"), "{error}");
}

#[test]
fn a_segment_of_another_log_is_no_successor() {
    let error = forged(over_a_rotation, |disk| {
        let mut bytes = disk.bytes(SECOND).unwrap();
        let HeaderVerdict::Good(mut header) = SegmentHeader::decode(&bytes[..128]) else {
            panic!("no segment")
        };
        header.log_id.0[0] ^= 1;
        bytes[..128].copy_from_slice(&header.encode());
        disk.set_bytes(SECOND, bytes);
    });
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("no successor"), "{error}");
}

#[test]
fn half_a_batch_is_damage() {
    let write = |log: &Log| {
        let batch: Batch = (0..3).map(|n| Record::new(vec![n; 10])).collect();
        log.append_batch(batch).unwrap();
    };
    let error = forged(write, |disk| {
        rewrite(disk, FIRST, |header, _| {
            if header.lsn == 4 && header.kind == 0 {
                header.flags |= format::FLAG_BATCH_GOES_ON;
            }
        });
    });
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("has no end"), "{error}");
}

/// A control block is believed in its own inode, about its own log: one that was copied there is
/// none.
#[test]
fn another_logs_control_block_is_none() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("a").unwrap();
    let other = MemDir::new(2);
    let log = open(&other).unwrap();
    log.append("longer, and of another log").unwrap();
    one.set_bytes("CONTROL", other.bytes("CONTROL").unwrap());
    b.append("b").unwrap();
    assert_eq!(b.generation(), Generation::FIRST.next(), "it recovered");
    assert_eq!(payloads(&b), ["a", "b"]);
    assert_eq!(payloads(&a), ["a", "b"]);
}
