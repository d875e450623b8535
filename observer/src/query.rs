//! Finding entries: by session, agent, tool, kind, failure, time and LSN.
//!
//! Never here: an index of its own. What a record's header tells (kind, session tag) is asked of
//! the log's reader, which passes over what does not match; the rest is compared in the entry.
//! Invariant: memory does not grow with the log. Next room: [`crate::tail`].

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use annals_wal::Lsn;

use crate::clock::WallTime;
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::{CallId, RunId, SessionId};
use crate::kind::EntryKind;
use crate::read::{Entries, ReadRecords, StoredEntry};

/// What to find. Every condition must hold; none finds everything.
///
/// ```
/// use annals_observer::{EntryKind, JsonText, Observer, Query};
///
/// # let dir = tempfile::tempdir()?;
/// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let session = observer.session("s-1")?;
/// session.tool("search").start()?.end_error(JsonText::string("no network"))?;
/// session.tool("read").start()?.end_ok(JsonText::string("ok"))?;
/// let query = Query::new().session("s-1")?.tool("search").failed().kind(EntryKind::ToolEnd);
/// let found: Vec<_> = query.run(observer.log())?.collect::<Result<_, _>>()?;
/// assert_eq!(found.len(), 1);
/// assert_eq!(found[0].lsn.get(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a query finds nothing before it is run"]
pub struct Query {
    session: Option<SessionId>,
    run: Option<RunId>,
    call_id: Option<CallId>,
    agent: Option<String>,
    tool: Option<String>,
    model: Option<String>,
    kinds: Vec<EntryKind>,
    failed: bool,
    from: Option<WallTime>,
    to: Option<WallTime>,
    lsns: (Bound<Lsn>, Bound<Lsn>),
}

impl Default for Query {
    fn default() -> Query {
        Query::new()
    }
}

impl Query {
    /// Everything.
    pub fn new() -> Query {
        Query {
            session: None,
            run: None,
            call_id: None,
            agent: None,
            tool: None,
            model: None,
            kinds: Vec::new(),
            failed: false,
            from: None,
            to: None,
            lsns: (Bound::Unbounded, Bound::Unbounded),
        }
    }

    /// Of this session.
    ///
    /// # Errors
    /// `Invalid` if the id is empty.
    pub fn session(mut self, id: impl Into<String>) -> Result<Query> {
        self.session = Some(SessionId::new(id)?);
        Ok(self)
    }

    /// Of this run.
    pub fn of_run(mut self, run: RunId) -> Query {
        self.run = Some(run);
        self
    }

    /// Of this call.
    pub fn call_id(mut self, call_id: CallId) -> Query {
        self.call_id = Some(call_id);
        self
    }

    /// By this agent.
    pub fn agent(mut self, name: impl Into<String>) -> Query {
        self.agent = Some(name.into());
        self
    }

    /// Of this tool.
    pub fn tool(mut self, name: impl Into<String>) -> Query {
        self.tool = Some(name.into());
        self
    }

    /// Of this model.
    pub fn model(mut self, name: impl Into<String>) -> Query {
        self.model = Some(name.into());
        self
    }

    /// Of this kind, or of another that was named before.
    pub fn kind(mut self, kind: EntryKind) -> Query {
        self.kinds.push(kind);
        self
    }

    /// Only entries that carry an error.
    pub fn failed(mut self) -> Query {
        self.failed = true;
        self
    }

    /// Only entries whose wall time is this or later. Wall clocks jump: an LSN range is exact.
    ///
    /// It narrows what is found and not what is read. An entry's time is that of its observer's clock,
    /// taken before it was queued, and an imported entry's is its source's: neither its neighbours nor the
    /// append times in a segment's seal bound it, so no segment is passed over for it, and every entry of
    /// the range is read (and decoded, if it is of that time). What is passed over unread is what
    /// [`Query::session`] and [`Query::lsns`] leave out: name one of them beside it.
    pub fn since(mut self, from: WallTime) -> Query {
        self.from = Some(from);
        self
    }

    /// Only entries whose wall time is before this. It costs what [`Query::since`] does.
    pub fn before(mut self, to: WallTime) -> Query {
        self.to = Some(to);
        self
    }

    /// Only entries in this range of LSNs.
    pub fn lsns(mut self, lsns: impl RangeBounds<Lsn>) -> Query {
        self.lsns = (lsns.start_bound().cloned(), lsns.end_bound().cloned());
        self
    }

    /// Whether this entry is one; its LSN is not asked.
    pub fn wants(&self, entry: &Entry) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, found: &Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        is(&self.session, &entry.session)
            && is(&self.run, &entry.run)
            && is(&self.call_id, &entry.call_id)
            && is(&self.agent, &entry.agent)
            && is(&self.tool, &entry.tool)
            && is(&self.model, &entry.model)
            && (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && (!self.failed || entry.has_error())
            && self.from.is_none_or(|from| entry.wall >= from)
            && self.to.is_none_or(|to| entry.wall < to)
    }

    pub(crate) fn session_id(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    /// The entries that are durable now and match, in LSN order.
    ///
    /// # Errors
    /// `Log`, as reading the range. An item is `Err` for a record that cannot be decoded and might
    /// match; the next item is the next one. With [`Query::since`] or [`Query::before`] the time is
    /// looked at where an entry has it, before the rest is: a record that cannot be decoded and has a
    /// time outside of the window there is passed over and not told. A query without them tells it.
    pub fn run(&self, from: &impl ReadRecords) -> Result<Matches> {
        let mut entries = Entries::of(from.records(self.lsns)?).between(self.from, self.to);
        if let Some(session) = &self.session {
            entries = entries.session(session.clone());
        }
        if let [kind] = self.kinds.as_slice() {
            entries = entries.kind(*kind);
        }
        Ok(Matches { entries, query: self.clone() })
    }
}

/// Iterator over what a [`Query`] found.
#[derive(Debug)]
pub struct Matches {
    entries: Entries,
    query: Query,
}

impl Matches {
    /// Bytes that were read of the log so far: what the conditions on session and kind save is what is
    /// missing here.
    ///
    /// ```
    /// use annals_observer::{JsonText, Observer, Query};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// observer.session("s-1")?.error(JsonText::string("no network"))?;
    /// let mut found = Query::new().session("s-1")?.run(observer.log())?;
    /// assert_eq!(found.by_ref().count(), 1);
    /// assert!(found.bytes_read() > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bytes_read(&self) -> u64 {
        self.entries.bytes_read()
    }
}

impl Iterator for Matches {
    type Item = Result<StoredEntry>;

    fn next(&mut self) -> Option<Result<StoredEntry>> {
        let wanted = |item: &Result<StoredEntry>| match item {
            Ok(stored) => self.query.wants(&stored.entry),
            Err(_) => true,
        };
        self.entries.by_ref().find(wanted)
    }
}

/// The last `count` entries of a session, oldest first: what a resume needs. Reads back from the
/// end of the log until it has them, in ranges that double; memory: `count` entries and one more.
///
/// # Errors
/// `Invalid` for an empty id, `Log`, and `Corrupt` or `Unsupported` for a record that may be one of
/// them and cannot be decoded.
///
/// ```
/// use annals_observer::{JsonText, Observer, last_entries};
///
/// # let dir = tempfile::tempdir()?;
/// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// for n in 0..10 {
///     observer.session("s-1")?.error(JsonText::string(&n.to_string()))?;
/// }
/// let last = observer.log().durable_lsn().expect("ten entries");
/// let resumed = last_entries(observer.log(), "s-1", 3, last)?;
/// assert_eq!(resumed.iter().map(|stored| stored.lsn.get()).collect::<Vec<_>>(), [8, 9, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn last_entries(
    from: &impl ReadRecords,
    session: &str,
    count: usize,
    end: Lsn,
) -> Result<Vec<StoredEntry>> {
    const FIRST_RANGE: u64 = 4096;
    let session = SessionId::new(session)?;
    let head = from.head();
    let mut found: VecDeque<StoredEntry> = VecDeque::new();
    let (mut end, mut width) = (end, FIRST_RANGE);
    while found.len() < count && end >= head {
        let first = end.get().saturating_sub(width - 1).max(head.get());
        let first = Lsn::new(first).unwrap_or(head);
        let missing = count - found.len();
        let mut range: VecDeque<StoredEntry> = VecDeque::new();
        for stored in Entries::of(from.records(first..=end)?).session(session.clone()) {
            if range.len() == missing {
                range.pop_front();
            }
            range.push_back(stored?);
        }
        range.into_iter().rev().for_each(|stored| found.push_front(stored));
        let Some(before) = Lsn::new(first.get() - 1) else { break };
        (end, width) = (before, width.saturating_mul(2));
    }
    Ok(found.into())
}
