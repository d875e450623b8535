//! `wal timeline`: a session's calls as an indented waterfall, in the terminal or as one page.
//!
//! Never here: a duration that nobody measured. A bar's length is the time between two entries; the
//! number beside it is the measured duration or absent. Where every time is that of an import, the
//! order of the entries is the axis, and the output says so. Invariant: a start without an end is
//! shown as unfinished, an end without a start too. Next room: [`crate::waterfall`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use annals_observer::{Entry, EntryKind, SessionId, TimeOrigin};
use annals_wal::{Error, ErrorKind, StoredRecord};

use crate::cat::width;
use crate::damage::shown;
use crate::decode::{Shown, decode, session};
use crate::end::check_the_end;
use crate::escape::{cut, escape};
use crate::exit::{Exit, Failure};
use crate::out::{Out, Tone, message};
use crate::stats::short_time;
use crate::walk::Walk;
use crate::{place, target, waterfall};

#[derive(clap::Args, Debug)]
pub(crate) struct TimelineArgs {
    /// The log's directory.
    pub(crate) dir: PathBuf,
    /// The session; without it the sessions are listed, and one alone is shown.
    session: Option<String>,
    /// Write one page that loads nothing into this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What a row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sort {
    Agent,
    Llm,
    Tool,
    Span,
    Event,
}

impl Sort {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sort::Agent => "agent",
            Sort::Llm => "llm",
            Sort::Tool => "tool",
            Sort::Span => "span",
            Sort::Event => "event",
        }
    }

    fn glyph(self) -> char {
        match self {
            Sort::Agent => '=',
            Sort::Llm => '~',
            Sort::Tool => '#',
            Sort::Span => '-',
            Sort::Event => '*',
        }
    }
}

/// One row of the waterfall.
pub(crate) struct Call {
    pub(crate) lsn: u64,
    pub(crate) sort: Sort,
    pub(crate) label: String,
    pub(crate) depth: usize,
    /// On the axis.
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) duration: Option<Duration>,
    /// Why it is not a whole call, if it is none.
    pub(crate) unfinished: Option<&'static str>,
    pub(crate) error: Option<String>,
    pub(crate) tokens: Option<(u64, u64)>,
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
}

/// A session's rows and what the axis means.
pub(crate) struct Run {
    pub(crate) session: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) length: f64,
    /// Whether the axis is time, in seconds; else it is the order of the entries.
    pub(crate) timed: bool,
    pub(crate) begun: Option<String>,
}

pub(crate) fn timeline(args: &TimelineArgs, out: &mut Out) -> Result<Exit, Failure> {
    if let Some(file) = &args.html {
        target::outside(&args.dir, file)?;
    }
    let wrong = |e: annals_observer::Error| Failure::new(Exit::Usage, e.to_string());
    let wanted = args.session.as_deref().map(SessionId::new).transpose().map_err(wrong)?;
    let mut sessions: BTreeMap<String, Vec<(u64, Entry)>> = BTreeMap::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut failure = None;
    for record in Walk::new(place::reader(&args.dir)?, None, None)? {
        match record {
            Ok((record, _)) => keep(&record, wanted.as_ref(), &mut sessions, &mut counts),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                failure = Some(error);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let chosen = match (&args.session, counts.len()) {
        (Some(session), _) => session.clone(),
        (None, 1) => counts.keys().next().cloned().unwrap_or_default(),
        (None, _) => {
            list(args, &counts, out)?;
            let exit = ended(args, failure, out)?;
            return match &args.html {
                Some(file) if exit == Exit::Clean => {
                    let file = shown(file);
                    let why =
                        format!("{file} was not written: name the session that it is to show");
                    Err(Failure::new(Exit::Usage, why))
                }
                _ => Ok(exit),
            };
        }
    };
    let Some(entries) = sessions.remove(&chosen) else {
        let dir = shown(&args.dir);
        return Err(match failure {
            // It may lie behind.
            Some(error) => Failure::from(error)
                .during(&format!("no entry of session {chosen} as far as the log can be read")),
            None => {
                let why = format!(
                    "no entry of session {chosen}: wal timeline {dir} lists those there are"
                );
                Failure::new(Exit::Failed, why)
            }
        });
    };
    let run = build(chosen, entries);
    match &args.html {
        Some(file) => {
            target::write(file, &waterfall::html(&run))?;
            out.line(&format!("{}: {} calls and events", shown(file), run.calls.len()))?;
        }
        None => print(&run, out)?,
    }
    ended(args, failure, out)
}

fn ended(args: &TimelineArgs, failure: Option<Error>, out: &mut Out) -> Result<Exit, Failure> {
    if let Some(error) = failure {
        out.flush()?;
        message("wal: the timeline ends where the log cannot be read");
        return Err(error.into());
    }
    let mut exit = Exit::Clean;
    check_the_end(&args.dir, &mut exit)?;
    Ok(exit)
}

fn keep(
    record: &StoredRecord,
    wanted: Option<&SessionId>,
    sessions: &mut BTreeMap<String, Vec<(u64, Entry)>>,
    counts: &mut BTreeMap<String, u64>,
) {
    if wanted.is_some_and(|id| id.stream() != record.stream) {
        return;
    }
    let shown = decode(record);
    let Some(id) = session(&shown).map(str::to_owned) else { return };
    let Shown::Entry(mut entry) = shown else { return };
    *counts.entry(id.clone()).or_default() += 1;
    // Without a session asked for, the first is kept until a second shows up.
    let only = wanted.map_or(counts.len() == 1, |wanted| wanted.as_str() == id);
    if only {
        entry.metadata = None;
        sessions.entry(id).or_default().push((record.lsn.get(), *entry));
    } else if wanted.is_none() {
        sessions.clear();
    }
}

fn list(args: &TimelineArgs, counts: &BTreeMap<String, u64>, out: &mut Out) -> Result<(), Failure> {
    out.line(&format!("{}: {} sessions", shown(&args.dir), counts.len()))?;
    for (session, count) in counts {
        out.line(&format!("  {count:>8} entries  {}", escape(session)))?;
    }
    if let Some(session) = counts.keys().next() {
        let session = shown(std::path::Path::new(session));
        out.line("")?;
        out.line(&format!("  next: wal timeline {} {session}", shown(&args.dir)))?;
    }
    Ok(())
}

fn sort_of(kind: EntryKind) -> (Sort, bool, bool) {
    match kind {
        EntryKind::AgentStart => (Sort::Agent, true, false),
        EntryKind::AgentEnd => (Sort::Agent, false, true),
        EntryKind::LlmStart => (Sort::Llm, true, false),
        EntryKind::LlmEnd => (Sort::Llm, false, true),
        EntryKind::ToolStart => (Sort::Tool, true, false),
        EntryKind::ToolEnd => (Sort::Tool, false, true),
        EntryKind::TraceStart | EntryKind::SpanStart => (Sort::Span, true, false),
        EntryKind::TraceEnd | EntryKind::SpanEnd => (Sort::Span, false, true),
        _ => (Sort::Event, false, false),
    }
}

/// How a start and its end know each other.
fn identity(entry: &Entry) -> Option<String> {
    let span = entry.span.map(|span| format!("s{span}"));
    span.or(entry.call_id.as_ref().map(|id| format!("c{}", id.as_str())))
}

fn build(session: String, entries: Vec<(u64, Entry)>) -> Run {
    let imported = |entry: &Entry| {
        entry.source.as_ref().is_some_and(|source| source.time == TimeOrigin::Import)
    };
    let walls = entries.iter().map(|(_, entry)| entry.wall.0);
    let (first, last) = (walls.clone().min().unwrap_or(0), walls.max().unwrap_or(0));
    let timed = last > first && !entries.iter().any(|(_, entry)| imported(entry));
    let begun = timed.then(|| annals_observer::WallTime(first).to_string());
    let count = entries.len();
    let mut calls: Vec<Call> = Vec::new();
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    let mut spans: BTreeMap<String, usize> = BTreeMap::new();
    for (index, (lsn, entry)) in entries.into_iter().enumerate() {
        let at = if timed { entry.wall.0.saturating_sub(first) as f64 / 1e9 } else { index as f64 };
        let (sort, starts, ends) = sort_of(entry.kind);
        let id = identity(&entry);
        if ends && let Some(call) = id.as_ref().and_then(|id| open.remove(id)) {
            finish(&mut calls[call], &entry, at);
            continue;
        }
        let parent = entry.parent_span.map(|span| format!("s{span}"));
        let depth = parent.and_then(|id| spans.get(&id)).map_or(0, |call| calls[*call].depth + 1);
        if let (true, Some(id)) = (starts, id) {
            spans.insert(id.clone(), calls.len());
            open.insert(id, calls.len());
        }
        let unfinished =
            if starts { Some("unfinished") } else { ends.then_some("its start is not here") };
        let mut call = Call {
            lsn,
            sort,
            label: label(&entry, sort),
            depth,
            start: at,
            end: at,
            duration: None,
            unfinished,
            error: None,
            tokens: None,
            input: entry.input.as_ref().map(|text| text.as_str().to_owned()),
            output: None,
        };
        if !starts {
            let unfinished = call.unfinished;
            finish(&mut call, &entry, at);
            call.unfinished = unfinished;
        }
        calls.push(call);
    }
    let length = if timed { last.saturating_sub(first) as f64 / 1e9 } else { count.max(1) as f64 };
    for call in calls.iter_mut().filter(|call| call.unfinished == Some("unfinished")) {
        call.end = length;
    }
    Run { session, calls, length, timed, begun }
}

fn finish(call: &mut Call, entry: &Entry, at: f64) {
    call.end = at.max(call.start);
    call.duration = entry.duration;
    call.unfinished = None;
    call.error = entry.error_shown().map(|text| text.as_str().to_owned());
    call.output = entry.output.as_ref().map(|text| text.as_str().to_owned());
    if call.label.is_empty()
        && let Some(text) = &call.output
    {
        // Nobody named the model: what it said tells the calls apart.
        let said = serde_json::from_str::<String>(text).unwrap_or_else(|_| text.clone());
        call.label = one_line(&said);
    }
    if entry.tokens_in.is_some() || entry.tokens_out.is_some() {
        let tokens = (entry.tokens_in.unwrap_or(0), entry.tokens_out.unwrap_or(0));
        // A source that counts nothing says nought.
        call.tokens = Some(tokens).filter(|tokens| *tokens != (0, 0));
    }
}

/// A name, or the beginning of what went in.
fn label(entry: &Entry, sort: Sort) -> String {
    let name = match sort {
        Sort::Agent => entry.agent.as_ref(),
        Sort::Llm => entry.model.as_ref(),
        Sort::Tool => entry.tool.as_ref(),
        _ => entry.name.as_ref(),
    };
    match (name, &entry.input) {
        (Some(name), _) => name.clone(),
        (None, Some(input)) if sort == Sort::Tool => {
            // Of a string the text, of anything else the JSON.
            let text = serde_json::from_str::<String>(input.as_str());
            one_line(&text.unwrap_or_else(|_| input.as_str().to_owned()))
        }
        _ if sort == Sort::Event => entry.kind.to_string(),
        _ => String::new(),
    }
}

/// The beginning of a text, its lines and blanks run together: a label has one line.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().take(40).collect();
    cut(&words.join(" "), 80)
}

fn print(run: &Run, out: &mut Out) -> Result<(), Failure> {
    let columns = width(None, out);
    let (names, bar) = (38, columns.saturating_sub(38 + 10 + 34).clamp(16, 60));
    let axis = if run.timed {
        format!(
            "{} from {}",
            short_time((run.length * 1e6) as u64),
            run.begun.as_deref().unwrap_or("")
        )
    } else {
        "the order of entries; their times are those of the import".to_owned()
    };
    out.line(&format!("session {}: {} calls and events", escape(&run.session), run.calls.len()))?;
    out.line(&format!("  axis: {axis}; = agent, ~ llm, # tool, - span, * event"))?;
    for call in &run.calls {
        let name = format!(
            "{}{} {}",
            "  ".repeat(call.depth.min(8)),
            call.sort.name(),
            escape(&call.label)
        );
        let mut notes = Vec::new();
        notes.extend(call.duration.map(|d| short_time(d.as_micros() as u64)));
        notes.extend(call.tokens.map(|(i, o)| format!("{i}+{o} tokens")));
        notes.extend(call.unfinished.map(str::to_owned));
        notes.extend(call.error.as_ref().map(|e| format!("error {}", escape(&cut(e, 60)))));
        let line = format!(
            "{:>8}  {:<names$} |{}| {}",
            call.lsn,
            cut(&name, names - 3),
            drawn(call, run.length, bar),
            notes.join("  ")
        );
        let line = cut(line.trim_end(), columns.saturating_sub(3));
        out.line(&match (&call.error, call.unfinished) {
            (Some(_), _) => out.toned(Tone::Bad, &line),
            (_, Some(_)) => out.toned(Tone::Notice, &line),
            _ => line,
        })?;
    }
    Ok(())
}

fn drawn(call: &Call, length: f64, bar: usize) -> String {
    let place = |at: f64| ((at / length.max(f64::MIN_POSITIVE) * bar as f64) as usize).min(bar - 1);
    let (from, to) = (place(call.start), place(call.end));
    let mut cells = vec![' '; bar];
    for cell in &mut cells[from.min(to)..=to] {
        *cell = call.sort.glyph();
    }
    if call.unfinished.is_some() {
        cells[to] = '?';
    } else if call.error.is_some() {
        cells[to] = '!';
    }
    cells.into_iter().collect()
}
