//! The state machine alone, against a model that remembers everything: a `BTreeMap` of the state
//! after every transaction.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::value::Value;

/// Paths among which prefixes cover one another, and near misses of that.
const KEYS: [&str; 7] = ["a", "a/b", "a/b/c", "a/b-", "a/b0", "a/c", "ab"];

fn key(index: usize) -> Key {
    Key::new(KEYS[index % KEYS.len()]).unwrap()
}

/// The empty prefix, or that of a key.
fn prefix(index: usize) -> Prefix {
    KEYS.get(index % (KEYS.len() + 1)).map_or(Prefix::all(), |path| Prefix::new(path).unwrap())
}

#[derive(Clone, Debug)]
enum Op {
    /// LSNs skipped for other rooms, and what each key becomes.
    Apply { gap: u64, writes: BTreeMap<usize, Option<u8>> },
    /// How far into what is not yet promoted, in percent.
    Promote { percent: u64 },
    /// A view in the past, in percent of the history, and what was read there.
    Check { percent: usize, keys: Vec<usize>, prefixes: Vec<usize> },
}

fn op() -> impl Strategy<Value = Op> {
    let writes = prop::collection::btree_map(0..KEYS.len(), any::<Option<u8>>(), 1..4);
    let some = |end: usize| prop::collection::vec(0..end, 0..3);
    prop_oneof![
        3 => (0..3u64, writes).prop_map(|(gap, writes)| Op::Apply { gap, writes }),
        1 => (0..=100u64).prop_map(|percent| Op::Promote { percent }),
        3 => (0..=100usize, some(KEYS.len()), some(KEYS.len() + 1))
            .prop_map(|(percent, keys, prefixes)| Op::Check { percent, keys, prefixes }),
    ]
}

/// The state after one transaction.
#[derive(Clone, Debug, Default)]
struct Moment {
    lsn: Option<Lsn>,
    changed: BTreeSet<Key>,
    state: BTreeMap<Key, Entry>,
}

struct Harness {
    durable: Durable,
    ahead: Ahead,
    promoted: u64,
    ring_keys_max: usize,
    history: Vec<Moment>,
}

impl Harness {
    fn new(ring_keys_max: usize) -> Harness {
        Harness {
            durable: Durable::default(),
            ahead: Ahead::new(None, ring_keys_max),
            promoted: 0,
            ring_keys_max,
            history: vec![Moment::default()],
        }
    }

    fn now(&self) -> &Moment {
        self.history.last().unwrap()
    }

    fn apply(&mut self, gap: u64, writes: &BTreeMap<usize, Option<u8>>) {
        let lsn = Lsn::new(self.now().lsn.map_or(0, Lsn::get) + gap + 1).unwrap();
        let mut moment = Moment { lsn: Some(lsn), changed: BTreeSet::new(), ..self.now().clone() };
        let mut changes = Vec::new();
        for (index, write) in writes {
            let key = key(*index);
            moment.changed.insert(key.clone());
            changes.push(match write {
                Some(byte) => {
                    let value = Value::raw([*byte]);
                    let entry =
                        Entry { value: value.clone(), revision: Revision::new(lsn), lease: None };
                    moment.state.insert(key.clone(), entry);
                    Change::Put { key, value }
                }
                None => {
                    moment.state.remove(&key);
                    Change::Delete { key }
                }
            });
        }
        self.ahead.apply(Transaction { lsn, changes });
        self.history.push(moment);
    }

    fn promote(&mut self, percent: u64) {
        let applied = self.now().lsn.map_or(0, Lsn::get);
        self.promoted += (applied - self.promoted) * percent / 100;
        let Some(through) = Lsn::new(self.promoted) else { return };
        let ready = self.ahead.take_through(through);
        assert!(ready.iter().all(|transaction| transaction.lsn <= through));
        for transaction in ready {
            self.durable.apply(transaction);
        }
    }

    /// The state at an LSN: that after the last transaction not above it.
    fn at(&self, lsn: u64) -> &BTreeMap<Key, Entry> {
        let count = self.history.partition_point(|m| m.lsn.map_or(0, Lsn::get) <= lsn);
        &self.history[count - 1].state
    }

    fn compare(&self) {
        let durable = self.at(self.promoted);
        for index in 0..KEYS.len() {
            let key = key(index);
            assert_eq!(self.durable.get(&key), durable.get(&key), "durable {key}");
            let newest = self.ahead.get(&key).unwrap_or_else(|| self.durable.get(&key).cloned());
            assert_eq!(newest.as_ref(), self.now().state.get(&key), "newest {key}");
        }
        for index in 0..=KEYS.len() {
            let prefix = prefix(index);
            let found: BTreeMap<Key, Entry> =
                self.durable.scan(&prefix).map(|(k, e)| (k.clone(), e.clone())).collect();
            assert_eq!(found, covered(durable, &prefix), "durable scan of {prefix:?}");
        }
    }

    /// What the ring answers about reads in the past, against what has really happened since.
    fn check(&self, percent: usize, keys: &[usize], prefixes: &[usize]) {
        let then = (self.history.len() - 1) * percent / 100;
        let mut reads = ReadSet::default();
        keys.iter().for_each(|index| reads.add_key(&key(*index)));
        prefixes.iter().for_each(|index| reads.add_prefix(&prefix(*index)));
        let covers = |changed: &Key| {
            keys.iter().any(|index| key(*index) == *changed)
                || prefixes.iter().any(|index| prefix(*index).covers(changed))
        };
        let since = &self.history[then + 1..];
        let changes: usize = since.iter().map(|moment| moment.changed.len()).sum();
        let touched = since.iter().any(|moment| moment.changed.iter().any(covers));
        let lost = changes > self.ring_keys_max && !reads.is_empty();
        match self.ahead.check(&reads, self.history[then].lsn) {
            Ok(()) => {
                assert!(!touched && !lost, "overlooked since {then}");
                self.compare_reads(then, keys, prefixes);
            }
            Err(Touched { key: Some(key), at }) => {
                assert!(covers(&key) && since.iter().any(|m| m.changed.contains(&key)));
                assert_eq!(at, self.now().lsn);
            }
            Err(Touched { key: None, .. }) => assert!(lost, "restarted for nothing"),
        }
    }

    fn compare_reads(&self, then: usize, keys: &[usize], prefixes: &[usize]) {
        let (then, now) = (&self.history[then].state, &self.now().state);
        for key in keys.iter().map(|index| key(*index)) {
            assert_eq!(then.get(&key), now.get(&key));
        }
        for prefix in prefixes.iter().map(|index| prefix(*index)) {
            assert_eq!(covered(then, &prefix), covered(now, &prefix));
        }
    }
}

fn covered(state: &BTreeMap<Key, Entry>, prefix: &Prefix) -> BTreeMap<Key, Entry> {
    let inside = state.iter().filter(|(key, _)| prefix.covers(key));
    inside.map(|(key, entry)| (key.clone(), entry.clone())).collect()
}

proptest! {
    #[test]
    fn agrees_with_a_model_that_remembers_everything(
        ring_keys_max in prop_oneof![Just(0usize), 1..6usize, Just(1000)],
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut harness = Harness::new(ring_keys_max);
        for op in ops {
            match op {
                Op::Apply { gap, writes } => harness.apply(gap, &writes),
                Op::Promote { percent } => harness.promote(percent),
                Op::Check { percent, keys, prefixes } => harness.check(percent, &keys, &prefixes),
            }
            harness.compare();
        }
    }
}

#[test]
fn a_scan_of_what_is_ahead_sees_deletions() {
    let mut harness = Harness::new(10);
    harness.apply(0, &BTreeMap::from([(1, Some(1)), (2, Some(2))]));
    harness.promote(100);
    harness.apply(0, &BTreeMap::from([(1, None), (4, Some(4))]));
    let newer = harness.ahead.scan(&Prefix::new("a/b").unwrap());
    assert_eq!(newer, [(key(1), None)], "a/b0 is not below a/b");
}

#[test]
fn what_is_promoted_twice_over_is_not_ahead_any_more() {
    let mut harness = Harness::new(10);
    harness.apply(0, &BTreeMap::from([(0, Some(1))]));
    harness.apply(0, &BTreeMap::from([(0, Some(2))]));
    harness.promote(50);
    assert!(harness.ahead.get(&key(0)).is_some(), "the second change still waits");
    harness.promote(100);
    assert!(harness.ahead.get(&key(0)).is_none());
}

#[test]
fn after_a_failure_what_waits_can_still_be_promoted() {
    let mut harness = Harness::new(10);
    harness.apply(0, &BTreeMap::from([(0, Some(1))]));
    harness.ahead.fail();
    harness.promote(100);
    harness.compare();
}

/// However large the values are, one look takes few of them: it becomes one block, and no reader
/// takes a block that is too long.
#[test]
fn a_look_of_a_snapshot_is_bounded_by_bytes() {
    let mut durable = Durable::default();
    let large = |n: u8| Change::Put {
        key: Key::new(format!("k/{n:03}")).unwrap(),
        value: Value::raw(vec![n; 400 << 10]),
    };
    let changes = (0..20).map(large).collect();
    durable.apply(Transaction { lsn: Lsn::FIRST, changes });
    durable.begin_shot();
    let (mut seen, mut most) = (0, 0);
    loop {
        let entries = durable.next_of_shot(256);
        if entries.is_empty() {
            break;
        }
        seen += entries.len();
        most = most.max(entries.iter().map(|(_, entry)| entry.value.bytes().len()).sum());
    }
    assert_eq!(seen, 20);
    assert!(most <= (1 << 20) + (400 << 10), "{most} bytes in one look");
}
