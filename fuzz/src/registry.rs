//! A life of a registry on the crashable directory, told by the input, against a `BTreeMap`: calls,
//! failures, crashes, and transactions that no registry wrote.
//!
//! Never here: two writers at once (`registry/tests` and the model checks have them). An outcome is
//! one of three: done, refused with nothing changed, or unknown, and then the next opening decides
//! and shows the whole transaction or none of it.

mod calls;
mod hostile;

use std::collections::BTreeMap;

use annals_registry::{
    Change, Codec, Entry, Error, ErrorKind, Expected, Key, Prefix, Registry, Revision, Value,
};
use annals_wal::Options;
use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};

use crate::input::Input;

pub use hostile::forged;

const PATHS: [&str; 8] = ["a", "a/b", "a/b/c", "a/b-", "a/b0", "b", "b/a", "ü\u{202e}/z"];
const PREFIXES: [&str; 7] = ["", "a", "a/b", "a/b/c", "b", "nowhere", "ü\u{202e}"];
const STEPS_MAX: usize = 60;
const BYTES_MAX: usize = 512 << 10;

/// The body of the target `registry`.
pub fn registry(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let disk = MemDir::new(u64::from(input.byte()));
    let mut life = Life {
        input,
        disk,
        registry: None,
        entries: BTreeMap::new(),
        maybe: Vec::new(),
        revisions: Vec::new(),
        trouble: false,
        bytes: 0,
    };
    for _ in 0..STEPS_MAX {
        if life.input.is_empty() || life.bytes > BYTES_MAX || !life.step() {
            return;
        }
    }
    life.lose_power();
    life.open();
}

type Entries = BTreeMap<Key, Entry>;

struct Life<'a> {
    input: Input<'a>,
    disk: MemDir,
    registry: Option<Registry>,
    entries: Entries,
    /// The changes of a call whose outcome is unknown.
    maybe: Vec<Change>,
    /// Every revision there has been, so that stale ones are tried, too.
    revisions: Vec<Revision>,
    trouble: bool,
    bytes: usize,
}

impl Life<'_> {
    /// False if this log is no registry's any more.
    fn step(&mut self) -> bool {
        let Some(registry) = self.registry.clone() else {
            self.open();
            return true;
        };
        match self.input.below(20) {
            0..=2 => self.write(&registry),
            3..=5 => self.swap(&registry),
            6 | 7 => self.commit(&registry),
            8..=10 => self.transact(&registry),
            11 => drop(registry.log().append("of another room")),
            12 => return self.hostile(registry),
            13 => self.close(),
            14 | 15 => self.lose_power(),
            16 => {
                self.trouble = true;
                self.disk.stop_after(self.disk.ops() + self.input.below(16) as u64);
            }
            17 => {
                self.trouble = true;
                let point = self.input.pick(&SyncPoint::ALL);
                let how = self.input.pick(&[SyncFailure::CleanNew, SyncFailure::CleanOld]);
                self.disk.fail_sync(point, self.input.below(2) as u64, how);
            }
            18 => {
                self.trouble = true;
                let op = self.disk.ops() + self.input.below(8) as u64;
                self.disk.fail_op(op, self.input.pick(&[28, 5]));
            }
            _ => {
                self.trouble = true;
                self.disk.set_bytes_free(Some(u64::from(self.input.word())));
            }
        }
        self.compare();
        let failed = self.disk.stopped() || registry.log().poisoned().is_some();
        if self.registry.is_some() && failed {
            assert!(self.trouble, "poisoned on a good disk");
            drop(registry);
            self.lose_power();
        }
        true
    }

    fn open(&mut self) {
        let options = Options::new().segment_bytes(64 << 10).segment_bytes_max(256 << 10);
        let log = options.open_in(self.disk.dir()).expect("a good disk");
        let registry = Registry::on(log).expect("what registries wrote can be read");
        self.decide(&registry);
        self.registry = Some(registry);
        self.compare();
    }

    /// What an unknown outcome turned out to be: all of it, with one new revision, or nothing.
    fn decide(&mut self, registry: &Registry) {
        let changes = std::mem::take(&mut self.maybe);
        let found = registry.scan(&Prefix::all()).into_iter().collect::<Entries>();
        let last = self.revisions.iter().max().copied();
        // Revisions are compared by `compare`; a delete alone shows none.
        let newest = found.values().map(|entry| entry.revision).max().filter(|r| Some(*r) > last);
        let mut with = self.entries.clone();
        let revision = newest.or(last);
        if let Some(revision) = revision {
            apply(&mut with, &changes, revision);
        }
        if found != self.entries {
            assert!(!changes.is_empty(), "invented: {found:?}, not {:?}", self.entries);
            assert_eq!(found, with, "half a transaction, or another one");
            self.entries = with;
            self.revisions.extend(newest);
        }
    }

    fn key(&mut self) -> Key {
        Key::new(self.input.pick(&PATHS)).expect("a key")
    }

    fn value(&mut self) -> Value {
        let byte = self.input.byte();
        let len = match byte {
            0..=219 => usize::from(byte),
            220..=249 => usize::from(byte) * 40,
            _ => 20_000,
        };
        self.bytes += len;
        Value::new(vec![byte; len], Codec(byte % 4))
    }

    fn expected(&mut self) -> Expected {
        match self.input.below(4) {
            0 => Expected::Absent,
            1 => Expected::Any,
            _ if self.revisions.is_empty() => Expected::Absent,
            _ => {
                let back = self.input.below(self.revisions.len().min(6));
                Expected::At(self.revisions[self.revisions.len() - 1 - back])
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

    fn change(&mut self) -> Change {
        let key = self.key();
        if self.input.one_in(3) {
            Change::Delete { key }
        } else {
            Change::Put { key, value: self.value() }
        }
    }

    /// One to three changes, now and then two of one key.
    fn changes(&mut self) -> Vec<Change> {
        (0..1 + self.input.below(3)).map(|_| self.change()).collect()
    }

    fn done(&mut self, changes: &[Change], revision: Revision) {
        assert!(self.revisions.last() < Some(&revision), "revisions grow");
        self.revisions.push(revision);
        apply(&mut self.entries, changes, revision);
    }

    /// A refusal changed nothing; an unknown outcome is decided by the next opening.
    fn failed(&mut self, error: &Error, changes: &[Change]) {
        assert!(self.trouble, "a good disk, but {error:?}");
        let known = matches!(error.kind(), ErrorKind::Log(_) | ErrorKind::Poisoned);
        assert!(known, "{error:?}");
        if error.outcome_unknown() {
            self.maybe = changes.to_vec();
        }
    }

    fn close(&mut self) {
        if let Some(registry) = self.registry.take() {
            let closed = registry.log().clone().close();
            assert!(closed.is_ok() || self.trouble, "{closed:?}");
        }
        self.lose_power();
    }

    fn lose_power(&mut self) {
        let disk = match self.input.below(4) {
            0 => self.disk.killed(),
            1 => self.disk.crash(Keep::Nothing),
            2 => self.disk.crash(Keep::Everything),
            _ => self.disk.crash(Keep::Some(u64::from(self.input.word()))),
        };
        self.registry = None;
        disk.set_bytes_free(None);
        (self.disk, self.trouble) = (disk, false);
    }

    /// Plain reads see what was acknowledged, and go on when the log has failed.
    fn compare(&mut self) {
        let Some(registry) = &self.registry else { return };
        for path in PATHS {
            let key = Key::new(path).expect("a key");
            assert_eq!(registry.get(&key).as_ref(), self.entries.get(&key), "{path}");
        }
        let path = self.input.pick(&PREFIXES);
        let reads = Prefix::new(path).expect("a prefix");
        let inside = self.entries.iter().filter(|(key, _)| reads.covers(key));
        let expected: Vec<_> = inside.map(|(k, e)| (k.clone(), e.clone())).collect();
        assert_eq!(registry.scan(&reads), expected, "scan of {path:?}");
    }
}

fn apply(entries: &mut Entries, changes: &[Change], revision: Revision) {
    for change in changes {
        match change.clone() {
            Change::Put { key, value } => {
                entries.insert(key, Entry { value, revision, lease: None })
            }
            Change::PutLeased { .. } => unreachable!("no leases here"),
            Change::Delete { key } => entries.remove(&key),
        };
    }
}
