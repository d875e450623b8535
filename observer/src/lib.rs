//! # annals-observer: what agents did, on a write-ahead log
//!
//! An agent's run is a stream of entries: an agent, a model call or a tool call starts and ends,
//! something fails. This crate records them on an [`annals_wal::Log`], reads them back by session,
//! and imports what other programs wrote.
//!
//! ```
//! use annals_observer::{CallId, JsonText, Level, Observer, session_entries};
//! use annals_wal::Log;
//!
//! # let dir = tempfile::tempdir()?;
//! let observer = Observer::on(Log::open(dir.path().join("log"))?)?;
//! let session = observer.session("s-1")?;
//!
//! let mut agent = session.agent("planner").start()?; // durable when start() returns
//! let mut search = session
//!     .tool("search")
//!     .within(&agent)
//!     .call_id(CallId::new("call_1")?) // the runtime's own id pairs start and end
//!     .input(JsonText::parse(r#"{"query": "fsync"}"#)?)
//!     .level(Level::Ordered) // may go on before the sync
//!     .start()?;
//! search.end_ok(JsonText::string("79 hits"))?;
//! agent.end_error(JsonText::string("no budget left"))?;
//! observer.shutdown()?; // everything above is durable
//!
//! let kinds: Result<Vec<String>, _> = session_entries(observer.log(), "s-1")?
//!     .map(|stored| stored.map(|stored| stored.entry.kind.to_string()))
//!     .collect();
//! assert_eq!(kinds?, ["agent_start", "tool_start", "tool_end", "agent_end"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **What it promises.** A start or end at [`Level::Durable`] is on disk when its call returns; at
//! [`Level::Ordered`] it has its place and is on disk after [`Observer::flush`]; at
//! [`Level::Batched`] it is in a bounded queue and the call did no I/O. All entries of an observer
//! stand in one order, that of their [`Ticket`]s, so a durable one makes all before it durable. A
//! start and its end are paired by call id and span, never by order or name; durations come from a
//! monotonic clock or are absent. Every failure reaches a caller, a flush or [`Health`], and what
//! is dropped is accounted for in the log.
//!
//! **What it never does.** It invents no duration, no end and no id of a session; it parses no
//! number of yours. Secrets of known shapes are replaced before a byte is written ([`Options`]),
//! but a secret that looks like nothing is not found.
//!
//! **Invariants.** Every entry is one record: kind 0x0200 plus the [`EntryKind`]'s number, codec
//! bincode, stream tag [`SessionId::stream`]. The tag filters, the id decides. A large text stands
//! in payload records (kind 0x0300) before its entry, in the same batch.
//!
//! **Rooms.** A recording walks [`Session`] -> [`Start`] -> `capture` (select, redact, cut) ->
//! `record` -> `drain` (ticket, submit), or `queue` and `worker` for batched entries ->
//! [`annals_wal::Log`]; a reading walks [`Entries`] -> `codec`; an import walks [`import`] ->
//! `drain`; what a crash left open is `recover`'s. A flush, waited for in a thread or by a task, walks
//! `flush` or `flush_async`; an end by its call id `by_id`; a segment that leaves [`archive`]. First
//! room: [`Error`].

pub mod archive;
mod by_id;
mod call;
mod capture;
mod clock;
mod codec;
mod drain;
mod entry;
mod error;
pub mod export;
mod flush;
mod flush_async;
mod guard;
mod ids;
pub mod import;
mod intent;
mod json;
mod kind;
mod locked;
#[path = "../../wal/src/mutant.rs"]
mod mutant;
mod notes;
mod observer;
mod open_starts;
mod options;
mod payload;
mod query;
mod queue;
mod read;
mod record;
mod recover;
mod redact;
mod retention;
mod session;
mod tail;
mod together;
#[cfg(feature = "tracing")]
pub mod tracing_layer;
mod worker;

pub use call::{Call, Outcome};
pub use capture::Detail;
pub use clock::{Clock, MonoTime, SystemClock, WallTime};
pub use codec::{decode_record, decode_ref, encode_entry};
pub use entry::{Entry, Position, Source, TimeOrigin};
pub use error::{Error, ErrorKind, Result};
pub use flush::FlushOutcome;
pub use guard::CallGuard;
pub use ids::{CallId, ContentHash, InstanceId, RunId, SessionId, SpanId, Ticket};
pub use intent::Intent;
pub use json::JsonText;
pub use kind::{CallKind, EntryKind};
pub use notes::{Field, FieldNote, Notes, Original, PayloadRef};
pub use observer::{Health, Level, Observer, Receipt};
pub use options::{Options, Overflow};
pub use payload::read_field;
pub use query::{Matches, Query, last_entries};
pub use read::{Entries, ReadRecords, StoredEntry, entries, session_entries};
pub use recover::{CallState, OpenCall, Recovered, call_state, call_state_in_run};
pub use redact::{PANICKED, Redactor};
pub use retention::{HOLD, Retention};
pub use session::{Session, Start};
pub use tail::Tail;
pub use together::{JointError, Together};
