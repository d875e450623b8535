//! The end of a call whose [`crate::Call`] is not at hand: found by its call id, or recorded without.
//!
//! Never here: an invented span or duration; what nobody here knows is left out. Invariant: while an
//! end is being recorded nobody else finds its call, and unless it is recorded, or may be, the call
//! can be found again. Next room: [`crate::open_starts`].

use std::sync::Arc;

use crate::call::Outcome;
use crate::drain::Drain;
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::{CallId, RunId, SessionId};
use crate::kind::CallKind;
use crate::observer::Receipt;
use crate::open_starts::OpenStart;
use crate::queue::Place;
use crate::record::Closing;
use crate::session::Session;

impl Session {
    /// Records the end of a call whose [`crate::Call`] is not at hand: in another process, after a
    /// restart. If this observer recorded its start and has not written it off, the end has span
    /// and duration; otherwise it has neither, because nobody here knows them, and readers pair it
    /// by the call id.
    ///
    /// # Errors
    /// As [`crate::Start::start`].
    pub fn end_by_call_id(
        &self,
        kind: CallKind,
        call_id: CallId,
        outcome: Outcome,
    ) -> Result<Receipt> {
        let Some(known) = self.ending(kind, &call_id)? else {
            let mut entry = self.end_of(kind, call_id);
            outcome.put(&mut entry);
            return self.record(&mut entry, self.level, Place::Kept);
        };
        let mut entry = known.end();
        outcome.put(&mut entry);
        let encoded = self.handle.prepare(&mut entry);
        let place = Place::End(known.ticket());
        let recorded = encoded.and_then(|encoded| self.handle.record(encoded, self.level, place));
        match &recorded {
            Ok(recorded) => known.ended(recorded.ticket()),
            Err(error) if error.outcome_unknown() => known.ended(None),
            Err(_) => drop(known), // it can be found again
        }
        self.handle.receipt(recorded?, self.level)
    }

    /// [`Session::end_by_call_id`] for async code: holds no thread while it waits for room or, above
    /// [`crate::Level::Batched`], for the log. Dropped while it waits for room, nothing is recorded and the
    /// call can be ended by its id again; dropped later, the end is recorded or will be, and a second
    /// one would have neither span nor duration.
    ///
    /// # Errors
    /// As [`crate::Start::start`]. Unless [`crate::Error::outcome_unknown`], the call can be ended again.
    ///
    /// ```
    /// # use annals_observer::{CallId, CallKind, JsonText, Observer, Outcome};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?;
    /// let id = CallId::new("call_7")?;
    /// drop(session.tool("search").call_id(id.clone()).start_async().await?);
    /// let outcome = Outcome::Ok(JsonText::string("79 hits"));
    /// let told = session.end_by_call_id_async(CallKind::Tool, id, outcome).await?;
    /// assert!(told.lsn.is_some(), "durable, as the session's level is");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn end_by_call_id_async(
        &self,
        kind: CallKind,
        call_id: CallId,
        outcome: Outcome,
    ) -> Result<Receipt> {
        let Some(known) = self.ending(kind, &call_id)? else {
            let mut entry = self.end_of(kind, call_id);
            outcome.put(&mut entry);
            return self.handle.record_async(&mut entry, self.level, Place::Kept).await;
        };
        let mut entry = known.end();
        outcome.put(&mut entry);
        let encoded = self.handle.prepare(&mut entry)?;
        let start = known.ticket();
        let offered = self.handle.offer_async(encoded, self.level, Place::End(start)).await?;
        // From here on it is queued. Declared after `known`, so dropped before it: the start leaves
        // the table and is found no more.
        let closing = Closing::of(&self.handle, start, offered.ticket);
        let receipt = self.handle.receipt_async(offered, self.level).await;
        if receipt.as_ref().is_err_and(|error| !error.outcome_unknown()) {
            closing.refused();
        }
        receipt
    }

    /// The open call of this id, if this observer has its start; nobody else finds it then.
    pub(crate) fn ending(&self, kind: CallKind, call_id: &CallId) -> Result<Option<Ending>> {
        self.handle.log().check_process()?;
        // The table knows the ids that were written.
        let session = self.handle.written_id(self.id.as_str()).and_then(SessionId::stored);
        let id = self.handle.written_id(call_id.as_str()).and_then(CallId::stored);
        let (session, id) = (session.as_ref().unwrap_or(&self.id), id.as_ref().unwrap_or(call_id));
        let run = self.run.as_ref().map(|run| {
            let written = self.handle.written_id(run.as_str()).and_then(RunId::stored);
            written.unwrap_or_else(|| run.clone())
        });
        let open = &mut self.handle.lock().open;
        let known = open.ending_by_call_id(session, run.as_ref(), kind.end(), id);
        Ok(known.map(|(ticket, start)| Ending::of(&self.handle, ticket, start)))
    }

    /// The end of a call whose start is not at hand.
    pub(crate) fn end_of(&self, kind: CallKind, call_id: CallId) -> Entry {
        let mut entry = self.entry(kind.end());
        entry.call_id = Some(call_id);
        entry
    }
}

/// An open call whose end is being recorded by its call id. Dropped, it can be found again.
#[derive(Debug)]
pub(crate) struct Ending {
    drain: Arc<Drain>,
    ticket: u64,
    start: OpenStart,
    waits: bool,
}

impl Ending {
    pub(crate) fn of(drain: &Arc<Drain>, ticket: u64, start: OpenStart) -> Ending {
        Ending { drain: drain.clone(), ticket, start, waits: true }
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The end entry as far as it is known.
    pub(crate) fn end(&self) -> Entry {
        let mut entry = (*self.start.end).clone();
        entry.duration = Some(self.drain.clock().mono().since(self.start.started));
        entry
    }

    /// The end has this ticket, or may be in the log (`None`).
    pub(crate) fn ended(mut self, end: Option<u64>) {
        self.waits = false;
        self.drain.close_start(self.ticket, end);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.waits && self.drain.log().check_process().is_ok() {
            self.drain.lock().open.not_ending(self.ticket);
        }
    }
}
