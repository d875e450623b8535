//! `wal cat`: records as lines.

use std::ops::Bound;

use annals_observer::Entry;
use annals_wal::inspect::{Depth, State, inspect};
use annals_wal::{ErrorKind, LogReader, Lsn, StoredRecord};

use crate::args::{CatArgs, Format};
use crate::decode::{Shown, decode, json_line, kind_name, session};
use crate::escape::{cut, escape, escape_json};
use crate::exit::{Exit, Failure};
use crate::filter::{Filters, Wanted};
use crate::out::{Out, Tone, message};

/// Characters of a line off a terminal.
const WIDTH: usize = 200;

/// Sentences about an end that is not as it should be; `wal inspect` has all.
const COMPLAINTS_SHOWN: usize = 30;

pub(crate) fn cat(args: &CatArgs, out: &mut Out) -> Result<Exit, Failure> {
    let wanted = args.filters.checked()?;
    let filters = &args.filters;
    let reader = LogReader::open(&args.dir)?;
    let lines = Lines { format: args.format, width: width(args.width, out) };
    let mut cat = Cat { lines, wanted, exit: Exit::Clean, next: None, unproven: None };
    // What lies behind an archive's last segment is not in it: it may be half of one.
    let to = [filters.to, crate::archived::last_lsn(&args.dir).and_then(Lsn::new)];
    let end = to.into_iter().flatten().min().map_or(Bound::Unbounded, Bound::Included);
    let start = filters.from.map_or(Bound::Unbounded, Bound::Included);
    cat.print(&reader, (start, end), false, out)?;
    let next = cat.next.or(filters.from).unwrap_or_else(|| reader.head_lsn());
    let wants_more = filters.to.is_none_or(|to| next <= to);
    if wants_more && !reader.is_live()? {
        // Nobody writes any more: what stands whole above the proven bound may be shown.
        let all = reader.clone().unproven(true);
        cat.print(&all, (Bound::Included(next), end), true, out)?;
    }
    if let Some((first, last)) = cat.unproven {
        message(&format!(
            "wal: LSNs {first} to {last} are whole, but nothing proves that they were durable: \
             the next opening for writing decides"
        ));
    }
    if filters.to.is_none() && !out.is_gone() {
        check_the_end(&args.dir, &mut cat.exit)?;
    }
    past_the_end(filters, &cat)?;
    Ok(cat.exit)
}

/// Whether the end that was reached is the end there should be: a log whose last segment is gone
/// ends early without a bad byte.
pub(crate) fn check_the_end(dir: &std::path::Path, exit: &mut Exit) -> Result<(), Failure> {
    let mut report = inspect(dir, Depth::Seals, &mut |_| ())?;
    crate::archived::leave_out_of(dir, &mut report);
    let mut complaints: Vec<String> = report.findings.into_iter().map(|f| f.why).collect();
    let mut state = report.state;
    if state < State::Corrupt {
        (state, complaints) = crate::archived::complaints(dir)?;
        if complaints.is_empty() {
            return Ok(());
        }
    }
    for why in complaints.iter().take(COMPLAINTS_SHOWN) {
        message(&format!("wal: {}", escape(why)));
    }
    if complaints.len() > COMPLAINTS_SHOWN {
        message(&format!("wal: and {} more", complaints.len() - COMPLAINTS_SHOWN));
    }
    message(&format!("wal: next: wal inspect {}", crate::damage::shown(dir)));
    *exit = state.into();
    Ok(())
}

/// What a verb gave that reads the log by a library of its own: where the log is damaged, it need not
/// be all that was there, nor the newest, and the exit code says so.
pub(crate) fn or_damaged(
    dir: &std::path::Path,
    outcome: Result<Exit, Failure>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    out.flush()?;
    let mut exit = match &outcome {
        Ok(exit) => *exit,
        Err(failure) => failure.exit(),
    };
    let plain = exit;
    // Where it cannot be looked at, what the verb says counts.
    if check_the_end(dir, &mut exit).is_err() || exit == plain {
        return outcome;
    }
    if let Err(failure) = outcome {
        message(&format!("wal: {}", escape(&failure.to_string())));
    }
    Ok(exit)
}

/// Asking for what is not there is answered, not passed over.
fn past_the_end(filters: &Filters, cat: &Cat) -> Result<(), Failure> {
    match (filters.from, cat.next) {
        (Some(from), None) => {
            let why = format!("LSN {from} is past the end of the log: ask for an earlier one");
            Err(Failure::new(Exit::Failed, why))
        }
        _ => Ok(()),
    }
}

/// How records become lines.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    pub(crate) format: Format,
    pub(crate) width: usize,
}

/// Asked for, the terminal's, or a fixed one.
pub(crate) fn width(asked: Option<usize>, out: &Out) -> usize {
    asked.or(out.width()).unwrap_or(WIDTH).max(40)
}

struct Cat {
    lines: Lines,
    wanted: Wanted,
    exit: Exit,
    /// The LSN after the last one read.
    next: Option<Lsn>,
    unproven: Option<(Lsn, Lsn)>,
}

impl Cat {
    fn print(
        &mut self,
        reader: &LogReader,
        range: (Bound<Lsn>, Bound<Lsn>),
        unproven: bool,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let records = match reader.range(range) {
            Ok(records) => records,
            Err(error) if error.kind() == ErrorKind::Trimmed && unproven => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for record in records {
            if out.is_gone() {
                return Ok(());
            }
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    out.flush()?;
                    return Err(error.into());
                }
            };
            self.next = record.lsn.next();
            if unproven {
                let first = self.unproven.map_or(record.lsn, |(first, _)| first);
                self.unproven = Some((first, record.lsn));
            }
            self.record(&record, out)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &StoredRecord, out: &mut Out) -> Result<(), Failure> {
        let Some(shown) = self.wanted.shown(record) else { return Ok(()) };
        if self.lines.print(record, &shown, out)? {
            self.exit = Exit::Failed;
        }
        Ok(())
    }
}

impl Lines {
    /// Prints a record; tells whether something was wrong with it.
    pub(crate) fn print(
        self,
        record: &StoredRecord,
        shown: &Shown,
        out: &mut Out,
    ) -> Result<bool, Failure> {
        let complaint = complaint(record, shown);
        if let Some(why) = &complaint {
            message(why);
        }
        let failed = |e: serde_json::Error| Failure::new(Exit::Failed, e.to_string());
        let line = match self.format {
            Format::Json => line(record, shown, Format::Json).map_err(failed)?,
            Format::Text => self.text(record, shown, out),
        };
        out.line(&line)?;
        Ok(complaint.is_some())
    }

    /// The line for people, cut to the width, errors in colour.
    fn text(self, record: &StoredRecord, shown: &Shown, out: &Out) -> String {
        let line = cut(&text_line(record, shown), self.width.saturating_sub(3));
        match shown {
            Shown::Entry(entry) if entry.has_error() => out.toned(Tone::Bad, &line),
            Shown::Undecodable(_) => out.toned(Tone::Bad, &line),
            _ => line,
        }
    }
}

/// What `wal cat` prints of a record: its line, and the message beside it if it has one.
///
/// # Errors
/// What serde_json said; no record makes it say anything.
pub fn cat_record(
    record: &StoredRecord,
    format: Format,
) -> serde_json::Result<(String, Option<String>)> {
    let shown = decode(record);
    Ok((line(record, &shown, format)?, complaint(record, &shown)))
}

fn line(record: &StoredRecord, shown: &Shown, format: Format) -> serde_json::Result<String> {
    match format {
        Format::Json => Ok(escape_json(&json_line(record, shown)?)),
        Format::Text => Ok(cut(&text_line(record, shown), WIDTH)),
    }
}

/// A decoder's reason may hold names that stand in the record.
fn complaint(record: &StoredRecord, shown: &Shown) -> Option<String> {
    match shown {
        Shown::Undecodable(why) => Some(format!("wal: LSN {}: {}", record.lsn, escape(why))),
        _ => None,
    }
}

/// LSN, time, kind, session, and what the record says, escaped.
fn text_line(record: &StoredRecord, shown: &Shown) -> String {
    let session = cut_to(session(shown).unwrap_or("-"), 24);
    let (time, rest) = match shown {
        Shown::Entry(entry) => (time(entry), entry_text(entry)),
        Shown::Transaction(changes) => (String::new(), changes_text(changes)),
        Shown::Payload if record.kind == annals_wal::Kind::LOST => {
            (String::new(), "(lost: a salvage could not read it)".to_owned())
        }
        Shown::Payload => (String::new(), payload_text(&record.payload)),
        Shown::Undecodable(_) => {
            (String::new(), format!("({} bytes that do not decode)", record.payload.len()))
        }
    };
    format!("{:>8}  {time:<12}  {:<12}  {session:<24}  {rest}", record.lsn.get(), kind_name(record))
}

/// So that columns stay columns: a long name loses its middle.
fn cut_to(name: &str, width: usize) -> String {
    let name = escape(name);
    let count = name.chars().count();
    if count <= width {
        return name;
    }
    let head: String = name.chars().take(width / 2 - 1).collect();
    let tail: String = name.chars().skip(count - (width - width / 2 - 1)).collect();
    format!("{head}..{tail}")
}

/// The time of day; days are in the JSON.
fn time(entry: &Entry) -> String {
    entry.wall.to_string().split(['T', 'Z']).nth(1).unwrap_or_default().chars().take(12).collect()
}

fn entry_text(entry: &Entry) -> String {
    let mut parts = Vec::new();
    let names = [&entry.agent, &entry.model, &entry.tool, &entry.name];
    parts.extend(names.into_iter().flatten().map(|name| escape(name)));
    parts.extend(entry.duration.map(|duration| format!("{duration:.1?}")));
    if entry.tokens_in.is_some() || entry.tokens_out.is_some() {
        let count = |tokens: Option<u64>| tokens.map_or("?".to_owned(), |n| n.to_string());
        parts.push(format!("{}+{} tokens", count(entry.tokens_in), count(entry.tokens_out)));
    }
    // What went wrong first: the line may be cut.
    let error = entry.error_shown();
    let texts = [("error", error.as_deref()), ("in", entry.input.as_ref())];
    for (label, text) in texts.into_iter().chain([("out", entry.output.as_ref())]) {
        parts.extend(text.map(|text| format!("{label}={}", start_of(text.as_str()))));
    }
    parts.join("  ")
}

/// As much of a text as a line can show: one of megabytes is not escaped whole to be cut.
fn start_of(text: &str) -> String {
    escape(&cut(text, 1000))
}

fn changes_text(changes: &[annals_registry::Change]) -> String {
    let shown = changes.iter().map(|change| {
        let key = escape(change.key().as_str());
        match change.value() {
            Some(value) => format!("put {key}={}", payload_text(value.bytes())),
            None => format!("delete {key}"),
        }
    });
    shown.collect::<Vec<_>>().join("  ")
}

fn payload_text(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => start_of(text),
        Err(_) => format!(
            "({} bytes) {}",
            payload.len(),
            crate::escape::hex(&payload[..payload.len().min(32)])
        ),
    }
}
