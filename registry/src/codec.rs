//! The fence around bincode: the transaction envelope in the log, and bincode values.
//!
//! Never here: anything else of the format, and bincode nowhere but here (docs/adr/0003 says why
//! it is pinned, why the layout is the legacy one, and what the exit is).
//! Invariants: the envelope is one enum with a variant for each version; released variants never
//! change. Whatever the bytes are, decoding ends with a value or an error, and what it allocates
//! follows the bytes that are there, never a length that they claim. Next room: [`crate::rebuild`].
//!
//! ```text
//! u32 version (0: V1)   u64 count, at least 1   then for each change
//! u32 0 put             u64 length, key   u8 codec   u64 length, value
//! u32 1 delete          u64 length, key
//! ```
//! Little endian. Nothing follows the last change.

use annals_wal::{Codec, Kind, Lsn};
use bincode::config::Config;
use bincode::de::{BorrowDecode, BorrowDecoder};
use bincode::error::DecodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::change::Change;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::value::Value;

/// The kind of a transaction's record in the log. The rest of 0x0100.. is the registry's, too.
pub const TRANSACTION: Kind = match Kind::new(0x0100) {
    Some(kind) => kind,
    None => Kind::UNTYPED, // not reached: 0x0100 has its top bit clear
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
    V1(ChangesV1<'a>),
}

/// How many versions there are: version numbers are below this.
const VERSIONS: u32 = 1;

#[derive(bincode::Encode)]
struct ChangesV1<'a>(Vec<ChangeV1<'a>>);

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum ChangeV1<'a> {
    Put { key: &'a str, codec: u8, value: &'a [u8] },
    Delete { key: &'a str },
}

/// By hand, because the derived one reserves room for as many changes as the bytes claim.
impl<'a, 'de: 'a, C> BorrowDecode<'de, C> for ChangesV1<'a> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> std::result::Result<Self, DecodeError> {
        let count = u64::borrow_decode(decoder)?;
        let mut changes = Vec::new();
        for _ in 0..count {
            changes.push(ChangeV1::borrow_decode(decoder)?);
        }
        Ok(ChangesV1(changes))
    }
}

const fn config<const LIMIT: usize>() -> impl Config {
    bincode::config::legacy().with_limit::<LIMIT>()
}

/// The envelope around `changes`, in the newest version.
pub(crate) fn encode_transaction(changes: &[Change]) -> Result<Vec<u8>> {
    let changes = changes.iter().map(ChangeV1::from).collect();
    let envelope = Envelope::V1(ChangesV1(changes));
    let bytes = bincode::encode_to_vec(envelope, config::<ENVELOPE_BYTES_MAX>())
        .map_err(|_| Error::encode("bincode", "the envelope was refused"))?;
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(Error::too_large(bytes.len(), ENVELOPE_BYTES_MAX));
    }
    Ok(bytes)
}

/// Reads the payload of a record of kind [`TRANSACTION`]: what a tool shows of it, and what a
/// registry is rebuilt from. `lsn` is only for the message.
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
    let Envelope::V1(ChangesV1(changes)) = envelope;
    if changes.is_empty() {
        return Err(Error::corrupt(lsn, "it changes nothing"));
    }
    changes.into_iter().map(|change| change.checked(lsn)).collect()
}

impl<'a> From<&'a Change> for ChangeV1<'a> {
    fn from(change: &'a Change) -> ChangeV1<'a> {
        match change {
            Change::Put { key, value } => {
                ChangeV1::Put { key: key.as_str(), codec: value.codec().0, value: value.bytes() }
            }
            Change::Delete { key } => ChangeV1::Delete { key: key.as_str() },
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
