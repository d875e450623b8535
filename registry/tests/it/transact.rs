//! What one attempt may see and when it must run again. Every race here is made by hand: another
//! thread commits in the middle of a closure, and the closure waits for it.

use std::panic::{self, AssertUnwindSafe};

use annals_registry::{
    Abort, Change, ErrorKind, Expected, Options, Outcome, Registry, TxResult, Value,
};
use annals_wal::fs::mem::MemDir;

use crate::support::{done, json, key, meanwhile, number, open, open_log, prefix};

/// How often `transact` ran a closure that reads by `read`, lets `other` commit after the first
/// read, and then writes.
fn runs(
    registry: &Registry,
    read: impl Fn(&mut annals_registry::Tx<'_>) -> annals_registry::Result<()>,
    other: impl Fn() + Sync,
) -> u32 {
    let mut runs = 0;
    let outcome = registry.transact(|tx| -> TxResult<()> {
        runs += 1;
        read(tx)?;
        if runs == 1 {
            meanwhile(&other);
        }
        tx.put_json(&key("result"), &runs)?;
        Ok(())
    });
    done(outcome.unwrap());
    assert_eq!(number(registry, &key("result")), Some(u64::from(runs)));
    runs
}

#[test]
fn a_transaction_runs_again_if_what_it_read_has_changed() {
    let registry = open(&MemDir::new(1));
    registry.put(&key("tasks/T1"), json(1)).unwrap();
    let put = |path: &str| {
        registry.put(&key(path), json(9)).unwrap();
    };
    let get =
        |path: &'static str| move |tx: &mut annals_registry::Tx<'_>| tx.get(&key(path)).map(drop);
    let scan = |path: &'static str| {
        move |tx: &mut annals_registry::Tx<'_>| tx.scan(&prefix(path)).map(drop)
    };

    assert_eq!(runs(&registry, get("tasks/T1"), || put("tasks/T1")), 2, "changed");
    assert_eq!(runs(&registry, get("tasks/T1"), || drop(registry.delete(&key("tasks/T1")))), 2);
    assert_eq!(runs(&registry, get("tasks/T1"), || put("tasks/T1")), 2, "missing, then there");
    assert_eq!(runs(&registry, scan("tasks"), || put("tasks/T2/new")), 2, "a phantom");
    assert_eq!(runs(&registry, scan("nowhere"), || put("nowhere/x")), 2, "a phantom in nothing");
    assert_eq!(runs(&registry, scan(""), || put("zzz")), 2, "a phantom in everything");
    let revision = |tx: &mut annals_registry::Tx<'_>| tx.revision(&key("tasks/T1")).map(drop);
    assert_eq!(runs(&registry, revision, || put("tasks/T1")), 2, "a revision is a read");

    assert_eq!(runs(&registry, get("tasks/T1"), || put("tasks/T2")), 1, "another key");
    assert_eq!(runs(&registry, scan("tasks/T1"), || put("tasks/T10")), 1, "another segment");
    assert_eq!(runs(&registry, |_| Ok(()), || put("tasks/T1")), 1, "nothing was read");
}

#[test]
fn an_attempt_never_sees_half_of_another_transaction() {
    let registry = open(&MemDir::new(1));
    let (a, b) = (key("a"), key("b"));
    let both = |n| {
        [
            Change::Put { key: key("a"), value: json(n) },
            Change::Put { key: key("b"), value: json(n) },
        ]
    };
    let _ = registry.commit(&[], &both(1)).unwrap();
    let mut seen = Vec::new();
    let outcome = registry.transact(|tx| -> TxResult<()> {
        let first: Option<u64> = tx.get_json(&a)?;
        if seen.is_empty() {
            let _ = meanwhile(|| registry.commit(&[], &both(2)).unwrap());
        }
        let second = tx.get_json::<u64>(&b);
        seen.push((first, second.as_ref().map_err(annals_registry::Error::kind).copied()));
        assert_eq!(first, second?);
        Ok(())
    });
    done(outcome.unwrap());
    assert_eq!(seen, [(Some(1), Err(ErrorKind::Restart)), (Some(2), Ok(Some(2)))]);
}

#[test]
fn a_view_moves_up_when_what_was_read_is_untouched() {
    let registry = open(&MemDir::new(1));
    let mut runs = 0;
    let outcome = registry.transact(|tx| -> TxResult<Option<u64>> {
        runs += 1;
        tx.get(&key("a"))?;
        meanwhile(|| registry.put(&key("b"), json(5)).unwrap());
        Ok(tx.get_json(&key("b"))?)
    });
    assert_eq!((done(outcome.unwrap()), runs), (Some(5), 1), "b is read as of now");
}

#[test]
fn an_attempt_that_was_told_to_restart_cannot_go_on() {
    let registry = open(&MemDir::new(1));
    let mut runs = 0;
    let outcome = registry.transact(|tx| -> TxResult<u32> {
        runs += 1;
        tx.get(&key("a"))?;
        if runs == 1 {
            meanwhile(|| registry.put(&key("a"), json(1)).unwrap());
            assert!(tx.get(&key("b")).is_err());
            assert_eq!(tx.get(&key("c")).unwrap_err().kind(), ErrorKind::Restart, "and again");
            tx.put(&key("swallowed"), json(1)); // the error is swallowed here
        }
        Ok(runs)
    });
    assert_eq!(done(outcome.unwrap()), 2);
    assert_eq!(registry.get(&key("swallowed")), None);
}

#[test]
fn own_writes_are_seen_by_own_reads() {
    let registry = open(&MemDir::new(1));
    let stored = registry.put(&key("p/stored"), json(1)).unwrap();
    registry.put(&key("p/gone"), json(1)).unwrap();
    let outcome = registry.transact(|tx| -> TxResult<()> {
        tx.put(&key("p/new"), json(2));
        tx.put(&key("p/stored"), json(3));
        tx.delete(&key("p/gone"));
        assert_eq!(tx.get(&key("p/new"))?, Some(json(2)));
        assert_eq!(tx.get(&key("p/gone"))?, None);
        let found = tx.scan(&prefix("p"))?;
        assert_eq!(found, [(key("p/new"), json(2)), (key("p/stored"), json(3))]);
        assert_eq!(tx.revision(&key("p/stored"))?, Some(stored), "the stored one");
        assert_eq!(tx.revision(&key("p/new"))?, None);
        Ok(())
    });
    let outcome = outcome.unwrap();
    let Outcome::Done { revision: Some(revision), .. } = outcome else { panic!("{outcome:?}") };
    for (_, entry) in registry.scan(&prefix("p")) {
        assert_eq!(entry.revision, revision, "one transaction, one revision");
    }
    assert_eq!(registry.scan(&prefix("p")).len(), 2);
}

#[test]
fn an_abort_and_a_read_leave_nothing_behind() {
    let registry = open(&MemDir::new(1));
    registry.put(&key("a"), json(1)).unwrap();
    let before = registry.log().durable_lsn();

    let aborted = registry.transact(|tx| -> TxResult<(), &str> {
        tx.put(&key("a"), json(2));
        tx.delete(&key("b"));
        Err(Abort::Because("three agents are enough"))
    });
    assert_eq!(aborted.unwrap(), Outcome::Aborted("three agents are enough"));
    let read = registry.transact(|tx| -> TxResult<_> { Ok(tx.get(&key("a"))?) }).unwrap();
    assert_eq!(read, Outcome::Done { value: Some(json(1)), revision: None });
    let failed = registry.transact(|tx| -> TxResult<()> {
        tx.put(&key("a"), json(3));
        tx.get_json::<String>(&key("c"))?;
        Value::json("no number")?.decode_json::<u64>()?;
        Ok(())
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Decode);

    assert_eq!(registry.log().durable_lsn(), before);
    assert_eq!(number(&registry, &key("a")), Some(1));
}

#[test]
fn an_abort_on_a_stale_read_is_no_outcome() {
    let registry = open(&MemDir::new(1));
    registry.put(&key("active"), json(3)).unwrap();
    let outcome = registry.transact(|tx| -> TxResult<u64, u64> {
        let active: u64 = tx.get_json(&key("active"))?.unwrap_or(0);
        if active >= 3 {
            meanwhile(|| registry.put(&key("active"), json(2)).unwrap());
            return Err(Abort::Because(active));
        }
        Ok(active)
    });
    assert_eq!(outcome.unwrap(), Outcome::Done { value: 2, revision: None });
}

#[test]
fn a_transaction_that_always_loses_says_so() {
    let registry = Options::new().attempts_max(2).on(open_log(&MemDir::new(1))).unwrap();
    let mut runs = 0;
    let outcome = registry.transact(|tx| -> TxResult<()> {
        runs += 1;
        tx.get(&key("hot"))?;
        meanwhile(|| registry.put(&key("hot"), json(1)).unwrap());
        tx.put(&key("never"), json(1));
        Ok(())
    });
    assert_eq!(outcome.unwrap(), Outcome::Conflict { attempts: 2, key: Some(key("hot")) });
    assert_eq!(runs, 2);
    assert_eq!(registry.get(&key("never")), None);
}

#[test]
fn a_transaction_older_than_the_ring_runs_again() {
    let registry =
        Options::new().ring_keys_max(2).attempts_max(2).on(open_log(&MemDir::new(1))).unwrap();
    let overrun = |others: u64| {
        registry.transact(|tx| -> TxResult<()> {
            tx.get(&key("read"))?;
            meanwhile(|| {
                for n in 0..others {
                    registry.put(&key("unrelated"), json(n)).unwrap();
                }
            });
            tx.put(&key("written"), json(1));
            Ok(())
        })
    };
    assert!(matches!(overrun(2).unwrap(), Outcome::Done { .. }), "the ring still reaches");
    assert_eq!(overrun(3).unwrap(), Outcome::Conflict { attempts: 2, key: None });
}

#[test]
fn a_panic_in_a_closure_leaves_nothing_and_harms_nobody() {
    let registry = open(&MemDir::new(1));
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let _ = registry.transact(|tx| -> TxResult<()> {
            tx.put(&key("a"), json(1));
            panic!("the closure's own")
        });
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"the closure's own"));
    assert_eq!(registry.get(&key("a")), None);
    registry.put(&key("a"), json(2)).unwrap(); // this thread is outside a closure again
}

#[test]
fn a_panic_on_a_stale_read_is_no_outcome() {
    let registry = open(&MemDir::new(1));
    let mut runs = 0;
    let outcome = registry.transact(|tx| -> TxResult<u32> {
        runs += 1;
        tx.get(&key("a"))?;
        if runs == 1 {
            meanwhile(|| registry.put(&key("a"), json(1)).unwrap());
            tx.get(&key("a")).unwrap(); // what a careless caller does with `Restart`
        }
        Ok(runs)
    });
    assert_eq!(done(outcome.unwrap()), 2);
}

#[test]
fn a_transaction_inside_a_closure_is_refused() {
    let (registry, other) = (open(&MemDir::new(1)), open(&MemDir::new(2)));
    let a = key("a");
    let first = registry.put(&a, json(1)).unwrap();
    let change = [Change::Delete { key: a.clone() }];
    let kind = |error: annals_registry::Error| error.kind();
    let outcome = registry.transact(|tx| -> TxResult<Vec<ErrorKind>> {
        tx.put(&key("outer"), json(1));
        assert!(registry.get(&a).is_some(), "plain reads are not transactions");
        Ok(vec![
            registry.transact(|_| -> TxResult<()> { Ok(()) }).map_err(kind).unwrap_err(),
            registry.put(&a, json(2)).map_err(kind).unwrap_err(),
            registry.delete(&a).map_err(kind).unwrap_err(),
            registry.compare_and_swap(&a, Expected::Any, json(2)).map_err(kind).unwrap_err(),
            registry.compare_and_delete(&a, first).map_err(kind).unwrap_err(),
            registry.commit(&[], &change).map_err(kind).unwrap_err(),
            other.put(&a, json(2)).map_err(kind).unwrap_err(),
        ])
    });
    assert_eq!(done(outcome.unwrap()), [ErrorKind::Nested; 7]);
    assert_eq!(number(&registry, &key("outer")), Some(1), "the outer one commits");
    assert_eq!(registry.get(&a).unwrap().revision, first);
    registry.put(&a, json(2)).unwrap();
}
