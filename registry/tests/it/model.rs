//! Random calls, reopenings and crashes, against a `BTreeMap`.

use std::collections::BTreeMap;

use annals_registry::{
    Abort, Cas, Change, Commit, Entry, Expected, Key, Outcome, Precondition, Prefix, Registry,
    Revision, TxResult,
};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::support::{Random, json, key, open, prefix, seeds};

const PATHS: [&str; 8] = ["a", "a/b", "a/b/c", "a/b-", "a/b0", "b", "b/a", "c"];
const PREFIXES: [&str; 6] = ["", "a", "a/b", "a/b/c", "b", "nowhere"];

struct Model {
    registry: Registry,
    disk: MemDir,
    random: Random,
    entries: BTreeMap<Key, Entry>,
    /// Every revision there has been, so that stale ones are tried too.
    revisions: Vec<Revision>,
}

impl Model {
    fn new(seed: u64) -> Model {
        let disk = MemDir::new(seed);
        let registry = open(&disk);
        let (random, entries) = (Random::new(seed), BTreeMap::new());
        Model { registry, disk, random, entries, revisions: Vec::new() }
    }

    fn any_key(&mut self) -> Key {
        key(PATHS[self.random.below(PATHS.len() as u64) as usize])
    }

    fn expected(&mut self) -> Expected {
        match self.random.below(3) {
            0 => Expected::Absent,
            1 => Expected::Any,
            _ if self.revisions.is_empty() => Expected::Absent,
            _ => {
                let index = self.random.below(self.revisions.len() as u64);
                Expected::At(self.revisions[index as usize])
            }
        }
    }

    fn holds(&self, key: &Key, expected: Expected) -> bool {
        let current = self.entries.get(key);
        match expected {
            Expected::Absent => current.is_none(),
            Expected::At(revision) => current.is_some_and(|entry| entry.revision == revision),
            Expected::Any => true,
        }
    }

    /// Changes of different keys.
    fn changes(&mut self) -> Vec<Change> {
        let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
        for _ in 0..=self.random.below(3) {
            let key = self.any_key();
            let change = match self.random.below(3) {
                0 => Change::Delete { key: key.clone() },
                _ => Change::Put { key: key.clone(), value: json(self.random.next()) },
            };
            changes.insert(key, change);
        }
        changes.into_values().collect()
    }

    fn apply(&mut self, changes: &[Change], revision: Revision) {
        assert!(self.revisions.last() < Some(&revision), "revisions grow");
        self.revisions.push(revision);
        for change in changes {
            match change.clone() {
                Change::Put { key, value } => {
                    self.entries.insert(key, Entry { value, revision, lease: None });
                }
                Change::Delete { key } => {
                    self.entries.remove(&key);
                }
                Change::PutLeased { .. } => unreachable!("no leases here"),
            }
        }
    }

    fn commit(&mut self) {
        let mut preconditions = Vec::new();
        for _ in 0..self.random.below(3) {
            let (key, expected) = (self.any_key(), self.expected());
            preconditions.push(Precondition { key, expected });
        }
        let changes = self.changes();
        let unmet = preconditions.iter().find(|p| !self.holds(&p.key, p.expected)).cloned();
        match (self.registry.commit(&preconditions, &changes).unwrap(), unmet) {
            (Commit::Done(revision), None) => self.apply(&changes, revision),
            (Commit::Conflict { key, current }, Some(unmet)) => {
                assert_eq!((&key, current.as_ref()), (&unmet.key, self.entries.get(&key)));
            }
            (outcome, unmet) => panic!("{outcome:?}, and unmet was {unmet:?}"),
        }
    }

    fn swap(&mut self) {
        let (key, expected) = (self.any_key(), self.expected());
        let value = json(self.random.next());
        let held = self.holds(&key, expected);
        match self.registry.compare_and_swap(&key, expected, value.clone()).unwrap() {
            Cas::Done(revision) => {
                assert!(held);
                self.apply(&[Change::Put { key, value }], revision);
            }
            Cas::Conflict { current } => {
                assert!(!held);
                assert_eq!(current.as_ref(), self.entries.get(&key));
            }
        }
    }

    fn write(&mut self) {
        for change in self.changes() {
            let revision = match &change {
                Change::Put { key, value } => self.registry.put(key, value.clone()),
                Change::Delete { key } => self.registry.delete(key),
                Change::PutLeased { .. } => unreachable!("no leases here"),
            };
            self.apply(&[change], revision.unwrap());
        }
    }

    fn transact(&mut self) {
        let changes = self.changes();
        let reads = prefix(PREFIXES[self.random.below(PREFIXES.len() as u64) as usize]);
        let abort = self.random.below(3) == 0;
        let outcome = self.registry.transact(|tx| -> TxResult<_, ()> {
            let found = tx.scan(&reads)?;
            for change in &changes {
                tx.apply(change)?;
            }
            if abort { Err(Abort::Because(())) } else { Ok(found) }
        });
        match outcome.unwrap() {
            Outcome::Aborted(()) => assert!(abort),
            Outcome::Done { value, revision: Some(revision) } => {
                let inside = self.entries.iter().filter(|(key, _)| reads.covers(key));
                let expected: Vec<_> = inside.map(|(k, e)| (k.clone(), e.value.clone())).collect();
                assert_eq!(value, expected);
                self.apply(&changes, revision);
            }
            other => panic!("nobody else is there: {other:?}"),
        }
    }

    /// Ends the registry in one of three ways and builds it again.
    fn reopen(&mut self) {
        match self.random.below(3) {
            0 => self.registry.log().clone().close().unwrap(),
            1 => self.disk = self.disk.crash(Keep::Some(self.random.next())),
            _ => {} // dropped without a close
        }
        // The old one goes first: one owner at a time.
        self.registry = open(&MemDir::new(0));
        self.registry = open(&self.disk);
    }

    fn compare(&self) {
        for path in PATHS {
            assert_eq!(self.registry.get(&key(path)).as_ref(), self.entries.get(&key(path)));
        }
        for path in PREFIXES {
            let reads = if path.is_empty() { Prefix::all() } else { prefix(path) };
            let inside = self.entries.iter().filter(|(key, _)| reads.covers(key));
            let expected: Vec<_> = inside.map(|(k, e)| (k.clone(), e.clone())).collect();
            assert_eq!(self.registry.scan(&reads), expected, "scan of {path:?}");
        }
    }
}

#[test]
fn random_calls_agree_with_a_map() {
    for seed in seeds(40) {
        let mut model = Model::new(seed);
        for _ in 0..60 {
            match model.random.below(20) {
                0 => model.reopen(),
                1..=5 => model.commit(),
                6..=10 => model.swap(),
                11..=14 => model.write(),
                15 => drop(model.registry.log().append("of another room").unwrap()),
                _ => model.transact(),
            }
            model.compare();
        }
    }
}
