//! One registry, several processes: each on a shared log of its own on one simulated machine.

use std::sync::mpsc::channel;
use std::time::Duration;

use annals_registry::{
    Abort, After, Cas, Event, Expected, Key, Options, Outcome, Prefix, Registry, TxResult, Value,
};
use annals_wal::fs::LockMode;
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Log, Sharing};

fn log(disk: &MemDir) -> Log {
    log_with(disk, Duration::from_millis(50))
}

fn log_with(disk: &MemDir, lock_timeout: Duration) -> Log {
    let options = annals_wal::Options::new().sharing(Sharing::Processes).segment_bytes(64 << 10);
    options.lock_timeout(lock_timeout).open_in(disk.dir()).unwrap()
}

fn registry(disk: &MemDir) -> Registry {
    Options::new().snapshot_bytes(0).on(log(disk)).unwrap()
}

fn two() -> (MemDir, MemDir) {
    let disk = MemDir::new(1);
    (disk.as_process(11), disk.as_process(22))
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn add(registry: &Registry, name: &str) -> u64 {
    let key = key(name);
    let outcome = registry.transact(|tx| -> TxResult<u64> {
        let next = tx.get_json::<u64>(&key)?.unwrap_or(0) + 1;
        tx.put_json(&key, &next)?;
        Ok(next)
    });
    match outcome.unwrap() {
        Outcome::Done { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_update_is_lost_between_processes() {
    let (one, two) = two();
    let (a, b) = (registry(&one), registry(&two));
    for n in 0..10 {
        assert_eq!(add(&a, "n"), 2 * n + 1);
        assert_eq!(add(&b, "n"), 2 * n + 2);
    }
    assert_eq!(a.get_json::<u64>(&key("n")).unwrap(), Some(20));
    assert_eq!(b.get_json::<u64>(&key("n")).unwrap(), Some(20));
    // And so does whoever reads the log from its beginning.
    drop((a, b));
    assert_eq!(registry(&one).get_json::<u64>(&key("n")).unwrap(), Some(20));
}

#[test]
fn a_race_has_one_winner() {
    let (one, two) = two();
    let (a, b) = (registry(&one), registry(&two));
    let owner = key("owner");
    let claim = |registry: &Registry, name: &str| {
        registry.compare_and_swap(&owner, Expected::Absent, Value::json(name).unwrap()).unwrap()
    };
    assert!(matches!(claim(&a, "a"), Cas::Done(_)));
    match claim(&b, "b") {
        Cas::Conflict { current: Some(current) } => {
            assert_eq!(current.value.decode_json::<String>().unwrap(), "a");
        }
        other => panic!("{other:?}"),
    }
}

/// Another process commits while a closure runs.
#[test]
fn a_transaction_that_another_process_overtook_runs_again() {
    let (one, two) = two();
    let (a, b) = (registry(&one), registry(&two));
    add(&b, "n");
    let mut runs = 0;
    let n = key("n");
    let outcome = a.transact(|tx| -> TxResult<u64> {
        let next = tx.get_json::<u64>(&n)?.unwrap_or(0) + 1;
        runs += 1;
        if runs == 1 {
            // From another thread: this one is inside a transaction.
            std::thread::scope(|scope| scope.spawn(|| add(&b, "n")).join().unwrap());
        }
        tx.put_json(&n, &next)?;
        Ok(next)
    });
    assert!(matches!(outcome.unwrap(), Outcome::Done { value: 3, .. }));
    assert_eq!(runs, 2);
}

#[test]
fn an_invariant_over_several_keys_holds_for_all_processes() {
    let (one, two) = two();
    let registries = [registry(&one), registry(&two)];
    let active = Prefix::new("active").unwrap();
    let mut made = 0;
    for n in 0..10 {
        let outcome = registries[n % 2].transact(|tx| -> TxResult<(), &str> {
            if tx.scan(&active)?.len() >= 3 {
                return Err(Abort::Because("three are enough"));
            }
            tx.put_json(&key(&format!("active/{n}")), &n)?;
            Ok(())
        });
        made += u64::from(matches!(outcome.unwrap(), Outcome::Done { .. }));
    }
    assert_eq!(made, 3);
    assert_eq!(registries[0].scan(&active), registries[1].scan(&active));
}

#[test]
fn a_watch_sees_what_others_commit() {
    let (one, two) = two();
    let (a, b) = (registry(&one), registry(&two));
    let mut watch = b.watch(Prefix::new("n").unwrap(), After::Now).unwrap();
    assert_eq!(watch.try_next().unwrap(), None);
    add(&a, "n");
    let Some(Event::Changed { changes, .. }) = watch.try_next().unwrap() else {
        panic!("nothing was told")
    };
    assert_eq!(changes.len(), 1);
    add(&b, "n");
    let told = std::iter::from_fn(|| watch.try_next().unwrap());
    assert_eq!(told.filter(|event| matches!(event, Event::Changed { .. })).count(), 1);
}

/// Whoever reads does not wait for a writer of the same registry that stands in line behind another
/// process, and sees what that one commits.
#[test]
fn readers_do_not_wait_for_a_writer_that_stands_in_line() {
    let answered_within = Duration::from_secs(20);
    let disk = MemDir::new(1);
    let [one, two, third] = [11, 22, 33].map(|pid| disk.as_process(pid));
    let a = Options::new().snapshot_bytes(0).on(log_with(&one, 4 * answered_within)).unwrap();
    let b = registry(&two);
    add(&b, "n");
    let mut watch = a.watch(Prefix::new("n").unwrap(), After::Now).unwrap();
    let turn = b.log().turn().unwrap();
    add(&b, "n"); // and leaves the line
    let in_line = || third.dir().try_lock("CONTROL", LockMode::Exclusive, false).unwrap().is_none();
    assert!(!in_line());
    let (tell_written, written) = channel();
    let writer = a.clone();
    std::thread::spawn(move || tell_written.send(add(&writer, "n")));
    while !in_line() {
        std::thread::yield_now();
    }
    add(&b, "n");
    let (tell_read, read) = channel();
    let reader = a.clone();
    std::thread::spawn(move || {
        let n = key("n");
        let got = reader.get_json::<u64>(&n).unwrap();
        let viewed = reader.read(|view| view.get_json::<u64>(&n)).unwrap();
        let changes = reader.history(&n).unwrap().count();
        let told = matches!(watch.try_next().unwrap(), Some(Event::Changed { .. }));
        tell_read.send((got, viewed, changes, told))
    });
    let read = read.recv_timeout(answered_within).expect("waits for the writer");
    assert_eq!(read, (Some(3), Some(3), 3, true));
    assert!(written.try_recv().is_err(), "the turn is kept yet");
    drop(turn);
    assert_eq!(written.recv_timeout(answered_within).unwrap(), 4);
    assert_eq!(add(&b, "n"), 5);
}

#[test]
fn a_checkpoint_by_one_process_leaves_the_others_whole() {
    let (one, two) = two();
    let (a, b) = (registry(&one), registry(&two));
    let big = "x".repeat(4_000);
    for n in 0..60 {
        a.put_json(&key(&format!("k{}", n % 5)), &big).unwrap();
        if n % 20 == 19 {
            // It reads on before the trim takes what it has not read.
            assert!(b.get(&key("k0")).is_some());
            a.checkpoint().unwrap();
        }
    }
    assert!(a.log().head_lsn().get() > 1, "something was trimmed");
    assert_eq!(add(&b, "n"), 1);
    assert_eq!(add(&a, "n"), 2);
    let c = registry(&one.as_process(33));
    assert_eq!(c.get_json::<u64>(&key("n")).unwrap(), Some(2));
    assert_eq!(c.get_json::<String>(&key("k4")).unwrap(), Some(big));
}

/// A process is killed at each operation of its increment; the other goes on counting.
#[test]
fn a_killed_process_loses_no_increment_and_makes_none_twice() {
    for op in 0.. {
        let (one, two) = two();
        let (a, b) = (registry(&one), registry(&two));
        assert_eq!((add(&a, "n"), add(&b, "n")), (1, 2));
        one.kill_at(one.process_ops() + op);
        let n = key("n");
        let outcome = a.transact(|tx| -> TxResult<()> {
            let next = tx.get_json::<u64>(&n)?.unwrap_or(0) + 1;
            tx.put_json(&n, &next)?;
            Ok(())
        });
        let died = one.is_dead();
        let counted = add(&b, "n");
        match &outcome {
            Ok(_) => assert_eq!(counted, 4, "op {op}"),
            Err(error) if error.outcome_unknown() => assert!([3, 4].contains(&counted), "op {op}"),
            Err(_) => assert_eq!(counted, 3, "op {op}"),
        }
        drop((a, b));
        for keep in [Keep::Nothing, Keep::Everything, Keep::Some(op)] {
            let after = registry(&one.crash(keep));
            assert_eq!(after.get_json::<u64>(&n).unwrap(), Some(counted), "op {op}");
        }
        if !died {
            break;
        }
    }
}

#[test]
fn threads_of_two_processes_count_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let open = || {
        let options = annals_wal::Options::new().sharing(Sharing::Processes);
        let log = options.lock_timeout(Duration::from_secs(60)).open(&path).unwrap();
        Registry::on(log).unwrap()
    };
    let registries = [open(), open()];
    std::thread::scope(|scope| {
        for registry in &registries {
            for thread in 0..4 {
                scope.spawn(move || {
                    for _ in 0..25 {
                        add(registry, "all");
                        add(registry, &format!("thread{thread}"));
                    }
                });
            }
        }
    });
    assert_eq!(registries[0].get_json::<u64>(&key("all")).unwrap(), Some(200));
    for thread in 0..4 {
        let own = key(&format!("thread{thread}"));
        assert_eq!(registries[1].get_json::<u64>(&own).unwrap(), Some(50));
    }
}
