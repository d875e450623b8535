//! The past, as far as the log has kept it: the versions of a key, and the state as of a revision.
//!
//! Never here: guesses. Invariants: a state is told whole or not at all ([`Registry::as_of`]
//! answers `Trimmed` rather than with what is left); a history says from where on it is complete.
//! Next room: [`crate::rebuild`].

use annals_wal::{Lsn, Records};

use crate::change::Note;
use crate::codec::{self, TRANSACTION};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::rebuild;
use crate::registry::Registry;
use crate::source::Source;
use crate::state::Durable;
use crate::value::{Entry, Revision, Value};

/// One version of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The transaction that made it.
    pub revision: Revision,
    /// The value; `None` for a deletion.
    pub value: Option<Value>,
    /// Who and why, if anybody said so.
    pub note: Option<Note>,
}

/// The versions of a key, oldest first; see [`Registry::history`].
#[derive(Debug)]
pub struct History {
    records: Records,
    key: Key,
    from: Lsn,
}

impl History {
    /// From this LSN on the history is complete; versions from before it are not kept.
    pub fn lower_bound(&self) -> Lsn {
        self.from
    }

    pub(crate) fn of(source: Source<'_>, key: &Key) -> Result<History> {
        let from = source.head();
        Ok(History { records: source.records(from)?, key: key.clone(), from })
    }

    fn next_version(&mut self) -> Result<Option<Version>> {
        while let Some(record) = self.records.next_ref() {
            let record = record.map_err(Error::of_log)?;
            if record.kind != TRANSACTION {
                continue;
            }
            let committed = codec::decode_committed(record.lsn, record.payload)?;
            let change = committed.changes.into_iter().rfind(|change| *change.key() == self.key);
            if let Some(change) = change {
                let (revision, note) = (Revision::new(record.lsn), committed.note);
                return Ok(Some(Version { revision, value: change.value().cloned(), note }));
            }
        }
        Ok(None)
    }
}

impl Iterator for History {
    type Item = Result<Version>;

    fn next(&mut self) -> Option<Result<Version>> {
        self.next_version().transpose()
    }
}

/// The whole state as it was after one transaction; see [`Registry::as_of`].
#[derive(Debug)]
pub struct AsOf {
    durable: Durable,
}

impl AsOf {
    /// Rebuilds the state at `lsn`, which is durable.
    pub(crate) fn of(source: Source<'_>, lsn: Lsn) -> Result<AsOf> {
        Ok(AsOf { durable: rebuild::state(source, Some(lsn))? })
    }

    /// The entry that `key` had.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.durable.get(key)
    }

    /// All entries that there were at and below `prefix`, in key order.
    pub fn scan<'a>(
        &'a self,
        prefix: &Prefix,
    ) -> impl Iterator<Item = (&'a Key, &'a Entry)> + use<'a> {
        self.durable.scan(prefix)
    }

    /// The last transaction in it; `None` if there was none yet.
    pub fn revision(&self) -> Option<Revision> {
        self.durable.applied().map(Revision::new)
    }
}

impl Registry {
    /// The versions of `key`, oldest first, as far back as the log was kept.
    ///
    /// # Errors
    /// The log's own; the items carry theirs.
    ///
    /// ```
    /// use annals_registry::{Key, Registry, Value};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let key = Key::new("k")?;
    /// let first = registry.put(&key, Value::json(&1)?)?;
    /// registry.delete(&key)?;
    ///
    /// let versions: Vec<_> = registry.history(&key)?.collect::<Result<_, _>>()?;
    /// assert_eq!((versions.len(), versions[0].revision), (2, first));
    /// assert_eq!(versions[1].value, None);
    /// assert!(registry.as_of(first)?.get(&key).is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn history(&self, key: &Key) -> Result<History> {
        History::of(Source::Own(self.log()), key)
    }

    /// The whole state as it was after the transaction at `revision`, from a snapshot or from LSN
    /// 1. It reads the log and takes as long as an opening.
    ///
    /// # Errors
    /// `Trimmed` if neither is there with all that followed; `Invalid` for a revision that is not
    /// durable here; `Corrupt` or the log's own.
    pub fn as_of(&self, revision: Revision) -> Result<AsOf> {
        self.shared().look();
        let (lsn, durable) = (revision.lsn(), self.log().durable_lsn());
        if Some(lsn) > durable {
            return Err(Error::out_of_range(lsn, durable));
        }
        AsOf::of(Source::Own(self.log()), lsn)
    }
}
