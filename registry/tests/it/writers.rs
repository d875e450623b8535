//! Writers and sequences: a retry after *unknown* is made once, and nothing else passes for one.

use std::time::Duration;

use annals_registry::{
    Abort, Change, ErrorKind, Expected, Met, Options, Precondition, Registry, Sweeper, TxResult,
    WriterId, Writers, Written,
};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::gate::gated_log;
use crate::support::{HandClock, add, json, key, number, open, open_log};

fn put(n: u64) -> [Change; 1] {
    [Change::Put { key: key("k"), value: json(n) }]
}

fn revision<T, C>(written: Written<T, C>) -> annals_registry::Revision {
    match written {
        Written::Done { revision: Some(revision), .. } => revision,
        _ => panic!("not done"),
    }
}

#[test]
fn an_equal_request_with_the_last_sequence_is_recognised() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    let mut writer = registry.writer().unwrap();
    let (id, sequence) = (writer.id(), writer.sequence());
    let made = revision(writer.commit(&[], &put(1)).unwrap());
    assert_eq!(writer.sequence(), sequence + 1);
    registry.put(&key("k"), json(5)).unwrap();
    drop((writer, registry));

    let registry = open(&disk.crash(Keep::Nothing));
    let mut again = registry.resume_writer(id, sequence);
    assert_eq!(again.commit(&[], &put(1)).unwrap(), Written::AlreadyDone(made));
    assert_eq!(number(&registry, &key("k")), Some(5), "not applied again");
    assert_eq!(again.sequence(), sequence + 1);
    revision(again.commit(&[], &put(2)).unwrap());
    assert_eq!(number(&registry, &key("k")), Some(2));
}

#[test]
fn other_requests_lower_sequences_and_gaps_are_bad() {
    let registry = open(&MemDir::new(1));
    let mut writer = registry.writer().unwrap();
    for n in 1..=3 {
        revision(writer.commit(&[], &put(n)).unwrap());
    }
    let before = registry.log().durable_lsn();
    let bad = |sequence, n, preconditions: &[Precondition]| {
        let error = registry.resume_writer(writer.id(), sequence).commit(preconditions, &put(n));
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadSequence);
        assert!(!error.outcome_unknown());
        error.to_string()
    };
    assert!(bad(3, 4, &[]).contains("another request"));
    let absent = [Precondition { key: key("k"), expected: Expected::Absent }];
    assert!(bad(3, 3, &absent).contains("another request"), "preconditions count too");
    assert!(bad(2, 2, &[]).contains("later ones"));
    assert!(bad(5, 5, &[]).contains("missing"));
    assert!(bad(0, 5, &[]).contains("later ones"), "0 is nobody's");
    assert_eq!(registry.log().durable_lsn(), before);
    assert_eq!(number(&registry, &key("k")), Some(3));
}

#[test]
fn an_unknown_writer_is_expired_and_the_outcome_still_unknown() {
    let registry = open(&MemDir::new(1));
    let error = registry.resume_writer(WriterId::from(9), 1).commit(&[], &put(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriterExpired);
    assert!(error.outcome_unknown(), "an earlier attempt may have been made");
    assert_eq!(registry.get(&key("k")), None);
}

#[test]
fn refusals_and_empty_transactions_consume_no_sequence() {
    let registry = open(&MemDir::new(1));
    let mut writer = registry.writer().unwrap();
    let expected = [Precondition { key: key("k"), expected: Expected::Any }];
    let absent = [Precondition { key: key("k"), expected: Expected::Absent }];
    revision(writer.commit(&expected, &put(1)).unwrap());
    let current = registry.get(&key("k"));
    let met = Written::Refused(Met { key: key("k"), current });
    assert_eq!(writer.commit(&absent, &put(2)).unwrap(), met);
    assert_eq!(writer.sequence(), 2);
    let read = writer.transact(b"read", |tx| -> TxResult<_> { Ok(tx.get(&key("k"))?) });
    assert_eq!(read.unwrap(), Written::Done { value: Some(json(1)), revision: None });
    let aborted =
        writer.transact(b"abort", |_| -> TxResult<(), &str> { Err(Abort::Because("no")) });
    assert_eq!(aborted.unwrap(), Written::Refused("no"));
    assert_eq!(writer.commit(&[], &[]).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(writer.sequence(), 2);
}

#[test]
fn a_transactions_token_names_it() {
    let registry = open(&MemDir::new(1));
    let mut writer = registry.writer().unwrap();
    let increment = |writer: &mut annals_registry::Writer, token: &[u8]| {
        writer.transact(token, |tx| -> TxResult<u64> {
            let n = tx.get_json::<u64>(&key("n"))?.unwrap_or(0) + 1;
            tx.put_json(&key("n"), &n)?;
            Ok(n)
        })
    };
    let made = revision(increment(&mut writer, b"first").unwrap());
    let mut again = registry.resume_writer(writer.id(), 1);
    assert_eq!(increment(&mut again, b"first").unwrap(), Written::AlreadyDone(made));
    let mut other = registry.resume_writer(writer.id(), 1);
    assert_eq!(increment(&mut other, b"other").unwrap_err().kind(), ErrorKind::BadSequence);
    assert_eq!(number(&registry, &key("n")), Some(1));
}

/// The sync fails, nobody knows, and the reopened log can tell, either way.
#[test]
fn after_unknown_the_reopened_log_says_what_became_of_it() {
    for arrived in [false, true] {
        let (disk, gate, log) = gated_log();
        let registry = Registry::on(log).unwrap();
        add(&registry, &key("n"), 10);
        let mut writer = registry.writer().unwrap();
        let (id, sequence) = (writer.id(), writer.sequence());
        let change = [Change::Put { key: key("n"), value: json(11) }];
        std::thread::scope(|scope| {
            let _closed = gate.close();
            let call = scope.spawn(|| {
                let error = writer.commit(&[], &change).unwrap_err();
                assert!(error.outcome_unknown());
                assert!(writer.is_in_doubt());
                let again = writer.commit(&[], &change).unwrap_err();
                assert_eq!(again.kind(), ErrorKind::BadSequence, "not before a reopening");
            });
            gate.wait_for_sync();
            gate.fail();
            call.join().unwrap();
        });
        drop((writer, registry));
        let keep = if arrived { Keep::Everything } else { Keep::Nothing };
        let registry = open(&disk.crash(keep));
        let found = number(&registry, &key("n")).unwrap();
        assert_eq!(found, if arrived { 11 } else { 10 });
        let mut writer = registry.resume_writer(id, sequence);
        let retried = writer.commit(&[], &change).unwrap();
        assert_eq!(matches!(retried, Written::AlreadyDone(_)), arrived);
        assert_eq!(number(&registry, &key("n")), Some(11), "once, in either case");
    }
}

#[test]
fn a_pool_lends_each_thread_a_writer_of_its_own() {
    let registry = Options::new().attempts_max(1000).on(open_log(&MemDir::new(1))).unwrap();
    let pool = Writers::new(registry.clone());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..10 {
                    let change =
                        [Change::Put { key: key(format!("{thread}/{n}")), value: json(n) }];
                    revision(pool.with(|writer| writer.commit(&[], &change)).unwrap().unwrap());
                }
            });
        }
    });
    assert_eq!(registry.scan(&annals_registry::Prefix::all()).len(), 40);
}

#[test]
fn a_sweep_forgets_writers_that_are_idle_and_no_others() {
    let clock = std::sync::Arc::new(HandClock::default());
    let log = open_log(&MemDir::new(1));
    let registry = Options::new().clock(clock.clone()).on(log).unwrap();
    let (mut busy, mut idle) = (registry.writer().unwrap(), registry.writer().unwrap());
    let idle_for = Duration::from_secs(60);
    let mut sweeper = Sweeper::new(registry.clone(), "test").writer_idle(idle_for);
    sweeper.sweep().unwrap();
    clock.go_on(59_999);
    revision(busy.commit(&[], &put(1)).unwrap());
    assert_eq!(sweeper.sweep().unwrap().writers, []);
    clock.go_on(1);
    assert_eq!(sweeper.sweep().unwrap().writers, [idle.id()]);
    assert_eq!(idle.commit(&[], &put(2)).unwrap_err().kind(), ErrorKind::WriterExpired);
    revision(busy.commit(&[], &put(3)).unwrap());
}
