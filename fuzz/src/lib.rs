//! The bodies of the fuzz targets: any bytes give a verdict or a typed error, never a panic, a
//! hang or wrong data.
//!
//! Never here: randomness. Each body is a function of its bytes, so that a saved input is a test
//! (`tests/corpus.rs`). Where a checksum would stop every mutation at the door, the body mends it.

use annals_wal::format::{
    self, Control, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, HeaderVerdict, OwnBody,
    SEGMENT_HEADER_LEN, SegmentHeader, SnapshotHeader,
};
use annals_wal::fs::Dir;
use annals_wal::fs::mem::MemDir;
use annals_wal::inspect::{Depth, inspect_in};
use annals_wal::scan::{Step, Walker};
use annals_wal::survey::Survey;
use annals_wal::{Codec, Kind, LogId, LogReader, Lsn, Options, Sequence, StoredRecord, Stream};

/// Every decoder of the format on the same bytes.
pub fn decode(bytes: &[u8]) {
    let _ = SegmentHeader::decode(bytes);
    let _ = Control::decode(bytes);
    let _ = SnapshotHeader::decode(bytes);
    if let Ok(body) = OwnBody::decode(bytes) {
        // What was understood must survive being written again.
        assert_eq!(OwnBody::decode(&body.encode()).ok(), Some(body));
    }
    if let Some(head) = bytes.first_chunk::<FRAME_HEADER_LEN>() {
        for offset in [128, 1 << 20, u64::from(u32::MAX) * 8] {
            let _ = FrameHeader::decode(head, 7, offset);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = format::parse_name(text);
    }
}

/// A segment of any bytes: the walk ends, moves forward, and stays inside the file.
pub fn scan(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else { return };
    let mut file = rest.to_vec();
    let header = mend_header(&mut file, 1);
    if mode & 1 == 1 {
        mend_frames(&mut file, &header);
    }
    let mut walker = Walker::new(file.as_slice(), &header);
    let (mut steps, mut at) = (0usize, 0);
    while let Some(step) = walker.step().expect("memory does not fail") {
        steps += 1;
        assert!(steps <= file.len() / 8 + 2, "more steps than places");
        match step {
            Step::Frame(frame) => {
                assert!(frame.offset >= at && frame.offset < file.len() as u64);
                at = frame.offset + 8;
                if frame.trouble.is_none() {
                    let payload = walker.payload(&frame).expect("a sound frame has its payload");
                    assert_eq!(format::crc32(payload), frame.header.payload_crc);
                }
            }
            Step::Unreadable { from, to, .. } | Step::Zeros { from, to } => {
                assert!(from >= at && to >= from);
                at = to;
            }
        }
    }
    let survey = Survey::of(file.as_slice(), &header).expect("memory does not fail");
    assert!(survey.kept.end <= FRAMES_START.max(file.len() as u64));
}

/// A directory of up to three segments of any bytes: inspected, read, opened. A refused opening
/// changes nothing; an accepted one can append and be read.
pub fn directory(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else { return };
    let disk = MemDir::new(u64::from(mode));
    disk.make().expect("memory does not fail");
    let count = 1 + usize::from(mode & 1) + usize::from(mode & 2 == 2);
    for (index, part) in rest.chunks(rest.len().div_ceil(count).max(1)).take(count).enumerate() {
        let sequence = Sequence::new(index as u64 + 1).expect("from 1");
        let mut file = part.to_vec();
        if mode & 4 == 4 {
            let header = mend_header(&mut file, sequence.get());
            if mode & 8 == 8 {
                mend_frames(&mut file, &header);
            }
        }
        let name = format::segment_name(sequence);
        disk.create(&name).expect("memory does not fail");
        disk.set_bytes(&name, file);
    }
    let report = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ());
    if let Ok(reader) = LogReader::open_in(disk.dir()) {
        for reader in [reader.clone(), reader.unproven(true)] {
            if let Ok(records) = reader.range(..) {
                check_order(records);
            }
        }
    }
    let before = contents(&disk);
    match Options::new().segment_bytes(64 << 10).open_in(disk.dir()) {
        Ok(log) => {
            assert!(report.is_ok() || before.is_empty(), "opened, but not to be inspected");
            let last = log.durable_lsn();
            let lsn = log.append("after").expect("an opened log takes a record");
            assert_eq!(
                Some(lsn.get()),
                last.map_or(1, Lsn::get).checked_add(u64::from(last.is_some()))
            );
            check_order(log.range(..).expect("its own records can be read"));
        }
        Err(error) if error.kind() != annals_wal::ErrorKind::Io => {
            assert!(contents(&disk) == before, "a refused opening changed a file: {error}");
        }
        Err(_) => {}
    }
}

/// The decoders of the rooms above, on any payload.
pub fn payloads(bytes: &[u8]) {
    let kinds = [0x0100, 0x0201, 0x0206, 0x020D, 0x02FF];
    let Some((&pick, payload)) = bytes.split_first() else { return };
    let kind = Kind::new(kinds[usize::from(pick) % kinds.len()]).expect("no own kind");
    let record = StoredRecord {
        lsn: Lsn::FIRST,
        kind,
        stream: Stream(u32::from(pick)),
        codec: Codec::BINCODE,
        payload: payload.to_vec(),
    };
    if let Ok(Some(entry)) = annals_observer::decode_record(&record) {
        let _ = annals_observer::encode_entry(&entry);
    }
    let _ = annals_registry::decode_transaction(Lsn::FIRST, payload);
}

fn check_order(records: annals_wal::Records) {
    let mut last: Option<u64> = None;
    for record in records {
        let Ok(record) = record else { return };
        assert!(last.is_none_or(|last| record.lsn.get() == last + 1), "LSNs are dense");
        last = Some(record.lsn.get());
    }
}

fn contents(disk: &MemDir) -> Vec<(String, Vec<u8>)> {
    let names = disk.names().into_iter().filter(|name| name != format::LOCK_NAME);
    names.map(|name| (name.clone(), disk.bytes(&name).unwrap_or_default())).collect()
}

/// Puts a sound header in front: capacity and salt from the bytes, as far as they can be.
fn mend_header(file: &mut Vec<u8>, sequence: u64) -> SegmentHeader {
    let header = match SegmentHeader::decode(file) {
        HeaderVerdict::Good(header) => header,
        _ => {
            let byte = file.first().copied().unwrap_or(0);
            SegmentHeader {
                compatible: 0,
                log_id: LogId([9; 16]),
                sequence: Sequence::new(sequence).expect("from 1"),
                capacity: (64 << 10) + 4096 * u64::from(byte & 3),
                salt: u32::from(byte),
                created_ms: 0,
            }
        }
    };
    file.resize(file.len().max(SEGMENT_HEADER_LEN), 0);
    file[..SEGMENT_HEADER_LEN].copy_from_slice(&header.encode());
    header
}

/// Makes the checksums of the frames hold, so that what lies behind them is reached.
fn mend_frames(file: &mut [u8], header: &SegmentHeader) {
    let mut at = SEGMENT_HEADER_LEN;
    while at + FRAME_HEADER_LEN <= file.len() {
        let head = &file[at..at + FRAME_HEADER_LEN];
        if head.iter().all(|byte| *byte == 0) {
            return;
        }
        let u32_at =
            |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let len = u32_at(16);
        let mut lsn = [0; 8];
        lsn.copy_from_slice(&head[8..16]);
        let mut frame = FrameHeader {
            payload_crc: u32_at(4),
            lsn: u64::from_le_bytes(lsn),
            len,
            durable_lag: u32_at(20),
            stream: u32_at(24),
            kind: u16::from_le_bytes([head[28], head[29]]),
            flags: head[30],
            codec: head[31],
        };
        let body = at + FRAME_HEADER_LEN;
        if let Some(payload) = file.get(body..body.saturating_add(len as usize)) {
            frame.payload_crc = format::crc32(payload);
        }
        file[at..body].copy_from_slice(&frame.encode(header.salt, at as u64));
        at = at.saturating_add(frame.frame_size() as usize);
    }
}
