//! What each call promises when nobody else is there.

use annals_registry::{
    Cas, Change, Commit, ErrorKind, Expected, Precondition, Prefix, Registry, Value,
};
use annals_wal::fs::mem::MemDir;

use crate::support::{json, key, number, open, open_log, prefix};

fn paths(registry: &Registry, prefix: &Prefix) -> Vec<String> {
    registry.scan(prefix).into_iter().map(|(key, _)| key.to_string()).collect()
}

#[test]
fn put_get_delete() {
    let registry = open(&MemDir::new(1));
    let agent = key("agents/A7");
    assert_eq!(registry.get(&agent), None);
    let first = registry.put(&agent, json(1)).unwrap();
    let second = registry.put(&agent, json(2)).unwrap();
    assert!(second > first);
    let entry = registry.get(&agent).unwrap();
    assert_eq!((entry.value, entry.revision), (json(2), second));
    let third = registry.delete(&agent).unwrap();
    assert!(third > second);
    assert_eq!(registry.get(&agent), None);
    assert!(registry.delete(&agent).unwrap() > third, "deleting what is absent is no error");
}

#[test]
fn a_handle_may_go_to_any_thread() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Registry>();
}

#[test]
fn a_clone_is_the_same_registry() {
    let registry = open(&MemDir::new(1));
    registry.clone().put(&key("a"), json(1)).unwrap();
    assert_eq!(number(&registry, &key("a")), Some(1));
}

/// Two registries on one open log would each apply only their own transactions.
#[test]
fn a_second_registry_on_the_same_open_log_is_refused_until_the_first_is_gone() {
    let log = open_log(&MemDir::new(1));
    let first = Registry::on(log.clone()).unwrap();
    first.put(&key("a"), json(1)).unwrap();
    assert!(matches!(Registry::on(log.clone()).unwrap_err().kind(), ErrorKind::Log(_)));
    drop(first);
    let second = Registry::on(log).unwrap();
    assert_eq!(number(&second, &key("a")), Some(1));
}

#[test]
fn a_scan_covers_whole_segments_in_key_order() {
    let registry = open(&MemDir::new(1));
    let all = ["tasks", "tasks/T1", "tasks/T1 b", "tasks/T1/a", "tasks/T1/a/x", "tasks/T10", "u"];
    for path in all {
        registry.put(&key(path), json(1)).unwrap();
    }
    let found = paths(&registry, &prefix("tasks/T1"));
    assert_eq!(found, ["tasks/T1", "tasks/T1/a", "tasks/T1/a/x"]);
    assert_eq!(paths(&registry, &Prefix::all()), all);
    assert_eq!(paths(&registry, &prefix("tasks/T")), [""; 0]);
}

#[test]
fn compare_and_swap_says_what_was_there_instead() {
    let registry = open(&MemDir::new(1));
    let owner = key("tasks/T1/owner");
    let Cas::Done(first) = registry.compare_and_swap(&owner, Expected::Absent, json(1)).unwrap()
    else {
        panic!("it was absent")
    };
    let current = registry.get(&owner);
    assert_eq!(current.as_ref().map(|entry| entry.revision), Some(first));

    let lost = registry.compare_and_swap(&owner, Expected::Absent, json(2)).unwrap();
    assert_eq!(lost, Cas::Conflict { current: current.clone() });
    let won = registry.compare_and_swap(&owner, Expected::At(first), json(3)).unwrap();
    let Cas::Done(second) = won else { panic!("{won:?}") };
    let stale = registry.compare_and_swap(&owner, Expected::At(first), json(4)).unwrap();
    assert!(matches!(stale, Cas::Conflict { current: Some(entry) } if entry.revision == second));
    let any = registry.compare_and_swap(&owner, Expected::Any, json(5)).unwrap();
    assert!(matches!(any, Cas::Done(_)));
    assert_eq!(number(&registry, &owner), Some(5));
}

#[test]
fn compare_and_delete_takes_only_the_revision_it_names() {
    let registry = open(&MemDir::new(1));
    let owner = key("owner");
    let first = registry.put(&owner, json(1)).unwrap();
    let second = registry.put(&owner, json(2)).unwrap();
    let stale = registry.compare_and_delete(&owner, first).unwrap();
    assert!(matches!(stale, Cas::Conflict { current: Some(entry) } if entry.revision == second));
    assert!(matches!(registry.compare_and_delete(&owner, second).unwrap(), Cas::Done(_)));
    let gone = registry.compare_and_delete(&owner, second).unwrap();
    assert_eq!(gone, Cas::Conflict { current: None });
}

#[test]
fn a_commit_makes_all_changes_or_none() {
    let registry = open(&MemDir::new(1));
    let task = registry.put(&key("task"), json(1)).unwrap();
    let preconditions = [
        Precondition { key: key("task"), expected: Expected::At(task) },
        Precondition { key: key("agent"), expected: Expected::Absent },
    ];
    let changes =
        [Change::Put { key: key("agent"), value: json(7) }, Change::Delete { key: key("task") }];
    let Commit::Done(revision) = registry.commit(&preconditions, &changes).unwrap() else {
        panic!("both held")
    };
    assert_eq!(registry.get(&key("agent")).unwrap().revision, revision);
    assert_eq!(registry.get(&key("task")), None);

    let before = registry.log().durable_lsn();
    let again = registry.commit(&preconditions, &changes).unwrap();
    assert_eq!(again, Commit::Conflict { key: key("task"), current: None });
    assert_eq!(registry.log().durable_lsn(), before, "a conflict writes nothing");
}

#[test]
fn a_commit_that_can_never_be_right_is_refused() {
    let registry = open(&MemDir::new(1));
    assert_eq!(registry.commit(&[], &[]).unwrap_err().kind(), ErrorKind::Invalid);
    let twice = [Change::Put { key: key("a"), value: json(1) }, Change::Delete { key: key("a") }];
    assert_eq!(registry.commit(&[], &twice).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(registry.log().durable_lsn(), None);
}

#[test]
fn a_transaction_over_the_cap_is_too_large_and_changes_nothing() {
    let disk = MemDir::new(1);
    let log = annals_wal::Options::new().record_bytes_max(1000).open_in(disk.dir()).unwrap();
    let registry = Registry::on(log).unwrap();
    let error = registry.put(&key("a"), Value::raw([7; 1000])).unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::TooLarge, false));
    assert_eq!(registry.get(&key("a")), None);
    registry.put(&key("a"), Value::raw([7; 900])).unwrap();
}

#[test]
fn a_closed_log_is_still_read() {
    let registry = open(&MemDir::new(1));
    registry.put(&key("a"), json(1)).unwrap();
    registry.log().clone().close().unwrap();
    let error = registry.put(&key("a"), json(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Log(annals_wal::ErrorKind::Closed));
    assert!(!error.outcome_unknown());
    assert_eq!(number(&registry, &key("a")), Some(1));
}

#[test]
fn options_that_can_never_be_right_are_refused() {
    let log = open_log(&MemDir::new(1));
    let error = annals_registry::Options::new().attempts_max(0).on(log).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn records_of_other_rooms_may_stand_between() {
    let registry = open(&MemDir::new(1));
    registry.log().append("an entry of somebody else").unwrap();
    let first = registry.put(&key("a"), json(1)).unwrap();
    registry.log().append("another").unwrap();
    assert_eq!(first.lsn().get(), 2);
    assert_eq!(number(&registry, &key("a")), Some(1));
    let second = registry.put(&key("a"), json(2)).unwrap();
    assert_eq!(second.lsn().get(), 4);
    assert_eq!(number(&registry, &key("a")), Some(2));
}
