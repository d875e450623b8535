//! Settings of a registry, plain data.
//!
//! Never here: parts. A setting is a number; what it costs to change it stands beside it.
//! Next room: [`crate::registry`].

use std::sync::Arc;

use annals_wal::Log;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::registry::Registry;

/// What of the log goes once a snapshot holds it. Holds are kept in any case.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Trim {
    /// Nothing; who wants it calls [`annals_wal::Log::trim`].
    Never,
    /// What lies below the registry's hold, up to the first record of another room: an observer's
    /// entries stay even where no hold of theirs names them.
    #[default]
    OwnRecords,
    /// All that no hold keeps, other rooms' records too.
    ToHolds,
}

/// How a registry is set up.
///
/// ```
/// use annals_registry::Options;
/// use annals_wal::Log;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let registry = Options::new().attempts_max(8).on(Log::open(dir.path().join("log"))?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) attempts_max: u32,
    pub(crate) ring_keys_max: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) snapshot_bytes: u64,
    pub(crate) trim: Trim,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            attempts_max: 64,
            ring_keys_max: 16 << 10,
            clock: Arc::new(SystemClock::new()),
            snapshot_bytes: 64 << 20,
            trim: Trim::default(),
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// How often a transaction runs before it is reported as a conflict. Default 64, at least 1.
    /// From the third attempt on it runs while nobody else may order a transaction, so more than
    /// three are needed only where its reads outgrow [`Options::ring_keys_max`].
    pub fn attempts_max(mut self, attempts: u32) -> Options {
        self.attempts_max = attempts;
        self
    }

    /// How many changed keys the registry remembers to judge running transactions by. Default
    /// 16384. A transaction during which more keys change runs again, whether or not they concern
    /// it; each key remembered costs about 32 bytes.
    pub fn ring_keys_max(mut self, keys: usize) -> Options {
        self.ring_keys_max = keys;
        self
    }

    /// Where the time comes from: what sweepers judge leases by, what metrics measure with. Default
    /// the machine's clocks.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Options {
        self.clock = clock;
        self
    }

    /// After how many bytes of transactions the registry writes a snapshot by itself, on a thread of
    /// its own. Default 64 MiB; 0 for never. An opening reads the newest snapshot and the
    /// transactions after it, so less makes openings faster and writes more. The thread stops at its
    /// next step once the registry is dropped, which waits for nothing, or the log closed, which
    /// waits for that step; the directory stays locked until then.
    pub fn snapshot_bytes(mut self, bytes: u64) -> Options {
        self.snapshot_bytes = bytes;
        self
    }

    /// What of the log is trimmed once a snapshot holds it. Default [`Trim::OwnRecords`].
    pub fn trim(mut self, trim: Trim) -> Options {
        self.trim = trim;
        self
    }

    /// [`Registry::on`] with these settings.
    ///
    /// # Errors
    /// As [`Registry::on`]; `Invalid` for no attempts at all.
    pub fn on(self, log: Log) -> Result<Registry> {
        if self.attempts_max == 0 {
            return Err(Error::invalid(
                "Options::attempts_max is 0: a transaction runs at least once",
            ));
        }
        Registry::build(log, self)
    }
}
