//! The past: versions of a key, the state as of a revision, and `Trimmed` where it is gone.

use std::collections::BTreeMap;

use annals_registry::{ErrorKind, Key, Options, Prefix, Registry, Revision, Trim, Value};
use annals_wal::fs::mem::MemDir;

use crate::support::{Random, json, key, open, open_log};

type State = BTreeMap<Key, Value>;

/// Random changes, a checkpoint now and then, and what the state was after each.
fn scribble(registry: &Registry, seed: u64, checkpoints: bool) -> Vec<(Revision, State)> {
    let mut random = Random::new(seed);
    let (mut state, mut states) = (State::new(), Vec::new());
    for n in 0..60 {
        let k = key(format!("k/{}", random.below(8)));
        let revision = if random.below(4) == 0 {
            state.remove(&k);
            registry.delete(&k).unwrap()
        } else {
            state.insert(k.clone(), json(n));
            registry.put(&k, json(n)).unwrap()
        };
        states.push((revision, state.clone()));
        registry.log().append(vec![7; 4000]).unwrap();
        if checkpoints && n % 15 == 14 {
            registry.checkpoint().unwrap();
        }
    }
    states
}

fn state_as_of(registry: &Registry, revision: Revision) -> Result<State, ErrorKind> {
    let as_of = registry.as_of(revision).map_err(|error| error.kind())?;
    assert_eq!(as_of.revision(), Some(revision));
    Ok(as_of.scan(&Prefix::all()).map(|(k, entry)| (k.clone(), entry.value.clone())).collect())
}

#[test]
fn as_of_is_the_state_of_that_moment() {
    let registry = open(&MemDir::new(1));
    for (revision, state) in scribble(&registry, 1, false) {
        assert_eq!(state_as_of(&registry, revision), Ok(state));
    }
}

/// Whole where it can be told, `Trimmed` where not, and never something between.
#[test]
fn a_trimmed_past_is_trimmed_and_never_partial() {
    let options = Options::new().trim(Trim::ToHolds);
    let registry = options.on(open_log(&MemDir::new(1))).unwrap();
    let states = scribble(&registry, 2, true);
    let head = registry.log().head_lsn();
    assert!(head.get() > 1, "something was trimmed");
    let (mut told, mut trimmed) = (0, 0);
    for (revision, state) in states {
        match state_as_of(&registry, revision) {
            Ok(found) => {
                assert_eq!(found, state);
                told += 1;
            }
            Err(kind) => {
                assert_eq!(kind, ErrorKind::Trimmed);
                assert_eq!(told, 0, "what comes after something that can be told can be told");
                trimmed += 1;
            }
        }
    }
    assert!(told >= 15 && trimmed >= 15, "{told} told, {trimmed} trimmed");
    let history = registry.history(&key("k/1")).unwrap();
    assert_eq!(history.lower_bound(), head);
    assert!(history.map(Result::unwrap).all(|version| version.revision.lsn() >= head));
}

#[test]
fn a_revision_that_is_not_durable_here_is_invalid() {
    let (first, second) = (open(&MemDir::new(1)), open(&MemDir::new(2)));
    first.put(&key("k"), json(1)).unwrap();
    let later = first.put(&key("k"), json(2)).unwrap();
    second.put(&key("k"), json(1)).unwrap();
    assert_eq!(second.as_of(later).unwrap_err().kind(), ErrorKind::Invalid);
    let after = annals_registry::After::Revision(later);
    assert_eq!(second.watch(Prefix::all(), after).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_history_has_every_version_and_its_note() {
    let registry = open(&MemDir::new(1));
    registry.put(&key("k"), json(1)).unwrap();
    registry.put(&key("other"), json(9)).unwrap();
    let outcome = registry.transact(|tx| -> annals_registry::TxResult<()> {
        tx.note("A7", "because");
        tx.delete(&key("k"));
        Ok(())
    });
    crate::support::done(outcome.unwrap());
    let versions: Vec<_> = registry.history(&key("k")).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!((&versions[0].value, &versions[0].note), (&Some(json(1)), &None));
    assert_eq!(versions[1].value, None);
    assert_eq!(versions[1].note.as_ref().map(|note| note.why.as_str()), Some("because"));
}
