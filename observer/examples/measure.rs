//! What a batched entry costs its caller, and how many become durable a second, beside SQLite (WAL,
//! FULL, a commit an entry) and JSON lines with an fsync each, on the same directory.
//!
//! `cargo run --release -p annals-observer --features sqlite --example measure -- DIR`

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a measurement prints")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use annals_observer::{CallId, JsonText, Level, Options};
use annals_wal::Log;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// Counts and hands on; what the system's allocator promises holds for this one too.
#[expect(unsafe_code, reason = "an allocator that counts cannot be had without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let dir = std::env::args_os().nth(1).ok_or("name a directory on the disk to measure")?;
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    let text: String = "The quick brown fox jumps over the lazy dog 0123456789. ".repeat(18);
    let text = JsonText::string(&text[..1000]);
    cost(&dir.join("cost"), &text)?;
    let ours = throughput(&dir.join("log"), &text, 200_000)?;
    let lines = json_lines(&dir.join("lines.jsonl"), text.as_str(), 1_000)?;
    println!(
        "JSON lines, fsync an entry: {lines:.0} entries/s; ours is {:.0} times that",
        ours / lines
    );
    let sqlite = sqlite(&dir.join("entries.db"), text.as_str(), 1_000)?;
    println!(
        "SQLite WAL, FULL, a commit an entry: {sqlite:.0}/s; ours is {:.0} times that",
        ours / sqlite
    );
    Ok(())
}

/// Bursts that fit the queue, a flush between them, so that no call waits for room.
fn cost(dir: &Path, text: &JsonText) -> Result<(), Failure> {
    let observer = Options::new().batch_age_max(Duration::from_secs(60)).batch_bytes(usize::MAX);
    let observer = observer.on(Log::open(dir)?)?;
    let session = observer.session("s-1")?.level(Level::Batched);
    let (mut nanos, mut allocations) = (Vec::new(), 0);
    for burst in 0..60 {
        let texts: Vec<JsonText> = (0..1000).map(|_| text.clone()).collect();
        let ids: Vec<CallId> = (0..1000)
            .map(|n| CallId::new(format!("call_{burst}_{n}")))
            .collect::<Result<_, _>>()?;
        let before = ALLOCATIONS.load(Relaxed);
        for (text, _id) in texts.into_iter().zip(ids) {
            let at = Instant::now();
            session.error(text)?;
            nanos.push(u64::try_from(at.elapsed().as_nanos())?);
        }
        if burst >= 10 {
            allocations += ALLOCATIONS.load(Relaxed) - before;
        }
        if !observer.force_flush(Duration::from_secs(60)).is_flushed() {
            return Err("not flushed".into());
        }
    }
    let mut nanos = nanos.split_off(10_000);
    let count = nanos.len();
    nanos.sort_unstable();
    println!(
        "a batched entry of 1 KiB, redactors on: p50 {} ns, p99 {} ns; {:.2} allocations each",
        nanos[count / 2],
        nanos[count * 99 / 100],
        allocations as f64 / count as f64
    );
    Ok(())
}

fn throughput(dir: &Path, text: &JsonText, count: u32) -> Result<f64, Failure> {
    let observer = Options::new().on(Log::open(dir)?)?;
    let begun = Instant::now();
    std::thread::scope(|scope| -> Result<(), Failure> {
        let threads: Vec<_> = (0..2)
            .map(|n| {
                let session = observer.session(format!("s-{n}")).map(|s| s.level(Level::Batched));
                scope.spawn(move || -> annals_observer::Result<()> {
                    let session = session?;
                    for _ in 0..count / 2 {
                        session.error(text.clone())?;
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })?;
    if !observer.force_flush(Duration::from_secs(60)).is_flushed() {
        return Err("not flushed".into());
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    println!("batched, two threads, all durable at the end: {rate:.0} entries/s");
    Ok(rate)
}

fn json_lines(path: &Path, text: &str, count: u32) -> Result<f64, Failure> {
    let mut file = File::create(path)?;
    let begun = Instant::now();
    for n in 0..count {
        writeln!(file, "{{\"n\":{n},\"session\":\"s-1\",\"error\":{text}}}")?;
        file.sync_data()?;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

fn sqlite(path: &Path, text: &str, count: u32) -> Result<f64, Failure> {
    let database = rusqlite::Connection::open(path)?;
    database.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         CREATE TABLE IF NOT EXISTS entries (n INTEGER, session TEXT, error TEXT)",
    )?;
    let mut insert = database.prepare("INSERT INTO entries VALUES (?1, 's-1', ?2)")?;
    let begun = Instant::now();
    for n in 0..count {
        insert.execute(rusqlite::params![n, text])?;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}
