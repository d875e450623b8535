//! Starts without ends: bounded in a living process, classified and written off after a crash.

use std::sync::Arc;
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, CallState, EntryKind, ErrorKind, JsonText, Level, Options, Outcome, RunId,
    call_state, call_state_in_run,
};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::common::{HandClock, all, observer, open};

fn ok() -> JsonText {
    JsonText::string("ok")
}

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

#[test]
fn too_many_or_too_old_starts_are_written_off_and_a_late_end_still_finds_its_call() {
    let log = open(&MemDir::new(1));
    let clock = Arc::new(HandClock::default());
    let options = Options::new().clock(clock.clone()).open_starts_max(3);
    let observer = options.open_start_age_max(Duration::from_secs(10)).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let start = |name: &str| session.tool("t").call_id(id(name)).start().unwrap();
    let mut first = start("c-1");
    let _others: Vec<_> = ["c-2", "c-3"].into_iter().map(start).collect();
    assert_eq!(observer.health().open_starts, 3);
    let _fourth = start("c-4");
    observer.flush().unwrap();
    let off = all(&log).pop().unwrap();
    assert_eq!((off.kind, off.call_id.clone()), (EntryKind::Abandoned, Some(id("c-1"))));
    let said = off.metadata.unwrap();
    assert!(said.as_str().contains(r#""start_lsn":1"#) && said.as_str().contains("too many"));
    clock.advance(11_000_000_000);
    let _fifth = start("c-5");
    observer.flush().unwrap();
    let health = observer.health();
    assert_eq!((health.open_starts, health.written_off), (1, 4), "three more were too old");
    first.end_ok(ok()).unwrap();
    let end = all(&log).pop().unwrap();
    assert_eq!((end.kind, end.call_id), (EntryKind::ToolEnd, Some(id("c-1"))));
    assert_eq!(end.duration, Some(Duration::from_secs(11)), "the handle knows its own start");
    assert_eq!(
        call_state(&log, "s-1", CallKind::Tool, "c-1").unwrap(),
        CallState::Settled,
        "the end wins"
    );
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c-2").unwrap(), CallState::Ambiguous);
}

#[test]
fn an_end_by_call_id_has_a_duration_only_while_somebody_knows_the_start() {
    let log = open(&MemDir::new(2));
    let (observer, clock) = observer(&log);
    let session = observer.session("s-1").unwrap();
    drop(session.tool("t").call_id(id("c-1")).start().unwrap());
    clock.advance(5_000);
    let outcome = || Outcome::Ok(ok());
    session.end_by_call_id(CallKind::Tool, id("c-1"), outcome()).unwrap();
    session.end_by_call_id(CallKind::Tool, id("c-1"), outcome()).unwrap();
    let entries = all(&log);
    assert_eq!(entries[1].duration, Some(Duration::from_micros(5)));
    assert_eq!(entries[1].span, entries[0].span);
    assert_eq!((entries[2].duration, entries[2].span), (None, None), "nothing is invented");
}

#[test]
fn recovery_classifies_each_call_and_writes_a_cut_one_off_once() {
    let disk = MemDir::new(3);
    let log = open(&disk);
    let (before, _) = observer(&log);
    let run = RunId::new("r-1").unwrap();
    let session = before.session("s-1").unwrap().run(run).require_intents().unwrap();
    let begin = |name: &str| session.tool("t").call_id(id(name)).begin().unwrap();
    begin("settled").enter().end_ok(ok()).unwrap();
    begin("failed").enter().end_error(ok()).unwrap();
    drop(begin("given-up")); // before the tool was entered
    let _cut = begin("cut").enter();
    before.flush().unwrap();

    let log = open(&disk.crash(Keep::Nothing));
    let (after, _) = observer(&log);
    let recovered = after.recover().unwrap();
    assert_eq!(recovered.open.len(), 1);
    assert_eq!(recovered.open[0].start.call_id, Some(id("cut")));
    assert_eq!((recovered.written_off, recovered.settled), (1, 3));
    let off = all(&log).pop().unwrap();
    assert_eq!(off.kind, EntryKind::Abandoned);
    assert!(off.metadata.unwrap().as_str().contains("crash"));
    let again = after.recover().unwrap();
    assert_eq!((again.written_off, again.open.len()), (0, 1), "said once");
    assert_eq!(again.open[0].abandoned, recovered.open[0].abandoned);
    let state = |name| call_state(&log, "s-1", CallKind::Tool, name).unwrap();
    assert_eq!(state("settled"), CallState::Settled);
    assert_eq!(state("failed"), CallState::Settled);
    assert_eq!(state("given-up"), CallState::NeverStarted);
    assert_eq!(state("cut"), CallState::Ambiguous);
    assert_eq!(state("no such call"), CallState::Ambiguous, "of a run that lost all, maybe");
    let in_run = |name| call_state_in_run(&log, "s-1", "r-1", CallKind::Tool, name).unwrap();
    assert_eq!(in_run("no such call"), CallState::NeverStarted, "the run requires intents");
    assert_eq!(in_run("cut"), CallState::Ambiguous);
    let session = after.session("s-1").unwrap();
    session.end_by_call_id(CallKind::Tool, id("cut"), Outcome::Ok(ok())).unwrap();
    assert_eq!(state("cut"), CallState::Settled, "any end wins over the write-off");
    assert!(after.recover().unwrap().open.is_empty());
}

#[test]
fn a_living_call_of_this_opening_is_never_written_off_by_a_recovery() {
    let log = open(&MemDir::new(4));
    let (one, _) = observer(&log);
    let _alive = one.session("s-1").unwrap().tool("t").start().unwrap();
    let (two, _) = observer(&log);
    assert!(two.recover().unwrap().open.is_empty());
    assert_eq!(all(&log).len(), 1);
}

#[test]
fn without_a_declaration_a_call_that_left_nothing_is_ambiguous() {
    let log = open(&MemDir::new(5));
    let (observer, _) = observer(&log);
    observer.session("s-1").unwrap().error(ok()).unwrap();
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "c").unwrap(), CallState::Ambiguous);
}

#[test]
fn a_run_that_requires_intents_refuses_a_start_that_is_not_durable() {
    let log = open(&MemDir::new(6));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    assert_eq!(session.clone().require_intents().unwrap_err().kind(), ErrorKind::Invalid);
    let session = session.run(RunId::new("r").unwrap()).level(Level::Batched);
    let session = session.require_intents().unwrap();
    assert_eq!(session.tool("t").start().unwrap_err().kind(), ErrorKind::Invalid);
    let _model = session.llm("m").start().unwrap();
    let intent = session.tool("t").begin().unwrap();
    assert!(intent.start_receipt().lsn.is_some());
    drop(intent.enter());
}

/// A runtime may number its model calls and its tool calls each from 1.
#[test]
fn a_tool_call_and_a_model_call_of_one_id_are_two_calls() {
    let disk = MemDir::new(7);
    let log = open(&disk);
    let (before, _) = observer(&log);
    let run = RunId::new("r-1").unwrap();
    let session = before.session("s-1").unwrap().run(run).require_intents().unwrap();
    let state = |log: &annals_wal::Log, kind, id| {
        let states = (
            call_state(log, "s-1", kind, id).unwrap(),
            call_state_in_run(log, "s-1", "r-1", kind, id).unwrap(),
        );
        assert!(states.0 == states.1 || states.1 == CallState::NeverStarted, "{states:?}");
        states.1
    };
    let (tool, model) = (CallKind::Tool, CallKind::Llm);
    session.llm("m").call_id(id("1")).start().unwrap().end_ok(ok()).unwrap();
    assert_eq!(state(&log, model, "1"), CallState::Settled);
    assert_eq!(state(&log, tool, "1"), CallState::NeverStarted, "it would have left a start");
    let _cut = session.tool("t").call_id(id("1")).begin().unwrap().enter();
    assert_eq!(state(&log, tool, "1"), CallState::Ambiguous, "the model's end is not its end");
    // The other way around, and without the handle: each end finds its own.
    drop(session.llm("m").call_id(id("2")).start().unwrap());
    drop(session.tool("t").call_id(id("2")).begin().unwrap().enter());
    session.end_by_call_id(tool, id("2"), Outcome::Ok(ok())).unwrap();
    assert_eq!(state(&log, tool, "2"), CallState::Settled);
    assert_eq!(state(&log, model, "2"), CallState::Ambiguous);
    // A tool's intent that was given up says nothing of a model call.
    drop(session.llm("m").call_id(id("3")).start().unwrap());
    drop(session.tool("t").call_id(id("3")).begin().unwrap());
    before.flush().unwrap();
    assert_eq!(state(&log, tool, "3"), CallState::NeverStarted);
    assert_eq!(state(&log, model, "3"), CallState::Ambiguous);
    let log = open(&disk.crash(Keep::Nothing));
    let (after, _) = observer(&log);
    let open: Vec<_> = after.recover().unwrap().open;
    let open: Vec<_> = open
        .iter()
        .map(|call| (call.kind, call.start.call_id.as_ref().map(|id| id.as_str().to_owned())))
        .collect();
    let name = |id: &str| Some(id.to_owned());
    assert_eq!(open, [(tool, name("1")), (model, name("2")), (model, name("3"))]);
}

/// Two runs of one session may use the same ids; an end of one is no end of the other's.
#[test]
fn an_end_by_call_id_is_of_its_own_run() {
    let disk = MemDir::new(8);
    let log = open(&disk);
    let (before, _) = observer(&log);
    let run = |name: &str| {
        let session = before.session("s-1").unwrap();
        session.run(RunId::new(name).unwrap())
    };
    for name in ["a", "b"] {
        drop(run(name).tool("t").call_id(id("1")).start().unwrap());
    }
    // Of a, though b's is newer; then of a again, which nobody knows any more.
    run("a").end_by_call_id(CallKind::Tool, id("1"), Outcome::Ok(ok())).unwrap();
    run("a").end_by_call_id(CallKind::Tool, id("1"), Outcome::Ok(ok())).unwrap();
    let entries = all(&log);
    assert_eq!((entries[2].span, entries[3].span), (entries[0].span, None));
    let state = |name| call_state_in_run(&log, "s-1", name, CallKind::Tool, "1").unwrap();
    assert_eq!((state("a"), state("b")), (CallState::Settled, CallState::Ambiguous));
    assert_eq!(before.health().open_starts, 1, "b's");
    drop(before);
    let log = open(&disk.crash(Keep::Nothing));
    let (after, _) = observer(&log);
    let recovered = after.recover().unwrap();
    let open: Vec<_> =
        recovered.open.iter().map(|call| call.start.run.as_ref().map(|run| run.as_str())).collect();
    assert_eq!(open, [Some("b")], "a's second end is not b's");
    // An end that names no run is of the newest that is open.
    let session = after.session("s-1").unwrap();
    session.end_by_call_id(CallKind::Tool, id("1"), Outcome::Ok(ok())).unwrap();
    assert!(after.recover().unwrap().open.is_empty());
}
