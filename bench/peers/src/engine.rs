//! What an engine is here: opened in a fresh directory, appended to by many threads, read again.
//!
//! Never here: an engine (`engines/`), time, threads. Invariant: [`Engine::append`] returns only
//! when its engine says that the record is durable; `trace.rs` counts whether that cost a sync.
//! What an engine cannot do it leaves as it is here, and is left out of that workload.
//! Next room: [`crate::engines`].

use std::future::Future;
use std::path::{Path, PathBuf};

use crate::window::{self, Window};
use crate::workload::Workload;

/// Whatever went wrong, as a sentence.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A value or the sentence.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// What an engine may know of the run before it starts.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// A fresh directory that is the engine's alone.
    pub(crate) dir: PathBuf,
    pub(crate) workload: Workload,
    /// How many threads or tasks will append, each with its own number from 0, or how many records
    /// one task has in flight.
    pub(crate) writers: usize,
    /// Bytes of a record.
    pub(crate) size: usize,
    /// How long they will append.
    pub(crate) seconds: f64,
}

/// One engine in one configuration.
pub(crate) trait Engine: Send + Sync + Sized + 'static {
    /// What `--engines` and the tables call it.
    const NAME: &'static str;
    /// Its settings in half a line, for `--list`.
    const SETTINGS: &'static str;
    /// Whether its acknowledgement is a sync that flushes the device. An engine that says so and
    /// is seen not to do it is an error; one that says no stands in no ratio.
    const DURABLE: bool = true;
    /// Whether it has durable batches ([`Engine::append_batch`]).
    const BATCHES: bool = false;
    /// Whether it can read everything back while it is open ([`Engine::scan`]).
    const SCANS: bool = false;
    /// Whether that scan compares a checksum of every byte that it hands out. One that does not is
    /// shown beside the others and stands in no ratio.
    const SCANS_VERIFIED: bool = false;
    /// Whether one thread can have many appends under way ([`Submits`]).
    const AWAITS: bool = false;
    /// Records that one call of its own window makes durable.
    const RECORDS_PER_CALL: u64 = 1;

    /// Opens it. Nothing in here is timed.
    fn open(setup: &Setup) -> Outcome<Self>;

    /// Appends one record for this writer. Durable on return.
    fn append(&self, writer: usize, record: &[u8]) -> Outcome<()>;

    /// Appends these records for this writer with as few syncs as it can, all or none where it
    /// knows that. Durable on return.
    fn append_batch(&self, _writer: usize, _records: &[Vec<u8>]) -> Outcome<()> {
        Err(format!("{} has no batches", Self::NAME).into())
    }

    /// Hands out every record, as verified as the engine does it by itself.
    fn scan(&self, _each: Each<'_>) -> Outcome<()> {
        Err(format!("{} has no scan", Self::NAME).into())
    }

    /// How many segments were ended so far, where the engine tells.
    fn rotations(&self) -> Option<u64> {
        None
    }

    /// How it runs this workload; `None` leaves it out.
    fn window(workload: Workload) -> Option<Window<Self>> {
        window::blocking(workload)
    }

    /// Opens what a killed process left, with the engine's own recovery, and hands out each record.
    fn reopen(dir: &Path, size: usize, each: Each<'_>) -> Outcome<()>;
}

/// An engine that takes a record now and says later when it is durable.
pub(crate) trait Submits: Engine {
    type Pending: Send + 'static;

    /// Orders one record.
    fn submit(&self, record: &[u8]) -> Outcome<Self::Pending>;

    /// Whether the answer is there.
    fn is_done(pending: &Self::Pending) -> bool;

    /// The answer.
    fn durable(pending: Self::Pending) -> impl Future<Output = Outcome<()>> + Send;
}

/// Takes the records of an engine, one by one.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&[u8]) -> Outcome<()>;
