//! What the log says happened is what happened: failures, refused ends, imports, intents, durations.
//!
//! Each is what a review found, as the test that failed before it was mended.

use std::sync::Arc;
use std::time::Duration;

use annals_observer::export::{self, chrome, otlp};
use annals_observer::{
    CallId, Entry, EntryKind, Field, FieldNote, InstanceId, JsonText, Level, Observer, Options,
    Outcome, PayloadRef, Position, Query, Retention, SessionId, Source, SpanId, Ticket, TimeOrigin,
    encode_entry, entries, read_field,
};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Codec, Log, Record};

use crate::batched::{hold_the_log, wait_for};
use crate::common::{HandClock, all, observer, open};

const LONG: Duration = Duration::from_secs(60);

fn text(of: &str) -> JsonText {
    JsonText::string(of)
}

fn patient(clock: &Arc<HandClock>) -> Options {
    Options::new().batch_age_max(LONG).clock(clock.clone())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

// A failure is a failure, however much it says.

/// A log with one failed call whose error stands in records of its own.
pub(crate) fn a_large_error(error: &str) -> Log {
    let log = open(&MemDir::new(71));
    let observer = Options::new().inline_bytes_max(100).on(log.clone()).unwrap();
    let mut call = observer.session("s-1").unwrap().tool("t").start().unwrap();
    call.end_error(text(error)).unwrap();
    log
}

#[test]
fn a_failure_with_a_large_error_is_a_failure_to_every_reader() {
    let error = format!("no network: {}", "x".repeat(200));
    let log = a_large_error(&error);
    let found: Vec<_> =
        Query::new().failed().run(&log).unwrap().map(|stored| stored.unwrap()).collect();
    assert_eq!(found.len(), 1);
    let begins = found[0].entry.error.as_ref().unwrap().as_str();
    assert!(begins.starts_with("\"no network: xxx") && begins.len() <= 104, "{begins}");
    let whole = read_field(&log, &found[0], Field::Error).unwrap();
    assert_eq!(whole, Some(text(&error)), "and the whole of it is there");
    let note = found[0].entry.notes.get(Field::Error).unwrap();
    assert_eq!(note.payload.unwrap().bytes, error.len() as u64 + 2);

    let mut lines = Vec::new();
    otlp::write(entries(&log).unwrap(), &mut lines, otlp::OtlpOptions::default()).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let span: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let status = &span["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["status"];
    assert_eq!(status["code"], 2);
    assert!(status["message"].as_str().unwrap().starts_with("no network"));

    let mut trace = Vec::new();
    chrome::write(entries(&log).unwrap(), &mut trace).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
    let mut events = trace["traceEvents"].as_array().unwrap().iter();
    assert_eq!(events.find(|event| event["ph"] == "X").unwrap()["args"]["failed"], true);
}

/// So is one that an earlier version wrote: nothing of its error stands in the entry.
#[test]
fn a_failure_whose_error_stands_elsewhere_alone_is_a_failure_too() {
    let log = open(&MemDir::new(70));
    let mut entry = Entry::new(EntryKind::ToolEnd);
    let sha256 = annals_observer::ContentHash([0; 32]);
    let payload = Some(PayloadRef { back: 1, count: 1, bytes: 300_000, sha256 });
    entry.notes.set(Field::Error, FieldNote { payload, ..FieldNote::default() });
    assert!(entry.has_error() && !Entry::new(EntryKind::ToolEnd).has_error());
    let bytes = encode_entry(&entry).unwrap();
    log.append(Record::new(&bytes).kind(entry.kind.record_kind()).codec(Codec::BINCODE)).unwrap();
    assert_eq!(Query::new().failed().run(&log).unwrap().count(), 1);
    let shown = all(&log)[0].error_shown().unwrap().into_owned();
    assert_eq!(shown, text("[an error of 300000 bytes in records of its own]"));
}

/// Cut between two characters, and told apart from one that says nothing.
#[test]
fn the_beginning_of_a_large_error_is_cut_between_characters() {
    for shift in 0..4 {
        let log = a_large_error(&format!("{}{}", "x".repeat(shift), "\u{1F980}".repeat(100)));
        let end = all(&log).pop().unwrap();
        let begins: String = serde_json::from_str(end.error.unwrap().as_str()).unwrap();
        assert!(begins.len() <= 100 && begins.len() > 90, "{}", begins.len());
    }
}

// An end that was refused says what happened when it can.

fn fill(observer: &Observer) {
    let session = observer.session("filler").unwrap();
    let long = text(&"x".repeat(20_000));
    while session.error(long.clone()).is_ok() {}
    let short = text(&"x".repeat(200));
    while session.error(short.clone()).is_ok() {}
    while session.error(text("x")).is_ok() {}
}

fn ends(log: &Log) -> Vec<Entry> {
    all(log).into_iter().filter(|entry| entry.kind == EntryKind::ToolEnd).collect()
}

#[test]
fn a_success_whose_end_was_refused_is_recorded_as_the_success_it_was() {
    let output = "done, and here is what came out of it".repeat(10);
    for (asynchronous, fails) in [(false, false), (false, true), (true, false), (true, true)] {
        let disk = MemDir::new(72);
        let log = open(&disk);
        let clock = Arc::new(HandClock::default());
        let observer = patient(&clock).on(log.clone()).unwrap();
        let start = observer.session("s-1").unwrap().tool("t");
        let work = || {
            disk.set_bytes_free(Some(0));
            fill(&observer);
            clock.advance(5);
            if fails { Err(output.clone()) } else { Ok(output.clone()) }
        };
        let run = match asynchronous {
            true => block_on(start.run_async(async { work() })),
            false => start.run(|_| work()),
        };
        let refused = run.unwrap_err();
        assert_eq!(refused.log_error().unwrap().kind(), annals_wal::ErrorKind::Full);
        disk.set_bytes_free(None);
        clock.advance(1_000_000);
        assert!(observer.force_flush(LONG).is_flushed());
        let ends = ends(&log);
        assert_eq!(ends.len(), 1);
        let said = (ends[0].output.clone(), ends[0].error.clone());
        let expected =
            if fails { (None, Some(text(&output))) } else { (Some(text(&output)), None) };
        assert_eq!(said, expected, "asynchronous: {asynchronous}");
        assert_eq!(ends[0].duration, Some(Duration::from_nanos(5)), "until it ended");
    }
}

/// One that the log cannot take at all is said in few words.
#[test]
fn an_end_that_is_too_large_leaves_a_short_one_of_the_same_outcome() {
    let disk = MemDir::new(73);
    let small = annals_wal::Options::new().segment_bytes(64 << 10).record_bytes_max(4096);
    let log = small.open_in(disk.dir()).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let long = "y".repeat(9000);
    let run = session.tool("t").run(|_| Ok::<_, String>(&long));
    assert_eq!(run.unwrap_err().kind(), annals_observer::ErrorKind::TooLarge);
    let run = session.tool("t").run(|_| Err::<(), _>(&long));
    assert_eq!(run.unwrap_err().kind(), annals_observer::ErrorKind::TooLarge);
    observer.flush().unwrap();
    let ends = ends(&log);
    assert_eq!(ends.len(), 2);
    assert!(ends[0].error.is_none(), "it was a success: {:?}", ends[0].error);
    assert!(ends[0].output.as_ref().unwrap().as_str().contains("9002 bytes"));
    assert!(ends[1].error.as_ref().unwrap().as_str().starts_with("\"yyyy"));
    assert!(!ends[1].error.as_ref().unwrap().as_str().contains("cancelled"));
}

/// The work is done and its end waits for room when the future goes: a success, not a cancellation.
#[test]
fn an_end_that_was_dropped_while_it_waited_says_what_it_was_to_say() {
    let log = open(&MemDir::new(74));
    let clock = Arc::new(HandClock::default());
    let observer = patient(&clock).queue_entries_max(2).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let mut guard = session.tool("t").guard().unwrap();
    let held = hold_the_log(&log);
    let batched = session.level(Level::Batched);
    for _ in 0..2 {
        batched.handoff("a", "b").unwrap();
    }
    {
        let mut end = Box::pin(guard.end_async(Outcome::Ok(text("done"))));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(end.as_mut().poll(&mut context).is_pending());
    }
    assert!(!guard.is_ended());
    drop(guard);
    drop(held);
    observer.flush().unwrap();
    assert_eq!(ends(&log)[0].output, Some(text("done")));
}

// Imports.

fn imported(kind: EntryKind, id: &str, line: u64) -> Entry {
    let mut entry = Entry::new(kind);
    entry.ticket = Ticket { instance: InstanceId::from_bytes([7; 16]), sequence: line };
    entry.session = Some(SessionId::new("imported").unwrap());
    entry.call_id = Some(CallId::new(id).unwrap());
    entry.source = Some(Source {
        file: "run.jsonl".to_owned(),
        sha256: annals_observer::ContentHash([0; 32]),
        round: 1,
        position: Position { line, part: 0 },
        time: TimeOrigin::Source,
    });
    entry
}

/// What a file tells of a run elsewhere is no call of this log's: no crash of ours has cut it.
#[test]
fn an_imported_start_is_no_call_that_a_crash_has_cut() {
    let disk = MemDir::new(75);
    let log = open(&disk);
    let kinds =
        [(EntryKind::ToolStart, "a"), (EntryKind::ToolEnd, "a"), (EntryKind::ToolStart, "b")];
    for (line, (kind, id)) in kinds.into_iter().enumerate() {
        let payload = encode_entry(&imported(kind, id, line as u64 + 1)).unwrap();
        log.append(Record::new(&payload).kind(kind.record_kind()).codec(Codec::BINCODE)).unwrap();
    }
    let log = open(&disk.crash(Keep::Nothing));
    let (observer, _) = observer(&log);
    let big = text(&"x".repeat(4_000));
    for _ in 0..100 {
        observer.session("s-1").unwrap().error(big.clone()).unwrap();
    }
    let head = observer.retain(Retention::new().records_max(5)).unwrap();
    assert!(head.get() > 50, "{head}: retention stands before an imported start");
    let recovered = observer.recover().unwrap();
    assert_eq!((recovered.written_off, recovered.open.len()), (0, 0));
}

// Intents and write-offs.

/// Ids repeat between runs and machines: an end that a file tells of is not that of a call of ours.
#[test]
fn an_imported_end_settles_no_call_of_ours() {
    let disk = MemDir::new(81);
    let log = open(&disk);
    let first = Observer::on(log.clone()).unwrap();
    let session = first.session("s-1").unwrap();
    let id = CallId::new("a").unwrap();
    let call = session.tool("charge").call_id(id.clone()).start().unwrap();
    let crashed = disk.killed();
    drop(call);
    let log = open(&crashed);
    let kind = EntryKind::ToolEnd;
    let mut end = imported(kind, "a", 1);
    end.session = Some(SessionId::new("s-1").unwrap());
    let payload = encode_entry(&end).unwrap();
    log.append(Record::new(&payload).kind(kind.record_kind()).codec(Codec::BINCODE)).unwrap();
    let (observer, _) = observer(&log);
    let recovered = observer.recover().unwrap();
    assert_eq!((recovered.settled, recovered.open.len()), (0, 1));
}

/// What a write-off says of a large text would be said of records before another entry.
#[test]
fn a_write_off_points_at_no_texts_of_its_start() {
    let disk = MemDir::new(82);
    let log = open(&disk);
    let first = Options::new().inline_bytes_max(100).on(log.clone()).unwrap();
    let session = first.session("s-1").unwrap();
    let call = session.tool("t").input(text(&"x".repeat(5_000))).start().unwrap();
    let crashed = disk.killed();
    drop(call);
    let log = open(&crashed);
    let (observer, _) = observer(&log);
    assert_eq!(observer.recover().unwrap().written_off, 1);
    observer.flush().unwrap();
    let whole: Vec<_> = export::whole(&log, entries(&log).unwrap()).collect();
    assert!(whole.iter().all(Result::is_ok), "{whole:?}");
    let written = whole.into_iter().map(Result::unwrap);
    let abandoned = written.filter(|stored| stored.entry.kind == EntryKind::Abandoned);
    let noted = abandoned.map(|stored| stored.entry.notes.get(Field::Input).is_some());
    assert_eq!(noted.collect::<Vec<_>>(), [false]);
}

/// A trim may part an entry from the text before it: the entry is exported all the same.
#[test]
fn a_text_below_the_head_stops_no_export() {
    let disk = MemDir::new(83);
    let log = open(&disk);
    let observer = Options::new().inline_bytes_max(100).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    session.error(text("before")).unwrap();
    let told = session.error(text(&"x".repeat(5_000))).unwrap();
    session.error(text("after")).unwrap();
    assert_eq!(log.trim(told.lsn.unwrap()).unwrap(), told.lsn.unwrap());
    let whole: Vec<_> = export::whole(&log, entries(&log).unwrap()).collect();
    let lsns: Vec<_> = whole.into_iter().map(|stored| stored.unwrap().lsn).collect();
    assert_eq!((lsns.len(), lsns[0]), (2, told.lsn.unwrap()));
}

/// A given-up intent stayed in the table, and was written off an hour later though it said itself
/// that it never ran.
#[test]
fn an_intent_that_was_given_up_is_open_no_more() {
    let disk = MemDir::new(76);
    let log = open(&disk);
    let clock = Arc::new(HandClock::default());
    let observer = patient(&clock).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    drop(session.tool("t").begin().unwrap());
    drop(session.llm("m").begin().unwrap());
    drop(block_on(session.agent("a").begin_async()).unwrap());
    assert_eq!(observer.health().open_starts, 0);
    clock.advance(2 * 3_600_000_000_000);
    let mut next = session.tool("u").start().unwrap();
    next.end_ok(text("ok")).unwrap();
    observer.flush().unwrap();
    assert_eq!(observer.health().written_off, 0);
    assert!(all(&log).iter().all(|entry| entry.kind != EntryKind::Abandoned));
    let log = open(&disk.crash(Keep::Nothing));
    let (after, _) = self::observer(&log);
    let recovered = after.recover().unwrap();
    assert_eq!((recovered.open.len(), recovered.settled), (0, 4), "by its span, whatever its kind");
}

fn hours(of: u64) -> u64 {
    of * 3_600_000_000_000
}

/// The age was looked at only when another call started.
#[test]
fn a_flush_writes_off_what_is_open_for_too_long() {
    let log = open(&MemDir::new(77));
    let clock = Arc::new(HandClock::default());
    let observer = patient(&clock).on(log.clone()).unwrap();
    let _open = observer.session("s-1").unwrap().tool("t").start().unwrap();
    observer.flush().unwrap();
    assert_eq!(observer.health().written_off, 0);
    clock.advance(hours(2));
    observer.flush().unwrap();
    assert_eq!((observer.health().written_off, observer.health().open_starts), (1, 0));
    assert_eq!(all(&log).pop().unwrap().kind, EntryKind::Abandoned);
    let _second = observer.session("s-1").unwrap().tool("t").start().unwrap();
    clock.advance(hours(2));
    assert!(observer.force_flush(LONG).is_flushed());
    assert_eq!(all(&log).iter().filter(|e| e.kind == EntryKind::Abandoned).count(), 2);
}

#[test]
fn an_idle_observer_writes_off_what_is_open_for_too_long() {
    let log = open(&MemDir::new(78));
    let clock = Arc::new(HandClock::default());
    let options = Options::new().clock(clock.clone()).batch_age_max(Duration::from_millis(1));
    let observer = options.open_start_age_max(Duration::from_millis(50)).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let _open = session.tool("t").start().unwrap();
    assert!(observer.force_flush(LONG).is_flushed());
    clock.advance(hours(1));
    wait_for(|| observer.health().written_off == 1);
    wait_for(|| observer.health().queued == 0);
    observer.flush().unwrap();
    let off = all(&log).pop().unwrap();
    assert_eq!((off.kind, off.tool.as_deref()), (EntryKind::Abandoned, Some("t")));
    assert!(off.metadata.unwrap().as_str().contains("open for too long"));
}

/// The span pairs them, not the call id, which a second intent may have again.
#[test]
fn a_given_up_intent_of_a_model_call_closes_its_own_span_and_no_other() {
    let disk = MemDir::new(79);
    let log = open(&disk);
    let (before, _) = observer(&log);
    let session = before.session("s-1").unwrap();
    let begin = || session.llm("m").call_id(CallId::new("c").unwrap()).begin().unwrap();
    let first = begin();
    let runs = begin().enter();
    let span: SpanId = runs.span();
    drop(first);
    before.flush().unwrap();
    let log = open(&disk.crash(Keep::Nothing));
    let (after, _) = observer(&log);
    let open: Vec<_> = after.recover().unwrap().open.iter().map(|call| call.start.span).collect();
    assert_eq!(open, [Some(span)]);
    drop(runs);
}

// Durations.

/// From the moment in which the caller may go on: the wait for room and for the start's own sync is
/// the observer's, not the call's.
#[test]
fn a_duration_begins_when_the_start_has_returned() {
    let log = open(&MemDir::new(80));
    let clock = Arc::new(HandClock::default());
    let observer = patient(&clock).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    for level in [Level::Durable, Level::Ordered] {
        let held = hold_the_log(&log);
        let mut start = Box::pin(session.tool("t").level(level).start_async());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(start.as_mut().poll(&mut context).is_pending());
        clock.advance(1_000_000);
        drop(held);
        let mut call = block_on(start).unwrap();
        clock.advance(7);
        call.end_ok(text("ok")).unwrap();
        observer.flush().unwrap();
        let end = all(&log).pop().unwrap();
        assert_eq!(end.duration, Some(Duration::from_nanos(7)), "{level:?}");
    }
}

#[test]
fn a_duration_of_an_intent_begins_when_it_is_entered() {
    let log = open(&MemDir::new(81));
    let (observer, clock) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let begin = |id| session.tool("t").call_id(CallId::new(id).unwrap()).begin().unwrap();
    let (one, other) = (begin("one"), begin("other"));
    clock.advance(1_000_000);
    let mut call = one.enter();
    drop(other.enter());
    clock.advance(7);
    call.end_ok(text("ok")).unwrap();
    let id = CallId::new("other").unwrap();
    session.end_by_call_id(annals_observer::CallKind::Tool, id, Outcome::Ok(text("ok"))).unwrap();
    for end in ends(&log) {
        assert_eq!(end.duration, Some(Duration::from_nanos(7)), "{:?}", end.call_id);
    }
    assert_eq!(all(&log)[0].mono.0, 0, "the start's own stamp is what it was");
}
