//! Ends that are recorded on every path: a guard, and calls that wrap the work itself.
//!
//! Never here: an end at the price of a wait in a drop. A guard's own end is queued, not synced.
//! Invariants: work that fails, panics or is cancelled leaves an end with an error that says which;
//! an end that was refused, because the disk was full say, is said again by the drop of its guard and
//! never becomes a cancellation.
//! Next room: [`crate::intent`].

use std::fmt::Display;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::call::{Call, Outcome};
use crate::error::Result;
use crate::json::JsonText;
use crate::queue::Place;
use crate::session::Start;

/// A call whose end is recorded when it is dropped, unless it was recorded before. An end that was
/// refused is said by the drop, as it was, or shorter if it was too large.
///
/// ```
/// use annals_observer::{EntryKind, JsonText, Observer, entries};
///
/// # let dir = tempfile::tempdir()?;
/// let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let session = observer.session("s-1")?;
/// let read = |path: &str| -> Result<String, Box<dyn std::error::Error>> {
///     let mut call = session.tool("read_file").guard()?;
///     let text = std::fs::read_to_string(path)?; // fails: the guard says that it did not return
///     call.end_ok(JsonText::string("read"))?;
///     Ok(text)
/// };
/// assert!(read("/nonexistent").is_err());
/// observer.flush()?;
/// let end = entries(observer.log())?.last().transpose()?.map(|stored| stored.entry);
/// assert!(end.is_some_and(|end| end.kind == EntryKind::ToolEnd && end.error.is_some()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the call ends when the guard is dropped"]
pub struct CallGuard {
    call: Call,
}

impl Deref for CallGuard {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

impl DerefMut for CallGuard {
    fn deref_mut(&mut self) -> &mut Call {
        &mut self.call
    }
}

impl Drop for CallGuard {
    /// Queued and not waited for: a drop may happen on the thread of a runtime. A failure to queue
    /// is in [`crate::Health::last_error`].
    fn drop(&mut self) {
        if self.call.is_ended() || self.call.handle.log().check_process().is_err() {
            return;
        }
        let what = if std::thread::panicking() { PANIC } else { CANCELLED };
        if let Err(error) = self.call.finish_unsaid(|| said(what, None)) {
            self.call.handle.note_error(error);
        }
    }
}

const PANIC: &str = "panic";
const CANCELLED: &str = "cancelled";

fn said(what: &str, message: Option<&str>) -> JsonText {
    let value = match message {
        Some(message) => serde_json::json!({ "type": what, "message": message }),
        None => serde_json::json!({ "type": what }),
    };
    JsonText::checked(value.to_string())
}

impl Start {
    /// Records the start; the guard that is returned records the end when it is dropped, as failed
    /// (`panic` or `cancelled`) unless an end was recorded through it before.
    ///
    /// # Errors
    /// As [`Start::start`].
    pub fn guard(self) -> Result<CallGuard> {
        Ok(CallGuard { call: self.start()? })
    }

    /// [`Start::guard`] for async code.
    ///
    /// # Errors
    /// As [`Start::start_async`].
    pub async fn guard_async(self) -> Result<CallGuard> {
        Ok(CallGuard { call: self.start_async().await? })
    }

    /// Records the start, does the work, records how it ended: with its output as JSON, with its
    /// error's text, or as a panic, which then goes on. The outer error is the observer's: of the
    /// start (the work was not done), or of the end.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let observer =
    /// annals_observer::Observer::on(annals_wal::Log::open(dir.path().join("l"))?)?; let session =
    /// observer.session("s-1")?; let parsed = session.tool("parse").run(|_call|
    /// "17".parse::<u8>())?; assert_eq!(parsed, Ok(17));
    /// let failed = session.tool("parse").run(|_call| "x".parse::<u8>())?;
    /// assert!(failed.is_err()); // and the end says why
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Start::start`] and [`Call::end_ok`]; with the latter the work's own result is lost to the
    /// caller, and queued to be recorded as what it was.
    ///
    /// # Panics
    /// If the work does, after its end is recorded.
    pub fn run<T: serde::Serialize, E: Display>(
        self,
        work: impl FnOnce(&mut Call) -> std::result::Result<T, E>,
    ) -> Result<std::result::Result<T, E>> {
        let mut guard = self.guard()?;
        let result = match catch_unwind(AssertUnwindSafe(|| work(&mut guard))) {
            Ok(result) => result,
            Err(panic) => {
                let error = said(PANIC, panic_text(&*panic));
                if !guard.is_ended() {
                    // The panic is what the caller must see; a refused end is in the health.
                    let _ = guard.end_error(error);
                }
                resume_unwind(panic);
            }
        };
        if !guard.is_ended() {
            let level = guard.level;
            guard.finish(outcome(&result), level, Place::Kept)?;
        }
        Ok(result)
    }

    /// [`Start::run`] for async code. Dropped before the work is ready, the end says `cancelled`; a
    /// panic passes through and the end says `panic`.
    ///
    /// # Errors
    /// As [`Start::run`].
    pub async fn run_async<T: serde::Serialize, E: Display>(
        self,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<std::result::Result<T, E>> {
        let mut guard = self.guard_async().await?;
        let result = work.await;
        guard.end_async(outcome(&result)).await?;
        Ok(result)
    }
}

fn outcome<T: serde::Serialize, E: Display>(result: &std::result::Result<T, E>) -> Outcome {
    match result {
        Ok(output) => Outcome::Ok(
            JsonText::of(output)
                .unwrap_or_else(|_| JsonText::string("[the output cannot be written as JSON]")),
        ),
        Err(error) => Outcome::Error(JsonText::string(&error.to_string())),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> Option<&str> {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied())
}
