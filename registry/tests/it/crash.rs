//! Crashes: every acknowledged transaction is there afterwards, whole, and nothing is that a call
//! said was not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use annals_registry::{Change, Commit, Registry};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::support::{Random, add, json, key, number, open, open_patient, seeds};

/// Transaction `n` makes three keys `n`, in one commit.
fn commit(registry: &Registry, n: u64) -> annals_registry::Result<Commit> {
    let change = |path: &str| Change::Put { key: key(path), value: json(n) };
    registry.commit(&[], &[change("a"), change("b/c"), change("d")])
}

/// What the three keys are; they must agree.
fn found(registry: &Registry) -> u64 {
    let all = ["a", "b/c", "d"].map(|path| number(registry, &key(path)).unwrap_or(0));
    assert!(all[0] == all[1] && all[1] == all[2], "half a transaction: {all:?}");
    all[0]
}

/// Runs transactions until the machine stops after `ops` operations. Returns the last one that
/// was acknowledged and the last one whose outcome is unknown.
fn run_until_stopped(disk: &MemDir, ops: u64) -> (u64, u64) {
    disk.stop_after(ops);
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open_in(disk.dir());
    let Ok(Ok(registry)) = log.map(Registry::on) else { return (0, 0) };
    let (mut acknowledged, mut unknown) = (0, 0);
    for n in 1..=8 {
        // Another room's record now and then, large enough for a rotation in the middle.
        if n % 3 == 0 {
            let _ = registry.log().append(vec![7; 30_000]);
        }
        match commit(&registry, n) {
            Ok(_) => acknowledged = n,
            Err(error) if error.outcome_unknown() => unknown = n,
            Err(_) => {}
        }
    }
    (acknowledged, unknown)
}

#[test]
fn a_crash_after_every_single_operation() {
    let whole = MemDir::new(1);
    assert_eq!(run_until_stopped(&whole, u64::MAX), (8, 0));
    let ops = whole.ops();
    println!("{ops} operations, each with 6 crashes");
    for stop in 0..=ops {
        let disk = MemDir::new(1);
        let (acknowledged, unknown) = run_until_stopped(&disk, stop);
        for keep in
            [0, 1, 2, 3].map(Keep::Some).into_iter().chain([Keep::Nothing, Keep::Everything])
        {
            let found = found(&open(&disk.crash(keep)));
            assert!(
                found == acknowledged || (unknown > 0 && found == unknown),
                "stopped after {stop}, {keep:?}: found {found}, acknowledged {acknowledged}, \
                 unknown {unknown}"
            );
        }
    }
}

/// Threads run on while the disk is copied in the state in which a crash would leave it.
#[test]
fn a_crash_under_eight_threads() {
    const THREADS: usize = 8;
    for seed in seeds(6) {
        let mut random = Random::new(seed);
        let disk = MemDir::new(seed);
        let registry = open_patient(&disk);
        let begun = [const { AtomicU64::new(0) }; THREADS];
        let acknowledged = [const { AtomicU64::new(0) }; THREADS];
        let own = |thread: usize, which: &str| key(format!("threads/{thread}/{which}"));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (begun, acknowledged) = (&begun[thread], &acknowledged[thread]);
                let (registry, own) = (&registry, &own);
                scope.spawn(move || {
                    for n in 1..=30 {
                        begun.store(n, Ordering::SeqCst);
                        let changes = ["x", "y"]
                            .map(|which| Change::Put { key: own(thread, which), value: json(n) });
                        assert!(matches!(registry.commit(&[], &changes), Ok(Commit::Done(_))));
                        add(registry, &key("sum"), 1);
                        acknowledged.store(n, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..10 {
                let least = acknowledged.each_ref().map(|n| n.load(Ordering::SeqCst));
                let crashed = open(&disk.crash(Keep::Some(random.next())));
                let most = begun.each_ref().map(|n| n.load(Ordering::SeqCst));
                let mut written = 0;
                for thread in 0..THREADS {
                    let x = number(&crashed, &own(thread, "x")).unwrap_or(0);
                    assert_eq!(x, number(&crashed, &own(thread, "y")).unwrap_or(0), "half of it");
                    assert!(least[thread] <= x && x <= most[thread], "{least:?} {x} {most:?}");
                    written += x;
                }
                let sum = number(&crashed, &key("sum")).unwrap_or(0);
                assert!(sum <= written && written <= sum + THREADS as u64, "{sum} of {written}");
            }
        });
        assert_eq!(number(&registry, &key("sum")), Some(30 * THREADS as u64));
    }
}
