//! The blocks of a snapshot file in bincode. Never here: files, checksums; the log's header before
//! the blocks and the frame around each are [`crate::snapshot`]'s.
//!
//! ```text
//! u32 0 (BeginV1)   u32 CRC-32 of the payload of the record at the snapshot's LSN   u64 unix ms
//! u32 1 (EntriesV1) u64 count   then for each entry, in key order
//!                   u64 length, key   u64 LSN   u8 codec   lease   u64 length, value
//! u32 2 (EndV1)     u64 how many entries there were
//! ```

use annals_wal::{Codec, Lsn};

use super::{Counted, broken_rule, config};
use crate::ids::LeaseId;
use crate::key::Key;
use crate::value::{Entry, Revision, Value};

/// No block is longer: one entry of the largest size, or many small ones.
pub(crate) const BLOCK_BYTES_MAX: usize = super::ENVELOPE_BYTES_MAX + (1 << 20);

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum BlockBytes<'a> {
    BeginV1 { record_crc: u32, wall_ms: u64 },
    EntriesV1(Counted<EntryV1<'a>>),
    EndV1 { count: u64 },
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct EntryV1<'a> {
    key: &'a str,
    lsn: u64,
    codec: u8,
    lease: Option<u128>,
    value: &'a [u8],
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Block {
    /// What the snapshot belongs to.
    Begin { record_crc: u32, wall_ms: u64 },
    /// Entries in key order.
    Entries(Vec<(Key, Entry)>),
    /// Nothing follows.
    End { count: u64 },
}

pub(crate) fn encode(block: &Block) -> Result<Vec<u8>, &'static str> {
    let bytes = match block {
        Block::Begin { record_crc, wall_ms } => {
            BlockBytes::BeginV1 { record_crc: *record_crc, wall_ms: *wall_ms }
        }
        Block::Entries(entries) => BlockBytes::EntriesV1(Counted(
            entries
                .iter()
                .map(|(key, entry)| EntryV1 {
                    key: key.as_str(),
                    lsn: entry.revision.lsn().get(),
                    codec: entry.codec().0,
                    lease: entry.lease.map(LeaseId::get),
                    value: entry.value.bytes(),
                })
                .collect(),
        )),
        Block::End { count } => BlockBytes::EndV1 { count: *count },
    };
    bincode::encode_to_vec(bytes, config::<BLOCK_BYTES_MAX>()).map_err(|_| "a block was refused")
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Block, String> {
    let decoded =
        bincode::borrow_decode_from_slice::<BlockBytes<'_>, _>(bytes, config::<BLOCK_BYTES_MAX>());
    let (block, used) = decoded.map_err(|error| broken_rule(&error).to_owned())?;
    if used != bytes.len() {
        return Err("bytes are left over in a block".to_owned());
    }
    Ok(match block {
        BlockBytes::BeginV1 { record_crc, wall_ms } => Block::Begin { record_crc, wall_ms },
        BlockBytes::EntriesV1(Counted(entries)) => {
            let entries: Result<_, String> = entries.into_iter().map(entry_of).collect();
            Block::Entries(entries?)
        }
        BlockBytes::EndV1 { count } => Block::End { count },
    })
}

fn entry_of(bytes: EntryV1<'_>) -> Result<(Key, Entry), String> {
    let key = Key::stored(bytes.key).map_err(|error| error.to_string())?;
    let lsn = Lsn::new(bytes.lsn).ok_or("an entry has LSN 0")?;
    let value = Value::new(bytes.value, Codec(bytes.codec));
    let lease = bytes.lease.map(LeaseId);
    Ok((key, Entry { value, revision: Revision::new(lsn), lease }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout above, byte for byte.
    #[test]
    fn golden_bytes_of_each_block() {
        let entry = Entry {
            value: Value::raw(*b"v"),
            revision: Revision::new(Lsn::new(7).unwrap()),
            lease: Some(LeaseId(5)),
        };
        let key = Key::new("k").unwrap();
        let golden: [(Block, &[u8]); 3] = [
            (Block::Begin { record_crc: 3, wall_ms: 4 }, b"\0\0\0\0\x03\0\0\0\x04\0\0\0\0\0\0\0"),
            (
                Block::Entries(vec![(key, entry)]),
                b"\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0k\x07\0\0\0\0\0\0\0\0\
                  \x01\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0v",
            ),
            (Block::End { count: 9 }, b"\x02\0\0\0\x09\0\0\0\0\0\0\0"),
        ];
        for (block, bytes) in golden {
            assert_eq!(encode(&block).unwrap(), bytes);
            assert_eq!(decode(bytes).unwrap(), block);
            for end in 0..bytes.len() {
                assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
        assert!(decode(b"\x09\0\0\0").is_err(), "no such block");
    }
}
