//! What a key stands for: [`Value`], its [`Revision`], and the two together, an [`Entry`].
//!
//! Never here: where they are kept. The bytes are the caller's; only the typed helpers look
//! inside, and only when called. bincode itself is behind [`crate::codec`].
//! Invariant: neither `Debug` nor an error shows the bytes. Next room: [`crate::change`].

use std::fmt;
use std::sync::Arc;

use annals_wal::{Codec, Lsn};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, Result};
use crate::ids::LeaseId;

/// Bytes and the codec they are in. Cheap to clone.
///
/// ```
/// use annals_registry::{Codec, Value};
///
/// let value = Value::json(&vec![1, 2, 3])?;
/// assert_eq!(value.bytes(), b"[1,2,3]");
/// assert_eq!(value.codec(), Codec::JSON);
/// assert_eq!(value.decode_json::<Vec<u64>>()?, [1, 2, 3]);
/// # Ok::<(), annals_registry::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    bytes: Arc<[u8]>,
    codec: Codec,
}

impl Value {
    /// Bytes in a codec of the caller's choice. They are not checked against it.
    pub fn new(bytes: impl Into<Arc<[u8]>>, codec: Codec) -> Value {
        Value { bytes: bytes.into(), codec }
    }

    /// Bytes of no declared shape.
    pub fn raw(bytes: impl Into<Arc<[u8]>>) -> Value {
        Value::new(bytes, Codec::RAW)
    }

    /// `value` as JSON text, the default: the tool, another language and next year's struct can
    /// read it.
    ///
    /// # Errors
    /// `Encode` for what JSON has no form for, such as a map whose keys are not texts.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Value> {
        let bytes = serde_json::to_vec(value)
            .map_err(|_| Error::encode("JSON", "its Serialize refused or a map key is no text"))?;
        Ok(Value::new(bytes, Codec::JSON))
    }

    /// `value` in bincode's legacy layout: smaller, but a struct that gains a field no longer
    /// reads its old bytes, and nothing but the same struct ever reads them.
    ///
    /// # Errors
    /// `Encode` for what bincode has no form for, such as a sequence of unknown length.
    pub fn bincode<T: Serialize + ?Sized>(value: &T) -> Result<Value> {
        Ok(Value::new(codec::encode_value(value)?, Codec::BINCODE))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The codec they are in.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Reads a JSON value.
    ///
    /// # Errors
    /// `Decode` if the codec is another one or the text is no `T`. The message has line and
    /// column and nothing of the text.
    pub fn decode_json<T: DeserializeOwned>(&self) -> Result<T> {
        self.expect_codec(Codec::JSON, "JSON")?;
        serde_json::from_slice(&self.bytes).map_err(|error| {
            let what = match error.classify() {
                serde_json::error::Category::Data => "a member does not fit the type",
                _ => "the text is no JSON document",
            };
            let (line, column) = (error.line(), error.column());
            Error::decode("JSON", format!("{what}, at line {line} column {column}"))
        })
    }

    /// Reads a bincode value.
    ///
    /// # Errors
    /// `Decode` if the codec is another one, the bytes are no `T`, or some are left over.
    pub fn decode_bincode<T: DeserializeOwned>(&self) -> Result<T> {
        self.expect_codec(Codec::BINCODE, "bincode")?;
        codec::decode_value(&self.bytes)
    }

    fn expect_codec(&self, codec: Codec, name: &str) -> Result<()> {
        if self.codec == codec {
            return Ok(());
        }
        Err(Error::decode(name, format!("it is stored with codec {}", self.codec.0)))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes, codec {})", self.bytes.len(), self.codec.0)
    }
}

/// Which transaction last changed a key: opaque, compared for equality by [`crate::Expected`],
/// and ordered as the log is.
///
/// Today it is that transaction's LSN alone. That is enough to name one state of a key: a
/// revision is released only when durable, and a durable LSN is never given again. The design's
/// revision is (generation, LSN); the log does not tell the generation of a record that is read
/// back, and half of the revisions would carry a guess. It joins, without a change to callers,
/// once the log tells it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(Lsn);

impl Revision {
    pub(crate) fn new(lsn: Lsn) -> Revision {
        Revision(lsn)
    }

    /// The LSN of the transaction in the log, to find it there.
    pub fn lsn(self) -> Lsn {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({})", self.0.get())
    }
}

/// A value and the transaction that put it there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The bytes and their codec.
    pub value: Value,
    /// The last transaction that changed the key; what `Expected::At` takes.
    pub revision: Revision,
    /// The lease it is bound to: when that is swept, the key goes.
    pub lease: Option<LeaseId>,
}

impl Entry {
    /// The codec of the value.
    pub fn codec(&self) -> Codec {
        self.value.codec()
    }
}
