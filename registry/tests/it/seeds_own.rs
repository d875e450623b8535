//! The tests that the field reports recommend: terminations at once, slow writes, a race to create.

use std::io::{BufRead, BufReader, Write};
use std::thread;
use std::time::Duration;

use annals_registry::{
    Abort, AgentLife, ErrorKind, Expected, Key, Outcome, Prefix, Registry, TxResult, agent_life,
};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::support::{json, key, number, open, open_patient};

fn agents(registry: &Registry, count: u64) {
    for n in 0..count {
        for root in ["tasks/T1", "global"] {
            let agent = key(format!("{root}/agents/A{n}"));
            registry.put_json(&agent, &AgentLife::Working).unwrap();
        }
    }
    registry.put(&key("tasks/T1/active_count"), json(count)).unwrap();
    registry.put(&key("global/active_agents"), json(count)).unwrap();
}

/// Both entries and both counts, or nothing.
fn terminate(registry: &Registry, n: u64) -> Outcome<u64, Option<AgentLife>> {
    let life = agent_life();
    let outcome = registry.transact(|tx| -> TxResult<u64, Option<AgentLife>> {
        for root in ["tasks/T1", "global"] {
            let agent = key(format!("{root}/agents/A{n}"));
            tx.transition(&life, &agent, &AgentLife::Working, &AgentLife::Terminated)?
                .map_err(Abort::Because)?;
        }
        let mut left = 0;
        for count in ["tasks/T1/active_count", "global/active_agents"] {
            left = tx.get_json::<u64>(&key(count))?.unwrap_or(0) - 1;
            thread::yield_now();
            tx.put_json(&key(count), &left)?;
        }
        Ok(left)
    });
    outcome.unwrap()
}

fn active(registry: &Registry, root: &str) -> usize {
    let all = registry.scan(&Prefix::new(format!("{root}/agents")).unwrap());
    let active = all.iter().map(|(_, entry)| entry.value.decode_json::<AgentLife>().unwrap());
    active.filter(|life| life.is_active()).count()
}

/// `slow`: each sync takes this long.
fn terminations(count: u64, slow: Duration) {
    let disk = MemDir::new(count);
    let registry = open_patient(&disk);
    agents(&registry, count + 3);
    disk.slow_syncs(slow);
    thread::scope(|scope| {
        for n in 0..count {
            let registry = &registry;
            // Each is ended twice at once; one of the two learns that it was too late.
            for _ in 0..2 {
                scope.spawn(move || match terminate(registry, n) {
                    Outcome::Done { .. } => {}
                    Outcome::Aborted(state) => assert_eq!(state, Some(AgentLife::Terminated)),
                    other => panic!("{other:?}"),
                });
            }
        }
    });
    for registry in [&registry, &open(&disk.crash(Keep::Nothing))] {
        assert_eq!(number(registry, &key("tasks/T1/active_count")), Some(3));
        assert_eq!(number(registry, &key("global/active_agents")), Some(3));
        assert_eq!((active(registry, "tasks/T1"), active(registry, "global")), (3, 3));
    }
}

#[test]
fn five_terminations_at_once_leave_the_exact_count() {
    terminations(5, Duration::ZERO);
}

#[test]
fn sixty_four_terminations_at_once_leave_the_exact_count() {
    terminations(64, Duration::ZERO);
}

#[test]
fn slow_writes_lose_nothing() {
    terminations(16, Duration::from_millis(5));
}

#[test]
fn a_creation_race_in_threads_ends_with_one_registry_and_everybodys_data() {
    for seed in 0..20 {
        let disk = MemDir::new(seed);
        let log = crate::support::open_log(&disk);
        let created: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let log = log.clone();
                    scope.spawn(move || {
                        // One registry to a log: the others wait for their turn.
                        let registry = loop {
                            match Registry::on(log.clone()) {
                                Ok(registry) => break registry,
                                Err(error) => {
                                    let kind = annals_wal::ErrorKind::Invalid;
                                    assert_eq!(error.kind(), ErrorKind::Log(kind));
                                    thread::yield_now();
                                }
                            }
                        };
                        registry.put(&key(format!("threads/{n}")), json(n)).unwrap();
                        let made =
                            registry.compare_and_swap(&key("one"), Expected::Absent, json(n));
                        usize::from(matches!(made.unwrap(), annals_registry::Cas::Done(_)))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(created, 1);
        let registry = Registry::on(log).unwrap();
        assert_eq!(registry.scan(&Prefix::new("threads").unwrap()).len(), 8);
    }
}

const CHILD: &str = "ANNALS_CREATION_RACE";
const TURN: &str = "ANNALS_CREATION_RACE_TURN";

fn write_as(path: &std::path::Path, who: &str) {
    let registry = loop {
        match annals_wal::Log::open(path) {
            Ok(log) => break Registry::on(log).unwrap(),
            // Somebody else creates or has it: after his failure to open, the second one tries
            // again.
            Err(error) => assert_eq!(error.kind(), annals_wal::ErrorKind::Locked, "{error}"),
        }
        thread::yield_now();
    };
    registry.put(&Key::new(format!("processes/{who}")).unwrap(), json(1)).unwrap();
    let log = registry.log().clone();
    drop(registry);
    log.close().unwrap();
}

/// Not a test by itself: what the processes of the next two do.
#[test]
fn a_process_of_the_creation_race() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let path: &std::path::Path = path.as_ref();
    match std::env::var(TURN).as_deref() {
        Ok("first") => {
            let registry = Registry::on(annals_wal::Log::open(path).unwrap()).unwrap();
            println!("has it");
            // Until the second one has failed to open it.
            std::io::stdin().read_line(&mut String::new()).unwrap();
            registry.put(&key("processes/first"), json(1)).unwrap();
            let log = registry.log().clone();
            drop(registry);
            log.close().unwrap();
        }
        Ok("second") => {
            let error = annals_wal::Log::open(path).unwrap_err();
            assert_eq!(error.kind(), annals_wal::ErrorKind::Locked);
            println!("refused: {error}");
            write_as(path, "second");
        }
        _ => write_as(path, &std::process::id().to_string()),
    }
}

fn child(path: &std::path::Path, turn: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["seeds_own::a_process_of_the_creation_race", "--exact", "--nocapture"])
        .env(CHILD, path)
        .env(TURN, turn)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the line that has this in it.
fn said(lines: &mut impl Iterator<Item = std::io::Result<String>>, word: &str) -> String {
    lines.map(Result::unwrap).find(|line| line.contains(word)).expect("it ended without a word")
}

/// The same race, in the order that the field reports tell: one creates, the other fails to open and
/// comes after it.
#[test]
fn the_process_that_fails_to_open_comes_second_and_both_ones_data_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut first = child(&path, "first");
    let mut of_first = BufReader::new(first.stdout.take().unwrap()).lines();
    said(&mut of_first, "has it");
    let mut second = child(&path, "second");
    let mut of_second = BufReader::new(second.stdout.take().unwrap()).lines();
    let refused = said(&mut of_second, "refused");
    assert!(refused.contains(&format!("process {}", first.id())), "{refused}");
    writeln!(first.stdin.take().unwrap(), "go on").unwrap();
    of_first.for_each(drop);
    of_second.for_each(drop);
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let registry = Registry::on(annals_wal::Log::open(&path).unwrap()).unwrap();
    for who in ["processes/first", "processes/second"] {
        assert_eq!(number(&registry, &key(who)), Some(1), "{who}");
    }
}

#[test]
fn a_creation_race_of_two_processes_ends_with_both_writers_data() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let children: Vec<_> = (0..2)
            .map(|_| {
                std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["seeds_own::a_process_of_the_creation_race", "--exact"])
                    .env(CHILD, &path)
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let registry = Registry::on(annals_wal::Log::open(&path).unwrap()).unwrap();
        assert_eq!(registry.scan(&Prefix::new("processes").unwrap()).len(), 2);
    }
}
