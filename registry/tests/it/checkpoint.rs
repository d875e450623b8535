//! Snapshots: what they hold, in what order they come to be, and what damage does to an opening.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use annals_registry::{
    Change, Commit, ErrorKind, HOLD, Lsn, Options, Prefix, Registry, Trim, WriterId,
};
use annals_wal::fs::SyncPoint;
use annals_wal::fs::gate::{Door, Gate, eio};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::support::{add, json, key, meanwhile, number, open, open_log, seeds};

fn open_trimming(disk: &MemDir) -> Registry {
    Options::new().trim(Trim::ToHolds).snapshot_bytes(0).on(open_log(disk)).unwrap()
}

fn snapshots(disk: &MemDir) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("registry-")).collect()
}

fn hold(registry: &Registry) -> Lsn {
    registry.log().holds().into_iter().find(|(name, _)| name == HOLD).unwrap().1
}

#[test]
fn a_registry_comes_back_from_a_snapshot_and_what_follows() {
    let disk = MemDir::new(1);
    let registry = open_trimming(&disk);
    let lease = registry.grant(Duration::from_secs(1), "A7").unwrap();
    let mut writer = registry.writer().unwrap();
    let change = [Change::Put { key: key("w"), value: json(1) }];
    let _ = writer.commit(&[], &change).unwrap();
    for n in 0..30 {
        registry.put_leased(&key(format!("agents/{}", n % 7)), json(n), lease.id).unwrap();
        registry.put(&key("gone"), json(n)).unwrap();
        registry.log().append(vec![7; 9_000]).unwrap();
        if n % 10 == 9 {
            registry.delete(&key("gone")).unwrap();
            registry.checkpoint().unwrap();
        }
    }
    registry.put(&key("late"), json(1)).unwrap();
    let before = registry.scan(&Prefix::all());
    assert!(registry.log().head_lsn() > Lsn::FIRST, "the log was trimmed");
    assert_eq!(snapshots(&disk).len(), 2, "two are kept");
    let id: WriterId = writer.id();
    drop((writer, registry));

    let registry = open_trimming(&disk.crash(Keep::Nothing));
    assert_eq!(registry.scan(&Prefix::all()), before, "revisions and bindings too");
    assert_eq!(registry.lease(lease.id).unwrap(), Some(lease.clone()));
    let again = registry.resume_writer(id, 1).commit(&[], &change).unwrap();
    assert!(matches!(again, annals_registry::Written::AlreadyDone(_)), "writers too");
    assert_eq!(registry.revoke(lease.id, "me", "test").unwrap().len(), 7);
}

#[test]
fn the_first_snapshot_moves_no_hold_and_the_second_moves_it_to_the_first() {
    let disk = MemDir::new(1);
    let registry = open_trimming(&disk);
    let first = registry.put(&key("k"), json(1)).unwrap();
    assert_eq!(registry.checkpoint().unwrap().hold, Lsn::FIRST);
    registry.put(&key("k"), json(2)).unwrap();
    let made = registry.checkpoint().unwrap();
    assert_eq!(made.hold, first.lsn().next().unwrap());
    assert_eq!(hold(&registry), made.hold);
    // As new as can be: nothing is written again.
    let (ops, again) = (disk.ops(), registry.checkpoint().unwrap());
    assert_eq!((again.bytes, again.revision, disk.ops()), (0, made.revision, ops));
}

#[test]
fn an_empty_registry_has_nothing_to_snapshot() {
    let disk = MemDir::new(1);
    let made = open(&disk).checkpoint().unwrap();
    assert_eq!((made.revision, made.bytes), (None, 0));
    assert_eq!(snapshots(&disk), Vec::<String>::new());
}

/// Other rooms' records stay unless a caller says otherwise, hold or no hold.
#[test]
fn a_checkpoint_takes_no_entries_of_other_rooms_with_it() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    registry.log().append("an entry of the observer").unwrap();
    for n in 0..6 {
        for _ in 0..40 {
            registry.put(&key("k"), annals_registry::Value::raw(vec![7; 1000])).unwrap();
        }
        add(&registry, &key("n"), n);
        registry.checkpoint().unwrap();
    }
    assert!(hold(&registry) > Lsn::FIRST);
    assert_eq!(registry.log().head_lsn(), Lsn::FIRST);

    // Nothing but the registry's own: it goes.
    let disk = MemDir::new(2);
    let registry = open(&disk);
    for n in 0..6 {
        for _ in 0..40 {
            registry.put(&key("k"), annals_registry::Value::raw(vec![7; 1000])).unwrap();
        }
        add(&registry, &key("n"), n);
        registry.checkpoint().unwrap();
    }
    assert!(registry.log().head_lsn() > Lsn::FIRST);
}

struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Writers go on while the snapshot is written, and it holds one moment all the same.
#[test]
fn a_snapshot_is_of_one_moment() {
    for seed in seeds(5) {
        let disk = MemDir::new(seed);
        // The log is kept, so that what it says can be compared.
        let patient = Options::new().attempts_max(100_000).trim(Trim::Never);
        let registry = patient.on(open_log(&disk)).unwrap();
        let keys: Vec<_> = (0..2_000).map(|n| key(format!("k/{n:04}"))).collect();
        let changes = |n: u64| -> Vec<Change> {
            keys.iter()
                .step_by(37)
                .map(|k| Change::Put { key: k.clone(), value: json(n) })
                .collect()
        };
        let all: Vec<_> =
            keys.iter().map(|k| Change::Put { key: k.clone(), value: json(0) }).collect();
        assert!(matches!(registry.commit(&[], &all), Ok(Commit::Done(_))));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1.. {
                    let _ = registry.commit(&[], &changes(n)).unwrap();
                    // Keys that come and go ahead of and behind the cursor.
                    registry.put(&key(format!("k/{:04}x", n % 2_000)), json(n)).unwrap();
                    registry.delete(&key(format!("k/{:04}x", (n * 7) % 2_000))).unwrap();
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
            // A failure here must not leave the writer running for ever.
            let stopped = StopOnDrop(&stop);
            for _ in 0..4 {
                let made = registry.checkpoint().unwrap();
                let revision = made.revision.unwrap();
                let (copy, without) = (disk.killed(), disk.killed());
                snapshots(&without).iter().for_each(|name| without.lose(name));
                let (opened, replayed) = (open(&copy), open(&without));
                // What the file says is what the log alone says up to there.
                let from_file = opened.as_of(revision).unwrap();
                let from_log = replayed.as_of(revision).unwrap();
                let seen: Vec<_> = from_file.scan(&Prefix::all()).collect();
                assert_eq!(seen, from_log.scan(&Prefix::all()).collect::<Vec<_>>());
                let values: std::collections::BTreeSet<_> = keys
                    .iter()
                    .step_by(37)
                    .map(|k| from_file.get(k).unwrap().value.bytes().to_vec())
                    .collect();
                assert_eq!(values.len(), 1, "half of a transaction");
            }
            drop(stopped);
            writer.join().unwrap();
        });
    }
}

/// A log with two snapshots, trimmed to the older one, and what the registry then holds.
fn two_snapshots(seed: u64) -> (MemDir, Vec<(annals_registry::Key, annals_registry::Entry)>) {
    let disk = MemDir::new(seed);
    let registry = open_trimming(&disk);
    for n in 0..3 {
        for _ in 0..4 {
            add(&registry, &key("n"), 1);
            registry.put(&key(format!("k/{n}")), json(n)).unwrap();
            registry.log().append(vec![7; 20_000]).unwrap();
        }
        if n < 2 {
            registry.checkpoint().unwrap();
        }
    }
    let state = registry.scan(&Prefix::all());
    registry.log().clone().close().unwrap();
    (disk, state)
}

#[test]
fn every_damaged_byte_of_the_newest_snapshot_gives_way_to_the_older_one() {
    let (disk, state) = two_snapshots(1);
    let newest = snapshots(&disk).pop().unwrap();
    let bytes = disk.bytes(&newest).unwrap();
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let copy = disk.killed();
        let mut bytes = bytes.clone();
        change(&mut bytes);
        copy.set_bytes(&newest, bytes);
        copy
    };
    for at in 0..bytes.len() {
        let copy = damaged(&|bytes| bytes[at] ^= 1 << (at % 8));
        let registry = open(&copy);
        assert_eq!(registry.scan(&Prefix::all()), state, "byte {at}");
        assert_eq!(registry.metrics().corrupt, 1, "byte {at}");
    }
    for len in [0, 1, 127, 128, bytes.len() / 2, bytes.len() - 1] {
        let copy = damaged(&|bytes| bytes.truncate(len));
        assert_eq!(open(&copy).scan(&Prefix::all()), state, "cut at {len}");
    }
    let longer = damaged(&|bytes| bytes.push(0));
    assert_eq!(open(&longer).scan(&Prefix::all()), state, "a byte too many");

    // With a damaged one the next checkpoint keeps what the older one needs.
    let copy = damaged(&|bytes| bytes[200] ^= 1);
    let registry = open_trimming(&copy);
    let before = hold(&registry);
    add(&registry, &key("n"), 1);
    registry.checkpoint().unwrap();
    assert_eq!(hold(&registry), before, "after the older one");
    drop(registry);
    assert_eq!(number(&open(&copy), &key("n")), Some(13));
}

#[test]
fn without_a_valid_snapshot_a_trimmed_log_is_refused_and_left_as_it_is() {
    let (disk, _) = two_snapshots(1);
    for lose in [false, true] {
        let copy = disk.killed();
        for name in snapshots(&copy) {
            if lose {
                copy.lose(&name);
            } else {
                let mut bytes = copy.bytes(&name).unwrap();
                bytes[150] ^= 1;
                copy.set_bytes(&name, bytes);
            }
        }
        let log = open_log(&copy);
        let (ops, head) = (copy.ops(), log.head_lsn());
        let error = Registry::on(log.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Trimmed);
        assert!(error.to_string().contains(&format!("LSN {head}")), "{error}");
        assert_eq!(copy.ops(), ops, "nothing was changed");
    }
}

/// A file that somebody put there.
fn put_file(disk: &MemDir, name: &str, bytes: &[u8]) {
    disk.dir().create(name).unwrap().write_at(bytes, 0).unwrap();
}

#[test]
fn a_snapshot_newer_than_the_log_is_refused_by_the_log() {
    let (disk, _) = two_snapshots(1);
    let old = disk.killed();
    // The disk goes on, and its newest snapshot is put beside the old log.
    let registry = open_trimming(&disk);
    add(&registry, &key("n"), 1);
    registry.checkpoint().unwrap();
    let newest = snapshots(&disk).pop().unwrap();
    put_file(&old, &newest, &disk.bytes(&newest).unwrap());
    let ops = old.ops();
    let error = annals_wal::Options::new().open_in(old.dir()).unwrap_err();
    assert_eq!(error.kind(), annals_wal::ErrorKind::Corrupt);
    assert!(error.to_string().contains("snapshot"), "{error}");
    assert_eq!(old.ops(), ops, "nothing was changed");
}

/// A log restored from an older copy has gone on by another way: the snapshot's LSN is there, with
/// another record.
#[test]
fn a_log_older_than_the_snapshot_is_refused_and_no_older_snapshot_is_tried() {
    let disk = MemDir::new(1);
    let registry = open_trimming(&disk);
    add(&registry, &key("n"), 1);
    registry.checkpoint().unwrap();
    let old = disk.killed();
    add(&registry, &key("n"), 1);
    registry.checkpoint().unwrap();
    let newest = snapshots(&disk).pop().unwrap();

    let registry = open_trimming(&old);
    for n in 0..5 {
        registry.put(&key("other"), json(n)).unwrap();
    }
    registry.log().clone().close().unwrap();
    drop(registry);
    put_file(&old, &newest, &disk.bytes(&newest).unwrap());
    let log = open_log(&old);
    let ops = old.ops();
    let error = Registry::on(log).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("older copy"), "{error}");
    assert_eq!(old.ops(), ops, "nothing was changed");
}

#[test]
fn a_backup_takes_the_snapshots_that_it_needs_with_it() {
    let (disk, state) = two_snapshots(1);
    let registry = open_trimming(&disk);
    let copy = MemDir::new(9);
    registry.log().backup_in(copy.dir()).unwrap();
    assert_eq!(open(&copy).scan(&Prefix::all()), state);
}

#[test]
fn a_snapshot_comes_by_itself_when_the_log_has_grown() {
    let disk = MemDir::new(1);
    let options = Options::new().snapshot_bytes(4_000).trim(Trim::ToHolds);
    disk.set_background(false);
    let registry = options.clone().on(open_log(&disk)).unwrap();
    for n in 0..400 {
        add(&registry, &key(format!("k/{}", n % 3)), 1);
    }
    let metrics = registry.metrics();
    assert!((3..40).contains(&metrics.snapshots), "{metrics:?}");
    assert_eq!(snapshots(&disk).len(), 2);
    drop(registry);
    // On a thread of its own the same, and the directory is free when the registry is dropped.
    disk.set_background(true);
    for _ in 0..3 {
        let registry = options.clone().on(open_log(&disk)).unwrap();
        for n in 0..200 {
            add(&registry, &key(format!("k/{}", n % 3)), 1);
        }
    }
    let registry = open(&disk);
    let sum: u64 = (0..3).map(|n| number(&registry, &key(format!("k/{n}"))).unwrap()).sum();
    assert_eq!(sum, 1_000);
}

#[test]
fn a_snapshot_that_fails_harms_nobody() {
    for point in [SyncPoint::SnapshotFile, SyncPoint::SnapshotName] {
        let disk = MemDir::new(1);
        let registry = open_trimming(&disk);
        add(&registry, &key("n"), 1);
        registry.checkpoint().unwrap();
        add(&registry, &key("n"), 1);
        disk.fail_sync(point, 0, annals_wal::fs::mem::SyncFailure::CleanNew);
        let error = registry.checkpoint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!((hold(&registry), registry.metrics().snapshots_failed), (Lsn::FIRST, 1));
        add(&registry, &key("n"), 1);
        disk.clear_faults();
        registry.checkpoint().unwrap();
        drop(registry);
        assert_eq!(number(&open(&disk.crash(Keep::Nothing)), &key("n")), Some(3));
    }
}

/// Transactions, three checkpoints, trims; stopped after each operation, crashed in several ways.
fn script(disk: &MemDir, stop: u64) -> (u64, bool) {
    disk.stop_after(stop);
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open_in(disk.dir());
    let options = Options::new().trim(Trim::ToHolds).snapshot_bytes(0);
    let Ok(Ok(registry)) = log.map(|log| options.on(log)) else { return (0, false) };
    let (mut acknowledged, mut unknown) = (0, false);
    for n in 1..=9 {
        let changes = [
            Change::Put { key: key("n"), value: json(n) },
            Change::Put { key: key(format!("k/{n}")), value: json(n) },
        ];
        match registry.commit(&[], &changes) {
            Ok(_) => acknowledged = n,
            Err(error) => unknown |= error.outcome_unknown(),
        }
        // Segments first, then checkpoints without a rotation, whose syncs would help.
        if n <= 5 {
            let _ = registry.log().append(vec![7; 30_000]);
        }
        if n >= 6 {
            let _ = registry.checkpoint();
        }
    }
    (acknowledged, unknown)
}

/// How many crashes lost something or made the registry refuse to open.
fn sweep_crashes(left_out: Option<SyncPoint>) -> u64 {
    let whole = MemDir::new(1);
    whole.leave_out(left_out);
    script(&whole, u64::MAX);
    let (mut violations, mut crashes) = (0, 0);
    for stop in 0..=whole.ops() {
        let disk = MemDir::new(1);
        disk.leave_out(left_out);
        let (acknowledged, unknown) = script(&disk, stop);
        let keeps = [0, 1, 2, 3, 4, 5].map(Keep::Some).into_iter();
        for keep in keeps.chain([Keep::Nothing, Keep::Everything]) {
            crashes += 1;
            let after = disk.crash(keep);
            let log = annals_wal::Options::new().segment_bytes(64 << 10).open_in(after.dir());
            let found = log.map_err(|e| e.to_string()).and_then(|log| {
                let registry = Registry::on(log).map_err(|e| e.to_string())?;
                let n = number(&registry, &key("n")).unwrap_or(0);
                let keys = registry.scan(&Prefix::new("k").unwrap()).len() as u64;
                if keys == n { Ok(n) } else { Err(format!("{keys} keys at {n}")) }
            });
            let good = found
                .as_ref()
                .is_ok_and(|n| *n == acknowledged || (unknown && *n == acknowledged + 1));
            if !good {
                assert!(left_out.is_some(), "{stop} {keep:?}: {found:?} for {acknowledged}");
                violations += 1;
            }
        }
    }
    println!("{left_out:?}: {violations} violations in {crashes} crashes");
    violations
}

#[test]
fn a_crash_after_every_operation_of_checkpoints_loses_nothing() {
    assert_eq!(sweep_crashes(None), 0);
}

#[test]
fn the_sync_of_a_snapshots_bytes_is_needed() {
    assert!(sweep_crashes(Some(SyncPoint::SnapshotFile)) > 0);
}

#[test]
fn the_sync_of_a_snapshots_name_is_needed() {
    assert!(sweep_crashes(Some(SyncPoint::SnapshotName)) > 0);
}

/// The order of a checkpoint, as the disk saw it.
#[test]
fn a_checkpoint_comes_to_be_in_order() {
    let disk = MemDir::new(1);
    let registry = open_trimming(&disk);
    for n in 1..=3 {
        registry.put(&key("k"), json(n)).unwrap();
        registry.log().append(vec![7; 50_000]).unwrap();
        if n < 3 {
            registry.checkpoint().unwrap();
        }
    }
    let before = disk.trace().len();
    registry.checkpoint().unwrap();
    let trace = disk.trace();
    let trace: Vec<&str> = trace[before..].iter().map(String::as_str).collect();
    let mut from = 0;
    for step in
        ["(SnapshotFile)", "link", "(SnapshotName)", "(Group)", "(Group)", "remove registry-"]
    {
        let found = trace[from..].iter().position(|op| op.contains(step));
        from += found.unwrap_or_else(|| panic!("no {step} in order: {trace:#?}")) + 1;
    }
    assert!(trace.iter().any(|op| op.contains("(Trimmed)")), "{trace:#?}");
}

/// The same, with the writers exactly between two pieces of the file.
#[test]
fn a_snapshot_is_of_one_moment_when_its_keys_change_between_its_pieces() {
    type Hook = Mutex<Option<Box<dyn FnOnce() + Send>>>;
    let (disk, hook) = (MemDir::new(1), Arc::new(Hook::default()));
    let of_gate = hook.clone();
    let dir = Gate::new(disk.dir(), move |op| {
        if op == "sync SnapshotFile" {
            let hook = of_gate.lock().unwrap().take();
            hook.into_iter().for_each(meanwhile);
        }
        Ok(())
    });
    let log = annals_wal::Options::new().segment_bytes(1 << 20).open_in(dir).unwrap();
    let registry = Options::new().trim(Trim::Never).on(log).unwrap();
    let large = |n: u8| annals_registry::Value::raw(vec![n; 4000]);
    for n in 0..600 {
        registry.put(&key(format!("k/{n:03}")), large(1)).unwrap();
    }
    let before = registry.scan(&Prefix::all());
    let other = registry.clone();
    *hook.lock().unwrap() = Some(Box::new(move || {
        // Behind the cursor and ahead of it: changed, gone, and new; twice, too.
        for k in ["k/000", "k/599", "k/598", "k/598"] {
            other.put(&key(k), large(2)).unwrap();
        }
        other.delete(&key("k/001")).unwrap();
        other.delete(&key("k/597")).unwrap();
        other.put(&key("k/596x"), large(2)).unwrap();
    }));
    let made = registry.checkpoint().unwrap();
    assert!(hook.lock().unwrap().is_none(), "they came between");
    let after = registry.scan(&Prefix::all());
    let opened = open(&disk.killed());
    assert_eq!(opened.scan(&Prefix::all()), after, "with the transactions that followed");
    let shot = opened.as_of(made.revision.unwrap()).unwrap();
    assert!(shot.scan(&Prefix::all()).eq(before.iter().map(|(key, entry)| (key, entry))));
}

/// A registry on a hooked directory, in which something is there to make a snapshot of.
fn hooked(
    disk: &MemDir,
    options: Options,
    hook: impl Fn(&str) -> std::io::Result<()> + Send + Sync + 'static,
) -> Registry {
    let dir = Gate::new(disk.dir(), hook);
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open_in(dir).unwrap();
    let registry = options.trim(Trim::ToHolds).on(log).unwrap();
    add(&registry, &key("n"), 1);
    registry
}

fn finished(disk: &MemDir) -> Vec<String> {
    snapshots(disk).into_iter().filter(|name| name.ends_with(".snap")).collect()
}

fn files_of_snapshots(disk: &MemDir) -> Vec<String> {
    let ours = |name: &String| name.contains("registry");
    disk.names().into_iter().filter(ours).collect()
}

#[test]
fn a_snapshot_that_fails_leaves_no_file_of_its_own() {
    for step in [
        "write .",
        "sync SnapshotFile",
        "link registry-",
        "remove ",
        "dirsync SnapshotName",
        "sync Group",
    ] {
        let (disk, fails) = (MemDir::new(1), Arc::new(AtomicBool::new(false)));
        let of_hook = fails.clone();
        let registry = hooked(&disk, Options::new().snapshot_bytes(0), move |op| {
            // The file is written under a name that is none yet.
            let tmp = op.starts_with("write ") && !op.ends_with(".wal") && !op.contains("CONTROL");
            let this = if step == "write ." { tmp } else { op.starts_with(step) };
            if this && of_hook.swap(false, Ordering::SeqCst) { Err(eio()) } else { Ok(()) }
        });
        registry.checkpoint().unwrap();
        add(&registry, &key("n"), 1);
        let before = files_of_snapshots(&disk);
        fails.store(true, Ordering::SeqCst);
        let error = registry.checkpoint().unwrap_err();
        assert!(!fails.load(Ordering::SeqCst), "{step} was not met: {error}");
        assert_eq!(files_of_snapshots(&disk), before, "{step}: {error}");
        assert_eq!(registry.metrics().snapshots_failed, 1);
        drop(registry);
        assert_eq!(number(&open(&disk.crash(Keep::Nothing)), &key("n")), Some(2), "{step}");
    }
}

/// One that does not read back as it was written goes, and moves nothing.
#[test]
fn a_snapshot_that_reads_back_badly_is_removed() {
    let (disk, armed) = (MemDir::new(1), Arc::new(AtomicBool::new(false)));
    let (of_hook, hooked_disk) = (armed.clone(), disk.clone());
    let registry = hooked(&disk, Options::new().snapshot_bytes(0), move |op| {
        // After the name is durable: the checkpoint's record.
        if op == "sync Group" && of_hook.load(Ordering::SeqCst) {
            let name = snapshots(&hooked_disk).pop().unwrap();
            let mut bytes = hooked_disk.bytes(&name).unwrap();
            bytes[150] ^= 1;
            hooked_disk.set_bytes(&name, bytes);
        }
        Ok(())
    });
    registry.checkpoint().unwrap();
    add(&registry, &key("n"), 1);
    let before = files_of_snapshots(&disk);
    armed.store(true, Ordering::SeqCst);
    let error = registry.checkpoint().unwrap_err();
    armed.store(false, Ordering::SeqCst);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!((files_of_snapshots(&disk), hold(&registry)), (before, Lsn::FIRST));
    assert_eq!(registry.metrics().corrupt, 1);
    registry.checkpoint().unwrap();
}

/// What lies under our names in a directory that is not ours any more may be somebody's registry.
#[test]
fn a_snapshot_changes_no_name_in_a_directory_that_is_another_owners_by_now() {
    for step in ["sync SnapshotFile", "dirsync SnapshotName"] {
        let (disk, armed) = (MemDir::new(1), Arc::new(AtomicBool::new(false)));
        let (of_hook, hooked_disk) = (armed.clone(), disk.clone());
        let registry = hooked(&disk, Options::new().snapshot_bytes(0), move |op| {
            if op == step && of_hook.swap(false, Ordering::SeqCst) {
                hooked_disk.replace("LOCK");
            }
            Ok(())
        });
        for _ in 0..2 {
            registry.checkpoint().unwrap();
            add(&registry, &key("n"), 1);
        }
        armed.store(true, Ordering::SeqCst);
        let before = disk.trace().len();
        let error = registry.checkpoint().unwrap_err();
        assert!(error.to_string().contains("LOCK"), "{error}");
        let trace = disk.trace()[before..].to_vec();
        let at = trace.iter().position(|op| op.contains(step.split(' ').nth(1).unwrap())).unwrap();
        let changed: Vec<_> = trace[at + 1..]
            .iter()
            .filter(|op| {
                op.starts_with("link") || op.starts_with("remove") || op.contains("create")
            })
            .collect();
        assert_eq!(changed, Vec::<&String>::new(), "{step}: {trace:#?}");
        assert_eq!(registry.put(&key("n"), json(7)).unwrap_err().kind(), ErrorKind::Poisoned);
    }
}

/// A registry whose snapshot stands before a sync, on a thread of its own.
fn snapshot_behind_a_door(disk: &MemDir) -> (Registry, Arc<Door>) {
    disk.set_background(true);
    let door = Arc::new(Door::default());
    let of_hook = door.clone();
    let registry = hooked(disk, Options::new().snapshot_bytes(1), move |op| match op {
        "sync SnapshotFile" if thread::current().name() == Some("annals-snapshot") => {
            of_hook.pass()
        }
        _ => Ok(()),
    });
    while registry.metrics().snapshots + registry.metrics().snapshots_failed == 0 {
        thread::yield_now(); // the one of the first change
    }
    door.shut();
    // The turn of the one before may just be ending.
    let mut n = 0;
    let guest = thread::spawn({
        let door = door.clone();
        move || door.await_guest()
    });
    while !guest.is_finished() {
        n += 1;
        registry.put(&key("m"), json(n)).unwrap();
    }
    guest.join().unwrap();
    (registry, door)
}

/// Only a failing test waits so long.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_close_waits_for_a_snapshot_under_way_which_then_stops() {
    let disk = MemDir::new(1);
    let (registry, door) = snapshot_behind_a_door(&disk);
    let _opens = door.shut_for_now();
    let log = registry.log().clone();
    let (sender, closed) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(log.close()));
    while !registry.log().is_closed() {
        thread::yield_now();
    }
    let locked = annals_wal::Options::new().open_in(disk.dir()).unwrap_err();
    assert_eq!(locked.kind(), annals_wal::ErrorKind::Locked);
    assert!(closed.try_recv().is_err(), "it did not wait");
    let before = finished(&disk);
    door.open();
    closed.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!(files_of_snapshots(&disk), before, "it stopped, and left nothing");
    let ops = disk.ops();
    drop(registry);
    assert_eq!(disk.ops(), ops, "nobody writes there any more");
    open(&disk).log().clone().close().unwrap();
}

/// Its name depends on the LSN alone: the old registry's thread took back the next one's snapshot.
#[test]
fn the_next_registrys_snapshot_is_not_taken_back_by_the_one_before() {
    let disk = MemDir::new(1);
    let (registry, door) = snapshot_behind_a_door(&disk);
    let _opens = door.shut_for_now();
    let log = registry.log().clone();
    drop(registry);
    let next = Options::new().snapshot_bytes(0).on(log).unwrap();
    let of_thread = next.clone();
    let (sender, made) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(of_thread.checkpoint()));
    // Were it not to wait for the old one, it would be done by now.
    let early = made.recv_timeout(Duration::from_millis(200));
    door.open();
    let made = early.or_else(|_| made.recv_timeout(SOON)).unwrap().unwrap();
    next.log().clone().close().unwrap(); // which waits for the old one's end
    let name = annals_wal::format::snapshot_name(made.revision.unwrap().lsn());
    assert!(disk.names().contains(&name), "{name} is gone: {:?}", disk.names());
}

/// Nobody waits for a snapshot in a drop. It owns the directory until its step is done.
#[test]
fn dropping_the_last_handle_waits_for_no_snapshot() {
    let disk = MemDir::new(1);
    let (registry, door) = snapshot_behind_a_door(&disk);
    let _opens = door.shut_for_now();
    let log = registry.log().clone();
    let (sender, dropped) = std::sync::mpsc::channel();
    thread::spawn(move || {
        drop(registry);
        sender.send(())
    });
    dropped.recv_timeout(SOON).expect("a drop waits");
    // The next registry on the same log need not wait either.
    let next = Options::new().snapshot_bytes(0).on(log).unwrap();
    next.put(&key("n"), json(7)).unwrap();
    drop(next);
    let locked = annals_wal::Options::new().open_in(disk.dir()).unwrap_err();
    assert_eq!(locked.kind(), annals_wal::ErrorKind::Locked, "the snapshot may still write");
    let before = finished(&disk);
    door.open();
    let registry = loop {
        // A refusal comes after 200 ms, so this asks for some seconds at most.
        match annals_wal::Options::new().segment_bytes(64 << 10).open_in(disk.dir()) {
            Ok(log) => break Registry::on(log).unwrap(),
            Err(error) => assert_eq!(error.kind(), annals_wal::ErrorKind::Locked),
        }
    };
    assert_eq!(files_of_snapshots(&disk), before, "it stopped, and left nothing");
    assert_eq!(number(&registry, &key("n")), Some(7));
}
