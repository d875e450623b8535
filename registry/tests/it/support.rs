//! Short names for what every test does, and random numbers that can be had again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_registry::{Clock, Key, Options, Outcome, Prefix, Registry, TxResult, Value};
use annals_wal::Log;
use annals_wal::fs::mem::MemDir;

pub(crate) fn key(path: impl AsRef<str>) -> Key {
    Key::new(path).unwrap()
}

pub(crate) fn prefix(path: &str) -> Prefix {
    Prefix::new(path).unwrap()
}

pub(crate) fn json(number: u64) -> Value {
    Value::json(&number).unwrap()
}

/// A log in small segments, so that every longer test rotates. The threads of one that was dropped a
/// moment ago are on their way out, and on a busy machine that takes longer than an opening waits.
pub(crate) fn open_log(disk: &MemDir) -> Log {
    let open = || annals_wal::Options::new().segment_bytes(64 << 10).open_in(disk.dir());
    let is_locked = |e: &annals_wal::Error| e.kind() == annals_wal::ErrorKind::Locked;
    let opened = (0..100).map(|_| open()).find(|opened| !opened.as_ref().is_err_and(is_locked));
    opened.unwrap_or_else(open).unwrap()
}

pub(crate) fn open(disk: &MemDir) -> Registry {
    Registry::on(open_log(disk)).unwrap()
}

/// A registry with as many attempts as any schedule takes: for tests whose subject is the end.
pub(crate) fn open_patient(disk: &MemDir) -> Registry {
    Options::new().attempts_max(100_000).on(open_log(disk)).unwrap()
}

pub(crate) fn number(registry: &Registry, key: &Key) -> Option<u64> {
    registry.get_json(key).unwrap()
}

/// What a transaction that neither aborts nor gives up has returned.
pub(crate) fn done<T: std::fmt::Debug>(outcome: Outcome<T, std::convert::Infallible>) -> T {
    match outcome {
        Outcome::Done { value, .. } => value,
        other => panic!("not done: {other:?}"),
    }
}

/// Adds to a number in one transaction.
pub(crate) fn add(registry: &Registry, key: &Key, amount: u64) {
    let outcome = registry.transact(|tx| -> TxResult<()> {
        let number: u64 = tx.get_json(key)?.unwrap_or(0);
        std::thread::yield_now(); // the others come in between more often
        tx.put_json(key, &(number + amount))?;
        Ok(())
    });
    done(outcome.unwrap());
}

/// Runs `call` on another thread and waits for it: what somebody else does meanwhile.
pub(crate) fn meanwhile<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(call).join().unwrap())
}

/// The seeds of a random test: 0 to `count`, or the one in `ANNALS_SEED`. Each is printed, so
/// that a failure shows the last one.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let wanted: Option<u64> = std::env::var("ANNALS_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = wanted.map_or(0..count, |seed| seed..seed + 1);
    seeds.inspect(|seed| println!("seed {seed}; again with ANNALS_SEED={seed}"))
}

/// A clock that goes on when it is told to.
#[derive(Debug, Default)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn go_on(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    /// Goes back and forth, as wall clocks do.
    fn wall_ms(&self) -> u64 {
        1_000_000_u64.wrapping_sub(self.0.load(Ordering::SeqCst) * 7)
    }
}

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
