//! Settings of a registry, plain data.
//!
//! Never here: parts. A setting is a number; what it costs to change it stands beside it.
//! Next room: [`crate::registry`].

use annals_wal::Log;

use crate::error::{Error, Result};
use crate::registry::Registry;

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
}

impl Default for Options {
    fn default() -> Options {
        Options { attempts_max: 64, ring_keys_max: 16 << 10 }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// How often a transaction runs before it is reported as a conflict. Default 64, at least 1.
    /// More attempts ride out more contention and take longer to say so.
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
