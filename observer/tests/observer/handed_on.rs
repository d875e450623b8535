//! What other tools get and give: is a large text in an export, does a line's own error become the
//! entry's, and does an export of ours come back as what it was?

use std::time::Duration;

use annals_observer::export::otlp::{self, OtlpOptions};
use annals_observer::export::{chrome, jsonl, whole};
use annals_observer::import::ImportOptions;
use annals_observer::{
    CallId, Entry, EntryKind, JsonText, Level, Options, Query, SessionId, StoredEntry, TimeOrigin,
    WallTime, entries, session_entries,
};
use annals_wal::Lsn;
use annals_wal::fs::mem::MemDir;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use serde_json::Value;

use crate::common::{NEW_YEAR, all, file, import, observer, open};

fn roomy(seed: u64) -> annals_wal::Log {
    annals_wal::Options::new().segment_bytes(8 << 20).open_in(MemDir::new(seed).dir()).unwrap()
}

#[test]
fn a_large_text_is_in_every_export_that_holds_texts_and_comes_back() {
    let log = roomy(1);
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let large = "0123456789abcdef".repeat(300 << 6);
    let start = session.tool("cat").call_id(CallId::new("c-1").unwrap());
    let mut call = start.input(JsonText::string(&large)).start().unwrap();
    call.end_ok(JsonText::string(&large)).unwrap();
    drop(session.tool("later").start().unwrap());
    let read = || whole(&log, entries(&log).unwrap());

    let mut lines = Vec::new();
    jsonl::write(read(), &mut lines).unwrap();
    let text = String::from_utf8(lines.clone()).unwrap();
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), 3);
    assert_eq!(values[0]["input"], *large);
    assert_eq!(values[1]["output"], *large);
    assert!(values[1].get("notes").is_none(), "nothing stands elsewhere");

    let mut spans = Vec::new();
    otlp::write(read(), &mut spans, OtlpOptions { contents: true }).unwrap();
    let spans = String::from_utf8(spans).unwrap();
    assert!(spans.lines().all(|line| serde_json::from_str::<TracesData>(line).is_ok()));
    assert_eq!(spans.matches(&large).count(), 2);

    let (_dir, path) = file("run.jsonl", &lines);
    let other = roomy(2);
    let (to, _) = self::observer(&other);
    let (report, bad) = import(&to, &path, ImportOptions::default());
    assert_eq!((report.items, bad.len()), (3, 0));
    let back: Vec<Entry> =
        session_entries(&other, "s-1").unwrap().map(|stored| stored.unwrap().entry).collect();
    assert!(back[0].input.as_ref().unwrap().as_str().contains(&large));
    let output = back.iter().find(|entry| entry.kind == EntryKind::ToolEnd).unwrap();
    assert_eq!(output.output, Some(JsonText::string(&large)));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_large_text_is_in_a_sqlite_export() {
    let log = roomy(3);
    let (observer, _) = observer(&log);
    let large = "0123456789abcdef".repeat(300 << 6);
    let mut call = observer.session("s-1").unwrap().tool("cat").start().unwrap();
    call.end_error(JsonText::string(&large)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.db");
    let read = whole(&log, entries(&log).unwrap());
    annals_observer::export::sqlite::write(read, &path).unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    let query = "SELECT error FROM protocol_entries WHERE lsn = 3";
    let error: String = database.query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(error, JsonText::string(&large).as_str());
}

#[test]
fn our_own_json_lines_come_back_with_session_kind_time_and_pairs() {
    let log = crate::exports::a_session();
    let mut lines = Vec::new();
    jsonl::write(entries(&log).unwrap(), &mut lines).unwrap();
    let (_dir, path) = file("run.ndjson", &lines);
    let other = open(&MemDir::new(4));
    let (to, _) = observer(&other);
    let (report, bad) = import(&to, &path, ImportOptions::default());
    assert_eq!((report.items, bad.len()), (11, 0));
    let before = all(&log);
    let own = [EntryKind::ImportBegin, EntryKind::ImportDone];
    let after: Vec<Entry> = all(&other).into_iter().filter(|e| !own.contains(&e.kind)).collect();
    let of = |entry: &Entry| {
        let names = [&entry.agent, &entry.tool, &entry.model, &entry.name].map(Clone::clone);
        let ids = (entry.session.clone(), entry.span, entry.parent_span, entry.call_id.clone());
        let said = (entry.output.clone(), entry.error.clone(), entry.metadata.clone());
        let counts = (entry.tokens_in, entry.tokens_out, entry.duration);
        (entry.kind, entry.wall, names, ids, said, counts)
    };
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(of(before), of(after));
        assert_eq!(after.source.as_ref().unwrap().time, TimeOrigin::Source);
    }
    let failed = Query::new().failed().run(&other).unwrap().map(Result::unwrap);
    assert_eq!(failed.count(), 2, "an end with its error, and an error inside of a call");
    let mut spans = Vec::new();
    let exported =
        otlp::write(entries(&other).unwrap(), &mut spans, OtlpOptions::default()).unwrap();
    assert_eq!((exported.written, exported.unfinished), (6, 1), "the pairs are found again");
}

#[test]
fn what_a_seed_s_line_says_is_the_entry_s_own() {
    let log = open(&MemDir::new(5));
    let (observer, _) = observer(&log);
    let lines = [
        r#"{"event_type":"tool_start","session_id":"s","timestamp":1772355600,"tool_name":"grep","call_id":"c-1","span_id":"00000000000000ff","parent_span_id":"0000000000000001","input_data":{"q":1}}"#,
        r#"{"event_type":"tool_end","session_id":"s","timestamp":1772355600250,"tool_name":"grep","call_id":"c-1","span_id":"00000000000000ff","duration_ms":1.5,"output_data":{"hits":3},"error":null,"tokens_used":12}"#,
        r#"{"event_type":"llm_end","session_id":"s","ts":1772355600.5,"model":"model-x","error":"no budget","tokens_in":120,"tokens_out":7,"duration_ms":"soon"}"#,
        r#"{"event_type":"error","session_id":"s","ts":12,"error":{"type":"io"}}"#,
        r#"{"event_type":"llm_end","session_id":"s","tokens_in":-1,"duration_ms":-4,"error":"","model":7,"span_id":"x"}"#,
        r#"{"event_type":"abandoned","session_id":"s"}"#,
        r#"{"event_type":"dropped","session_id":"s"}"#,
        r#"{"kind":"not_run","session":"s"}"#,
        r#"{"kind":"run_start","session":"s"}"#,
        r#"{"event_type":"import_done","session_id":"s"}"#,
        r#"{"event_type":"llm_end","session_id":"s","duration_ms":1e300,"call_id":"","span_id":"0000000000000000"}"#,
    ];
    let (_dir, path) = file("seed.jsonl", lines.join("\n"));
    let (report, bad) = import(&observer, &path, ImportOptions::default());
    assert_eq!((report.items, bad.len()), (lines.len() as u64, 0));
    let entries: Vec<Entry> =
        session_entries(&log, "s").unwrap().map(|stored| stored.unwrap().entry).collect();
    let inputs: Vec<&str> = entries.iter().map(|e| e.input.as_ref().unwrap().as_str()).collect();
    assert_eq!(inputs, lines, "every line is whole");
    let second = 1_772_355_600_000_000_000;
    let walls: Vec<i64> = entries.iter().take(4).map(|entry| entry.wall.0).collect();
    assert_eq!(walls[..3], [second, second + 250_000_000, second + 500_000_000]);
    assert!((NEW_YEAR..second).contains(&walls[3]), "12 is no time: that of the import");
    let (start, end, llm) = (&entries[0], &entries[1], &entries[2]);
    assert_eq!(start.span.unwrap().get(), 255);
    assert_eq!(start.parent_span.unwrap().get(), 1);
    assert_eq!((start.span, &start.call_id), (end.span, &end.call_id));
    assert_eq!(start.call_id, Some(CallId::new("c-1").unwrap()));
    assert_eq!(end.duration, Some(Duration::from_micros(1_500)));
    assert_eq!(end.output, Some(JsonText::parse(r#"{"hits":3}"#).unwrap()));
    assert_eq!(end.error, None);
    assert_eq!(llm.model.as_deref(), Some("model-x"));
    assert_eq!((llm.tokens_in, llm.tokens_out, llm.duration), (Some(120), Some(7), None));
    assert_eq!(llm.error, Some(JsonText::string("no budget")));
    assert_eq!(entries[3].kind, EntryKind::Error);
    let odd = &entries[4];
    assert_eq!((odd.tokens_in, odd.duration, &odd.error, &odd.model), (None, None, &None, &None));
    for claimed in &entries[5..10] {
        assert_eq!(claimed.kind, EntryKind::Imported, "{:?}", claimed.name);
    }
    assert_eq!(entries[5].name.as_deref(), Some("abandoned"));
    let last = &entries[10];
    assert_eq!((last.duration, &last.call_id, last.span), (None, &None, None));
    let failed = Query::new().failed().run(&log).unwrap().map(Result::unwrap);
    assert_eq!(failed.count(), 2);
}

#[test]
fn a_text_within_the_limit_is_not_cut_for_its_quotes() {
    let log = open(&MemDir::new(6));
    let observer = Options::new().field_bytes_max(10).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    for text in ["0123456789", "\"\"\"\"\n\n\n\n\t\t", "öööö\""] {
        session.error(JsonText::string(text)).unwrap();
        let entry = all(&log).pop().unwrap();
        assert_eq!(entry.error, Some(JsonText::string(text)));
        assert!(entry.notes.is_empty(), "{text}: {:?}", entry.notes);
    }
    session.error(JsonText::string("0123456789a")).unwrap();
    let entry = all(&log).pop().unwrap();
    assert_eq!(entry.error, Some(JsonText::string("0123456789")));
    assert!(!entry.notes.is_empty());
    session.error(JsonText::parse("[1,2,3,4,5,6]").unwrap()).unwrap();
    assert_eq!(all(&log).pop().unwrap().error, Some(JsonText::string("[1,2,3,4,5")));
}

fn stored(lsn: u64, kind: EntryKind, call: &str, at: i64) -> StoredEntry {
    let mut entry = Entry::new(kind);
    entry.session = Some(SessionId::new("s-1").unwrap());
    entry.call_id = Some(CallId::new(call).unwrap());
    entry.tool = Some("t".to_owned());
    entry.wall = WallTime(NEW_YEAR + at * 1_000);
    StoredEntry { lsn: Lsn::new(lsn).unwrap(), entry }
}

#[test]
fn an_otlp_line_holds_no_number_that_its_readers_cannot() {
    let mut end = stored(2, EntryKind::LlmEnd, "c", 5);
    (end.entry.tokens_in, end.entry.tokens_out) = (Some(u64::MAX), Some(1 << 63));
    let entries = [Ok(stored(1, EntryKind::LlmStart, "c", 0)), Ok(end)];
    let mut line = Vec::new();
    otlp::write(entries, &mut line, OtlpOptions::default()).unwrap();
    let data: TracesData = serde_json::from_slice(&line).unwrap();
    assert_eq!(data.resource_spans[0].scope_spans[0].spans.len(), 1);
    assert!(String::from_utf8(line).unwrap().contains(&i64::MAX.to_string()));
}

#[test]
fn a_chrome_trace_has_an_end_for_every_call_and_a_call_for_every_end() {
    let mut trimmed = stored(1, EntryKind::ToolEnd, "trimmed", 700);
    trimmed.entry.duration = Some(Duration::from_micros(300));
    let mut failed = stored(5, EntryKind::ToolEnd, "b", 900);
    failed.entry.error = Some(JsonText::string("gone"));
    let entries = [
        trimmed,
        stored(2, EntryKind::ToolStart, "a", 750),
        stored(3, EntryKind::ToolStart, "b", 800),
        stored(4, EntryKind::ToolEnd, "a", 850),
        failed,
        stored(6, EntryKind::ToolStart, "open", 950),
        stored(7, EntryKind::ToolStart, "late", 990),
    ];
    let mut bytes = Vec::new();
    let exported = chrome::write(entries.map(Ok), &mut bytes).unwrap();
    assert_eq!((exported.written, exported.unfinished), (5, 2));
    let trace: Value = serde_json::from_slice(&bytes).unwrap();
    let calls: Vec<&Value> = trace["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["ph"] != "M")
        .collect();
    assert!(calls.iter().all(|event| event["ph"] == "X"), "{calls:#?}");
    let of = |id: &str| *calls.iter().find(|event| event["args"]["call_id"] == id).unwrap();
    let at = |micros: i64| (NEW_YEAR / 1_000 + micros) as f64;
    assert_eq!((&of("trimmed")["ts"], &of("trimmed")["dur"]), (&at(400).into(), &300.0.into()));
    assert_eq!((&of("open")["dur"], &of("late")["dur"]), (&40.0.into(), &0.0.into()));
    assert_eq!(of("open")["args"]["unfinished"], true);
    assert!(of("a").get("cname").is_none() && of("b")["cname"] == "terrible");
}

#[test]
fn a_batched_session_is_read_whole_too() {
    let log = roomy(7);
    let observer = Options::new().inline_bytes_max(100).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    for n in 0..20 {
        session.error(JsonText::string(&format!("{n} ").repeat(200))).unwrap();
    }
    observer.flush().unwrap();
    let read = whole(&log, entries(&log).unwrap()).map(Result::unwrap);
    for (n, stored) in read.enumerate() {
        assert_eq!(stored.entry.error, Some(JsonText::string(&format!("{n} ").repeat(200))));
    }
}
