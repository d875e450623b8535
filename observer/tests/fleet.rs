//! Many async agents with parallel tools, random failures and cancellations: is every duration its
//! own call's, every failure said, nothing lost, and memory bounded?
//!
//! 1,000,000 entries: `ANNALS_FLEET_ENTRIES=1000000 cargo test --release -p annals-observer --test
//! fleet`; by default 20,000. The log is on the disk of `TMPDIR`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says its figures"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_observer::{
    CallId, EntryKind, FlushOutcome, JsonText, Level, Options, Session, entries,
};
use annals_wal::Log;

const TASKS: u64 = 64;

/// What a task saw of one call, by its own clock: the call's duration lies between the time from
/// `began` to `ended` and that from `asked` to `done`, whoever had the processor meanwhile.
#[derive(Debug)]
struct Truth {
    asked: Duration,
    began: Duration,
    ended: Option<Duration>,
    done: Option<Duration>,
    failed: bool,
}

/// How far a duration may lie outside of that.
const TOLERANCE: Duration = Duration::from_millis(1);

type Truths = Arc<Mutex<HashMap<String, Truth>>>;

fn dice(seed: u64) -> u64 {
    let mut value = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value ^ (value >> 27)
}

async fn tool(session: Session, id: String, origin: Instant, truths: Truths) {
    let rolled = dice(crc(&id));
    let start = session.tool("work").call_id(CallId::new(id.clone()).unwrap());
    let asked = origin.elapsed();
    let mut call = start.guard_async().await.unwrap();
    let began = origin.elapsed();
    let truth = Truth { asked, began, ended: None, done: None, failed: true };
    truths.lock().unwrap().insert(id.clone(), truth);
    for _ in 0..rolled % 8 {
        tokio::task::yield_now().await; // a cancellation may come here
    }
    let outcome = match rolled % 10 {
        0 => annals_observer::Outcome::Error(JsonText::string("no network")),
        _ => annals_observer::Outcome::Ok(JsonText::string(&id)),
    };
    let failed = rolled.is_multiple_of(10);
    let ended = origin.elapsed();
    {
        let mut truths = truths.lock().unwrap();
        let truth = Truth { asked, began, ended: Some(ended), done: None, failed };
        *truths.get_mut(&id).unwrap() = truth;
    }
    call.end_async(outcome).await.unwrap();
    truths.lock().unwrap().get_mut(&id).unwrap().done = Some(origin.elapsed());
}

fn crc(text: &str) -> u64 {
    text.bytes().fold(7, |sum, byte| dice(sum ^ u64::from(byte)))
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn sixty_four_tasks_with_three_tools_at_once_lose_nothing_and_swap_nothing() {
    let wanted: u64 =
        std::env::var("ANNALS_FLEET_ENTRIES").map_or(20_000, |text| text.parse().unwrap());
    let rounds = wanted / (TASKS * 3 * 2);
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let observer = Options::new().on(log.clone()).unwrap();
    let origin = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (mut checked, mut cancelled, mut failures, mut worst) = (0u64, 0u64, 0u64, Duration::ZERO);
    let (mut memory_first, mut memory_last) = (0, 0);
    let mut next = annals_wal::Lsn::FIRST;
    // In slices, so that what the test itself remembers does not grow.
    let slices = rounds.div_ceil(50);
    for slice in 0..slices {
        let truths: Truths = Truths::default();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for task in 0..TASKS {
                let session = observer.session(format!("s-{task}")).unwrap().level(Level::Batched);
                let truths = truths.clone();
                tasks.push(tokio::spawn(async move {
                    for round in (slice * 50)..((slice + 1) * 50).min(rounds) {
                        let tools: Vec<_> = (0..3)
                            .map(|n| format!("{task}-{round}-{n}"))
                            .map(|id| tool(session.clone(), id, origin, truths.clone()))
                            .map(tokio::spawn)
                            .collect();
                        if dice(task * 1_000_003 + round).is_multiple_of(20) {
                            tokio::task::yield_now().await; // it may be anywhere by now
                            tools[1].abort();
                        }
                        for tool in tools {
                            match tool.await {
                                Ok(()) => {}
                                Err(error) => assert!(error.is_cancelled(), "{error}"),
                            }
                        }
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        let flushed = observer.force_flush(Duration::from_secs(120));
        assert!(matches!(flushed, FlushOutcome::Flushed(_)), "{flushed:?}");
        let mut starts = HashMap::new();
        let range = annals_observer::Query::new().lsns(next..);
        for stored in range.run(&log).unwrap() {
            let stored = stored.unwrap();
            let (lsn, entry) = (stored.lsn, stored.entry);
            next = lsn.next().unwrap();
            let id = entry.call_id.clone().unwrap().as_str().to_owned();
            if entry.kind == EntryKind::ToolStart {
                assert!(starts.insert(id, entry).is_none(), "started twice");
                continue;
            }
            assert_eq!(entry.kind, EntryKind::ToolEnd);
            let start = starts.remove(&id).expect("an end has its start before it");
            assert_eq!(start.span, entry.span);
            checked += 2;
            failures += u64::from(entry.error.is_some());
            // A future that was dropped while it started has an end that nobody saw begin.
            let Some(truth) = truths.lock().unwrap().remove(&id) else { continue };
            let Some(ended) = truth.ended else {
                assert!(entry.error.is_some(), "{id} was cancelled and says nothing");
                cancelled += 1;
                continue;
            };
            let said = entry.error.as_ref().map(|error| error.as_str().to_owned());
            if said.as_deref() != Some(r#"{"type":"cancelled"}"#) {
                assert_eq!(entry.error.is_some(), truth.failed, "{id}: {said:?}");
            }
            let duration = entry.duration.unwrap();
            let least = ended - truth.began;
            let most = truth.done.map_or(Duration::MAX, |done| done - truth.asked);
            let outside = least.saturating_sub(duration).max(duration.saturating_sub(most));
            assert!(outside <= TOLERANCE, "{id}: {duration:?} is not in {least:?} to {most:?}");
            worst = worst.max(outside);
        }
        assert!(truths.lock().unwrap().is_empty(), "ends were lost: {:?}", truths.lock().unwrap());
        memory_last = anonymous_kib();
        memory_first = if slice == 0 { memory_last } else { memory_first };
    }
    let health = observer.health();
    assert_eq!((health.dropped, health.refused), (0, 0), "{health:?}");
    assert_eq!(entries(&log).unwrap().count() as u64, next.get() - 1);
    eprintln!(
        "{} entries in {:.1?}: {checked} paired, {failures} failures, {cancelled} cancelled, worst \
         duration {worst:.1?} outside of its bounds, anonymous memory {memory_first} KiB after the first slice, \
         {memory_last} KiB at the end",
        next.get() - 1,
        origin.elapsed()
    );
}
