//! What a caller hands in: records and batches, their payload checksum taken before any lock.
//!
//! Never here: LSNs, offsets, salts. Those exist only once the queue has given the batch a place
//! ([`crate::queue`]); the leader of a group stamps them ([`crate::commit`]).
//! Invariant: an [`EncodedBatch`] is a contiguous run of whole frames, headers still blank where
//! the place matters.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::format::{self, FrameHeader};
use crate::ids::Lsn;

/// What a record is about, for filters and decoders. The top bit belongs to the log itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(u16);

impl Kind {
    /// No kind given.
    pub const UNTYPED: Kind = Kind(0);

    /// Stands for a record that a salvage could not read: empty, because LSNs have no holes.
    pub const LOST: Kind = Kind(0x00FF);

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

/// One record to append: an opaque payload with its kind, stream tag and codec. The payload is
/// borrowed where it can be: appending a slice copies it once, into the group that is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    payload: Cow<'a, [u8]>,
    kind: Kind,
    stream: Stream,
    codec: Codec,
}

/// Bytes that a [`Record`] may carry, borrowed or given.
pub trait Payload<'a> {
    /// The bytes.
    fn into_bytes(self) -> Cow<'a, [u8]>;
}

macro_rules! payloads {
    ($($given:ty => |$value:ident| $bytes:expr;)*) => {$(
        impl<'a> Payload<'a> for $given {
            fn into_bytes(self) -> Cow<'a, [u8]> {
                let $value = self;
                $bytes
            }
        }
    )*};
}

payloads! {
    &'a [u8] => |bytes| Cow::Borrowed(bytes);
    &'a Vec<u8> => |bytes| Cow::Borrowed(bytes);
    &'a str => |text| Cow::Borrowed(text.as_bytes());
    &'a String => |text| Cow::Borrowed(text.as_bytes());
    Vec<u8> => |bytes| Cow::Owned(bytes);
    String => |text| Cow::Owned(text.into_bytes());
    Box<[u8]> => |bytes| Cow::Owned(bytes.into_vec());
    Cow<'a, [u8]> => |bytes| bytes;
}

impl<'a, const N: usize> Payload<'a> for &'a [u8; N] {
    fn into_bytes(self) -> Cow<'a, [u8]> {
        Cow::Borrowed(self)
    }
}

impl<'a, const N: usize> Payload<'a> for [u8; N] {
    fn into_bytes(self) -> Cow<'a, [u8]> {
        Cow::Owned(self.to_vec())
    }
}

impl<'a> Record<'a> {
    /// A record of untyped raw bytes. An empty payload is a record like any other.
    pub fn new(payload: impl Payload<'a>) -> Record<'a> {
        Record {
            payload: payload.into_bytes(),
            kind: Kind::UNTYPED,
            stream: Stream::NONE,
            codec: Codec::RAW,
        }
    }

    /// The same record with this kind.
    pub fn kind(mut self, kind: Kind) -> Record<'a> {
        self.kind = kind;
        self
    }

    /// The same record with this stream tag.
    pub fn stream(mut self, stream: Stream) -> Record<'a> {
        self.stream = stream;
        self
    }

    /// The same record with this codec.
    pub fn codec(mut self, codec: Codec) -> Record<'a> {
        self.codec = codec;
        self
    }

    /// The same record with a payload of its own.
    pub fn into_owned(self) -> Record<'static> {
        Record { payload: Cow::Owned(self.payload.into_owned()), ..self }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Its header with the payload's checksum, blank where the place matters.
    pub(crate) fn header(&self, flags: u8, record_bytes_max: u32) -> Result<FrameHeader> {
        let len = u32::try_from(self.payload.len())
            .ok()
            .filter(|len| *len <= record_bytes_max)
            .ok_or_else(|| Error::record_too_large(self.payload.len(), record_bytes_max))?;
        Ok(FrameHeader {
            payload_crc: format::crc32(&self.payload),
            lsn: 0,
            len,
            durable_lag: 0,
            stream: self.stream.0,
            kind: self.kind.get(),
            flags,
            codec: self.codec.0,
        })
    }
}

impl<'a, T: Payload<'a>> From<T> for Record<'a> {
    fn from(payload: T) -> Record<'a> {
        Record::new(payload)
    }
}

/// Records that become durable together or not at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch<'a> {
    records: Vec<Record<'a>>,
}

impl<'a> Batch<'a> {
    /// An empty batch. Appending it while it is still empty is an error, not a no-op.
    pub fn new() -> Batch<'a> {
        Batch::default()
    }

    /// Adds a record at the end.
    pub fn push(&mut self, record: impl Into<Record<'a>>) {
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
            let mut flags = 0;
            if index == 0 {
                flags |= format::FLAG_BATCH_FIRST;
            }
            if index != last {
                flags |= format::FLAG_BATCH_GOES_ON;
            }
            let header = record.header(flags, record_bytes_max)?;
            format::push_frame(&mut frames, &header, &record.payload);
        }
        Ok(EncodedBatch { frames, count: self.records.len() as u64 })
    }

    /// Its record, if it holds one and no other.
    pub(crate) fn only(&self) -> Option<&Record<'a>> {
        match &*self.records {
            [record] => Some(record),
            _ => None,
        }
    }

    fn frame_bytes(&self) -> usize {
        self.records.iter().map(|r| format::frame_size_usize(r.payload.len())).sum()
    }
}

impl<'a> From<Record<'a>> for Batch<'a> {
    fn from(record: Record<'a>) -> Batch<'a> {
        Batch { records: vec![record] }
    }
}

impl<'a> FromIterator<Record<'a>> for Batch<'a> {
    fn from_iter<I: IntoIterator<Item = Record<'a>>>(records: I) -> Batch<'a> {
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
    /// One record's frame.
    pub(crate) fn of_one(header: &FrameHeader, payload: &[u8]) -> EncodedBatch {
        let mut frames = Vec::with_capacity(format::frame_size_usize(payload.len()));
        format::push_frame(&mut frames, header, payload);
        EncodedBatch { frames, count: 1 }
    }

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
