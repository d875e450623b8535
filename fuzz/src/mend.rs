//! Mends checksums in any bytes, so that what lies behind them is reached: without this no
//! mutation gets past the first CRC.
//!
//! Never here: honesty. Only checksums are made to hold; lengths, LSNs, flags and lags stay as
//! the fuzzer made them.

use annals_wal::format::{
    self, Control, FRAME_HEADER_LEN, FrameHeader, HeaderVerdict, SEGMENT_HEADER_LEN, SegmentHeader,
};
use annals_wal::{LogId, Sequence};

/// The one log that forged files belong to.
pub const LOG_ID: LogId = LogId([9; 16]);

/// Puts a sound header in front: capacity and salt from the bytes, as far as they can be.
pub fn mend_header(file: &mut Vec<u8>, sequence: u64) -> SegmentHeader {
    let header = match SegmentHeader::decode(file) {
        HeaderVerdict::Good(header) => header,
        _ => {
            let byte = file.first().copied().unwrap_or(0);
            SegmentHeader {
                shared: false,
                compatible: 0,
                log_id: LOG_ID,
                sequence: Sequence::new(sequence).unwrap_or(Sequence::FIRST),
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

/// Makes the checksums of the frames hold, headers and payloads.
pub fn mend_frames(file: &mut [u8], header: &SegmentHeader) {
    let mut at = SEGMENT_HEADER_LEN;
    while let Some(end) = mend_frame(file, header.salt, at) {
        at = end;
    }
}

/// Makes the checksums of the frame at `at` hold; where the next one begins, unless there is
/// nothing but zeros or no room for a header.
pub fn mend_frame(file: &mut [u8], salt: u32, at: usize) -> Option<usize> {
    let head: [u8; FRAME_HEADER_LEN] = *file.get(at..)?.first_chunk()?;
    if head.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut frame = fields(&head);
    let body = at + FRAME_HEADER_LEN;
    if let Some(payload) = file.get(body..body.saturating_add(frame.len as usize)) {
        frame.payload_crc = format::crc32(payload);
    }
    file[at..body].copy_from_slice(&frame.encode(salt, at as u64));
    Some(at.saturating_add(frame.frame_size() as usize))
}

/// The fields of a frame header, whatever its checksum.
fn fields(head: &[u8; FRAME_HEADER_LEN]) -> FrameHeader {
    let long = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    FrameHeader {
        payload_crc: long(4),
        lsn: u64::from(long(8)) | u64::from(long(12)) << 32,
        len: long(16),
        durable_lag: long(20),
        stream: long(24),
        kind: u16::from_le_bytes([head[28], head[29]]),
        flags: head[30],
        codec: head[31],
    }
}

/// The last four bytes of a 128-byte block become the checksum of the rest: segment headers,
/// control blocks, snapshot headers.
pub fn mend_block(block: &mut [u8]) {
    if let Some(block) = block.first_chunk_mut::<{ format::CONTROL_LEN }>() {
        let crc = format::crc32(&block[..format::CONTROL_LEN - 4]);
        block[format::CONTROL_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A control block with a good checksum that was written for these very files.
pub fn at_home(mut control: Control, own: format::Identity, segment: format::Identity) -> Control {
    (control.own, control.segment) = (own, segment);
    control
}
