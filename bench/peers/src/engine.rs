//! What an engine is here: opened in a fresh directory, appended to by many threads, read again.
//!
//! Never here: an engine (`engines/`), time, threads. Invariant: [`Engine::append`] returns only
//! when its engine says that the record is durable; `trace.rs` counts whether that cost a sync.
//! Next room: [`crate::engines`].

use std::path::{Path, PathBuf};

/// Whatever went wrong, as a sentence.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A value or the sentence.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// What an engine may know of the run before it starts.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// A fresh directory that is the engine's alone.
    pub(crate) dir: PathBuf,
    /// How many threads will append, each with its own number from 0.
    pub(crate) writers: usize,
    /// Bytes of a record.
    pub(crate) size: usize,
    /// How long they will append.
    pub(crate) seconds: f64,
}

/// One engine in one configuration.
pub(crate) trait Engine: Send + Sync + Sized {
    /// What `--engines` and the tables call it.
    const NAME: &'static str;
    /// Its settings in half a line, for `--list`.
    const SETTINGS: &'static str;
    /// Whether its acknowledgement is a sync that flushes the device. An engine that says so and
    /// is seen not to do it is an error; one that says no stands in no ratio.
    const DURABLE: bool = true;

    /// Opens it. Nothing in here is timed.
    fn open(setup: &Setup) -> Outcome<Self>;

    /// Appends one record for this writer. Durable on return.
    fn append(&self, writer: usize, record: &[u8]) -> Outcome<()>;

    /// How many segments were ended so far, where the engine tells.
    fn rotations(&self) -> Option<u64> {
        None
    }

    /// Opens what a killed process left, with the engine's own recovery, and hands out each record.
    fn reopen(dir: &Path, size: usize, each: Each<'_>) -> Outcome<()>;
}

/// Takes the records of a reopened engine, one by one.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&[u8]) -> Outcome<()>;
