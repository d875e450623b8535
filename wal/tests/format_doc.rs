//! `docs/FORMAT.md` and `format.rs` say the same. The page's worked example is built here and
//! compared byte for byte; the page's own bytes, not the built log's, are then decoded and
//! compared with what its tables state; its offset tables are laid over what the encoders write.
//!
//! If the example changes on purpose, the failing test prints the blocks to paste.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeMap;
use std::fmt::Write;

use annals_wal::format::{
    self, Control, Digest, FrameHeader, HeaderVerdict, Hold, Identity, IndexBlock, OwnBody,
    SealBody, SealReference, SegmentHeader, SnapshotHeader, kind_pages,
};
use annals_wal::fs::mem::MemDir;
use annals_wal::{
    Batch, Codec, ErrorKind, Generation, Kind, LogId, Lsn, Options, Record, Sequence, Stream,
};

const PAGE: &str = include_str!("../../docs/FORMAT.md");

const FIRST: &str = "00000000000000000001.wal";
const SECOND: &str = "00000000000000000002.wal";

// ---------------------------------------------------------------------------------------------
// The worked example

/// One `hex` block of the page: which bytes of which file it shows.
struct Shown {
    /// The command in its first line.
    command: String,
    /// Of the file in full.
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

/// The log of the page, closed; and the same one killed instead of closed, and opened again.
fn example() -> (MemDir, MemDir) {
    let open = |disk: &MemDir| Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    let closed = MemDir::new(7);
    let log = open(&closed);
    let record = Record::new(r#"{"tool":"ls"}"#)
        .kind(Kind::new(0x1000).unwrap())
        .stream(Stream(7))
        .codec(Codec::JSON);
    log.append(record).unwrap();
    let mut batch = Batch::new();
    batch.push("both");
    batch.push("or neither");
    log.append_batch(batch).unwrap();
    let killed = closed.killed();
    log.close().unwrap();
    drop(open(&killed));
    (closed, killed)
}

fn shown() -> Vec<Shown> {
    let (closed, killed) = example();
    let part = |disk: &MemDir, name: &str, from: usize, len: Option<usize>| {
        let bytes = disk.bytes(name).unwrap();
        let (options, to) = match len {
            Some(len) => (format!("-s {from} -n {len} "), from + len),
            None => (String::new(), bytes.len()),
        };
        Shown { command: format!("$ hexdump -C {options}{name}"), bytes, from, to }
    };
    let seal = frames_of(&killed.bytes(FIRST).unwrap(), salt_of(&killed, FIRST), 128);
    let (at, seal) = *seal.last().unwrap();
    let open = frames_of(&killed.bytes(SECOND).unwrap(), salt_of(&killed, SECOND), 128);
    vec![
        part(&closed, FIRST, 0, None),
        part(&closed, format::CONTROL_NAME, 0, None),
        part(&killed, FIRST, at, Some(seal.frame_size() as usize)),
        part(&killed, SECOND, 128, Some(open[0].1.frame_size() as usize)),
    ]
}

fn salt_of(disk: &MemDir, name: &str) -> u32 {
    good(&disk.bytes(name).unwrap()).salt
}

fn good(bytes: &[u8]) -> SegmentHeader {
    match SegmentHeader::decode(bytes) {
        HeaderVerdict::Good(header) => header,
        other => panic!("{other:?}"),
    }
}

/// Sound frames from an offset on, until there is none.
fn frames_of(bytes: &[u8], salt: u32, from: usize) -> Vec<(usize, FrameHeader)> {
    let mut frames = Vec::new();
    let mut at = from;
    while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let Some(header) = FrameHeader::decode(head, salt, at as u64) else { break };
        frames.push((at, header));
        at += header.frame_size() as usize;
    }
    frames
}

/// What `hexdump -C` prints: rows of 16 bytes, a run of equal rows as one `*`, the end.
fn hexdump(shown: &Shown) -> String {
    let mut out = format!("{}\n", shown.command);
    let mut before: Option<&[u8]> = None;
    let mut starred = false;
    for (index, row) in shown.bytes[shown.from..shown.to].chunks(16).enumerate() {
        if before == Some(row) {
            if !starred {
                out.push_str("*\n");
            }
            starred = true;
            continue;
        }
        (before, starred) = (Some(row), false);
        let mut hex = String::new();
        for (column, byte) in row.iter().enumerate() {
            let gap = if column == 8 { " " } else { "" };
            write!(hex, "{gap}{byte:02x} ").unwrap();
        }
        let printable = |b: &u8| if (32..127).contains(b) { char::from(*b) } else { '.' };
        let text: String = row.iter().map(printable).collect();
        writeln!(out, "{:08x}  {hex:<50}|{text}|", shown.from + index * 16).unwrap();
    }
    writeln!(out, "{:08x}", shown.to).unwrap();
    out
}

/// The page's `hex` blocks, as text.
fn blocks() -> Vec<&'static str> {
    PAGE.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The bytes that a block shows, and the offset of the first.
fn read_block(block: &str) -> (usize, Vec<u8>) {
    let mut lines = block.lines();
    lines.next().filter(|line| line.starts_with("$ hexdump -C ")).expect("the command");
    let mut bytes: Vec<u8> = Vec::new();
    let (mut from, mut starred) = (None, false);
    for line in lines {
        if line == "*" {
            starred = true;
            continue;
        }
        let at = usize::from_str_radix(&line[..8], 16).unwrap();
        let from = *from.get_or_insert(at);
        if starred {
            let row = bytes[bytes.len() - 16..].to_vec();
            while bytes.len() < at - from {
                bytes.extend(&row);
            }
            starred = false;
        }
        assert_eq!(bytes.len(), at - from, "a row is missing before {line}");
        let hex = line[8..].split('|').next().unwrap();
        bytes.extend(hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    (from.unwrap(), bytes)
}

#[test]
fn the_pages_bytes_are_the_bytes_that_are_written() {
    let want: Vec<String> = shown().iter().map(hexdump).collect();
    if blocks() != want {
        for block in &want {
            println!("```hex\n{block}```\n");
        }
        panic!("the hex blocks of docs/FORMAT.md are not these: paste them there");
    }
}

/// What an own record says, in the words of the page's tables.
fn describe(body: &OwnBody) -> String {
    let mut parts = Vec::new();
    parts.extend(body.generation.map(|generation| format!("generation {generation}")));
    parts.extend(body.head.map(|head| format!("head {head}")));
    parts.extend(body.holds.iter().map(|hold| format!("hold {} {}", hold.name, hold.lsn)));
    if let Some(previous) = &body.previous {
        let digest = describe_digest(&previous.digest);
        parts.push(format!("previous {} {} {digest}", previous.sequence, previous.offset));
    }
    parts.extend(body.times_ms.map(|(first, last)| format!("times {first} {last}")));
    if let Some(seal) = &body.seal {
        parts.push(format!("count {}", seal.count));
        parts.extend(seal.lsns.map(|(first, last)| format!("lsns {first} {last}")));
        parts.push(format!("segment {:#010x}", seal.salt));
        parts.push(format!("digest {}", describe_digest(&seal.digest)));
    }
    for block in body.index.iter().flat_map(|index| format::decode_index(index).unwrap()) {
        parts.push(format!("index block at {} LSN +{}", block.offset(), block.lsn_delta));
    }
    parts.join(", ")
}

fn describe_digest(digest: &Digest) -> String {
    let hex: String = digest.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}:{hex}", digest.algorithm)
}

/// A frame as the page's tables give it; `bytes` begin with its header.
fn row_of(place: &str, header: &FrameHeader, bytes: &[u8], payload: &[u8]) -> String {
    let crc = u32::from_le_bytes(*bytes.first_chunk().unwrap());
    let what = if header.is_own() {
        tags_of(header.kind).0.to_owned()
    } else {
        format!("`{}`", std::str::from_utf8(payload).unwrap())
    };
    format!(
        "| {place} | {crc:08x} | {:08x} | {} | {} | {} | {} | {:#06x} | {} | {} | {what} |",
        header.payload_crc,
        header.lsn,
        header.len,
        header.durable_lag,
        header.stream,
        header.kind,
        header.flags,
        header.codec,
    )
}

/// The page must say this, wherever its lines are broken.
fn states(what: &str) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(PAGE).contains(&words(what)), "the page does not state this:\n{what}");
}

/// Every frame in a block of the page, decoded from the page, is the row the page states.
fn check_frames(segment: u64, salt: u32, from: usize, bytes: &[u8], offset: usize, count: usize) {
    // Offsets in a block count from the start of the file.
    let mut whole = vec![0; offset];
    whole.extend(bytes);
    let frames = frames_of(&whole, salt, from);
    assert_eq!(frames.len(), count, "frames of segment {segment} from {from} on");
    for (at, header) in frames {
        let payload = &whole[at + 32..at + 32 + header.len as usize];
        assert_eq!(format::crc32(payload), header.payload_crc, "payload at {at}");
        let end = at + header.frame_size() as usize;
        assert!(whole[at + 32 + payload.len()..end].iter().all(|byte| *byte == 0), "padding");
        let place = format!("{segment}:{at}");
        states(&row_of(&place, &header, &whole[at..], payload));
        let crc = zlib_crc32(&whole[at + 4..at + 32], salt ^ (at as u32 / 8));
        assert_eq!(crc.to_le_bytes(), whole[at..at + 4], "the page's rule for the header checksum");
        if header.is_own() {
            let body = OwnBody::decode(payload).unwrap();
            let name = tags_of(header.kind).0;
            states(&format!("- {place}, {name}: {}", describe(&body)));
            check_tags(header.kind, payload);
        }
    }
}

#[test]
fn every_frame_of_the_page_is_what_the_page_says_it_is() {
    let blocks: Vec<_> = blocks().into_iter().map(read_block).collect();
    let [(_, closed), (_, control), (seal_at, seal), (_, second)] = blocks.as_slice() else {
        panic!("{} hex blocks", blocks.len());
    };
    let first = good(closed);
    states(&format!(
        "segment {}: log id {}, capacity {}, salt {:#010x}, created {}",
        first.sequence, first.log_id, first.capacity, first.salt, first.created_ms
    ));
    let (_, salt) = PAGE.split_once("segment 2: salt 0x").unwrap();
    let salt = u32::from_str_radix(&salt[..8], 16).unwrap();
    assert_eq!(closed.len() as u64, first.capacity);
    check_frames(1, first.salt, 128, closed, 0, 5);
    check_frames(1, first.salt, *seal_at, seal, *seal_at, 1);
    check_frames(2, salt, 128, second, 128, 1);
    let control = Control::decode(control).unwrap();
    states(&format!(
        "generation {}, own inode {} born {}, segment inode {} born {}, sequence {}, \
         durable end {}, durable LSN {}, pid {}, marks {}",
        control.generation,
        control.own.inode,
        control.own.born_ns,
        control.segment.inode,
        control.segment.born_ns,
        control.sequence,
        control.durable_end,
        control.durable_lsn,
        control.pid,
        control.marks
    ));
    assert_eq!(control.log_id, first.log_id);
}

/// The seal's digest, from the page's own bytes by the page's own rule.
#[test]
fn the_seals_digest_is_over_the_headers_before_it() {
    let blocks: Vec<_> = blocks().into_iter().map(read_block).collect();
    let (closed, (seal_at, seal)) = (&blocks[0].1, &blocks[2]);
    let mut headers = Vec::new();
    for (at, _) in frames_of(closed, good(closed).salt, 128) {
        if at < *seal_at {
            headers.extend(&closed[at..at + 32]);
        }
    }
    let header = FrameHeader::decode(seal.first_chunk().unwrap(), good(closed).salt, 328).unwrap();
    let body = OwnBody::decode(&seal[32..32 + header.len as usize]).unwrap();
    let digest = body.seal.unwrap().digest;
    assert_eq!(digest.algorithm, format::DIGEST_CRC32);
    assert_eq!(digest.bytes, zlib_crc32(&headers, 0).to_le_bytes());
}

// ---------------------------------------------------------------------------------------------
// The tables

/// The rows of the first table after a heading, cells trimmed of blanks and backticks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, after) = PAGE.split_once(&format!("\n{heading}\n")).expect(heading);
    let lines = after.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect()
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap_or_else(|_| panic!("{text:?} is no number")),
    }
}

/// CRC-32 as zlib has it, bit by bit: what a stranger would write from the page.
fn zlib_crc32(bytes: &[u8], seed: u32) -> u32 {
    !bytes.iter().fold(!seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

/// Lays fields out as an offset table (`offset`, `length`, `field`, ...) says. Every byte of the
/// table must belong to exactly one row, and every field must be in it.
fn lay_out(heading: &str, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut fields: BTreeMap<_, _> = fields.iter().copied().collect();
    let mut out = Vec::new();
    for row in table(heading) {
        let (offset, length, field) = (number(&row[0]), number(&row[1]), row[2].as_str());
        assert_eq!(offset, out.len() as u64, "{heading}: rows must follow each other");
        match field {
            "zero" => out.resize(out.len() + length as usize, 0),
            _ => {
                let value = fields.remove(field).unwrap_or_else(|| panic!("{heading}: {field}"));
                assert_eq!(value.len() as u64, length, "{heading}: {field}");
                out.extend_from_slice(value);
            }
        }
    }
    assert!(fields.is_empty(), "{heading} lacks {fields:?}");
    out
}

/// The checksum over all but the last four bytes stands in these.
fn with_crc_last(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 4;
    let crc = zlib_crc32(&bytes[..at], 0);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The magic in the page: hexadecimal bytes.
fn magic(heading: &str) -> Vec<u8> {
    let rows = table(heading);
    let hex = rows[0][3].split('`').next().unwrap().trim();
    hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

const LOG_ID: LogId = LogId(*b"sixteen bytes ..");

#[test]
fn the_segment_headers_table_is_what_the_encoder_writes() {
    let header = SegmentHeader {
        shared: false,
        compatible: 0x0102_0304,
        log_id: LOG_ID,
        sequence: Sequence::new(0x1112_1314_1516_1718).unwrap(),
        capacity: 0x0000_0003_2123_4000,
        salt: 0x3132_3334,
        created_ms: 0x4142_4344_4546_4748,
    };
    let heading = "### Segment header";
    let bytes = lay_out(
        heading,
        &[
            ("magic", &magic(heading)),
            ("version", &1u16.to_le_bytes()),
            ("header_len", &128u16.to_le_bytes()),
            ("incompatible", &0u32.to_le_bytes()),
            ("compatible", &header.compatible.to_le_bytes()),
            ("log_id", &LOG_ID.0),
            ("sequence", &header.sequence.get().to_le_bytes()),
            ("capacity", &header.capacity.to_le_bytes()),
            ("salt", &header.salt.to_le_bytes()),
            ("created_ms", &header.created_ms.to_le_bytes()),
            ("header_crc", &[0; 4]),
        ],
    );
    assert_eq!(with_crc_last(bytes), header.encode());
}

#[test]
fn the_frame_headers_table_is_what_the_encoder_writes() {
    let header = FrameHeader {
        payload_crc: 0x0102_0304,
        lsn: 0x1112_1314_1516_1718,
        len: 0x2122_2324,
        durable_lag: 0x3132_3334,
        stream: 0x4142_4344,
        kind: 0x5152,
        flags: 0x61,
        codec: 0x71,
    };
    let (salt, offset) = (0x8182_8384u32, 0x0007_0000_0008u64);
    let mut bytes = lay_out(
        "### Frame header",
        &[
            ("header_crc", &[0; 4]),
            ("payload_crc", &header.payload_crc.to_le_bytes()),
            ("lsn", &header.lsn.to_le_bytes()),
            ("len", &header.len.to_le_bytes()),
            ("durable_lag", &header.durable_lag.to_le_bytes()),
            ("stream", &header.stream.to_le_bytes()),
            ("kind", &header.kind.to_le_bytes()),
            ("flags", &[header.flags]),
            ("codec", &[header.codec]),
        ],
    );
    let crc = zlib_crc32(&bytes[4..], salt ^ (offset / 8) as u32);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(bytes, header.encode(salt, offset));
    assert_eq!(FrameHeader::decode(&[0; 32], salt, offset), None);
}

#[test]
fn the_control_blocks_table_is_what_the_encoder_writes() {
    let control = Control {
        log_id: LOG_ID,
        generation: Generation(0x0101),
        own: Identity { inode: 0x0202, born_ns: 0x0303 },
        segment: Identity { inode: 0x0404, born_ns: 0x0505 },
        sequence: 0x0606,
        durable_end: 0x0707,
        durable_lsn: 0x0808,
        pid: 0x0909,
        marks: 0x0A0A,
    };
    let heading = "## 6. The control block";
    let bytes = lay_out(
        heading,
        &[
            ("magic", &magic(heading)),
            ("version", &1u16.to_le_bytes()),
            ("log_id", &LOG_ID.0),
            ("generation", &control.generation.0.to_le_bytes()),
            ("own_inode", &control.own.inode.to_le_bytes()),
            ("own_born_ns", &control.own.born_ns.to_le_bytes()),
            ("segment_inode", &control.segment.inode.to_le_bytes()),
            ("segment_born_ns", &control.segment.born_ns.to_le_bytes()),
            ("sequence", &control.sequence.to_le_bytes()),
            ("durable_end", &control.durable_end.to_le_bytes()),
            ("durable_lsn", &control.durable_lsn.to_le_bytes()),
            ("pid", &control.pid.to_le_bytes()),
            ("marks", &control.marks.to_le_bytes()),
            ("crc", &[0; 4]),
        ],
    );
    assert_eq!(with_crc_last(bytes), control.encode());
}

#[test]
fn the_snapshot_headers_table_is_what_the_encoder_writes() {
    let header = SnapshotHeader {
        log_id: LOG_ID,
        lsn: Lsn::new(0x0101).unwrap(),
        generation: Generation(0x0202),
    };
    let heading = "## 7. The snapshot header";
    let bytes = lay_out(
        heading,
        &[
            ("magic", &magic(heading)),
            ("version", &1u16.to_le_bytes()),
            ("log_id", &LOG_ID.0),
            ("lsn", &header.lsn.get().to_le_bytes()),
            ("generation", &header.generation.0.to_le_bytes()),
            ("crc", &[0; 4]),
        ],
    );
    assert_eq!(with_crc_last(bytes), header.encode());
}

#[test]
fn the_tables_of_capacities_flags_kinds_and_codecs_are_the_constants() {
    for row in table("### Capacity and reserve") {
        let cells: Vec<u64> = row.iter().map(|cell| number(cell)).collect();
        let header = SegmentHeader {
            shared: false,
            compatible: 0,
            log_id: LOG_ID,
            sequence: Sequence::FIRST,
            capacity: cells[0],
            salt: 0,
            created_ms: 0,
        };
        assert_eq!(format::check_capacity(cells[0]), Ok(()));
        let want =
            [format::reserve_bytes(cells[0]), header.records_end(), header.own_records_end()];
        assert_eq!(cells[1..], want);
    }
    let capacities: Vec<_> =
        table("### Capacity and reserve").iter().map(|row| number(&row[0])).collect();
    assert_eq!(capacities.first(), Some(&format::CAPACITY_MIN));
    assert_eq!(capacities.last(), Some(&format::CAPACITY_MAX));

    let rows = table("### Flags, kinds, codecs");
    let stated = |field: &str| -> Vec<(&str, &str)> {
        let of_field = rows.iter().filter(|row| row[0] == field);
        of_field.map(|row| (row[1].as_str(), row[2].as_str())).collect()
    };
    let goes_on = format!("{:#04x}", format::FLAG_BATCH_GOES_ON);
    let first = format!("{:#04x}", format::FLAG_BATCH_FIRST);
    let flags = [(goes_on.as_str(), "goes on"), (first.as_str(), "first"), ("others", "")];
    assert_eq!(stated("flags"), flags);
    let codecs = [(Codec::RAW, "raw"), (Codec::BINCODE, "bincode"), (Codec::JSON, "JSON")];
    let codecs = codecs.map(|(codec, name)| (codec.0.to_string(), name));
    assert!(stated("codec").into_iter().eq(codecs.iter().map(|(n, name)| (n.as_str(), *name))));
    let kinds = stated("kind");
    for kind in OWN_KINDS {
        let number = format!("{kind:#06x}");
        assert!(kinds.contains(&(number.as_str(), tags_of(kind).0)), "{number}");
    }
    let unsupported = |kind: u16| {
        let header = FrameHeader {
            payload_crc: 0,
            lsn: 0,
            len: 0,
            durable_lag: 0,
            stream: 0,
            kind,
            flags: 0,
            codec: 0,
        };
        header.unsupported().is_some()
    };
    assert!(unsupported(0x8000) && unsupported(0x8005) && unsupported(0xBFFF));
    assert!(!unsupported(0xC000) && !unsupported(0x7FFF));
    assert!(kinds.contains(&("0xC000 to 0xFFFF", "ignorable")));
}

/// One body for each tag, and what the table says it is.
fn bodies() -> Vec<(&'static str, OwnBody, usize)> {
    let digest = Digest { algorithm: 1, bytes: vec![1, 2, 3, 4] };
    let lsn = Lsn::new(5).unwrap();
    let hold = Hold { name: "registry".to_owned(), lsn };
    let previous = SealReference { sequence: Sequence::FIRST, offset: 6, digest: digest.clone() };
    let empty = OwnBody::default;
    vec![
        ("generation", OwnBody { generation: Some(Generation(1)), ..empty() }, 0),
        ("head", OwnBody { head: Some(lsn), ..empty() }, 0),
        ("hold", OwnBody { holds: vec![hold], ..empty() }, "registry".len()),
        ("previous", OwnBody { previous: Some(previous), ..empty() }, 4),
        ("times", OwnBody { times_ms: Some((1, 2)), ..empty() }, 0),
        ("index", OwnBody { index: Some(vec![1; 8 + 5]), ..empty() }, 5),
    ]
}

const OWN_KINDS: [u16; 4] =
    [format::KIND_OPEN, format::KIND_SEAL, format::KIND_TRIM, format::KIND_CLOSE];

/// The name of an own kind, and its column in the table of tags.
fn tags_of(kind: u16) -> (&'static str, usize) {
    match kind {
        format::KIND_OPEN => ("open", 4),
        format::KIND_SEAL => ("seal", 5),
        format::KIND_TRIM => ("trim", 6),
        format::KIND_CLOSE => ("close", 7),
        other => panic!("{other:#06x}"),
    }
}

fn tags() -> BTreeMap<u16, Vec<String>> {
    table("### Tags").into_iter().map(|row| (number(&row[0]) as u16, row)).collect()
}

/// A length in the table: a number, or a number plus the `n` bytes of a name or digest.
fn length(cell: &str, n: usize) -> usize {
    match cell.strip_suffix(" + n") {
        Some(fixed) => number(fixed) as usize + n,
        None => number(cell) as usize,
    }
}

/// Tag and value of each field of a body.
fn fields(mut body: &[u8]) -> Vec<(u16, &[u8])> {
    let mut fields = Vec::new();
    while !body.is_empty() {
        let tag = u16::from_le_bytes(*body.first_chunk().unwrap());
        let len = u32::from_le_bytes(body[2..6].try_into().unwrap()) as usize;
        fields.push((tag, &body[6..6 + len]));
        body = &body[6 + len..];
    }
    fields
}

#[test]
fn the_table_of_tags_is_what_the_encoder_writes() {
    let tags = tags();
    let mut met = Vec::new();
    let mut check = |name: &str, tag: u16, value: &[u8], n: usize| {
        let row = &tags[&tag];
        assert_eq!(row[1], name, "tag {tag}");
        assert_eq!(value.len(), length(&row[2], n), "tag {tag}");
        met.push(tag);
    };
    for (name, body, n) in bodies() {
        let bytes = body.encode();
        let [(tag, value)] = fields(&bytes)[..] else { panic!("{name}") };
        check(name, tag, value, n);
        assert_eq!(OwnBody::decode(&bytes).unwrap(), body);
    }
    let seal = SealBody {
        count: 1,
        lsns: Some((Lsn::FIRST, Lsn::FIRST)),
        log_id: LOG_ID,
        salt: 2,
        digest: Digest { algorithm: 1, bytes: vec![1, 2, 3, 4] },
    };
    let bytes = OwnBody { seal: Some(seal), ..OwnBody::default() }.encode();
    for ((tag, value), name) in fields(&bytes).iter().zip(["count", "lsns", "segment", "digest"]) {
        check(name, *tag, value, 4);
    }
    met.sort_unstable();
    assert_eq!(met, tags.keys().copied().collect::<Vec<_>>());

    // Unknown tags: from 0x8000 on ignored, below it not ours to ignore.
    let unknown = |tag: u16| OwnBody::decode(&[&tag.to_le_bytes()[..], &[0; 4]].concat());
    assert_eq!(unknown(0x8000).unwrap(), OwnBody::default());
    for tag in [0, met.len() as u16, 0x7FFF] {
        assert_eq!(unknown(tag).unwrap_err().kind(), ErrorKind::Unsupported, "tag {tag}");
    }
}

/// A block of an index, with a list of tags and with a filter, by the page's words alone.
#[test]
fn the_index_is_laid_out_as_the_page_says() {
    let mut few = IndexBlock::new(128, 0);
    few.add(7, 0x1000);
    few.add(9, 0x0200);
    few.add(7, 0x00FF);
    let mut many = IndexBlock::new(65800, 300);
    (0..61).for_each(|tag| many.add(tag * 1_000_003, 0x01FF));
    let bytes = format::encode_index(&[few, many]);
    assert_eq!(format::decode_index(&bytes), Some(vec![few, many]));

    assert_eq!(bytes[..8], [1, 0, 0, 0, 2, 0, 0, 0]);
    let fields = table("### Index");
    let rows: Vec<_> = fields.iter().filter(|row| row[2] != "tags").collect();
    let field = |name: &str, block: &[u8]| {
        let row = rows.iter().find(|row| row[2] == name).unwrap();
        let (at, len) = (number(&row[0]) as usize, number(&row[1]) as usize);
        block[at..at + len].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let names = ["offset", "lsn", "kinds", "streams"];
    let (first, second) = bytes[8..].split_at(12 + 2 * 4);
    assert_eq!(names.map(|name| field(name, first)), [16, 0, 1 << 15 | 1 << 2 | 1, 2]);
    assert_eq!(first[12..], [7, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(names.map(|name| field(name, second)), [8225, 300, 2, 0xFFFF]);
    let mut filter = [0; 240];
    for tag in (0..61u64).map(|tag| tag * 1_000_003) {
        let h = u128::from(tag) * 0x9E37_79B9_7F4A_7C15 % (1 << 64);
        let (a, b) = (h >> 32, (h % (1 << 32)) | 1);
        for n in 0..3 {
            let bit = ((((a + n * b) % (1 << 32)) * 1920) >> 32) as usize;
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    assert_eq!(second[12..], filter);
    assert!((0..61).all(|tag| many.may_hold(tag * 1_000_003)));
    let passed =
        (0..10_000).filter(|tag| many.may_hold(u32::wrapping_mul(*tag, 999_983) + 1)).count();
    assert!(passed < 100, "{passed} of 10,000 pass that should not");

    let limits = "| capacity | blocks at most | stride |";
    let rows = PAGE.split(limits).nth(1).unwrap().lines().skip(2).take(4);
    for row in rows {
        let row: Vec<u64> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().parse().unwrap()).collect();
        let due = [row[0], format::index_blocks_max(row[0]), format::index_stride(row[0])];
        assert_eq!(row, due);
        assert!(row[0].div_ceil(row[2]) <= row[1], "the blocks of a full segment fit");
    }
    states("at most 60;");
    assert_eq!((format::INDEX_TAGS_MAX, format::INDEX_BLOCKS_MAX), (60, 2048));
    assert!(kind_pages(0, u16::MAX) == u16::MAX && kind_pages(1, 0) == 0);
}

/// The tags of an own record of the page are those that the table gives to its kind.
fn check_tags(kind: u16, payload: &[u8]) {
    let (_, column) = tags_of(kind);
    let present: Vec<u16> = fields(payload).iter().map(|(tag, _)| *tag).collect();
    for (tag, row) in tags() {
        match row[column].as_str() {
            "yes" => assert!(present.contains(&tag), "kind {kind:#06x} lacks tag {tag}"),
            "-" => assert!(!present.contains(&tag), "kind {kind:#06x} carries tag {tag}"),
            "may" => {}
            other => panic!("tag {tag}: {other:?}"),
        }
    }
}

#[test]
fn the_limits_that_the_page_states_are_the_constants() {
    for stated in [
        format!("at most {} holds", format::HOLDS_MAX),
        format!("1 to {} bytes", format::HOLD_NAME_MAX),
        format!("multiple of {}", format::CAPACITY_STEP),
        format!("frames begin at offset {}", format::FRAMES_START),
        format!("multiples of {}", format::ALIGN),
    ] {
        states(&stated);
    }
    assert_eq!(format::SEGMENT_HEADER_LEN, 128);
    assert_eq!((format::FRAME_HEADER_LEN, format::CONTROL_LEN), (32, 128));
}

#[test]
fn no_line_of_the_page_is_wider_than_100() {
    for (number, line) in PAGE.lines().enumerate() {
        assert!(line.chars().count() <= 100, "line {} is too wide", number + 1);
    }
}
