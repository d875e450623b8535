//! `wal cat`: records as lines.

use annals_observer::Entry;
use annals_wal::StoredRecord;

use crate::args::{CatArgs, Format};
use crate::decode::{Shown, decode, json_line, kind_name, session};
use crate::end::check_the_end;
use crate::escape::{cut, escape, escape_json};
use crate::exit::{Exit, Failure};
use crate::out::{Out, Tone, message};
use crate::place;
use crate::walk::Walk;

/// Characters of a line off a terminal.
const WIDTH: usize = 200;

pub(crate) fn cat(args: &CatArgs, out: &mut Out) -> Result<Exit, Failure> {
    let wanted = args.filters.checked()?;
    let filters = &args.filters;
    let lines = Lines { format: args.format, width: width(args.width, out) };
    let (mut exit, mut read, mut unproven) = (Exit::Clean, false, None);
    for record in Walk::new(place::reader(&args.dir)?, filters.from, filters.to)? {
        let (record, is_unproven) = match record {
            Ok(record) => record,
            Err(error) => {
                out.flush()?;
                return Err(error.into());
            }
        };
        read = true;
        if is_unproven {
            let first = unproven.map_or(record.lsn, |(first, _)| first);
            unproven = Some((first, record.lsn));
        }
        if let Some(shown) = wanted.shown(&record)
            && lines.print(&record, &shown, out)?
        {
            exit = Exit::Failed;
        }
        if out.is_gone() {
            return Ok(exit);
        }
    }
    if let Some((first, last)) = unproven {
        message(&format!(
            "wal: LSNs {first} to {last} are whole, but nothing proves that they were durable: \
             the next opening for writing decides"
        ));
    }
    if let Some(from) = filters.from.filter(|_| !read) {
        // Asking for what is not there is answered, not passed over.
        let why = format!("LSN {from} is past the end of the log: ask for an earlier one");
        return Err(Failure::new(Exit::Failed, why));
    }
    if filters.to.is_none() {
        check_the_end(&args.dir, &mut exit)?;
    }
    Ok(exit)
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
        Shown::Payload if record.kind == annals_registry::CHECKPOINT => {
            (String::new(), "(says that a snapshot of the registry is whole)".to_owned())
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
