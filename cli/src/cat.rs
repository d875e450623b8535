//! `wal cat`: records as lines.

use std::ops::Bound;

use annals_observer::{EntryKind, SessionId};
use annals_wal::inspect::{Depth, State, inspect};
use annals_wal::{ErrorKind, LogReader, Lsn, StoredRecord};

use crate::args::{CatArgs, Format};
use crate::decode::{Shown, decode, json_line, kind_name, session};
use crate::escape::{cut, escape, escape_json};
use crate::exit::{Exit, Failure};
use crate::out::{Out, message};

/// Characters of payload in a line of text.
const WIDTH: usize = 160;

pub(crate) fn cat(args: &CatArgs, out: &mut Out) -> Result<Exit, Failure> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        let why = format!("--from {from} is after --to {to}: swap them");
        return Err(Failure::new(Exit::Usage, why));
    }
    if let Some(kind) = args.kind.as_deref().filter(|kind| !known_kind(kind)) {
        let why = format!(
            "--kind {kind} is no kind: name an entry's kind (llm_start, tool_end, imported, ...), \
             registry, untyped, or a number such as 0x1000"
        );
        return Err(Failure::new(Exit::Usage, why));
    }
    let wanted = match &args.session {
        Some(id) => {
            let wrong = |e: annals_observer::Error| Failure::new(Exit::Usage, e.to_string());
            Some(SessionId::new(id.as_str()).map_err(wrong)?)
        }
        None => None,
    };
    let reader = LogReader::open(&args.dir)?;
    let mut cat = Cat { args, wanted, exit: Exit::Clean, next: None, unproven: None };
    let end = args.to.map_or(Bound::Unbounded, Bound::Included);
    let start = args.from.map_or(Bound::Unbounded, Bound::Included);
    cat.print(&reader, (start, end), false, out)?;
    let next = cat.next.or(args.from).unwrap_or_else(|| reader.head_lsn());
    let wants_more = args.to.is_none_or(|to| next <= to);
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
    if args.to.is_none() && !out.is_gone() {
        check_the_end(args, &mut cat)?;
    }
    past_the_end(args, &cat)?;
    Ok(cat.exit)
}

/// Whether the end that was reached is the end there should be: a log whose last segment is gone
/// ends early without a bad byte.
fn check_the_end(args: &CatArgs, cat: &mut Cat<'_>) -> Result<(), Failure> {
    let report = inspect(&args.dir, Depth::Seals, &mut |_| ())?;
    if report.state < State::Corrupt {
        return Ok(());
    }
    for finding in &report.findings {
        message(&format!("wal: {}", escape(&finding.why)));
    }
    cat.exit = report.state.into();
    Ok(())
}

/// Asking for what is not there is answered, not passed over.
fn past_the_end(args: &CatArgs, cat: &Cat<'_>) -> Result<(), Failure> {
    match (args.from, cat.next) {
        (Some(from), None) => {
            let why = format!("LSN {from} is past the end of the log: ask for an earlier one");
            Err(Failure::new(Exit::Failed, why))
        }
        _ => Ok(()),
    }
}

struct Cat<'a> {
    args: &'a CatArgs,
    wanted: Option<SessionId>,
    exit: Exit,
    /// The LSN after the last one read.
    next: Option<Lsn>,
    unproven: Option<(Lsn, Lsn)>,
}

impl Cat<'_> {
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
        // The tag first: a record of another session is not even decoded.
        if self.wanted.as_ref().is_some_and(|id| id.stream() != record.stream) {
            return Ok(());
        }
        if self.args.kind.as_ref().is_some_and(|kind| !is_kind(record, kind)) {
            return Ok(());
        }
        let shown = decode(record);
        if let Some(id) = &self.wanted
            && session(&shown) != Some(id.as_str())
        {
            return Ok(());
        }
        if let Some(why) = complaint(record, &shown) {
            message(&why);
            self.exit = Exit::Failed;
        }
        let line = line(record, &shown, self.args.format)
            .map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        Ok(out.line(&line)?)
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
        Format::Text => Ok(text_line(record, shown)),
    }
}

/// A decoder's reason may hold names that stand in the record.
fn complaint(record: &StoredRecord, shown: &Shown) -> Option<String> {
    match shown {
        Shown::Undecodable(why) => Some(format!("wal: LSN {}: {}", record.lsn, escape(why))),
        _ => None,
    }
}

fn is_kind(record: &StoredRecord, kind: &str) -> bool {
    kind_name(record) == kind || kind_number(kind) == Some(record.kind.get())
}

fn kind_number(kind: &str) -> Option<u16> {
    match kind.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => kind.parse().ok(),
    }
}

fn known_kind(kind: &str) -> bool {
    let other = kind.strip_prefix("other-").is_some_and(|number| number.parse::<u8>().is_ok());
    let named = matches!(kind, "registry" | "untyped" | "lost") || EntryKind::from_name(kind).is_some();
    named || other || kind_number(kind).is_some()
}

/// LSN, kind, session, and what the record says, escaped and cut to a line.
fn text_line(record: &StoredRecord, shown: &Shown) -> String {
    let session = escape(session(shown).unwrap_or("-"));
    let rest = match shown {
        Shown::Entry(entry) => entry_text(entry),
        Shown::Transaction(changes) => changes_text(changes),
        Shown::Payload => payload_text(&record.payload),
        Shown::Undecodable(_) => format!("({} bytes that do not decode)", record.payload.len()),
    };
    let rest = cut(&rest, WIDTH);
    format!("{:>8}  {:<12}  {session:<24}  {rest}", record.lsn.get(), kind_name(record))
}

fn entry_text(entry: &annals_observer::Entry) -> String {
    let mut parts = Vec::new();
    let names = [&entry.agent, &entry.model, &entry.tool, &entry.name];
    parts.extend(names.into_iter().flatten().map(|name| escape(name)));
    parts.extend(entry.duration.map(|duration| format!("{duration:.1?}")));
    let texts = [("in", &entry.input), ("out", &entry.output), ("error", &entry.error)];
    for (label, text) in texts {
        parts.extend(text.as_ref().map(|text| format!("{label}={}", escape(text.as_str()))));
    }
    parts.join("  ")
}

fn changes_text(changes: &[annals_registry::Change]) -> String {
    let shown = changes.iter().map(|change| match change {
        annals_registry::Change::Put { key, value } => {
            format!("put {}={}", escape(key.as_str()), payload_text(value.bytes()))
        }
        annals_registry::Change::Delete { key } => format!("delete {}", escape(key.as_str())),
    });
    shown.collect::<Vec<_>>().join("  ")
}

fn payload_text(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => escape(text),
        Err(_) => format!(
            "({} bytes) {}",
            payload.len(),
            crate::escape::hex(&payload[..payload.len().min(32)])
        ),
    }
}
