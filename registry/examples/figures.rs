//! The registry's figures on this machine: a hot key beside the log's own appends, random reads
//! beside a plain map behind a lock, and a million keys with a snapshot under eight writers.
//!
//! Run: `cargo run --release -p annals-registry --example figures -- DIR [hot|get|million]`

#![allow(clippy::print_stdout, reason = "an example says what it found")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use annals_registry::{Change, Commit, Key, Options, Registry, Trim, TxResult, Value};
use annals_wal::Log;
use hdrhistogram::Histogram;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("name a directory on the disk to measure")?);
    let what = args.next();
    let wanted = |name| what.as_deref().is_none_or(|what| what == name);
    if wanted("hot") {
        hot(&dir)?;
    }
    if wanted("get") {
        get()?;
    }
    if wanted("million") {
        million(&dir)?;
    }
    Ok(())
}

/// The clock is the workload here. A thread of a scope that has ended leaves a token behind, so one
/// park may return at once.
fn wait(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()) {
        thread::park_timeout(left);
    }
}

/// How many calls 64 threads make in this time; `call` gets the thread's number.
fn rate(seconds: f64, call: impl Fn(u64) -> Result<(), Error> + Sync) -> Result<f64, Error> {
    let (calls, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let ended: Vec<Result<(), Error>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|n| {
                let (calls, stop, call) = (&calls, &stop, &call);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        call(n)?;
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        wait(Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().unwrap_or(Err("a thread panicked".into()))).collect()
    });
    let took = begun.elapsed().as_secs_f64();
    ended.into_iter().collect::<Result<(), Error>>()?;
    Ok(calls.load(Ordering::Relaxed) as f64 / took)
}

fn add(registry: &Registry, key: &Key) -> Result<(), Error> {
    let _ = registry.transact(|tx| -> TxResult<()> {
        let number: u64 = tx.get_json(key)?.unwrap_or(0);
        tx.put_json(key, &(number + 1))?;
        Ok(())
    })?;
    Ok(())
}

/// 64 threads, nine rounds of: the log's appends, one hot key, distinct keys, a second each. Disks are
/// fast and slow by turns, so each round is compared with itself.
fn hot(dir: &Path) -> Result<(), Error> {
    let at = dir.join("hot");
    let registry = Registry::on(Log::open(&at)?)?;
    let (log, payload) = (registry.log().clone(), [7_u8; 64]);
    let key = Key::new("hot")?;
    let keys: Vec<Key> = (0..64).map(|n| Key::new(format!("k/{n}"))).collect::<Result<_, _>>()?;
    let (mut hots, mut distincts) = (Vec::new(), Vec::new());
    for round in 0..9 {
        let append = rate(1.0, |_| Ok(log.append(&payload[..]).map(|_| ())?))?;
        let hot = rate(1.0, |_| add(&registry, &key))?;
        let distinct = rate(1.0, |n| add(&registry, &keys[n as usize]))?;
        println!(
            "round {round}: 64 threads: append {append:.0}/s, hot key {hot:.0}/s ({:.2}x), distinct \
             keys {distinct:.0}/s ({:.2}x)",
            hot / append,
            distinct / append
        );
        hots.push(hot / append);
        distincts.push(distinct / append);
    }
    hots.sort_by(f64::total_cmp);
    distincts.sort_by(f64::total_cmp);
    println!("median: hot key {:.2}x, distinct keys {:.2}x", hots[4], distincts[4]);
    println!("{:?}", registry.metrics());
    drop(registry);
    drop(log);
    std::fs::remove_dir_all(&at)?;
    Ok(())
}

fn reads(threads: u64, read: impl Fn(u64) + Sync) -> f64 {
    const EACH: u64 = 1_000_000;
    let begun = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let read = &read;
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..EACH {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    read((random >> 33) % 100_000);
                }
            });
        }
    });
    (threads * EACH) as f64 / begun.elapsed().as_secs_f64()
}

/// Random keys of 100,000, beside the same read of a map behind a lock.
fn get() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    let keys: Vec<Key> = (0..100_000)
        .map(|n| Key::new(format!("tasks/T{}/agents/A{n}", n % 100)))
        .collect::<Result<_, _>>()?;
    let value = Value::raw(vec![7; 100]);
    for keys in keys.chunks(1000) {
        let put = |key: &Key| Change::Put { key: key.clone(), value: value.clone() };
        let Commit::Done(_) = registry.commit(&[], &keys.iter().map(put).collect::<Vec<_>>())?
        else {
            return Err("a commit without preconditions had a conflict".into());
        };
    }
    let map: BTreeMap<Key, Value> = keys.iter().map(|key| (key.clone(), value.clone())).collect();
    let map = RwLock::new(map);
    for threads in [1, 8] {
        let mut ratios = Vec::new();
        for _ in 0..3 {
            let ours = reads(threads, |n| {
                black_box(registry.get(&keys[n as usize]));
            });
            let plain = reads(threads, |n| {
                let map = map.read().unwrap_or_else(std::sync::PoisonError::into_inner);
                black_box(map.get(&keys[n as usize]).cloned());
            });
            ratios.push((plain / ours, ours, plain));
        }
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, ours, plain) = ratios[1];
        println!("{threads} threads: get {ours:.0}/s, RwLock<BTreeMap> {plain:.0}/s: {ratio:.2}x");
    }
    Ok(())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Eight writers until told to stop: each operation's begin and end.
fn writers(
    registry: &Registry,
    keys: &[Key],
    during: impl FnOnce() -> Result<(Instant, Instant), Error>,
) -> Result<(Histogram<u64>, (Instant, Instant)), Error> {
    let stop = AtomicBool::new(false);
    let spans: Mutex<Vec<(Instant, Instant)>> = Mutex::default();
    let window = thread::scope(|scope| {
        for thread in 0..8_usize {
            let (stop, spans) = (&stop, &spans);
            scope.spawn(move || {
                let mut own = Vec::new();
                let mut n = thread;
                while !stop.load(Ordering::Relaxed) {
                    n = (n.wrapping_mul(7919) + 8) % keys.len();
                    let begun = Instant::now();
                    if registry.put(&keys[n], Value::raw(vec![7; 100])).is_err() {
                        break;
                    }
                    own.push((begun, Instant::now()));
                }
                if let Ok(mut spans) = spans.lock() {
                    spans.extend(own);
                }
            });
        }
        let window = during();
        stop.store(true, Ordering::Relaxed);
        window
    })?;
    let mut histogram = Histogram::new(3)?;
    for (begun, ended) in spans.into_inner().unwrap_or_default() {
        if ended >= window.0 && begun <= window.1 {
            histogram.record(u64::try_from((ended - begun).as_nanos())?)?;
        }
    }
    Ok((histogram, window))
}

fn million(dir: &Path) -> Result<(), Error> {
    const KEYS: usize = 1_000_000;
    let at = dir.join("million");
    let open = || -> Result<Registry, Error> {
        Ok(Options::new().snapshot_bytes(0).trim(Trim::ToHolds).on(Log::open(&at)?)?)
    };
    let registry = open()?;
    let before = resident_kib();
    let keys: Vec<Key> = (0..KEYS)
        .map(|n| Key::new(format!("tasks/T{:04}/agents/A{n:07}", n % 1000)))
        .collect::<Result<_, _>>()?;
    let with_keys = resident_kib();
    for keys in keys.chunks(10_000) {
        let put = |key: &Key| Change::Put { key: key.clone(), value: Value::raw(vec![7; 100]) };
        let _ = registry.commit(&[], &keys.iter().map(put).collect::<Vec<_>>())?;
    }
    let full = resident_kib();
    println!(
        "1,000,000 keys of 25 bytes, values of 100: {} bytes of memory a key, the key's own text \
         ({} bytes) included",
        (full - before) * 1024 / KEYS as u64,
        (with_keys - before) * 1024 / KEYS as u64
    );
    let pause = || {
        let begun = Instant::now();
        wait(Duration::from_secs(8));
        Ok((begun, Instant::now()))
    };
    let (without, _) = writers(&registry, &keys, pause)?;
    for round in 1..=2 {
        let shot = || {
            let begun = Instant::now();
            let made = registry.checkpoint()?;
            println!("snapshot {round}: {} bytes in {:.2?}", made.bytes, begun.elapsed());
            Ok((begun, Instant::now()))
        };
        let (with, _) = writers(&registry, &keys, shot)?;
        let p99 = |h: &Histogram<u64>| h.value_at_quantile(0.99) as f64 / 1000.0;
        println!(
            "8 writers: p99 {:.0} us without a snapshot ({} operations), {:.0} us during one ({} \
             operations that overlap it): {:.2}x",
            p99(&without),
            without.len(),
            p99(&with),
            with.len(),
            p99(&with) / p99(&without)
        );
    }
    let after = registry.metrics().transactions;
    thread::scope(|scope| {
        for thread in 0..8 {
            let (registry, keys) = (&registry, &keys);
            scope.spawn(move || {
                for n in 0..12_500 {
                    if registry.put(&keys[thread * 12_500 + n], Value::raw(vec![8; 100])).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let transactions = registry.metrics().transactions - after;
    let log = registry.log().clone();
    drop(registry);
    log.close()?;
    let begun = Instant::now();
    let registry = open()?;
    println!(
        "reopened from the snapshot and {transactions} transactions in {:.2?}",
        begun.elapsed()
    );
    println!("head LSN {}", registry.log().head_lsn());
    drop(registry);
    std::fs::remove_dir_all(&at)?;
    Ok(())
}
