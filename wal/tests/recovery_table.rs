//! Every row of the recovery table, by a directory that matches it: what is decided, what an
//! opening then does, and that a refusal changes no byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

mod common;

use annals_wal::format::{self, FrameHeader, HeaderVerdict, SegmentHeader, SnapshotHeader};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::fs::{Access, Dir};
use annals_wal::recover::{Decision, Facts, RefusalKind, Row, decide};
use annals_wal::{ErrorKind, Generation, LogId, Lsn, Sequence};
use common::{Model, open};

fn name(sequence: u64) -> String {
    format::segment_name(Sequence::new(sequence).unwrap())
}

/// A log of three segments (two sealed) with `tail` more records in the active one.
fn filled(tail: usize) -> (MemDir, Model) {
    let disk = MemDir::new(21);
    let log = open(&disk).unwrap();
    let mut model = Model::new();
    for _ in 0..3 {
        model.append(&log, 1, 30_000).unwrap();
    }
    for _ in 0..tail {
        model.append(&log, 2, 600).unwrap();
    }
    drop(log);
    (disk, model)
}

fn closed() -> (MemDir, Model) {
    let (disk, mut model) = filled(1);
    let log = open(&disk).unwrap();
    model.append(&log, 1, 10).unwrap();
    log.close().unwrap();
    (disk, model)
}

/// What the table says, without touching anything.
fn row(disk: &MemDir) -> (Row, bool) {
    match decide(&Facts::read(&disk.clone()).unwrap()) {
        Decision::Plan(plan) => (plan.row, true),
        Decision::Refuse(refusal) => (refusal.row, false),
    }
}

fn snapshot(disk: &MemDir) -> Vec<(String, Vec<u8>)> {
    // The lock file is the opener's, and holds nothing but its pid.
    let names = disk.names().into_iter().filter(|name| name != format::LOCK_NAME);
    names.map(|name| (name.clone(), disk.bytes(&name).unwrap())).collect()
}

/// An opening is refused with this kind and row and changes nothing.
fn refuses(disk: &MemDir, want: Row, kind: ErrorKind) {
    assert_eq!(row(disk), (want, false));
    let before = snapshot(disk);
    let error = open(disk).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(snapshot(disk) == before, "a refused opening changed a file");
    println!("{error}");
}

fn edit(disk: &MemDir, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.bytes(name).unwrap();
    edit(&mut bytes);
    disk.set_bytes(name, bytes);
}

fn header(disk: &MemDir, sequence: u64) -> SegmentHeader {
    match SegmentHeader::decode(&disk.bytes(&name(sequence)).unwrap()) {
        HeaderVerdict::Good(header) => header,
        other => panic!("{other:?}"),
    }
}

/// Sound frames of a segment: offset and header.
fn frames(disk: &MemDir, sequence: u64) -> Vec<(usize, FrameHeader)> {
    let bytes = disk.bytes(&name(sequence)).unwrap();
    let salt = header(disk, sequence).salt;
    let mut at = format::FRAMES_START as usize;
    let mut frames = Vec::new();
    while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let Some(header) = FrameHeader::decode(head, salt, at as u64) else { break };
        frames.push((at, header));
        at += header.frame_size() as usize;
    }
    frames
}

#[test]
fn row_new_an_empty_directory_becomes_a_log() {
    let disk = MemDir::new(1);
    disk.make().unwrap();
    assert_eq!(row(&disk), (Row::Fresh, true));
    let log = open(&disk).unwrap();
    assert_eq!((log.generation(), log.durable_lsn()), (Generation(1), None));
}

#[test]
fn row_new_a_prepared_first_segment_is_used() {
    let disk = MemDir::new(1);
    drop(open(&disk).unwrap());
    let id = header(&disk, 1).log_id;
    edit(&disk, &name(1), |bytes| bytes[128..].fill(0));
    disk.lose(format::CONTROL_NAME);
    assert_eq!(row(&disk), (Row::Fresh, true));
    assert_eq!(open(&disk).unwrap().log_id(), id);
}

#[test]
fn row_a_a_closed_log_goes_on_in_the_same_segment_and_generation() {
    let (disk, mut model) = closed();
    assert_eq!(row(&disk), (Row::A, true));
    let segments = disk.names().len();
    let log = open(&disk).unwrap();
    model.check(&log).unwrap();
    assert_eq!(log.generation(), Generation(2));
    model.append(&log, 1, 10).unwrap();
    assert_eq!(disk.names().len(), segments);
}

#[test]
fn row_a_a_chain_of_clean_openings_never_overruns_the_reserve() {
    let disk = MemDir::new(5);
    let mut model = Model::new();
    for round in 0..400 {
        let log = open(&disk).unwrap();
        model.check(&log).unwrap();
        assert_eq!(log.generation(), Generation(1), "round {round}");
        if round % 40 == 0 {
            model.append(&log, 1, 9_000).unwrap();
        }
        log.close().unwrap();
    }
}

#[test]
fn row_a_prime_an_unclean_end_is_sealed_and_begins_a_generation() {
    let (disk, mut model) = filled(2);
    assert_eq!(row(&disk), (Row::APrime, true));
    let log = open(&disk).unwrap();
    model.check(&log).unwrap();
    assert_eq!((log.generation(), log.recovery().cut), (Generation(2), None));
    assert_eq!(frames(&disk, 3).last().unwrap().1.kind, format::KIND_SEAL);
}

#[test]
fn row_b_a_torn_tail_is_cut_reported_and_kept_aside() {
    let (disk, mut model) = filled(2);
    let (at, _) = frames(&disk, 3)[4];
    // The last batch of two: its second frame is torn, and no control block speaks for it.
    let disk = disk.copied();
    edit(&disk, &name(3), |bytes| bytes[at + 40] ^= 1);
    assert_eq!(row(&disk), (Row::B, true));
    let log = open(&disk).unwrap();
    let cut = log.recovery().cut.unwrap();
    let (low, high) = cut.lsns.unwrap();
    assert_eq!((low.get(), high.get()), (6, 7), "{}", log.recovery());
    assert!(disk.names().iter().any(|name| name.starts_with("cut-3-")));
    model.history.truncate(5);
    model.check(&log).unwrap();
}

#[test]
fn row_b_a_short_file_is_extended() {
    let (disk, mut model) = filled(1);
    let disk = disk.copied();
    let end = frames(&disk, 3).last().map(|(at, h)| at + h.frame_size() as usize).unwrap();
    edit(&disk, &name(3), |bytes| bytes.truncate(end));
    assert_eq!(row(&disk), (Row::B, true));
    let log = open(&disk).unwrap();
    model.check(&log).unwrap();
    assert_eq!(disk.bytes(&name(3)).unwrap().len(), 64 << 10);
}

#[test]
fn row_b_a_torn_open_record_is_written_anew() {
    let (disk, mut model) = filled(0);
    let disk = disk.copied();
    model.history.truncate(2);
    edit(&disk, &name(3), |bytes| bytes[130] ^= 0xFF);
    edit(&disk, &name(3), |bytes| bytes[300..].fill(0));
    assert_eq!(row(&disk), (Row::B, true));
    let log = open(&disk).unwrap();
    model.check(&log).unwrap();
    let kinds: Vec<_> = frames(&disk, 3).iter().map(|(_, h)| h.kind).collect();
    assert_eq!(kinds, [format::KIND_OPEN, format::KIND_SEAL]);
}

#[test]
fn row_c_damage_below_a_witness_is_corruption() {
    let (disk, _) = filled(3);
    let disk = disk.copied();
    let (at, _) = frames(&disk, 3)[1];
    edit(&disk, &name(3), |bytes| bytes[at + 50] ^= 4);
    refuses(&disk, Row::C, ErrorKind::Corrupt);
}

#[test]
fn row_c_damage_below_the_control_block_is_corruption() {
    let (disk, _) = filled(1);
    let (at, _) = *frames(&disk, 3).last().unwrap();
    edit(&disk, &name(3), |bytes| bytes[at + 50] ^= 4);
    refuses(&disk, Row::C, ErrorKind::Corrupt);
    assert_eq!(row(&disk.copied()), (Row::B, true), "a copy must not accuse itself");
}

#[test]
fn row_c_a_lost_tail_is_corruption_where_the_control_block_knows_of_it() {
    let (disk, _) = filled(1);
    let (at, _) = frames(&disk, 3)[2];
    edit(&disk, &name(3), |bytes| bytes[at..].fill(0));
    refuses(&disk, Row::C, ErrorKind::Corrupt);
}

#[test]
fn row_c_a_sound_header_with_an_impossible_content_is_corruption() {
    type Change = fn(&mut FrameHeader);
    let changes: [(&str, Change); 4] = [
        ("lsn", |h| h.lsn += 1),
        ("lag", |h| h.durable_lag = u32::MAX),
        ("flag", |h| h.flags ^= format::FLAG_BATCH_FIRST),
        ("length", |h| h.len = u32::MAX),
    ];
    for (what, change) in changes {
        let (disk, _) = filled(1);
        let disk = disk.copied();
        let (at, mut head) = frames(&disk, 3)[2];
        let salt = header(&disk, 3).salt;
        change(&mut head);
        edit(&disk, &name(3), |bytes| {
            bytes[at..at + 32].copy_from_slice(&head.encode(salt, at as u64));
        });
        println!("{what}:");
        refuses(&disk, Row::C, ErrorKind::Corrupt);
    }
}

#[test]
fn row_c_bytes_after_a_seal_are_corruption() {
    let (disk, _) = filled(1);
    // Row A' wrote the seal; then the machine died before the next segment had its first byte.
    drop(open(&disk).unwrap());
    let disk = disk.copied();
    edit(&disk, &name(4), |bytes| bytes[128..].fill(0));
    assert_eq!(row(&disk), (Row::APrime, true), "a seal is an end like any other");
    edit(&disk, &name(3), |bytes| bytes[40_000] = 1);
    refuses(&disk, Row::C, ErrorKind::Corrupt);
}

#[test]
fn row_c_a_snapshot_beyond_the_end_is_corruption() {
    let (disk, _) = filled(1);
    let head = SnapshotHeader {
        log_id: header(&disk, 1).log_id,
        lsn: Lsn::new(99).unwrap(),
        generation: Generation(1),
    };
    disk.create("registry-99.snap").unwrap();
    disk.set_bytes("registry-99.snap", head.encode().to_vec());
    refuses(&disk, Row::C, ErrorKind::Corrupt);
}

#[test]
fn row_d_a_segment_never_in_use_with_a_bad_header_is_removed() {
    let (disk, mut model) = filled(1);
    disk.create(&name(4)).unwrap();
    disk.set_bytes(&name(4), vec![0; 64 << 10]);
    assert_eq!(row(&disk), (Row::APrime, true));
    let log = open(&disk).unwrap();
    model.check(&log).unwrap();
}

#[test]
fn row_d_prime_a_bad_header_before_data_is_corruption() {
    for sequence in 1..=3 {
        let (disk, _) = filled(1);
        edit(&disk, &name(sequence), |bytes| bytes[60] ^= 1);
        refuses(&disk, Row::DPrime, ErrorKind::Corrupt);
    }
}

#[test]
fn row_e_a_sealed_segment_must_end_as_its_successor_says() {
    let (disk, _) = filled(1);
    let (seal, head) = *frames(&disk, 1).last().unwrap();
    assert_eq!(head.kind, format::KIND_SEAL);
    for at in [seal, seal + 8, seal + 40] {
        let damaged = disk.crash(Keep::Everything);
        edit(&damaged, &name(1), |bytes| bytes[at] ^= 1);
        refuses(&damaged, Row::E, ErrorKind::Corrupt);
    }
}

#[test]
fn row_f_a_newer_version_is_unsupported_and_not_corrupt() {
    for sequence in 1..=3 {
        let (disk, _) = filled(1);
        edit(&disk, &name(sequence), |bytes| {
            bytes[8] = 2;
            let crc = format::crc32(&bytes[..124]);
            bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        });
        refuses(&disk, Row::F, ErrorKind::Unsupported);
    }
}

#[test]
fn row_f_an_unknown_flag_or_own_kind_is_unsupported() {
    for (flags, kind) in [(4, 0), (0, 0x8777)] {
        let (disk, _) = filled(1);
        let disk = disk.copied();
        let (at, mut head) = *frames(&disk, 3).last().unwrap();
        let salt = header(&disk, 3).salt;
        (head.flags, head.kind) = (flags, kind);
        edit(&disk, &name(3), |bytes| {
            bytes[at..at + 32].copy_from_slice(&head.encode(salt, at as u64));
        });
        refuses(&disk, Row::F, ErrorKind::Unsupported);
    }
}

#[test]
fn row_g_a_missing_segment_is_named() {
    for sequence in 1..=2 {
        let (disk, _) = filled(1);
        disk.lose(&name(sequence));
        refuses(&disk, Row::G, ErrorKind::Corrupt);
    }
}

#[test]
fn row_g_the_loss_of_the_last_segment_is_seen_while_the_control_block_is_trusted() {
    let (disk, _) = filled(1);
    disk.lose(&name(3));
    refuses(&disk, Row::G, ErrorKind::Corrupt);
    // The residue that the documents admit: without the block it looks like a crash at rotation.
    assert_eq!(row(&disk.copied()), (Row::APrime, true));
}

#[test]
fn row_g_foreign_and_renamed_segments_are_refused() {
    let (disk, _) = filled(1);
    let (other, _) = filled(1);
    let foreign = other.crash(Keep::Everything);
    edit(&foreign, &name(2), |bytes| {
        bytes[24] ^= 1;
        let crc = format::crc32(&bytes[..124]);
        bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    });
    refuses(&foreign, Row::G, ErrorKind::Corrupt);
    let copy = disk.bytes(&name(1)).unwrap();
    disk.set_bytes(&name(2), copy);
    refuses(&disk, Row::G, ErrorKind::Corrupt);
}

#[test]
fn row_h_leftovers_go_and_a_spare_is_used() {
    let (disk, mut model) = filled(1);
    // Segment 4 prepared by a session that died before using it, and a broken preparation.
    let log = open(&disk).unwrap();
    model.check(&log).unwrap();
    log.close().unwrap();
    let mut spare = header(&disk, 4);
    spare.sequence = Sequence::new(5).unwrap();
    spare.salt ^= 77;
    disk.create(&name(5)).unwrap();
    let mut bytes = spare.encode().to_vec();
    bytes.resize(64 << 10, 0);
    disk.set_bytes(&name(5), bytes);
    disk.create("00000000000000000006.wal.tmp").unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(log.recovery().row, Row::A);
    assert!(!disk.names().iter().any(|name| name.ends_with(".tmp")));
    for _ in 0..2 {
        model.append(&log, 1, 30_000).unwrap();
    }
    assert_eq!(header(&disk, 5).salt, spare.salt, "the spare was used, not replaced");
    log.close().unwrap();
    model.check(&open(&disk).unwrap()).unwrap();
}

#[test]
fn a_directory_with_an_archive_manifest_is_never_opened_for_writing() {
    let (disk, _) = filled(1);
    disk.create("ARCHIVE").unwrap();
    assert_eq!(open(&disk).unwrap_err().kind(), ErrorKind::Archived);
}

#[test]
fn files_of_a_log_without_a_segment_are_not_taken_for_an_empty_directory() {
    let (disk, _) = filled(0);
    for sequence in 1..=3 {
        disk.lose(&name(sequence));
    }
    let error = open(&disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn foreign_names_are_never_opened() {
    let (disk, mut model) = filled(1);
    for foreign in ["README", "1.wal", "000000000000000000001.wal", "x.wal.tmp", "LOCK2"] {
        disk.create(foreign).unwrap();
    }
    model.check(&open(&disk).unwrap()).unwrap();
    assert!(disk.open("README", Access::Read).is_ok());
    assert_ne!(LogId([0; 16]), header(&disk, 1).log_id);
}

/// A file with these bytes, whether there was one of the name or not.
fn put(disk: &MemDir, name: &str, bytes: Vec<u8>) {
    if !disk.names().iter().any(|there| there == name) {
        disk.create(name).unwrap();
    }
    disk.set_bytes(name, bytes);
}

/// A row, the segment and the LSNs that it names.
type Accused = (Row, Option<Sequence>, Option<(Lsn, Lsn)>);

/// As an inspector judges an archive: what its refusal says, or `None` where only the manifest forbids
/// to write.
fn as_archive(disk: &MemDir) -> Option<Accused> {
    put(disk, format::ARCHIVE_NAME, b"{}".to_vec());
    match decide(&Facts::read(&disk.clone()).unwrap()) {
        Decision::Refuse(refusal) if refusal.kind == RefusalKind::Archived => None,
        Decision::Refuse(refusal) => {
            Some((refusal.row, refusal.location.segment, refusal.location.lsns))
        }
        Decision::Plan(plan) => panic!("an archive was planned to be written: {plan:?}"),
    }
}

/// A prepared segment: the header that follows from this one's, and zeros.
fn prepare(disk: &MemDir, below: u64, sequence: u64) -> Vec<u8> {
    let below = header(disk, below);
    let own =
        SegmentHeader { sequence: Sequence::new(sequence).unwrap(), salt: !below.salt, ..below };
    let mut bytes = own.encode().to_vec();
    bytes.resize(below.capacity as usize, 0);
    put(disk, &name(sequence), bytes.clone());
    bytes
}

/// Rows F, G and D' come before E: a segment in which nothing stands hides nothing that is worse.
#[test]
fn row_e_of_an_archive_comes_after_f_g_and_d_prime() {
    let told = |harm: fn(&MemDir)| {
        let (disk, _) = filled(2);
        prepare(&disk, 3, 4);
        harm(&disk);
        as_archive(&disk).map(|(row, segment, _)| (row, segment.unwrap().get()))
    };
    assert_eq!(told(|_| ()), Some((Row::E, 4)));
    assert_eq!(told(|disk| edit(disk, &name(1), |bytes| bytes[45] ^= 8)), Some((Row::DPrime, 1)));
    let other = |disk: &MemDir| {
        let (other, _) = closed();
        put(disk, &name(2), other.bytes(&name(1)).unwrap());
    };
    assert_eq!(told(other), Some((Row::G, 2)));
    let newer = |disk: &MemDir| {
        let (salt, (at, last)) = (header(disk, 3).salt, *frames(disk, 3).last().unwrap());
        let newer = FrameHeader { kind: 0x80FF, ..last };
        edit(disk, &name(3), |bytes| {
            bytes[at..at + 32].copy_from_slice(&newer.encode(salt, at as u64));
        });
    };
    assert_eq!(told(newer), Some((Row::F, 3)));
}

/// What a manifest was put into after a clean end has its prepared segment still: nothing is missing.
#[test]
fn a_spare_behind_a_close_record_is_nothing_missing_from_an_archive() {
    let (disk, _) = closed();
    let disk = &disk;
    let last = disk.names().iter().filter(|name| name.ends_with(".wal")).count() as u64;
    assert_eq!(as_archive(disk), None);
    let whole = prepare(disk, last, last + 1);
    assert_eq!(as_archive(disk), None);
    // One of another size is none; a second one was never prepared, nor one that leaves a number out.
    put(disk, &name(last + 1), whole[..4096].to_vec());
    assert_eq!(as_archive(disk).map(|(row, ..)| row), Some(Row::E));
    put(disk, &name(last + 1), whole);
    prepare(disk, last, last + 2);
    assert_eq!(as_archive(disk).map(|(row, ..)| row), Some(Row::E));
    disk.lose(&name(last + 1));
    assert_eq!(as_archive(disk).map(|(row, ..)| row), Some(Row::E));
    // Behind an end that is no close nothing says that the records ended there.
    let (disk, _) = filled(2);
    prepare(&disk, 3, 4);
    assert_eq!(as_archive(&disk).map(|(row, segment, _)| (row, segment)), {
        Some((Row::E, Sequence::new(4)))
    });
}

/// Of an active segment whose open record is hurt nothing tells where it began: LSN 1 it was not.
#[test]
fn the_lsns_of_an_empty_segment_are_told_by_the_last_one_that_knows() {
    let (disk, _) = filled(2);
    prepare(&disk, 3, 4);
    let before = frames(&disk, 2).last().unwrap().1.lsn;
    edit(&disk, &name(3), |bytes| bytes[128 + 40] ^= 8);
    let (row, segment, lsns) = as_archive(&disk).unwrap();
    assert_eq!((row, segment.unwrap().get()), (Row::E, 4));
    assert_eq!(lsns.map(|(low, _)| low.get()), Some(before + 1));
}
