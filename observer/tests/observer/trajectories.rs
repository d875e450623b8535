//! Is every member of a trajectory in an entry, and are its calls paired as they ran?

use std::time::Duration;

use annals_observer::import::{ImportOptions, ImportOutcome, Reason};
use annals_observer::{Entry, EntryKind, JsonText};
use annals_wal::fs::mem::MemDir;
use serde_json::{Value, json};

use crate::common::{all, file, import, observer, open, sample};

const DEFAULT: ImportOptions = ImportOptions { strict: false, again: false };

fn imported(seed: u64, name: &str) -> Vec<Entry> {
    let log = open(&MemDir::new(seed));
    let (observer, _) = observer(&log);
    let (report, bad) = import(&observer, &sample(name), DEFAULT);
    assert_eq!((report.items, bad.len()), (3, 0), "{bad:?}");
    let mut entries = all(&log);
    assert_eq!(entries.remove(0).kind, EntryKind::ImportBegin);
    assert_eq!(entries.pop().unwrap().kind, EntryKind::ImportDone);
    entries
}

fn value(text: &Option<JsonText>) -> Value {
    text.as_ref().map_or(Value::Null, |text| serde_json::from_str(text.as_str()).unwrap())
}

fn of_line(entries: &[Entry], line: u64) -> Vec<&Entry> {
    entries.iter().filter(|e| e.source.as_ref().unwrap().position.line == line).collect()
}

#[test]
fn steps_become_an_llm_call_and_a_tool_call_each() {
    let entries = imported(1, "steps.traj");
    let kinds: Vec<String> = entries.iter().map(|entry| entry.kind.to_string()).collect();
    let step = ["llm_start", "llm_end", "tool_start", "tool_end"];
    let expected = [&["agent_start"], &step[..], &step[..], &step[..2], &["agent_end"]].concat();
    assert_eq!(kinds, expected);
    for entry in &entries {
        assert_eq!(entry.session.as_ref().unwrap().as_str(), "steps", "the file's name");
        assert_eq!(entry.agent.as_deref(), Some("primary"), "as the messages name it");
    }
    let file: Value =
        serde_json::from_str(&std::fs::read_to_string(sample("steps.traj")).unwrap()).unwrap();
    let [llm_start, llm_end, tool_start, tool_end] = of_line(&entries, 1)[..] else { panic!() };
    assert_eq!(value(&llm_start.input), json!(file["history"].as_array().unwrap()[..3]));
    assert_eq!(value(&llm_end.output), file["trajectory"][0]["response"]);
    assert_eq!(value(&tool_start.input), json!("ls -F\n"));
    assert_eq!(value(&tool_end.output), json!("README.md\n"));
    assert_eq!(tool_end.duration, Some(Duration::from_millis(250)));
    assert_eq!(llm_end.duration, None, "nobody measured it");
    let rest = llm_end.metadata.as_ref().unwrap().as_str();
    assert!(rest.contains("\"depth\": 1.0"), "numbers stay as they were written: {rest}");

    let [llm_start, llm_end, ..] = of_line(&entries, 2)[..] else { panic!() };
    assert_eq!(value(&llm_start.input)[0]["content"], "the query itself", "before the history");
    let rest = llm_end.metadata.as_ref().unwrap().as_str();
    assert!(rest.contains("123456789012345678901234567890"), "{rest}");
    let last = of_line(&entries, 3);
    assert_eq!(value(&last[0].input), Value::Null, "what the model saw is not known");
    assert_eq!(last[1].metadata.as_ref().unwrap().as_str(), "{\"thought\":null}");
}

#[test]
fn what_surrounds_the_steps_is_in_the_agent_call() {
    let entries = imported(2, "steps.traj");
    let (start, end) = (&entries[0], &entries[entries.len() - 1]);
    assert_eq!((&start.span, &start.call_id), (&end.span, &end.call_id));
    assert_eq!((start.parent_span, end.parent_span), (None, None));
    let around = value(&start.metadata);
    let names: Vec<&String> = around.as_object().unwrap().keys().collect();
    assert_eq!(names, ["environment", "history", "replay_config"]);
    assert_eq!(value(&end.output)["exit_status"], "submitted");
    assert_eq!((end.tokens_in, end.tokens_out), (Some(900), Some(30)));
    for entry in &entries[1..entries.len() - 1] {
        assert_eq!(entry.parent_span, start.span);
        let pair = entries.iter().filter(|other| other.span == entry.span).count();
        assert_eq!(pair, 2, "a start and its end, and nothing else");
    }
}

#[test]
fn messages_alone_become_calls_paired_by_id() {
    let entries = imported(3, "history.traj");
    let read = |entry: &&Entry| {
        let id = entry.call_id.as_ref().filter(|id| id.as_str().starts_with("call_"));
        let id = id.map_or("", |id| id.as_str()).to_owned();
        let shown = if entry.kind == EntryKind::ToolStart { &entry.input } else { &entry.output };
        (entry.kind.to_string(), id, value(shown))
    };
    let expected = |kind: &str, id: &str, shown: Value| (kind.to_owned(), id.to_owned(), shown);
    assert_eq!(
        of_line(&entries, 1).iter().map(read).collect::<Vec<_>>(),
        [
            expected("llm_start", "", Value::Null),
            expected("llm_end", "", json!("Two at once.")),
            expected("tool_start", "call_a", json!("{\"path\":\"a\"}")),
            expected("tool_end", "call_a", json!("text of a")),
            expected("tool_start", "call_b", json!("{\"path\":\"b\"}")),
            expected("tool_end", "call_b", json!("text of b")),
        ]
    );
    assert_eq!(
        of_line(&entries, 2).iter().map(read).collect::<Vec<_>>()[2..],
        [expected("tool_start", "", json!("ls")), expected("tool_end", "", json!("README.md"))]
    );
    let third = of_line(&entries, 3);
    let kinds: Vec<String> = third[2..].iter().map(|entry| entry.kind.to_string()).collect();
    assert_eq!(kinds, ["tool_start", "tool_start", "tool_end"], "one result is not in the file");
    assert_eq!((third[2].tool.as_deref(), third[4].tool.as_deref()), (Some("sleep"), Some("date")));
    assert!(third[4].metadata.as_ref().unwrap().as_str().ends_with("\"extra\":1.50}"));
    let end = entries.last().unwrap();
    let left = value(&end.metadata);
    assert_eq!(left["history"].as_array().unwrap().len(), 1);
    assert_eq!(left["history"][0]["content"], "somebody else's");
    assert_eq!(entries[0].metadata, None, "messages are not kept a second time");
    let seen = value(&of_line(&entries, 2)[0].input);
    assert_eq!(seen.as_array().unwrap().len(), 2, "both results, since the last answer");
}

#[test]
fn a_step_that_is_no_object_is_named_and_costs_no_other() {
    let content = r#"{"trajectory": [{"response": "a"}, 7, {"response": "b"}], "info": null}"#;
    let (_dir, path) = file("run.traj", content);
    let log = open(&MemDir::new(4));
    let (observer, _) = observer(&log);
    let strict = ImportOptions { strict: true, again: false };
    let (report, bad) = import(&observer, &path, strict);
    assert_eq!((report.outcome, bad[0].line), (ImportOutcome::Stopped, 2));
    assert_eq!(log.durable_lsn(), None);
    let (report, bad) = import(&observer, &path, DEFAULT);
    assert_eq!((report.items, report.bad), (2, 1));
    assert_eq!((bad[0].line, &bad[0].reason), (2, &Reason::NotAnObject));
    let outputs: Vec<Value> = all(&log)
        .iter()
        .filter(|entry| entry.kind == EntryKind::LlmEnd)
        .map(|entry| value(&entry.output))
        .collect();
    assert_eq!(outputs, [json!("a"), json!("b")]);
}

#[test]
fn a_member_that_is_there_twice_is_kept_twice() {
    let content = "\u{FEFF}{\"trajectory\": [{\"response\": 1, \"response\": 2.0}]}";
    let (_dir, path) = file("run.traj", content);
    let log = open(&MemDir::new(6));
    let (observer, _) = observer(&log);
    let (report, bad) = import(&observer, &path, DEFAULT);
    assert_eq!((report.items, bad.len()), (1, 0), "{bad:?}");
    let entries = all(&log);
    let end = entries.iter().find(|entry| entry.kind == EntryKind::LlmEnd).unwrap();
    assert_eq!(end.output.as_ref().unwrap().as_str(), "2.0", "the last counts");
    assert_eq!(end.metadata.as_ref().unwrap().as_str(), "{\"response\":1}");
}

#[test]
fn an_empty_list_of_steps_is_kept_and_the_messages_are_the_run() {
    let content = r#"{"trajectory": [], "history": [{"role": "assistant", "content": "hm"}, 7]}"#;
    let (_dir, path) = file("run.traj", content);
    let log = open(&MemDir::new(7));
    let (observer, _) = observer(&log);
    import(&observer, &path, DEFAULT);
    let entries = all(&log);
    assert_eq!(value(&entries[1].metadata), json!({"trajectory": []}));
    assert_eq!(value(&entries[3].output), json!("hm"));
    assert_eq!(value(&entries[4].metadata), json!({"history": [7]}), "no object, but kept");
}

#[test]
fn what_is_no_trajectory_is_one_bad_line_and_nothing_is_written() {
    let log = open(&MemDir::new(5));
    let (observer, _) = observer(&log);
    let cases: [(&[u8], u64, Reason); 6] = [
        (b"", 1, Reason::CutShort),
        (b"[1]", 1, Reason::NotAnObject),
        (b"{\"steps\": []}", 1, Reason::NotATrajectory),
        (b"{\"trajectory\": 3}", 1, Reason::NotATrajectory),
        (b"{\n\"trajectory\": [}\n", 2, Reason::NotJson { line: 2, column: 16 }),
        (b"{\"\xFF\"}", 1, Reason::NotUtf8 { byte: 3 }),
    ];
    for (content, line, reason) in cases {
        let (_dir, path) = file("run.traj", content);
        let (report, bad) = import(&observer, &path, DEFAULT);
        assert_eq!((report.outcome, report.bad), (ImportOutcome::Stopped, 1));
        assert_eq!((bad[0].line, &bad[0].reason), (line, &reason));
    }
    assert_eq!(log.durable_lsn(), None);
}
