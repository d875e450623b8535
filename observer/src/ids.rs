//! The names of things, each its own type so that one cannot be passed for another.
//!
//! Never here: meaning. A call id is whatever the runtime calls its call; two sessions may use the
//! same one. Invariants: no text id is empty; a span id is not 0; sequences start at 1.
//! Next room: [`crate::kind`].

use std::fmt;
use std::num::NonZeroU64;

use annals_wal::{Log, Stream};
use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// 128 random bits that name one observer: one process's one use of one log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId([u8; 16]);

impl InstanceId {
    /// An id from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> InstanceId {
        InstanceId(bytes)
    }

    /// The bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// A new id from the directory's random bytes: the operating system's, and in a simulation its
    /// seed's, so that one seed is one life. (Ids that came past the seam made the same seed differ.)
    pub(crate) fn random(log: &Log) -> Result<InstanceId> {
        let mut bytes = [0; 16];
        log.dir().random(&mut bytes).map_err(|error| {
            Error::new(ErrorKind::Io, format!("there are no random bytes ({error}): try again"))
        })?;
        Ok(InstanceId(bytes))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

/// Where an entry stands in its observer's one queue.
///
/// Sequences are dense: a number missing below the last one that a log holds is an entry that was
/// taken and never became durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Ticket {
    /// The observer.
    pub instance: InstanceId,
    /// The place in its queue, from 1.
    pub sequence: u64,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.instance, self.sequence)
    }
}

/// The name of one start and its end, and of what happens between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// `None` for 0, which is no span.
    pub const fn new(value: u64) -> Option<SpanId> {
        match NonZeroU64::new(value) {
            Some(value) => Some(SpanId(value)),
            None => None,
        }
    }

    /// The plain number, not 0.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The span with this number, or with 1 where that is 0.
    pub(crate) const fn nearest(value: u64) -> SpanId {
        match NonZeroU64::new(value) {
            Some(value) => SpanId(value),
            None => SpanId(NonZeroU64::MIN),
        }
    }
}

/// Sixteen hexadecimal digits, as OpenTelemetry writes spans.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

/// SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! written_as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )+};
}

written_as_text!(InstanceId, SpanId, ContentHash);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
        pub struct $name(String);

        impl $name {
            /// An id with this text.
            ///
            /// # Errors
            /// `Invalid` if the text is empty.
            pub fn new(text: impl Into<String>) -> Result<$name> {
                $name::stored(text.into()).ok_or_else(|| {
                    Error::invalid(concat!("the ", $word, " id is empty: give it a name"))
                })
            }

            /// The text, never empty.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub(crate) fn stored(text: String) -> Option<$name> {
                if text.is_empty() { None } else { Some($name(text)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A conversation or task: what a reader asks for.
    SessionId,
    "session"
);
text_id!(
    /// One run of a runtime inside a session.
    RunId,
    "run"
);
text_id!(
    /// What the runtime calls one call; a start and its end carry the same one.
    CallId,
    "call"
);

impl SessionId {
    /// The tag of this session's records: CRC-32 of the id, 1 where that is 0.
    ///
    /// A filter and no identity: two ids may share a tag, so whoever filters by it compares the
    /// id again.
    pub fn stream(&self) -> Stream {
        match crc32fast::hash(self.0.as_bytes()) {
            0 => Stream(1),
            crc => Stream(crc),
        }
    }
}

impl CallId {
    /// The id of a call that its runtime did not name: the span's digits.
    pub(crate) fn of_span(span: SpanId) -> CallId {
        CallId(span.to_string())
    }
}
