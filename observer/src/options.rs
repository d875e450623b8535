//! Settings of an observer: plain data, each with its default.
//!
//! Never here: doing. Next room: [`crate::observer`].

use std::sync::Arc;
use std::time::Duration;

use annals_wal::Log;

use crate::capture::{Capture, Detail};
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::observer::Observer;
use crate::redact::{Redaction, Redactor};

/// What a batched entry meets when the observer's queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Overflow {
    /// The call waits for room; an async one without holding its thread. If the disk is full it
    /// is refused instead, because nobody knows when there will be room.
    #[default]
    Wait,
    /// The entry is dropped and counted; an entry of kind `dropped` says later which tickets. Ends,
    /// intents and errors are never dropped: they wait. A start that is dropped drops its end.
    DropNewest,
}

/// How entries travel.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) queue_entries_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) overflow: Overflow,
    pub(crate) batch_age_max: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) open_starts_max: usize,
    pub(crate) open_start_age_max: Duration,
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            queue_entries_max: 8192,
            queue_bytes_max: 32 << 20,
            overflow: Overflow::Wait,
            batch_age_max: Duration::from_millis(100),
            batch_bytes: 256 << 10,
            open_starts_max: 65_536,
            open_start_age_max: Duration::from_secs(3600),
        }
    }
}

/// How to observe. Settings bind this observer only; the log keeps what each entry needs.
///
/// ```
/// use annals_observer::{Detail, JsonText, Level, Options, Overflow};
///
/// # let dir = tempfile::tempdir()?;
/// let observer = Options::new()
///     .detail(Detail::Standard) // input and output, no metadata
///     .field_bytes_max(64 << 10)
///     .overflow(Overflow::DropNewest)
///     .redactor(|text: &str| text.contains("hunter2").then(|| text.replace("hunter2", "[mine]")))
///     .on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let session = observer.session("s-1")?.level(Level::Batched);
/// let mut call = session.tool("login").input(JsonText::string("say hunter2")).start()?;
/// call.end_ok(JsonText::string("token ghp_0123456789abcdefghijABCDEFGHIJ012345"))?;
/// observer.flush()?;
///
/// let stored: Vec<_> =
///     annals_observer::entries(observer.log())?.collect::<Result<_, _>>()?;
/// assert_eq!(stored[0].entry.input, Some(JsonText::string("say [mine]")));
/// assert_eq!(stored[1].entry.output, Some(JsonText::string("token [redacted:api-key]")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) capture: Capture,
    pub(crate) delivery: Delivery,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            capture: Capture::default(),
            delivery: Delivery::default(),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl Options {
    /// The defaults: every detail, no limit on texts, built-in redactors on.
    pub fn new() -> Options {
        Options::default()
    }

    /// How much of an entry is recorded. Default [`Detail::Full`].
    pub fn detail(mut self, detail: Detail) -> Options {
        self.capture.detail = detail;
        self
    }

    /// Whether inputs are recorded. Default true.
    pub fn include_input(mut self, yes: bool) -> Options {
        self.capture.input = yes;
        self
    }

    /// Whether outputs are recorded. Default true.
    pub fn include_output(mut self, yes: bool) -> Options {
        self.capture.output = yes;
        self
    }

    /// Whether the inputs of model calls are recorded. Default true.
    pub fn include_prompts(mut self, yes: bool) -> Options {
        self.capture.prompts = yes;
        self
    }

    /// Whether metadata is recorded. Default true.
    pub fn include_metadata(mut self, yes: bool) -> Options {
        self.capture.metadata = yes;
        self
    }

    /// Cuts longer texts (input, output, error, metadata) to this many bytes, on a character
    /// boundary and after redaction; of a JSON string its content counts. A text that was cut becomes
    /// a JSON string of its beginning; [`crate::Entry::notes`] has its length and SHA-256. Default:
    /// no limit.
    pub fn field_bytes_max(mut self, bytes: usize) -> Options {
        self.capture.field_bytes_max = bytes;
        self
    }

    /// Longer texts stand in records of their own, in the batch of their entry and before it; see
    /// [`crate::read_field`]. Default 256 KiB.
    pub fn inline_bytes_max(mut self, bytes: usize) -> Options {
        self.capture.inline_bytes_max = bytes;
        self
    }

    /// Adds a redactor of the caller's own; it runs after the built-in ones.
    pub fn redactor(mut self, redactor: impl Redactor + 'static) -> Options {
        self.capture.redaction.add(Arc::new(redactor));
        self
    }

    /// Turns the built-in redactors off. What is then recorded holds what it was given.
    pub fn without_built_in_redactors(mut self) -> Options {
        self.capture.redaction.without_built_in();
        self
    }

    /// The key of the hashes that stand for names and ids which a redactor matched. With one key,
    /// one id has one hash in all runs. Default: random for each observer.
    pub fn id_key(mut self, key: [u8; 16]) -> Options {
        self.capture.redaction.set_key(key);
        self
    }

    /// What happens to a batched entry when the queue is full. Default [`Overflow::Wait`].
    pub fn overflow(mut self, overflow: Overflow) -> Options {
        self.delivery.overflow = overflow;
        self
    }

    /// How many entries may wait in the queue before the next finds no room; at least 1. The ends of
    /// calls whose start was queued come on top, at most [`Options::open_starts_max`] of them: an end
    /// is never refused for want of room, and calls that are open take none. Default 8192.
    pub fn queue_entries_max(mut self, entries: usize) -> Options {
        self.delivery.queue_entries_max = entries.max(1);
        self
    }

    /// How many bytes may wait in the queue; those ends come on top. Default 32 MiB.
    pub fn queue_bytes_max(mut self, bytes: usize) -> Options {
        self.delivery.queue_bytes_max = bytes;
        self
    }

    /// How long a batched entry may wait before it is written. Default 100 ms.
    pub fn batch_age_max(mut self, age: Duration) -> Options {
        self.delivery.batch_age_max = age;
        self
    }

    /// How many bytes of batched entries are written at once without waiting longer. Default
    /// 256 KiB.
    pub fn batch_bytes(mut self, bytes: usize) -> Options {
        self.delivery.batch_bytes = bytes;
        self
    }

    /// How many calls may be open before the oldest is written off as `abandoned`. Default 65,536.
    pub fn open_starts_max(mut self, count: usize) -> Options {
        self.delivery.open_starts_max = count;
        self
    }

    /// How long a call may be open before it is written off as `abandoned`. Default one hour. It is
    /// looked at when a call starts, in a flush, and by the observer's own thread, which runs from the
    /// first batched or async entry, `force_flush` or async flush on; only where all three are missing, a
    /// call of an idle process stays open.
    pub fn open_start_age_max(mut self, age: Duration) -> Options {
        self.delivery.open_start_age_max = age;
        self
    }

    /// Another clock than the machine's: a test states how long its calls took.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.clock = clock;
        self
    }

    /// An observer on this log. Nothing is written yet, and no thread is started before the first
    /// batched or async entry, [`Observer::force_flush`] or async flush.
    ///
    /// # Errors
    /// `Io` if the operating system gives no random bytes.
    pub fn on(self, log: Log) -> Result<Observer> {
        Observer::of(log, self)
    }
}

impl Capture {
    /// What of it an import does: it keeps every field, redacted unless it is raw.
    pub(crate) fn of_import(&self, raw: bool) -> Redaction {
        if raw { Redaction::none() } else { self.redaction.clone() }
    }
}
