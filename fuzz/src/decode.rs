//! Every decoder of the format on any bytes, as they come and with their checksums mended; what is
//! understood survives being written again.

use annals_wal::format::{
    self, Control, FRAME_HEADER_LEN, FrameHeader, HeaderVerdict, Name, OwnBody, SegmentHeader,
    SnapshotHeader,
};

use crate::memory::measured;
use crate::mend;

/// The body of the target `decode`.
pub fn decode(bytes: &[u8]) {
    blocks(bytes);
    let mut mended = bytes.to_vec();
    mend::mend_block(&mut mended);
    blocks(&mended);
    for (magic, len) in
        [(format::SEGMENT_MAGIC, 10), (format::CONTROL_MAGIC, 10), (format::SNAPSHOT_MAGIC, 10)]
    {
        if mended.len() >= format::CONTROL_LEN {
            mended[..8].copy_from_slice(&magic);
            mended[8..len].copy_from_slice(&format::VERSION.to_le_bytes());
            mend::mend_block(&mut mended);
            blocks(&mended);
        }
    }
    own_body(bytes);
    frame(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        name(text);
    }
}

/// The three blocks of 128 bytes.
fn blocks(bytes: &[u8]) {
    match SegmentHeader::decode(bytes) {
        HeaderVerdict::Good(header) => {
            assert_eq!(SegmentHeader::decode(&header.encode()), HeaderVerdict::Good(header));
            assert!(format::check_capacity(header.capacity).is_ok());
            assert!(header.records_end() < header.own_records_end());
            assert!(header.own_records_end() < header.capacity);
        }
        HeaderVerdict::Bad(_) | HeaderVerdict::Unsupported(_) => {}
    }
    if let Some(control) = Control::decode(bytes) {
        assert_eq!(Control::decode(&control.encode()), Some(control));
    }
    if let Some(snapshot) = SnapshotHeader::decode(bytes) {
        assert_eq!(SnapshotHeader::decode(&snapshot.encode()), Some(snapshot));
    }
}

/// A list of lengths and values: nothing is reserved for a length that lies.
fn own_body(bytes: &[u8]) {
    let (body, used) = measured(|| OwnBody::decode(bytes));
    // A hold of a one-byte name takes 15 bytes here and about 40 in memory.
    assert!(used.peak <= 8 * bytes.len() + 4096, "{used:?} for {} bytes", bytes.len());
    let Ok(body) = body else { return };
    let encoded = body.encode();
    assert_eq!(OwnBody::decode(&encoded).ok(), Some(body.clone()));
    // The LSNs of a seal (22 bytes) are written also where they were left out.
    assert!(encoded.len() <= bytes.len() + 22, "writing it again makes it longer");
}

fn frame(bytes: &[u8]) {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER_LEN>() else { return };
    for (salt, offset) in [(7, 128), (0, 1 << 20), (u32::MAX, u64::from(u32::MAX) * 8)] {
        let mut file = vec![0; 128];
        file.extend_from_slice(head);
        mend::mend_frame(&mut file, salt, 128);
        let mended: [u8; FRAME_HEADER_LEN] = *file[128..].first_chunk().expect("32 bytes");
        for head in [head, &mended] {
            let Some(frame) = FrameHeader::decode(head, salt, offset) else { continue };
            assert_eq!(frame.encode(salt, offset), *head, "every bit of a header is a field");
            assert!(frame.frame_size() >= FRAME_HEADER_LEN as u64 + u64::from(frame.len));
            assert!(frame.frame_size().is_multiple_of(format::ALIGN));
            let _ = (frame.is_own(), frame.unsupported(), frame.goes_on());
            // In another place it is no frame, whatever it says.
            if offset >= 8 {
                assert_eq!(FrameHeader::decode(head, salt, offset - 8), None);
            }
        }
        if mended != [0; FRAME_HEADER_LEN] {
            assert!(FrameHeader::decode(&mended, salt, 128).is_some());
        }
    }
}

/// What is a name of ours comes back from the number in it.
fn name(text: &str) {
    match format::parse_name(text) {
        Some(Name::Segment(sequence)) => assert_eq!(format::segment_name(sequence), text),
        Some(Name::SegmentTmp(sequence)) => assert_eq!(format::segment_tmp_name(sequence), text),
        Some(Name::Lock) => assert_eq!(text, format::LOCK_NAME),
        Some(Name::Control) => assert_eq!(text, format::CONTROL_NAME),
        Some(Name::Archive) => assert_eq!(text, format::ARCHIVE_NAME),
        Some(Name::Snapshot(lsn)) => {
            let digits = text.trim_start_matches("registry-").trim_end_matches(".snap");
            assert_eq!(digits.trim_start_matches('0'), lsn.to_string().trim_start_matches('0'));
        }
        Some(Name::Append | Name::Cut | Name::ObserverLock | Name::SnapshotTmp) | None => {}
    }
}
