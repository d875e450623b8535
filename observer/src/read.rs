//! Reading entries back: a range of a log, decoded, one session or all.
//!
//! Never here: writing, waiting, an index. Records of other kinds and other sessions are passed
//! over by their header alone. Invariants: only durable records are delivered, in LSN order; an
//! entry that cannot be decoded is an `Err` item and hides none after it; a session's tag is a
//! filter, its id is compared. Next room: [`crate::query`].

use std::ops::RangeBounds;

use annals_wal::{Filter, Log, LogReader, Lsn, Records};

use crate::clock::WallTime;
use crate::codec::{decode_ref, wall_of};
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::SessionId;
use crate::kind::EntryKind;

/// An entry and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEntry {
    /// Its record's LSN.
    pub lsn: Lsn,
    /// The entry.
    pub entry: Entry,
}

/// What entries can be read from: a [`Log`], or a [`LogReader`] that owns nothing.
pub trait ReadRecords: sealed::Sealed {
    /// The records of this range, durable ones only; the end is fixed by the call.
    ///
    /// # Errors
    /// `Log`, as the log's own `range`.
    fn records(&self, lsns: impl RangeBounds<Lsn>) -> Result<Records>;

    /// The first LSN kept.
    fn head(&self) -> Lsn;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for annals_wal::Log {}
    impl Sealed for annals_wal::LogReader {}
}

impl ReadRecords for Log {
    fn records(&self, lsns: impl RangeBounds<Lsn>) -> Result<Records> {
        Ok(self.range(lsns)?)
    }

    fn head(&self) -> Lsn {
        self.head_lsn()
    }
}

impl ReadRecords for LogReader {
    fn records(&self, lsns: impl RangeBounds<Lsn>) -> Result<Records> {
        Ok(self.range(lsns)?)
    }

    fn head(&self) -> Lsn {
        self.head_lsn()
    }
}

/// All entries that are durable now, from the log's head on.
///
/// # Errors
/// `Log` if the log cannot be read. Per entry: see [`Entries`].
///
/// ```
/// use annals_observer::{Observer, entries, session_entries};
///
/// # let dir = tempfile::tempdir()?;
/// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let _open = observer.session("s-1")?.agent("planner").start()?;
/// let _other = observer.session("s-2")?.agent("planner").start()?;
/// assert_eq!(entries(observer.log())?.count(), 2);
/// for stored in session_entries(observer.log(), "s-1")? {
///     let stored = stored?;
///     assert_eq!(stored.entry.agent.as_deref(), Some("planner"));
///     assert_eq!(stored.lsn.get(), 1);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn entries(from: &impl ReadRecords) -> Result<Entries> {
    Ok(Entries::of(from.records(..)?))
}

/// The entries of one session that are durable now, from the log's head on.
///
/// # Errors
/// `Invalid` if the id is empty; else as [`entries`].
pub fn session_entries(from: &impl ReadRecords, session: &str) -> Result<Entries> {
    Ok(Entries::of(from.records(..)?).session(SessionId::new(session)?))
}

/// Iterator over the entries among some records.
///
/// An item is `Err` with kind `Corrupt` or `Unsupported` for one record that cannot be decoded;
/// the next item is the next entry. An error of the log itself (kind `Log`) is the last item.
#[derive(Debug)]
pub struct Entries {
    records: Records,
    session: Option<SessionId>,
    /// From when on, and up to when: asked before anything is decoded.
    walls: (Option<WallTime>, Option<WallTime>),
}

/// What a reader of entries wants, as far as headers tell: the one place where segments that cannot
/// hold a session are passed over, because the log's reader does it by this filter.
pub(crate) fn header_filter(session: Option<&SessionId>, kind: Option<EntryKind>) -> Filter {
    let filter = match kind {
        Some(kind) => Filter::new().kind(kind.record_kind()),
        None => Filter::new().kinds(EntryKind::record_kinds()),
    };
    match session {
        Some(session) => filter.stream(session.stream()),
        None => filter,
    }
}

impl Entries {
    /// The entries among these records, which may come from any range.
    pub fn of(records: Records) -> Entries {
        let records = records.only(header_filter(None, None));
        Entries { records, session: None, walls: (None, None) }
    }

    /// Only those of this session. A record with the session's tag that cannot be decoded is still
    /// an `Err` item: it may be one of them.
    pub fn session(self, id: SessionId) -> Entries {
        let records = self.records.only(header_filter(Some(&id), None));
        Entries { records, session: Some(id), walls: self.walls }
    }

    /// Bytes that were read of segments and their indexes so far: see [`Records::bytes_read`].
    pub fn bytes_read(&self) -> u64 {
        self.records.bytes_read()
    }

    /// Only those of this time.
    pub(crate) fn between(self, from: Option<WallTime>, to: Option<WallTime>) -> Entries {
        Entries { walls: (from, to), ..self }
    }

    /// Only those of this kind.
    pub(crate) fn kind(self, kind: EntryKind) -> Entries {
        Entries { records: self.records.only(header_filter(None, Some(kind))), ..self }
    }
}

impl Iterator for Entries {
    type Item = Result<StoredEntry>;

    fn next(&mut self) -> Option<Result<StoredEntry>> {
        loop {
            let record = match self.records.next_ref()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error.into())),
            };
            if self.walls != (None, None)
                && let Some(wall) = wall_of(&record)
                && (self.walls.0.is_some_and(|from| wall < from)
                    || self.walls.1.is_some_and(|to| wall >= to))
            {
                continue;
            }
            match decode_ref(&record) {
                Ok(Some(entry)) => {
                    let lsn = record.lsn;
                    if self.session.is_none() || entry.session == self.session {
                        return Some(Ok(StoredEntry { lsn, entry }));
                    }
                }
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
