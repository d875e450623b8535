//! Races, judged by what must hold at the end and in between. The schedule is the machine's; the
//! invariants are not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use annals_registry::{Abort, Cas, Expected, Outcome, TxResult};
use annals_wal::fs::mem::MemDir;

use crate::support::{Random, add, done, json, key, number, open_patient, prefix};

const THREADS: u64 = 8;
const EACH: u64 = 50;

#[test]
fn no_increment_is_lost_in_transactions() {
    let disk = MemDir::new(1);
    let registry = open_patient(&disk);
    let count = key("count");
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..EACH).for_each(|_| add(&registry, &count, 1)));
        }
    });
    assert_eq!(number(&registry, &count), Some(THREADS * EACH));
    drop(registry);
    assert_eq!(number(&open_patient(&disk), &count), Some(THREADS * EACH), "and after reopening");
}

#[test]
fn no_increment_is_lost_by_compare_and_swap() {
    let registry = open_patient(&MemDir::new(1));
    let count = key("count");
    let increment = || {
        let mut current = registry.get(&count);
        loop {
            let (expected, value) = match &current {
                None => (Expected::Absent, 0),
                Some(entry) => (Expected::At(entry.revision), entry.value.decode_json().unwrap()),
            };
            match registry.compare_and_swap(&count, expected, json(value + 1)).unwrap() {
                Cas::Done(_) => return,
                Cas::Conflict { current: now } => current = now,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..EACH).for_each(|_| increment()));
        }
    });
    assert_eq!(number(&registry, &count), Some(THREADS * EACH));
}

/// Each thread inserts keys of its own; what they share is only the number of keys there are.
#[test]
fn never_more_than_the_limit_are_active() {
    const LIMIT: usize = 5;
    let registry = open_patient(&MemDir::new(1));
    let active = prefix("active");
    let admitted: usize = thread::scope(|scope| {
        let runs: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (registry, active) = (&registry, &active);
                scope.spawn(move || {
                    let mut admitted = 0;
                    for n in 0..EACH {
                        let agent = key(format!("active/T{thread}-{n}"));
                        let outcome = registry.transact(|tx| -> TxResult<(), usize> {
                            let running = tx.scan(active)?.len();
                            thread::yield_now(); // the others come in between more often
                            if running >= LIMIT {
                                return Err(Abort::Because(running));
                            }
                            tx.put_json(&agent, &thread)?;
                            Ok(())
                        });
                        match outcome.unwrap() {
                            Outcome::Done { .. } => admitted += 1,
                            Outcome::Aborted(running) => assert_eq!(running, LIMIT),
                            Outcome::Conflict { .. } => panic!("patience ran out"),
                        }
                        assert!(registry.scan(active).len() <= LIMIT);
                        // Leaves again now and then, so that the limit is met from below often.
                        if n % 3 == thread % 3 {
                            registry.delete(&agent).unwrap();
                        }
                    }
                    admitted
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert!(admitted >= LIMIT, "{admitted}");
    assert!(registry.scan(&active).len() <= LIMIT);
}

#[test]
fn readers_of_a_bank_see_a_constant_total() {
    const ACCOUNTS: u64 = 6;
    const TOTAL: u64 = ACCOUNTS * 100;
    let registry = open_patient(&MemDir::new(1));
    let account = |n: u64| key(format!("bank/{n}"));
    for n in 0..ACCOUNTS {
        registry.put(&account(n), json(100)).unwrap();
    }
    let over = AtomicBool::new(false);
    let transfer = |random: &mut Random| {
        let from = random.below(ACCOUNTS);
        let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = random.below(150);
        let outcome = registry.transact(|tx| -> TxResult<bool, u64> {
            let rich: u64 = tx.get_json(&account(from))?.unwrap_or(0);
            let poor: u64 = tx.get_json(&account(to))?.unwrap_or(0);
            thread::yield_now();
            let Some(rest) = rich.checked_sub(amount) else { return Err(Abort::Because(rich)) };
            tx.put_json(&account(from), &rest)?;
            tx.put_json(&account(to), &(poor + amount))?;
            Ok(true)
        });
        assert!(!matches!(outcome.unwrap(), Outcome::Conflict { .. }));
    };
    // By keys and by prefix: the first attempt that sees a mixed state asserts.
    let audit = |by_prefix: bool| {
        let outcome = registry.transact(|tx| -> TxResult<u64> {
            let mut total = 0;
            if by_prefix {
                for (_, value) in tx.scan(&prefix("bank"))? {
                    total += value.decode_json::<u64>()?;
                }
            } else {
                for n in 0..ACCOUNTS {
                    total += tx.get_json::<u64>(&account(n))?.unwrap_or(0);
                    thread::yield_now();
                }
            }
            assert_eq!(total, TOTAL, "inside the closure");
            Ok(total)
        });
        assert_eq!(done(outcome.unwrap()), TOTAL);
        let plain = registry.scan(&prefix("bank"));
        let plain = plain.iter().map(|(_, entry)| entry.value.decode_json::<u64>().unwrap());
        assert_eq!(plain.sum::<u64>(), TOTAL, "a plain scan is one moment, too");
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|seed| {
                let transfer = &transfer;
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    (0..EACH).for_each(|_| transfer(&mut random));
                })
            })
            .collect();
        for by_prefix in [true, false] {
            let (audit, over) = (&audit, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    audit(by_prefix);
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        over.store(true, Ordering::Release);
    });
    audit(true);
}
