//! Whether one flipped bit explains a wrong checksum.
//!
//! Never here: mending. With 32 bits of checksum one flip in a payload of n bytes explains a random
//! mismatch by chance with a probability of 8n / 2^32: one in 64 Ki for 8 KiB. So it is a
//! diagnosis, and [`chance`] says how good. Invariant: linear in the bytes looked at. Next room:
//! [`super::judge`].

use crate::crc;
use crate::format::{
    self, FRAME_HEADER_LEN, FrameHeader, HeaderVerdict, SEGMENT_HEADER_LEN, SegmentHeader,
};

/// One bit of a file that is not what it should be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Flip {
    /// Offset of its byte in the file.
    pub byte: u64,
    /// Which of its bits, 0 the least.
    pub bit: u8,
    /// The probability that some flip explains a random mismatch of as many bytes.
    pub chance: f64,
}

impl Flip {
    fn at(byte: u64, bit: u32, len: usize) -> Flip {
        Flip { byte, bit: bit as u8, chance: chance(len) }
    }
}

fn chance(len: usize) -> f64 {
    len as f64 * 8.0 / 4_294_967_296.0
}

/// The flip in a payload at `offset` that explains why it has not this checksum. The checksum itself
/// stands in the frame's header, whose own checksum holds.
pub(crate) fn in_payload(payload: &[u8], offset: u64, expected: u32) -> Option<Flip> {
    let syndrome = format::crc32(payload) ^ expected;
    if syndrome == 0 {
        return None;
    }
    // What a flip of each bit of the last byte does, then of the one before, and so on.
    let mut effects = [0; 8];
    for (bit, effect) in effects.iter_mut().enumerate() {
        *effect = crc::one_byte_later(1 << bit);
    }
    for at in (0..payload.len()).rev() {
        if let Some(bit) = effects.iter().position(|effect| *effect == syndrome) {
            return Some(Flip::at(offset + at as u64, bit as u32, payload.len()));
        }
        effects = effects.map(crc::one_byte_later);
    }
    None
}

/// The flip in a frame header at `offset` after which it is sound, and that header; `fits` says
/// whether such a header could stand there.
pub(crate) fn in_frame_header(
    bytes: &[u8; FRAME_HEADER_LEN],
    salt: u32,
    offset: u64,
    fits: impl Fn(&FrameHeader) -> bool,
) -> Option<(Flip, FrameHeader)> {
    let mut bytes = *bytes;
    for bit in 0..FRAME_HEADER_LEN * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Some(header) = FrameHeader::decode(&bytes, salt, offset)
            && header.unsupported().is_none()
            && fits(&header)
        {
            let byte = offset + bit as u64 / 8;
            return Some((Flip::at(byte, bit as u32 % 8, FRAME_HEADER_LEN), header));
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

/// The flip in a segment header after which it is good.
pub(crate) fn in_segment_header(bytes: &[u8]) -> Option<(Flip, SegmentHeader)> {
    let mut bytes: [u8; SEGMENT_HEADER_LEN] = bytes.get(..SEGMENT_HEADER_LEN)?.try_into().ok()?;
    for bit in 0..SEGMENT_HEADER_LEN * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let HeaderVerdict::Good(header) = SegmentHeader::decode(&bytes) {
            return Some((Flip::at(bit as u64 / 8, bit as u32 % 8, SEGMENT_HEADER_LEN), header));
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    None
}
