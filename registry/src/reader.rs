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

/// Reads with a fresh reader, and anew if the owner was faster.
pub(crate) fn anew<T>(
    open: impl Fn() -> annals_wal::Result<LogReader>,
    mut read: impl FnMut(LogReader) -> Result<T>,
) -> Result<T> {
    let mut tries = 1;
    loop {
        match read(open().map_err(Error::of_log)?) {
            Err(error) if tries < TRIES && is_overtaken(&error) => tries += 1,
            other => return other,
        }
    }
}

impl RegistryReader {
    /// Reads the registry in the log at `path`.
    ///
    /// # Errors
    /// `Log(NotALog)` if there is no log; `Corrupt`, `Unsupported` and `Trimmed` as
    /// [`crate::Registry::on`].
    pub fn open(path: impl AsRef<Path>) -> Result<RegistryReader> {
        anew(|| LogReader::open(path.as_ref()), RegistryReader::on)
    }

    /// Reads the registry in a log that is open for reading.
    ///
    /// # Errors
    /// As [`RegistryReader::open`], and `Trimmed` where the owner has trimmed since.
    pub fn on(log: LogReader) -> Result<RegistryReader> {
        let durable = rebuild::state(Source::Foreign(&log), None)?;
        Ok(RegistryReader { log, durable })
    }

    /// Catches up with what has become durable since.
    ///
    /// # Errors
    /// As [`RegistryReader::open`]; what is shown is then as it was. After `Trimmed` open it anew.
    pub fn refresh(&mut self) -> Result<()> {
        let mut newer = Vec::new();
        let take = |transaction, _| newer.push(transaction);
        rebuild::each_after(Source::Foreign(&self.log), self.durable.applied(), None, take)?;
        newer.into_iter().for_each(|transaction| self.durable.apply(transaction));
        Ok(())
    }

    /// Calls with a reader that knows the head of by now.
    fn fresh<T>(&self, read: impl FnMut(LogReader) -> Result<T>) -> Result<T> {
        anew(|| LogReader::open_in(self.log.dir().clone()), read)
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
        self.fresh(|log| History::of(Source::Foreign(&log), key))
    }

    /// [`crate::Registry::as_of`].
    ///
    /// # Errors
    /// As there.
    pub fn as_of(&self, revision: Revision) -> Result<AsOf> {
        if Some(revision) > self.revision() {
            return Err(Error::out_of_range(revision.lsn(), self.durable.applied()));
        }
        self.fresh(|log| AsOf::of(Source::Foreign(&log), revision.lsn()))
    }

    /// [`crate::Registry::watch`], by asking again and again.
    ///
    /// # Errors
    /// As there.
    pub fn watch(&self, prefix: Prefix, after: After) -> Result<Watch> {
        Watch::foreign(&self.log, &prefix, after, self.durable.applied())
    }
}

/// A living owner may trim, and replace snapshots, under a reader.
fn is_overtaken(error: &Error) -> bool {
    let gone = matches!(error.kind(), ErrorKind::Log(annals_wal::ErrorKind::Trimmed));
    gone || matches!(error.kind(), ErrorKind::Trimmed | ErrorKind::Io)
}
