//! Serializability by invariants: money that moves between prefixes, and at most N active; and bad
//! registries, whose phantoms, lost updates and dirty reads the same workloads must find. In a bad one
//! all threads meet between the reads and the writes of their first transaction, so that what is to be
//! found does not hang on the scheduler (on a busy machine it was not found in 50 seeds).

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use annals_registry::{
    Abort, Change, Commit, Expected, Key, Options, Outcome, Precondition, Prefix, Registry,
    TxResult, Value,
};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::support::{Random, json, key, open, open_log, prefix};

/// How a transaction of the workload is made: as the registry makes it, or badly.
#[derive(Clone, Copy, PartialEq, Debug)]
enum How {
    Whole,
    /// Reads first, writes afterwards, whatever happened between: updates get lost.
    LostUpdates,
    /// Checks the keys that it found and not the prefix: phantoms.
    Phantoms,
    /// Reads what may never be made.
    DirtyReads,
}

const ACCOUNTS: u64 = 8;
const EACH: u64 = 100;

fn account(n: u64) -> Key {
    key(format!("bank/{}/accounts/{n}", n % 2))
}

fn total(entries: &[(Key, Value)]) -> u64 {
    entries.iter().map(|(_, value)| value.decode_json::<u64>().unwrap()).sum()
}

/// Moves up to 10 from one account to another; accounts without money are closed, so that prefixes
/// change too. Fails if the whole is not what it must be.
fn transfer(
    registry: &Registry,
    random: &mut Random,
    how: How,
    first: Option<(u64, &Barrier)>,
) -> Result<(), String> {
    let (from, to) = (account(random.below(ACCOUNTS)), account(random.below(ACCOUNTS)));
    // All from one account: of the money that one of them takes the others know nothing.
    let others = |thread: u64| (account(0), account(1 + thread % (ACCOUNTS - 1)));
    let meeting = first.filter(|_| how == How::LostUpdates);
    let (from, to) = meeting.map_or((from, to), |(thread, _)| others(thread));
    if from == to {
        return Ok(());
    }
    let amount = 1 + random.below(10);
    let number = |value: Option<Value>| value.map_or(0, |v| v.decode_json::<u64>().unwrap());
    if how == How::LostUpdates {
        let held = [&from, &to].map(|k| number(registry.get(k).map(|entry| entry.value)));
        let amount = amount.min(held[0]);
        match meeting {
            Some((_, barrier)) => drop(barrier.wait()),
            None => thread::yield_now(),
        }
        let changes = [(from, held[0] - amount), (to, held[1] + amount)]
            .map(|(key, held)| Change::Put { key, value: json(held) });
        let Commit::Done(_) = registry.commit(&[], &changes).unwrap() else { unreachable!() };
        return Ok(());
    }
    let outcome = registry.transact(|tx| -> TxResult<u64> {
        let sum = total(&tx.scan(&prefix("bank"))?);
        let held = [number(tx.get(&from)?), number(tx.get(&to)?)];
        let amount = amount.min(held[0]);
        thread::yield_now();
        for (key, held) in [(&from, held[0] - amount), (&to, held[1] + amount)] {
            if held == 0 {
                tx.delete(key);
            } else {
                tx.put_json(key, &held)?;
            }
        }
        Ok(sum)
    });
    match outcome.unwrap() {
        Outcome::Done { value, .. } if value == ACCOUNTS * EACH => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn bank(seed: u64, how: How) -> Result<(), String> {
    let disk = MemDir::new(seed);
    let registry = Options::new().attempts_max(1000).on(open_log(&disk)).unwrap();
    for n in 0..ACCOUNTS {
        registry.put(&account(n), json(EACH)).unwrap();
    }
    // A bad registry once: what eight lose is never nothing (each credit but one stays, one debit), and
    // what fifty more of each lose can make up for it (once in a hundred runs it did).
    let times = if how == How::LostUpdates { 1 } else { 50 };
    let barrier = Barrier::new(8);
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (registry, barrier) = (&registry, &barrier);
                scope.spawn(move || {
                    let mut random = Random::new(seed * 8 + thread);
                    (0..times).try_for_each(|n| {
                        let first = (n == 0).then_some((thread, barrier));
                        transfer(registry, &mut random, how, first)
                    })
                })
            })
            .collect();
        for _ in 0..20 {
            let bank = prefix("bank");
            let seen: u64 = registry
                .read(|view| view.scan(&bank))
                .unwrap()
                .iter()
                .map(|(_, entry)| entry.value.decode_json::<u64>().unwrap())
                .sum();
            if seen != ACCOUNTS * EACH && how == How::Whole {
                return vec![Err(format!("a reader saw {seen}"))];
            }
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    results.into_iter().collect::<Result<(), _>>()?;
    for registry in [registry, open(&disk.crash(Keep::Nothing))] {
        let all: Vec<_> = registry.scan(&prefix("bank")).into_iter().collect();
        let sum: u64 = all.iter().map(|(_, e)| e.value.decode_json::<u64>().unwrap()).sum();
        if sum != ACCOUNTS * EACH {
            return Err(format!("{sum} in the end"));
        }
    }
    Ok(())
}

const ACTIVE_MAX: usize = 5;

/// Begins an agent if fewer than the maximum are active, and ends it again.
fn begin_and_end(
    registry: &Registry,
    agent: &Key,
    how: How,
    over: &AtomicU64,
    first: Option<&Barrier>,
) {
    let meet = || match first {
        Some(barrier) if how == How::Phantoms => drop(barrier.wait()),
        _ => thread::yield_now(),
    };
    let active = prefix("active");
    let begun = match how {
        How::Phantoms => {
            let found = registry.scan(&active);
            let unchanged = found.iter().map(|(key, entry)| Precondition {
                key: key.clone(),
                expected: Expected::At(entry.revision),
            });
            let unchanged: Vec<_> = unchanged.collect();
            meet();
            found.len() < ACTIVE_MAX && {
                let change = Change::Put { key: agent.clone(), value: json(1) };
                matches!(registry.commit(&unchanged, &[change]).unwrap(), Commit::Done(_))
            }
        }
        _ => {
            let outcome = registry.transact(|tx| -> TxResult<(), ()> {
                if tx.scan(&active)?.len() >= ACTIVE_MAX {
                    return Err(Abort::Because(()));
                }
                thread::yield_now();
                tx.put_json(agent, &1)?;
                Ok(())
            });
            matches!(outcome.unwrap(), Outcome::Done { .. })
        }
    };
    // Again, so that nobody has ended by the time they are counted.
    meet();
    let seen = registry.scan(&Prefix::new("active").unwrap()).len();
    over.fetch_max(seen as u64, Ordering::SeqCst);
    meet();
    if begun {
        registry.delete(agent).unwrap();
    }
}

/// The most that were ever active at once.
fn most_active(seed: u64, how: How) -> u64 {
    let disk = MemDir::new(seed);
    let registry = Options::new().attempts_max(1000).on(open_log(&disk)).unwrap();
    let (most, barrier) = (AtomicU64::new(0), Barrier::new(16));
    thread::scope(|scope| {
        for thread in 0..16 {
            let (registry, most, barrier) = (&registry, &most, &barrier);
            scope.spawn(move || {
                for n in 0..20 {
                    let agent = key(format!("active/{thread}-{n}"));
                    begin_and_end(registry, &agent, how, most, (n == 0).then_some(barrier));
                }
            });
        }
    });
    most.load(Ordering::SeqCst)
}

/// A reader that takes what is not durable, and a crash that takes it back.
fn dirty_reads(how: How) -> bool {
    let (_disk, gate, registry) = crate::gate::gated();
    let mut seen = None;
    thread::scope(|scope| {
        let _closed = gate.close();
        let writer = scope.spawn(|| registry.put(&key("k"), json(2)));
        gate.wait_for_sync();
        seen = match how {
            How::DirtyReads => registry.read_latest(&key("k")).map(|latest| latest.value),
            _ => registry.get(&key("k")).map(|entry| entry.value),
        };
        gate.fail();
        writer.join().unwrap().unwrap_err();
    });
    drop(registry);
    let after = open(&_disk.crash(Keep::Nothing)).get(&key("k")).map(|entry| entry.value);
    seen != after
}

#[test]
fn money_is_neither_made_nor_lost() {
    for seed in 0..5 {
        bank(seed, How::Whole).unwrap();
    }
}

#[test]
fn never_more_than_the_maximum_are_active() {
    for seed in 0..5 {
        assert!(most_active(seed, How::Whole) <= ACTIVE_MAX as u64);
    }
}

#[test]
fn nothing_is_read_that_a_crash_takes_back() {
    assert!(!dirty_reads(How::Whole));
}

/// The workloads notice each of the three bad ways.
#[test]
fn bad_registries_are_rejected() {
    assert!(bank(0, How::LostUpdates).is_err(), "lost updates");
    assert!(most_active(0, How::Phantoms) > ACTIVE_MAX as u64, "phantoms");
    assert!(dirty_reads(How::DirtyReads), "dirty reads");
}
