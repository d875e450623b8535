//! A log with a long history: opened, searched, read. Each step is a process of its own, so that its
//! memory is its own.
//!
//! `history write DIR GIB [SIZE]` makes it: segments of 64 MiB, records of SIZE bytes (default 1 KiB)
//! in 200 interleaved streams, and one stream of 1,000 records spread evenly over all of it.
//! `history fill DIR [close]` adds a nearly full segment and ends cleanly or not. Then `history
//! open|get|query|scan|mapped|replay|verify DIR` measures. The caller removes the directory.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail loudly")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use annals_wal::inspect::{Depth, inspect};
use annals_wal::{Batch, Error, Filter, Log, LogReader, Lsn, Options, Record, Stream};

const RARE: Stream = Stream(u32::MAX);
const SEGMENT: u64 = 64 << 20;

fn open(dir: &Path) -> Log {
    Options::new().segment_bytes(SEGMENT).open(dir).unwrap()
}

fn write(dir: &Path, gib: u64, size: u64) {
    let log = open(dir);
    let per_batch = (512 << 10) / size;
    let count = (gib << 30) / (size + 32);
    let every = count / 1000;
    let payload = vec![7; size as usize];
    let record = |n: u64| {
        let stream = if n.is_multiple_of(every) { RARE } else { Stream((n * 7919 % 200) as u32) };
        Record::new(&payload).stream(stream)
    };
    let mut n = 0;
    while log.stats().rotations < gib * 16 {
        log.append_batch((n..n + per_batch).map(record).collect::<Batch>()).unwrap();
        n += per_batch;
    }
    println!("{n} records of {size} bytes");
    log.close().unwrap();
}

/// A new segment of 64 MiB, nearly full; then a clean end, or the end of the process.
fn fill(dir: &Path, close: bool) {
    let log = open(dir);
    let payload = vec![7; 1024];
    let batch = || (0..500).map(|_| Record::new(&payload)).collect::<Batch>();
    let rotations = log.stats().rotations;
    while log.stats().rotations == rotations {
        log.append_batch(batch()).unwrap();
    }
    for _ in 0..(SEGMENT - (3 << 20)) / (500 * 1056) {
        log.append_batch(batch()).unwrap();
    }
    if close {
        log.close().unwrap();
    }
}

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let value = f();
    println!("{what}: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    value
}

fn replay(records: annals_wal::Records) -> (u64, u64) {
    let mut seen = (0, 0);
    let begin = Instant::now();
    let visit = |record: annals_wal::RecordRef<'_>| {
        seen = (seen.0 + 1, seen.1 + black_box(record.payload).len() as u64);
        Ok::<(), Error>(())
    };
    records.replay(visit).unwrap();
    let took = begin.elapsed().as_secs_f64();
    let (millions, gigabytes) = (seen.0 as f64 / took / 1e6, seen.1 as f64 / took / 1e9);
    println!("{} records in {took:.3} s: {millions:.1} M/s, {gigabytes:.2} GB/s", seen.0);
    seen
}

/// The first GiB or so: what the page cache surely holds.
fn part(reader: &LogReader) -> std::ops::RangeInclusive<Lsn> {
    let first = reader.range(..).unwrap().next().unwrap().unwrap();
    let count = (1u64 << 30) / (first.payload.len() as u64 + 32);
    Lsn::FIRST..=Lsn::new(count).unwrap()
}

fn gets(get: impl Fn(Lsn) -> usize, last: u64) {
    let mut times: Vec<f64> = (0..2000u64)
        .map(|n| {
            let lsn = Lsn::new(1 + n * 7_919_777 % last).unwrap();
            let begin = Instant::now();
            black_box(get(lsn));
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (p50, p99, max) = (times[1000], times[1980], times[1999]);
    println!("get: p50 {p50:.0} us, p99 {p99:.0} us, max {max:.0} us");
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = Path::new(&args[2]);
    let number = |at: usize, default| args.get(at).map_or(default, |text| text.parse().unwrap());
    match args[1].as_str() {
        "write" => write(dir, number(3, 1), number(4, 1024)),
        "fill" => fill(dir, args.get(3).is_some()),
        "open" => {
            let log = timed("open", || Log::open(dir).unwrap());
            println!("row {}", log.recovery().row.letter());
            log.close().unwrap();
        }
        "get" => {
            let log = Log::open(dir).unwrap();
            let last = log.durable_lsn().unwrap().get();
            gets(|lsn| log.get(lsn).unwrap().payload.len(), last);
        }
        "query" => {
            let reader = timed("reader", || LogReader::open(dir).unwrap());
            for _ in 0..3 {
                timed("query", || {
                    let filter = Filter::new().stream(RARE);
                    let mut records = reader.range(..).unwrap().only(filter);
                    let mut found = 0;
                    while let Some(record) = records.next_ref() {
                        found += u64::from(record.unwrap().stream == RARE);
                    }
                    let read = records.bytes_read() as f64 / 1e6;
                    println!("found {found}, read {read:.1} MB");
                });
            }
        }
        "scan" | "mapped" | "replay" => {
            let reader = LogReader::open(dir).unwrap();
            let range = part(&reader);
            if args[1] == "replay" {
                replay(reader.range(range).unwrap());
            } else {
                let log = Log::open(dir).unwrap();
                for _ in 0..5 {
                    let records = log.range(range.clone()).unwrap();
                    replay(if args[1] == "mapped" { records.mapped() } else { records });
                }
            }
        }
        "verify" => {
            let report = timed("verify", || inspect(dir, Depth::Everything, &mut |_| ()).unwrap());
            println!("{:?}, {:?} records", report.state, report.records);
        }
        other => println!("unknown: {other}"),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("Rss")) {
        println!("{line}");
    }
}
