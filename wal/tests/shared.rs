//! A log that several processes write: two of them on one simulated machine, each with locks of its
//! own, and each to be killed or failed while the other goes on (`docs/adr/0021`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_wal::fs::gate::{Gate, eio};
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};
use annals_wal::fs::{LockMode, SyncPoint};
use annals_wal::recover::Row;
use annals_wal::{
    Error, ErrorKind, Generation, Listen, Log, LogReader, Lsn, Options, Record, RecordRef, Sharing,
};

#[path = "shared/forged.rs"]
mod forged;

fn options() -> Options {
    let options = Options::new().segment_bytes(64 << 10).sharing(Sharing::Processes);
    options.lock_timeout(Duration::from_millis(50))
}

fn open(disk: &MemDir) -> Result<Log, Error> {
    options().open_in(disk.dir())
}

fn two() -> (MemDir, MemDir) {
    let disk = MemDir::new(1);
    (disk.as_process(11), disk.as_process(22))
}

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).unwrap()
}

fn payloads(log: &Log) -> Vec<String> {
    log.refresh().unwrap();
    let records = log.range(..).unwrap();
    records.map(|record| String::from_utf8(record.unwrap().payload).unwrap()).collect()
}

fn read(disk: &MemDir) -> Vec<String> {
    let reader = LogReader::open_in(disk.dir()).unwrap();
    let records = reader.range(..).unwrap();
    records.map(|record| String::from_utf8(record.unwrap().payload).unwrap()).collect()
}

#[test]
fn two_processes_take_turns() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    assert!(a.is_shared() && b.is_shared());
    assert!(!a.recovery().joined && b.recovery().joined);
    for n in 1..=5 {
        assert_eq!(a.append(format!("a{n}").as_str()).unwrap(), lsn(2 * n - 1));
        assert_eq!(b.append(format!("b{n}").as_str()).unwrap(), lsn(2 * n));
    }
    let expected: Vec<_> = (1..=5).flat_map(|n| [format!("a{n}"), format!("b{n}")]).collect();
    assert_eq!(payloads(&a), expected);
    assert_eq!(payloads(&b), expected);
    assert_eq!(read(&one), expected);
    // One generation: nobody had to recover.
    assert_eq!((a.generation(), b.generation()), (Generation::FIRST, Generation::FIRST));
}

#[test]
fn who_only_reads_sees_what_others_made_durable() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    let mut follow = b.follow(lsn(1)).unwrap();
    assert!(follow.try_next().unwrap().is_none());
    a.append("first").unwrap();
    assert_eq!(b.durable_lsn(), None);
    b.refresh().unwrap();
    assert_eq!(b.durable_lsn(), Some(lsn(1)));
    assert_eq!(b.get(lsn(1)).unwrap().payload, b"first");
    assert_eq!(follow.try_next().unwrap().unwrap().payload, b"first");
}

#[test]
fn a_log_is_made_for_one_process_or_for_several() {
    let (one, two) = two();
    let shared = open(&one).unwrap();
    shared.append("x").unwrap();
    let before = (one.names(), one.state_hash());
    for _ in 0..2 {
        let error = Options::new().open_in(two.dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sharing, "{error}");
        assert!(error.to_string().contains("/memory/log"), "{error}");
    }
    assert_eq!(before, (one.names(), one.state_hash()));
    shared.close().unwrap();
    assert_eq!(Options::new().open_in(two.dir()).unwrap_err().kind(), ErrorKind::Sharing);
    let joined = Options::new().sharing(Sharing::AsMade).open_in(two.dir()).unwrap();
    assert!(joined.is_shared());

    let alone = MemDir::new(2);
    drop(Options::new().open_in(alone.dir()).unwrap());
    assert_eq!(open(&alone).unwrap_err().kind(), ErrorKind::Sharing);
    let log = Options::new().sharing(Sharing::AsMade).open_in(alone.dir()).unwrap();
    assert!(!log.is_shared());
}

#[test]
fn turns_go_on_over_rotations() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    let big = "x".repeat(9_000);
    let mut expected = Vec::new();
    for n in 0..40 {
        let payload = format!("{n} {big}");
        if n % 7 < 4 {
            a.append(payload.as_str()).unwrap()
        } else {
            b.append(payload.as_str()).unwrap()
        };
        expected.push(payload);
    }
    assert_eq!(payloads(&a), expected);
    assert_eq!(payloads(&b), expected);
    assert!(one.names().iter().filter(|name| name.ends_with(".wal")).count() > 5);
    drop((a, b));
    let log = open(&one).unwrap();
    assert_eq!(payloads(&log), expected);
}

/// What one process told the other's waiters.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(u64, String)>>);

impl Listen for Heard {
    fn appended(&self, record: RecordRef<'_>) {
        let payload = String::from_utf8(record.payload.to_vec()).unwrap();
        self.0.lock().unwrap().push((record.lsn.get(), payload));
    }
}

#[test]
fn a_listener_is_told_of_others_records_before_anything_is_ordered() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("before").unwrap();
    let heard = Arc::new(Heard::default());
    let listener: Arc<dyn Listen> = heard.clone();
    assert_eq!(b.listen(&listener).unwrap(), Some(lsn(1)));
    a.append("second").unwrap();
    b.append("own").unwrap();
    a.append("fourth").unwrap();
    let seen = b.ordered_durable(|_slot| Ok(heard.0.lock().unwrap().clone())).unwrap();
    assert_eq!(seen, [(2, "second".to_owned()), (4, "fourth".to_owned())]);
    a.append("fifth").unwrap();
    b.refresh().unwrap();
    assert_eq!(heard.0.lock().unwrap().len(), 3);
    b.refresh().unwrap();
    assert_eq!(heard.0.lock().unwrap().len(), 3, "told once");
}

#[test]
fn a_turn_that_is_kept_keeps_others_out_and_ends() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    let turn = a.turn().unwrap();
    a.append("mine").unwrap();
    let error = b.append("not yet").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    let text = error.to_string();
    assert!(text.contains("/memory/log/APPEND") && text.contains("process 11"), "{text}");
    assert!(!error.outcome_unknown());
    a.append("mine too").unwrap();
    drop(turn);
    b.append("now").unwrap();
    assert_eq!(payloads(&a), ["mine", "mine too", "now"]);
}

#[test]
fn only_the_last_process_closes_the_log() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("a").unwrap();
    a.close().unwrap();
    // Now only the other could say how the log ends.
    assert_eq!(open(&one.killed()).unwrap().recovery().row, Row::APrime);
    b.append("b").unwrap();
    let again = open(&one).unwrap();
    assert!(again.recovery().joined);
    again.close().unwrap();
    b.close().unwrap();
    let log = open(&two).unwrap();
    assert_eq!((log.recovery().row, log.generation()), (Row::A, Generation::FIRST));
    assert_eq!(payloads(&log), ["a", "b"]);
}

/// Who keeps a turn may close: the turn ends when it is dropped, and then others have theirs.
#[test]
fn a_close_does_not_wait_for_a_turn_that_its_own_thread_keeps() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let turn = a.turn().unwrap();
        a.append("a").unwrap();
        let closed = a.close();
        tell.send((closed, turn)).unwrap();
    });
    let (closed, turn) = told.recv_timeout(Duration::from_secs(20)).expect("waits for ever");
    closed.unwrap();
    assert_eq!(b.append("too early").unwrap_err().kind(), ErrorKind::Locked);
    drop(turn);
    b.append("b").unwrap();
    assert_eq!(payloads(&b), ["a", "b"]);
}

#[test]
fn who_died_between_turns_leaves_nothing_to_recover() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("a").unwrap();
    one.kill();
    b.append("b").unwrap();
    assert_eq!(b.generation(), Generation::FIRST);
    drop(a);
    assert_eq!(payloads(&b), ["a", "b"]);
}

/// A process is killed at each operation of its append, with and without a rotation; the other goes
/// on, and the power is cut at the end.
#[test]
fn the_next_holder_recovers_what_a_killed_one_left() {
    let big = "x".repeat(20_000);
    let mut recovered = 0;
    for appends in [1_usize, 3] {
        for op in 0.. {
            let (one, two) = two();
            let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
            let mut acknowledged = vec!["b0".to_owned()];
            b.append("b0").unwrap();
            one.kill_at(one.process_ops() + op);
            let mut maybe = None;
            for n in 0..appends {
                let payload = format!("a{n}{big}");
                match a.append(payload.as_str()) {
                    Ok(_) => acknowledged.push(payload),
                    Err(_) => {
                        maybe = Some(payload);
                        break;
                    }
                }
            }
            let died = one.is_dead();
            b.append("b1").unwrap_or_else(|e| panic!("op {op} of {appends}: {e}"));
            drop(a);
            recovered += u64::from(b.generation() > Generation::FIRST);
            let found = payloads(&b);
            let without = [&acknowledged[..], &["b1".to_owned()]].concat();
            let mut with = acknowledged.clone();
            with.extend(maybe);
            with.push("b1".to_owned());
            assert!(found == without || found == with, "op {op} of {appends}");
            for keep in [Keep::Nothing, Keep::Everything, Keep::Some(op)] {
                let after = one.crash(keep);
                let log = open(&after).unwrap_or_else(|e| panic!("op {op} of {appends}: {e}"));
                assert_eq!(payloads(&log), found, "op {op} of {appends}");
            }
            if !died {
                break;
            }
        }
    }
    assert!(recovered > 10, "{recovered}");
}

/// Who joins while a turn of the dead stands unfinished recovers it, though others live.
#[test]
fn who_joins_recovers_what_a_killed_one_left() {
    let disk = MemDir::new(1);
    let [one, two, three] = [11, 22, 33].map(|pid| disk.as_process(pid));
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("a").unwrap();
    b.refresh().unwrap();
    // Marked, and not a byte written.
    one.kill_at(one.process_ops() + 1);
    a.append("never").unwrap_err();
    assert!(one.is_dead());
    let c = open(&three).unwrap();
    assert!(!c.recovery().joined, "{:?}", c.recovery());
    assert_eq!(c.generation(), Generation::FIRST.next());
    b.append("b").unwrap();
    assert_eq!(payloads(&c), ["a", "b"]);
}

#[test]
fn a_failed_sync_ends_the_generation_for_all() {
    for how in [SyncFailure::CleanNew, SyncFailure::CleanOld] {
        let (one, two) = two();
        let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
        b.append("b0").unwrap();
        a.append("a0").unwrap();
        one.fail_sync(SyncPoint::Group, 0, how);
        let error = a.append("lost or not").unwrap_err();
        assert!(error.outcome_unknown(), "{error}");
        assert_eq!(a.append("no").unwrap_err().kind(), ErrorKind::Poisoned);
        b.append("b1").unwrap();
        assert_eq!(b.generation(), Generation::FIRST.next(), "{how:?}");
        let found = payloads(&b);
        assert_eq!((found[0].as_str(), found[1].as_str()), ("b0", "a0"));
        assert_eq!(found.last().unwrap(), "b1");
        // Whoever failed opens the log again, beside the other.
        drop(a);
        let a = open(&one).unwrap();
        a.append("a1").unwrap();
        let after = open(&one.crash(Keep::Nothing)).unwrap();
        let all = [&found[..], &["a1".to_owned()]].concat();
        assert_eq!(payloads(&after), all, "{how:?}");
    }
}

#[test]
fn a_recovery_that_fails_is_the_next_ones() {
    let disk = MemDir::new(3);
    let [one, two, three] = [11, 22, 33].map(|pid| disk.as_process(pid));
    let [a, b, c] = [&one, &two, &three].map(|process| open(process).unwrap());
    a.append("a").unwrap();
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
    assert!(a.append("unknown").unwrap_err().outcome_unknown());
    disk.fail_sync(SyncPoint::Kept, 0, SyncFailure::CleanNew);
    let error = b.append("b").unwrap_err();
    assert!(!error.outcome_unknown(), "{error}");
    assert_eq!(b.append("b").unwrap_err().kind(), ErrorKind::Poisoned);
    c.append("c").unwrap();
    let found = payloads(&c);
    assert_eq!((found[0].as_str(), found.last().unwrap().as_str()), ("a", "c"));
    let after = open(&disk.crash(Keep::Nothing)).unwrap();
    assert_eq!(payloads(&after), found);
}

#[test]
fn a_trim_by_one_is_seen_by_the_other() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    let big = "x".repeat(9_000);
    for _ in 0..20 {
        a.append(big.as_str()).unwrap();
    }
    b.refresh().unwrap();
    b.set_hold("b", lsn(10)).unwrap();
    assert_eq!(a.trim(lsn(20)).unwrap(), lsn(10), "the other's hold counts");
    b.refresh().unwrap();
    assert_eq!(b.head_lsn(), lsn(10));
    assert_eq!(b.get(lsn(1)).unwrap_err().kind(), ErrorKind::Trimmed);
    assert_eq!(b.get(lsn(10)).unwrap().payload.len(), 9_000);
    b.release_hold("b").unwrap();
    assert_eq!(a.trim(lsn(20)).unwrap(), lsn(20));
    assert_eq!(b.append("on").unwrap(), lsn(21));
}

#[test]
fn who_slept_past_a_trim_is_told_so() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    let big = "x".repeat(9_000);
    for _ in 0..30 {
        a.append(big.as_str()).unwrap();
    }
    a.trim(lsn(25)).unwrap();
    let error = b.append("late").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Trimmed, "{error}");
    assert!(!error.outcome_unknown());
    assert_eq!(b.append("late").unwrap_err().kind(), ErrorKind::Poisoned);
    a.append("on").unwrap();
    drop(b);
    open(&two).unwrap().append("again").unwrap();
    a.append("and on").unwrap();
    assert_eq!(a.generation(), Generation::FIRST);
}

#[test]
fn another_file_under_a_locks_name_poisons() {
    for name in ["APPEND", "LOCK"] {
        let (one, two) = two();
        let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
        a.append("a").unwrap();
        one.replace(name);
        let before = one.bytes("CONTROL");
        let error = a.append("no").unwrap_err();
        // It never had a turn: others may be in one, under the other file.
        assert_eq!(one.bytes("CONTROL"), before, "{name}");
        assert!(error.to_string().contains("was replaced"), "{error}");
        assert_eq!(a.append("no").unwrap_err().kind(), ErrorKind::Poisoned, "{name}");
        assert!(b.append("no").is_err(), "{name}");
    }
}

#[test]
fn a_control_block_that_is_gone_is_recovered_from() {
    for lose in [true, false] {
        let (one, two) = two();
        let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
        a.append("a").unwrap();
        if lose {
            one.lose("CONTROL")
        } else {
            one.replace("CONTROL")
        }
        b.append("b").unwrap();
        assert_eq!(b.generation(), Generation::FIRST.next());
        a.append("a again").unwrap();
        b.append("b again").unwrap();
        assert_eq!(payloads(&a), ["a", "b", "a again", "b again"]);
    }
}

/// A reader that asks whether anybody lives has `LOCK` alone for a moment. The opening that met it
/// there recovers all the same: nobody living vouches for what `CONTROL` says.
#[test]
fn a_reader_in_the_way_is_no_member() {
    let (one, two) = two();
    let a = open(&one).unwrap();
    a.append("a").unwrap();
    let left = one.killed();
    drop(a);
    let readers = Arc::new(Mutex::new(None));
    let gate = Gate::new(left.as_process(3).dir(), |_| Ok(()));
    let reader = left.as_process(4);
    gate.on_lock(move |what| {
        let mut reading = readers.lock().unwrap();
        match what {
            "lock LOCK Exclusive" if reading.is_none() => {
                *reading = Some(reader.dir().try_lock("LOCK", LockMode::Exclusive, false).unwrap());
            }
            "lock LOCK Shared" => *reading = Some(None),
            _ => {}
        }
    });
    let b = options().open_in(gate).unwrap();
    assert!(!b.recovery().joined, "{:?}", b.recovery());
    assert_eq!(b.generation(), Generation::FIRST.next());
    drop(two);
}

/// What one was told is durable, the other finds: even if its process never ends the turn.
#[test]
fn nobody_is_told_of_what_other_processes_cannot_see() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("a").unwrap();
    let turn = a.turn().unwrap();
    // After its write and its sync, a group is published.
    one.fail_op(one.ops() + 2, 5);
    let error = a.append("unseen").unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert!(error.to_string().contains("telling other processes"), "{error}");
    b.refresh().unwrap();
    assert_eq!(payloads(&b), ["a"]);
    assert_eq!(a.append("no").unwrap_err().kind(), ErrorKind::Poisoned);
    drop(turn);
    // The mark stands, so the next holder recovers, and keeps it: it is durable.
    b.append("b").unwrap();
    assert_eq!(payloads(&b), ["a", "unseen", "b"]);
}

/// What a recovery leaves in the control block is what the others go on by.
#[test]
fn an_opening_that_cannot_mark_the_control_block_fails() {
    let (one, two) = two();
    let a = open(&one).unwrap();
    a.append("a").unwrap();
    one.kill();
    let failing = Gate::new(two.dir(), |what| match what {
        "write CONTROL" => Err(eio()),
        _ => Ok(()),
    });
    let error = options().open_in(failing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("control block"), "{error}");
    let b = open(&two).unwrap();
    b.append("b").unwrap();
    assert_eq!(payloads(&b), ["a", "b"]);
}

/// Who recovers while others live shows what it found to its caller: the others must find it, too.
#[test]
fn an_opening_that_cannot_tell_of_its_recovery_fails() {
    let disk = MemDir::new(1);
    let [one, two, three] = [11, 22, 33].map(|pid| disk.as_process(pid));
    let (a, c) = (open(&one).unwrap(), open(&three).unwrap());
    a.append("a").unwrap();
    c.refresh().unwrap();
    // Marked, written and synced, and killed before anybody was told.
    one.kill_at(one.process_ops() + 3);
    a.append("synced").unwrap_err();
    assert!(one.is_dead());
    let writes = AtomicUsize::new(0);
    let failing = Gate::new(two.dir(), move |what| match what {
        // The first one marks.
        "write CONTROL" if writes.fetch_add(1, Ordering::SeqCst) > 0 => Err(eio()),
        _ => Ok(()),
    });
    match options().open_in(failing) {
        Ok(log) => {
            let seen = payloads(&log);
            assert_eq!(payloads(&c), seen, "the others do not find what it shows");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
    }
    c.append("c").unwrap();
    assert_eq!(payloads(&c), ["a", "synced", "c"]);
}

#[test]
fn a_mark_that_cannot_be_set_orders_nothing() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    a.append("a").unwrap();
    // The first changing operation of a turn is the mark.
    one.fail_op(one.ops(), 5);
    let error = a.append("no").unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (ErrorKind::Io, false), "{error}");
    b.append("b").unwrap();
    a.append("a again").unwrap();
    assert_eq!(payloads(&b), ["a", "b", "a again"]);
    assert_eq!(a.generation(), Generation::FIRST);
}

#[test]
fn a_mark_that_cannot_be_cleared_makes_the_next_holder_recover() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    // Mark, group, its sync, what it made durable; then the end of the mark.
    one.fail_op(one.ops() + 4, 5);
    a.append("a").unwrap();
    b.append("b").unwrap();
    assert_eq!(b.generation(), Generation::FIRST.next());
    a.append("a again").unwrap();
    assert_eq!(a.generation(), Generation::FIRST.next());
    assert_eq!(payloads(&a), ["a", "b", "a again"]);
}

#[test]
fn a_reader_knows_whether_a_member_lives() {
    let (one, two) = two();
    let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
    let reader = LogReader::open_in(one.dir()).unwrap();
    assert!(reader.is_live().unwrap());
    drop(a);
    assert!(reader.is_live().unwrap());
    drop(b);
    assert!(!reader.is_live().unwrap());
}

#[test]
fn threads_of_two_processes_share_turns_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let options =
        || Options::new().sharing(Sharing::Processes).lock_timeout(Duration::from_secs(60));
    let logs = [options().open(&path).unwrap(), options().open(&path).unwrap()];
    std::thread::scope(|scope| {
        for (process, log) in logs.iter().enumerate() {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..50 {
                        log.append(format!("{process} {thread} {n}").as_str()).unwrap();
                    }
                });
            }
        }
    });
    let all = payloads(&logs[0]);
    assert_eq!(all.len(), 400);
    for process in 0..2 {
        for thread in 0..4 {
            let of = |text: &&String| text.starts_with(&format!("{process} {thread} "));
            let numbers: Vec<_> = all.iter().filter(of).cloned().collect();
            let due: Vec<_> = (0..50).map(|n| format!("{process} {thread} {n}")).collect();
            assert_eq!(numbers, due);
        }
    }
    let [a, b] = logs;
    a.close().unwrap();
    b.close().unwrap();
    assert_eq!(options().open(&path).unwrap().recovery().row, Row::A);
}

#[test]
fn what_never_waits_is_refused_by_name() {
    let disk = MemDir::new(4);
    let log = open(&disk).unwrap();
    let error = log.try_submit(Record::new("no")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sharing, "{error}");
    log.submit(Record::new("yes")).unwrap().wait().unwrap();
}

/// `docs/FORMAT.md`, sections 3 and 6.
#[test]
fn what_makes_a_log_shared_is_in_its_bytes() {
    let (one, two) = two();
    let log = open(&one).unwrap();
    let name = "00000000000000000001.wal";
    let features = |disk: &MemDir| disk.bytes(name).unwrap()[12..16].to_vec();
    let marks = || one.bytes("CONTROL").unwrap()[100..104].to_vec();
    assert_eq!((features(&one), marks()), (vec![1, 0, 0, 0], vec![0, 0, 0, 0]));
    let turn = log.turn().unwrap();
    assert_eq!(marks(), [1, 0, 0, 0]);
    drop(turn);
    assert_eq!(marks(), [0, 0, 0, 0]);
    assert_eq!(one.bytes("APPEND").unwrap(), b"");
    drop(log);
    let alone = MemDir::new(9);
    drop(Options::new().open_in(alone.dir()).unwrap());
    assert_eq!(features(&alone), [0, 0, 0, 0]);
    assert!(alone.bytes("APPEND").is_none());
    drop(two);
}

/// The line is for fairness alone: whoever stands first may be stopped, and `APPEND` free.
#[test]
fn who_is_first_in_line_and_stopped_keeps_nobody_out() {
    let (one, two) = two();
    let log = options().lock_timeout(Duration::from_secs(20)).open_in(one.dir()).unwrap();
    let line = two.dir().try_lock("CONTROL", LockMode::Exclusive, false).unwrap().unwrap();
    assert_eq!(log.append("past the line").unwrap(), lsn(1));
    drop(line);
}

/// Nobody is refused before it tried, however short its time: less than it takes to find out that
/// the log does not move, and none at all.
#[test]
fn a_call_with_little_time_tries_before_it_is_refused() {
    for timeout_ms in [0, 10, 40] {
        let (one, two) = two();
        let options = options().lock_timeout(Duration::from_millis(timeout_ms));
        let log = options.open_in(one.dir()).unwrap();
        let line = two.dir().try_lock("CONTROL", LockMode::Exclusive, false).unwrap().unwrap();
        assert_eq!(log.append("past the line").unwrap(), lsn(1), "{timeout_ms} ms");
        // What is held all the time is refused.
        let row_ended = Duration::from_secs(1);
        one.set_clock(row_ended, Duration::ZERO);
        let append = two.dir().try_lock("APPEND", LockMode::Exclusive, false).unwrap().unwrap();
        let refused = log.append("not now").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked, "{refused}");
        drop((line, append));
    }
}

/// For each of so many calls, whether it stood in line, where a sync takes so long.
fn stood_in_line(calls: usize, sync: Duration) -> Vec<bool> {
    let (one, two) = two();
    let stood = Arc::new(Mutex::new(Vec::new()));
    let told = stood.clone();
    let gate = Gate::new(one.dir(), move |op| {
        if op == "write CONTROL" {
            let line = two.dir().try_lock("CONTROL", LockMode::Exclusive, false)?;
            told.lock().unwrap().push(line.is_none());
        }
        Ok(())
    });
    let log = options().open_in(gate).unwrap();
    one.set_clock(Duration::from_micros(1), sync);
    let call = |_| {
        stood.lock().unwrap().clear();
        log.append("x").unwrap();
        // The place is held when the mark is set, and left by the sync.
        stood.lock().unwrap()[0]
    };
    (0..calls).map(call).collect()
}

#[test]
fn a_row_of_short_turns_ends_after_its_time() {
    let stood = stood_in_line(300, Duration::from_micros(200));
    let at: Vec<usize> = (0..stood.len()).filter(|&n| stood[n]).collect();
    assert_eq!((at.len(), at[0]), (2, 0), "{at:?}");
    assert!((150..=250).contains(&at[1]), "{at:?}");
}

/// A row of them would keep everybody else waiting for more than one call in a hundred.
#[test]
fn long_turns_are_no_row() {
    let stood = stood_in_line(12, Duration::from_millis(1));
    let expected: Vec<bool> = (0..12).map(|n| n % 4 == 0).collect();
    assert_eq!(stood, expected);
}

/// An opening that waits stands in line, so that nobody's row keeps it out; refused, it leaves.
#[test]
fn an_opening_stands_in_line() {
    let (one, two) = two();
    let log = open(&one).unwrap();
    let append = one.dir().try_lock("APPEND", LockMode::Exclusive, false).unwrap().unwrap();
    let third = one.as_process(33);
    let in_line = move || {
        let line = third.dir().try_lock("CONTROL", LockMode::Exclusive, false).unwrap();
        line.is_none()
    };
    assert!(!in_line());
    std::thread::scope(|scope| {
        let slow = options().lock_timeout(Duration::from_secs(20));
        let opening = scope.spawn(move || slow.open_in(two.dir()).map(drop));
        while !in_line() {
            assert!(!opening.is_finished(), "the opening is over while another has APPEND");
            std::thread::yield_now();
        }
        drop(append);
        opening.join().unwrap().unwrap();
    });
    assert!(!in_line());
    log.append("after").unwrap();
}

/// Somebody tidies `APPEND` away under a sync: an opener would take a new one, find the mark, and
/// cut what is being written.
#[test]
fn a_turn_whose_lock_file_is_lost_under_its_sync_acknowledges_nothing() {
    let (one, two) = two();
    let remover = two.clone();
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = armed.clone();
    let gate = Gate::new(one.dir(), move |op| {
        if op == "sync Group" && is_armed.swap(false, Ordering::SeqCst) {
            remover.dir().remove("APPEND").unwrap();
        }
        Ok(())
    });
    let log = options().open_in(gate).unwrap();
    log.append("one").unwrap();
    armed.store(true, Ordering::SeqCst);
    let error = log.append("two").unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert!(log.poisoned().is_some());
}

/// A process that slept past a trim finds out on one thread; the others went round and round under
/// the lock that the news needed.
#[test]
fn every_thread_of_who_slept_past_a_trim_is_told() {
    for _ in 0..20 {
        let (one, two) = two();
        let (a, b) = (open(&one).unwrap(), open(&two).unwrap());
        a.append("x").unwrap();
        while b.stats().rotations < 2 {
            b.append(vec![7; 20_000]).unwrap();
        }
        b.trim(b.durable_lsn().unwrap()).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        for n in 0..6 {
            let (a, tell) = (a.clone(), tell.clone());
            std::thread::spawn(move || {
                let result = if n % 2 == 0 { a.refresh() } else { a.append("late").map(drop) };
                tell.send(result)
            });
        }
        for _ in 0..6 {
            let result = told.recv_timeout(Duration::from_secs(20)).expect("waits for ever");
            let error = result.unwrap_err();
            assert!(!error.outcome_unknown(), "{error}");
        }
        assert_eq!(a.append("late").unwrap_err().kind(), ErrorKind::Poisoned);
    }
}
