//! A log that fails: what its registry still answers, what it refuses, and what becomes of the
//! calls that were on their way.

use std::thread;

use annals_registry::{Change, Error, ErrorKind, Expected, Precondition, Prefix, TxResult, Value};
use annals_wal::fs::mem::Keep;

use crate::gate::gated;
use crate::support::{json, key, number, open};

#[test]
fn a_failed_sync_leaves_the_outcome_unknown_and_the_registry_readable() {
    let (disk, gate, registry) = gated();
    gate.fail();
    let failed = registry.put(&key("k"), json(2)).unwrap_err();
    assert!(failed.outcome_unknown(), "{failed}");
    assert_eq!(number(&registry, &key("k")), Some(1), "plain reads go on");
    assert_eq!(registry.scan(&Prefix::all()).len(), 1);

    let precondition = [Precondition { key: key("k"), expected: Expected::Any }];
    let change = [Change::Delete { key: key("k") }];
    let kind = |error: Error| (error.kind(), error.outcome_unknown());
    let after = [
        registry.put(&key("k"), json(3)).map(drop).map_err(kind),
        registry.delete(&key("k")).map(drop).map_err(kind),
        registry.compare_and_swap(&key("k"), Expected::Absent, json(3)).map(drop).map_err(kind),
        registry.commit(&precondition, &change).map(drop).map_err(kind),
        registry.transact(|_| -> TxResult<()> { Ok(()) }).map(drop).map_err(kind),
    ];
    assert_eq!(after, [Err((ErrorKind::Poisoned, false)); 5]);

    // Whatever the disk kept, it is one of the two states.
    for keep in [Keep::Nothing, Keep::Everything] {
        let found = number(&open(&disk.crash(keep)), &key("k"));
        assert!(matches!(found, Some(1 | 2)), "{keep:?}: {found:?}");
    }
}

#[test]
fn a_sync_on_its_way_when_somebody_else_poisons_the_log_still_counts() {
    let (_disk, gate, registry) = gated();
    thread::scope(|scope| {
        let _closed = gate.close();
        let writer = scope.spawn(|| registry.put(&key("k"), json(2)));
        gate.wait_for_sync();
        gate.fail_names();
        let large = Value::raw(vec![7; 60_000]);
        let failed = registry.put(&key("large"), large).unwrap_err();
        assert!(!failed.outcome_unknown(), "it got no place: {failed}");
        let refused = registry.transact(|_| -> TxResult<()> { Ok(()) }).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned);
        assert_eq!(number(&registry, &key("k")), Some(1));
        gate.open();
        let revision = writer.join().unwrap().unwrap();
        assert_eq!(registry.get(&key("k")).unwrap().revision, revision, "acknowledged, so seen");
    });
}

#[test]
fn a_closure_that_runs_while_the_log_fails_is_restarted_and_refused() {
    let (_disk, gate, registry) = gated();
    let ended = registry.transact(|tx| -> TxResult<()> {
        tx.get(&key("k"))?;
        gate.fail();
        thread::scope(|scope| {
            scope.spawn(|| registry.put(&key("other"), json(2)).unwrap_err()).join().unwrap()
        });
        assert_eq!(tx.get(&key("more")).unwrap_err().kind(), ErrorKind::Restart);
        Ok(())
    });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Poisoned);
}
