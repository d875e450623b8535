//! What the review of the second round found, each as the test that failed before it was mended.

use std::future::Future;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, CallState, EntryKind, FlushOutcome, JsonText, Level, Observer, Options,
    Outcome, RunId, call_state_in_run,
};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Batch, Before, InClosure, Joint, Log, Lsn};

use crate::common::{all, open, stored};

fn ok() -> Outcome {
    Outcome::Ok(JsonText::string("ok"))
}

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

/// A commit of a room that has no records of its own.
struct Plain<'l>(&'l Log);

impl Joint for Plain<'_> {
    type Done = RangeInclusive<Lsn>;
    type Failure = annals_wal::Error;

    fn commit(self, before: &mut dyn Before) -> annals_wal::Result<Self::Done> {
        let mut batch = Batch::new();
        before.push_to(&mut batch);
        let lsns = self.0.append_batch(batch)?;
        before.ordered(lsns.clone());
        Ok(lsns)
    }
}

struct Panics;

impl Joint for Panics {
    type Done = ();
    type Failure = annals_wal::Error;

    fn commit(self, _before: &mut dyn Before) -> annals_wal::Result<()> {
        panic!("a room fails")
    }
}

#[test]
fn an_end_by_call_id_with_a_commit_closes_the_open_start() {
    let log = open(&MemDir::new(41));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    drop(session.tool("t").call_id(id("c-1")).start().unwrap());
    assert_eq!(observer.health().open_starts, 1);
    let made = session.end_by_call_id_with(CallKind::Tool, id("c-1"), ok(), Plain(&log)).unwrap();
    assert!(made.end.is_some());
    assert_eq!(observer.health().open_starts, 0);
    let entries = all(&log);
    assert_eq!(entries[0].span, entries[1].span, "the end knows its start");
    assert!(entries[1].duration.is_some());
}

#[test]
fn a_commit_that_panics_gives_its_tickets_back() {
    let log = open(&MemDir::new(42));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut call = session.tool("t").call_id(id("c-1")).start().unwrap();
    let end = catch_unwind(AssertUnwindSafe(|| call.end_with(ok(), Panics)));
    assert!(end.is_err());
    let next = session.error(JsonText::string("e")).unwrap();
    assert_eq!(next.ticket.sequence, call.start_receipt().ticket.sequence + 1);
    let end = session.end_by_call_id_with(CallKind::Tool, id("c-1"), ok(), Plain(&log)).unwrap();
    assert!(end.end.is_some(), "it was open");
}

#[test]
fn what_waits_for_a_sync_is_refused_inside_of_a_closure() {
    let observer = Observer::on(open(&MemDir::new(43))).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let inside = InClosure::set();
    let start = session.tool("t").start_async();
    let Poll::Ready(Err(error)) = pin!(start).poll(&mut context) else { panic!("it waits") };
    assert!(error.to_string().contains("closure"), "{error}");
    assert!(!error.outcome_unknown());
    let flushed = observer.force_flush(Duration::from_millis(1));
    let FlushOutcome::Failed { cause, .. } = flushed else { panic!("{flushed:?}") };
    assert!(cause.to_string().contains("closure"), "{cause}");
    let queued = session.clone().level(Level::Batched);
    queued.error(JsonText::string("not waited for")).unwrap();
    drop(inside);
    observer.flush().unwrap();
    assert_eq!(observer.health().accepted, 1);
}

#[test]
fn a_forked_child_changes_nothing_before_it_is_refused() {
    let disk = MemDir::new(44);
    let observer = Observer::on(open(&disk)).unwrap();
    let session = observer.session("s-1").unwrap();
    drop(session.tool("t").call_id(id("c-1")).start().unwrap());
    disk.set_pid(4243);
    assert!(observer.shutdown().is_err());
    assert!(observer.recover().is_err());
    assert!(observer.retain(annals_observer::Retention::new()).is_err());
    assert!(session.tool("t").start().is_err());
    assert!(session.end_by_call_id(CallKind::Tool, id("c-1"), ok()).is_err());
    disk.set_pid(4242); // what it is opened by
    assert!(!observer.health().closed, "a child shut its parent's observer down");
    session.end_by_call_id(CallKind::Tool, id("c-1"), ok()).unwrap();
    assert_eq!(observer.health().open_starts, 0);
}

#[test]
fn a_recovery_tells_the_lsn_of_each_write_off_behind_large_texts() {
    let disk = MemDir::new(45);
    let observer = Observer::on(open(&disk)).unwrap();
    let session = observer.session("s-1").unwrap();
    for n in 0..3 {
        drop(session.tool("t").call_id(id(&format!("c-{n}"))).start().unwrap());
    }
    let log = open(&disk.crash(Keep::Nothing));
    let observer = Options::new().inline_bytes_max(8).on(log.clone()).unwrap();
    let recovered = observer.recover().unwrap();
    let written: Vec<Lsn> = stored(&log)
        .into_iter()
        .filter(|stored| stored.entry.kind == EntryKind::Abandoned)
        .map(|stored| stored.lsn)
        .collect();
    let told: Vec<Lsn> = recovered.open.iter().filter_map(|call| call.abandoned).collect();
    assert_eq!(told, written);
}

#[test]
fn a_model_call_of_a_run_that_declares_intents_is_never_said_not_to_have_started() {
    let log = open(&MemDir::new(46));
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().run(RunId::new("r-1").unwrap());
    let session = session.require_intents().unwrap();
    let call = session.llm("m").call_id(id("llm")).level(Level::Batched).start().unwrap();
    call.error(JsonText::string("its start is lost")).unwrap();
    observer.flush().unwrap();
    let state = |kind, call| call_state_in_run(&log, "s-1", "r-1", kind, call).unwrap();
    assert_eq!(state(CallKind::Llm, "llm"), CallState::Ambiguous);
    assert_eq!(state(CallKind::Llm, "no trace of it"), CallState::Ambiguous);
    assert_eq!(state(CallKind::Tool, "tool"), CallState::NeverStarted);
}
