//! Every byte of format version 1: constants, encoders and decoders. `docs/FORMAT.md` says the
//! same in words, and `tests/format_doc.rs` decodes that page's worked example with this file.
//!
//! Never here: I/O, clocks, judgement. A decoder says what the bytes are; whether that is damage
//! is decided in [`crate::scan`] and [`crate::recover`].
//! Invariants: little endian throughout; lengths are checked against the bytes at hand before
//! anything is allocated. This room stays one file on purpose (redb kept its layout in three
//! places and they drifted). Next room: [`crate::scan`].

use crate::crc;
use crate::error::{Error, ErrorKind, Location, Result};
use crate::ids::{Generation, LogId, Lsn, Sequence};
use crate::mutant;

// ---------------------------------------------------------------------------------------------
// Constants

/// First eight bytes of a segment. The version is not part of it, so that a newer file reads as
/// unsupported and not as damaged (hashicorp/raft-wal's magic spans its version byte).
pub const SEGMENT_MAGIC: [u8; 8] = *b"\x89ANNALS\n";
/// First eight bytes of `CONTROL`.
pub const CONTROL_MAGIC: [u8; 8] = *b"\x89ANNCTL\n";
/// The one version this code writes and reads.
pub const VERSION: u16 = 1;
/// Bytes of the segment header; frames begin here.
pub const SEGMENT_HEADER_LEN: usize = 128;
/// Offset of the first frame.
pub const FRAMES_START: u64 = SEGMENT_HEADER_LEN as u64;
/// Bytes of a frame header.
pub const FRAME_HEADER_LEN: usize = 32;
/// Frames start at multiples of this.
pub const ALIGN: u64 = 8;
/// Bytes of `CONTROL`.
pub const CONTROL_LEN: usize = 128;
/// Smallest capacity of a segment.
pub const CAPACITY_MIN: u64 = 64 << 10;
/// Largest capacity: offset / 8 and the durable lag must fit a u32.
pub const CAPACITY_MAX: u64 = 32 << 30;
/// Capacities are multiples of this.
pub const CAPACITY_STEP: u64 = 4096;
/// Incompatible feature bit of a log that several processes write (`docs/adr/0021`).
pub const FEATURE_SHARED: u32 = 1;
/// Incompatible feature bits this version knows.
pub const INCOMPATIBLE_KNOWN: u32 = FEATURE_SHARED;

/// Flag of a record whose batch goes on with the next frame.
pub const FLAG_BATCH_GOES_ON: u8 = 1;
/// Flag of the first record of a batch.
pub const FLAG_BATCH_FIRST: u8 = 2;
const FLAGS_KNOWN: u8 = FLAG_BATCH_GOES_ON | FLAG_BATCH_FIRST;

/// The bit that marks the log's own kinds.
pub const OWN_KIND_BIT: u16 = 0x8000;
/// Own kinds from here on may be ignored by readers that do not know them.
pub const OWN_KIND_IGNORABLE: u16 = 0xC000;
/// Kind of the open record.
pub const KIND_OPEN: u16 = 0x8001;
/// Kind of the seal record.
pub const KIND_SEAL: u16 = 0x8002;
/// Kind of the trim record.
pub const KIND_TRIM: u16 = 0x8003;
/// Kind of the close record.
pub const KIND_CLOSE: u16 = 0x8004;

/// At most this many holds.
pub const HOLDS_MAX: usize = 64;
/// At most this many bytes in a hold's name.
pub const HOLD_NAME_MAX: usize = 32;

/// Digest algorithm 1: CRC-32 over the frame headers in order.
pub const DIGEST_CRC32: u8 = 1;

// The largest own record (64 holds of 32-byte names) must fit half the reserve of the smallest
// segment, or a full log could not be sealed.
const _: () = assert!(OWN_BODY_MAX + FRAME_HEADER_LEN as u64 <= reserve_bytes(CAPACITY_MIN) / 2);
const _: () = assert!((CAPACITY_MAX / ALIGN) <= 1 << 32);
const _: () = assert!(index_blocks_max(CAPACITY_MIN) > 0);
const OWN_BODY_MAX: u64 = (HOLDS_MAX * (TLV_HEAD + 8 + HOLD_NAME_MAX)) as u64 + 512;

/// Bytes at the end of a segment that records never enter; the second half is the seal's alone,
/// so that a full segment can always be trimmed, closed and sealed.
pub const fn reserve_bytes(capacity: u64) -> u64 {
    2 * (4096 + capacity / 256)
}

/// Stream tags that a block of a seal's index lists; beyond them it has a filter of as many bytes.
pub const INDEX_TAGS_MAX: usize = 60;
/// At most this many blocks, so that a seal stays under a MiB.
pub const INDEX_BLOCKS_MAX: u64 = 2048;
/// The one layout of an index that this code writes and uses.
pub const INDEX_LAYOUT: u32 = 1;
const INDEX_HEAD: usize = 8;
const INDEX_BLOCK_HEAD: usize = 12;
const INDEX_BLOCK_MAX: usize = INDEX_BLOCK_HEAD + 4 * INDEX_TAGS_MAX;

/// How many blocks the index of a segment may have: what the seal's half of the reserve holds
/// beside the seal's other fields.
pub const fn index_blocks_max(capacity: u64) -> u64 {
    let others = OWN_BODY_MAX + (FRAME_HEADER_LEN + TLV_HEAD + INDEX_HEAD) as u64;
    let room = (reserve_bytes(capacity) / 2 - others) / INDEX_BLOCK_MAX as u64;
    if room < INDEX_BLOCKS_MAX { room } else { INDEX_BLOCKS_MAX }
}

/// Bytes from the start of a block from which on the next record begins another one.
pub const fn index_stride(capacity: u64) -> u64 {
    capacity.div_ceil(index_blocks_max(capacity)).next_power_of_two()
}

/// Why a capacity is not one, as a half sentence.
pub fn check_capacity(capacity: u64) -> std::result::Result<(), &'static str> {
    if capacity < CAPACITY_MIN {
        Err("a segment holds at least 64 KiB")
    } else if capacity > CAPACITY_MAX {
        Err("a segment holds at most 32 GiB")
    } else if !capacity.is_multiple_of(CAPACITY_STEP) {
        Err("the capacity of a segment is a multiple of 4096 bytes")
    } else {
        Ok(())
    }
}

/// CRC-32 (ISO 3309, the one of zlib).
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Bytes of a frame with a payload of `len`: header, payload, zero padding to 8.
pub const fn frame_size(len: u32) -> u64 {
    (FRAME_HEADER_LEN as u64 + len as u64).next_multiple_of(ALIGN)
}

pub(crate) const fn frame_size_usize(len: usize) -> usize {
    (FRAME_HEADER_LEN + len).next_multiple_of(ALIGN as usize)
}

// ---------------------------------------------------------------------------------------------
// Names

/// A file name this format knows. Nothing else in the directory is ever opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    /// `NNNNNNNNNNNNNNNNNNNN.wal`
    Segment(Sequence),
    /// `NNNNNNNNNNNNNNNNNNNN.wal.tmp`, being prepared.
    SegmentTmp(Sequence),
    /// `LOCK`
    Lock,
    /// `APPEND`
    Append,
    /// `CONTROL`
    Control,
    /// `cut-SEQ-OFFSET.bin`: bytes that recovery cut.
    Cut,
    /// `ARCHIVE`: a manifest; its presence forbids opening for writing.
    Archive,
    /// `observer-INSTANCE.lock`
    ObserverLock,
    /// `registry-LSN.snap`
    Snapshot(u64),
    /// `registry-LSN.tmp`
    SnapshotTmp,
}

/// The lock file's name.
pub const LOCK_NAME: &str = "LOCK";
/// The name of the lock that a member of a shared log holds for a turn.
pub const APPEND_NAME: &str = "APPEND";
/// The control block's name.
pub const CONTROL_NAME: &str = "CONTROL";

/// The name whose presence forbids opening for writing.
pub const ARCHIVE_NAME: &str = "ARCHIVE";

/// File name of a segment.
pub fn segment_name(sequence: Sequence) -> String {
    format!("{:020}.wal", sequence.get())
}

/// File name of a segment while it is prepared.
pub fn segment_tmp_name(sequence: Sequence) -> String {
    format!("{:020}.wal.tmp", sequence.get())
}

/// File name of the copy of what recovery cut, `copy` counting from 0 so that none is replaced.
pub fn cut_name(sequence: Sequence, offset: u64, copy: u32) -> String {
    if copy == 0 {
        format!("cut-{}-{offset}.bin", sequence.get())
    } else {
        format!("cut-{}-{offset}.{copy}.bin", sequence.get())
    }
}

/// File name of the registry's snapshot at this LSN.
pub fn snapshot_name(lsn: Lsn) -> String {
    format!("registry-{:020}.snap", lsn.get())
}

/// File name of the registry's snapshot at this LSN while it is written.
pub fn snapshot_tmp_name(lsn: Lsn) -> String {
    format!("registry-{:020}.tmp", lsn.get())
}

/// Which known name this is; `None` for foreign files.
pub fn parse_name(name: &str) -> Option<Name> {
    match name {
        LOCK_NAME => return Some(Name::Lock),
        CONTROL_NAME => return Some(Name::Control),
        "APPEND" => return Some(Name::Append),
        ARCHIVE_NAME => return Some(Name::Archive),
        _ => {}
    }
    if let Some(digits) = name.strip_suffix(".wal") {
        return parse_sequence(digits).map(Name::Segment);
    }
    if let Some(digits) = name.strip_suffix(".wal.tmp") {
        return parse_sequence(digits).map(Name::SegmentTmp);
    }
    if let Some(place) = name.strip_prefix("cut-").and_then(|rest| rest.strip_suffix(".bin")) {
        return is_cut_place(place).then_some(Name::Cut);
    }
    let instance = name.strip_prefix("observer-").and_then(|rest| rest.strip_suffix(".lock"));
    if let Some(instance) = instance {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let fits = !instance.is_empty() && instance.bytes().all(plain);
        return fits.then_some(Name::ObserverLock);
    }
    let rest = name.strip_prefix("registry-")?;
    if rest.ends_with(".tmp") {
        return Some(Name::SnapshotTmp);
    }
    let digits = rest.strip_suffix(".snap")?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Name::Snapshot)
}

/// `SEQ-OFFSET`, or `SEQ-OFFSET.N` with N from 1, as [`cut_name`] writes them.
fn is_cut_place(place: &str) -> bool {
    let Some((sequence, rest)) = place.split_once('-') else { return false };
    let (offset, copy) = rest.split_once('.').unwrap_or((rest, "1"));
    let counts = |text| plain_number(text).is_some_and(|number| number > 0);
    counts(sequence) && plain_number(offset).is_some() && counts(copy)
}

/// A number as it is printed: digits only (`parse` alone takes a sign), none in vain.
fn plain_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Exactly 20 digits: anything narrower once skipped a file (benbjohnson/litestream#1442).
fn parse_sequence(digits: &str) -> Option<Sequence> {
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().and_then(Sequence::new)
}

// ---------------------------------------------------------------------------------------------
// Segment header

/// The 128 bytes at the start of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Whether several processes write the log: a feature bit, the same in every segment.
    pub shared: bool,
    /// Feature bits that a reader may ignore.
    pub compatible: u32,
    /// The log this segment belongs to.
    pub log_id: LogId,
    /// Must equal the number in the file name.
    pub sequence: Sequence,
    /// Size of the file.
    pub capacity: u64,
    /// Random; seeds every header checksum of this segment.
    pub salt: u32,
    /// When it was prepared, Unix time in milliseconds. For people; nothing is decided by it.
    pub created_ms: u64,
}

/// What the first 128 bytes of a segment turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeaderVerdict {
    /// Good.
    Good(SegmentHeader),
    /// Checksum or content wrong, or the file is shorter than a header.
    Bad(&'static str),
    /// Sound, but of a version or with features this code does not know.
    Unsupported(String),
}

impl SegmentHeader {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut out = [0; SEGMENT_HEADER_LEN];
        put(&mut out, 0, &SEGMENT_MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 10, &(SEGMENT_HEADER_LEN as u16).to_le_bytes());
        let incompatible = if self.shared { FEATURE_SHARED } else { 0 };
        put(&mut out, 12, &incompatible.to_le_bytes());
        put(&mut out, 16, &self.compatible.to_le_bytes());
        put(&mut out, 24, &self.log_id.0);
        put(&mut out, 40, &self.sequence.get().to_le_bytes());
        put(&mut out, 48, &self.capacity.to_le_bytes());
        put(&mut out, 56, &self.salt.to_le_bytes());
        put(&mut out, 64, &self.created_ms.to_le_bytes());
        let crc = crc32(&out[..SEGMENT_HEADER_LEN - 4]);
        put(&mut out, SEGMENT_HEADER_LEN - 4, &crc.to_le_bytes());
        out
    }

    /// Checks the checksum first, then believes the version, then the rest.
    pub fn decode(bytes: &[u8]) -> HeaderVerdict {
        let unchecked = mutant::is("length:segment-header").then(|| get_array(bytes, 0));
        let Some(bytes) = unchecked.as_ref().or(bytes.first_chunk::<SEGMENT_HEADER_LEN>()) else {
            return HeaderVerdict::Bad("the file is shorter than a segment header");
        };
        if bytes[..8] != SEGMENT_MAGIC {
            return HeaderVerdict::Bad("the segment's magic is wrong");
        }
        let sound =
            crc32(&bytes[..SEGMENT_HEADER_LEN - 4]) == get_u32(bytes, SEGMENT_HEADER_LEN - 4);
        if !sound && !mutant::is("checksum:segment-header") {
            return HeaderVerdict::Bad("the segment header's checksum is wrong");
        }
        let version = get_u16(bytes, 8);
        if version != VERSION && !mutant::is("row-f:any-version") {
            return HeaderVerdict::Unsupported(format!(
                "segment format version {version}; this build knows version {VERSION}"
            ));
        }
        let incompatible = get_u32(bytes, 12);
        if incompatible & !INCOMPATIBLE_KNOWN != 0 && !mutant::is("row-f:any-feature") {
            return HeaderVerdict::Unsupported(format!(
                "segment feature bits {incompatible:#010x}; this build knows only \
                 {INCOMPATIBLE_KNOWN:#010x}"
            ));
        }
        if usize::from(get_u16(bytes, 10)) != SEGMENT_HEADER_LEN {
            return HeaderVerdict::Unsupported("segment header of another length".to_owned());
        }
        let Some(sequence) = Sequence::new(get_u64(bytes, 40)) else {
            return HeaderVerdict::Bad("the segment header says sequence 0");
        };
        let capacity = get_u64(bytes, 48);
        if check_capacity(capacity).is_err() {
            return HeaderVerdict::Bad("the segment header's capacity is impossible");
        }
        HeaderVerdict::Good(SegmentHeader {
            shared: incompatible & FEATURE_SHARED != 0,
            compatible: get_u32(bytes, 16),
            log_id: LogId(get_array(bytes, 24)),
            sequence,
            capacity,
            salt: get_u32(bytes, 56),
            created_ms: get_u64(bytes, 64),
        })
    }

    /// First byte of the reserve.
    pub fn records_end(&self) -> u64 {
        self.capacity - reserve_bytes(self.capacity)
    }

    /// First byte of the half of the reserve that is the seal's alone.
    pub fn own_records_end(&self) -> u64 {
        self.capacity - reserve_bytes(self.capacity) / 2
    }
}

// ---------------------------------------------------------------------------------------------
// Frame header

/// The 32 bytes before every payload, without their own checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// CRC-32 of the payload.
    pub payload_crc: u32,
    /// Records: at least 1. Own records: that of the last record before, 0 if none.
    pub lsn: u64,
    /// Bytes of payload.
    pub len: u32,
    /// (offset of this frame - durable end) / 8.
    pub durable_lag: u32,
    /// The caller's tag.
    pub stream: u32,
    /// The kind; top bit: the log's own.
    pub kind: u16,
    /// Batch flags.
    pub flags: u8,
    /// The payload's codec.
    pub codec: u8,
}

impl FrameHeader {
    /// The header as it stands at `offset` of the segment with `salt`. Seeding the checksum with
    /// both rejects stale, misplaced and copied frames (commonwarexyz/monorepo#4260).
    pub fn encode(&self, salt: u32, offset: u64) -> [u8; FRAME_HEADER_LEN] {
        let mut out = [0; FRAME_HEADER_LEN];
        put(&mut out, 4, &self.payload_crc.to_le_bytes());
        put(&mut out, 8, &self.lsn.to_le_bytes());
        put(&mut out, 16, &self.len.to_le_bytes());
        put(&mut out, 20, &self.durable_lag.to_le_bytes());
        put(&mut out, 24, &self.stream.to_le_bytes());
        put(&mut out, 28, &self.kind.to_le_bytes());
        out[30] = self.flags;
        out[31] = self.codec;
        let crc = crc::of_header(frame_seed(salt, offset), &get_array(&out, 4));
        put(&mut out, 0, &crc.to_le_bytes());
        out
    }

    /// `None` if the checksum does not hold here. All-zero bytes are never a frame, whatever
    /// the seed makes of them.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN], salt: u32, offset: u64) -> Option<FrameHeader> {
        FrameHeader::is_sound(bytes, salt, offset).then(|| FrameHeader::parse(bytes))
    }

    /// Whether the checksum holds here.
    #[inline(always)]
    pub(crate) fn is_sound(bytes: &[u8; FRAME_HEADER_LEN], salt: u32, offset: u64) -> bool {
        let crc = crc::of_header(frame_seed(salt, offset), &get_array(bytes, 4));
        let sound = crc == get_u32(bytes, 0) || mutant::is("checksum:frame-header");
        sound && *bytes != [0; FRAME_HEADER_LEN]
    }

    /// The fields, checksum not looked at.
    #[inline(always)]
    pub(crate) fn parse(bytes: &[u8; FRAME_HEADER_LEN]) -> FrameHeader {
        FrameHeader {
            payload_crc: get_u32(bytes, 4),
            lsn: get_u64(bytes, 8),
            len: get_u32(bytes, 16),
            durable_lag: get_u32(bytes, 20),
            stream: get_u32(bytes, 24),
            kind: get_u16(bytes, 28),
            flags: bytes[30],
            codec: bytes[31],
        }
    }

    /// Whether this is one of the log's own records.
    #[inline]
    pub fn is_own(&self) -> bool {
        self.kind & OWN_KIND_BIT != 0
    }

    /// Whether its batch goes on with the next frame.
    #[inline]
    pub fn goes_on(&self) -> bool {
        self.flags & FLAG_BATCH_GOES_ON != 0
    }

    /// Whether it is the first of its batch.
    #[inline]
    pub fn is_batch_first(&self) -> bool {
        self.flags & FLAG_BATCH_FIRST != 0
    }

    /// Why this code must not interpret the frame, if it must not.
    #[inline]
    pub fn unsupported(&self) -> Option<String> {
        if self.flags & !FLAGS_KNOWN != 0 && !mutant::is("row-f:any-flag") {
            return Some(format!("frame flags {:#04x}", self.flags));
        }
        let known = matches!(self.kind, KIND_OPEN | KIND_SEAL | KIND_TRIM | KIND_CLOSE);
        let kind_counts = self.kind < OWN_KIND_IGNORABLE && !mutant::is("row-f:any-kind");
        if self.is_own() && !known && kind_counts {
            return Some(format!("own record of kind {:#06x}", self.kind));
        }
        None
    }

    /// Bytes of the whole frame.
    #[inline]
    pub fn frame_size(&self) -> u64 {
        frame_size(self.len)
    }
}

#[inline]
fn frame_seed(salt: u32, offset: u64) -> u32 {
    let salt = if mutant::is("checksum:no-salt") { 0 } else { salt };
    let offset = if mutant::is("checksum:no-offset") { 0 } else { offset };
    salt ^ (offset / ALIGN) as u32
}

/// Appends a frame whose header checksum is still blank: the place is not known yet.
pub(crate) fn push_frame(out: &mut Vec<u8>, header: &FrameHeader, payload: &[u8]) {
    out.extend_from_slice(&header.encode(0, 0));
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(ALIGN as usize), 0);
}

/// Encodes a whole frame for its place.
pub(crate) fn encode_frame(
    header: &FrameHeader,
    payload: &[u8],
    salt: u32,
    offset: u64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame_size_usize(payload.len()));
    out.extend_from_slice(&header.encode(salt, offset));
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(ALIGN as usize), 0);
    out
}

// ---------------------------------------------------------------------------------------------
// Own records

/// A named claim "I still need records from this LSN on".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Who claims; at most 32 bytes.
    pub name: String,
    /// The first LSN still needed.
    pub lsn: Lsn,
}

/// Where a segment's predecessor ends: carried by its open record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealReference {
    /// The predecessor.
    pub sequence: Sequence,
    /// Where its seal stands.
    pub offset: u64,
    /// The digest in its seal.
    pub digest: Digest,
}

/// A checksum over the 32-byte headers of all frames before the seal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// [`DIGEST_CRC32`] in version 1.
    pub algorithm: u8,
    /// The checksum, little endian.
    pub bytes: Vec<u8>,
}

impl Digest {
    pub(crate) fn crc32(crc: u32) -> Digest {
        Digest { algorithm: DIGEST_CRC32, bytes: crc.to_le_bytes().to_vec() }
    }
}

/// The body of an own record: whichever of these fields its kind carries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnBody {
    /// Open, seal, trim, close.
    pub generation: Option<Generation>,
    /// Open, seal, trim: the first LSN kept.
    pub head: Option<Lsn>,
    /// Open, seal, trim.
    pub holds: Vec<Hold>,
    /// Open, except in the first segment.
    pub previous: Option<SealReference>,
    /// Seal, close: Unix ms of the first and the last append in this segment, 0 if not known
    /// (a session that died took them along). For people and filters.
    pub times_ms: Option<(u64, u64)>,
    /// Seal.
    pub seal: Option<SealBody>,
    /// Seal: where records are, as [`encode_index`] lays it out. A hint: nothing is decided by it.
    pub index: Option<Vec<u8>>,
}

/// What only a seal carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealBody {
    /// Records in the segment.
    pub count: u64,
    /// First and last LSN, `None` for a segment without records.
    pub lsns: Option<(Lsn, Lsn)>,
    /// The log, again: a seal must stand in its own segment.
    pub log_id: LogId,
    /// The salt, again.
    pub salt: u32,
    /// Over the headers of all frames before the seal.
    pub digest: Digest,
}

const TLV_HEAD: usize = 6;
/// Tags from here on may be ignored by readers that do not know them.
const TAG_IGNORABLE: u16 = 0x8000;
const TAG_GENERATION: u16 = 1;
const TAG_HEAD: u16 = 2;
const TAG_HOLD: u16 = 3;
const TAG_PREVIOUS: u16 = 4;
const TAG_COUNT: u16 = 5;
const TAG_LSNS: u16 = 6;
const TAG_TIMES: u16 = 7;
const TAG_SEGMENT: u16 = 8;
const TAG_DIGEST: u16 = 9;
const TAG_INDEX: u16 = 0x8001;

impl OwnBody {
    /// The body's bytes: tag u16, length u32, value, again and again.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(generation) = self.generation {
            push_tlv(&mut out, TAG_GENERATION, &[&generation.0.to_le_bytes()]);
        }
        if let Some(head) = self.head {
            push_tlv(&mut out, TAG_HEAD, &[&head.get().to_le_bytes()]);
        }
        for hold in &self.holds {
            push_tlv(&mut out, TAG_HOLD, &[&hold.lsn.get().to_le_bytes(), hold.name.as_bytes()]);
        }
        if let Some(previous) = &self.previous {
            push_tlv(
                &mut out,
                TAG_PREVIOUS,
                &[
                    &previous.sequence.get().to_le_bytes(),
                    &previous.offset.to_le_bytes(),
                    &[previous.digest.algorithm],
                    &previous.digest.bytes,
                ],
            );
        }
        if let Some((first_ms, last_ms)) = self.times_ms {
            push_tlv(&mut out, TAG_TIMES, &[&first_ms.to_le_bytes(), &last_ms.to_le_bytes()]);
        }
        if let Some(seal) = &self.seal {
            let (first, last) = seal.lsns.map_or((0, 0), |(a, b)| (a.get(), b.get()));
            push_tlv(&mut out, TAG_COUNT, &[&seal.count.to_le_bytes()]);
            push_tlv(&mut out, TAG_LSNS, &[&first.to_le_bytes(), &last.to_le_bytes()]);
            push_tlv(&mut out, TAG_SEGMENT, &[&seal.log_id.0, &seal.salt.to_le_bytes()]);
            push_tlv(&mut out, TAG_DIGEST, &[&[seal.digest.algorithm], &seal.digest.bytes]);
        }
        if let Some(index) = &self.index {
            push_tlv(&mut out, TAG_INDEX, &[index]);
        }
        out
    }

    /// Reads a body.
    ///
    /// # Errors
    /// `Unsupported` for a tag that must not be ignored, `Corrupt` for bytes that no version
    /// writes. The caller has already checked the payload's checksum, so neither is tearing.
    pub fn decode(bytes: &[u8]) -> Result<OwnBody> {
        let (mut body, index) = OwnBody::decode_lending(bytes)?;
        body.index = index.map(<[u8]>::to_vec);
        Ok(body)
    }

    /// [`OwnBody::decode`], the index lent and not copied: in a seal it is nearly all there is.
    pub(crate) fn decode_lending(bytes: &[u8]) -> Result<(OwnBody, Option<&[u8]>)> {
        let (mut body, mut index) = (OwnBody::default(), None);
        let (mut count, mut lsns, mut segment, mut digest) = (None, None, None, None);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (tag, value, tail) = split_tlv(rest)?;
            rest = tail;
            match tag {
                TAG_GENERATION => body.generation = Some(Generation(exact_u64(value)?)),
                TAG_HEAD => body.head = Some(lsn(exact_u64(value)?)?),
                TAG_HOLD if body.holds.len() >= HOLDS_MAX && !mutant::is("length:holds") => {
                    return Err(bad_body());
                }
                TAG_HOLD => body.holds.push(decode_hold(value)?),
                TAG_PREVIOUS => body.previous = Some(decode_previous(value)?),
                TAG_COUNT => count = Some(exact_u64(value)?),
                TAG_LSNS => {
                    let (first, last) = exact_u64_pair(value)?;
                    lsns = Lsn::new(first).zip(Lsn::new(last));
                }
                TAG_TIMES => body.times_ms = Some(exact_u64_pair(value)?),
                TAG_SEGMENT => {
                    let value: &[u8; 20] = value.try_into().map_err(|_| bad_body())?;
                    segment = Some((LogId(get_array(value, 0)), get_u32(value, 16)));
                }
                TAG_DIGEST => digest = Some(decode_digest(value)?),
                TAG_INDEX => index = Some(value),
                tag if tag >= TAG_IGNORABLE || mutant::is("row-f:any-field") => {}
                tag => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "an own record carries field {tag}, which this build must not ignore"
                        ),
                    ));
                }
            }
        }
        if let (Some(count), Some((log_id, salt)), Some(digest)) = (count, segment, digest) {
            body.seal = Some(SealBody { count, lsns, log_id, salt, digest });
        }
        Ok((body, index))
    }
}

fn push_tlv(out: &mut Vec<u8>, tag: u16, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&(len as u32).to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn split_tlv(bytes: &[u8]) -> Result<(u16, &[u8], &[u8])> {
    let checked = bytes.split_at_checked(TLV_HEAD);
    let unchecked = mutant::is("length:field-head").then(|| bytes.split_at(TLV_HEAD));
    let (head, rest) = unchecked.or(checked).ok_or_else(bad_body)?;
    let len = get_u32(head, 2) as usize;
    if mutant::is("length:field") {
        return Ok((get_u16(head, 0), &rest[..len], &rest[len..]));
    }
    let (value, rest) = rest.split_at_checked(len).ok_or_else(bad_body)?;
    Ok((get_u16(head, 0), value, rest))
}

fn decode_hold(value: &[u8]) -> Result<Hold> {
    let (number, name) = value.split_at_checked(8).ok_or_else(bad_body)?;
    let fits = !name.is_empty() && name.len() <= HOLD_NAME_MAX;
    if !fits && !mutant::is("length:hold-name") {
        return Err(bad_body());
    }
    let name = std::str::from_utf8(name).map_err(|_| bad_body())?;
    Ok(Hold { name: name.to_owned(), lsn: lsn(get_u64(number, 0))? })
}

fn decode_previous(value: &[u8]) -> Result<SealReference> {
    let (head, digest) = value.split_at_checked(16).ok_or_else(bad_body)?;
    let sequence = Sequence::new(get_u64(head, 0)).ok_or_else(bad_body)?;
    Ok(SealReference { sequence, offset: get_u64(head, 8), digest: decode_digest(digest)? })
}

fn decode_digest(value: &[u8]) -> Result<Digest> {
    let (&algorithm, bytes) = value.split_first().ok_or_else(bad_body)?;
    if algorithm == DIGEST_CRC32 && bytes.len() != 4 {
        return Err(bad_body());
    }
    Ok(Digest { algorithm, bytes: bytes.to_vec() })
}

fn lsn(value: u64) -> Result<Lsn> {
    Lsn::new(value).ok_or_else(bad_body)
}

fn exact_u64(value: &[u8]) -> Result<u64> {
    let value: &[u8; 8] = value.try_into().map_err(|_| bad_body())?;
    Ok(u64::from_le_bytes(*value))
}

fn exact_u64_pair(value: &[u8]) -> Result<(u64, u64)> {
    let value: &[u8; 16] = value.try_into().map_err(|_| bad_body())?;
    Ok((get_u64(value, 0), get_u64(value, 8)))
}

fn bad_body() -> Error {
    Error::corrupt(
        "an own record with a good checksum has a body that no version writes",
        Location::default(),
    )
}

// ---------------------------------------------------------------------------------------------
// The index in a seal

/// A run of a segment's frames, from a record's up to where the next block begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexBlock {
    /// Where it begins, divided by 8.
    pub offset_8th: u32,
    /// LSN of its first record, counted from the segment's first.
    pub lsn_delta: u32,
    /// The pages of kinds that it holds records of: see [`kind_pages`].
    pub kinds: u16,
    /// How many tags `streams` lists; [`IndexBlock::MANY`] if it is a filter.
    streams_len: u16,
    streams: [u32; INDEX_TAGS_MAX],
}

impl IndexBlock {
    /// More tags than are listed: the bits of a filter stand in their place.
    pub const MANY: u16 = u16::MAX;

    /// A block that holds nothing yet.
    pub fn new(offset: u64, lsn_delta: u32) -> IndexBlock {
        let offset_8th = (offset / ALIGN) as u32;
        let streams = [0; INDEX_TAGS_MAX];
        IndexBlock { offset_8th, lsn_delta, kinds: 0, streams_len: 0, streams }
    }

    /// Where it begins.
    pub fn offset(&self) -> u64 {
        u64::from(self.offset_8th) * ALIGN
    }

    /// Notes a record's tag and kind.
    pub fn add(&mut self, stream: u32, kind: u16) {
        self.kinds |= kind_pages(kind, kind);
        let len = usize::from(self.streams_len);
        let Some(listed) = self.streams.get(..len) else { return self.set_bits(stream) };
        if listed.contains(&stream) {
            return;
        }
        if let Some(free) = self.streams.get_mut(len) {
            *free = stream;
            self.streams_len += 1;
            return;
        }
        let listed = std::mem::replace(&mut self.streams, [0; INDEX_TAGS_MAX]);
        self.streams_len = IndexBlock::MANY;
        listed.into_iter().chain([stream]).for_each(|stream| self.set_bits(stream));
    }

    fn set_bits(&mut self, stream: u32) {
        for bit in filter_bits(stream) {
            self.streams[bit / 32] |= 1 << (bit % 32);
        }
    }

    /// Whether it may hold a record with this tag. A list never errs; a filter may say yes in vain.
    pub fn may_hold(&self, stream: u32) -> bool {
        match self.streams.get(..usize::from(self.streams_len)) {
            Some(listed) => listed.contains(&stream),
            None => filter_bits(stream)
                .into_iter()
                .all(|bit| self.streams[bit / 32] & (1 << (bit % 32)) != 0),
        }
    }
}

/// One bit for each page of 256 kinds from `low` to `high`; the last bit is for all pages from 15.
pub fn kind_pages(low: u16, high: u16) -> u16 {
    let page = |kind: u16| u32::from(kind >> 8).min(15);
    if low > high {
        return 0;
    }
    (u16::MAX << page(low)) & (u16::MAX >> (15 - page(high)))
}

/// Where a filter has a tag's three bits.
fn filter_bits(stream: u32) -> [usize; 3] {
    const BITS: u64 = 32 * INDEX_TAGS_MAX as u64;
    let product = u64::from(stream).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (first, step) = ((product >> 32) as u32, product as u32 | 1);
    [0, 1, 2].map(|n: u32| {
        let hash = first.wrapping_add(step.wrapping_mul(n));
        ((u64::from(hash) * BITS) >> 32) as usize
    })
}

/// The bytes of an index.
pub fn encode_index(blocks: &[IndexBlock]) -> Vec<u8> {
    let mut out = Vec::with_capacity(INDEX_HEAD + blocks.len() * INDEX_BLOCK_MAX);
    out.extend_from_slice(&INDEX_LAYOUT.to_le_bytes());
    out.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    for block in blocks {
        out.extend_from_slice(&block.offset_8th.to_le_bytes());
        out.extend_from_slice(&block.lsn_delta.to_le_bytes());
        out.extend_from_slice(&block.kinds.to_le_bytes());
        out.extend_from_slice(&block.streams_len.to_le_bytes());
        let words = block.streams.iter().take(usize::from(block.streams_len));
        words.for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }
    out
}

/// The blocks of an index; `None` for another layout, and for bytes that are none of this one.
/// Offsets and LSNs rise from block to block; whether they are true the frames must say.
pub fn decode_index(bytes: &[u8]) -> Option<Vec<IndexBlock>> {
    let mut blocks = Vec::new();
    decode_index_into(bytes, &mut blocks)?;
    Some(blocks)
}

/// [`decode_index`] in place of what stood in `blocks`; `None` leaves anything there.
pub(crate) fn decode_index_into(bytes: &[u8], blocks: &mut Vec<IndexBlock>) -> Option<()> {
    let (head, mut rest) = bytes.split_at_checked(INDEX_HEAD)?;
    let (layout, count) = (get_u32(head, 0), get_u32(head, 4));
    // Each block has at least its head, so a lying count asks for no memory.
    let fits =
        count as usize <= rest.len() / INDEX_BLOCK_HEAD && u64::from(count) <= INDEX_BLOCKS_MAX;
    if layout != INDEX_LAYOUT || !fits {
        return None;
    }
    blocks.clear();
    blocks.reserve_exact(count as usize);
    for _ in 0..count {
        let (head, tail) = rest.split_at_checked(INDEX_BLOCK_HEAD)?;
        let streams_len = get_u16(head, 10);
        let words = usize::from(streams_len).min(INDEX_TAGS_MAX);
        if usize::from(streams_len) != words && streams_len != IndexBlock::MANY {
            return None;
        }
        let (listed, tail) = tail.split_at_checked(4 * words)?;
        let mut block = IndexBlock::new(0, get_u32(head, 4));
        block.offset_8th = get_u32(head, 0);
        (block.kinds, block.streams_len) = (get_u16(head, 8), streams_len);
        for (word, bytes) in block.streams.iter_mut().zip(listed.chunks_exact(4)) {
            *word = get_u32(bytes, 0);
        }
        let rises = blocks.last().is_none_or(|last| {
            last.offset_8th < block.offset_8th && last.lsn_delta < block.lsn_delta
        });
        if !rises || block.offset() < FRAMES_START {
            return None;
        }
        blocks.push(block);
        rest = tail;
    }
    rest.is_empty().then_some(())
}

// ---------------------------------------------------------------------------------------------
// Control block

/// Which file this was when it was written: a copied file is another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Birth time, nanoseconds since the Unix epoch.
    pub born_ns: u64,
}

/// The 128 bytes of `CONTROL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    /// The log it speaks of.
    pub log_id: LogId,
    /// The generation that wrote it.
    pub generation: Generation,
    /// Itself.
    pub own: Identity,
    /// The active segment's file.
    pub segment: Identity,
    /// The active segment; 0 while nothing is claimed.
    pub sequence: u64,
    /// Every byte of that segment below this offset was covered by a successful sync.
    pub durable_end: u64,
    /// Highest LSN covered by a successful sync; 0 if none.
    pub durable_lsn: u64,
    /// The process that wrote it.
    pub pid: u32,
    /// Of a shared log: [`MARK_WRITING`] while a turn lasts; 0 of any other.
    pub marks: u32,
}

/// The mark of a turn: whoever finds it without its holder recovers before anything else.
pub const MARK_WRITING: u32 = 1;

impl Control {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; CONTROL_LEN] {
        let mut out = [0; CONTROL_LEN];
        put(&mut out, 0, &CONTROL_MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 16, &self.log_id.0);
        let numbers = [
            self.generation.0,
            self.own.inode,
            self.own.born_ns,
            self.segment.inode,
            self.segment.born_ns,
            self.sequence,
            self.durable_end,
            self.durable_lsn,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            put(&mut out, 32 + index * 8, &number.to_le_bytes());
        }
        put(&mut out, 96, &self.pid.to_le_bytes());
        put(&mut out, 100, &self.marks.to_le_bytes());
        let crc = crc32(&out[..CONTROL_LEN - 4]);
        put(&mut out, CONTROL_LEN - 4, &crc.to_le_bytes());
        out
    }

    /// `None` for anything but a sound block of a known version: it is a hint, so what cannot be
    /// read claims nothing.
    pub fn decode(bytes: &[u8]) -> Option<Control> {
        let unchecked = mutant::is("length:control").then(|| get_array(bytes, 0));
        let bytes = unchecked.as_ref().or(bytes.first_chunk::<CONTROL_LEN>())?;
        let sound = bytes[..8] == CONTROL_MAGIC
            && (crc32(&bytes[..CONTROL_LEN - 4]) == get_u32(bytes, CONTROL_LEN - 4)
                || mutant::is("checksum:control"))
            && get_u16(bytes, 8) == VERSION;
        sound.then(|| Control {
            log_id: LogId(get_array(bytes, 16)),
            generation: Generation(get_u64(bytes, 32)),
            own: Identity { inode: get_u64(bytes, 40), born_ns: get_u64(bytes, 48) },
            segment: Identity { inode: get_u64(bytes, 56), born_ns: get_u64(bytes, 64) },
            sequence: get_u64(bytes, 72),
            durable_end: get_u64(bytes, 80),
            durable_lsn: get_u64(bytes, 88),
            pid: get_u32(bytes, 96),
            marks: get_u32(bytes, 100),
        })
    }
}

// ---------------------------------------------------------------------------------------------
// Snapshot header (the registry's file; its first 128 bytes are a header that the log defines)

/// First eight bytes of a registry snapshot.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"\x89ANNSNP\n";

/// What the log must know of a registry snapshot: it is a witness that its LSN was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotHeader {
    /// The log it belongs to.
    pub log_id: LogId,
    /// The LSN whose effects it contains.
    pub lsn: Lsn,
    /// The generation in which that LSN was durable.
    pub generation: Generation,
}

impl SnapshotHeader {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut out = [0; SEGMENT_HEADER_LEN];
        put(&mut out, 0, &SNAPSHOT_MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 16, &self.log_id.0);
        put(&mut out, 32, &self.lsn.get().to_le_bytes());
        put(&mut out, 40, &self.generation.0.to_le_bytes());
        let crc = crc32(&out[..SEGMENT_HEADER_LEN - 4]);
        put(&mut out, SEGMENT_HEADER_LEN - 4, &crc.to_le_bytes());
        out
    }

    /// `None` for anything but a sound header of a known version.
    pub fn decode(bytes: &[u8]) -> Option<SnapshotHeader> {
        let unchecked = mutant::is("length:snapshot-header").then(|| get_array(bytes, 0));
        let bytes = unchecked.as_ref().or(bytes.first_chunk::<SEGMENT_HEADER_LEN>())?;
        let sound = bytes[..8] == SNAPSHOT_MAGIC
            && crc32(&bytes[..SEGMENT_HEADER_LEN - 4]) == get_u32(bytes, SEGMENT_HEADER_LEN - 4)
            && get_u16(bytes, 8) == VERSION;
        if !sound {
            return None;
        }
        Some(SnapshotHeader {
            log_id: LogId(get_array(bytes, 16)),
            lsn: Lsn::new(get_u64(bytes, 32))?,
            generation: Generation(get_u64(bytes, 40)),
        })
    }
}

// ---------------------------------------------------------------------------------------------
// Bytes in and out of fixed arrays. Offsets are constants of this file, always in bounds.

#[inline]
fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[inline]
fn get_array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[inline]
fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(get_array(bytes, at))
}

#[inline]
fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get_array(bytes, at))
}

#[inline]
fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get_array(bytes, at))
}
