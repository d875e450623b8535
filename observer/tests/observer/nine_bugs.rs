//! The nine bugs that the seeds' observer still had after two rounds of fixes, one test each.
//!
//! Each test asks one question twice: of a small copy of the seed's way, which must fail it, and of
//! this crate, which must pass it. The list is section 0 of the ecosystem research.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use annals_observer::{
    CallId, EntryKind, FlushOutcome, JsonText, Level, Observer, Options, session_entries,
};
use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};
use annals_wal::{Codec, Record};

use crate::batched::wait_for;
use crate::common::{HandClock, all, observer, open};

fn ok() -> JsonText {
    JsonText::string("ok")
}

/// 1. `session_id` was read from fields that the SDK's context does not have.
#[test]
fn bug_1_the_session_is_never_none() {
    fn seed(context: &HashMap<&str, &str>) -> Option<String> {
        let fields = ["run_id", "session_id", "context_id"];
        fields.iter().find_map(|field| context.get(field)).map(|id| (*id).to_owned())
    }
    let context = HashMap::from([("usage", "3"), ("group_id", "s-1")]); // as RunContextWrapper has
    assert_eq!(seed(&context), None, "the seed's way no longer shows the bug");

    let log = open(&MemDir::new(1));
    let (observer, _) = observer(&log);
    let session = observer.session(context["group_id"]).unwrap();
    let mut agent = session.agent("a").start().unwrap();
    session.tool("t").within(&agent).start().unwrap().end_ok(ok()).unwrap();
    session.handoff("a", "b").unwrap();
    agent.error(ok()).unwrap();
    agent.end_ok(ok()).unwrap();
    let entries = all(&log);
    assert_eq!(entries.len(), 6);
    assert!(entries.iter().all(|entry| entry.session.as_ref().unwrap().as_str() == "s-1"));
    assert!(observer.session("").is_err(), "no session is no session id");
}

/// 2. `force_flush` on the loop's own thread waited for that very loop.
#[test]
fn bug_2_a_flush_on_the_only_thread_of_a_loop_does_not_wait_for_itself() {
    type Task = Box<dyn FnOnce()>;
    /// `run_coroutine_threadsafe(flush()).result(timeout)`, called on the loop's thread.
    fn seed(tasks: &mut VecDeque<Task>, timeout: Duration) -> Result<(), mpsc::RecvTimeoutError> {
        let (done, result) = mpsc::channel();
        tasks.push_back(Box::new(move || done.send(()).unwrap()));
        result.recv_timeout(timeout) // only the loop would run the task, and it stands here
    }
    let waited = seed(&mut VecDeque::new(), Duration::from_millis(20));
    assert!(waited.is_err(), "the seed's way no longer shows the bug");

    let log = open(&MemDir::new(2));
    let observer = Options::new().batch_age_max(Duration::from_secs(60)).on(log).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    let mut tasks: VecDeque<Task> = VecDeque::new();
    let (told, outcome) = mpsc::channel();
    tasks.push_back(Box::new(move || {
        session.error(ok()).unwrap();
        told.send(observer.force_flush(Duration::from_secs(60))).unwrap();
    }));
    while let Some(task) = tasks.pop_front() {
        task(); // this thread is the loop
    }
    assert!(matches!(outcome.recv().unwrap(), FlushOutcome::Flushed(Some(_))));
}

/// 3. Starts were kept by the agent's address and matched to ends in order.
#[test]
fn bug_3_parallel_tools_and_two_runs_of_one_agent_keep_their_own_durations() {
    #[derive(Default)]
    struct Seed {
        agents: HashMap<&'static str, u64>,
        tools: VecDeque<u64>,
    }
    let mut seed = Seed::default();
    seed.agents.insert("planner", 0);
    seed.agents.insert("planner", 100); // the second run overwrites the first
    seed.tools.extend([0, 10]);
    // The tool that began at 10 ends first, at 15, and gets the start of the other.
    let quick = 15 - seed.tools.pop_front().unwrap();
    assert_ne!((quick, 1_000 - seed.agents["planner"]), (5, 1_000), "no bug is shown");

    let log = open(&MemDir::new(3));
    let (observer, clock) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let mut run_one = session.agent("planner").start().unwrap();
    let tool = |id: &str| session.tool("t").call_id(CallId::new(id).unwrap()).start().unwrap();
    let mut slow = tool("slow");
    clock.advance(10);
    let mut quick = tool("quick");
    clock.advance(5);
    quick.end_ok(ok()).unwrap();
    clock.advance(85);
    let mut run_two = session.agent("planner").start().unwrap();
    slow.end_ok(ok()).unwrap();
    clock.advance(900);
    run_one.end_ok(ok()).unwrap();
    run_two.end_ok(ok()).unwrap();
    let ends = all(&log).into_iter().filter_map(|entry| entry.duration);
    let nanos: Vec<u128> = ends.map(|duration| duration.as_nanos()).collect();
    assert_eq!(nanos, [5, 100, 1_000, 900]);
}

/// 4. Writes were tasks of a loop that nobody kept or awaited.
#[test]
fn bug_4_nothing_recorded_vanishes_at_shutdown() {
    fn seed(entries: u64) -> u64 {
        let mut written = 0;
        {
            type Write = Box<dyn FnOnce(&mut u64)>;
            let mut tasks: Vec<Write> = Vec::new();
            for _ in 0..entries {
                tasks.push(Box::new(|written| *written += 1));
            }
            tasks.drain(..1).for_each(|task| task(&mut written)); // the loop gets to run one
        } // and is closed: the others are dropped
        written
    }
    assert_ne!(seed(50), 50, "the seed's way no longer shows the bug");

    let disk = MemDir::new(4);
    let log = open(&disk);
    let observer = Options::new().batch_age_max(Duration::from_secs(60)).on(log).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    for _ in 0..50 {
        session.error(ok()).unwrap();
    }
    observer.shutdown().unwrap();
    assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 50);
}

/// 5. `extract_error` was never called, and a tool that raised left no end.
#[test]
fn bug_5_every_failure_path_leaves_an_end_with_its_error() {
    fn seed(log: &mut Vec<&'static str>, tool: impl FnOnce() -> Result<(), String>) {
        log.push("tool_start");
        if tool().is_ok() {
            log.push("tool_end"); // the hook is called on success only
        }
    }
    let mut seeds = Vec::new();
    seed(&mut seeds, || Err("no network".to_owned()));
    assert_eq!(seeds, ["tool_start"], "the seed's way no longer shows the bug");

    let log = open(&MemDir::new(5));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let failed = session.tool("returns").run(|_| Err::<u8, _>("no network")).unwrap();
    assert_eq!(failed, Err("no network"));
    let panics = std::panic::AssertUnwindSafe(|| {
        session.tool("panics").run(|_| -> Result<u8, String> { panic!("out of bounds") })
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    drop(session.tool("cancelled").guard().unwrap());
    observer.flush().unwrap();
    let ends: Vec<_> =
        all(&log).into_iter().filter(|entry| entry.kind == EntryKind::ToolEnd).collect();
    let said: Vec<_> = ends.iter().map(|end| end.error.as_ref().unwrap().as_str()).collect();
    assert_eq!(said.len(), 3);
    assert!(said[0].contains("no network") && said[1].contains("out of bounds"), "{said:?}");
    assert!(said[2].contains("cancelled"), "{said:?}");
    assert!(ends.iter().all(|end| end.duration.is_some()));
}

/// 6. A buffer of 100 entries without a time trigger: a crash lost up to 99.
#[test]
fn bug_6_a_batch_that_never_fills_is_written_all_the_same() {
    fn seed(entries: usize) -> usize {
        let (mut buffer, mut disk) = (Vec::new(), Vec::new());
        for n in 0..entries {
            buffer.push(n);
            if buffer.len() == 100 {
                disk.append(&mut buffer);
            }
        }
        disk.len() // what is there after a crash, however long after
    }
    assert_eq!(seed(99), 0, "the seed's way no longer shows the bug");

    let disk = MemDir::new(6);
    let log = open(&disk);
    let observer = Options::new().batch_age_max(Duration::from_millis(5)).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    for _ in 0..99 {
        session.error(ok()).unwrap();
    }
    wait_for(|| log.durable_lsn().is_some_and(|lsn| lsn.get() == 99));
    assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 99);
}

/// 7. Every write error was logged and swallowed.
#[test]
fn bug_7_a_write_error_reaches_the_flush_the_health_and_the_next_caller() {
    fn seed(write: impl Fn() -> Result<(), String>) -> Result<(), String> {
        if let Err(error) = write() {
            let _logged = format!("failed to write protocol entry: {error}");
        }
        Ok(())
    }
    assert!(seed(|| Err("EIO".to_owned())).is_ok(), "the seed's way no longer shows the bug");

    let disk = MemDir::new(7);
    let log = open(&disk);
    let observer = Options::new().batch_age_max(Duration::from_secs(60)).on(log).unwrap();
    let session = observer.session("s-1").unwrap().level(Level::Batched);
    session.error(ok()).unwrap();
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
    let flushed = observer.force_flush(Duration::from_secs(60));
    assert!(matches!(flushed, FlushOutcome::Failed { pending: 1, .. }), "{flushed:?}");
    let health = observer.health();
    assert!(health.last_error.is_some() && health.poisoned.is_some() && !health.all_durable);
    assert!(session.error(ok()).is_err());
    assert!(observer.shutdown().is_err(), "said again at the end");
}

/// 8. `flush()` synced nothing, and one bad line hid every later entry from a query.
#[test]
fn bug_8_a_flush_syncs_and_one_bad_record_hides_no_other() {
    fn seed_write(disk: &MemDir) {
        let dir = disk.dir();
        dir.make().unwrap();
        let file = dir.create("protocol.jsonl").unwrap();
        file.write_at(b"{\"a\":1}\n", 0).unwrap(); // write and flush; no sync of file or directory
    }
    fn seed_query(lines: &str) -> Result<Vec<serde_json::Value>, serde_json::Error> {
        lines.lines().map(serde_json::from_str).collect()
    }
    let disk = MemDir::new(8);
    seed_write(&disk);
    let crashed = disk.crash(Keep::Nothing);
    let left = crashed.dir().list().map_or(0, |names| names.len());
    assert_eq!(left, 0, "the seed's way no longer shows the bug");
    assert!(seed_query("{\"a\":1}\n{oops\n{\"b\":2}\n").is_err(), "no bug is shown");

    let disk = MemDir::new(9);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap().level(Level::Ordered);
    session.error(JsonText::string("first")).unwrap();
    observer.flush().unwrap();
    assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 1, "on disk after the flush");
    let kind = EntryKind::Error.record_kind();
    let bad = Record::new("oops").kind(kind).stream(session.id().stream()).codec(Codec::BINCODE);
    log.append(bad).unwrap();
    session.error(JsonText::string("last")).unwrap();
    observer.flush().unwrap();
    let read: Vec<_> = session_entries(&log, "s-1").unwrap().collect();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

/// 9. The order was that of wall-clock texts; there was no sequence.
#[test]
fn bug_9_the_order_does_not_follow_a_clock_that_jumps_back() {
    let stamps = ["2026-01-01T00:00:05Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:03Z"];
    let mut seed: Vec<(&str, u64)> = stamps.into_iter().zip(1..).collect();
    seed.sort();
    let order: Vec<u64> = seed.iter().map(|(_, n)| *n).collect();
    assert_ne!(order, [1, 2, 3], "the seed's way no longer shows the bug");

    #[derive(Debug)]
    struct Jumping(HandClock);
    impl annals_observer::Clock for Jumping {
        fn wall(&self) -> annals_observer::WallTime {
            let seconds = [5, 1, 3];
            let at = self.0.mono().0 as usize;
            annals_observer::WallTime(seconds[at % 3] * 1_000_000_000)
        }
        fn mono(&self) -> annals_observer::MonoTime {
            self.0.mono()
        }
    }
    let log = open(&MemDir::new(10));
    let clock = Arc::new(Jumping(HandClock::default()));
    let observer = Observer::with_clock(log.clone(), clock.clone()).unwrap();
    for n in 1..=3 {
        observer.session("s-1").unwrap().error(JsonText::string(&n.to_string())).unwrap();
        clock.0.advance(1);
    }
    let entries = all(&log);
    let walls: Vec<i64> = entries.iter().map(|entry| entry.wall.0 / 1_000_000_000).collect();
    assert_eq!(walls, [5, 1, 3], "the clock did jump");
    assert!(entries.iter().map(|entry| entry.ticket.sequence).eq(1..=3));
    let said = entries.iter().map(|entry| entry.error.clone().unwrap());
    assert!(said.eq((1..=3).map(|n: u64| JsonText::string(&n.to_string()))));
}
