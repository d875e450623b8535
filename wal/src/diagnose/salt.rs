//! What a frame header tells of the place it was written for; and a segment's salt from its frames.
//!
//! A checksum is one to one in its seed, and a header's seed is its segment's salt and its own
//! offset. So a segment whose header is lost can still be read: its frames name its salt, each for
//! itself. And a frame that was written elsewhere says where. Never here: belief in one header
//! alone; a payload's checksum, or several headers, must agree. Invariant: work is linear in the
//! bytes, whatever they are. Next rooms: [`super::judge`], [`crate::salvage`].

use std::collections::HashMap;
use std::io;

use crate::crc;
use crate::format::{
    self, ALIGN, FRAME_HEADER_LEN, FRAMES_START, FrameHeader, KIND_SEAL, OwnBody, SegmentHeader,
};
use crate::ids::{LogId, Sequence};
use crate::scan::Source;

/// A salt that may be met: whose it is, and how far its segment reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) sequence: Sequence,
    pub(crate) salt: u32,
    pub(crate) capacity: u64,
}

/// The seed of a header, if these bytes were one.
pub(crate) fn seed(bytes: &[u8; FRAME_HEADER_LEN]) -> u32 {
    let crc = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut covered = [0; crc::COVERED];
    covered.copy_from_slice(&bytes[4..]);
    crc::seed_of(crc, &covered)
}

/// Where a frame that stands somewhere else now was written: segment and offset. `bytes` begin with
/// its header.
pub(crate) fn home(bytes: &[u8], known: &[Known]) -> Option<(Sequence, u64)> {
    let head = bytes.first_chunk::<FRAME_HEADER_LEN>()?;
    if *head == [0; FRAME_HEADER_LEN] {
        return None;
    }
    let header = FrameHeader::parse(head);
    let seed = seed(head);
    let place = |known: &&Known| {
        let offset = u64::from(seed ^ known.salt) * ALIGN;
        let inside = offset >= FRAMES_START
            && offset.saturating_add(header.frame_size()) <= known.capacity
            && u64::from(header.durable_lag) <= (offset - FRAMES_START) / ALIGN;
        inside && header.unsupported().is_none()
    };
    let known = known.iter().find(place)?;
    let payload = bytes.get(FRAME_HEADER_LEN..)?.get(..header.len as usize);
    // A header of 32 bytes that fits by chance is one in thousands; a payload settles it.
    let sure = match payload {
        Some(payload) => format::crc32(payload) == header.payload_crc,
        None => header.lsn > 0 && header.lsn < 1 << 48 && u64::from(header.len) < known.capacity,
    };
    sure.then(|| (known.sequence, u64::from(seed ^ known.salt) * ALIGN))
}

/// At most so many different salts are counted.
const CANDIDATES_MAX: usize = 1 << 20;

/// The header of a segment whose own cannot be read, from its frames: salt, and from the seal the
/// log's id. `None` if they do not agree on one.
pub(crate) fn header_from_frames(
    source: &mut impl Source,
    sequence: Sequence,
    log_id: LogId,
) -> io::Result<Option<SegmentHeader>> {
    let len = source.len();
    let mut votes: HashMap<u32, (u32, u64)> = HashMap::new();
    let mut at = FRAMES_START;
    while at + FRAME_HEADER_LEN as u64 <= len {
        let bytes = source.bytes(at, FRAME_HEADER_LEN)?;
        if let Some(head) = bytes.first_chunk::<FRAME_HEADER_LEN>()
            && could_be(head, at, len)
        {
            let salt = seed(head) ^ (at / ALIGN) as u32;
            if votes.len() < CANDIDATES_MAX || votes.contains_key(&salt) {
                votes.entry(salt).or_insert((0, at)).0 += 1;
            }
        }
        at += ALIGN;
    }
    let best = votes.into_iter().max_by_key(|(salt, (votes, _))| (*votes, *salt));
    let Some((salt, (votes, at))) = best else { return Ok(None) };
    if votes < 3 && !payload_holds(source, at)? {
        return Ok(None);
    }
    let mut header = SegmentHeader {
        shared: false,
        compatible: 0,
        log_id,
        sequence,
        // Not known, and only limits hang on it: so large that none of them bites.
        capacity: (2 * len).max(format::CAPACITY_MIN).next_multiple_of(format::CAPACITY_STEP),
        salt,
        created_ms: 0,
    };
    // With the salt known a walk finds the seal, which says whose it is.
    if let Some(body) = seal_of(source, &header)? {
        header.log_id = body;
    }
    Ok(Some(header))
}

/// What no header of ours says is none.
fn could_be(head: &[u8; FRAME_HEADER_LEN], at: u64, len: u64) -> bool {
    let header = FrameHeader::parse(head);
    let fits = at.saturating_add(header.frame_size()) <= len;
    let lag = u64::from(header.durable_lag) <= (at - FRAMES_START) / ALIGN;
    fits && lag && header.unsupported().is_none() && *head != [0; FRAME_HEADER_LEN]
}

fn payload_holds(source: &mut impl Source, at: u64) -> io::Result<bool> {
    let head = source.bytes(at, FRAME_HEADER_LEN)?;
    let Some(head) = head.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(false) };
    let header = FrameHeader::parse(head);
    let payload = source.bytes(at + FRAME_HEADER_LEN as u64, header.len as usize)?;
    Ok(header.len > 0 && format::crc32(payload) == header.payload_crc)
}

fn seal_of(source: &mut impl Source, header: &SegmentHeader) -> io::Result<Option<LogId>> {
    let mut at = FRAMES_START;
    let len = source.len();
    while at + FRAME_HEADER_LEN as u64 <= len {
        let bytes = source.bytes(at, FRAME_HEADER_LEN)?;
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(None) };
        let Some(frame) = FrameHeader::decode(bytes, header.salt, at) else {
            at += ALIGN;
            continue;
        };
        let end = at.saturating_add(frame.frame_size());
        if frame.kind == KIND_SEAL && end <= len {
            let payload = source.bytes(at + FRAME_HEADER_LEN as u64, frame.len as usize)?;
            let body = OwnBody::decode(payload).ok().and_then(|body| body.seal);
            return Ok(body.map(|seal| seal.log_id));
        }
        at = end.max(at + ALIGN);
    }
    Ok(None)
}
