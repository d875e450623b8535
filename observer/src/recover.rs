//! What became of each call, read from the log alone; and what a crash has cut, said in the log.
//!
//! Never here: a clock, a guess. Invariants: an end settles a call, whatever else the log says of
//! it; a write-off is provisional and written at most once for each start; only starts of openings
//! before this one are written off, because the log's lock says that their processes are gone.
//! Memory: the open calls. Next room: [`crate::query`].

use std::collections::{BTreeMap, BTreeSet};

use annals_wal::Lsn;

use crate::codec::EncodedEntry;
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::{CallId, RunId, SessionId};
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

/// In this order an entry that names no kind is looked for.
const KINDS: [CallKind; 5] =
    [CallKind::Tool, CallKind::Llm, CallKind::Agent, CallKind::Trace, CallKind::Span];

/// What pairs a start and its end: the span, or, where the end has none, the call id.
type Key = (Option<SessionId>, EntryKind, Option<u64>, Option<CallId>);

/// Whether an end can be of a call: either names no run, or both name the same.
fn same_run(end: &Entry, start: &Entry) -> bool {
    end.run.is_none() || start.run.is_none() || end.run == start.run
}

/// The open calls of a log, gathered entry by entry.
#[derive(Debug, Default)]
struct Calls {
    by_lsn: BTreeMap<Lsn, OpenCall>,
    by_span: BTreeMap<Key, Lsn>,
    /// All that are open: the same id may be of several runs.
    by_call_id: BTreeMap<Key, BTreeSet<Lsn>>,
    settled: u64,
}

impl Calls {
    fn add(&mut self, stored: StoredEntry) {
        let StoredEntry { lsn, entry } = stored;
        if entry.source.is_some() {
            return; // what a file tells of a run elsewhere: it is no call of ours, and ends none
        }
        if let Some(kind) = entry.kind.starts() {
            let (span, call_id) = keys(&entry, kind);
            self.by_span.extend(span.map(|key| (key, lsn)));
            if let Some(key) = call_id {
                self.by_call_id.entry(key).or_default().insert(lsn);
            }
            let start = without_texts(entry);
            self.by_lsn.insert(lsn, OpenCall { kind, start_lsn: lsn, start, abandoned: None });
        } else if let Some(kind) = entry.kind.ends() {
            self.settled += u64::from(self.close(&entry, kind));
        } else if entry.kind == EntryKind::NotRun {
            // Any call can be an intent. By its span: a call id alone has always been a tool's.
            let by_span = entry.span.is_some();
            let mut kinds = KINDS.into_iter().filter(|kind| by_span || *kind == CallKind::Tool);
            self.settled += u64::from(kinds.any(|kind| self.close(&entry, kind)));
        } else if entry.kind == EntryKind::Abandoned {
            let found = match said_of(&entry, "start_lsn") {
                // A start without span and call id has no other name; and it is this one's alone.
                Some(start) => Lsn::new(start),
                None => KINDS.into_iter().find_map(|kind| self.find(&entry, kind)),
            };
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
            None => {
                let open = self.by_call_id.get(&call_id?)?;
                let of_run = |lsn: &&Lsn| {
                    self.by_lsn.get(lsn).is_some_and(|call| same_run(entry, &call.start))
                };
                open.iter().rev().find(of_run).copied()
            }
        }
    }

    fn close(&mut self, entry: &Entry, kind: CallKind) -> bool {
        let found = self.find(entry, kind);
        let Some(call) = found.and_then(|lsn| self.by_lsn.remove(&lsn)) else { return false };
        let (span, call_id) = keys(&call.start, kind);
        if let Some(key) = span
            && self.by_span.get(&key) == Some(&call.start_lsn)
        {
            self.by_span.remove(&key);
        }
        if let Some(key) = call_id
            && let Some(open) = self.by_call_id.get_mut(&key)
        {
            open.remove(&call.start_lsn);
            if open.is_empty() {
                self.by_call_id.remove(&key);
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
    // They speak of texts that are not here, and of records before another entry.
    entry.notes = crate::Notes::default();
    entry
}

/// A number that the observer itself has said in an entry's metadata.
fn said_of(entry: &Entry, name: &str) -> Option<u64> {
    said(entry)?.get(name)?.as_u64()
}

fn said(entry: &Entry) -> Option<serde_json::Value> {
    serde_json::from_str(entry.metadata.as_ref()?.as_str()).ok()
}

impl Observer {
    /// The calls of openings before this one that have no end, and how many entries cannot be
    /// decoded.
    fn old_calls(&self) -> Result<(Calls, u64)> {
        let (mut calls, mut undecodable) = (Calls::default(), 0);
        let Some(last) = self.last_of_earlier() else { return Ok((calls, 0)) };
        // Ends of this opening settle old calls, too: somebody may have asked the bank already.
        for stored in entries(self.log())? {
            match stored {
                Ok(stored) if stored.lsn > last && stored.entry.kind.starts().is_some() => {}
                Ok(stored) => calls.add(stored),
                Err(error) if error.kind() == crate::ErrorKind::Log => return Err(error),
                Err(_) => undecodable += 1,
            }
        }
        Ok((calls, undecodable))
    }

    /// The last LSN of earlier openings, if the log still has it.
    fn last_of_earlier(&self) -> Option<Lsn> {
        self.log().recovery().last_lsn.filter(|last| *last >= self.log().head_lsn())
    }

    /// The oldest start of an earlier opening that is neither ended nor written off. Reads the log
    /// once, and not at all after a recovery.
    pub(crate) fn old_floor(&self) -> Result<Option<Lsn>> {
        self.log().check_process()?;
        if let Some(known) = self.drain().lock().old_floor {
            return Ok(known);
        }
        let (calls, _) = self.old_calls()?;
        let open = calls.by_lsn.values().filter(|call| call.abandoned.is_none());
        let floor = open.map(|call| call.start_lsn).min();
        self.drain().lock().old_floor = Some(floor);
        Ok(floor)
    }

    /// Finds the calls that a crash has cut and says so in the log: for each start of an earlier
    /// opening without an end, an entry `abandoned` with the reason and the start's LSN, unless it
    /// has one. Starts that an import brought are no calls of this log's. Durable on return, and nothing changes if it is called again. Call it once after
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
    /// use annals_observer::{CallKind, CallState, Level, Observer, call_state};
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
    /// let state = call_state(observer.log(), "s-1", CallKind::Tool, "c-1")?;
    /// assert_eq!(state, CallState::Ambiguous); // ask the bank; an end would settle it
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recover(&self) -> Result<Recovered> {
        self.log().check_process()?;
        // The log's lock does not say there that their processes are gone.
        self.log().check_alone("writing off the open calls of earlier openings")?;
        let (mut calls, undecodable) = self.old_calls()?;
        let mut recovered = Recovered { undecodable, ..Recovered::default() };
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
            // An entry stands behind the records of its large texts, if it has some.
            let records: Vec<u64> = some.iter().map(EncodedEntry::records).collect();
            let submitted = self.drain().submit(some)?;
            let mut lsn = self.drain().wait(submitted)?.map_or(0, Lsn::get);
            let starts = written.get(first - records.len()..first).unwrap_or_default();
            for (start, records) in starts.iter().zip(records).rev() {
                if let Some(call) = calls.by_lsn.get_mut(start) {
                    call.abandoned = Lsn::new(lsn);
                }
                lsn = lsn.saturating_sub(records);
            }
        }
        self.drain().lock().old_floor = Some(None);
        recovered.settled = calls.settled;
        recovered.open = calls.by_lsn.into_values().collect();
        Ok(recovered)
    }
}

/// What the log says of one call of a session, by its kind and call id: a model call of the same id
/// is another call. Reads the session's entries.
///
/// A call of which there is no trace is `Ambiguous` here: only a run can say that its starts are
/// durable, so ask [`call_state_in_run`]. After a trim nothing is `NeverStarted`: what was trimmed may
/// have been its start.
///
/// # Errors
/// `Invalid` for an empty id, `Log`. An entry of the session that cannot be decoded is an error: it
/// may be the call's end.
pub fn call_state(
    from: &impl ReadRecords,
    session: &str,
    kind: CallKind,
    call_id: &str,
) -> Result<CallState> {
    state_of(from, session, Seen::new(None, kind, CallId::new(call_id)?))
}

/// [`call_state`] of a call of one run. If the run's first entry declares that its tool starts are
/// durable ([`crate::Session::require_intents`]), a tool call without one never ran. An end that
/// names no run settles the call, too.
///
/// The declaration is of tool calls: a call of another kind, whose start may have been queued and
/// lost, is never `NeverStarted`.
///
/// # Errors
/// As [`call_state`].
///
/// ```
/// use annals_observer::{CallKind, CallState, Observer, RunId, call_state, call_state_in_run};
///
/// # let dir = tempfile::tempdir()?;
/// let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let run = observer.session("s-1")?.run(RunId::new("run-7")?).require_intents()?;
/// let log = observer.log();
/// let state = call_state_in_run(log, "s-1", "run-7", CallKind::Tool, "call_1")?;
/// assert_eq!(state, CallState::NeverStarted); // it would have left a start: run it
/// let state = call_state_in_run(log, "s-1", "run-7", CallKind::Llm, "call_1")?;
/// assert_eq!(state, CallState::Ambiguous); // nothing was declared of model calls
/// assert_eq!(call_state(log, "s-1", CallKind::Tool, "call_1")?, CallState::Ambiguous);
/// # drop(run);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn call_state_in_run(
    from: &impl ReadRecords,
    session: &str,
    run: &str,
    kind: CallKind,
    call_id: &str,
) -> Result<CallState> {
    state_of(from, session, Seen::new(Some(RunId::new(run)?), kind, CallId::new(call_id)?))
}

fn state_of(from: &impl ReadRecords, session: &str, mut seen: Seen) -> Result<CallState> {
    let session = SessionId::new(session)?;
    for stored in Entries::of(from.records(..)?).session(session) {
        if seen.settles(&stored?.entry) {
            return Ok(CallState::Settled);
        }
    }
    // Asked after the reading: a trim may have come between.
    Ok(seen.state(from.head() == Lsn::FIRST))
}

/// What a reading has seen of one call so far.
struct Seen {
    run: Option<RunId>,
    kind: CallKind,
    call_id: CallId,
    /// Starts that were not given up, by span: two of one call id are two calls.
    open: BTreeSet<Option<u64>>,
    given_up: bool,
    /// Whether the run's first entry declares that its tool starts are durable.
    declared: Option<bool>,
}

impl Seen {
    fn new(run: Option<RunId>, kind: CallKind, call_id: CallId) -> Seen {
        Seen { run, kind, call_id, open: BTreeSet::new(), given_up: false, declared: None }
    }

    /// Takes the next entry; whether it settles the call.
    fn settles(&mut self, entry: &Entry) -> bool {
        if entry.source.is_some() {
            return false; // what a file tells of a run elsewhere settles nothing here
        }
        let of_run = self.run.is_none() || entry.run == self.run;
        if self.run.is_some() && of_run {
            self.declared.get_or_insert_with(|| {
                let intents = said(entry).and_then(|said| said.get("intents").cloned());
                entry.kind == EntryKind::RunStart && intents == Some("required".into())
            });
        }
        if entry.call_id.as_ref() != Some(&self.call_id) {
            return false;
        }
        if entry.kind.ends() == Some(self.kind) {
            return of_run || entry.run.is_none();
        }
        let span = entry.span.map(crate::SpanId::get);
        if of_run && entry.kind.starts() == Some(self.kind) {
            self.open.insert(span);
        } else if of_run && entry.kind == EntryKind::NotRun && self.kind == CallKind::Tool {
            // Only a tool's intent can be given up.
            self.given_up = true;
            self.open.remove(&span);
        }
        false
    }

    /// `whole`: nothing was trimmed.
    fn state(&self, whole: bool) -> CallState {
        let durable = self.declared == Some(true) && self.kind == CallKind::Tool;
        match self.open.is_empty() && (self.given_up || durable) && whole {
            true => CallState::NeverStarted,
            false => CallState::Ambiguous,
        }
    }
}
