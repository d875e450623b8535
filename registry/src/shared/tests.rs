//! Promotion by a reader, when the call that made a change durable has not come to it yet.

use annals_wal::fs::mem::MemDir;

use super::*;
use crate::key::Key;
use crate::rebuild::rebuild;
use crate::value::Value;

#[test]
fn a_reader_promotes_what_the_log_says_is_durable() {
    let log = annals_wal::Options::new().open_in(MemDir::new(1).dir()).unwrap();
    let meter = Meter::default();
    let rebuilt = rebuild(&log, &meter).unwrap();
    let shared = Shared::new(log.clone(), Options::new(), meter, rebuilt, Arc::default());
    let key = Key::new("k").unwrap();
    let changes = vec![Change::Put { key: key.clone(), value: Value::raw(*b"v") }];
    let (mut batch, _) = shared.encode(&changes, None, &annals_wal::NoneBefore).unwrap();
    let mut changes = Some(changes);
    let ordered = shared.log.ordered(|slot| {
        let lsn = *slot.push(&mut batch)?.end();
        shared.state().apply(Transaction { lsn, changes: changes.take().unwrap() });
        Ok(())
    });
    ordered.unwrap().pending.unwrap().wait().unwrap();
    assert!(shared.durable().get(&key).is_none(), "nobody has promoted it");
    assert!(shared.durable_now().get(&key).is_some());
}

#[test]
fn promotion_follows_the_log_past_records_of_other_rooms() {
    let log = annals_wal::Options::new().open_in(MemDir::new(1).dir()).unwrap();
    let meter = Meter::default();
    let rebuilt = rebuild(&log, &meter).unwrap();
    let shared = Shared::new(log.clone(), Options::new(), meter, rebuilt, Arc::default());
    for n in 1..=3 {
        shared.log.append("an entry of somebody else").unwrap();
        drop(shared.durable_now());
        assert_eq!(shared.promoted.load(Ordering::Acquire), n);
    }
}
