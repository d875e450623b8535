//! Following a log live: entries as they become durable, in this process or another.
//!
//! Never here: a lock, a write. Next room: [`crate::export`].

use std::time::Duration;

use annals_wal::{Follow, LogReader, Lsn};

use crate::codec::decode_record;
use crate::error::Result;
use crate::query::Query;
use crate::read::{StoredEntry, header_filter};

/// Entries that match a query, as they become durable, across rotations and restarts of the writer.
///
/// ```
/// use std::time::Duration;
/// use annals_observer::{JsonText, Observer, Query, Tail};
/// use annals_wal::{LogReader, Lsn};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// let observer = Observer::on(annals_wal::Log::open(&path)?)?;
/// let reader = LogReader::open(&path)?; // as another process would
/// let mut tail = Tail::from(&reader, Lsn::FIRST, Query::new().failed())?;
/// assert!(tail.try_next()?.is_none());
/// observer.session("s-1")?.error(JsonText::string("out of budget"))?;
/// let stored = tail.next_timeout(Duration::from_secs(5))?.expect("it is durable");
/// assert_eq!(stored.lsn.get(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tail {
    follow: Follow,
    query: Query,
}

impl Tail {
    /// Follows from an LSN on. The query's own LSN range is not asked.
    ///
    /// # Errors
    /// `Log`: the LSN is trimmed, or the log cannot be read.
    pub fn from(reader: &LogReader, lsn: Lsn, query: Query) -> Result<Tail> {
        let follow = reader.follow(lsn)?.only(header_filter(query.session_id(), None));
        Ok(Tail { follow, query })
    }

    /// The next match if it is durable by now. Never waits.
    ///
    /// # Errors
    /// `Log`; `Corrupt` or `Unsupported` for a record that cannot be decoded, which is passed over
    /// by the next call.
    pub fn try_next(&mut self) -> Result<Option<StoredEntry>> {
        self.next_timeout(Duration::ZERO)
    }

    /// The next match, waiting for each record on the way at most about this long.
    ///
    /// # Errors
    /// As [`Tail::try_next`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<StoredEntry>> {
        while let Some(record) = self.follow.next_timeout(timeout)? {
            if let Some(entry) = decode_record(&record)?
                && self.query.wants(&entry)
            {
                return Ok(Some(StoredEntry { lsn: record.lsn, entry }));
            }
        }
        Ok(None)
    }
}
