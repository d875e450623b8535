//! One session in a log of many, as an observer writes it and a query finds it: how long that takes and
//! how much of the log it reads.
//!
//! `sessions write DIR GIB` records through the observer's public API, batched: tool calls of 200
//! sessions whose entries are of about 1 KiB, and one session whose 1,000 entries lie evenly over all of
//! it. Then, in a process of its own, `sessions query DIR` opens the log and asks for that session;
//! `sessions since DIR` asks for the last tenth by wall time, which reads all of it, and for a tool that
//! there is none of, which decodes all of it, too. Never here: a cold cache; the caller drops it if that
//! is asked. The caller removes the directory.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail loudly")]

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use annals_observer::{Call, JsonText, Level, Observer, Options, Query, Session, WallTime};
use annals_wal::inspect::{Depth, Role, inspect};
use annals_wal::{Log, LogReader};

const SESSIONS: u64 = 200;
const RARE: &str = "the-rare-one";
const RARE_ENTRIES: u64 = 1000;
/// What an entry takes with its envelope, and so how many go into the log.
const ENTRY_BYTES: u64 = 1024 + 32;
const RUNS: usize = 15;

/// A text of `bytes` that is another for each number, as a tool's arguments and results are.
fn text(n: u64, bytes: usize) -> JsonText {
    const WORDS: [&str; 12] = [
        "read",
        "the",
        "file",
        "src/lib.rs",
        "line",
        "returns",
        "before",
        "sync",
        "error:",
        "in",
        "test",
        "passed",
    ];
    let mut text = format!("step {n}:");
    let mut next = n;
    while text.len() < bytes {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(' ');
        text.push_str(WORDS[(next >> 33) as usize % WORDS.len()]);
    }
    text.truncate(bytes);
    JsonText::string(&text)
}

fn start(session: &Session, n: u64) -> Call {
    session.tool("read_file").input(text(n, 850)).start().unwrap()
}

fn write(dir: &Path, gib: u64) {
    let observer = Options::new().on(Log::open(dir).unwrap()).unwrap();
    let session = |id: String| observer.session(id).unwrap().level(Level::Batched);
    let sessions: Vec<_> = (0..SESSIONS).map(|n| session(format!("session-{n}"))).collect();
    let rare = session(RARE.to_owned());
    let calls = (gib << 30) / ENTRY_BYTES / 2;
    let (every, begun) = (calls * 2 / RARE_ENTRIES, Instant::now());
    let mut open = VecDeque::new();
    for n in 0..calls {
        let of = &sessions[(n.wrapping_mul(7919) % SESSIONS) as usize];
        open.push_back(start(of, n));
        // As many calls are open at once as there are sessions.
        if open.len() > SESSIONS as usize {
            let mut call: Call = open.pop_front().unwrap();
            call.end_ok(text(!n, 850)).unwrap();
        }
        if n % every == every / 2 {
            let mut call = start(&rare, n);
            call.end_ok(text(!n, 850)).unwrap();
        }
    }
    for call in &mut open {
        call.end_ok(text(0, 850)).unwrap();
    }
    assert!(observer.force_flush(Duration::from_secs(600)).is_flushed());
    let (entries, took) = (observer.health().accepted, begun.elapsed().as_secs_f64());
    end(&observer);
    let bytes = log_bytes(dir);
    println!(
        "{entries} entries in {took:.1} s, {:.0} bytes each, {:.2} GiB",
        bytes as f64 / entries as f64,
        bytes as f64 / (1u64 << 30) as f64
    );
}

fn end(observer: &Observer) {
    observer.shutdown().unwrap();
    observer.log().clone().close().unwrap();
}

/// Of all segments but those that wait for their turn, empty.
fn log_bytes(dir: &Path) -> u64 {
    let mut segments = inspect(dir, Depth::Seals, &mut |_| ()).unwrap().segments;
    segments.retain(|segment| segment.role != Role::Prepared);
    segments.iter().map(|segment| segment.file_bytes).sum()
}

/// Asks once to warm up, then so many times, and says what that took and read.
fn ask(dir: &Path, query: &Query, runs: usize) -> Vec<WallTime> {
    let reader = LogReader::open(dir).unwrap();
    let (mut times, mut walls, mut read) = (Vec::new(), Vec::new(), 0);
    for _ in 0..=runs {
        let begun = Instant::now();
        let mut found = query.run(&reader).unwrap();
        walls = found.by_ref().map(|stored| stored.unwrap().entry.wall).collect();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        read = found.bytes_read();
    }
    let mut times = times.split_off(1);
    times.sort_by(f64::total_cmp);
    let bytes = log_bytes(dir);
    println!(
        "found {}: p50 {:.1} ms ({:.1} to {:.1}), read {:.1} MB of {:.1}, {:.2} %",
        walls.len(),
        times[times.len() / 2],
        times[0],
        times[times.len() - 1],
        read as f64 / 1e6,
        bytes as f64 / 1e6,
        read as f64 * 100.0 / bytes as f64
    );
    walls
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = Path::new(&args[2]);
    let of_rare = || Query::new().session(RARE).unwrap();
    match args[1].as_str() {
        "write" => write(dir, args[3].parse().unwrap()),
        "query" => {
            let found = ask(dir, &of_rare(), RUNS);
            assert_eq!(found.len() as u64, RARE_ENTRIES);
        }
        "since" => {
            let walls = ask(dir, &of_rare(), 1);
            let late = walls[walls.len() / 10 * 9];
            ask(dir, &Query::new().since(late), 3);
            ask(dir, &Query::new().tool("none"), 3);
        }
        other => println!("unknown: {other}"),
    }
}
