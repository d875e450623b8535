//! The figures: each event counted once, under its own name.

use annals_registry::{Abort, Expected, Options, TxResult};
use annals_wal::fs::mem::MemDir;

use crate::support::{json, key, meanwhile, open_log};

#[test]
fn every_outcome_is_counted_once() {
    let registry = Options::new().attempts_max(2).on(open_log(&MemDir::new(1))).unwrap();
    registry.put(&key("k"), json(1)).unwrap();
    let _ = registry.compare_and_swap(&key("k"), Expected::Absent, json(2)).unwrap();
    let _ = registry.transact(|_| -> TxResult<(), ()> { Err(Abort::Because(())) }).unwrap();
    for overtaken in [1, 2] {
        let mut runs = 0;
        let _ = registry.transact(|tx| -> TxResult<()> {
            runs += 1;
            tx.get(&key("k"))?;
            if runs <= overtaken {
                meanwhile(|| registry.put(&key("k"), json(3)).unwrap());
            }
            tx.put(&key("l"), json(1));
            Ok(())
        });
    }
    let metrics = registry.metrics();
    // One put, three meanwhile, one that held at the second attempt.
    assert_eq!(metrics.transactions, 5);
    assert_eq!((metrics.conflicts, metrics.aborted), (1, 1));
    assert_eq!((metrics.retries, metrics.gave_up), (1 + 2, 1));
    assert_eq!((metrics.unknown, metrics.corrupt, metrics.snapshots), (0, 0, 0));
    assert_eq!(metrics.commit_ns.count, 5);
    let commit = metrics.commit_ns;
    assert!(commit.p50 <= commit.p95 && commit.p95 <= commit.p99 && commit.p99 <= commit.max);
    assert!(metrics.lock_wait_ns.count >= 5);
    registry.checkpoint().unwrap();
    assert_eq!(registry.metrics().snapshots, 1);
    assert_eq!(registry.metrics().snapshot_ns.count, 1);
}

#[test]
fn an_unknown_outcome_is_counted() {
    let (_disk, gate, registry) = crate::gate::gated();
    std::thread::scope(|scope| {
        let _closed = gate.close();
        let call = scope.spawn(|| registry.put(&key("k"), json(2)).unwrap_err());
        gate.wait_for_sync();
        gate.fail();
        assert!(call.join().unwrap().outcome_unknown());
    });
    assert_eq!(registry.metrics().unknown, 1);
}
