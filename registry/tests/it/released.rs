//! Nothing leaves the registry before it is durable. The tests stand between the order of a
//! transaction and its sync, and then let the sync end well or badly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use annals_registry::{
    Abort, Change, Commit, Error, ErrorKind, Expected, Options, Precondition, Prefix, Registry,
    TxResult,
};

use crate::gate::{gated, gated_log};
use crate::support::{done, json, key, number};

#[test]
fn plain_reads_see_durable_changes_only_and_wait_for_none() {
    let (_disk, gate, registry) = gated();
    thread::scope(|scope| {
        let _closed = gate.close();
        let writer = scope.spawn(|| registry.put(&key("k"), json(2)).unwrap());
        gate.wait_for_sync();
        // Ordered, not durable, and the leader is inside its sync.
        assert_eq!(number(&registry, &key("k")), Some(1));
        assert_eq!(registry.scan(&Prefix::all()).len(), 1);
        gate.open();
        let revision = writer.join().unwrap();
        assert_eq!(registry.get(&key("k")).unwrap().revision, revision);
    });
}

#[test]
fn transactions_read_what_is_ordered_deletions_too() {
    let (_disk, gate, registry) = gated();
    let (seen, was_seen) = mpsc::channel();
    thread::scope(|scope| {
        let _closed = gate.close();
        let registry = &registry;
        let writer = scope.spawn(|| {
            let changes =
                [Change::Delete { key: key("k") }, Change::Put { key: key("new"), value: json(2) }];
            registry.commit(&[], &changes)
        });
        gate.wait_for_sync();
        let reader = scope.spawn(move || {
            registry.transact(|tx| -> TxResult<_> {
                let read =
                    (tx.get(&key("k"))?, tx.revision(&key("new"))?, tx.scan(&Prefix::all())?);
                seen.send(()).unwrap();
                Ok(read)
            })
        });
        was_seen.recv().unwrap();
        assert_eq!(number(registry, &key("k")), Some(1), "still what plain reads see");
        gate.open();
        let Commit::Done(revision) = writer.join().unwrap().unwrap() else {
            panic!("it expects nothing")
        };
        let read = done(reader.join().unwrap().unwrap());
        assert_eq!(read, (None, Some(revision), vec![(key("new"), json(2))]));
    });
}

/// Gives a call on another thread time to come back too early. What is asserted afterwards holds
/// with any schedule; the reads only make it likely that a call which does not wait is caught.
fn linger(registry: &Registry) {
    for _ in 0..2_000 {
        assert_eq!(number(registry, &key("k")), Some(1));
    }
}

/// Makes `k` 2 behind a closed gate, runs `call` on another thread, and fails the sync once it has
/// said that it has seen that. Returns how the call ended.
fn overtaken_by_a_failure<T: Send>(
    call: impl FnOnce(&Registry, mpsc::Sender<()>) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let (_disk, gate, registry) = gated();
    let (seen, was_seen) = mpsc::channel();
    thread::scope(|scope| {
        let _closed = gate.close();
        let writer = scope.spawn(|| registry.put(&key("k"), json(2)));
        gate.wait_for_sync();
        let caller = scope.spawn(|| call(&registry, seen));
        was_seen.recv().unwrap();
        linger(&registry);
        gate.fail();
        assert!(writer.join().unwrap().unwrap_err().outcome_unknown());
        caller.join().unwrap()
    })
}

fn assert_not_released<T: std::fmt::Debug>(ended: Result<T, Error>) {
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert!(!error.outcome_unknown(), "it has changed nothing itself: {error}");
}

#[test]
fn a_read_in_a_transaction_is_released_only_when_durable() {
    assert_not_released(overtaken_by_a_failure(|registry, seen| {
        registry.transact(|tx| -> TxResult<Option<u64>> {
            let value = tx.get_json(&key("k"))?;
            assert_eq!(value, Some(2), "transactions read what is ordered");
            seen.send(()).unwrap();
            Ok(value)
        })
    }));
}

#[test]
fn an_abort_is_released_only_when_what_it_read_is_durable() {
    assert_not_released(overtaken_by_a_failure(|registry, seen| {
        registry.transact(|tx| -> TxResult<(), u64> {
            let value: u64 = tx.get_json(&key("k"))?.unwrap_or(0);
            seen.send(()).unwrap();
            Err(Abort::Because(value))
        })
    }));
}

#[test]
fn a_failure_in_a_closure_is_released_only_when_what_it_read_is_durable() {
    assert_not_released(overtaken_by_a_failure(|registry, seen| {
        registry.transact(|tx| -> TxResult<()> {
            let text = tx.get_json::<String>(&key("k"));
            seen.send(()).unwrap();
            text?;
            Ok(())
        })
    }));
}

#[test]
fn a_conflict_is_released_only_when_what_it_met_is_durable() {
    assert_not_released(overtaken_by_a_failure(|registry, seen| {
        seen.send(()).unwrap(); // no closure could say it later; the write is ordered already
        registry.compare_and_swap(&key("k"), Expected::Absent, json(3))
    }));
}

#[test]
fn giving_up_is_released_only_when_what_it_met_is_durable() {
    let (_disk, gate, log) = gated_log();
    let registry = Options::new().attempts_max(1).on(log).unwrap();
    registry.put(&key("k"), json(1)).unwrap();
    let (begin, begun) = mpsc::channel();
    let (ordered, was_ordered) = mpsc::channel();
    thread::scope(|scope| {
        let _closed = gate.close();
        let registry = &registry;
        let writer = scope.spawn(move || {
            begun.recv().unwrap();
            registry.put(&key("hot"), json(1))
        });
        let loser = scope.spawn(move || {
            registry.transact(|tx| -> TxResult<()> {
                tx.get(&key("hot"))?;
                let records = registry.log().stats().records;
                begin.send(()).unwrap();
                while registry.log().stats().records == records {
                    thread::yield_now();
                }
                tx.put(&key("never"), json(1));
                ordered.send(()).unwrap();
                Ok(())
            })
        });
        was_ordered.recv().unwrap();
        linger(registry);
        gate.fail();
        assert!(writer.join().unwrap().unwrap_err().outcome_unknown());
        assert_not_released(loser.join().unwrap());
    });
}

/// A hot key changes at the speed of the processor: each change builds on one that is not durable
/// yet, and one sync covers them.
#[test]
fn transactions_build_on_what_is_ordered_and_share_its_sync() {
    const WRITERS: u64 = 8;
    let (_disk, gate, registry) = gated();
    let syncs_before = registry.log().stats().syncs;
    let (saw, seen) = mpsc::channel();
    thread::scope(|scope| {
        let _closed = gate.close();
        for _ in 0..WRITERS {
            let (registry, saw) = (&registry, saw.clone());
            scope.spawn(move || {
                let outcome = registry.transact(|tx| -> TxResult<()> {
                    let value: u64 = tx.get_json(&key("k"))?.unwrap_or(0);
                    tx.put_json(&key("k"), &(value + 1))?;
                    saw.send(value).unwrap();
                    Ok(())
                });
                done(outcome.unwrap());
            });
        }
        // Whoever sees this builds on the changes of all others.
        while seen.recv().unwrap() != WRITERS {}
        assert_eq!(number(&registry, &key("k")), Some(1), "none is durable");
        gate.open();
    });
    assert_eq!(number(&registry, &key("k")), Some(1 + WRITERS));
    let syncs = registry.log().stats().syncs - syncs_before;
    assert!(syncs <= 3, "{syncs} syncs for {WRITERS} changes of one key");
}

#[test]
fn a_conflict_waits_for_what_it_met_and_tells_it() {
    let (_disk, gate, registry) = gated();
    let opened = AtomicBool::new(false);
    thread::scope(|scope| {
        let _closed = gate.close();
        let writer = scope.spawn(|| registry.put(&key("k"), json(2)).unwrap());
        gate.wait_for_sync();
        let loser = scope.spawn(|| {
            let precondition = [Precondition { key: key("k"), expected: Expected::Absent }];
            let change = [Change::Put { key: key("k"), value: json(9) }];
            let lost = registry.commit(&precondition, &change).unwrap();
            assert!(opened.load(Ordering::SeqCst), "released before the sync");
            (lost, registry.get(&key("k")))
        });
        linger(&registry);
        opened.store(true, Ordering::SeqCst);
        gate.open();
        let revision = writer.join().unwrap();
        let (lost, durable) = loser.join().unwrap();
        assert_eq!(durable.as_ref().map(|entry| entry.revision), Some(revision));
        assert_eq!(lost, Commit::Conflict { key: key("k"), current: durable });
    });
}
