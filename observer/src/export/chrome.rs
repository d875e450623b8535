//! Chrome trace events: a picture of sessions, to be opened in Perfetto or `chrome://tracing`.
//!
//! A session is a process, a track is a thread. Calls that run at the same time never share a
//! track, so none is drawn into another that is not around it. At the same time by their own times:
//! an entry takes its time before it takes its place in the log, so a start may stand behind an end
//! and be earlier. Never here: times to the nanosecond;
//! the format counts microseconds, and fractions of them are kept.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use super::calls::{Calls, Open, label, nanos};
use super::{ExportError, Exported};
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::SessionId;
use crate::kind::EntryKind;
use crate::read::StoredEntry;

/// A track that was free this much later than now, in nanoseconds: the clock was set back.
const STEP_BACK: i64 = 1_000_000_000;

/// The tracks of a session: until when each was taken, by wall time; `None` while it is.
#[derive(Debug, Default)]
struct Tracks {
    until: Vec<Option<i64>>,
    /// The latest time that the session's entries speak of.
    last: i64,
}

impl Tracks {
    /// The lowest that is free at this time, and whether it is new.
    fn take(&mut self, at: i64) -> (usize, bool) {
        // After a clock has stepped back nothing would ever be free again.
        let is_free = |until: i64| until <= at || until.saturating_sub(at) > STEP_BACK;
        let free = self.until.iter().position(|until| until.is_some_and(is_free));
        let track = free.unwrap_or(self.until.len());
        match self.until.get_mut(track) {
            Some(until) => *until = None,
            None => self.until.push(None),
        }
        (track, free.is_none())
    }

    fn free(&mut self, track: usize, from: i64) {
        if let Some(until) = self.until.get_mut(track) {
            *until = Some(from);
        }
    }
}

/// Writes one JSON object with the member `traceEvents`: a complete event (`X`) for each call that
/// ended, also for one whose start was trimmed, and one to the session's last time, with the argument
/// `unfinished`, for each that did not; an instant (`i`) for each error and handoff.
///
/// # Errors
/// Of the first entry that cannot be read, or of the output.
///
/// ```
/// use annals_observer::{JsonText, Observer, entries, export};
///
/// # let dir = tempfile::tempdir()?;
/// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let mut call = observer.session("s-1")?.tool("search").start()?;
/// call.end_ok(JsonText::string("ok"))?;
/// let mut trace = Vec::new();
/// export::chrome::write(entries(observer.log())?, &mut trace)?;
/// let trace: serde_json::Value = serde_json::from_slice(&trace)?;
/// assert!(trace["traceEvents"].as_array().is_some_and(|events| events.len() == 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    entries: impl IntoIterator<Item = Result<StoredEntry>>,
    to: &mut impl Write,
) -> std::result::Result<Exported, ExportError> {
    let mut out = Out { to, exported: Exported::default(), events: 0 };
    let mut sessions: BTreeMap<Option<SessionId>, (u64, Tracks)> = BTreeMap::new();
    let mut calls: Calls<(u64, usize)> = Calls::new();
    write!(out.to, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    for stored in entries {
        let stored = stored?;
        out.exported.entries += 1;
        let entry = &stored.entry;
        let count = sessions.len() as u64 + 1;
        let known = sessions.contains_key(&entry.session);
        let (process, tracks) =
            sessions.entry(entry.session.clone()).or_insert_with(|| (count, Tracks::default()));
        let process = *process;
        tracks.last = tracks.last.max(entry.wall.0);
        if !known {
            let name = entry.session.as_ref().map_or("(no session)", SessionId::as_str);
            out.event(&named("process_name", process, 0, name))?;
        }
        if let Some(kind) = entry.kind.starts() {
            let (track, new) = tracks.take(entry.wall.0);
            if new {
                out.event(&track_name(process, track))?;
            }
            calls.start(kind, stored, (process, track));
        } else if let Some(kind) = entry.kind.ends() {
            let open = match calls.end(kind, entry) {
                Some(open) => open,
                None => {
                    // Its start was trimmed, or is another log's: what is known is still a call.
                    let mut start = stored.clone();
                    let took = i64::try_from(nanos(entry, entry)).unwrap_or(i64::MAX);
                    start.entry.wall.0 = entry.wall.0.saturating_sub(took);
                    let (track, new) = tracks.take(start.entry.wall.0);
                    if new {
                        out.event(&track_name(process, track))?;
                    }
                    Open { kind, start, kept: (process, track) }
                }
            };
            let start = &open.start.entry;
            let took = i64::try_from(nanos(start, entry)).unwrap_or(i64::MAX);
            let until = start.wall.0.saturating_add(took);
            tracks.free(open.kept.1, until);
            tracks.last = tracks.last.max(until);
            out.event(&complete(&open, Some(&stored), until))?;
            out.exported.written += 1;
        } else if matches!(entry.kind, EntryKind::Error | EntryKind::Handoff) {
            let span = entry.span.and_then(|span| calls.of_span(&entry.session, span.get()));
            let track = span.map_or(0, |open| open.kept.1);
            out.event(&instant(entry, process, track))?;
            out.exported.written += 1;
        }
    }
    for open in calls.into_open() {
        let last = sessions.get(&open.start.entry.session).map_or(0, |(_, tracks)| tracks.last);
        out.event(&complete(&open, None, last))?;
        out.exported.written += 1;
        out.exported.unfinished += 1;
    }
    writeln!(out.to, "\n]}}")?;
    out.to.flush()?;
    Ok(out.exported)
}

struct Out<'w, W> {
    to: &'w mut W,
    exported: Exported,
    events: u64,
}

impl<W: Write> Out<'_, W> {
    fn event(&mut self, event: &Value) -> std::io::Result<()> {
        let comma = if self.events == 0 { "" } else { "," };
        self.events += 1;
        write!(self.to, "{comma}\n{event}")
    }
}

fn named(what: &str, process: u64, track: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": process, "tid": track, "args": { "name": name } })
}

fn track_name(process: u64, track: usize) -> Value {
    named("thread_name", process, track, &format!("calls {}", track + 1))
}

/// The whole microseconds apart: the nanoseconds of our years have more digits than a float.
fn micros(nanos: i64) -> f64 {
    nanos.div_euclid(1000) as f64 + nanos.rem_euclid(1000) as f64 / 1000.0
}

/// A call from its start until this time; without an end it is drawn, and marked, as unfinished.
fn complete(open: &Open<(u64, usize)>, end: Option<&StoredEntry>, until: i64) -> Value {
    let start = &open.start.entry;
    let trimmed = end.is_some_and(|end| end.lsn == open.start.lsn);
    let took = u64::try_from(until.saturating_sub(start.wall.0)).unwrap_or(0);
    let mut args = json!({
        "call_id": start.call_id.as_ref().map(|id| id.as_str()), "agent": start.agent,
    });
    let mut arg = |name: &str, value: Value| {
        if let Some(args) = args.as_object_mut() {
            args.insert(name.to_owned(), value);
        }
    };
    if !trimmed {
        arg("start_lsn", open.start.lsn.get().into());
    }
    let failed = end.is_some_and(|end| end.entry.has_error());
    match end {
        Some(end) => {
            arg("end_lsn", end.lsn.get().into());
            arg("failed", failed.into());
            arg("tokens_in", end.entry.tokens_in.into());
            arg("tokens_out", end.entry.tokens_out.into());
        }
        None => arg("unfinished", true.into()),
    }
    let mut event = json!({
        "ph": "X", "name": label(start, open.kind), "cat": category(open),
        "pid": open.kept.0, "tid": open.kept.1,
        "ts": micros(start.wall.0), "dur": took as f64 / 1000.0, "args": args,
    });
    if failed && let Some(event) = event.as_object_mut() {
        event.insert("cname".to_owned(), "terrible".into());
    }
    event
}

fn category(open: &Open<(u64, usize)>) -> String {
    open.kind.start().to_string().replace("_start", "")
}

fn instant(entry: &Entry, process: u64, track: usize) -> Value {
    let name = match entry.kind {
        EntryKind::Handoff => format!("handoff to {}", entry.name.as_deref().unwrap_or("?")),
        _ => "error".to_owned(),
    };
    json!({
        "ph": "i", "s": "t", "name": name, "cat": entry.kind.to_string(),
        "pid": process, "tid": track, "ts": micros(entry.wall.0),
    })
}
