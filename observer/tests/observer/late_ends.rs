//! An end that comes while its start is being written off: nothing is lost, nothing is told twice.
//!
//! A redactor sees each text of an entry before it is queued, so it is the place where the late end
//! comes: when it sees the reason of the write-off, the start has left the table and the write-off is
//! not recorded yet. Never here: a second thread, a sleep.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, CallState, EntryKind, JsonText, Level, Observer, Options, Outcome, Overflow,
    Retention, call_state,
};
use annals_wal::Log;
use annals_wal::fs::mem::{Keep, MemDir};

use crate::common::{HandClock, all, open};

type Late = Box<dyn FnOnce() + Send>;

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

fn ok() -> JsonText {
    JsonText::string("ok")
}

/// What comes when a start is written off.
#[derive(Clone, Default)]
struct Hook(Arc<Mutex<Option<Late>>>);

impl Hook {
    fn set(&self, late: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(late));
    }

    fn has_run(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }

    /// One open start at most, and room for sixteen entries.
    fn observer(&self, log: &Log) -> Observer {
        let hook = self.clone();
        let options = Options::new().clock(Arc::new(HandClock::default())).open_starts_max(1);
        let options = options.queue_entries_max(16).overflow(Overflow::DropNewest);
        let redactor = move |text: &str| {
            if text == "too many calls are open" {
                let late = hook.0.lock().unwrap().take();
                late.into_iter().for_each(|late| late());
            }
            None
        };
        options.batch_age_max(Duration::from_secs(3600)).redactor(redactor).on(log.clone()).unwrap()
    }
}

/// How an end comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Handle(Level),
    Id(Level),
}

impl How {
    /// Of the end, and of the start whose handle it has.
    fn level(self) -> Level {
        let (How::Handle(level) | How::Id(level)) = self;
        level
    }
}

const HOWS: [How; 6] = [
    How::Handle(Level::Durable),
    How::Handle(Level::Ordered),
    How::Handle(Level::Batched),
    How::Id(Level::Durable),
    How::Id(Level::Ordered),
    How::Id(Level::Batched),
];

#[test]
fn an_end_during_the_write_off_is_kept_and_is_the_only_outcome() {
    for how in HOWS {
        late(how, how.level());
        late(how, if matches!(how, How::Id(_)) { Level::Batched } else { how.level() });
    }
}

fn late(how: How, start: Level) {
    let disk = MemDir::new(51);
    let log = open(&disk);
    let hook = Hook::default();
    let observer = hook.observer(&log);
    let session = observer.session("s-1").unwrap();
    let mut call = session.tool("t").call_id(id("late")).level(start).start().unwrap();
    let span = call.span();
    let ended = Arc::new(Mutex::new(None));
    let (told, by_id) = (ended.clone(), session.clone().level(how.level()));
    hook.set(move || {
        let receipt = match how {
            How::Handle(_) => call.end_ok(JsonText::string("late, and kept")),
            How::Id(_) => {
                drop(call);
                let outcome = Outcome::Ok(JsonText::string("late, and kept"));
                by_id.end_by_call_id(CallKind::Tool, id("late"), outcome)
            }
        };
        *told.lock().unwrap() = Some(receipt.unwrap());
    });
    let next = session.tool("t").call_id(id("next")).start().unwrap();
    assert!(hook.has_run(), "{how:?}: it was not written off");
    let receipt = ended.lock().unwrap().take().unwrap();
    assert!(!receipt.dropped);
    let health = observer.health();
    assert_eq!((health.open_starts, health.dropped), (1, 0), "{how:?}");
    observer.flush().unwrap();
    let entries = all(&log);
    let of_late = |kind| {
        let same = entries.iter().filter(move |e| e.call_id == Some(id("late")) && e.kind == kind);
        same.collect::<Vec<_>>()
    };
    let ends = of_late(EntryKind::ToolEnd);
    assert_eq!(ends.len(), 1, "{how:?}: one outcome");
    assert_eq!(ends[0].output, Some(JsonText::string("late, and kept")));
    let by_handle = matches!(how, How::Handle(_)).then_some(span);
    assert_eq!(ends[0].span, by_handle, "{how:?}: whoever has the handle knows its span");
    assert_eq!(of_late(EntryKind::Abandoned).len(), 1, "{how:?}");
    let mut tickets: Vec<u64> = entries.iter().map(|entry| entry.ticket.sequence).collect();
    tickets.dedup();
    assert_eq!(tickets, (1..=entries.len() as u64).collect::<Vec<_>>(), "no ticket is lost");
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "late").unwrap(), CallState::Settled);
    // A second end by the id finds nothing to end, and what a crash leaves is one open call: next.
    drop(next);
    drop((session, observer));
    let log = open(&disk.crash(Keep::Nothing));
    let after = Observer::on(log.clone()).unwrap();
    let recovered = after.recover().unwrap();
    let open: Vec<_> = recovered.open.iter().map(|call| call.start.call_id.clone()).collect();
    assert_eq!(open, [Some(id("next"))], "{how:?}");
    assert_eq!(call_state(&log, "s-1", CallKind::Tool, "late").unwrap(), CallState::Settled);
}

/// The queue has sixteen places: forty late ends that each left one behind would fill it.
#[test]
fn late_ends_leave_no_place_behind() {
    for how in HOWS {
        let log = open(&MemDir::new(53));
        let hook = Hook::default();
        let observer = hook.observer(&log);
        let session = observer.session("s-1").unwrap();
        for n in 0..40 {
            let name = format!("late-{n}");
            let start = session.tool("t").call_id(id(&name)).level(match how {
                How::Handle(level) => level,
                How::Id(_) => Level::Batched,
            });
            let mut call = start.start().unwrap();
            assert!(!call.start_receipt().dropped, "{how:?}: {n} left a place behind");
            let by_id = session.clone().level(how.level());
            hook.set(move || {
                let ended = match how {
                    How::Handle(_) => call.end_ok(ok()),
                    How::Id(_) => {
                        drop(call);
                        by_id.end_by_call_id(CallKind::Tool, id(&name), Outcome::Ok(ok()))
                    }
                };
                ended.unwrap();
            });
            let mut other = session.tool("t").start().unwrap();
            assert!(hook.has_run());
            other.end_ok(ok()).unwrap();
        }
        observer.flush().unwrap();
        assert_eq!(observer.health().dropped, 0, "{how:?}");
    }
}

/// The log keeps the start while neither its end nor its write-off is durable.
#[test]
fn retention_waits_for_the_end_that_came_during_the_write_off() {
    let log = open(&MemDir::new(54));
    let hook = Hook::default();
    let observer = hook.observer(&log);
    let session = observer.session("s-1").unwrap();
    let queued = session.tool("t").call_id(id("late")).level(Level::Batched);
    let mut call = queued.start().unwrap();
    observer.flush().unwrap();
    let big = || JsonText::string(&"x".repeat(4_000));
    for _ in 0..40 {
        session.error(big()).unwrap();
    }
    let (kept, inner) = (Arc::new(Mutex::new(None)), observer.clone());
    let told = kept.clone();
    hook.set(move || {
        call.end_ok(ok()).unwrap();
        // Between the end and the write-off, neither of them durable.
        let head = inner.retain(Retention::new().records_max(1)).unwrap();
        *told.lock().unwrap() = Some(head.get());
    });
    let mut next = session.tool("t").start().unwrap();
    assert_eq!(*kept.lock().unwrap(), Some(1), "the start was dropped before its end was durable");
    next.end_ok(ok()).unwrap();
    observer.flush().unwrap();
    for _ in 0..20 {
        session.error(big()).unwrap();
    }
    let head = observer.retain(Retention::new().records_max(1)).unwrap();
    assert!(head.get() > 40, "{head}: nothing holds it any more");
}
