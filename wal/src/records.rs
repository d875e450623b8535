//! The records of a range, lent one after the other out of the reader's window, or owned.
//!
//! Never here: how far a range may go ([`crate::view`]), what is damage ([`crate::scan`]).
//! Invariant: the owned path is the lent one and a copy, so both see and refuse the same. Next room:
//! [`crate::cursor`].

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::commit::Shared;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::format::FrameHeader;
use crate::ids::Lsn;
use crate::record::{Codec, Kind, StoredRecord, Stream};
use crate::view::{Snapshot, View};

/// A record as read back, its checksums verified, its payload lent by the reader: nothing was
/// allocated for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordRef<'a> {
    /// Its number.
    pub lsn: Lsn,
    /// Its kind.
    pub kind: Kind,
    /// Its stream tag.
    pub stream: Stream,
    /// Its codec.
    pub codec: Codec,
    /// The bytes that were appended.
    pub payload: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// `None` for what is no record: LSN 0, or a kind of the log's own.
    #[inline]
    pub(crate) fn of(header: &FrameHeader, payload: &'a [u8]) -> Option<RecordRef<'a>> {
        let (stream, codec) = (Stream(header.stream), Codec(header.codec));
        let (lsn, kind) = (Lsn::new(header.lsn)?, Kind::new(header.kind)?);
        Some(RecordRef { lsn, kind, stream, codec, payload })
    }

    /// The same record, to keep.
    pub fn to_stored(&self) -> StoredRecord {
        let RecordRef { lsn, kind, stream, codec, payload } = *self;
        StoredRecord { lsn, kind, stream, codec, payload: payload.to_vec() }
    }
}

impl<'a> From<&'a StoredRecord> for RecordRef<'a> {
    fn from(record: &'a StoredRecord) -> RecordRef<'a> {
        let StoredRecord { lsn, kind, stream, codec, payload } = record;
        RecordRef { lsn: *lsn, kind: *kind, stream: *stream, codec: *codec, payload }
    }
}

/// The records of a range, in order. Fused after an error.
///
/// As an iterator it copies each payload into a [`StoredRecord`]. [`Records::next_ref`] lends it
/// instead: a scan then allocates nothing per record.
#[derive(Debug)]
pub struct Records {
    cursor: Cursor,
    snapshot: Snapshot,
    /// Last LSN to deliver.
    end: u64,
    done: bool,
}

impl Records {
    pub(crate) fn of_log(shared: Arc<Shared>, lsns: impl RangeBounds<Lsn>) -> Result<Records> {
        Records::of(View::Own(shared), lsns)
    }

    pub(crate) fn of(view: View, lsns: impl RangeBounds<Lsn>) -> Result<Records> {
        let snapshot = view.snapshot()?;
        Records::by(view, snapshot, lsns)
    }

    /// By a snapshot that the caller has.
    pub(crate) fn by(
        view: View,
        snapshot: Snapshot,
        lsns: impl RangeBounds<Lsn>,
    ) -> Result<Records> {
        let from = match lsns.start_bound() {
            Bound::Unbounded => snapshot.head,
            Bound::Included(lsn) => *lsn,
            Bound::Excluded(lsn) => lsn.next().unwrap_or(*lsn),
        };
        let end = match lsns.end_bound() {
            Bound::Unbounded => u64::MAX,
            Bound::Included(lsn) => lsn.get(),
            Bound::Excluded(lsn) => lsn.get() - 1,
        };
        // The owner's view knows the last LSN; a range never goes past what was durable now.
        let end = if view.is_own() { end.min(snapshot.durable_lsn.unwrap_or(0)) } else { end };
        if from < snapshot.head {
            return Err(Error::trimmed(from, snapshot.head));
        }
        Ok(Records { cursor: Cursor::new(view, from), snapshot, end, done: false })
    }

    /// Of these, the records that a filter wants, from the next one on.
    ///
    /// Of a record that is skipped the header is verified, checksum and sequence of LSNs and
    /// batches included. Its payload and padding are *not* read, and in sealed segments whole blocks
    /// that hold nothing wanted by the index in the seal are not read at all: damage there goes
    /// unseen, and `wal verify` is what finds it. An [unproven](crate::LogReader::unproven) reader verifies
    /// every payload all the same, because only a batch that is whole may be delivered.
    pub fn only(mut self, filter: Filter) -> Records {
        self.cursor.narrow(filter);
        self
    }

    /// The same records, sealed segments mapped into memory instead of read: the kernel copies
    /// nothing, and a replay of small records is faster. What is verified, and what an error says, is
    /// the same.
    ///
    /// **A disk that fails to read a page of a map, and a file that somebody cuts shorter meanwhile,
    /// end the process with SIGBUS**, where [`Records::next_ref`] else returns an error. So this is
    /// for the process that owns the log, whose directory nobody else may write in; a
    /// [`LogReader`](crate::LogReader)'s records are read as before. A trim does no harm: it unlinks.
    /// The segment that is written is never mapped.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let log = annals_wal::Log::open(dir.path().join("log"))?;
    /// log.append("one")?;
    /// assert_eq!(log.range(..)?.mapped().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mapped(mut self) -> Records {
        self.cursor.map();
        self
    }

    /// Bytes that were read of segments and their indexes so far: what a filter saves is what is
    /// missing here. What is [mapped](Records::mapped) does not count.
    pub fn bytes_read(&self) -> u64 {
        self.cursor.bytes_read()
    }

    /// The next record, lent until the next call; `None` at the end, and after an error.
    ///
    /// Verified are the checksums of header and payload, the padding, and that LSNs and batches
    /// follow one another: just what the iterator verifies, which is this and a copy.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let log = annals_wal::Log::open(dir.path().join("log"))?;
    /// log.append("one")?;
    /// log.append("two")?;
    /// let (mut records, mut bytes) = (log.range(..)?, 0);
    /// while let Some(record) = records.next_ref() {
    ///     bytes += record?.payload.len();
    /// }
    /// assert_eq!(bytes, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` and `Unsupported` with their place, `Trimmed` if a trim overtook the reader, `Io`.
    #[inline]
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>>> {
        if self.done {
            return None;
        }
        match self.cursor.next(&mut self.snapshot, self.end, false) {
            Ok(Some(record)) if record.lsn.get() <= self.end => Some(Ok(record)),
            Ok(_) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }

    /// Calls `visit` with each record that is left, until it says no or the log does: a replay.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let log = annals_wal::Log::open(dir.path().join("log"))?;
    /// log.append("one")?;
    /// let mut bytes = 0;
    /// log.range(..)?.replay(|record| {
    ///     bytes += record.payload.len();
    ///     Ok::<(), annals_wal::Error>(())
    /// })?;
    /// assert_eq!(bytes, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `visit` said, or what [`Records::next_ref`] did; no record is visited after it.
    pub fn replay<E: From<Error>>(
        mut self,
        mut visit: impl FnMut(RecordRef<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        while let Some(record) = self.next_ref() {
            visit(record?)?;
        }
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_ref().map(|record| record.map(|record| record.to_stored()))
    }
}
