//! Ten threads, each with a hundred status transitions of the same few agents, iteration after
//! iteration: half by transactions that keep a count of each status, half by compare-and-swap.
//!
//! 20 iterations here (20,000 transitions); `cargo xtask races` runs 1,000 (a million). The oracle
//! is the history of each key, put together from what every call was told: dense, along the cycle,
//! each step from where the last one ended.

use std::collections::BTreeMap;
use std::thread;

use annals_registry::{Cas, Expected, Key, Outcome, Registry, Revision, TxResult, Value};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::support::{Random, key, open_patient};

const THREADS: u64 = 10;
const EACH: u64 = 100;
const AGENTS: u64 = 6;
const ITERATIONS: u64 = 20;

/// An agent's life, again and again.
const CYCLE: [&str; 3] = ["idle", "active", "done"];

/// What a key holds: its status, and how many transitions brought it there.
type Status = (String, u64);

/// One acknowledged transition: the agent's transitions so far, and when it became durable.
type Step = (u64, Revision);

fn status(count: u64) -> Status {
    (CYCLE[count as usize % CYCLE.len()].to_owned(), count)
}

/// The status after this one; it asserts that what it is given is on the cycle.
fn after(now: &Status) -> Status {
    assert_eq!(*now, status(now.1), "off the cycle");
    status(now.1 + 1)
}

fn agent(n: u64) -> Key {
    key(format!("agent/{n}"))
}

fn count(status: &str) -> Key {
    key(format!("count/{status}"))
}

/// The agents with even numbers are counted, and change by transactions only.
fn is_counted(n: u64) -> bool {
    n.is_multiple_of(2)
}

fn by_transaction(registry: &Registry, n: u64) -> Step {
    let outcome = registry.transact(|tx| -> TxResult<u64> {
        let now: Status = tx.get_json(&agent(n))?.unwrap_or_else(|| status(0));
        let next = after(&now);
        tx.put_json(&agent(n), &next)?;
        for (status, change) in [(&now.0, -1), (&next.0, 1)] {
            let counted: i64 = tx.get_json(&count(status))?.unwrap_or(0);
            tx.put_json(&count(status), &(counted + change))?;
        }
        Ok(next.1)
    });
    match outcome.unwrap() {
        Outcome::Done { value, revision: Some(revision) } => (value, revision),
        other => panic!("not done: {other:?}"),
    }
}

fn by_compare_and_swap(registry: &Registry, n: u64) -> Step {
    let mut current = registry.get(&agent(n));
    loop {
        let (expected, now) = match &current {
            None => (Expected::Absent, status(0)),
            Some(entry) => (Expected::At(entry.revision), entry.value.decode_json().unwrap()),
        };
        let next = after(&now);
        match registry.compare_and_swap(&agent(n), expected, Value::json(&next).unwrap()).unwrap() {
            Cas::Done(revision) => return (next.1, revision),
            Cas::Conflict { current: met } => {
                assert_ne!(met, current, "a conflict with what was expected");
                current = met;
            }
        }
    }
}

/// One thread's transitions, by agent. What it reads in between never goes back.
fn transitions(registry: &Registry, seed: u64) -> Vec<(u64, Step)> {
    let mut random = Random::new(seed);
    let mut newest: BTreeMap<u64, Revision> = BTreeMap::new();
    let mut made = Vec::new();
    for _ in 0..EACH {
        let n = random.below(AGENTS);
        let make = if is_counted(n) { by_transaction } else { by_compare_and_swap };
        let step = make(registry, n);
        made.push((n, step));
        newest.insert(n, step.1);
        let seen = random.below(AGENTS);
        if let Some(entry) = registry.get(&agent(seen)) {
            let newest = newest.entry(seen).or_insert(entry.revision);
            assert!(entry.revision >= *newest, "a read went back");
            *newest = entry.revision;
        }
    }
    made
}

/// Every agent's history, put together from all threads, and the end it must have led to.
fn judge(registry: &Registry, made: &[(u64, Step)]) {
    assert_eq!(made.len() as u64, THREADS * EACH);
    let mut histories: BTreeMap<u64, Vec<Step>> = BTreeMap::new();
    for (n, step) in made {
        histories.entry(*n).or_default().push(*step);
    }
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for (n, mut history) in histories {
        history.sort_by_key(|(_, revision)| *revision);
        let steps: Vec<u64> = history.iter().map(|(step, _)| *step).collect();
        assert!(steps.iter().copied().eq(1..=steps.len() as u64), "agent {n}: {steps:?}");
        let entry = registry.get(&agent(n)).unwrap();
        assert_eq!(Some(entry.revision), history.last().map(|(_, revision)| *revision));
        let end: Status = entry.value.decode_json().unwrap();
        assert_eq!(end, status(steps.len() as u64), "agent {n}");
        if is_counted(n) {
            *counts.entry(end.0).or_default() += 1;
            *counts.entry(status(0).0).or_default() -= 1;
        }
    }
    for status in CYCLE {
        let counted: i64 = registry.get_json(&count(status)).unwrap().unwrap_or(0);
        assert_eq!(counted, counts.get(status).copied().unwrap_or(0), "{status}");
    }
}

fn iteration(seed: u64) -> usize {
    let disk = MemDir::new(seed);
    let registry = open_patient(&disk);
    let made: Vec<(u64, Step)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let registry = &registry;
                scope.spawn(move || transitions(registry, seed * THREADS + thread))
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    judge(&registry, &made);
    // All of it was acknowledged, so all of it is durable.
    judge(&open_patient(&disk.crash(Keep::Nothing)), &made);
    made.len()
}

#[test]
fn races_of_status_transitions_lose_and_invent_none() {
    let iterations = std::env::var("ANNALS_RACES").ok();
    let iterations = iterations.map_or(ITERATIONS, |text| text.parse().unwrap());
    let made: usize = (0..iterations).map(iteration).sum();
    println!("{made} transitions in {iterations} iterations of {THREADS} threads x {EACH}");
    assert_eq!(made as u64, iterations * THREADS * EACH);
}
