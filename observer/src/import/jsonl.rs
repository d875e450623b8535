//! One line of a `.jsonl` becomes one entry, whatever its shape.
//!
//! Never here: files, the log, a schema. The line is kept whole in the entry's `input`, byte for
//! byte, so numbers, names and their order stay; the other fields are what could be read out of
//! it. Invariant: a line that cannot be taken is a [`Reason`] and costs no other line.
//! Next room: [`super::times`].

use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::Reason;
use super::members::{Members, as_string, json};
use super::times::{read_number, read_time};
use crate::clock::WallTime;
use crate::entry::{Entry, TimeOrigin};
use crate::ids::{CallId, RunId, SessionId, SpanId};
use crate::json::JsonText;
use crate::kind::EntryKind;

/// Where a session may stand; the first that is there counts. The last is that of our own export.
const SESSION: [&str; 7] =
    ["session_id", "sessionId", "run_id", "context_id", "group_id", "agent_id", "session"];
/// Where the kind's name may stand.
const KIND: [&str; 2] = ["event_type", "type"];
/// Where it stands in our own export; elsewhere the word says something else.
const OWN_KIND: &str = "kind";
/// Where the time may stand.
const TIME: [&str; 4] = ["timestamp", "ts", "time", "wall"];
/// Where a number is a time.
const TIME_NUMBER: [&str; 2] = ["timestamp", "ts"];
/// Where the agent's name may stand.
const AGENT: [&str; 3] = ["agent_name", "agent", "agent_id"];
/// Where the tool's name may stand.
const TOOL: [&str; 2] = ["tool_name", "tool"];
/// Where the model's name may stand.
const MODEL: [&str; 2] = ["model", "model_name"];
/// Where the id of a call may stand.
const CALL_ID: [&str; 2] = ["call_id", "tool_call_id"];
/// Where what came out may stand.
const OUTPUT: [&str; 2] = ["output_data", "output"];

/// An entry may have this much beside its texts.
const SLACK_BYTES: usize = 8 << 10;

/// What a line says, but for where it stands.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) entry: Entry,
    pub(crate) time: Option<(WallTime, TimeOrigin)>,
}

/// The entry of one line; `None` for a blank one. `max`: what an entry may have in bytes.
pub(crate) fn parse_line(line: &[u8], max: usize) -> Result<Option<Parsed>, Reason> {
    let text = std::str::from_utf8(line)
        .map_err(|error| Reason::NotUtf8 { byte: error.valid_up_to() as u64 + 1 })?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let members = Members::of(text)?;
    let mut entry = entry_of_kind(&members);
    entry.session = SESSION.iter().find_map(|field| session(members.get(field)?));
    entry.agent = AGENT.iter().find_map(|field| members.string(field));
    entry.tool = TOOL.iter().find_map(|field| members.string(field));
    say(&mut entry, &members, max.saturating_sub(text.len()).saturating_sub(SLACK_BYTES));
    entry.input = Some(JsonText::checked(text.to_owned()));
    let time = TIME.iter().find_map(|field| read_time(&members.string(field)?));
    let number = || TIME_NUMBER.iter().find_map(|field| read_number(members.get(field)?.get()));
    Ok(Some(Parsed { entry, time: time.or_else(number) }))
}

/// The kind, and the name of what is no kind of the protocol.
fn entry_of_kind(members: &Members<'_>) -> Entry {
    let said = KIND.iter().find_map(|field| members.string(field));
    // Our own facts are named by our export as they are by nobody else.
    let own = || members.string(OWN_KIND).filter(|name| EntryKind::from_name(name).is_some());
    let name = said.or_else(own);
    let known = name.as_deref().and_then(protocol_kind);
    let mut entry = Entry::new(known.unwrap_or(EntryKind::Imported));
    entry.name = if known.is_some() { members.string("name") } else { name };
    entry
}

/// What else the line says, each as far as it is of its type. What came out is said twice, in the
/// line and here, only if an entry has `room` for both.
fn say(entry: &mut Entry, members: &Members<'_>, room: usize) {
    let first = |names: &[&str]| names.iter().find_map(|name| members.string(name));
    let number = |name: &str| members.get(name)?.get().parse::<u64>().ok();
    entry.model = first(&MODEL);
    entry.call_id = first(&CALL_ID).and_then(CallId::stored);
    entry.run = members.string("run").and_then(RunId::stored);
    let span = |name: &str| {
        let text = members.string(name)?;
        digits(&text).or_else(|| entry.call_id.is_none().then(|| of_text(&text)).flatten())
    };
    entry.span = span("span_id").or_else(|| span("span"));
    entry.parent_span = span("parent_span_id").or_else(|| span("parent_span"));
    entry.tokens_in = number("tokens_in").or_else(|| number("input_tokens"));
    entry.tokens_out = number("tokens_out").or_else(|| number("output_tokens"));
    entry.duration = number("duration_ns").map(Duration::from_nanos).or_else(|| {
        let millis: f64 = members.get("duration_ms")?.get().parse().ok()?;
        Duration::try_from_secs_f64(millis / 1000.0).ok()
    });
    let fits = |raw: &&RawValue| raw.get().len() <= room / 3;
    entry.error = members.get("error").filter(is_said).filter(fits).map(text_or_json);
    let output = OUTPUT.iter().find_map(|name| members.get(name).filter(is_said));
    entry.output = output.filter(fits).map(text_or_json);
    // Of another program's line it is said in the line alone: its parts may be named like ours.
    if members.get(OWN_KIND).is_some() && members.get("mono_ns").is_some() {
        entry.metadata = members.get("metadata").filter(is_said).filter(fits).map(json);
    }
}

/// Whether a value says anything: not null, not an empty text, not a bare yes or no.
fn is_said(raw: &&RawValue) -> bool {
    !matches!(raw.get(), "null" | "\"\"" | "false" | "true" | "{}" | "[]")
}

/// A value as it stands; of a text that is JSON itself, as a column of a table is, that.
fn text_or_json(raw: &RawValue) -> JsonText {
    let inner = as_string(raw).filter(|text| text.starts_with(['{', '[', '"']));
    inner.and_then(|text| JsonText::parse(text).ok()).unwrap_or_else(|| json(raw))
}

/// A span as we and OpenTelemetry write it.
fn digits(text: &str) -> Option<SpanId> {
    let is_ours = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_ours { SpanId::new(u64::from_str_radix(text, 16).ok()?) } else { None }
}

/// A span that is made of another's name, the same for each that has it. Not where a call id pairs:
/// a program may name each of its lines by a span of its own.
fn of_text(text: &str) -> Option<SpanId> {
    let zeros = text.bytes().all(|byte| byte == b'0' || byte == b'-');
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    (!zeros).then(|| SpanId::nearest(u64::from_le_bytes([a, b, c, d, e, f, g, h])))
}

/// The protocol's own event types: a file cannot claim what only we can know, how an import went and
/// what became of a run of ours.
fn protocol_kind(name: &str) -> Option<EntryKind> {
    let ours = [
        EntryKind::Imported,
        EntryKind::ImportBegin,
        EntryKind::ImportDone,
        EntryKind::Abandoned,
        EntryKind::Dropped,
        EntryKind::NotRun,
        EntryKind::RunStart,
    ];
    EntryKind::from_name(name).filter(|kind| !ours.contains(kind))
}

/// A string is the id itself, a number its text; anything else is no id.
fn session(raw: &RawValue) -> Option<SessionId> {
    match raw.get().as_bytes().first()? {
        b'"' => as_string(raw).and_then(SessionId::stored),
        b'-' | b'0'..=b'9' => SessionId::stored(raw.get().to_owned()),
        _ => None,
    }
}
