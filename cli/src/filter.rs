//! Which records are wanted: by LSN, time, session, agent, tool, kind, errors alone.
//!
//! Never here: output. A time filter wants entries alone, for no other record has a time. Invariant:
//! the stream tag decides first, so that a record of another session is not even decoded. Next room:
//! [`crate::decode`].

use annals_observer::{Entry, EntryKind, SessionId};
use annals_wal::{Lsn, StoredRecord};
use jiff::{SignedDuration, Timestamp};

use crate::decode::{Shown, decode, kind_name, session};
use crate::exit::{Exit, Failure};

#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Filters {
    /// First LSN.
    #[arg(long, value_name = "LSN", value_parser = crate::args::lsn)]
    pub(crate) from: Option<Lsn>,
    /// Last LSN.
    #[arg(long, value_name = "LSN", value_parser = crate::args::lsn)]
    pub(crate) to: Option<Lsn>,
    /// Only entries since then: RFC 3339 such as 2026-11-21T20:00:00Z, or so long ago: 15m, 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only entries up to then, in the same form.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Only entries of this session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only entries of this agent.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only entries of this tool.
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Only records of this kind: a name such as `tool_end`, `registry`, `untyped`, or a number
    /// such as 0x1000.
    #[arg(long)]
    kind: Option<String>,
    /// Only entries that carry an error.
    #[arg(long)]
    errors: bool,
}

/// The filters, checked.
pub(crate) struct Wanted {
    filters: Filters,
    session: Option<SessionId>,
}

impl Filters {
    pub(crate) fn checked(&self) -> Result<Wanted, Failure> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from > to
        {
            let why = format!("--from {from} is after --to {to}: swap them");
            return Err(Failure::new(Exit::Usage, why));
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            let why = format!("--since {since} is after --until {until}: swap them");
            return Err(Failure::new(Exit::Usage, why));
        }
        if let Some(kind) = self.kind.as_deref().filter(|kind| !known_kind(kind)) {
            let why = format!(
                "--kind {kind} is no kind: name an entry's kind (llm_start, tool_end, imported, \
                 ...), registry, registry-checkpoint, untyped, lost, or a number such as 0x1000"
            );
            return Err(Failure::new(Exit::Usage, why));
        }
        let wrong = |e: annals_observer::Error| Failure::new(Exit::Usage, e.to_string());
        let session = self.session.as_deref().map(SessionId::new).transpose().map_err(wrong)?;
        Ok(Wanted { filters: self.clone(), session })
    }

    /// Whether every record in the range is wanted.
    pub(crate) fn wants_all(&self) -> bool {
        let text = [&self.session, &self.agent, &self.tool, &self.kind];
        text.iter().all(|t| t.is_none())
            && self.since.is_none()
            && self.until.is_none()
            && !self.errors
    }
}

impl Wanted {
    /// The record decoded, if it is wanted.
    pub(crate) fn shown(&self, record: &StoredRecord) -> Option<Shown> {
        if self.session.as_ref().is_some_and(|id| id.stream() != record.stream) {
            return None;
        }
        let filters = &self.filters;
        if filters.kind.as_ref().is_some_and(|kind| !is_kind(record, kind)) {
            return None;
        }
        let shown = decode(record);
        if let Some(id) = &self.session
            && session(&shown) != Some(id.as_str())
        {
            return None;
        }
        let of_entry = filters.since.is_some()
            || filters.until.is_some()
            || filters.agent.is_some()
            || filters.tool.is_some()
            || filters.errors;
        match &shown {
            // What cannot be decoded may be what was asked for: it is told.
            Shown::Undecodable(_) => {}
            Shown::Entry(entry) if self.wants(entry) => {}
            Shown::Entry(_) => return None,
            _ if of_entry => return None,
            _ => {}
        }
        Some(shown)
    }

    fn wants(&self, entry: &Entry) -> bool {
        let filters = &self.filters;
        let is =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let at = Timestamp::from_nanosecond(i128::from(entry.wall.0)).unwrap_or(Timestamp::MIN);
        is(&filters.agent, &entry.agent)
            && is(&filters.tool, &entry.tool)
            && (!filters.errors || entry.has_error() || entry.kind == EntryKind::Error)
            && filters.since.is_none_or(|since| at >= since)
            && filters.until.is_none_or(|until| at <= until)
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
    let named = matches!(kind, "registry" | "registry-checkpoint" | "untyped" | "lost")
        || EntryKind::from_name(kind).is_some();
    named || other || kind_number(kind).is_some()
}

/// A moment, or how long ago.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if text.parse::<jiff::civil::Date>().is_ok() {
        return Err(format!("`{text}` is a day: add a time and a zone, {text}T00:00:00Z"));
    }
    let ago: SignedDuration = text.parse().map_err(|_| {
        format!("`{text}` is neither RFC 3339 (2026-11-21T20:00:00Z) nor a time ago (15m, 2h, 3d)")
    })?;
    Timestamp::now().checked_sub(ago).map_err(|e| e.to_string())
}
