//! Issue 5's list of bad input, line by line: a typed error, a sentence, and not one operation on
//! the disk.

use std::time::Duration;

use annals_registry::{
    After, Change, ErrorKind, Event, Expected, Key, LeaseId, Lsn, Options, Prefix, Registry,
    RegistryReader, Trim, TxResult, Value, check_json,
};
use annals_wal::LogReader;
use annals_wal::fs::mem::MemDir;

use crate::support::{json, key, open, open_log, prefix};

/// What was said about one kind of bad input.
struct Case {
    what: &'static str,
    kind: ErrorKind,
    /// Stands in the sentence: what was found, or what to do.
    word: &'static str,
    said: annals_registry::Error,
}

fn case(
    what: &'static str,
    kind: ErrorKind,
    word: &'static str,
    said: annals_registry::Error,
) -> Case {
    Case { what, kind, word, said }
}

fn refused<T>(result: annals_registry::Result<T>) -> annals_registry::Error {
    result.err().expect("it is bad input")
}

/// A registry with three trims behind it, and the first revision, which is gone.
fn trimmed(disk: &MemDir) -> (Registry, annals_registry::Revision) {
    let registry = Options::new().trim(Trim::ToHolds).snapshot_bytes(0).on(open_log(disk)).unwrap();
    let first = registry.put(&key("k"), json(0)).unwrap();
    for n in 1..=4 {
        registry.put(&key("k"), json(n)).unwrap();
        registry.log().append(vec![7; 50_000]).unwrap();
        registry.checkpoint().unwrap();
    }
    assert!(registry.log().head_lsn() > first.lsn().next().unwrap());
    (registry, first)
}

#[test]
fn each_is_a_typed_error_and_a_sentence_and_changes_nothing() {
    let disk = MemDir::new(1);
    let (registry, first) = trimmed(&disk);
    let lease = LeaseId::from(7);
    let (ops, before) = (disk.ops(), registry.scan(&Prefix::all()));
    let invalid_key = ErrorKind::InvalidKey;
    let reader = RegistryReader::on(LogReader::open_in(disk.dir()).unwrap()).unwrap();
    let twice = [Change::Delete { key: key("k") }, Change::Delete { key: key("k") }];
    let cases = [
        case("an empty key", invalid_key, "empty", refused(Key::new(""))),
        case("an empty segment", invalid_key, "empty segment", refused(Key::new("a//b"))),
        case("an over-long key", invalid_key, "1025 bytes", refused(Key::new("x".repeat(1025)))),
        case("a control character", invalid_key, "control", refused(Key::new("a\u{7}b"))),
        case("in a prefix, too", invalid_key, "control", refused(Prefix::new("a\n"))),
        case(
            "a value over the cap",
            ErrorKind::TooLarge,
            "bytes",
            refused(registry.put(&key("v"), Value::raw(vec![0; 17 << 20]))),
        ),
        case(
            "an expired lease, bound to",
            ErrorKind::LeaseExpired,
            "grant a new one",
            refused(registry.put_leased(&key("v"), json(1), lease)),
        ),
        case(
            "an expired lease, in a closure",
            ErrorKind::LeaseExpired,
            "expired",
            refused(
                registry.transact(|tx| -> TxResult<()> {
                    Ok(tx.put_leased(&key("v"), json(1), lease)?)
                }),
            ),
        ),
        case(
            "an expired lease, renewed",
            ErrorKind::LeaseExpired,
            "expired",
            refused(registry.keep_alive(lease)),
        ),
        case(
            "a ttl of nothing",
            ErrorKind::Invalid,
            "millisecond",
            refused(registry.grant(Duration::ZERO, "A7")),
        ),
        case(
            "a watch from a trimmed revision",
            ErrorKind::Trimmed,
            "watch after its revision",
            refused(registry.watch(Prefix::all(), After::Revision(first))),
        ),
        case(
            "the same, of a log that another owns",
            ErrorKind::Trimmed,
            "watch after its revision",
            refused(reader.watch(Prefix::all(), After::Revision(first))),
        ),
        case(
            "a state at a trimmed revision",
            ErrorKind::Trimmed,
            "cannot be told any more",
            refused(registry.as_of(first)),
        ),
        case("no change", ErrorKind::Invalid, "at least one", refused(registry.commit(&[], &[]))),
        case("two of one key", ErrorKind::Invalid, "twice", refused(registry.commit(&[], &twice))),
        case(
            "JSON that does not parse",
            ErrorKind::Import,
            "at line 1 column",
            refused(registry.import_json("T.json", "{", false)),
        ),
        case(
            "JSON that is no registry",
            ErrorKind::Import,
            "neither agents nor tasks",
            refused(registry.import_json("T.json", "{}", true)),
        ),
        case("no object", ErrorKind::Import, "no object", refused(check_json("T.json", "[1]"))),
        case(
            "a member twice",
            ErrorKind::Import,
            "twice",
            refused(registry.import_json("T.json", r#"{"agents":[],"a":1,"a":2}"#, false)),
        ),
        case(
            "an agent's id that no key can hold",
            ErrorKind::Import,
            "T.json was not imported",
            refused(registry.import_json(
                "T.json",
                &format!(r#"{{"task_id":"T","agents":[{{"id":"{}"}}]}}"#, "x".repeat(1100)),
                false,
            )),
        ),
    ];
    for Case { what, kind, word, said } in cases {
        assert_eq!(said.kind(), kind, "{what}: {said}");
        let sentence = said.to_string();
        assert!(sentence.contains(word), "{what}: {sentence}");
        assert!(sentence.len() > 30 && sentence.contains(' '), "{what}: no sentence: {sentence}");
        assert!(!said.outcome_unknown(), "{what}");
    }
    // A closure that panics: the caller's own, once it is clear that nothing was written.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = registry.transact(|tx| -> TxResult<()> {
            tx.put(&key("v"), json(1));
            panic!("of the caller's");
        });
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"of the caller's"));
    assert_eq!(registry.scan(&Prefix::all()), before);
    assert_eq!(disk.ops(), ops, "not one operation");
    // And the registry goes on.
    let made = registry.compare_and_swap(&key("v"), Expected::Absent, json(1)).unwrap();
    assert!(matches!(made, annals_registry::Cas::Done(_)));
}

/// The three that an opening meets; `checkpoint.rs` has their variants.
#[test]
fn what_an_opening_refuses_it_leaves_as_it_was() {
    let disk = MemDir::new(1);
    drop(trimmed(&disk));
    let newest = disk.names().into_iter().rfind(|name| name.starts_with("registry-")).unwrap();
    // No valid snapshot, a trimmed log.
    let without = disk.killed();
    for name in without.names().iter().filter(|name| name.starts_with("registry-")) {
        without.lose(name);
    }
    let log = open_log(&without);
    let ops = without.ops();
    let error = refused(Registry::on(log));
    assert_eq!(error.kind(), ErrorKind::Trimmed);
    assert!(error.to_string().contains("open a copy that still has one"), "{error}");
    assert_eq!(without.ops(), ops);
    // A log older than the snapshot: another log's record stands at its LSN.
    let other = MemDir::new(2);
    let registry = open(&other);
    for n in 0..20 {
        registry.put(&key("k"), json(n)).unwrap();
    }
    registry.log().clone().close().unwrap();
    drop(registry);
    let bytes = disk.bytes(&newest).unwrap();
    other.dir().create(&newest).unwrap().write_at(&bytes, 0).unwrap();
    let ops = other.ops();
    let error = annals_wal::Options::new().open_in(other.dir()).map(Registry::on);
    match error {
        Ok(opened) => assert_eq!(refused(opened).kind(), ErrorKind::Corrupt),
        Err(error) => assert_eq!(error.kind(), annals_wal::ErrorKind::Corrupt, "{error}"),
    }
    assert_eq!(other.ops(), ops);
    assert_eq!(other.bytes(&newest).unwrap(), bytes);
}

/// Not a refusal, and not silence: a watch that a trim overtakes says so and ends.
#[test]
fn a_watch_that_is_overtaken_says_lagged_last() {
    let disk = MemDir::new(1);
    let registry =
        Options::new().trim(Trim::ToHolds).snapshot_bytes(0).on(open_log(&disk)).unwrap();
    registry.put(&key("k"), json(0)).unwrap();
    let mut watch =
        registry.watch(prefix("k"), After::Revision(RegistryReader::revision_at(Lsn::FIRST)));
    let watch = watch.as_mut().unwrap();
    for n in 1..=6 {
        registry.put(&key("k"), json(n)).unwrap();
        registry.log().append(vec![7; 50_000]).unwrap();
        registry.checkpoint().unwrap();
    }
    let told: Vec<Event> = std::iter::from_fn(|| watch.try_next().unwrap()).collect();
    assert!(matches!(told.last(), Some(Event::Lagged { .. })), "{told:?}");
}
