//! Reading for processes that own nothing: ranges, and following.
//!
//! Never here: a lock held, a byte written. Readers see only durable records unless they ask
//! otherwise by name. Next room: [`crate::records`].

use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cursor::Cursor;
use crate::error::{Error, ErrorKind, Result};
use crate::filter::Filter;
use crate::fs::{Dir, os::OsDir};
use crate::ids::{LogId, Lsn};
use crate::lock::is_live;
use crate::record::StoredRecord;
use crate::records::{RecordRef, Records};
use crate::recover::Facts;
use crate::sync::sleep;
use crate::view::{Snapshot, View};

/// Reads a log that another process may own: takes no lock, writes nothing, repairs nothing.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// use annals_wal::{Log, LogReader};
/// let log = Log::open(&path)?;
/// log.append("one")?;
/// let reader = LogReader::open(&path)?; // as another process would
/// let payloads: Vec<_> = reader.range(..)?.map(|r| r.map(|r| r.payload)).collect::<Result<_, _>>()?;
/// assert_eq!(payloads, [b"one"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LogReader {
    view: View,
    /// As of opening.
    snapshot: Snapshot,
}

impl LogReader {
    /// Opens a log for reading.
    ///
    /// # Errors
    /// `NotALog` if the directory holds no segment; `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<LogReader> {
        LogReader::open_in(Arc::new(OsDir::new(path.as_ref())))
    }

    /// [`LogReader::open`] on any file system behind the seam.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn open_in(dir: Arc<dyn Dir>) -> Result<LogReader> {
        let view = View::Foreign { dir, unproven: false };
        let snapshot = view.snapshot()?;
        if snapshot.log_id.is_none() && snapshot.spans.is_empty() {
            let facts = Facts::read(&**view.dir())?;
            return Err(crate::inspect::no_segment(&**view.dir(), &facts));
        }
        Ok(LogReader { view, snapshot })
    }

    /// The same reader, delivering also whole batches above the bound that anything proves. With
    /// a living owner such a batch may still fail; without one, the next opening decides.
    pub fn unproven(self, yes: bool) -> LogReader {
        let dir = self.view.dir().clone();
        LogReader { view: View::Foreign { dir, unproven: yes }, ..self }
    }

    /// Whether a process has the log open for writing right now.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_live(&self) -> Result<bool> {
        is_live(&**self.view.dir())
    }

    /// The log's random id; `None` where no segment says it.
    pub fn log_id(&self) -> Option<LogId> {
        self.snapshot.log_id
    }

    /// The first LSN kept, as of opening this reader.
    pub fn head_lsn(&self) -> Lsn {
        self.snapshot.head
    }

    /// The durable record with this number. While the control block tells how far the segment is
    /// durable that was written when this reader was opened, no more of it is read than up to the
    /// record, and the head is the one as of opening: a record that was trimmed since is given as
    /// long as its segment is there. After a rotation or a restart of the owner, and wherever its
    /// segment is gone, the head is that of this call.
    ///
    /// # Errors
    /// `Trimmed` below that head, `OutOfRange` past what is known to be durable, `Corrupt`, `Io`.
    pub fn get(&self, lsn: Lsn) -> Result<StoredRecord> {
        let past = || {
            let why = format!("LSN {lsn} is not known to be durable: wait, or follow the log");
            Error::new(ErrorKind::OutOfRange, why)
        };
        let snapshot = self.view.refreshed(&self.snapshot)?;
        let records = Records::by(self.view.clone(), snapshot, lsn..=lsn)?;
        records.into_iter().next().unwrap_or_else(|| Err(past()))
    }

    /// The durable records of a range, as of now.
    ///
    /// # Errors
    /// `Trimmed` if the range names a first LSN below the head. The items carry their own.
    pub fn range(&self, lsns: impl RangeBounds<Lsn>) -> Result<Records> {
        Records::of(self.view.clone(), lsns)
    }

    /// Follows the log from an LSN on, across rotations and restarts of its owner.
    ///
    /// # Errors
    /// `Trimmed`, `Io`.
    pub fn follow(&self, from: Lsn) -> Result<Follow> {
        Follow::of(self.view.clone(), from)
    }

    /// The directory, for rooms that keep files of their own beside the segments: to read them.
    pub fn dir(&self) -> &Arc<dyn Dir> {
        self.view.dir()
    }
}

/// A reader that waits at the end of the log for what comes. Durable records only.
#[derive(Debug)]
pub struct Follow {
    view: View,
    cursor: Cursor,
    snapshot: Snapshot,
}

impl Follow {
    pub(crate) fn of(view: View, from: Lsn) -> Result<Follow> {
        let snapshot = view.snapshot()?;
        if from < snapshot.head {
            return Err(Error::trimmed(from, snapshot.head));
        }
        Ok(Follow { cursor: Cursor::new(view.clone(), from), view, snapshot })
    }

    /// Of what comes, the records that a filter wants. What is skipped is verified and read no more
    /// than by [`Records::only`].
    pub fn only(mut self, filter: Filter) -> Follow {
        self.cursor.narrow(filter);
        self
    }

    /// The next record if it is durable by now, else `None`. Never waits.
    ///
    /// # Errors
    /// `Trimmed` if the log was trimmed past this reader, `Corrupt` with the place of the damage
    /// (it is not silence), `Io`. After an error the reader stays where it is.
    pub fn try_next(&mut self) -> Result<Option<StoredRecord>> {
        Ok(self.try_next_ref()?.map(|record| record.to_stored()))
    }

    /// [`Follow::try_next`], lending the record until the next call instead of copying it.
    ///
    /// # Errors
    /// As [`Follow::try_next`].
    pub fn try_next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        self.cursor.find(&mut self.snapshot, u64::MAX, true)?;
        if self.cursor.has_found() {
            return self.cursor.found();
        }
        self.cursor.check_identity();
        let fresh = self.view.refreshed(&self.snapshot)?;
        if fresh.generation != self.snapshot.generation {
            // A recovery may have cut what was read above the bound.
            self.cursor.rewind();
        }
        self.snapshot = fresh;
        self.cursor.next(&mut self.snapshot, u64::MAX, true)
    }

    /// The next record, waiting for it at most about `timeout` by asking every few milliseconds.
    ///
    /// # Errors
    /// As [`Follow::try_next`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<StoredRecord>> {
        let mut left = timeout;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(record) = self.try_next()? {
                return Ok(Some(record));
            }
            if left.is_zero() {
                return Ok(None);
            }
            let now = pause.min(left);
            sleep(now); // another process's progress can only be polled
            left -= now;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The LSN that comes next.
    pub fn position(&self) -> Option<Lsn> {
        Lsn::new(self.cursor.next_lsn())
    }
}
