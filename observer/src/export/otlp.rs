//! OTLP/JSON lines: each line one `TracesData`, as the collector's file exporter writes and its
//! `otlpjsonfile` receiver reads.
//!
//! A span is a call; errors and handoffs inside it are its events. The trace id is made of the
//! session id, or is none's. Never here: names ([`super::names`]). A call without an end is
//! exported with its start as its end and [`own::UNFINISHED`]: OpenTelemetry itself knows no span
//! before its end, and would lose it. Contents (inputs and outputs) are written only when asked
//! for.

use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::calls::{Calls, Open, label, nanos};
use super::names::{self, own};
use super::{ExportError, Exported};
use crate::entry::Entry;
use crate::error::Result;
use crate::ids::SessionId;
use crate::json::JsonText;
use crate::kind::{CallKind, EntryKind};
use crate::read::StoredEntry;

/// How many spans stand in one line, and of how many bytes of texts.
const SPANS_A_LINE: usize = 256;
const TEXT_BYTES_A_LINE: usize = 1 << 20;

/// What an OTLP export holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OtlpOptions {
    /// Inputs and outputs as attributes. Default false, as the conventions ask.
    pub contents: bool,
}

/// Writes spans as they end, and what has not ended at the end.
///
/// # Errors
/// Of the first entry that cannot be read, or of the output.
///
/// ```
/// use annals_observer::export::otlp::{OtlpOptions, write};
/// use annals_observer::{JsonText, Observer, entries};
///
/// # let dir = tempfile::tempdir()?;
/// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
/// let mut call = observer.session("s-1")?.tool("search").start()?;
/// call.end_ok(JsonText::string("ok"))?;
/// let mut lines = Vec::new();
/// let exported = write(entries(observer.log())?, &mut lines, OtlpOptions::default())?;
/// assert_eq!(exported.written, 1);
/// let line: serde_json::Value = serde_json::from_slice(&lines)?;
/// let span = &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
/// assert_eq!(span["name"], "execute_tool search");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    entries: impl IntoIterator<Item = Result<StoredEntry>>,
    to: &mut impl Write,
    options: OtlpOptions,
) -> std::result::Result<Exported, ExportError> {
    let mut out = Out { to, spans: Vec::new(), text_bytes: 0, exported: Exported::default() };
    // What is kept of an open call: its events so far.
    let mut calls: Calls<Vec<Value>> = Calls::new();
    for stored in entries {
        let stored = stored?;
        out.exported.entries += 1;
        let entry = &stored.entry;
        if let Some(kind) = entry.kind.starts() {
            calls.start(kind, stored, Vec::new());
        } else if let Some(kind) = entry.kind.ends() {
            match calls.end(kind, entry) {
                Some(open) => out.span(span(open, Some(&stored), options))?,
                // Its start was trimmed, or is another log's: what is known is still a span.
                None => out.span(span_of_end(kind, stored, options))?,
            }
        } else if matches!(entry.kind, EntryKind::Error | EntryKind::Handoff) {
            let event = event(entry);
            let around = entry.span.and_then(|span| calls.of_span(&entry.session, span.get()));
            match around {
                Some(open) => open.kept.push(event),
                None => out.span(span_of_event(&stored, event))?,
            }
        }
    }
    for open in calls.into_open() {
        out.exported.unfinished += 1;
        out.span(span(open, None, options))?;
    }
    out.line()?;
    out.to.flush()?;
    Ok(out.exported)
}

struct Out<'w, W> {
    to: &'w mut W,
    spans: Vec<Value>,
    text_bytes: usize,
    exported: Exported,
}

impl<W: Write> Out<'_, W> {
    fn span(&mut self, span: Value) -> std::io::Result<()> {
        let attributes = span.get("attributes").and_then(Value::as_array);
        let texts = attributes.into_iter().flatten().filter_map(|attribute| {
            attribute.pointer("/value/stringValue").and_then(Value::as_str).map(str::len)
        });
        self.text_bytes += texts.sum::<usize>();
        self.spans.push(span);
        self.exported.written += 1;
        let full = self.spans.len() >= SPANS_A_LINE || self.text_bytes >= TEXT_BYTES_A_LINE;
        if full { self.line() } else { Ok(()) }
    }

    fn line(&mut self) -> std::io::Result<()> {
        if self.spans.is_empty() {
            return Ok(());
        }
        let spans = std::mem::take(&mut self.spans);
        self.text_bytes = 0;
        let scope = json!({ "name": "annals-observer", "version": env!("CARGO_PKG_VERSION") });
        let resource = json!({ "attributes": [text("service.name", "annals")] });
        let scope_spans = json!([{ "scope": scope, "spans": spans, "schemaUrl": names::SEMCONV }]);
        let line = json!({ "resourceSpans": [{
            "resource": resource, "scopeSpans": scope_spans, "schemaUrl": names::SEMCONV,
        }] });
        writeln!(self.to, "{line}")
    }
}

fn span(open: Open<Vec<Value>>, end: Option<&StoredEntry>, options: OtlpOptions) -> Value {
    let Open { kind, start, kept: events } = open;
    let entry = &start.entry;
    let mut attributes = attributes(entry, kind);
    attributes.push(int(own::START_LSN, start.lsn.get()));
    let mut status = json!({});
    let mut took = 0;
    match end {
        Some(end) => {
            took = nanos(entry, &end.entry);
            attributes.push(int(own::END_LSN, end.lsn.get()));
            ended(&mut attributes, &end.entry, kind, options);
            status = status_of(&end.entry, &mut attributes);
        }
        None => attributes.push(json!({ "key": own::UNFINISHED, "value": { "boolValue": true } })),
    }
    if options.contents {
        attributes.extend(content(input_name(kind), entry.input.as_ref()));
    }
    let began = u64::try_from(entry.wall.0).unwrap_or(0);
    let name = match names::operation(kind).0 {
        Some(operation) => format!("{operation} {}", label(entry, kind)),
        None => label(entry, kind),
    };
    json!({
        "traceId": trace_id(entry), "spanId": span_id(entry, start.lsn.get()),
        "parentSpanId": entry.parent_span.map_or_else(String::new, |span| span.to_string()),
        "name": name, "kind": names::operation(kind).1, "flags": 0, "traceState": "",
        "startTimeUnixNano": began.to_string(),
        "endTimeUnixNano": began.saturating_add(took).to_string(),
        "attributes": attributes, "droppedAttributesCount": 0,
        "events": events, "droppedEventsCount": 0, "links": [], "droppedLinksCount": 0,
        "status": status,
    })
}

/// A span from its end alone.
fn span_of_end(kind: CallKind, end: StoredEntry, options: OtlpOptions) -> Value {
    let took = end.entry.duration.map_or(0, crate::entry::duration_nanos);
    let mut start = end.clone();
    start.entry.wall.0 = end.entry.wall.0.saturating_sub(i64::try_from(took).unwrap_or(i64::MAX));
    (start.entry.input, start.entry.metadata) = (None, None);
    span(Open { kind, start, kept: Vec::new() }, Some(&end), options)
}

/// An error or a handoff outside every open call: a span of no length with one event.
fn span_of_event(stored: &StoredEntry, event: Value) -> Value {
    let mut start = stored.clone();
    start.entry.name = Some(stored.entry.kind.to_string());
    start.entry.parent_span = stored.entry.span.or(stored.entry.parent_span);
    start.entry.span = None;
    let open = Open { kind: CallKind::Span, start: start.clone(), kept: vec![event] };
    span(open, Some(&start), OtlpOptions::default())
}

fn attributes(entry: &Entry, kind: CallKind) -> Vec<Value> {
    let call_id = if kind == CallKind::Tool { names::TOOL_CALL_ID } else { own::CALL_ID };
    let texts = [
        (Some(names::OPERATION), names::operation(kind).0),
        (Some(names::CONVERSATION), entry.session.as_ref().map(SessionId::as_str)),
        (Some(own::RUN), entry.run.as_ref().map(|run| run.as_str())),
        (Some(call_id), entry.call_id.as_ref().map(|id| id.as_str())),
        (Some(names::AGENT), entry.agent.as_deref()),
        (Some(names::TOOL), entry.tool.as_deref()),
        (Some(names::MODEL), entry.model.as_deref()),
        (names::name_attribute(kind).filter(|_| kind == CallKind::Trace), entry.name.as_deref()),
        (Some(own::METADATA), entry.metadata.as_ref().map(JsonText::as_str)),
    ];
    texts.into_iter().filter_map(|(key, value)| Some(text(key?, value?))).collect()
}

fn ended(attributes: &mut Vec<Value>, end: &Entry, kind: CallKind, options: OtlpOptions) {
    attributes.extend(end.tokens_in.map(|count| int(names::INPUT_TOKENS, count)));
    attributes.extend(end.tokens_out.map(|count| int(names::OUTPUT_TOKENS, count)));
    if options.contents {
        let name = if kind == CallKind::Tool { names::TOOL_RESULT } else { names::OUTPUT_MESSAGES };
        attributes.extend(content(name, end.output.as_ref()));
    }
}

fn input_name(kind: CallKind) -> &'static str {
    if kind == CallKind::Tool { names::TOOL_ARGUMENTS } else { names::INPUT_MESSAGES }
}

fn content(name: &str, value: Option<&JsonText>) -> Option<Value> {
    value.map(|value| text(name, value.as_str()))
}

/// Status and `error.type` of an end: low in cardinality, so the message stands in the status.
fn status_of(end: &Entry, attributes: &mut Vec<Value>) -> Value {
    let Some(error) = end.error_shown() else { return json!({ "code": 1, "message": "" }) };
    attributes.push(text(names::ERROR_TYPE, &error_type(&error)));
    json!({ "code": 2, "message": error_message(&error) })
}

fn error_type(error: &JsonText) -> String {
    let value: Option<Value> = serde_json::from_str(error.as_str()).ok();
    let kind = value.as_ref().and_then(|value| value.get("type")).and_then(Value::as_str);
    kind.unwrap_or("_OTHER").to_owned()
}

fn error_message(error: &JsonText) -> String {
    match serde_json::from_str(error.as_str()) {
        Ok(Value::String(message)) => message,
        _ => error.as_str().to_owned(),
    }
}

fn event(entry: &Entry) -> Value {
    let mut attributes = Vec::new();
    let name = match entry.error_shown() {
        Some(error) => {
            attributes.push(text("exception.type", &error_type(&error)));
            attributes.push(text("exception.message", &error_message(&error)));
            "exception"
        }
        None => {
            let agents = [(own::HANDOFF_FROM, &entry.agent), (own::HANDOFF_TO, &entry.name)];
            let named =
                agents.into_iter().filter_map(|(key, name)| Some(text(key, name.as_ref()?)));
            attributes.extend(named);
            "handoff"
        }
    };
    let at = u64::try_from(entry.wall.0).unwrap_or(0);
    json!({
        "timeUnixNano": at.to_string(), "name": name, "attributes": attributes,
        "droppedAttributesCount": 0,
    })
}

/// 16 bytes that are the same for all spans of a session.
fn trace_id(entry: &Entry) -> String {
    let session = entry.session.as_ref().map_or("", SessionId::as_str);
    let hash: [u8; 32] = Sha256::digest(session.as_bytes()).into();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The span's own digits; where it has none, some made of its LSN.
fn span_id(entry: &Entry, lsn: u64) -> String {
    match entry.span {
        Some(span) => span.to_string(),
        None => format!("{:016x}", (lsn | 1 << 63).max(1)),
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// A reader's integer has 63 bits: one number over them would cost it the whole line.
fn int(key: &str, value: u64) -> Value {
    let value = value.min(i64::MAX as u64);
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}
