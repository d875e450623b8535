//! What became of each call, read from the log alone; and what a crash has cut, said in the log.
//!
//! Never here: a clock, a guess. Invariants: an end settles a call, whatever else the log says of
//! it; a write-off is provisional and written at most once for each start; only starts of openings
//! before this one are written off, because the log's lock says that their processes are gone.
//! Memory: the open calls. Next room: [`crate::query`].

use std::collections::BTreeMap;

use annals_wal::Lsn;

use crate::codec::EncodedEntry;
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::{CallId, SessionId};
use crate::kind::{CallKind, EntryKind};
use crate::observer::Observer;
use crate::read::{Entries, ReadRecords, StoredEntry, entries};
use crate::record::abandoned;

/// What is known of a call from the log alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CallState {
    /// It did not run: its run declares that tool starts are durable and it has none; or its intent
    /// was given up.
    NeverStarted,
    /// It may have run, wholly, partly or not at all.
    Ambiguous,
    /// It ended.
    Settled,
}

/// A call without an end.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OpenCall {
    /// What kind of call.
    pub kind: CallKind,
    /// The LSN of its start.
    pub start_lsn: Lsn,
    /// Its start without its texts.
    pub start: Entry,
    /// The LSN of the entry that writes it off, if there is one.
    pub abandoned: Option<Lsn>,
}

/// What a recovery found and wrote.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// Calls of earlier openings that have no end: all are ambiguous and all are now written off.
    /// Lowest LSN first.
    pub open: Vec<OpenCall>,
    /// How many of them were written off by this recovery; the others were before.
    pub written_off: u64,
    /// How many calls ended, and how many were given up before they ran.
    pub settled: u64,
    /// Records that could not be decoded: a call of theirs is not in the list.
    pub undecodable: u64,
}

/// What pairs a start and its end: the span, or, where the end has none, the call id.
type Key = (Option<SessionId>, EntryKind, Option<u64>, Option<CallId>);

/// The open calls of a log, gathered entry by entry.
#[derive(Debug, Default)]
struct Calls {
    by_lsn: BTreeMap<Lsn, OpenCall>,
    by_span: BTreeMap<Key, Lsn>,
    by_call_id: BTreeMap<Key, Lsn>,
    settled: u64,
}

impl Calls {
    fn add(&mut self, stored: StoredEntry) {
        let StoredEntry { lsn, entry } = stored;
        if let Some(kind) = entry.kind.starts() {
            let (span, call_id) = keys(&entry, kind);
            self.by_span.extend(span.map(|key| (key, lsn)));
            self.by_call_id.extend(call_id.map(|key| (key, lsn)));
            let start = without_texts(entry);
            self.by_lsn.insert(lsn, OpenCall { kind, start_lsn: lsn, start, abandoned: None });
        } else if let Some(kind) = entry.kind.ends() {
            self.settled += u64::from(self.close(&entry, kind));
        } else if entry.kind == EntryKind::NotRun {
            self.settled += u64::from(self.close(&entry, CallKind::Tool));
        } else if entry.kind == EntryKind::Abandoned {
            let kinds = [CallKind::Tool, CallKind::Llm, CallKind::Agent, CallKind::Trace];
            let mut kinds = kinds.into_iter().chain([CallKind::Span]);
            let found = kinds.find_map(|kind| self.find(&entry, kind));
            if let Some(call) = found.and_then(|lsn| self.by_lsn.get_mut(&lsn)) {
                call.abandoned.get_or_insert(lsn);
            }
        }
    }

    fn find(&self, entry: &Entry, kind: CallKind) -> Option<Lsn> {
        let (span, call_id) = keys(entry, kind);
        // An end that names a span is that span's and no other's.
        match span {
            Some(span) => self.by_span.get(&span).copied(),
            None => call_id.and_then(|key| self.by_call_id.get(&key).copied()),
        }
    }

    fn close(&mut self, entry: &Entry, kind: CallKind) -> bool {
        let found = self.find(entry, kind);
        let Some(call) = found.and_then(|lsn| self.by_lsn.remove(&lsn)) else { return false };
        let (span, call_id) = keys(&call.start, kind);
        for (map, key) in [(&mut self.by_span, span), (&mut self.by_call_id, call_id)] {
            if let Some(key) = key
                && map.get(&key) == Some(&call.start_lsn)
            {
                map.remove(&key);
            }
        }
        true
    }
}

fn keys(entry: &Entry, kind: CallKind) -> (Option<Key>, Option<Key>) {
    let (session, start) = (&entry.session, kind.start());
    let span = entry.span.map(|span| (session.clone(), start, Some(span.get()), None));
    let call_id = entry.call_id.clone().map(|id| (session.clone(), start, None, Some(id)));
    (span, call_id)
}

fn without_texts(mut entry: Entry) -> Entry {
    (entry.input, entry.output, entry.error, entry.metadata) = (None, None, None, None);
    entry
}

impl Observer {
    /// Finds the calls that a crash has cut and says so in the log: for each start of an earlier
    /// opening without an end, an entry `abandoned` with the reason and the start's LSN, unless it
    /// has one. Durable on return, and nothing changes if it is called again. Call it once after
    /// opening.
    ///
    /// It reads all entries of the log, from its head.
    ///
    /// Not on a log that several processes share: the lock does not say there that whoever began a
    /// call is gone.
    ///
    /// # Errors
    /// `Log` (on a shared log `Sharing` is behind it), `Closed`.
    ///
    /// ```
    /// use annals_observer::{CallState, Level, Observer, call_state};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("log");
    /// let observer = Observer::on(annals_wal::Log::open(&path)?)?;
    /// let session = observer.session("s-1")?;
    /// let charge = session.tool("charge").call_id(annals_observer::CallId::new("c-1")?).begin()?;
    /// let _running = charge.enter();
    /// # drop(_running);
    /// drop((session, observer)); // no end, no close: as a crash leaves it
    ///
    /// let observer = Observer::on(annals_wal::Log::open(&path)?)?;
    /// let recovered = observer.recover()?;
    /// assert_eq!(recovered.open[0].start.tool.as_deref(), Some("charge"));
    /// assert_eq!(recovered.written_off, 1);
    /// let state = call_state(observer.log(), "s-1", "c-1")?;
    /// assert_eq!(state, CallState::Ambiguous); // ask the bank; an end would settle it
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recover(&self) -> Result<Recovered> {
        // The log's lock does not say there that their processes are gone.
        self.log().check_alone("writing off the open calls of earlier openings")?;
        let Some(last) =
            self.log().recovery().last_lsn.filter(|last| *last >= self.log().head_lsn())
        else {
            return Ok(Recovered::default());
        };
        let mut calls = Calls::default();
        let mut recovered = Recovered::default();
        // Ends of this opening settle old calls, too: somebody may have asked the bank already.
        for stored in entries(self.log())? {
            match stored {
                Ok(stored) if stored.lsn > last && stored.entry.kind.starts().is_some() => {}
                Ok(stored) => calls.add(stored),
                Err(error) if error.kind() == crate::ErrorKind::Log => return Err(error),
                Err(_) => recovered.undecodable += 1,
            }
        }
        let mut batch: Vec<EncodedEntry> = Vec::new();
        let mut written: Vec<Lsn> = Vec::new();
        for call in calls.by_lsn.values().filter(|call| call.abandoned.is_none()) {
            let mut end = call.start.clone();
            end.kind = call.kind.end();
            let start = (Some(call.start.ticket.sequence), Some(call.start_lsn.get()));
            let mut entry = abandoned(&end, "crash", start.0, start.1);
            batch.push(self.drain().prepare(&mut entry)?);
            written.push(call.start_lsn);
        }
        recovered.written_off = written.len() as u64;
        let mut first = 0;
        while let Some(some) = batch.get(first..).filter(|rest| !rest.is_empty()) {
            let some: Vec<EncodedEntry> = some.iter().take(256).cloned().collect();
            first += some.len();
            let count = some.len() as u64;
            let submitted = self.drain().submit(some)?;
            let lsn = self.drain().wait(submitted)?.map_or(0, Lsn::get);
            let starts = written.iter().skip(first - count as usize).zip((lsn + 1 - count)..=lsn);
            for (start, lsn) in starts {
                if let Some(call) = calls.by_lsn.get_mut(start) {
                    call.abandoned = Lsn::new(lsn);
                }
            }
        }
        recovered.settled = calls.settled;
        recovered.open = calls.by_lsn.into_values().collect();
        Ok(recovered)
    }
}

/// What the log says of one call of a session, by its call id. Reads the session's entries.
///
/// # Errors
/// `Invalid` for an empty id, `Log`. An entry of the session that cannot be decoded is an error: it
/// may be the call's end.
pub fn call_state(from: &impl ReadRecords, session: &str, call_id: &str) -> Result<CallState> {
    let (session, call_id) = (SessionId::new(session)?, CallId::new(call_id)?);
    classify(Entries::of(from.records(..)?).session(session), &call_id)
}

fn classify(entries: Entries, call_id: &CallId) -> Result<CallState> {
    let (mut started, mut given_up, mut required) = (false, false, false);
    for stored in entries {
        let entry = stored?.entry;
        if entry.kind == EntryKind::RunStart {
            let declares = |text: &crate::JsonText| text.as_str().contains(r#""required""#);
            required |= entry.metadata.as_ref().is_some_and(declares);
        }
        if entry.call_id.as_ref() != Some(call_id) {
            continue;
        }
        if entry.kind.ends().is_some() {
            return Ok(CallState::Settled);
        }
        started |= entry.kind.starts().is_some();
        given_up |= entry.kind == EntryKind::NotRun;
    }
    Ok(match (started, given_up) {
        (_, true) => CallState::NeverStarted,
        (false, false) if required => CallState::NeverStarted,
        _ => CallState::Ambiguous,
    })
}
