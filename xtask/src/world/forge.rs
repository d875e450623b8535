//! Damage with good checksums: what no crash and no bad sector makes, but a bug, another program or
//! another version could. A reader that checks nothing but checksums takes it for its own.
//!
//! Never here: records with a good payload in their right place; nothing could tell those from
//! true ones. Invariant: every forgery names what the log must make of it.

use annals_wal::format::{
    self, FLAG_BATCH_FIRST, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, Hold, KIND_OPEN,
    KIND_SEAL, KIND_TRIM, OwnBody, SEGMENT_HEADER_LEN, SealReference, SegmentHeader,
    SnapshotHeader,
};
use annals_wal::fs::mem::MemDir;
use annals_wal::fs::{Dir, SyncPoint};
use annals_wal::recover::SegmentFacts;
use annals_wal::survey::OwnRecord;
use annals_wal::{Generation, LogId, Lsn, Sequence};

use super::damage::{Before, Done, Must};
use super::random::Random;

/// What is forged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forgery {
    /// A frame longer than its segment.
    Long,
    /// A frame that calls bytes durable which lie before the first frame.
    Lag,
    /// The rest of a batch that never began.
    Rest,
    /// A record that skips LSNs.
    Skip,
    /// A frame with a flag of a newer version.
    Flag,
    /// An own record of a newer version.
    Kind,
    /// An own record with batch flags.
    OwnFlags,
    /// An own record with a field of a newer version.
    Field,
    /// An own record whose field is longer than the record.
    FieldLength,
    /// An own record that ends inside a field's head.
    FieldHead,
    /// A hold with a name too long.
    HoldName,
    /// More holds than a log has.
    Holds,
    /// A trim to beyond the end.
    Head,
    /// A record made for another segment.
    Salt,
    /// A record made for another place.
    Place,
    /// A segment header with a capacity that would fill the disk.
    Capacity,
    /// A segment header of another log.
    Log,
    /// A segment header with a feature of a newer version.
    Feature,
    /// A file longer than its capacity.
    Grown,
    /// A seal with another digest than its successor names.
    Digest,
    /// A seal that was written for another segment.
    Seal,
    /// An open record whose LSN is not its predecessor's.
    Lsn,
    /// An open record of 4 GiB.
    Open,
    /// A first segment that names a predecessor.
    Predecessor,
    /// A registry snapshot of an LSN that the log does not have.
    Snapshot,
    /// A registry snapshot of another log.
    ForeignSnapshot,
    /// A registry snapshot shorter than its header.
    ShortSnapshot,
}

/// All of them.
pub const ALL: [Forgery; 27] = [
    Forgery::Long,
    Forgery::Lag,
    Forgery::Rest,
    Forgery::Skip,
    Forgery::Flag,
    Forgery::Kind,
    Forgery::OwnFlags,
    Forgery::Field,
    Forgery::FieldLength,
    Forgery::FieldHead,
    Forgery::HoldName,
    Forgery::Holds,
    Forgery::Head,
    Forgery::Salt,
    Forgery::Place,
    Forgery::Capacity,
    Forgery::Log,
    Forgery::Feature,
    Forgery::Grown,
    Forgery::Digest,
    Forgery::Seal,
    Forgery::Lsn,
    Forgery::Open,
    Forgery::Predecessor,
    Forgery::Snapshot,
    Forgery::ForeignSnapshot,
    Forgery::ShortSnapshot,
];

/// Does it, or `None` where there is no place for it.
pub(crate) fn forge(
    disk: &MemDir,
    before: &Before,
    how: Forgery,
    random: &mut Random,
) -> Option<Done> {
    let must = match how {
        Forgery::Snapshot | Forgery::ForeignSnapshot | Forgery::ShortSnapshot => {
            snapshot(disk, before, how)?
        }
        Forgery::Capacity | Forgery::Log | Forgery::Feature | Forgery::Grown => {
            header(disk, before, how, random)?
        }
        Forgery::Digest | Forgery::Seal | Forgery::Lsn | Forgery::Open | Forgery::Predecessor => {
            chain(disk, before, how, random)?
        }
        _ => tail(disk, before, how)?,
    };
    Some(Done { told: format!("forged: {how:?}"), must })
}

/// A frame after the last whole batch.
fn tail(disk: &MemDir, before: &Before, how: Forgery) -> Option<Must> {
    let active = before.facts.active.as_ref()?;
    let (segment, survey) = (&before.facts.segments[active.index], active.survey.as_ref()?);
    let segment_header = segment.good_header()?;
    let (end, lsn) = (survey.kept.end, survey.kept.last_lsn);
    let room = end + 8192 <= segment_header.records_end();
    if !survey.damages.is_empty() || survey.seal().is_some() || !room || survey.own.is_empty() {
        return None;
    }
    let own = own_payload(how, lsn, before.plan.head);
    let (payload, own) = (own.clone().unwrap_or_else(|| vec![7; 40]), own.is_some());
    let mut header = FrameHeader {
        payload_crc: format::crc32(&payload),
        lsn: if own { lsn } else { lsn + 1 },
        len: payload.len() as u32,
        durable_lag: 0,
        stream: 0,
        kind: if own { KIND_TRIM } else { 1 },
        flags: if own { 0 } else { FLAG_BATCH_FIRST },
        codec: 0,
    };
    let (mut salt, mut offset) = (segment_header.salt, end);
    match how {
        Forgery::Long => header.len = 3 << 30,
        Forgery::Lag => header.durable_lag = (end / format::ALIGN) as u32,
        Forgery::Rest => header.flags = 0,
        Forgery::Skip => header.lsn += 5,
        Forgery::Flag => header.flags |= 0x80,
        Forgery::Kind => header.kind = 0x8123,
        Forgery::OwnFlags => header.flags = FLAG_BATCH_FIRST,
        Forgery::Salt => salt ^= 0x5555_5555,
        Forgery::Place => offset += 64,
        _ => {}
    }
    let mut bytes = disk.bytes(&name(segment))?;
    let at = end as usize;
    let body = at + FRAME_HEADER_LEN;
    bytes.get_mut(at..body)?.copy_from_slice(&header.encode(salt, offset));
    bytes.get_mut(body..body + payload.len())?.copy_from_slice(&payload);
    disk.set_bytes(&name(segment), bytes);
    // Bytes that are no frame here may be a torn tail.
    let unreadable = matches!(how, Forgery::Salt | Forgery::Place);
    Some(if unreadable { Must::Either } else { Must::Refuse })
}

fn own_payload(how: Forgery, lsn: u64, true_head: Lsn) -> Option<Vec<u8>> {
    let head = |head| OwnBody {
        generation: Some(Generation::FIRST),
        head: Lsn::new(head),
        ..OwnBody::default()
    };
    let holds = |count: usize, len: usize| {
        let hold = |n| Hold { name: format!("{n:0len$}"), lsn: Lsn::FIRST };
        OwnBody { holds: (0..count).map(hold).collect(), ..head(1) }.encode()
    };
    Some(match how {
        Forgery::Field => [&99u16.to_le_bytes()[..], &4u32.to_le_bytes(), &[0; 4]].concat(),
        Forgery::FieldLength => [&2u16.to_le_bytes()[..], &64u32.to_le_bytes(), &[1; 8]].concat(),
        Forgery::FieldHead => [&head(1).encode()[..], &[1, 2, 3]].concat(),
        Forgery::HoldName => holds(1, 33),
        Forgery::Holds => holds(65, 8),
        Forgery::Head => head(lsn + 100).encode(),
        // Nothing is wrong with what these say.
        Forgery::Kind | Forgery::OwnFlags => head(true_head.get()).encode(),
        _ => return None,
    })
}

/// A segment's header, or what its file has beyond it.
fn header(disk: &MemDir, before: &Before, how: Forgery, random: &mut Random) -> Option<Must> {
    let active = before.active()?;
    let from = before.plan.below_head;
    // A spare after the active segment counts too.
    let last = before.facts.segments.len() - 1;
    let index = match how {
        Forgery::Capacity => active,
        Forgery::Grown => from + random.below((active - from + 1) as u64) as usize,
        _ => from + random.below((last - from + 1) as u64) as usize,
    };
    let segment = &before.facts.segments[index];
    let header = *segment.good_header()?;
    let mut bytes = disk.bytes(&name(segment))?;
    match how {
        Forgery::Capacity => set_header(&mut bytes, SegmentHeader { capacity: 1 << 30, ..header })?,
        Forgery::Log if last == from => return None,
        Forgery::Log => set_header(&mut bytes, SegmentHeader { log_id: LogId([9; 16]), ..header })?,
        Forgery::Grown => {
            let len = bytes.len().max(header.capacity as usize);
            bytes.resize(len, 0);
            bytes.extend_from_slice(&[3; 100]);
        }
        _ => {
            *bytes.get_mut(12)? |= 2;
            seal_header(&mut bytes);
        }
    }
    disk.set_bytes(&name(segment), bytes);
    Some(Must::Refuse)
}

fn set_header(bytes: &mut [u8], header: SegmentHeader) -> Option<()> {
    bytes.get_mut(..SEGMENT_HEADER_LEN)?.copy_from_slice(&header.encode());
    Some(())
}

/// A header's checksum over what it now says.
pub(crate) fn seal_header(bytes: &mut [u8]) {
    if bytes.len() >= SEGMENT_HEADER_LEN {
        let crc = format::crc32(&bytes[..SEGMENT_HEADER_LEN - 4]);
        bytes[SEGMENT_HEADER_LEN - 4..SEGMENT_HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    }
}

/// An open record or a seal: what makes one log of the segments.
fn chain(disk: &MemDir, before: &Before, how: Forgery, random: &mut Random) -> Option<Must> {
    let active = before.active()?;
    let from = before.plan.below_head;
    let of_sealed = |least: usize| {
        let count = active.checked_sub(from + least).filter(|count| *count > 0)?;
        Some(from + least + random.clone().below(count as u64) as usize)
    };
    let index = match how {
        // What came before a later one may be trimmed, and then nobody can tell.
        Forgery::Predecessor if before.facts.segments[active].sequence == Sequence::FIRST => active,
        Forgery::Predecessor => return None,
        // Its LSN stands against the seal before it.
        Forgery::Lsn => of_sealed(1)?,
        _ => of_sealed(0)?,
    };
    let segment = &before.facts.segments[index];
    if how == Forgery::Digest && before.facts.segments[index + 1].open.is_none() {
        // A torn open record names nothing; it is written anew.
        return None;
    }
    let own = match how {
        Forgery::Digest | Forgery::Seal => segment.seal.as_ref()?,
        _ => segment.open.as_ref()?,
    };
    let mut forged = own.clone();
    let mut len = None;
    match how {
        Forgery::Digest => *forged.body.seal.as_mut()?.digest.bytes.first_mut()? ^= 1,
        Forgery::Seal => forged.body.seal.as_mut()?.salt ^= 1,
        Forgery::Lsn => forged.lsn += 1,
        Forgery::Open => len = Some(u32::MAX - 64),
        _ => {
            // As long as what it replaces: a generation and a head.
            let digest = format::Digest { algorithm: 2, bytes: vec![1; 5] };
            let sequence = segment.sequence;
            let previous = SealReference { sequence, offset: FRAMES_START, digest };
            forged.body = OwnBody { previous: Some(previous), ..OwnBody::default() };
        }
    }
    rewrite(disk, segment, own, &forged, len)?;
    Some(Must::Refuse)
}

/// Puts an own record in the place of another of the same length.
fn rewrite(
    disk: &MemDir,
    segment: &SegmentFacts,
    own: &OwnRecord,
    forged: &OwnRecord,
    len: Option<u32>,
) -> Option<()> {
    let salt = segment.good_header()?.salt;
    let mut bytes = disk.bytes(&name(segment))?;
    let at = own.offset as usize;
    let head: &[u8; FRAME_HEADER_LEN] = bytes.get(at..)?.first_chunk()?;
    let header = FrameHeader::decode(head, salt, own.offset)?;
    let mut payload = forged.body.encode();
    // Filled up with a field that readers may ignore, which says how long it is.
    let missing = (header.len as usize).checked_sub(payload.len())?;
    if missing > 0 {
        let value = missing.checked_sub(6)?;
        payload.extend_from_slice(&0x8001u16.to_le_bytes());
        payload.extend_from_slice(&(value as u32).to_le_bytes());
        payload.resize(payload.len() + value, 0);
    }
    let crc = format::crc32(&payload);
    let len = len.unwrap_or(header.len);
    let header = FrameHeader { payload_crc: crc, lsn: forged.lsn, len, ..header };
    bytes.get_mut(at..at + FRAME_HEADER_LEN)?.copy_from_slice(&header.encode(salt, own.offset));
    let body = at + FRAME_HEADER_LEN;
    bytes.get_mut(body..body + payload.len())?.copy_from_slice(&payload);
    debug_assert!(matches!(header.kind, KIND_OPEN | KIND_SEAL));
    disk.set_bytes(&name(segment), bytes);
    Some(())
}

/// A registry snapshot that nobody wrote.
fn snapshot(disk: &MemDir, before: &Before, how: Forgery) -> Option<Must> {
    let active = before.active()?;
    let log_id = before.facts.segments[active].good_header()?.log_id;
    let beyond = Lsn::new(before.plan.last_lsn + 3)?;
    let header = |log_id, lsn| SnapshotHeader { log_id, lsn, generation: Generation::FIRST };
    let (bytes, must) = match how {
        Forgery::Snapshot => (header(log_id, beyond).encode().to_vec(), Must::Refuse),
        Forgery::ForeignSnapshot => {
            (header(LogId([9; 16]), Lsn::FIRST).encode().to_vec(), Must::Refuse)
        }
        _ => (vec![1; 50], Must::Open),
    };
    disk.create("registry-1.snap").ok()?.write_at(&bytes, 0).ok()?;
    disk.sync(SyncPoint::Published).ok()?;
    Some(must)
}

/// Puts back an older state of the active segment: a shorter one, by whole batches. What is not of
/// the same file proves nothing: the log opens.
pub(crate) fn restore(disk: &MemDir, before: &Before, random: &mut Random) -> Option<Done> {
    let active = before.facts.active.as_ref()?;
    let (segment, survey) = (&before.facts.segments[active.index], active.survey.as_ref()?);
    let bytes = disk.bytes(&name(segment))?;
    let header = segment.good_header()?;
    let mut walker = annals_wal::scan::Walker::new(bytes.as_slice(), header);
    // Never before the last own record: head and holds stand there.
    let first = survey.own.last()?.offset;
    let mut ends = Vec::new();
    while let Ok(Some(step)) = walker.step() {
        let annals_wal::scan::Step::Frame(frame) = step else { break };
        if frame.offset >= first && !frame.header.goes_on() && frame.end() < survey.kept.end {
            ends.push(frame.end() as usize);
        }
    }
    let end = *ends.get(random.below(ends.len().max(1) as u64) as usize)?;
    let mut older = bytes;
    older[end..].fill(0);
    let file = if random.one_in(2) { format::CONTROL_NAME } else { &name(segment) };
    // The block is another file than it says, or it speaks of another file than this.
    disk.replace(file);
    disk.set_bytes(&name(segment), older);
    Some(Done { told: format!("older bytes to {end}, {file} replaced"), must: Must::Open })
}

fn name(segment: &SegmentFacts) -> String {
    format::segment_name(segment.sequence)
}
