//! Does an end always find its own start?

use std::time::Duration;

use annals_observer::{
    CallId, CallKind, Entry, EntryKind, ErrorKind, JsonText, Level, Outcome, RunId,
};
use annals_wal::Options;
use annals_wal::fs::mem::MemDir;

use crate::common::{all, observer, open};

fn end_of<'e>(entries: &'e [Entry], call_id: &str) -> &'e Entry {
    let ends: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.call_id.as_ref().is_some_and(|id| id.as_str() == call_id))
        .filter(|entry| entry.kind == EntryKind::ToolEnd)
        .collect();
    assert_eq!(ends.len(), 1, "{call_id} has {} ends", ends.len());
    ends[0]
}

/// The seeds matched ends to starts by order and swapped the durations of parallel tools.
#[test]
fn parallel_tools_of_one_name_keep_their_own_durations() {
    let log = open(&MemDir::new(1));
    let (observer, clock) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let start = |id| session.tool("search").call_id(CallId::new(id).unwrap()).start().unwrap();
    let mut slow = start("call_slow");
    clock.advance(1_000);
    let mut quick = start("call_quick");
    clock.advance(20_000);
    let mut middle = start("call_middle");
    clock.advance(300_000);
    quick.end_ok(JsonText::string("q")).unwrap();
    clock.advance(4_000_000);
    middle.end_error(JsonText::string("m")).unwrap();
    clock.advance(50_000_000);
    slow.end_ok(JsonText::string("s")).unwrap();

    let entries = all(&log);
    let nanos = |id| end_of(&entries, id).duration.unwrap().as_nanos();
    assert_eq!(nanos("call_slow"), 54_321_000);
    assert_eq!(nanos("call_quick"), 320_000);
    assert_eq!(nanos("call_middle"), 4_300_000);
    assert_eq!(end_of(&entries, "call_slow").output, Some(JsonText::string("s")));
    assert_eq!(end_of(&entries, "call_middle").error, Some(JsonText::string("m")));
    assert_eq!(end_of(&entries, "call_middle").output, None);
}

#[test]
fn ends_on_other_threads_find_their_starts() {
    let log = open(&MemDir::new(2));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap().level(Level::Ordered);
    let calls: Vec<_> = (0..64).map(|_| session.tool("t").start().unwrap()).collect();
    std::thread::scope(|scope| {
        for mut call in calls {
            scope.spawn(move || {
                let own = JsonText::string(call.call_id().as_str());
                call.end_ok(own).unwrap();
            });
        }
    });
    observer.flush().unwrap();
    let entries = all(&log);
    for start in entries.iter().filter(|entry| entry.kind == EntryKind::ToolStart) {
        let id = start.call_id.as_ref().unwrap().as_str();
        let end = end_of(&entries, id);
        assert_eq!(end.span, start.span);
        assert_eq!(end.output, Some(JsonText::string(id)), "each end says its own call's id");
    }
    assert_eq!(entries.len(), 128);
}

#[test]
fn an_end_repeats_what_its_start_said_about_itself() {
    let log = open(&MemDir::new(3));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap().run(RunId::new("r-9").unwrap());
    let agent = session.agent("planner").start().unwrap();
    let mut llm = session
        .llm("model-x")
        .within(&agent)
        .input(JsonText::parse("[1]").unwrap())
        .metadata(JsonText::parse(r#"{"temperature":0.1}"#).unwrap())
        .start()
        .unwrap();
    let metadata = JsonText::parse(r#"{"finish":"stop"}"#).unwrap();
    llm.tokens(12, 34).metadata(metadata.clone()).end_ok(JsonText::string("hm")).unwrap();

    let entries = all(&log);
    let [agent_start, llm_start, llm_end] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(llm_end.kind, EntryKind::LlmEnd);
    assert_eq!(llm_start.parent_span, agent_start.span);
    assert_eq!(llm_end.parent_span, agent_start.span);
    assert_eq!((&llm_end.span, &llm_end.call_id), (&llm_start.span, &llm_start.call_id));
    assert_ne!(llm_start.span, agent_start.span);
    for entry in [llm_start, llm_end] {
        assert_eq!(entry.session.as_ref().unwrap().as_str(), "s-1");
        assert_eq!(entry.run.as_ref().unwrap().as_str(), "r-9");
        assert_eq!(entry.model.as_deref(), Some("model-x"));
        assert_eq!(entry.agent.as_deref(), Some("planner"), "inside the planner's call");
    }
    assert_eq!((llm_end.tokens_in, llm_end.tokens_out), (Some(12), Some(34)));
    assert_eq!(llm_end.metadata, Some(metadata));
    assert_eq!((&llm_end.input, &llm_start.duration), (&None, &None));
}

#[test]
fn an_end_by_bare_call_id_has_no_invented_duration() {
    let log = open(&MemDir::new(4));
    let (other, clock) = observer(&log);
    let id = CallId::new("call_1").unwrap();
    let call = other.session("s-1").unwrap().tool("t").call_id(id.clone()).start().unwrap();
    clock.advance(5);
    drop(call);
    let (observer, _) = observer(&log); // one that does not know the start
    let session = observer.session("s-1").unwrap();
    let outcome = Outcome::Error(JsonText::string("lost"));
    session.end_by_call_id(CallKind::Tool, id, outcome).unwrap();
    let entries = all(&log);
    assert_eq!(entries.len(), 2, "the drop recorded nothing");
    let end = end_of(&entries, "call_1");
    assert_eq!((end.duration, end.span), (None, None));
    assert_eq!(end.error, Some(JsonText::string("lost")));
}

#[test]
fn an_end_is_recorded_once_and_a_refused_one_may_be_tried_again() {
    let disk = MemDir::new(5);
    let log = Options::new().record_bytes_max(1024).open_in(disk.dir()).unwrap();
    let (observer, clock) = observer(&log);
    let mut call = observer.session("s-1").unwrap().tool("t").start().unwrap();
    clock.advance(7);
    let refused = call.end_ok(JsonText::string(&"x".repeat(2000))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert!(!refused.to_string().contains("xxx"), "an error shows no payload: {refused}");
    clock.advance(8);
    let receipt = call.end_ok(JsonText::string("short")).unwrap();
    assert_eq!(receipt.ticket.sequence, 2, "a refused entry leaves no gap");
    let again = call.end_error(JsonText::string("or not")).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Invalid);
    let entries = all(&log);
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].duration, Some(Duration::from_nanos(15)));
    assert_eq!(observer.health().accepted, 2);
}

#[test]
fn failures_are_entries_inside_a_call_and_outside_any() {
    let log = open(&MemDir::new(6));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let mut call = session.tool("t").start().unwrap();
    call.tokens(1, 2).error(JsonText::string("first try timed out")).unwrap();
    call.end_ok(JsonText::string("second try")).unwrap();
    session.error(JsonText::string("no disk")).unwrap();
    let entries = all(&log);
    let errors: Vec<&Entry> =
        entries.iter().filter(|entry| entry.kind == EntryKind::Error).collect();
    let [inside, outside] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!((&inside.span, &inside.call_id), (&entries[0].span, &entries[0].call_id));
    assert_eq!((inside.tokens_in, inside.duration), (None, None));
    assert_eq!((&outside.span, &outside.call_id), (&None, &None));
    assert_eq!(outside.error, Some(JsonText::string("no disk")));
    assert_eq!(outside.session, inside.session);
}

#[test]
fn empty_ids_are_refused_and_nothing_is_written() {
    let log = open(&MemDir::new(7));
    let (observer, _) = observer(&log);
    assert_eq!(observer.session("").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(CallId::new("").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(log.durable_lsn(), None);
}
