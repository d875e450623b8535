//! The calls of a life: writes, swaps, commits, transactions, each outcome compared with the map.
//!
//! Never here: what no registry wrote ([`super::hostile`]).

use std::collections::{BTreeMap, BTreeSet};

use annals_registry::{
    Abort, Cas, Change, Commit, ErrorKind, Expected, Outcome, Precondition, Prefix, Registry,
    TxResult,
};

use super::{Life, PREFIXES};

impl Life<'_> {
    pub(super) fn write(&mut self, registry: &Registry) {
        let change = self.change();
        let answer = match &change {
            Change::Put { key, value } => registry.put(key, value.clone()),
            Change::Delete { key } => registry.delete(key),
            Change::PutLeased { .. } => unreachable!("no leases here"),
        };
        match answer {
            Ok(revision) => self.done(&[change], revision),
            Err(error) => self.failed(&error, &[change]),
        }
    }

    pub(super) fn swap(&mut self, registry: &Registry) {
        let (change, expected) = (self.change(), self.expected());
        let key = change.key().clone();
        let (answer, held) = match (&change, expected) {
            (Change::Delete { .. }, Expected::At(revision)) => {
                (registry.compare_and_delete(&key, revision), self.holds(&key, expected))
            }
            (Change::Delete { .. }, _) => return,
            (Change::PutLeased { .. }, _) => unreachable!("no leases here"),
            (Change::Put { value, .. }, _) => {
                let held = self.holds(&key, expected);
                (registry.compare_and_swap(&key, expected, value.clone()), held)
            }
        };
        match answer {
            Ok(Cas::Done(revision)) => {
                assert!(held, "swapped what was not as expected");
                self.done(&[change], revision);
            }
            Ok(Cas::Conflict { current }) => {
                assert!(!held, "refused what was as expected");
                assert_eq!(current.as_ref(), self.entries.get(&key));
            }
            Err(error) => self.failed(&error, &[change]),
        }
    }

    pub(super) fn commit(&mut self, registry: &Registry) {
        let preconditions: Vec<_> = (0..self.input.below(4))
            .map(|_| Precondition { key: self.key(), expected: self.expected() })
            .collect();
        let mut changes = self.changes();
        if self.input.one_in(16) {
            changes.clear();
        }
        let keys: BTreeSet<_> = changes.iter().map(Change::key).collect();
        let invalid = changes.is_empty() || keys.len() < changes.len();
        let unmet = preconditions.iter().find(|p| !self.holds(&p.key, p.expected)).cloned();
        match (registry.commit(&preconditions, &changes), unmet) {
            (Err(error), _) if error.kind() == ErrorKind::Invalid => assert!(invalid, "{error}"),
            (Err(error), _) => self.failed(&error, &changes),
            (Ok(Commit::Done(revision)), None) => {
                assert!(!invalid, "two changes of one key, or none at all");
                self.done(&changes, revision);
            }
            (Ok(Commit::Conflict { key, current }), Some(unmet)) => {
                assert_eq!((&key, current.as_ref()), (&unmet.key, self.entries.get(&key)));
            }
            (outcome, unmet) => panic!("{outcome:?}, and unmet was {unmet:?}"),
        }
    }

    pub(super) fn transact(&mut self, registry: &Registry) {
        let changes = self.changes();
        let reads = Prefix::new(self.input.pick(&PREFIXES)).expect("a prefix");
        let abort = self.input.one_in(4);
        let (mut runs, before) = (0, self.entries.clone());
        let outcome = registry.transact(|tx| -> TxResult<(), u8> {
            runs += 1;
            let found = tx.scan(&reads)?;
            let inside = before.iter().filter(|(key, _)| reads.covers(key));
            let expected: Vec<_> = inside.map(|(k, e)| (k.clone(), e.value.clone())).collect();
            assert_eq!(found, expected, "a transaction reads the last state");
            for change in &changes {
                tx.apply(change)?;
            }
            if let Some(change) = changes.last() {
                let own = tx.get(change.key())?;
                let wrote =
                    matches!(change, Change::Put { value, .. } if own.as_ref() == Some(value));
                assert!(wrote || own.is_none(), "it reads its own writes");
            }
            if abort { Err(Abort::Because(7)) } else { Ok(()) }
        });
        // The last change of a key is the one that counts, and there is one in the log.
        let last: BTreeMap<_, _> = changes.iter().map(|c| (c.key().clone(), c.clone())).collect();
        let changes: Vec<_> = last.into_values().collect();
        match outcome {
            Ok(Outcome::Aborted(7)) => assert!(abort),
            Ok(Outcome::Done { revision: Some(revision), .. }) => {
                assert!(!abort && runs == 1, "nobody else was there");
                self.done(&changes, revision);
            }
            Ok(outcome) => panic!("nobody else is there: {outcome:?}"),
            Err(error) => self.failed(&error, &changes),
        }
    }
}
