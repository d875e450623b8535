//! A call that has started: it carries what its end must know.
//!
//! Never here: a lookup. Session, span, call id and start time are inside, so an end finds its
//! start whatever else runs, on whatever thread. Invariants: a duration is the difference of two
//! readings of one monotonic clock; at most one end is recorded through a `Call`.
//! Next rooms: [`crate::guard`], [`crate::read`].

use std::sync::Arc;

use crate::clock::MonoTime;
use crate::drain::Handle;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::ids::{CallId, SpanId};
use crate::json::JsonText;
use crate::kind::EntryKind;
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
    pub(crate) started: MonoTime,
    pub(crate) call_id: CallId,
    pub(crate) span: SpanId,
    pub(crate) start: Receipt,
    pub(crate) tokens: Option<(u64, u64)>,
    pub(crate) metadata: Option<JsonText>,
    pub(crate) ended: bool,
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

    /// Records that the call ended well, with its duration. Durable on return at
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
        let mut entry = entry;
        let encoded = self.handle.prepare(&mut entry)?;
        let start = self.start.ticket.sequence;
        // Dropped while it waits for room, nothing is recorded and the call is open.
        let (end, dropped) =
            self.handle.offer_async(encoded, self.level, Place::End(start)).await?;
        // From here on it is queued, and a second end would be a second truth.
        self.ended = true;
        let closing = Closing::of(&self.handle, start, end);
        let receipt = self.handle.receipt_async(end, dropped, self.level).await;
        if receipt.as_ref().is_err_and(|error| !error.outcome_unknown()) {
            self.ended = false;
            closing.refused();
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

    pub(crate) fn finish(
        &mut self,
        outcome: Outcome,
        level: Level,
        otherwise: Place,
    ) -> Result<Receipt> {
        let mut entry = self.end_entry(outcome)?;
        if self.start.dropped {
            self.ended = true;
            return self.handle.drop_end(entry.kind);
        }
        let encoded = self.handle.prepare(&mut entry)?;
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
        if self.ended && level != Level::Batched {
            self.handle.close_start(ticket, recorded.as_ref().ok().and_then(Recorded::ticket));
        }
        self.handle.receipt(recorded?, level)
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
