//! A registry that another process may own: its durable state, read without a lock.
//!
//! Never here: writes, repairs, the directory's lock. Invariant: what is shown is a state that the
//! owner had, durable. It may be behind; [`RegistryReader::refresh`] catches up. Next room:
//! [`crate::history`].

use std::path::Path;

use annals_wal::{LogReader, Lsn};

use crate::error::{Error, ErrorKind, Result};
use crate::history::{AsOf, History};
use crate::key::{Key, Prefix};
use crate::rebuild;
use crate::source::Source;
use crate::state::Durable;
use crate::value::{Entry, Revision};
use crate::watch::{After, Watch};

/// The durable state of a registry, for reading.
///
/// ```
/// use annals_registry::{Key, Registry, RegistryReader, Value};
/// # use annals_wal::Log;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// let registry = Registry::on(Log::open(&path)?)?;
/// registry.put(&Key::new("k")?, Value::json(&1)?)?;
/// registry.put(&Key::new("l")?, Value::json(&2)?)?;
///
/// let reader = RegistryReader::open(&path)?; // as another process would
/// assert!(reader.get(&Key::new("k")?).is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RegistryReader {
    log: LogReader,
    durable: Durable,
}

/// How often a reading begins anew because the owner trimmed what it was reading.
const TRIES: u32 = 16;

impl RegistryReader {
    /// Reads the registry in the log at `path`.
    ///
    /// # Errors
    /// `Log(NotALog)` if there is no log; `Corrupt`, `Unsupported` and `Trimmed` as
    /// [`crate::Registry::on`].
    pub fn open(path: impl AsRef<Path>) -> Result<RegistryReader> {
        let mut tries = 1;
        loop {
            let log = LogReader::open(path.as_ref()).map_err(Error::of_log)?;
            match RegistryReader::on(log) {
                Err(error) if tries < TRIES && is_overtaken(&error) => tries += 1,
                other => return other,
            }
        }
    }

    /// Reads the registry in a log that is open for reading.
    ///
    /// # Errors
    /// As [`RegistryReader::open`], and `Trimmed` where the owner has trimmed since.
    pub fn on(log: LogReader) -> Result<RegistryReader> {
        let base = rebuild::base(Source::Foreign(&log), None, None)?;
        let (durable, _) = rebuild::replay(Source::Foreign(&log), base, None)?;
        Ok(RegistryReader { log, durable })
    }

    /// Catches up with what has become durable since.
    ///
    /// # Errors
    /// As [`RegistryReader::open`]; after an error, and after `Trimmed`, open it anew.
    pub fn refresh(&mut self) -> Result<()> {
        let durable = std::mem::take(&mut self.durable);
        self.durable = rebuild::replay(Source::Foreign(&self.log), durable, None)?.0;
        Ok(())
    }

    /// The entry of `key`.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.durable.get(key)
    }

    /// All entries at and below `prefix`, in key order.
    pub fn scan<'a>(
        &'a self,
        prefix: &Prefix,
    ) -> impl Iterator<Item = (&'a Key, &'a Entry)> + use<'a> {
        self.durable.scan(prefix)
    }

    /// The last transaction that was read; `None` before the first.
    pub fn revision(&self) -> Option<Revision> {
        self.durable.applied().map(Revision::new)
    }

    /// The revision with this LSN, as an entry or the tool prints it.
    pub fn revision_at(lsn: Lsn) -> Revision {
        Revision::new(lsn)
    }

    /// [`crate::Registry::history`].
    ///
    /// # Errors
    /// As there.
    pub fn history(&self, key: &Key) -> Result<History> {
        History::of(Source::Foreign(&self.log), key)
    }

    /// [`crate::Registry::as_of`].
    ///
    /// # Errors
    /// As there.
    pub fn as_of(&self, revision: Revision) -> Result<AsOf> {
        if Some(revision) > self.revision() {
            return Err(Error::out_of_range(revision.lsn(), self.durable.applied()));
        }
        AsOf::of(Source::Foreign(&self.log), revision.lsn())
    }

    /// [`crate::Registry::watch`], by asking again and again.
    ///
    /// # Errors
    /// As there.
    pub fn watch(&self, prefix: Prefix, after: After) -> Result<Watch> {
        Watch::foreign(Source::Foreign(&self.log), prefix, after)
    }
}

/// A living owner may trim, and replace snapshots, under a reader.
fn is_overtaken(error: &Error) -> bool {
    let gone = matches!(error.kind(), ErrorKind::Log(annals_wal::ErrorKind::Trimmed));
    gone || matches!(error.kind(), ErrorKind::Trimmed | ErrorKind::Io)
}
