//! A call that has started: it carries what its end must know.
//!
//! Never here: a lookup. Session, span, call id and start time are inside, so an end finds its
//! start whatever else runs, on whatever thread. Invariants: a duration is the difference of two
//! readings of one monotonic clock; at most one end is recorded through a `Call`.
//! Next room: [`crate::read`].

use std::sync::Arc;

use crate::clock::MonoTime;
use crate::drain::Drain;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::ids::{CallId, SpanId};
use crate::json::JsonText;
use crate::kind::EntryKind;
use crate::observer::{Level, Receipt, receipt};

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
/// end can still be recorded by [`crate::Session::end_by_call_id`].
#[must_use = "a call that is dropped is recorded as never having ended"]
#[derive(Debug)]
pub struct Call {
    drain: Arc<Drain>,
    level: Level,
    /// The end entry as far as it is known.
    end: Entry,
    started: MonoTime,
    call_id: CallId,
    span: SpanId,
    start: Receipt,
    ended: bool,
}

impl Call {
    pub(crate) fn new(
        drain: Arc<Drain>,
        level: Level,
        end: Entry,
        started: MonoTime,
        call_id: CallId,
        span: SpanId,
        start: Receipt,
    ) -> Call {
        Call { drain, level, end, started, call_id, span, start, ended: false }
    }

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

    pub(crate) fn agent(&self) -> Option<&str> {
        self.end.agent.as_deref()
    }

    /// Tokens read and written, to be recorded with the end.
    pub fn tokens(&mut self, tokens_in: u64, tokens_out: u64) -> &mut Call {
        self.end.tokens_in = Some(tokens_in);
        self.end.tokens_out = Some(tokens_out);
        self
    }

    /// Anything else to be recorded with the end.
    pub fn metadata(&mut self, metadata: JsonText) -> &mut Call {
        self.end.metadata = Some(metadata);
        self
    }

    /// Records that the call ended well, with its duration. Durable on return at
    /// [`Level::Durable`], ordered at [`Level::Ordered`].
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
        self.finish(Outcome::Ok(output))
    }

    /// Records that the call failed, with its duration. Otherwise as [`Call::end_ok`].
    ///
    /// # Errors
    /// As [`Call::end_ok`].
    pub fn end_error(&mut self, error: JsonText) -> Result<Receipt> {
        self.finish(Outcome::Error(error))
    }

    /// Records a failure inside the call that does not end it.
    ///
    /// # Errors
    /// As [`crate::Start::start`].
    pub fn error(&self, error: JsonText) -> Result<Receipt> {
        let mut entry = self.end.clone();
        entry.kind = EntryKind::Error;
        (entry.tokens_in, entry.tokens_out, entry.metadata) = (None, None, None);
        entry.error = Some(error);
        receipt(&self.drain, self.drain.submit_now(&mut entry)?, self.level)
    }

    fn finish(&mut self, outcome: Outcome) -> Result<Receipt> {
        if self.ended {
            return Err(Error::invalid(
                "the end of this call is already recorded: start a new call for new work",
            ));
        }
        let mut entry = self.end.clone();
        entry.duration = Some(self.drain.clock().mono().since(self.started));
        outcome.put(&mut entry);
        let submitted = self.drain.submit_now(&mut entry);
        // Once it has its place, or may have it, a second end would be a second truth.
        self.ended = submitted.as_ref().map_or_else(Error::outcome_unknown, |_| true);
        receipt(&self.drain, submitted?, self.level)
    }
}
