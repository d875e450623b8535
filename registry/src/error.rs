//! One opaque error for the registry: a kind that says what to do, and a sentence.
//!
//! Never here: value bytes, nor the messages of serde_json and bincode, which quote the value
//! that they failed on. A lost race is no error either; those are values ([`crate::Cas`],
//! [`crate::Commit`], [`crate::Outcome`]).
//! Invariant: `outcome_unknown` is true only where this call's own changes may be in the log.

use std::fmt;
use std::sync::Arc;

use annals_wal::Lsn;

use crate::ids::{LeaseId, WriterId};
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
    /// The log or the snapshot that the answer would need was trimmed away.
    Trimmed,
    /// A write or sync failed earlier. Drop the registry and the log, and open them again. Plain
    /// reads go on meanwhile.
    Poisoned,
    /// What the preconditions name changed under the call each time it tried. Nothing was
    /// changed; call again.
    GaveUp,
    /// A file of the registry's (a snapshot) could not be read or written.
    Io,
    /// The lease is not there: it expired, was revoked, or never was. What was to be bound to it
    /// was not changed. Ask for a new one.
    LeaseExpired,
    /// The writer is not there, so whether its last transaction was made is still not known.
    /// Nothing was applied now. Look at the keys it would have changed.
    WriterExpired,
    /// The writer's sequence is not the next one, nor the last one with the same request. Nothing
    /// was applied.
    BadSequence,
    /// The document cannot be merged without a loss: a member occurs twice, or the merged
    /// document would read back as something else. Nothing was changed; write it whole.
    NotMergeable,
    /// The state machine has no such transition. The message names those it has.
    NotAllowed,
    /// A JSON registry that cannot be imported. Nothing was changed.
    Import,
    /// What stands under an imported registry is no longer a document like it: the message names the
    /// key. Move or delete that one.
    Export,
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
                "the log starts at LSN {head}, what came before was trimmed, and no valid snapshot \
                 of the registry reaches it: open a copy that still has one"
            ),
        )
    }

    pub(crate) fn io(doing: impl fmt::Display, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Io, format!("{doing}: {error}"))
    }

    /// A file of the registry's whose own bytes are wrong.
    pub(crate) fn corrupt_file(name: &str, why: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{name} cannot be believed: {why}"))
    }

    pub(crate) fn out_of_range(lsn: Lsn, end: Option<Lsn>) -> Error {
        let end = end.map(|end| format!(", which is {end}")).unwrap_or_default();
        Error::invalid(format!("revision {lsn} is past the durable end of the log{end}"))
    }

    /// A child made by fork uses what its parent's thread stands behind.
    pub(crate) fn forked(path: &std::path::Path, parent: u32, child: u32) -> Error {
        Error::new(
            ErrorKind::Log(annals_wal::ErrorKind::Locked),
            format!(
                "this belongs to process {parent}, and this process ({child}) inherited it by fork \
                 without the thread behind it: read {} with a RegistryReader",
                path.display()
            ),
        )
    }

    /// What happened at `lsn` can no longer be told.
    pub(crate) fn no_base(lsn: Lsn, head: Lsn) -> Error {
        Error::new(
            ErrorKind::Trimmed,
            format!(
                "the state at revision {lsn} cannot be told any more: the log starts at LSN \
                 {head}, and no valid snapshot at or below {lsn} has all that follows it"
            ),
        )
    }

    pub(crate) fn watch_trimmed(from: Lsn, head: Lsn) -> Error {
        Error::new(
            ErrorKind::Trimmed,
            format!(
                "what changed from LSN {from} on is not kept any more: the log starts at {head}. \
                 Read the state, and watch after its revision"
            ),
        )
    }

    pub(crate) fn lease_expired(lease: LeaseId) -> Error {
        Error::new(
            ErrorKind::LeaseExpired,
            format!("the lease {lease} is not there: it expired or was revoked; grant a new one"),
        )
    }

    /// An earlier attempt of the same request may be in the log.
    pub(crate) fn writer_expired(writer: WriterId) -> Error {
        let message = format!(
            "the writer {writer} is not there, so whether its last transaction was made is still \
             unknown; nothing was applied now: look at what it would have changed, and register \
             a new writer"
        );
        Error::build(ErrorKind::WriterExpired, message, true, None)
    }

    pub(crate) fn bad_sequence(writer: WriterId, given: u64, last: u64, why: &str) -> Error {
        Error::new(
            ErrorKind::BadSequence,
            format!(
                "the writer {writer} sent sequence {given} and its last one is {last}: {why}. \
                 Nothing was applied"
            ),
        )
    }

    pub(crate) fn not_mergeable(why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::NotMergeable,
            format!("the stored document cannot be merged: {why}. Nothing was changed"),
        )
    }

    pub(crate) fn not_allowed(message: String) -> Error {
        Error::new(ErrorKind::NotAllowed, message)
    }

    pub(crate) fn import(file: &str, why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Import,
            format!("{file} was not imported: {why}. Nothing was changed"),
        )
    }

    pub(crate) fn export(key: &Key, why: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Export,
            format!("{key} cannot be written into the JSON document: {why}. Move or delete it"),
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
