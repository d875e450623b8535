//! Registry and observer on one log: checkpoints of the one take no entry of the other with them.
//!
//! 20,000 entries here; `ANNALS_ENTRIES=1000000` for a million.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeSet;

use annals_observer::{EntryKind, Level, Observer};
use annals_registry::{Key, Options, Registry, Trim, Value};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Log, Lsn};

fn entries_of(log: &Log) -> Vec<Lsn> {
    let mut records = log.range(..).unwrap();
    let mut lsns = Vec::new();
    while let Some(record) = records.next_ref() {
        let record = record.unwrap();
        if EntryKind::of_record(record.kind).is_some() {
            lsns.push(record.lsn);
        }
    }
    lsns
}

/// The entries after some checkpoints, and those there were.
fn run(trim: Trim, hold: Option<u64>) -> (u64, u64, Vec<Lsn>, Vec<Lsn>) {
    let count: u64 = std::env::var("ANNALS_ENTRIES").map_or(20_000, |n| n.parse().unwrap());
    let disk = MemDir::new(1);
    let log = annals_wal::Options::new().segment_bytes(1 << 20).open_in(disk.dir()).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let registry = Options::new().trim(trim).snapshot_bytes(0).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let key = Key::new("count").unwrap();
    let (mut made, mut all) = (0, BTreeSet::new());
    while made < count {
        let open = session.tool("search").level(Level::Ordered).start().unwrap();
        let mut open = open;
        open.end_ok(annals_observer::JsonText::string("found")).unwrap();
        made += 2;
        if made % 1000 == 0 {
            observer.flush().unwrap();
            registry.put(&key, Value::json(&made).unwrap()).unwrap();
        }
        if made == count / 2
            && let Some(permille) = hold
        {
            let at = log.durable_lsn().unwrap().get() * permille / 1000;
            log.set_hold("audit", Lsn::new(at.max(1)).unwrap()).unwrap();
        }
        if made % (count / 5) == 0 {
            observer.flush().unwrap();
            all.extend(entries_of(&log));
            registry.checkpoint().unwrap();
        }
    }
    observer.flush().unwrap();
    all.extend(entries_of(&log));
    registry.checkpoint().unwrap();
    let held = log.holds().into_iter().find(|(name, _)| name == "audit").map(|(_, lsn)| lsn.get());
    let entries = entries_of(&log);
    drop((registry, observer));
    let registry = Registry::on(log).unwrap();
    assert_eq!(registry.get_json::<u64>(&key).unwrap(), Some(made));
    (made, held.unwrap_or(0), entries, all.into_iter().collect())
}

/// By default nobody's entries go, hold or no hold.
#[test]
fn a_checkpoint_keeps_every_entry() {
    let (made, _, entries, _) = run(Trim::OwnRecords, None);
    assert_eq!(entries.len() as u64, made);
}

/// Trimmed to the holds: everything from the audit's hold on is there, and something went.
#[test]
fn a_trim_to_the_holds_keeps_what_a_hold_needs() {
    let (made, held, entries, all) = run(Trim::ToHolds, Some(500));
    assert!(held > 1 && (entries.len() as u64) < made, "something was trimmed");
    // What stood at and above the hold before is there still.
    let needed = all.iter().filter(|lsn| lsn.get() >= held);
    assert!(needed.eq(entries.iter().filter(|lsn| lsn.get() >= held)));
    println!("{made} entries, {} kept, hold at LSN {held}", entries.len());
}
