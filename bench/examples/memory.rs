//! Anonymous memory of a log at full speed: 64 threads that append, and one that keeps thousands of
//! records in flight. The peak is what the kernel says of the process, asked every few milliseconds.
//!
//! `memory DIR [SECONDS]`, in a release build. The caller removes the directory. Never here: a
//! figure of speed to be quoted; the sampler runs beside the writers.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement may fail loudly; the sampler sleeps between two questions"
)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals_wal::{Log, Record};

const WRITERS: usize = 64;
const IN_FLIGHT: usize = 4096;
const ASKED_EVERY: Duration = Duration::from_millis(2);

/// `RssAnon` of this process, in KiB.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs `threads` of `work` beside a sampler; tells baseline, peak and records.
fn measured(what: &str, log: &Log, threads: usize, work: impl Fn(&Log, &AtomicBool) -> u64 + Sync) {
    let (over, records) = (AtomicBool::new(false), AtomicU64::new(0));
    let seconds = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(5);
    let (baseline, mut peak) = (anonymous_kib(), 0);
    let rotations = log.stats().rotations;
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| records.fetch_add(work(log, &over), Ordering::Relaxed));
        }
        while begin.elapsed() < Duration::from_secs(seconds) {
            peak = peak.max(anonymous_kib());
            thread::sleep(ASKED_EVERY);
        }
        over.store(true, Ordering::Relaxed);
    });
    println!(
        "{what}: {} KiB above the baseline of {baseline} KiB at the peak; {} records a second, {} \
         rotations",
        peak.saturating_sub(baseline),
        records.load(Ordering::Relaxed) / seconds,
        log.stats().rotations - rotations,
    );
}

fn append(log: &Log, payload: &[u8], over: &AtomicBool) -> u64 {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        log.append(Record::new(payload)).unwrap();
        count += 1;
    }
    count
}

fn in_flight(log: &Log, payload: &[u8], over: &AtomicBool) -> u64 {
    let (mut pending, mut count) = (VecDeque::with_capacity(IN_FLIGHT), 0);
    while !over.load(Ordering::Relaxed) {
        if pending.len() == IN_FLIGHT {
            let oldest: annals_wal::Pending = pending.pop_front().unwrap();
            oldest.wait().unwrap();
        }
        pending.push_back(log.submit(Record::new(payload)).unwrap());
        count += 1;
    }
    for pending in pending {
        pending.wait().unwrap();
    }
    count
}

fn main() {
    let Some(dir) = std::env::args().nth(1) else {
        println!("usage: memory DIR [SECONDS]");
        return;
    };
    for size in [128, 1024, 64 << 10] {
        let path = Path::new(&dir).join(format!("{size}"));
        let (log, payload) = (Log::open(&path).unwrap(), vec![7; size]);
        let label = format!("{WRITERS} writers, {size} bytes");
        measured(&label, &log, WRITERS, |log, over| append(log, &payload, over));
        let label = format!("{IN_FLIGHT} in flight, {size} bytes");
        measured(&label, &log, 1, |log, over| in_flight(log, &payload, over));
        log.close().unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }
}
