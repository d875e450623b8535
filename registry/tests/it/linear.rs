//! Linearizability of recorded histories over crashes, and the checker that judges them.
//!
//! Sixteen threads put, swap, delete and read a few keys while the disk is slow; the machine crashes
//! under them again and again, and the next life goes on from what the disk kept. Every call is
//! recorded with when it began and ended (one counter), what it asked and what it was told. An
//! operation whose outcome is unknown may be anywhere after its beginning, once or never.
//!
//! The checker is Wing and Gong's search with Lowe's memory, key by key, which is enough because
//! linearizability is local to each key. It must pass the real registry and reject bad ones.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use annals_registry::{Cas, Expected, Key, Registry};
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};

use crate::support::{Random, json, key, open_patient, seeds};

/// What a key holds: 0 for nothing; every write writes a number of its own.
type Held = u64;

#[derive(Clone, Copy, Debug)]
enum Op {
    Read(Held),
    Put(Held),
    Delete,
    /// Expected, new, made.
    Swap(Held, Held, bool),
    /// A swap that lost tells what it met.
    Lost(Held, Held),
}

#[derive(Clone, Copy, Debug)]
struct Call {
    begun: u64,
    /// Where nobody knows the outcome: when the life ended, after which nothing of it happens.
    ended: u64,
    /// Nobody knows whether it was made.
    unknown: bool,
    op: Op,
}

/// What an operation writes, if it is one that writes a number of its own.
fn written(op: Op) -> Option<Held> {
    match op {
        Op::Put(new) | Op::Swap(_, new, true) => Some(new),
        _ => None,
    }
}

/// What an operation has seen.
fn seen(op: Op) -> Option<Held> {
    match op {
        Op::Read(seen) | Op::Lost(_, seen) | Op::Swap(seen, _, true) => Some(seen),
        _ => None,
    }
}

/// Numbers are written once. So an unknown write whose number somebody saw was made, and one whose
/// number nobody saw may be taken as never made: leaving it out of an order changes nothing for
/// anybody. What stays open is unknown deletions.
fn settled(calls: &[Call]) -> Vec<Call> {
    let sure: HashSet<Held> =
        calls.iter().filter(|c| !c.unknown).filter_map(|c| seen(c.op)).collect();
    let mut made = sure;
    // What an unknown swap has seen counts once the swap itself was seen.
    loop {
        let more: Vec<Held> = calls
            .iter()
            .filter(|c| c.unknown && written(c.op).is_some_and(|new| made.contains(&new)))
            .filter_map(|c| seen(c.op))
            .filter(|held| !made.contains(held))
            .collect();
        if more.is_empty() {
            break;
        }
        made.extend(more);
    }
    let mut settled = Vec::new();
    for call in calls {
        match written(call.op) {
            Some(new) if call.unknown && !made.contains(&new) => {}
            Some(_) => settled.push(Call { unknown: false, ..*call }),
            None => settled.push(*call),
        }
    }
    settled
}

/// The state after the operation, if it can stand there.
fn step(held: Held, op: Op) -> Option<Held> {
    match op {
        Op::Read(seen) => (seen == held).then_some(held),
        Op::Put(new) => Some(new),
        Op::Delete => Some(0),
        Op::Swap(expected, new, true) => (expected == held).then_some(new),
        Op::Swap(expected, _, false) => (expected != held).then_some(held),
        Op::Lost(expected, met) => (expected != held && met == held).then_some(held),
    }
}

/// Whether there is an order of the calls on one key, each between its beginning and its end, that
/// a single copy could have had. Calls with unknown ends may be left out.
fn is_linearizable(calls: &[Call]) -> bool {
    let mut calls = settled(calls);
    calls.sort_by_key(|call| call.begun);
    let known = calls.iter().filter(|call| !call.unknown).count();
    let mut seen = HashSet::new();
    // Done calls as a set: those below `low` all, and a few above.
    let mut stack = vec![(0_usize, Vec::<usize>::new(), 0_u64)];
    while let Some((low, above, held)) = stack.pop() {
        let done = |at: usize| at < low || above.contains(&at);
        let done_known = (0..calls.len()).filter(|at| done(*at) && !calls[*at].unknown).count();
        if done_known == known {
            return true;
        }
        // Nothing may come before a call that ended before it began.
        let first_end = (low..calls.len())
            .filter(|at| !done(*at) && !calls[*at].unknown)
            .map(|at| calls[at].ended)
            .min()
            .unwrap();
        for (at, call) in calls.iter().enumerate().skip(low) {
            if call.begun > first_end {
                break;
            }
            // One that may be left out restricts nobody, but comes no later than its life's end.
            let latest = above.last().copied().or(low.checked_sub(1));
            let over = latest.is_some_and(|latest| calls[latest].begun > call.ended);
            if done(at) || over {
                continue;
            }
            if let Some(next) = step(held, call.op) {
                let mut above = above.clone();
                above.push(at);
                above.sort_unstable();
                let mut low = low;
                while above.first() == Some(&low) {
                    above.remove(0);
                    low += 1;
                }
                if seen.insert((low, above.clone(), next)) {
                    stack.push((low, above, next));
                }
            }
        }
    }
    false
}

/// A registry as the threads see it: the real one, or one that is bad in one way.
trait Store: Sync {
    fn read(&self, key: &Key) -> Held;
    /// `None`: unknown. `Some(None)`: certainly not made.
    fn put(&self, key: &Key, value: Held) -> Option<Option<()>>;
    fn delete(&self, key: &Key) -> Option<Option<()>>;
    /// `Some(Ok)`: made; `Some(Err(met))`: lost.
    fn swap(&self, key: &Key, expected: Held, new: Held) -> Option<Option<Result<(), Held>>>;
}

fn outcome<T>(result: annals_registry::Result<T>) -> Option<Option<T>> {
    match result {
        Ok(value) => Some(Some(value)),
        Err(error) if error.outcome_unknown() => None,
        Err(_) => Some(None),
    }
}

fn held(registry: &Registry, key: &Key) -> Held {
    registry.get_json(key).unwrap().unwrap_or(0)
}

impl Store for Registry {
    fn read(&self, key: &Key) -> Held {
        held(self, key)
    }

    fn put(&self, key: &Key, value: Held) -> Option<Option<()>> {
        outcome(Registry::put(self, key, json(value)).map(|_| ()))
    }

    fn delete(&self, key: &Key) -> Option<Option<()>> {
        outcome(Registry::delete(self, key).map(|_| ()))
    }

    fn swap(&self, key: &Key, expected: Held, new: Held) -> Option<Option<Result<(), Held>>> {
        // By revision where the value is the expected one; else by one that it cannot have.
        let current = self.get(key);
        let is = current.as_ref().map_or(0, |entry| entry.value.decode_json().unwrap());
        let expected = match (&current, is == expected) {
            (Some(entry), true) => Expected::At(entry.revision),
            (None, true) => Expected::Absent,
            (Some(_), false) if expected == 0 => Expected::Absent,
            _ => return Some(Some(Err(is))),
        };
        outcome(self.compare_and_swap(key, expected, json(new)).map(|cas| match cas {
            Cas::Done(_) => Ok(()),
            Cas::Conflict { current } => {
                Err(current.map_or(0, |entry| entry.value.decode_json().unwrap()))
            }
        }))
    }
}

const THREADS: u64 = 16;
const KEYS: u64 = 4;

#[derive(Default)]
struct Recorder {
    time: AtomicU64,
    value: AtomicU64,
    calls: Mutex<BTreeMap<Key, Vec<Call>>>,
}

#[derive(Default, Debug)]
struct Counts {
    calls: u64,
    conflicts: u64,
    unknown: u64,
}

impl Recorder {
    fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, key: &Key, call: Call) {
        self.calls.lock().unwrap().entry(key.clone()).or_default().push(call);
    }

    /// One random call. Half of the swaps expect what was read long ago.
    fn call(&self, store: &dyn Store, random: &mut Random, last: &mut BTreeMap<u64, Held>) {
        let n = random.below(KEYS);
        let k = key(format!("k/{n}"));
        let new = self.value.fetch_add(1, Ordering::SeqCst) + 1;
        let begun = self.now();
        let op = match random.below(10) {
            0..3 => {
                let seen = store.read(&k);
                last.insert(n, seen);
                Some((Op::Read(seen), true))
            }
            3 => store
                .put(&k, new)
                .map_or(Some((Op::Put(new), false)), |made| made.map(|()| (Op::Put(new), true))),
            4 => store
                .delete(&k)
                .map_or(Some((Op::Delete, false)), |made| made.map(|()| (Op::Delete, true))),
            _ => {
                let expected = last.get(&n).copied().unwrap_or(0);
                match store.swap(&k, expected, new) {
                    None => Some((Op::Swap(expected, new, true), false)),
                    Some(None) => None,
                    Some(Some(Ok(()))) => {
                        last.insert(n, new);
                        Some((Op::Swap(expected, new, true), true))
                    }
                    Some(Some(Err(met))) => {
                        last.insert(n, met);
                        Some((Op::Lost(expected, met), true))
                    }
                }
            }
        };
        if let Some((op, known)) = op {
            let ended = if known { self.now() } else { u64::MAX };
            self.note(&k, Call { begun, ended, unknown: !known, op });
        }
    }

    fn run(&self, store: &dyn Store, seed: u64, each: u64) {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut random = Random::new(seed * THREADS + thread);
                    let mut last = BTreeMap::new();
                    for _ in 0..each {
                        self.call(store, &mut random, &mut last);
                    }
                });
            }
        });
    }

    /// What is unknown happened before now, or never.
    fn end_of_life(&self) {
        let now = self.now();
        for call in self.calls.lock().unwrap().values_mut().flatten() {
            call.ended = call.ended.min(now);
        }
    }

    fn judge(&self) -> (bool, Counts) {
        let calls = self.calls.lock().unwrap();
        let mut counts = Counts::default();
        for call in calls.values().flatten() {
            counts.calls += 1;
            counts.conflicts += u64::from(matches!(call.op, Op::Lost(..) | Op::Swap(_, _, false)));
            counts.unknown += u64::from(call.unknown);
        }
        (calls.values().all(|calls| is_linearizable(calls)), counts)
    }
}

/// One history: several lives on one disk, each ended by a sync that fails under 16 threads.
fn history(seed: u64, lives: u64) -> Counts {
    let recorder = Recorder::default();
    let mut disk = MemDir::new(seed);
    let mut random = Random::new(seed);
    for life in 0..lives {
        let registry = open_patient(&disk);
        disk.slow_syncs(Duration::from_micros(200));
        let nth = 20 + random.below(20);
        let group = annals_wal::fs::SyncPoint::Group;
        let how = if life % 2 == 0 { SyncFailure::CleanNew } else { SyncFailure::CleanOld };
        disk.fail_sync(group, nth, how);
        recorder.run(&registry, seed * 1000 + life, 60);
        drop(registry);
        // Reads after the failure told durable things; what is unknown is decided now.
        recorder.end_of_life();
        disk = disk.crash(Keep::Some(random.next()));
        disk.clear_faults();
    }
    let registry = open_patient(&disk);
    for n in 0..KEYS {
        let (k, begun) = (key(format!("k/{n}")), recorder.now());
        let seen = held(&registry, &k);
        recorder
            .note(&k, Call { begun, ended: recorder.now(), unknown: false, op: Op::Read(seen) });
    }
    let (good, counts) = recorder.judge();
    assert!(good, "seed {seed}: not linearizable");
    counts
}

#[test]
fn histories_of_sixteen_threads_over_crashes_are_linearizable() {
    let mut all = Counts::default();
    for seed in seeds(8) {
        let counts = history(seed, 4);
        all.calls += counts.calls;
        all.conflicts += counts.conflicts;
        all.unknown += counts.unknown;
    }
    println!("{all:?}");
    if std::env::var("ANNALS_SEED").is_err() {
        assert!(all.calls >= 10_000, "{all:?}");
        assert!(all.conflicts * 5 >= all.calls, "20 % conflicts: {all:?}");
        assert!(all.unknown * 100 >= all.calls, "1 % unknown: {all:?}");
    }
}

/// Bad registries, in memory.
struct Bad {
    map: Mutex<BTreeMap<Key, Held>>,
    /// What was there before, seen again by dirty reads that are undone.
    dirty: bool,
    lost: bool,
    turn: AtomicU64,
}

impl Bad {
    fn new(lost: bool, dirty: bool) -> Bad {
        Bad { map: Mutex::default(), dirty, lost, turn: AtomicU64::new(0) }
    }

    fn is_time(&self) -> bool {
        self.turn.fetch_add(1, Ordering::SeqCst) % 50 == 49
    }
}

impl Store for Bad {
    fn read(&self, key: &Key) -> Held {
        self.map.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn put(&self, key: &Key, value: Held) -> Option<Option<()>> {
        if self.dirty && self.is_time() {
            // Others see it, and then it was never made.
            let before = self.map.lock().unwrap().insert(key.clone(), value);
            for _ in 0..20 {
                thread::yield_now();
            }
            self.map.lock().unwrap().insert(key.clone(), before.unwrap_or(0));
            return Some(None);
        }
        self.map.lock().unwrap().insert(key.clone(), value);
        Some(Some(()))
    }

    fn delete(&self, key: &Key) -> Option<Option<()>> {
        self.put(key, 0)
    }

    fn swap(&self, key: &Key, expected: Held, new: Held) -> Option<Option<Result<(), Held>>> {
        if self.lost && self.is_time() {
            // Acknowledged, and not made.
            return Some(Some(if self.read(key) == expected {
                Ok(())
            } else {
                Err(self.read(key))
            }));
        }
        let mut map = self.map.lock().unwrap();
        let held = map.get(key).copied().unwrap_or(0);
        if held != expected {
            return Some(Some(Err(held)));
        }
        map.insert(key.clone(), new);
        Some(Some(Ok(())))
    }
}

#[test]
fn the_checker_passes_a_good_store_and_rejects_lost_updates_and_dirty_reads() {
    let fresh = |lost, dirty| {
        (0..10).all(|seed| {
            let (recorder, store) = (Recorder::default(), Bad::new(lost, dirty));
            recorder.run(&store, seed, 40);
            recorder.judge().0
        })
    };
    assert!(fresh(false, false), "a mutex around a map is linearizable");
    assert!(!fresh(true, false), "lost updates");
    assert!(!fresh(false, true), "dirty reads");
}

#[test]
fn the_checker_knows_simple_histories() {
    let call = |begun, ended: u64, op| Call { begun, ended, unknown: ended == u64::MAX, op };
    let stale = [call(0, 1, Op::Put(1)), call(2, 3, Op::Read(0))];
    assert!(!is_linearizable(&stale), "a read after a write is too old");
    let at_once = [call(0, 3, Op::Put(1)), call(1, 2, Op::Read(0))];
    assert!(is_linearizable(&at_once));
    let twice = [call(0, 1, Op::Swap(0, 1, true)), call(2, 3, Op::Swap(0, 2, true))];
    assert!(!is_linearizable(&twice));
    let unknown = |seen| [call(0, u64::MAX, Op::Put(1)), call(5, 6, Op::Read(seen))];
    assert!(is_linearizable(&unknown(0)) && is_linearizable(&unknown(1)), "once or never");
    let back = [call(0, u64::MAX, Op::Put(1)), call(5, 6, Op::Read(1)), call(7, 8, Op::Read(0))];
    assert!(!is_linearizable(&back), "not undone once it was seen");
}
