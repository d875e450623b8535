//! A call that has started: it carries what its end must know.
//!
//! Never here: a lookup. Session, span, call id and start time are inside, so an end finds its
//! start whatever else runs, on whatever thread. Invariants: a duration is the difference of two
//! readings of one monotonic clock; at most one end is recorded through a `Call`.
//! Next rooms: [`crate::guard`], [`crate::read`].

use std::sync::Arc;
use std::time::Duration;

use crate::capture::{beginning, sha256};
use crate::clock::MonoTime;
use crate::codec::EncodedEntry;
use crate::drain::Handle;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::ids::{CallId, SpanId};
use crate::json::JsonText;
use crate::kind::EntryKind;
use crate::notes::{Field, FieldNote, Original};
use crate::observer::{Level, Receipt};
use crate::queue::Place;
use crate::record::{Closing, Recorded};

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With this output.
    Ok(JsonText),
    /// With this error.
    Error(JsonText),
}

impl Outcome {
    pub(crate) fn put(self, entry: &mut Entry) {
        match self {
            Outcome::Ok(output) => entry.output = Some(output),
            Outcome::Error(error) => entry.error = Some(error),
        }
    }
}

/// What an end says that is not recorded yet, or was refused. A guard's drop says it then: what is
/// known to have happened is never recorded as a cancellation.
#[derive(Debug)]
pub(crate) struct Unsaid {
    outcome: Outcome,
    /// What was done to its text.
    note: Option<FieldNote>,
    /// Until it ended, not until it is said.
    duration: Option<Duration>,
}

impl Unsaid {
    /// How much is kept of an error that was too large.
    const BYTES_KEPT: usize = 1 << 10;

    /// Takes the text out of an end that is encoded: no copy, and no more than stands in an entry.
    fn of(end: &mut Entry) -> Unsaid {
        let field = if end.error.is_some() { Field::Error } else { Field::Output };
        let mut note = end.notes.get(field).copied();
        let moved = note.as_mut().and_then(|note| {
            let moved = note.payload.take()?;
            let original = Original { bytes: moved.bytes, sha256: moved.sha256 };
            note.original.get_or_insert(original);
            Some(moved.bytes)
        });
        let outcome = match (end.error.take(), end.output.take(), moved) {
            (Some(error), _, _) => Outcome::Error(error),
            (None, Some(output), _) => Outcome::Ok(output),
            (None, None, Some(bytes)) => Outcome::Ok(left_out(bytes)),
            (None, None, None) => Outcome::Ok(JsonText::string("")), // outputs are not recorded here
        };
        Unsaid { outcome, note, duration: end.duration }
    }

    /// It was too large for the log.
    fn cut(&mut self) {
        let (Outcome::Ok(text) | Outcome::Error(text)) = &self.outcome;
        let (bytes, whole) = (text.as_str().len() as u64, text.as_str().as_bytes());
        let original = Original { bytes, sha256: sha256(whole) };
        self.note.get_or_insert_default().original.get_or_insert(original);
        self.outcome = match &self.outcome {
            Outcome::Ok(_) => Outcome::Ok(left_out(bytes)),
            Outcome::Error(text) => Outcome::Error(beginning(text.as_str(), Unsaid::BYTES_KEPT)),
        };
    }
}

fn left_out(bytes: u64) -> JsonText {
    JsonText::string(&format!("[an output of {bytes} bytes, left out after its end was refused]"))
}

/// A call that has started and can be ended once.
///
/// Dropping it records nothing: the log then shows a start without an end, which is the truth. An
/// end can still be recorded by [`crate::Session::end_by_call_id`]. For an end that is recorded on
/// every path see [`crate::Start::guard`] and [`crate::Start::run`].
#[must_use = "a call that is dropped is recorded as never having ended"]
#[derive(Debug)]
pub struct Call {
    pub(crate) handle: Arc<Handle>,
    pub(crate) level: Level,
    /// The end entry as far as it is known.
    pub(crate) end: Arc<Entry>,
    /// When its caller could go on: the wait for room and for the start's own sync is not its.
    pub(crate) started: MonoTime,
    pub(crate) call_id: CallId,
    pub(crate) span: SpanId,
    pub(crate) start: Receipt,
    pub(crate) tokens: Option<(u64, u64)>,
    pub(crate) metadata: Option<JsonText>,
    pub(crate) ended: bool,
    pub(crate) unsaid: Option<Unsaid>,
}

impl Call {
    /// The id that pairs start and end.
    pub fn call_id(&self) -> &CallId {
        &self.call_id
    }

    /// The call's span.
    pub fn span(&self) -> SpanId {
        self.span
    }

    /// The receipt of the start.
    pub fn start_receipt(&self) -> Receipt {
        self.start
    }

    /// Whether an end was recorded, or may have been.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn agent(&self) -> Option<&str> {
        self.end.agent.as_deref()
    }

    /// Tokens read and written, to be recorded with the end.
    pub fn tokens(&mut self, tokens_in: u64, tokens_out: u64) -> &mut Call {
        self.tokens = Some((tokens_in, tokens_out));
        self
    }

    /// Anything else to be recorded with the end.
    pub fn metadata(&mut self, metadata: JsonText) -> &mut Call {
        self.metadata = Some(metadata);
        self
    }

    /// Records that the call ended well, with its duration: from when the start had returned, or its
    /// intent was entered, to this call. Durable on return at
    /// [`Level::Durable`], ordered at [`Level::Ordered`], queued at [`Level::Batched`].
    ///
    /// # Errors
    /// `Invalid` if its end is already recorded; else as [`crate::Start::start`]. An end that was
    /// refused may be tried again, with a shorter output say: the call is still open.
    ///
    /// ```
    /// use annals_observer::{JsonText, Observer};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let mut llm = observer.session("s-1")?.llm("some-model").start()?;
    /// llm.tokens(1200, 80).end_ok(JsonText::string("Read the file first."))?;
    /// assert!(llm.end_ok(JsonText::string("again")).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn end_ok(&mut self, output: JsonText) -> Result<Receipt> {
        self.finish(Outcome::Ok(output), self.level, Place::Kept)
    }

    /// Records that the call failed, with its duration. Otherwise as [`Call::end_ok`].
    ///
    /// # Errors
    /// As [`Call::end_ok`].
    pub fn end_error(&mut self, error: JsonText) -> Result<Receipt> {
        self.finish(Outcome::Error(error), self.level, Place::Kept)
    }

    /// [`Call::end_ok`] and [`Call::end_error`] for async code: holds no thread while it waits for
    /// room or, at [`Level::Durable`], for the sync. Dropped before it is ready, the end may be
    /// recorded or not; [`Call::is_ended`] says which. A refused end, as on a full disk, may be tried
    /// again.
    ///
    /// # Errors
    /// As [`Call::end_ok`].
    pub async fn end_async(&mut self, outcome: Outcome) -> Result<Receipt> {
        let entry = self.end_entry(outcome)?;
        if self.start.dropped {
            self.ended = true;
            return self.handle.drop_end(entry.kind);
        }
        let encoded = self.encode_end(entry)?;
        let start = self.start.ticket.sequence;
        // Dropped while it waits for room, nothing is recorded and the call is open.
        let offered = self.handle.offer_async(encoded, self.level, Place::End(start)).await;
        let offered = offered.inspect_err(|error| self.refused(error))?;
        // From here on it is queued, and a second end would be a second truth.
        self.ended = true;
        let closing = Closing::of(&self.handle, start, offered.ticket);
        let receipt = self.handle.receipt_async(offered, self.level).await;
        match &receipt {
            Err(error) if !error.outcome_unknown() => {
                self.ended = false;
                self.refused(error);
                closing.refused();
            }
            _ => self.unsaid = None,
        }
        receipt
    }

    /// Records a failure inside the call that does not end it.
    ///
    /// # Errors
    /// As [`crate::Start::start`].
    pub fn error(&self, error: JsonText) -> Result<Receipt> {
        let mut entry = (*self.end).clone();
        entry.kind = EntryKind::Error;
        entry.error = Some(error);
        let encoded = self.handle.prepare(&mut entry)?;
        let recorded = self.handle.record(encoded, self.level, Place::Kept)?;
        self.handle.receipt(recorded, self.level)
    }

    /// [`Call::error`] for async code: holds no thread while it waits.
    ///
    /// # Errors
    /// As [`crate::Start::start`].
    pub async fn error_async(&self, error: JsonText) -> Result<Receipt> {
        let mut entry = (*self.end).clone();
        entry.kind = EntryKind::Error;
        entry.error = Some(error);
        self.handle.record_async(&mut entry, self.level, Place::Kept).await
    }

    pub(crate) fn finish(
        &mut self,
        outcome: Outcome,
        level: Level,
        otherwise: Place,
    ) -> Result<Receipt> {
        let entry = self.end_entry(outcome)?;
        self.finish_with(entry, level, otherwise)
    }

    /// Records what an end was to say that was not recorded, else that the call did not return; not
    /// waited for. What is too large is said shorter, once.
    pub(crate) fn finish_unsaid(
        &mut self,
        otherwise: impl FnOnce() -> JsonText,
    ) -> Result<Receipt> {
        let Some(unsaid) = self.unsaid.take() else {
            return self.finish(Outcome::Error(otherwise()), Level::Batched, Place::Forced);
        };
        let entry = self.entry_of(unsaid)?;
        let said = self.finish_with(entry, Level::Batched, Place::Forced);
        match (said, self.unsaid.take()) {
            (Err(error), Some(unsaid)) if error.is_too_large() => {
                self.metadata = None; // it may be what was too large
                let entry = self.entry_of(unsaid)?;
                self.finish_with(entry, Level::Batched, Place::Forced)
            }
            (said, _) => said,
        }
    }

    fn entry_of(&self, unsaid: Unsaid) -> Result<Entry> {
        let mut entry = self.end_entry(unsaid.outcome)?;
        entry.duration = unsaid.duration;
        if let Some(note) = unsaid.note {
            let field = if entry.error.is_some() { Field::Error } else { Field::Output };
            entry.notes.set(field, note);
        }
        Ok(entry)
    }

    /// Until the end is recorded, what it says is kept.
    fn encode_end(&mut self, mut entry: Entry) -> Result<EncodedEntry> {
        let encoded = self.handle.prepare(&mut entry);
        self.unsaid = Some(Unsaid::of(&mut entry));
        encoded.inspect_err(|error| self.refused(error))
    }

    /// The end is certainly not in the log.
    fn refused(&mut self, error: &Error) {
        if let Some(unsaid) = self.unsaid.as_mut().filter(|_| error.is_too_large()) {
            unsaid.cut();
        }
    }

    fn finish_with(&mut self, entry: Entry, level: Level, otherwise: Place) -> Result<Receipt> {
        if self.start.dropped {
            self.ended = true;
            return self.handle.drop_end(entry.kind);
        }
        let encoded = self.encode_end(entry)?;
        let ticket = self.start.ticket.sequence;
        let recorded = match level {
            Level::Batched => {
                let forced = otherwise == Place::Forced;
                let place = if forced { Place::EndForced(ticket) } else { Place::End(ticket) };
                self.handle.record(encoded, level, place)
            }
            _ => self.handle.record(encoded, level, Place::Kept),
        };
        // Once it has its place, or may have it, a second end would be a second truth.
        self.ended = recorded.as_ref().map_or_else(Error::outcome_unknown, |_| true);
        match &recorded {
            Err(error) if !self.ended => self.refused(error),
            _ => self.unsaid = None,
        }
        if self.ended && level != Level::Batched {
            self.handle.close_start(ticket, recorded.as_ref().ok().and_then(Recorded::ticket));
        }
        self.handle.receipt(recorded?, level)
    }

    /// Its caller can go on now, and has a while of his own before that: the intent's.
    pub(crate) fn begin_now(&mut self) {
        self.started = self.handle.clock().mono();
        if self.handle.log().check_process().is_ok() {
            self.handle.lock().open.begun(self.start.ticket.sequence, self.started, None);
        }
    }

    pub(crate) fn end_entry(&self, outcome: Outcome) -> Result<Entry> {
        if self.ended {
            return Err(Error::invalid(
                "the end of this call is already recorded: start a new call for new work",
            ));
        }
        let mut entry = (*self.end).clone();
        entry.duration = Some(self.handle.clock().mono().since(self.started));
        entry.tokens_in = self.tokens.map(|tokens| tokens.0);
        entry.tokens_out = self.tokens.map(|tokens| tokens.1);
        entry.metadata = self.metadata.clone();
        outcome.put(&mut entry);
        Ok(entry)
    }
}

impl Drop for Call {
    /// The call stays open; an end by its call id will ask for room.
    fn drop(&mut self) {
        if !self.ended && !self.start.dropped && self.handle.log().check_process().is_ok() {
            self.handle.release_start(self.start.ticket.sequence);
        }
    }
}
