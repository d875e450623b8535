//! What `wal verify` and `wal inspect` take on a large log, beside what two threads need to read the
//! same records: `tool DIR WAL`, where DIR is a log (`history write DIR 10` makes one of 10 GiB) and WAL
//! the release binary. All three read it warm where it fits into memory, and each is the better of
//! two runs.
//!
//! Memory is `RssAnon` of the process as Linux tells it, looked at every millisecond: what is mapped of
//! files, the binary among it, is not counted. The last line says whether issue 8 holds; the exit code
//! agrees with it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement may fail loudly, and looks at the clock"
)]

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use annals_wal::inspect::{Depth, inspect};
use annals_wal::{Error, LogReader, Lsn};

/// Two threads, half of the records each, every payload verified and looked at.
fn scan(dir: &Path) -> Duration {
    let report = inspect(dir, Depth::Seals, &mut |_| ()).unwrap();
    let (head, last) = (report.head.get(), report.last_lsn.unwrap().get());
    let middle = head + (last - head) / 2;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for (from, to) in [(head, middle), (middle + 1, last)] {
            scope.spawn(move || {
                let lsn = |n| Lsn::new(n).unwrap();
                let reader = LogReader::open(dir).unwrap();
                let visit = |record: annals_wal::RecordRef<'_>| {
                    black_box(record.payload);
                    Ok::<(), Error>(())
                };
                reader.range(lsn(from)..=lsn(to)).unwrap().replay(visit).unwrap();
            });
        }
    });
    begin.elapsed()
}

/// How long a run of the tool takes, and its highest anonymous memory in KiB.
fn run(wal: &Path, args: &[&str]) -> (Duration, u64) {
    let begin = Instant::now();
    let mut child = Command::new(wal).args(args).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        most = most.max(kib.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{args:?}: {ended}");
            return (begin.elapsed(), most);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, wal] = args.as_slice() else {
        println!("tool DIR WAL");
        return ExitCode::from(2);
    };
    let (path, wal) = (Path::new(dir), Path::new(wal));
    let bytes: u64 = inspect(path, Depth::Seals, &mut |_| ())
        .unwrap()
        .segments
        .iter()
        .filter_map(|segment| segment.used_bytes)
        .sum();
    let better = |f: &dyn Fn() -> (Duration, u64)| {
        let (one, two) = (f(), f());
        (one.0.min(two.0), one.1.max(two.1))
    };
    let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e9;
    let (scanned, _) = better(&|| (scan(path), 0));
    println!(
        "two scans: {:.2} s, {:.2} GB/s of {bytes} bytes",
        scanned.as_secs_f64(),
        rate(scanned)
    );
    let (verified, anonymous) = better(&|| run(wal, &["verify", dir, "--jobs", "2"]));
    let share = rate(verified) / rate(scanned);
    println!(
        "verify --jobs 2: {:.2} s, {:.2} GB/s, {share:.2} of that, {anonymous} KiB anonymous",
        verified.as_secs_f64(),
        rate(verified)
    );
    let (inspected, little) = better(&|| run(wal, &["inspect", dir]));
    println!("inspect: {:.3} s, {little} KiB anonymous", inspected.as_secs_f64());
    let holds = share >= 0.8 && anonymous < 64 << 10 && inspected < Duration::from_secs(1);
    println!("{}", if holds { "1 passed, 0 failed" } else { "0 passed, 1 failed" });
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
