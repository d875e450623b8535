//! The way back: what a registry finds in a log.

use annals_registry::{ErrorKind, HOLD, Lsn, Prefix, Registry, TRANSACTION};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Codec, Kind, Log, Record};

use crate::support::{add, json, key, number, open, open_log};

fn close(registry: Registry) {
    registry.log().clone().close().unwrap();
}

fn fill(registry: &Registry) {
    for n in 0..20 {
        registry.put(&key(format!("agents/A{n}")), json(n)).unwrap();
    }
    registry.put(&key("agents/A3"), json(33)).unwrap();
    registry.delete(&key("agents/A4")).unwrap();
    add(registry, &key("count"), 19);
}

#[test]
fn a_registry_comes_back_after_a_close_and_after_a_drop() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    fill(&registry);
    let before = registry.scan(&Prefix::all());
    assert_eq!(before.len(), 20);
    close(registry);

    let registry = open(&disk);
    assert_eq!(registry.scan(&Prefix::all()), before, "revisions too, after a close");
    let revision = registry.get(&key("agents/A3")).unwrap().revision;
    assert!(registry.put(&key("agents/A3"), json(34)).unwrap() > revision);
    drop(registry);

    let registry = open(&disk);
    assert_eq!(number(&registry, &key("agents/A3")), Some(34), "after a drop without a close");
    assert_eq!(registry.scan(&Prefix::all()).len(), 20);
}

#[test]
fn records_of_other_kinds_are_skipped_unread() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    for (n, kind) in [0x0000, 0x0101, 0x0200, 0x7fff].into_iter().enumerate() {
        let record = Record::new("no transaction").kind(Kind::new(kind).unwrap());
        registry.log().append(record.codec(Codec::BINCODE)).unwrap();
        registry.put(&key("k"), json(n as u64)).unwrap();
    }
    drop(registry);
    assert_eq!(number(&open(&disk), &key("k")), Some(3));
}

#[test]
fn the_hold_is_there_once_and_stops_a_trim() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    let hold = [(HOLD.to_owned(), Lsn::FIRST)];
    assert_eq!(registry.log().holds(), hold);
    for _ in 0..3 {
        registry.log().append(vec![0; 40_000]).unwrap();
    }
    registry.put(&key("k"), json(1)).unwrap();
    assert_eq!(registry.log().trim(Lsn::new(3).unwrap()).unwrap(), Lsn::FIRST);
    close(registry);
    let registry = open(&disk);
    assert_eq!(registry.log().holds(), hold);
    assert_eq!(number(&registry, &key("k")), Some(1));
}

#[test]
fn the_hold_is_written_only_where_it_is_not_at_the_start() {
    let disk = MemDir::new(1);
    let log = open_log(&disk);
    log.append("an entry of somebody else").unwrap();
    log.set_hold(HOLD, Lsn::new(2).unwrap()).unwrap();
    drop(Registry::on(log.clone()).unwrap());
    assert_eq!(log.holds(), [(HOLD.to_owned(), Lsn::FIRST)], "without a snapshot all is needed");
    let before = disk.ops();
    drop(Registry::on(log.clone()).unwrap());
    assert_eq!(disk.ops(), before, "building it again writes nothing");
}

#[test]
fn a_log_whose_start_is_gone_is_refused_and_left_as_it_is() {
    let disk = MemDir::new(1);
    let log = open_log(&disk);
    for _ in 0..5 {
        log.append(vec![0; 40_000]).unwrap();
    }
    assert!(log.trim(Lsn::new(4).unwrap()).unwrap() > Lsn::FIRST);
    let error = Registry::on(log.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Trimmed);
    assert!(error.to_string().contains("LSN 4"), "{error}");
    assert_eq!(log.holds(), []);
}

fn with_foreign_payload(payload: &[u8]) -> (Log, annals_registry::Error) {
    let registry = open(&MemDir::new(1));
    registry.put(&key("k"), json(1)).unwrap();
    let record = Record::new(payload).kind(TRANSACTION).codec(Codec::BINCODE);
    registry.log().append(record).unwrap();
    let log = registry.log().clone();
    drop(registry);
    let error = Registry::on(log.clone()).unwrap_err();
    (log, error)
}

#[test]
fn a_transaction_that_cannot_be_read_fails_the_whole_with_its_lsn() {
    let (_, error) = with_foreign_payload(b"sk-secret");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "its version would be 0x732d6b73");
    let (_, error) = with_foreign_payload(b"\0\0\0\0sk-secret");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("LSN 2"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    let (log, error) = with_foreign_payload(b"");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(log.durable_lsn(), Lsn::new(2), "nothing was written");
}
