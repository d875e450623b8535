//! A trim between the choice of a base and the replay after it.

use annals_wal::fs::mem::MemDir;

use super::*;

/// An empty base stands for all that precedes LSN 1. If the log then no longer begins there, what is
/// left of it is no state.
#[test]
fn a_trim_after_the_base_was_chosen_is_told_and_not_passed_over() {
    let disk = MemDir::new(1);
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    for n in 1..=10_u8 {
        let key = crate::Key::new(format!("k/{n}")).unwrap();
        let change = [crate::Change::Put { key, value: crate::Value::raw(vec![n; 20_000]) }];
        let payload = codec::encode_transaction(&change, None).unwrap();
        log.append(annals_wal::Record::new(payload).kind(TRANSACTION)).unwrap();
    }
    let base = base(Source::Own(&log), None, None).unwrap();
    log.trim(log.durable_lsn().unwrap()).unwrap();
    assert!(log.head_lsn() > Lsn::FIRST);
    let error = replay(Source::Own(&log), base, None).map(|(durable, _)| durable).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Log(LogErrorKind::Trimmed));
}
