//! A segmented, checksummed, group-committed write-ahead log for one machine.
//!
//! [`Log::append`] returns when the record is durable: a sync that covered it has returned
//! success. After a crash the log is a prefix of what was appended, holds every acknowledged
//! record and only whole batches. Damage to what was promised is never silent and never repaired
//! away. The format, byte by byte, is `docs/FORMAT.md`; the map of the rooms is
//! `docs/ARCHITECTURE.md`.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use annals_wal::{Batch, Log};
//!
//! let log = Log::open(dir.path().join("log"))?;
//! let one = log.append("durable when append returns")?;
//!
//! let mut batch = Batch::new();
//! batch.push("both");
//! batch.push("or neither");
//! let pending = log.submit(batch)?; // ordered now ...
//! let lsns = pending.wait()?; // ... durable now
//! assert_eq!((one.get(), lsns.start().get(), lsns.end().get()), (1, 2, 3));
//!
//! for record in log.range(..)? {
//!     let record = record?;
//!     println!("{} {}", record.lsn, record.payload.len());
//! }
//! log.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layout
//! An append walks `record` -> `log` -> `queue` -> `commit` -> `writer` -> `fs`. An opening walks
//! `lock` -> `recover::facts` (through `scan` and `survey`) -> `recover::decide` ->
//! `recover::apply` -> `log`. A read walks `view` -> `cursor` -> `scan`.
//!
//! # Invariants
//! 1. Acknowledged means synced.
//! 2. A failed write or sync is final.
//! 3. The queue lock is never held during I/O.
//! 4. Only `recover::apply` repairs.
//! 5. Only `fs::os` touches the system.

#![deny(unsafe_code)] // allowed in `fs::map` alone
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "module docs name the next room, private or not"
)]

mod append_async;
mod backup;
mod bodies;
mod claim;
mod cohort;
mod commit;
mod control;
mod crc;
mod cursor;
pub mod diagnose;
mod error;
mod filter;
mod fork;
pub mod format;
pub mod fs;
mod gather;
mod ids;
mod index;
pub mod inspect;
mod joint;
mod latch;
mod lens;
mod level;
mod lock;
mod log;
mod mutant;
mod open;
mod options;
mod pending;
mod prepare;
mod queue;
mod reader;
mod record;
mod records;
pub mod recover;
mod report;
mod room;
pub mod salvage;
pub mod scan;
mod seek;
mod share;
mod source;
mod spare;
mod stats;
pub mod survey;
mod sync;
mod tail;
mod tenure;
mod trim;
mod trust;
mod view;
mod watch;
mod window;
mod writer;

pub use append_async::AppendAsync;
pub use claim::{Claim, RoomLock};
pub use error::{Error, ErrorKind, Location, Result};
pub use filter::Filter;
pub use ids::{Generation, LogId, Lsn, Sequence};
pub use joint::{Before, InClosure, Joint, NoneBefore, in_closure};
pub use level::Level;
pub use log::Log;
pub use options::{Options, Sharing};
pub use pending::{Ordered, Pending, Refused, Slot};
pub use reader::{Follow, LogReader};
pub use record::{Batch, Codec, EncodedBatch, Kind, Payload, Record, StoredRecord, Stream};
pub use records::{RecordRef, Records};
pub use report::RecoveryReport;
pub use share::{Listen, Turn};
pub use stats::Stats;
pub use tenure::Tenure;
pub use window::Window;
