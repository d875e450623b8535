//! One line of a `.jsonl` becomes one entry, whatever its shape.
//!
//! Never here: files, the log, a schema. The line is kept whole in the entry's `input`, byte for
//! byte, so numbers, names and their order stay; the other fields are what could be read out of
//! it. Invariant: a line that cannot be taken is a [`Reason`] and costs no other line.
//! Next room: [`super::times`].

use serde_json::value::RawValue;

use super::Reason;
use super::members::{Members, as_string};
use super::times::read_time;
use crate::clock::WallTime;
use crate::entry::{Entry, TimeOrigin};
use crate::ids::SessionId;
use crate::json::JsonText;
use crate::kind::EntryKind;

/// Where a session may stand; the first that is there counts.
const SESSION: [&str; 6] =
    ["session_id", "sessionId", "run_id", "context_id", "group_id", "agent_id"];
/// Where the kind's name may stand.
const KIND: [&str; 2] = ["event_type", "type"];
/// Where the time may stand.
const TIME: [&str; 3] = ["timestamp", "ts", "time"];
/// Where the agent's name may stand.
const AGENT: [&str; 3] = ["agent_name", "agent", "agent_id"];
/// Where the tool's name may stand.
const TOOL: [&str; 2] = ["tool_name", "tool"];

/// What a line says, but for where it stands.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) entry: Entry,
    pub(crate) time: Option<(WallTime, TimeOrigin)>,
}

/// The entry of one line; `None` for a blank one.
pub(crate) fn parse_line(line: &[u8]) -> Result<Option<Parsed>, Reason> {
    let text = std::str::from_utf8(line)
        .map_err(|error| Reason::NotUtf8 { byte: error.valid_up_to() as u64 + 1 })?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let members = Members::of(text)?;
    let name = KIND.iter().find_map(|field| members.string(field));
    let known = name.as_deref().and_then(protocol_kind);
    let mut entry = Entry::new(known.unwrap_or(EntryKind::Imported));
    entry.name = if known.is_some() { None } else { name };
    entry.session = SESSION.iter().find_map(|field| session(members.get(field)?));
    entry.agent = AGENT.iter().find_map(|field| members.string(field));
    entry.tool = TOOL.iter().find_map(|field| members.string(field));
    entry.input = Some(JsonText::checked(text.to_owned()));
    let time = TIME.iter().find_map(|field| read_time(&members.string(field)?));
    Ok(Some(Parsed { entry, time }))
}

/// The protocol's own event types: a file cannot claim to be our import's book-keeping.
fn protocol_kind(name: &str) -> Option<EntryKind> {
    let kind = EntryKind::from_name(name)?;
    let ours = [EntryKind::Imported, EntryKind::ImportBegin, EntryKind::ImportDone];
    if kind == EntryKind::Error || ours.contains(&kind) { None } else { Some(kind) }
}

/// A string is the id itself, a number its text; anything else is no id.
fn session(raw: &RawValue) -> Option<SessionId> {
    match raw.get().as_bytes().first()? {
        b'"' => as_string(raw).and_then(SessionId::stored),
        b'-' | b'0'..=b'9' => SessionId::stored(raw.get().to_owned()),
        _ => None,
    }
}
