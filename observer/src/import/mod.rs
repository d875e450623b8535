//! Import: what other programs wrote becomes entries, once, in order, with nothing left out.
//!
//! Never here: prints, a guess at a broken line, a half import that looks whole. Invariants: every
//! entry of an import names its file, content hash, round and [`crate::Position`]; an
//! [`crate::EntryKind::ImportDone`] entry stands after all of them.
//!
//! - `.jsonl`, `.ndjson`: each line that is a JSON object is one entry; the line is kept whole, byte
//!   for byte, in `input`. Session, kind, time, names, ids, tokens, duration, output and error are
//!   read from the usual fields, and from those of our own export, where they are of their type. Blank
//!   lines are passed over. A line that is not an object is a [`BadLine`] and costs no other.
//! - `.traj` (SWE-agent): each step is an LLM call (start and end) and a tool call (start and end)
//!   inside one agent call; the session is the file's name without extension. Every member of a
//!   step is in exactly one entry: `query` in the LLM start's input, `response` in the LLM end's
//!   output, `action` and `observation` in the tool's input and output, the others in the LLM
//!   end's metadata. What surrounds the steps is in the agent's start and end. Values stay raw
//!   JSON text: no number is parsed, no name unescaped.
//! - `.db`, `.sqlite`, `.sqlite3` (the seeds' protocol store; feature `sqlite`): each row of the table
//!   with the columns `event_type` and `timestamp` is one entry. The row is kept whole in `input`, a
//!   JSON object of its columns, and read like a line of a `.jsonl`. Nothing is written to it or
//!   beside it.
//!
//! **After a crash.** Entries are written in atomic batches, in file order, and so stand in the
//! log as a prefix of the import. Without its done entry an import is not taken for finished; the
//! next one of the same content finds the last position there, skips what is in the log and goes
//! on: every line and step is there once. A file whose content changed, grown by one line say, is
//! another file: its lines are imported all.
//!
//! Walk: [`Importer`] -> `lines`/`jsonl` or `trajectory`/`history` (pure) -> `writer` ->
//! the observer's `drain`. Next room: [`Importer`].

mod bad;
mod file;
mod history;
mod importer;
mod index;
mod jsonl;
mod lines;
mod members;
mod origin;
#[cfg(feature = "sqlite")]
mod sqlite;
mod times;
mod trajectory;
mod underway;
mod writer;

pub use bad::{BadLine, Reason};
pub use file::content_hash;
pub use importer::{ImportOptions, ImportOutcome, ImportReport, Importer};
pub use index::already_imported;
pub use origin::FileKind;
