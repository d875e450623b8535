//! The fence around bincode: the transaction envelope in the log, and bincode values.
//!
//! Never here: anything else of the format, and bincode nowhere but here (docs/adr/0003 says why
//! it is pinned, why the layout is the legacy one, and what the exit is).
//! Invariants: the envelope is one enum with a variant for each version; released variants never
//! change. Whatever the bytes are, decoding ends with a value or an error, and what it allocates
//! follows the bytes that are there, never a length that they claim. Next room: [`crate::rebuild`].
//!
//! ```text
//! u32 0 (V1)    u64 count, at least 1   then for each change
//! u32 0 put     u64 length, key   u8 codec   u64 length, value
//! u32 1 delete  u64 length, key
//!
//! u32 1 (V2)    note   u64 count, at least 1   then for each change
//! note          u8 0, or u8 1   u64 length, who   u64 length, why   u64 unix time in ms
//! u32 0 put     u64 length, key   u8 codec   lease   u64 length, value
//! lease         u8 0, or u8 1 and the id in 16 bytes
//! u32 1 delete  u64 length, key
//! ```
//! Little endian. Nothing follows the last change. V2 is written only where V1 cannot say it; its
//! keys may be the registry's own, which begin with the byte 01.

pub(crate) mod blocks;

use annals_wal::{Codec, Kind, Lsn};
use bincode::config::Config;
use bincode::de::{BorrowDecode, BorrowDecoder};
use bincode::error::DecodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::{Change, Note};
use crate::error::{Error, Result};
use crate::ids::LeaseId;
use crate::key::Key;
use crate::value::Value;

/// The kind of a transaction's record in the log. The rest of 0x0100.. is the registry's, too.
pub const TRANSACTION: Kind = match Kind::new(0x0100) {
    Some(kind) => kind,
    None => Kind::UNTYPED, // not reached: 0x0100 has its top bit clear
};

/// The kind of the record that says that a snapshot was made; nothing is rebuilt from it.
pub const CHECKPOINT: Kind = match Kind::new(0x0101) {
    Some(kind) => kind,
    None => Kind::UNTYPED, // not reached: 0x0101 has its top bit clear
};

/// No envelope and no bincode value is longer. Refused when written, so that what can be written
/// can be read.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 64 << 20;

/// Bincode values up to these sizes are decoded under a limit of that size, so that a forged
/// length in a small value cannot ask for much.
const VALUE_BYTES_SMALL: usize = 4 << 10;
const VALUE_BYTES_MEDIUM: usize = 256 << 10;

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum Envelope<'a> {
    V1(Counted<ChangeV1<'a>>),
    V2(CommitV2<'a>),
}

/// How many versions there are: version numbers are below this.
const VERSIONS: u32 = 2;

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum ChangeV1<'a> {
    Put { key: &'a str, codec: u8, value: &'a [u8] },
    Delete { key: &'a str },
}

/// With a note, leases, and keys of the registry's own. Written only where one of these is there.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct CommitV2<'a> {
    note: Option<NoteV2<'a>>,
    changes: Counted<ChangeV2<'a>>,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct NoteV2<'a> {
    who: &'a str,
    why: &'a str,
    wall_ms: u64,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum ChangeV2<'a> {
    Put { key: &'a str, codec: u8, lease: Option<u128>, value: &'a [u8] },
    Delete { key: &'a str },
}

/// A list, read one by one.
#[derive(bincode::Encode)]
struct Counted<T>(Vec<T>);

/// By hand, because the derived one reserves room for as many as the bytes claim.
impl<'de, C, T: BorrowDecode<'de, C>> BorrowDecode<'de, C> for Counted<T> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> std::result::Result<Self, DecodeError> {
        let count = u64::borrow_decode(decoder)?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::borrow_decode(decoder)?);
        }
        Ok(Counted(items))
    }
}

const fn config<const LIMIT: usize>() -> impl Config {
    bincode::config::legacy().with_limit::<LIMIT>()
}

/// What a transaction's record in the log says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Who and why, if anybody said so.
    pub note: Option<Note>,
    /// The changes of callers' keys, in key order where a transaction made them.
    pub changes: Vec<Change>,
}

/// Whether an envelope of the first version can say it.
fn is_plain(change: &Change) -> bool {
    change.lease().is_none() && !change.key().is_system()
}

/// The envelope around `changes`, in the oldest version that can say them.
pub(crate) fn encode_transaction(changes: &[Change], note: Option<&Note>) -> Result<Vec<u8>> {
    let envelope = if note.is_none() && changes.iter().all(is_plain) {
        Envelope::V1(Counted(changes.iter().map(ChangeV1::from).collect()))
    } else {
        let note = note.map(|n| NoteV2 { who: &n.who, why: &n.why, wall_ms: n.wall_ms });
        let changes = Counted(changes.iter().map(ChangeV2::from).collect());
        Envelope::V2(CommitV2 { note, changes })
    };
    let bytes = bincode::encode_to_vec(envelope, config::<ENVELOPE_BYTES_MAX>())
        .map_err(|_| Error::encode("bincode", "the envelope was refused"))?;
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(Error::too_large(bytes.len(), ENVELOPE_BYTES_MAX));
    }
    Ok(bytes)
}

/// Reads the payload of a record of kind [`TRANSACTION`]: what a tool shows of it. `lsn` is only
/// for the message. Leases and writers are kept under keys of the registry's own; those are left
/// out.
///
/// # Errors
/// `Unsupported` for a version that this software does not know, `Corrupt` for anything else that
/// it did not write; both name the LSN and nothing of the payload.
///
/// ```
/// use annals_registry::{Change, ErrorKind, Lsn, decode_transaction};
///
/// let payload = b"\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0T1";
/// let changes = decode_transaction(Lsn::FIRST, payload)?;
/// assert!(matches!(&changes[..], [Change::Delete { key }] if key.as_str() == "T1"));
///
/// let newer = decode_transaction(Lsn::FIRST, &[9, 0, 0, 0]).unwrap_err();
/// assert_eq!(newer.kind(), ErrorKind::Unsupported);
/// # Ok::<(), annals_registry::Error>(())
/// ```
pub fn decode_transaction(lsn: Lsn, payload: &[u8]) -> Result<Vec<Change>> {
    Ok(decode_committed(lsn, payload)?.changes)
}

/// [`decode_transaction`] with its note.
///
/// # Errors
/// As [`decode_transaction`].
pub fn decode_committed(lsn: Lsn, payload: &[u8]) -> Result<Committed> {
    let mut committed = decode_all(lsn, payload)?;
    committed.changes.retain(|change| !change.key().is_system());
    Ok(committed)
}

/// Everything, the registry's own keys too: what a registry is rebuilt from.
pub(crate) fn decode_all(lsn: Lsn, payload: &[u8]) -> Result<Committed> {
    let config = config::<ENVELOPE_BYTES_MAX>();
    let corrupt = |error: DecodeError| Error::corrupt(lsn, broken_rule(&error));
    let (version, _) = bincode::decode_from_slice::<u32, _>(payload, config).map_err(corrupt)?;
    if version >= VERSIONS {
        return Err(Error::unsupported(lsn, u64::from(version) + 1));
    }
    let (envelope, used) =
        bincode::borrow_decode_from_slice::<Envelope<'_>, _>(payload, config).map_err(corrupt)?;
    if used != payload.len() {
        return Err(Error::corrupt(lsn, "bytes are left over"));
    }
    let committed = match envelope {
        Envelope::V1(Counted(changes)) => {
            let changes: Result<_> = changes.into_iter().map(|c| c.checked(lsn)).collect();
            Committed { note: None, changes: changes? }
        }
        Envelope::V2(CommitV2 { note, changes: Counted(changes) }) => {
            let changes: Result<_> = changes.into_iter().map(|c| c.checked(lsn)).collect();
            Committed { note: note.map(Note::from), changes: changes? }
        }
    };
    if committed.changes.is_empty() {
        return Err(Error::corrupt(lsn, "it changes nothing"));
    }
    Ok(committed)
}

impl From<NoteV2<'_>> for Note {
    fn from(note: NoteV2<'_>) -> Note {
        Note { who: note.who.to_owned(), why: note.why.to_owned(), wall_ms: note.wall_ms }
    }
}

impl<'a> From<&'a Change> for ChangeV1<'a> {
    fn from(change: &'a Change) -> ChangeV1<'a> {
        let key = change.key().as_str();
        match change.value() {
            Some(value) => ChangeV1::Put { key, codec: value.codec().0, value: value.bytes() },
            None => ChangeV1::Delete { key },
        }
    }
}

impl<'a> From<&'a Change> for ChangeV2<'a> {
    fn from(change: &'a Change) -> ChangeV2<'a> {
        let key = change.key().as_str();
        let lease = change.lease().map(LeaseId::get);
        match change.value() {
            Some(value) => {
                ChangeV2::Put { key, codec: value.codec().0, lease, value: value.bytes() }
            }
            None => ChangeV2::Delete { key },
        }
    }
}

impl ChangeV1<'_> {
    /// The bytes may hold any text where a key belongs; from here on it is one.
    fn checked(self, lsn: Lsn) -> Result<Change> {
        let key = |text| Key::new(text).map_err(|error| Error::corrupt(lsn, error));
        Ok(match self {
            ChangeV1::Put { key: text, codec, value } => {
                Change::Put { key: key(text)?, value: Value::new(value, Codec(codec)) }
            }
            ChangeV1::Delete { key: text } => Change::Delete { key: key(text)? },
        })
    }
}

impl ChangeV2<'_> {
    fn checked(self, lsn: Lsn) -> Result<Change> {
        let key = |text| Key::stored(text).map_err(|error| Error::corrupt(lsn, error));
        Ok(match self {
            ChangeV2::Put { key: text, codec, lease, value } => {
                let (key, value) = (key(text)?, Value::new(value, Codec(codec)));
                match lease {
                    Some(id) => Change::PutLeased { key, value, lease: LeaseId(id) },
                    None => Change::Put { key, value },
                }
            }
            ChangeV2::Delete { key: text } => Change::Delete { key: key(text)? },
        })
    }
}

#[derive(bincode::Encode)]
enum CheckpointBytes {
    V1 { lsn: u64, bytes: u64 },
}

/// The payload of a record of kind [`CHECKPOINT`]: u32 0 (V1), the snapshot's LSN and its size.
pub(crate) fn encode_checkpoint(lsn: Lsn, bytes: u64) -> Result<Vec<u8>> {
    let checkpoint = CheckpointBytes::V1 { lsn: lsn.get(), bytes };
    bincode::encode_to_vec(checkpoint, config::<VALUE_BYTES_SMALL>())
        .map_err(|_| Error::encode("bincode", "a checkpoint was refused"))
}

/// What the registry keeps of itself under keys of its own. Released variants never change.
#[derive(bincode::Encode, bincode::Decode, Clone, PartialEq, Eq, Debug)]
pub(crate) enum System {
    /// A lease, under `leases/ID`.
    LeaseV1 { ttl_ms: u64, owner: String, renewals: u64 },
    /// A writer, under `writers/ID`. The entry's revision is that of its last transaction.
    WriterV1 { sequence: u64, request: u32 },
}

/// As the value of a key of the registry's own.
pub(crate) fn encode_system(system: &System) -> Result<Value> {
    let bytes = bincode::encode_to_vec(system, config::<ENVELOPE_BYTES_MAX>())
        .map_err(|_| Error::encode("bincode", "a lease or writer was refused"))?;
    Ok(Value::new(bytes, Codec::BINCODE))
}

/// The value of a key of the registry's own, written by the transaction at `lsn`.
pub(crate) fn decode_system(lsn: Lsn, value: &Value) -> Result<System> {
    let config = config::<VALUE_BYTES_SMALL>();
    let (system, used) = bincode::decode_from_slice(value.bytes(), config)
        .map_err(|error| Error::corrupt(lsn, broken_rule(&error)))?;
    if used != value.bytes().len() {
        return Err(Error::corrupt(lsn, "bytes are left over in a lease or writer"));
    }
    Ok(system)
}

/// A user's value in bincode.
pub(crate) fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, config::<ENVELOPE_BYTES_MAX>()).map_err(|_| {
        Error::encode("bincode", "its Serialize refused, or a sequence does not know its length")
    })
}

/// A user's value from bincode; what is left over is an error.
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let len = bytes.len();
    if len <= VALUE_BYTES_SMALL {
        decode_value_within::<T, VALUE_BYTES_SMALL>(bytes)
    } else if len <= VALUE_BYTES_MEDIUM {
        decode_value_within::<T, VALUE_BYTES_MEDIUM>(bytes)
    } else {
        decode_value_within::<T, ENVELOPE_BYTES_MAX>(bytes)
    }
}

fn decode_value_within<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config::<LIMIT>())
        .map_err(|error| Error::decode("bincode", broken_rule(&error)))?;
    if used != bytes.len() {
        return Err(Error::decode("bincode", "bytes are left over"));
    }
    Ok(value)
}

/// bincode's own messages may quote what they failed on; these do not.
fn broken_rule(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnexpectedEnd { .. } => "the bytes end too early",
        DecodeError::LimitExceeded => "a length is over the limit",
        DecodeError::Utf8 { .. } => "a text is not UTF-8",
        DecodeError::UnexpectedVariant { .. } => "an enum has no such variant",
        _ => "the bytes break a rule of the layout",
    }
}

#[cfg(test)]
mod tests;
