//! Is every acknowledged record in an archive, in the log, or in both, wherever power goes during a
//! hand-over, and is every sync of one needed?
//!
//! Log and archive are directories of one crashable disk. The sweep of `cargo xtask crash-sweep` goes
//! further (`xtask/src/world/life/archives.rs`); here is what a test suite has time for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_observer::archive::union::union_in;
use annals_observer::archive::verify::verify_in;
use annals_observer::archive::{MANIFEST, Target};
use annals_wal::fs::gate::{Gate, eio};
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};
use annals_wal::fs::{Dir, SyncPoint};
use annals_wal::{Batch, Log, Lsn, Options, Record};

fn open(disk: &MemDir) -> Log {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap()
}

/// Two records that fill most of a segment.
fn two(n: u8) -> Batch<'static> {
    (0..2).map(|_| Record::new(vec![n; 25_000])).collect()
}

fn holds(log: &Log, name: &str) -> bool {
    log.holds().iter().any(|(hold, _)| hold == name)
}

/// How many records archive and log have together, from the first on; each must be what was written there.
fn together(log: &Log, to: &MemDir) -> Result<u64, String> {
    let archives: Vec<Arc<dyn Dir>> =
        to.names().iter().filter(|name| *name == MANIFEST).map(|_| to.dir()).collect();
    let records = union_in(log, &archives, Lsn::FIRST).map_err(|e| e.to_string())?;
    let record = |record: annals_observer::Result<annals_wal::StoredRecord>| {
        record.map(|r| (r.lsn.get(), r.payload)).map_err(|e| e.to_string())
    };
    let records = records.map(record).collect::<Result<BTreeMap<u64, Vec<u8>>, String>>()?;
    // Two records each, the last two by whoever looks.
    let last = records.len() as u64;
    for (lsn, payload) in records {
        let n = if lsn + 2 > last { 9 } else { (lsn - 1) as u8 / 2 };
        if payload != vec![n; 25_000] {
            return Err(format!("LSN {lsn} is another record"));
        }
    }
    Ok(last)
}

/// One life: appends and hand-overs, five times, by one target or by a new one each time. Returns how
/// many records were acknowledged, and whether every hand-over came to its end.
fn live(disk: &MemDir, copy: bool, new: bool) -> (u64, bool) {
    let Ok(log) = Options::new().segment_bytes(64 << 10).open_in(disk.dir()) else {
        return (0, false);
    };
    let to = disk.beside("to").dir();
    let target = || Target::in_dir("t", to.clone()).unwrap().copy(copy);
    let same = target();
    let mut acknowledged = 0;
    for n in 0..5 {
        match log.append_batch(two(n)) {
            Ok(lsns) => acknowledged = lsns.end().get(),
            Err(_) => return (acknowledged, false),
        }
        let handed = if new { target().hand_over(&log) } else { same.hand_over(&log) };
        let Ok(handed) = handed else { return (acknowledged, false) };
        // What the hand-over has promised may go.
        if n == 3 && log.trim(handed.next_lsn).is_err() {
            return (acknowledged, false);
        }
    }
    (acknowledged, true)
}

/// After a crash: what the log waits for goes, as far as it lets it; nothing is lost by that, and the
/// same archive is gone on with.
fn check(disk: &MemDir, acknowledged: u64, copy: bool) -> Result<bool, String> {
    let (log, to) = (open(disk), disk.beside("to"));
    let next = log.append_batch(two(9)).map_err(|e| e.to_string())?.end().next();
    let held = holds(&log, "archive:t") || holds(&log, "archive?t");
    // The log waits for a target before anything is made for it.
    if !held && to.dir().list().is_ok() {
        return Err("there is a directory, and the log waits for nobody".to_owned());
    }
    if held {
        log.trim(next.unwrap()).map_err(|e| e.to_string())?;
        let there = together(&log, &to)?;
        if there < acknowledged + 2 {
            return Err(format!("{there} of {} records are there", acknowledged + 2));
        }
    }
    let target = Target::in_dir("t", to.dir()).unwrap().copy(copy);
    let handed = target.hand_over(&log).map_err(|e| e.to_string())?;
    log.trim(handed.next_lsn).map_err(|e| e.to_string())?;
    verify_in(&to.dir()).map_err(|e| e.to_string())?;
    let there = together(&log, &to)?;
    let names = to.names();
    let left = names.iter().find(|name| name.contains("ARCHIVE.") && !name.ends_with("lock"));
    match left {
        _ if there < acknowledged + 2 => Err(format!("{there} records in the end")),
        Some(name) => Err(format!("{name} is left for ever")),
        None => Ok(held),
    }
}

/// Stops the machine before every operation of a life, and keeps of what was not synced nothing, all
/// and some. Returns how many crashes found a hold.
fn sweep(copy: bool, new: bool, left_out: Option<SyncPoint>) -> Result<u32, String> {
    let begun = || {
        let disk = MemDir::new(7);
        disk.leave_out(left_out);
        disk
    };
    let whole = begun();
    let (_, done) = live(&whole, copy, new);
    assert!(done, "undisturbed");
    let mut held = 0;
    for stop in 0..=whole.ops() {
        let disk = begun();
        disk.stop_after(stop);
        let (acknowledged, _) = live(&disk, copy, new);
        let some = (0..3).map(|n| Keep::Some(stop * 31 + n));
        for keep in [Keep::Nothing, Keep::Everything].into_iter().chain(some) {
            let at = |why| format!("stopped after {stop} operations, {keep:?}: {why}");
            held += u32::from(check(&disk.crash(keep), acknowledged, copy).map_err(at)?);
        }
        let killed = check(&disk.killed(), acknowledged, copy);
        held += u32::from(killed.map_err(|why| format!("killed after {stop}: {why}"))?);
    }
    Ok(held)
}

#[test]
fn a_hand_over_by_links_loses_nothing_wherever_power_goes() {
    for new in [false, true] {
        assert!(sweep(false, new, None).unwrap() > 300);
    }
}

#[test]
fn a_hand_over_by_copies_loses_nothing_wherever_power_goes() {
    for new in [false, true] {
        assert!(sweep(true, new, None).unwrap() > 300);
    }
}

fn needed(point: SyncPoint, copy: bool) {
    match sweep(copy, false, Some(point)) {
        Ok(_) => panic!("survived without {point:?}: is it needed?"),
        Err(violation) => println!("without {point:?}: {violation}"),
    }
}

#[test]
fn the_sync_of_an_archives_parent_is_needed() {
    needed(SyncPoint::ArchiveParent, false);
}

#[test]
fn the_sync_of_a_copied_segment_is_needed() {
    needed(SyncPoint::ArchiveCopy, true);
}

#[test]
fn the_sync_of_an_archives_names_is_needed() {
    needed(SyncPoint::ArchiveNames, false);
}

#[test]
fn the_sync_of_an_archives_manifest_is_needed() {
    needed(SyncPoint::ArchiveManifest, false);
}

#[test]
fn the_directory_sync_behind_an_archives_manifest_is_needed() {
    needed(SyncPoint::ArchiveListed, false);
}

/// A log that somebody copied to where it is, with a tool that synced the names and no file: what an
/// archive links of it must be made durable first.
#[test]
fn the_sync_of_a_segment_before_its_link_is_needed() {
    let archived = |left_out: Option<SyncPoint>, fails: bool| {
        let original = MemDir::new(8);
        let log = open(&original);
        for n in 0..4 {
            log.append_batch(two(n)).unwrap();
        }
        log.close().unwrap();
        let disk = MemDir::new(9);
        disk.leave_out(left_out);
        let dir = disk.dir();
        dir.make().unwrap();
        for name in original.names() {
            let file = dir.create(&name).unwrap();
            file.write_at(&original.bytes(&name).unwrap(), 0).unwrap();
        }
        let log = open(&disk);
        let to = disk.beside("to");
        if fails {
            // Its sync fails, and so does the copy that is made for that. A sync that was asked again
            // would say that all is well.
            disk.fail_sync(SyncPoint::ArchivedSegment, 0, SyncFailure::CleanNew);
            let gate = Gate::new(to.dir(), |what| match what {
                "sync ArchiveCopy" => Err(eio()),
                _ => Ok(()),
            });
            Target::in_dir("t", gate).unwrap().hand_over(&log).unwrap_err();
        }
        let handed = Target::in_dir("t", to.dir()).unwrap().hand_over(&log).unwrap();
        assert!(handed.segments >= 3, "{handed:?}");
        verify_in(&disk.crash(Keep::Nothing).beside("to").dir())
    };
    assert_eq!(archived(None, false).unwrap().segments, 3);
    assert_eq!(archived(None, true).unwrap().segments, 3, "a sync is not tried again");
    let error = archived(Some(SyncPoint::ArchivedSegment), false).unwrap_err();
    println!("without it: {error}");
}
