//! Reads that change nothing: consistent views, the newest state, and readers of another's log.

use std::thread;

use annals_registry::{ErrorKind, Prefix, Registry, RegistryReader, TxResult};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Log, LogReader};

use crate::gate::gated;
use crate::support::{add, json, key, number, open, open_patient};

#[test]
fn a_view_is_of_one_moment() {
    let registry = open_patient(&MemDir::new(1));
    let both = [key("a"), key("b")];
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..200 {
                let outcome = registry.transact(|tx| -> annals_registry::TxResult<()> {
                    for key in &both {
                        let n: u64 = tx.get_json(key)?.unwrap_or(0);
                        tx.put_json(key, &(n + 1))?;
                    }
                    Ok(())
                });
                crate::support::done(outcome.unwrap());
            }
        });
        while !writer.is_finished() {
            let (a, all, b) = registry
                .read(|view| {
                    let a = view.get_json::<u64>(&both[0])?;
                    Ok((a, view.scan(&Prefix::all())?.len(), view.get_json::<u64>(&both[1])?))
                })
                .unwrap();
            assert_eq!((a, all), (b, if a.is_some() { 2 } else { 0 }));
        }
    });
}

#[test]
fn a_view_is_durable_and_waits_for_nobody_and_latest_is_neither() {
    let (_disk, gate, registry) = gated();
    thread::scope(|scope| {
        let _closed = gate.close();
        let writer = scope.spawn(|| registry.put(&key("k"), json(2)));
        gate.wait_for_sync();
        let seen = registry.read(|view| view.get_json::<u64>(&key("k"))).unwrap();
        assert_eq!(seen, Some(1));
        let latest = registry.read_latest(&key("k")).unwrap();
        assert_eq!(latest.value, json(2));
        assert!(latest.revision.to_string().contains("may not be durable"));
        gate.fail();
        writer.join().unwrap().unwrap_err();
    });
    // After a failure only what is durable is told.
    assert_eq!(registry.read_latest(&key("k")).unwrap().value, json(1));
    assert_eq!(registry.read(|view| view.get_json::<u64>(&key("k"))).unwrap(), Some(1));
    assert_eq!(number(&registry, &key("k")), Some(1));
}

#[test]
fn an_overtaken_view_runs_again_and_its_error_is_no_answer() {
    let registry = open(&MemDir::new(1));
    registry.put(&key("a"), json(1)).unwrap();
    let mut runs = 0;
    let seen = registry.read(|view| {
        runs += 1;
        let first = view.get_json::<u64>(&key("a"))?;
        if runs == 1 {
            registry.scan(&Prefix::all());
            crate::support::meanwhile(|| registry.put(&key("a"), json(2)).unwrap());
            assert!(view.get(&key("b")).is_err()); // swallowed
        }
        Ok(first)
    });
    assert_eq!((seen.unwrap(), runs), (Some(2), 2));
}

#[test]
fn a_reader_takes_no_lock_and_writes_nothing() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    add(&registry, &key("n"), 1);
    registry.checkpoint().unwrap();
    add(&registry, &key("n"), 1);
    let ops = disk.ops();
    let mut reader = RegistryReader::on(LogReader::open_in(disk.dir()).unwrap()).unwrap();
    let seen = reader.get(&key("n")).unwrap();
    assert_eq!(seen.value, json(2));
    assert_eq!(reader.history(&key("n")).unwrap().count(), 2);
    assert_eq!(disk.ops(), ops, "nothing was written");
    add(&registry, &key("n"), 1);
    add(&registry, &key("other"), 1);
    reader.refresh().unwrap();
    assert_eq!(reader.get(&key("n")).unwrap().value, json(3));
    assert_eq!(Some(reader.revision().unwrap().lsn()), registry.log().durable_lsn());
}

/// A creation race between processes: the loser is told who has it, opens after the winner is done,
/// and both writers' data is there.
#[test]
fn whoever_fails_to_open_comes_second_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let first = Registry::on(Log::open(&path).unwrap()).unwrap();
    let error = Log::open(&path).unwrap_err();
    assert_eq!(error.kind(), annals_wal::ErrorKind::Locked);
    first.put(&key("first"), json(1)).unwrap();
    drop(first);
    let second = Registry::on(Log::open(&path).unwrap()).unwrap();
    second.put(&key("second"), json(2)).unwrap();
    assert_eq!(second.scan(&Prefix::all()).len(), 2);
}

/// A read may hold the gate, which whoever commits waits for: so it nests like a transaction.
#[test]
fn a_commit_inside_a_read_is_refused() {
    let registry = open(&MemDir::new(1));
    let nested = registry.read(|view| {
        assert_eq!(view.get(&key("k"))?, None);
        let put = registry.put(&key("k"), json(1)).map(drop);
        let transacted = registry.transact(|_| -> TxResult<()> { Ok(()) }).map(drop);
        let snapshot = registry.checkpoint().map(drop);
        // A plain read inside is none.
        assert_eq!(registry.get(&key("k")), None);
        assert_eq!(registry.read(|inner| inner.get(&key("k")))?, None);
        // And the mark is still there after it.
        Ok([put, transacted, snapshot, registry.delete(&key("k")).map(drop)])
    });
    for refused in nested.unwrap() {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Nested);
    }
    registry.put(&key("k"), json(1)).unwrap();
}
