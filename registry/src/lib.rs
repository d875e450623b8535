//! Keys and values that several agents change at once, on an [`annals_wal`] log.
//!
//! A registry answers for what JSON files rewritten under a lock lose: a count that two agents
//! decrement, a task that two agents own, a file that a crash leaves half written. Its state is
//! an ordered map of [`Key`]s to [`Value`]s. It changes by transactions that are in the log
//! before anyone is told, and it is rebuilt from the log when that is opened.
//!
//! ```
//! use annals_registry::{Key, Outcome, Registry, TxResult};
//! use annals_wal::Log;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
//! let (task, total) = (Key::new("tasks/T1/active")?, Key::new("active")?);
//! registry.put_json(&task, &1)?;
//! registry.put_json(&total, &1)?;
//!
//! // An agent of T1 ends: both counts change, or neither, however many agents end at once.
//! let outcome = registry.transact(|tx| -> TxResult<_> {
//!     for count in [&task, &total] {
//!         let active: u64 = tx.get_json(count)?.unwrap_or(0);
//!         tx.put_json(count, &active.saturating_sub(1))?;
//!     }
//!     Ok(())
//! })?;
//!
//! assert!(matches!(outcome, Outcome::Done { .. }));
//! assert_eq!(registry.get_json::<u64>(&total)?, Some(0));
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! 1. **Serializable.** A transaction commits only if nothing it read has changed: keys, missing
//!    keys, and whole prefixes. The LSNs are the serial order. No closure sees a mixed state.
//! 2. **Durable before known.** Every outcome, that of a read, an abort or a lost race too, is
//!    told only when all it rests on is durable. Plain reads see all that was acknowledged and
//!    nothing that a crash could undo.
//! 3. **Three-way.** An outcome is *done*, a *conflict* (a value, with what was there), or
//!    *unknown* ([`Error::outcome_unknown`]): after a failed sync only the reopened log can tell.
//! 4. **Whole or not at all**, also over a crash, and rebuilt whole or not at all: a transaction
//!    that cannot be read is an error with its LSN.
//!
//! It keeps everything in memory. Snapshots bound what an opening reads and what of the log must be
//! kept ([`Registry::checkpoint`]). One process has it, and one [`Registry`] (with its clones) is built on one open log.
//!
//! # Layout
//!
//! A transaction passes through the rooms in this order: [`Registry`] takes the call, `transact`
//! runs the closure, `tx` keeps its read set and writes, `codec` encodes them, `shared` orders
//! them under the log's queue lock, `state` checks and applies, and, once they are durable,
//! promotes. `rebuild` is the way back. `state` and `codec` do no I/O.
//!
//! On these stand the others: `lease` and `sweep` (keys that last as long as somebody says so),
//! `writer` (retries that are recognised), `typed` and `merge` (a struct changes its members and no
//! others), `machine` and `machines` (tables of transitions), `view` (reads that change nothing),
//! `watch` and `history` (what changed), `checkpoint`, `snapshot` and `state::shot` (what an opening
//! need not read), `reader` (another process's registry), `import` (JSON registries), `backend` (the
//! seam), `metrics`.
//!
//! Plain reads believe a map that holds durable transactions only. What is ordered and not yet
//! durable lies in a second structure ahead of it, which transactions read, so that a hot key
//! changes as fast as the processor allows and not once a sync.

mod backend;
mod bell;
mod change;
mod checkpoint;
mod clock;
mod codec;
mod error;
mod history;
mod ids;
mod import;
mod key;
mod lease;
mod machine;
mod machines;
mod merge;
mod metrics;
#[path = "../../wal/src/mutant.rs"]
mod mutant;
mod nesting;
mod options;
mod others;
mod pace;
mod process;
mod reader;
mod rebuild;
mod registry;
mod shared;
mod snapshot;
mod source;
mod state;
mod sweep;
mod transact;
mod tx;
mod typed;
mod value;
mod view;
mod watch;
mod writer;

pub use annals_wal::{Codec, Lsn};
pub use backend::Backend;
pub use change::{Abort, Cas, Change, Commit, Expected, Note, Outcome, Precondition, TxResult};
pub use checkpoint::Checkpoint;
pub use clock::{Clock, SystemClock};
pub use codec::{CHECKPOINT, Committed, TRANSACTION, decode_committed, decode_transaction};
pub use error::{Error, ErrorKind, Result};
pub use history::{AsOf, History, Version};
pub use ids::{LeaseId, WriterId};
pub use import::{Finding, Imported, check_json};
pub use key::{KEY_BYTES_MAX, Key, Prefix};
pub use lease::Lease;
pub use machine::{Machine, Transition};
pub use machines::{AgentLife, AgentTurn, agent_life, agent_turn};
pub use metrics::{Metrics, Percentiles};
pub use options::{Options, Trim};
pub use reader::RegistryReader;
pub use rebuild::HOLD;
pub use registry::Registry;
pub use sweep::{Sweeper, Sweeping, Swept};
pub use tx::Tx;
pub use typed::Updated;
pub use value::{Entry, Revision, Value};
pub use view::{Latest, LatestRevision, View};
pub use watch::{After, Event, Watch, WatchStream};
pub use writer::{JointCommit, Met, Writer, Writers, Written};
