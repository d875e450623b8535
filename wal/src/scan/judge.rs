//! What is wrong with a frame whose header checksum holds: by itself, after the frames before it,
//! in its payload.
//!
//! Never here: what follows from it. Invariant: nothing moves; a frame is judged where it stands. Next
//! room: [`crate::scan`].

use std::io;

use super::aside::Aside;
use super::{Batch, LastLsn, Sound, Source, Trouble, Walker};
use crate::format::{FRAME_HEADER_LEN, FrameHeader, KIND_SEAL, SegmentHeader};
use crate::mutant;

/// Ends of what records, own records and the seal may take of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    records: u64,
    own_records: u64,
    seal: u64,
}

impl Limits {
    pub(super) fn by(header: &SegmentHeader) -> Limits {
        Limits {
            records: header.records_end(),
            own_records: header.own_records_end(),
            seal: header.capacity,
        }
    }

    pub(super) fn of(&self, header: &FrameHeader) -> u64 {
        match header.kind {
            KIND_SEAL => self.seal,
            _ if header.is_own() => self.own_records,
            _ => self.records,
        }
    }
}

impl<S: Source> Walker<S> {
    /// Judges a frame against what came before it and reads its body. It comes by value, as it was
    /// decoded: read back from the walker it costs 3 % of a scan, and copied from there as a whole 10.
    #[inline(always)]
    pub(super) fn judge(&mut self, frame: Sound, with_body: bool) -> Result<(), Aside> {
        if let Some(what) = frame.header.unsupported() {
            return Err(Aside::Trouble(Trouble::Unsupported(what)));
        }
        if let Some(why) = self.impossible(frame) {
            return Err(Aside::Trouble(Trouble::Impossible(why)));
        }
        match self.body_trouble(frame, with_body) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(Aside::Trouble(Trouble::Tearable(why))),
            Err(error) => Err(Aside::Failed(error)),
        }
    }

    /// [`Walker::judge`] for the log's own records, which are few among many records.
    #[cold]
    pub(super) fn judge_own(&mut self, frame: Sound) -> Result<(), Aside> {
        self.judge(frame, true)
    }

    #[inline(always)]
    fn impossible(&self, frame: Sound) -> Option<&'static str> {
        let header = &frame.header;
        if self.sealed {
            return Some("a frame stands after the seal");
        }
        if frame.end() > self.limits.of(header) && !mutant::is("length:frame-in-segment") {
            return Some("the frame reaches beyond what its kind may take of the segment");
        }
        if frame.witness().is_none() && !mutant::is("lag:impossible") {
            return Some("the durable lag points before the first frame");
        }
        if header.is_own() {
            if self.in_batch == Batch::Inside {
                return Some("one of the log's own records stands inside a batch");
            }
            if header.flags != 0 && !mutant::is("flags:own-record") {
                return Some("one of the log's own records carries batch flags");
            }
        } else if mutant::is("batch:begin") {
        } else if self.in_batch == Batch::Between && !header.is_batch_first() {
            return Some("a batch goes on that never began");
        } else if self.in_batch == Batch::Inside && header.is_batch_first() {
            return Some("a batch begins inside another");
        }
        if self.lsn_follows(header, frame.offset) || mutant::is("lsn:any") {
            None
        } else {
            Some("the LSN does not follow the one before")
        }
    }

    /// Records count up by one; own records repeat the last record's LSN.
    #[inline(always)]
    pub(super) fn lsn_follows(&self, header: &FrameHeader, offset: u64) -> bool {
        let step = u64::from(!header.is_own());
        if step == 1 && header.lsn == 0 {
            return false;
        }
        match self.last_lsn {
            LastLsn::Unknown => true,
            LastLsn::Exactly(last) => last.checked_add(step) == Some(header.lsn),
            LastLsn::AtLeast { lsn, skipped_from } => {
                let skipped_max = offset.saturating_sub(skipped_from) / FRAME_HEADER_LEN as u64;
                let low = lsn.saturating_add(step);
                let high = low.saturating_add(skipped_max);
                (low..=high).contains(&header.lsn)
            }
        }
    }

    #[inline(always)]
    fn body_trouble(&mut self, frame: Sound, with_body: bool) -> io::Result<Option<&'static str>> {
        let header = &frame.header;
        if frame.end() > self.source.len() && !mutant::is("length:frame-in-file") {
            return Ok(Some("the file ends inside the frame"));
        }
        if !with_body {
            return Ok(None);
        }
        let (len, payload_crc) = (header.len as usize, header.payload_crc);
        let padding = header.frame_size() as usize - FRAME_HEADER_LEN - len;
        let mut digest = self.digest.clone();
        let body = self.source.bytes(frame.offset + FRAME_HEADER_LEN as u64, len + padding)?;
        let (payload, padding) = body.split_at(len);
        digest.update(payload);
        let sound = digest.finalize() == payload_crc;
        if !sound && !mutant::is("checksum:payload") {
            return Ok(Some("the payload's checksum is wrong"));
        }
        if padding.iter().any(|byte| *byte != 0) && !mutant::is("padding:anything") {
            return Ok(Some("the padding after the payload is not zero"));
        }
        Ok(None)
    }
}
