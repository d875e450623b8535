//! What a caller hands in: records and batches, their payload checksum taken before any lock.
//!
//! Never here: LSNs, offsets, salts. Those exist only once the queue has given the batch a place
//! ([`crate::queue`]); the leader of a group stamps them ([`crate::commit`]).
//! Invariant: an [`EncodedBatch`] is a contiguous run of whole frames, headers still blank where
//! the place matters.

use crate::error::{Error, Result};
use crate::format::{self, FrameHeader};
use crate::ids::Lsn;

/// What a record is about, for filters and decoders. The top bit belongs to the log itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(u16);

impl Kind {
    /// No kind given.
    pub const UNTYPED: Kind = Kind(0);

    /// A kind by number: 0x0100.. is the registry's, 0x0200.. the observer's, 0x1000..=0x7FFF are
    /// free for users. `None` from 0x8000 on: those are the log's own records.
    pub const fn new(value: u16) -> Option<Kind> {
        if value & format::OWN_KIND_BIT == 0 { Some(Kind(value)) } else { None }
    }

    /// The plain number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A caller's tag, used to skip records without reading their payload; 0 is none.
///
/// It is a filter and not an identity: two names may share a tag, so what it stands for is
/// always compared again in the payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stream(pub u32);

impl Stream {
    /// No tag.
    pub const NONE: Stream = Stream(0);
}

/// How the payload is encoded. The log stores the number and never looks inside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Codec(pub u8);

impl Codec {
    /// Bytes of no declared shape.
    pub const RAW: Codec = Codec(0);
    /// bincode in its legacy layout: little endian, fixed-width integers.
    pub const BINCODE: Codec = Codec(1);
    /// UTF-8 JSON text.
    pub const JSON: Codec = Codec(2);
}

/// One record to append: an opaque payload with its kind, stream tag and codec.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    payload: Vec<u8>,
    kind: Kind,
    stream: Stream,
    codec: Codec,
}

impl Record {
    /// A record of untyped raw bytes. An empty payload is a record like any other.
    pub fn new(payload: impl Into<Vec<u8>>) -> Record {
        Record {
            payload: payload.into(),
            kind: Kind::UNTYPED,
            stream: Stream::NONE,
            codec: Codec::RAW,
        }
    }

    /// The same record with this kind.
    pub fn kind(mut self, kind: Kind) -> Record {
        self.kind = kind;
        self
    }

    /// The same record with this stream tag.
    pub fn stream(mut self, stream: Stream) -> Record {
        self.stream = stream;
        self
    }

    /// The same record with this codec.
    pub fn codec(mut self, codec: Codec) -> Record {
        self.codec = codec;
        self
    }
}

impl<T: Into<Vec<u8>>> From<T> for Record {
    fn from(payload: T) -> Record {
        Record::new(payload)
    }
}

/// Records that become durable together or not at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    records: Vec<Record>,
}

impl Batch {
    /// An empty batch. Appending it while it is still empty is an error, not a no-op.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a record at the end.
    pub fn push(&mut self, record: impl Into<Record>) {
        self.records.push(record.into());
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Lays the batch out as frames and takes every payload checksum: the expensive part of an
    /// append, done on the caller's thread and outside every lock.
    ///
    /// `record_bytes_max` is the cap of [`crate::Options::record_bytes_max`].
    ///
    /// # Errors
    /// `Invalid` for an empty batch, `TooLarge` for a payload over the cap.
    pub fn encode(&self, record_bytes_max: u32) -> Result<EncodedBatch> {
        let last = self.records.len().checked_sub(1).ok_or_else(|| {
            Error::invalid("the batch is empty: add at least one record before appending it")
        })?;
        let mut frames = Vec::with_capacity(self.frame_bytes());
        for (index, record) in self.records.iter().enumerate() {
            let len = u32::try_from(record.payload.len())
                .ok()
                .filter(|len| *len <= record_bytes_max)
                .ok_or_else(|| Error::record_too_large(record.payload.len(), record_bytes_max))?;
            let mut flags = 0;
            if index == 0 {
                flags |= format::FLAG_BATCH_FIRST;
            }
            if index != last {
                flags |= format::FLAG_BATCH_GOES_ON;
            }
            let header = FrameHeader {
                payload_crc: format::crc32(&record.payload),
                lsn: 0,
                len,
                durable_lag: 0,
                stream: record.stream.0,
                kind: record.kind.get(),
                flags,
                codec: record.codec.0,
            };
            format::push_frame(&mut frames, &header, &record.payload);
        }
        Ok(EncodedBatch { frames, count: self.records.len() as u64 })
    }

    fn frame_bytes(&self) -> usize {
        self.records.iter().map(|r| format::frame_size_usize(r.payload.len())).sum()
    }
}

impl From<Record> for Batch {
    fn from(record: Record) -> Batch {
        Batch { records: vec![record] }
    }
}

impl FromIterator<Record> for Batch {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Batch {
        Batch { records: records.into_iter().collect() }
    }
}

/// A batch laid out as frames, waiting for its place. [`crate::Slot::push`] empties it.
#[derive(Debug, Default)]
pub struct EncodedBatch {
    pub(crate) frames: Vec<u8>,
    pub(crate) count: u64,
}

impl EncodedBatch {
    /// Bytes it takes in a segment: headers, payloads and padding.
    pub fn len_bytes(&self) -> u64 {
        self.frames.len() as u64
    }

    /// How many records it holds; 0 after it was pushed.
    pub fn records(&self) -> u64 {
        self.count
    }
}

/// A record as read back, its checksums verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRecord {
    /// Its number.
    pub lsn: Lsn,
    /// Its kind.
    pub kind: Kind,
    /// Its stream tag.
    pub stream: Stream,
    /// Its codec.
    pub codec: Codec,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
}
