//! One opaque error for the registry: a kind that says what to do, and a sentence.
//!
//! Never here: value bytes, nor the messages of serde_json and bincode, which quote the value
//! that they failed on. A lost race is no error either; those are values ([`crate::Cas`],
//! [`crate::Commit`], [`crate::Outcome`]).
//! Invariant: `outcome_unknown` is true only where this call's own changes may be in the log.

use std::fmt;
use std::sync::Arc;

use annals_wal::Lsn;

use crate::key::Key;
use crate::mutant;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller should do about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The log refused or failed. Its own kind says what to do.
    Log(annals_wal::ErrorKind),
    /// A text that is no key or prefix. The message names the rule.
    InvalidKey,
    /// An argument that can never be right: no change at all, two changes of one key.
    Invalid,
    /// A transaction was begun inside the closure of another. Do both in one, or one after the
    /// other.
    Nested,
    /// A read found that something read before has changed. Return it from the closure: the
    /// transaction then runs again.
    Restart,
    /// The value cannot be expressed in the codec.
    Encode,
    /// The stored value has another codec or shape than the one asked for.
    Decode,
    /// A transaction over the cap of the log or of the envelope. Split it.
    TooLarge,
    /// A transaction in the log cannot be read. Nothing was changed; run `wal inspect`.
    Corrupt,
    /// A transaction was written by a newer version of this software. Use that version.
    Unsupported,
    /// The start of the log was trimmed away, so the state cannot be rebuilt from it.
    Trimmed,
    /// A write or sync failed earlier. Drop the registry and the log, and open them again. Plain
    /// reads go on meanwhile.
    Poisoned,
    /// What the preconditions name changed under the call each time it tried. Nothing was
    /// changed; call again.
    GaveUp,
}

/// Why a call on a registry failed. Cheap to clone.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    outcome_unknown: bool,
    log: Option<annals_wal::Error>,
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// True if the changes of the failed call may or may not be there after the log is opened
    /// again. False means that they certainly are not.
    pub fn outcome_unknown(&self) -> bool {
        self.inner.outcome_unknown
    }

    /// The log's error, where one is behind it: it knows segment, offset and LSN.
    pub fn log_error(&self) -> Option<&annals_wal::Error> {
        self.inner.log.as_ref()
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::build(kind, message.into(), false, None)
    }

    fn build(
        kind: ErrorKind,
        message: String,
        outcome_unknown: bool,
        log: Option<annals_wal::Error>,
    ) -> Error {
        Error { inner: Arc::new(Inner { kind, message, outcome_unknown, log }) }
    }

    /// The log's own error, with what it says about the outcome.
    pub(crate) fn of_log(error: annals_wal::Error) -> Error {
        let unknown = error.outcome_unknown() && !mutant::is("registry:unknown-is-not-done");
        Error::build(kind_of(&error), error.to_string(), unknown, Some(error))
    }

    /// The log failed a call that has changed nothing itself: a read, an abort, a conflict that
    /// waited for what it had seen. Whatever becomes of that, nothing of this call is in the log.
    pub(crate) fn of_wait(error: annals_wal::Error) -> Error {
        let message = format!(
            "what this call read was not yet durable, and the log failed before it was: {error}"
        );
        Error::build(kind_of(&error), message, false, Some(error))
    }

    pub(crate) fn poisoned(error: annals_wal::Error) -> Error {
        let message = format!(
            "the registry takes no more transactions because its log failed; drop both and open \
             them again: {error}"
        );
        Error::build(ErrorKind::Poisoned, message, false, Some(error))
    }

    pub(crate) fn invalid_key(what: &str, why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::InvalidKey,
            format!("not a {what}: {why}. A {what} is non-empty segments joined by single slashes"),
        )
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn changed_twice(key: &Key) -> Error {
        Error::invalid(format!(
            "the key {key} is changed twice in one commit: keep the change that is meant"
        ))
    }

    pub(crate) fn nested() -> Error {
        Error::new(
            ErrorKind::Nested,
            "a transaction was begun inside the closure of another one on the same thread: use \
             the closure's own `tx`, or begin it after `transact` has returned",
        )
    }

    pub(crate) fn restart(key: Option<&Key>) -> Error {
        let what = match key {
            Some(key) => format!("the key {key} changed"),
            None => "more has changed than the registry remembers".to_owned(),
        };
        Error::new(
            ErrorKind::Restart,
            format!("{what} after this attempt read it: return this error from the closure"),
        )
    }

    pub(crate) fn encode(codec: &str, why: &str) -> Error {
        Error::new(ErrorKind::Encode, format!("the value cannot be written as {codec}: {why}"))
    }

    pub(crate) fn decode(codec: &str, why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Decode,
            format!("the value cannot be read as {codec} of the type asked for: {why}"),
        )
    }

    pub(crate) fn too_large(len: usize, cap: usize) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!("the transaction takes {len} bytes, over the cap of {cap}: split it"),
        )
    }

    pub(crate) fn corrupt(lsn: Lsn, why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!("the transaction at LSN {lsn} cannot be read: {why}. Run `wal inspect`"),
        )
    }

    pub(crate) fn unsupported(lsn: Lsn, version: u64) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "the transaction at LSN {lsn} has version {version}, written by newer software: \
                 open the log with that"
            ),
        )
    }

    pub(crate) fn trimmed(head: Lsn) -> Error {
        Error::new(
            ErrorKind::Trimmed,
            format!(
                "the log starts at LSN {head}, what came before was trimmed, and the registry is \
                 rebuilt from LSN 1: open a copy that still has it"
            ),
        )
    }

    pub(crate) fn gave_up(attempts: u32) -> Error {
        Error::new(
            ErrorKind::GaveUp,
            format!(
                "what the preconditions name changed under the call {attempts} times: nothing was \
                 changed, call again"
            ),
        )
    }
}

/// One meaning, one kind: what the registry also says itself has its own name.
fn kind_of(error: &annals_wal::Error) -> ErrorKind {
    match error.kind() {
        annals_wal::ErrorKind::Poisoned => ErrorKind::Poisoned,
        annals_wal::ErrorKind::TooLarge => ErrorKind::TooLarge,
        other => ErrorKind::Log(other),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    /// The log's message is part of ours; what lies behind it goes on the chain.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.log.as_ref().and_then(|error| error.source())
    }
}
