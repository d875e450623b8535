//! Do other tools read what is exported, and does it say what the log says?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_observer::export::otlp::{self, OtlpOptions};
use annals_observer::export::{chrome, folded, jsonl};
use annals_observer::{
    CallId, Entry, EntryKind, JsonText, Observer, SessionId, WallTime, encode_entry, entries,
};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Codec, Log, Record};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use serde_json::Value;

use crate::common::{HandClock, NEW_YEAR, open};

/// An agent, a model call, two tools at once of which one fails, a handoff, a call that a crash
/// cut.
pub(crate) fn a_session() -> Log {
    let log = open(&MemDir::new(1));
    let clock = Arc::new(HandClock::default());
    let observer = Observer::with_clock(log.clone(), clock.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut agent = session.agent("planner").start().unwrap();
    clock.advance(1_000_000);
    let mut llm = session.llm("model-x").within(&agent).start().unwrap();
    clock.advance(5_000_000);
    llm.tokens(120, 7).end_ok(JsonText::string("use both tools")).unwrap();
    let tool = |name: &str, id: &str| {
        let start = session.tool(name).within(&agent).call_id(CallId::new(id).unwrap());
        start.input(JsonText::parse(r#"{"q": 1.50}"#).unwrap()).start().unwrap()
    };
    let (mut search, mut read) = (tool("search", "c-1"), tool("read;file", "c-2"));
    clock.advance(2_000_000);
    read.end_error(JsonText::parse(r#"{"type":"io","message":"gone"}"#).unwrap()).unwrap();
    search.error(JsonText::string("slow network")).unwrap();
    clock.advance(1_000_000);
    search.end_ok(JsonText::string("3 hits")).unwrap();
    session.handoff("planner", "writer").unwrap();
    clock.advance(1_000_000);
    agent.end_ok(JsonText::string("done")).unwrap();
    drop(session.agent("writer").start().unwrap());
    log
}

fn spans(contents: bool) -> Vec<Span> {
    let mut lines = Vec::new();
    let options = OtlpOptions { contents };
    otlp::write(entries(&a_session()).unwrap(), &mut lines, options).unwrap();
    let mut spans = Vec::new();
    for line in String::from_utf8(lines).unwrap().lines() {
        let data: TracesData = serde_json::from_str(line).unwrap();
        for resource in data.resource_spans {
            assert!(resource.schema_url.contains("schemas/"), "it says which names it speaks");
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    spans
}

fn attribute(span: &Span, key: &str) -> Option<Any> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.clone()?.value
}

fn text(value: &str) -> Option<Any> {
    Some(Any::StringValue(value.to_owned()))
}

#[test]
fn an_otlp_export_parses_with_the_proto_s_own_types_and_says_the_same() {
    let spans = spans(false);
    let by_name: BTreeMap<&str, &Span> = spans.iter().map(|s| (s.name.as_str(), s)).collect();
    assert_eq!(spans.len(), 6, "{:?}", by_name.keys());
    let agent = by_name["invoke_agent planner"];
    let llm = by_name["chat model-x"];
    let (search, read) = (by_name["execute_tool search"], by_name["execute_tool read;file"]);
    assert!(spans.iter().all(|span| span.trace_id.len() == 16 && span.span_id.len() == 8));
    assert!(spans.iter().all(|span| span.trace_id == agent.trace_id));
    for child in [llm, search, read] {
        assert_eq!(child.parent_span_id, agent.span_id);
    }
    assert!(agent.parent_span_id.is_empty());
    let new_year = NEW_YEAR as u64;
    assert_eq!(llm.start_time_unix_nano, new_year + 1_000_000);
    assert_eq!(llm.end_time_unix_nano - llm.start_time_unix_nano, 5_000_000);
    assert_eq!(read.end_time_unix_nano - read.start_time_unix_nano, 2_000_000);
    assert_eq!(llm.kind, 3, "client");
    assert_eq!(attribute(llm, "gen_ai.usage.input_tokens"), Some(Any::IntValue(120)));
    assert_eq!(attribute(llm, "gen_ai.conversation.id"), text("s-1"));
    assert_eq!(attribute(search, "gen_ai.tool.call.id"), text("c-1"));
    assert_eq!(attribute(search, "gen_ai.tool.call.arguments"), None, "contents are opt-in");
    assert_eq!(attribute(read, "error.type"), text("io"));
    let status = read.status.as_ref().unwrap();
    assert!(status.code == 2 && status.message.contains("gone"));
    assert_eq!(search.status.as_ref().unwrap().code, 1);
    assert_eq!(search.events[0].name, "exception");
    let handoff = by_name["handoff"];
    assert_eq!(handoff.events[0].name, "handoff");
    let writer = by_name["invoke_agent writer"];
    assert_eq!(attribute(writer, "annals.unfinished"), Some(Any::BoolValue(true)));
    assert_eq!(writer.start_time_unix_nano, writer.end_time_unix_nano, "nothing is invented");
}

#[test]
fn an_otlp_export_holds_contents_when_asked() {
    let spans = spans(true);
    let search = spans.iter().find(|span| span.name.ends_with("search")).unwrap();
    assert_eq!(attribute(search, "gen_ai.tool.call.arguments"), text(r#"{"q": 1.50}"#));
    assert_eq!(attribute(search, "gen_ai.tool.call.result"), text(r#""3 hits""#));
}

#[test]
fn a_chrome_trace_has_the_format_s_shape_and_a_track_for_each_concurrent_call() {
    let mut bytes = Vec::new();
    let exported = chrome::write(entries(&a_session()).unwrap(), &mut bytes).unwrap();
    assert_eq!((exported.written, exported.unfinished), (7, 1));
    let trace: Value = serde_json::from_slice(&bytes).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let mut tracks: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    for event in events {
        let phase = event["ph"].as_str().unwrap();
        assert!(event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64());
        match phase {
            "M" => assert!(event["args"]["name"].is_string()),
            "i" => assert!(event["ts"].is_f64() && event["s"] == "t"),
            "B" => assert!(event["ts"].is_f64()),
            "X" => {
                let (ts, dur) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
                let track = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
                tracks.entry(track).or_default().push((ts, ts + dur));
            }
            other => panic!("no such phase here: {other}"),
        }
    }
    assert_eq!(tracks.len(), 3, "the agent's, and two for the tools");
    for calls in tracks.values_mut() {
        calls.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(calls.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{calls:?}");
    }
    let mut nothing = Vec::new();
    chrome::write(std::iter::empty(), &mut nothing).unwrap();
    let empty: Value = serde_json::from_slice(&nothing).unwrap();
    assert_eq!(empty["traceEvents"].as_array().unwrap().len(), 0);
}

#[test]
fn folded_stacks_give_each_call_its_own_time() {
    let mut bytes = Vec::new();
    folded::write(entries(&a_session()).unwrap(), &mut bytes).unwrap();
    let lines = String::from_utf8(bytes).unwrap();
    // The agent took 10 ms; its model call and its tools 5, 2 and 3 of them.
    let expected = "s-1;planner 0\ns-1;planner;model-x 5000\ns-1;planner;read_file 2000\n\
                    s-1;planner;search 3000\n";
    assert_eq!(lines, expected);
}

#[test]
fn json_lines_keep_every_digit() {
    let mut bytes = Vec::new();
    let exported = jsonl::write(entries(&a_session()).unwrap(), &mut bytes).unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&bytes).unwrap().lines().collect();
    assert_eq!((lines.len() as u64, exported.entries), (exported.written, 11));
    assert!(lines[3].contains(r#""input":{"q": 1.50}"#), "{}", lines[3]);
    for (n, line) in (1..).zip(&lines) {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["lsn"], n);
        assert_eq!(value["session"], "s-1");
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn a_sqlite_export_has_a_row_an_entry_and_is_never_written_over() {
    use annals_observer::export::sqlite;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.db");
    let log = a_session();
    let exported = sqlite::write(entries(&log).unwrap(), &path).unwrap();
    assert_eq!(exported.written, 11);
    let database = rusqlite::Connection::open(&path).unwrap();
    let row: (i64, String, f64) = database
        .query_row(
            "SELECT count(*), max(tool_name), sum(duration_ms) FROM protocol_entries \
             WHERE event_type = 'tool_end' AND session_id = 's-1'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(row, (2, "search".to_owned(), 5.0));
    let whole: String = database
        .query_row("SELECT entry_json FROM protocol_entries WHERE lsn = 4", [], |row| row.get(0))
        .unwrap();
    assert!(whole.contains(r#"{"q": 1.50}"#));
    assert!(sqlite::write(entries(&log).unwrap(), &path).is_err());
}

/// Appends an entry of a call by its call id, at so many microseconds, and how long it took.
fn append(log: &Log, session: &str, kind: EntryKind, (call, at, took): (&str, i64, Option<u64>)) {
    let mut entry = Entry::new(kind);
    entry.session = Some(SessionId::new(session).unwrap());
    entry.call_id = Some(CallId::new(call).unwrap());
    entry.tool = Some("t".to_owned());
    entry.model = Some("m".to_owned());
    entry.wall = WallTime(NEW_YEAR + at * 1_000);
    entry.duration = took.map(Duration::from_micros);
    let payload = encode_entry(&entry).unwrap();
    let record = Record::new(&payload).kind(kind.record_kind()).codec(Codec::BINCODE);
    log.append(record.stream(entry.session.as_ref().unwrap().stream())).unwrap();
}

/// A call id is unique in its session and among calls of one kind: a model and a tool may both call
/// theirs `1`, and so may the next session. Each end is its own start's, in every export that pairs.
#[test]
fn calls_of_one_id_in_two_sessions_and_of_two_kinds_are_not_mixed() {
    use EntryKind::{LlmEnd, LlmStart, ToolEnd, ToolStart};
    let log = open(&MemDir::new(4));
    let (first, second) = ("s-1", "s-2");
    for (session, kind, at, took) in [
        (first, LlmStart, 0, None),
        (second, ToolStart, 10, None),
        (first, ToolStart, 20, None),
        (second, LlmStart, 30, None),
        (second, ToolEnd, 1_010, Some(1_000)),
        (first, LlmEnd, 2_000, Some(2_000)),
        (second, LlmEnd, 4_030, Some(4_000)),
        (first, ToolEnd, 8_020, Some(8_000)),
        // The id is free again, and its second call has no end.
        (first, ToolStart, 9_000, None),
    ] {
        append(&log, session, kind, ("1", at, took));
    }
    let mut bytes = Vec::new();
    let exported = folded::write(entries(&log).unwrap(), &mut bytes).unwrap();
    let lines = String::from_utf8(bytes).unwrap();
    assert_eq!(lines, "s-1;m 2000\ns-1;t 8000\ns-2;m 4000\ns-2;t 1000\n");
    assert_eq!((exported.written, exported.unfinished), (4, 1));

    let mut bytes = Vec::new();
    jsonl::write(entries(&log).unwrap(), &mut bytes).unwrap();
    let mut open = BTreeMap::new();
    let mut paired = Vec::new();
    for line in std::str::from_utf8(&bytes).unwrap().lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        let name = text("kind");
        let (kind, edge) = name.rsplit_once('_').unwrap();
        let key = (text("session"), kind.to_owned(), text("call_id"));
        if edge == "end" {
            let start: u64 = open.remove(&key).unwrap();
            paired.push((start, entry["lsn"].as_u64().unwrap()));
        } else {
            assert_eq!(open.insert(key, entry["lsn"].as_u64().unwrap()), None);
        }
    }
    assert_eq!(paired, [(2, 5), (1, 6), (4, 7), (3, 8)], "by session, kind and id");
    assert_eq!(open.into_values().collect::<Vec<_>>(), [9]);

    let mut trace = Vec::new();
    chrome::write(entries(&log).unwrap(), &mut trace).unwrap();
    let trace: Value = serde_json::from_slice(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap().iter();
    let calls: Vec<&Value> = events.filter(|event| event["ph"] == "X").collect();
    let is_whole = |event: &&&Value| event["args"]["unfinished"] != true;
    let whole = calls.iter().filter(is_whole);
    assert_eq!((calls.len(), whole.clone().count()), (5, 4), "one that never ended");
    let mut took: Vec<(u64, String, f64)> = whole
        .map(|e| (e["pid"].as_u64().unwrap(), e["name"].to_string(), e["dur"].as_f64().unwrap()))
        .collect();
    took.sort_by(|a, b| a.2.total_cmp(&b.2));
    assert_eq!(took.iter().map(|call| call.2).collect::<Vec<_>>(), [1e3, 2e3, 4e3, 8e3]);
    let (session, name) = (|n: usize| took[n].0, |n: usize| took[n].1.as_str());
    assert!(session(0) == session(2) && session(1) == session(3) && session(0) != session(1));
    assert!(name(0) == name(3) && name(1) == name(2) && name(0) != name(1));

    let mut lines = Vec::new();
    let options = OtlpOptions { contents: false };
    otlp::write(entries(&log).unwrap(), &mut lines, options).unwrap();
    let mut micros = BTreeMap::new();
    for line in String::from_utf8(lines).unwrap().lines() {
        let data: TracesData = serde_json::from_str(line).unwrap();
        let scopes = data.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            let Some(Any::StringValue(session)) = attribute(&span, "gen_ai.conversation.id") else {
                panic!("no session: {span:?}")
            };
            let took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000;
            micros.entry((session, span.name)).or_insert_with(Vec::new).push(took);
        }
    }
    let of = |session: &str, name: &str| micros[&(session.to_owned(), name.to_owned())].clone();
    assert_eq!((of(first, "chat m"), of(second, "chat m")), (vec![2_000], vec![4_000]));
    assert_eq!(of(second, "execute_tool t"), [1_000]);
    assert_eq!(of(first, "execute_tool t"), [8_000, 0], "and one that never ended");
}

/// An entry takes its time before its place: the start of one thread may stand in the log behind the
/// end of another's call and be earlier by a few microseconds. On one track the two would overlap.
#[test]
fn a_start_behind_an_end_and_earlier_than_it_has_a_track_of_its_own() {
    let log = open(&MemDir::new(3));
    let append = |kind, call, at, took| append(&log, "s-1", kind, (call, at, took));
    let (start, end) = (EntryKind::ToolStart, EntryKind::ToolEnd);
    append(start, "a", 0, None);
    append(end, "a", 715, Some(715));
    append(start, "b", 706, None);
    append(start, "c", 720, None);
    append(end, "b", 1_100, Some(394));
    append(end, "c", 1_200, Some(480));
    let mut trace = Vec::new();
    chrome::write(entries(&log).unwrap(), &mut trace).unwrap();
    let trace: Value = serde_json::from_slice(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let track = |call: &str| {
        let calls = events.iter().find(|event| event["args"]["call_id"] == call);
        calls.unwrap()["tid"].as_u64().unwrap()
    };
    assert_ne!(track("a"), track("b"), "9 us of both");
    assert_eq!(track("a"), track("c"), "the track is free again");
}
