//! Intents: a tool's start on disk before the tool runs.
//!
//! Never here: a tool. Invariant: whoever has an [`Intent`] may enter the tool, because its start
//! is durable; whoever got an error must not. Next room: [`crate::recover`].

use std::sync::Arc;

use crate::call::Call;
use crate::drain::Handle;
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::CallId;
use crate::kind::EntryKind;
use crate::observer::{Level, Receipt};
use crate::queue::Place;
use crate::session::Start;

/// A durable start whose tool was not entered yet.
///
/// Dropping it says in the log that the tool was not run (an entry of kind `not_run`), so that a
/// reader knows it from a call that a crash cut.
#[derive(Debug)]
#[must_use = "enter() it before the tool runs; dropped, it says that the tool did not run"]
pub struct Intent {
    call: Call,
    not_run: NotRun,
}

/// Says on its drop that the tool did not run, unless it was entered.
#[derive(Debug)]
struct NotRun {
    handle: Arc<Handle>,
    entry: Option<Arc<Entry>>,
    /// The ticket of the start, which is open no more then.
    start: u64,
}

impl Start {
    /// Records the start and returns when it is durable, whatever the session's level.
    ///
    /// # Errors
    /// As [`Start::start`]. After any error the tool must not run: the intent is not recorded, or
    /// nobody knows whether it is.
    ///
    /// ```
    /// use annals_observer::{JsonText, Observer};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?;
    /// let intent = session.tool("send_mail").input(JsonText::string("to: all")).begin()?;
    /// let mut call = intent.enter(); // from here on the mail may have been sent
    /// call.end_ok(JsonText::string("sent"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin(mut self) -> Result<Intent> {
        self.level = Level::Durable;
        Ok(Intent::of(self.start()?))
    }

    /// [`Start::begin`] for async code: holds no thread while it waits.
    ///
    /// # Errors
    /// As [`Start::begin`].
    pub async fn begin_async(mut self) -> Result<Intent> {
        self.level = Level::Durable;
        Ok(Intent::of(self.start_async().await?))
    }
}

impl Intent {
    fn of(call: Call) -> Intent {
        let (handle, entry) = (call.handle.clone(), Some(call.end.clone()));
        let not_run = NotRun { handle, entry, start: call.start.ticket.sequence };
        Intent { call, not_run }
    }

    /// The id of the call.
    pub fn call_id(&self) -> &CallId {
        self.call.call_id()
    }

    /// The receipt of the start; its LSN is durable.
    pub fn start_receipt(&self) -> Receipt {
        self.call.start_receipt()
    }

    /// The tool is entered: from here on only an end can say what happened, and from here on its
    /// duration counts.
    pub fn enter(self) -> Call {
        let Intent { mut call, mut not_run } = self;
        not_run.entry = None;
        call.begin_now();
        call
    }
}

impl Drop for NotRun {
    /// Queued and not waited for. A failure to queue is in [`crate::Health::last_error`]; the call
    /// is then ambiguous to readers, which is safe.
    fn drop(&mut self) {
        let Some(end) = self.entry.take() else { return };
        if self.handle.log().check_process().is_err() {
            return;
        }
        let mut entry = (*end).clone();
        entry.kind = EntryKind::NotRun;
        let encoded = self.handle.prepare(&mut entry);
        // In the place of the end, so that nobody writes the start off later.
        let place = Place::EndForced(self.start);
        let recorded =
            encoded.and_then(|encoded| self.handle.record(encoded, Level::Batched, place));
        if let Err(error) = recorded {
            self.handle.note_error(error);
        }
    }
}
