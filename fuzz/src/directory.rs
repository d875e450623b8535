//! A directory of any files: inspected, read, followed, opened. Whoever only looks changes nothing;
//! an opening is refused with a typed error and changes nothing, or it opens, and what it has shown
//! stays after a crash that keeps nothing, after any other crash, and under what is appended.
//!
//! Never here: how the files are made ([`crate::files`]). A full disk is part of it: no file may
//! make an opening ask for more than a few segments.

use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::inspect::{Depth, Report, State, inspect_in};
use annals_wal::recover::{Decision, Facts, RefusalKind, decide};
use annals_wal::{Error, ErrorKind, Log, LogReader, Lsn, Options, Records, Result};

use crate::asked;
use crate::files;
use crate::memory::measured;

/// More records than any input of a fuzzer holds.
const ENDLESS: usize = 1 << 17;
/// Room for what an opening of small segments may write.
const ROOM: u64 = 4 << 20;

/// The body of the target `directory`.
pub fn directory(bytes: &[u8]) {
    let disk = files::from(bytes);
    check(&disk, u64::from(bytes.len() as u32));
}

pub fn open(disk: &MemDir) -> Result<Log> {
    disk.set_bytes_free(Some(ROOM));
    Options::new().segment_bytes(64 << 10).segment_bytes_max(1 << 20).open_in(disk.dir())
}

type Files = Vec<(String, Option<Vec<u8>>)>;

fn all_files(disk: &MemDir) -> Files {
    disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect()
}

/// All but the lock file, which an opening makes.
fn log_files(disk: &MemDir) -> Files {
    let all = all_files(disk).into_iter();
    all.filter(|(name, _)| name != annals_wal::format::LOCK_NAME).collect()
}

/// What a range gives: records up to the first error.
type Shown = (Vec<(u64, Vec<u8>)>, Option<ErrorKind>);

fn collect(records: Result<Records>) -> Shown {
    let mut shown = Vec::new();
    let records = match records {
        Ok(records) => records,
        Err(error) => return (shown, Some(error.kind())),
    };
    for record in records {
        match record {
            Ok(record) => shown.push((record.lsn.get(), record.payload)),
            Err(error) => return (shown, Some(error.kind())),
        }
        assert!(shown.len() < ENDLESS, "a range without an end");
    }
    let dense = shown.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1);
    assert!(dense, "LSNs are dense");
    (shown, None)
}

pub fn check(disk: &MemDir, seed: u64) {
    let before = all_files(disk);
    agree(disk);
    let seen = look(disk);
    assert!(all_files(disk) == before, "somebody who only looked has changed a file");
    let before = log_files(disk);
    let whole = inspect_in(&disk.dir(), Depth::Everything, &mut |_| ())
        .is_ok_and(|report| report.state < State::Corrupt);
    match open(disk) {
        Ok(log) => use_it(disk, &log, &seen, whole, seed),
        Err(error) => refused(disk, &before, &error),
    }
}

/// Inspector, table and opening say the same; the inspector's memory follows the files.
pub fn agree(disk: &MemDir) {
    let bytes: usize = all_files(disk).iter().map(|(_, b)| b.as_ref().map_or(0, Vec::len)).sum();
    let facts = Facts::read(&*disk.dir()).expect("memory does not fail");
    let decision = decide(&facts);
    let mut reports = Vec::new();
    for depth in [Depth::Seals, Depth::Everything] {
        let (report, used) = measured(|| inspect_in(&disk.dir(), depth, &mut |_| ()));
        // Two windows of 128 KiB; the active segment whole; a finding for every damage.
        let room = 24 * bytes + (512 << 10);
        assert!(used.peak <= room, "{used:?} to inspect {bytes} bytes");
        reports.push(report);
    }
    let [Ok(seals), Ok(everything)] = &reports[..] else {
        let all = reports.iter().all(|report| report.is_err());
        assert!(all && facts.segments.is_empty(), "a log that cannot be inspected");
        return;
    };
    assert!(everything.state >= seals.state, "more reading finds less");
    agrees(seals, &decision);
    let opened = open(&disk.killed());
    match (&decision, &opened) {
        (Decision::Plan(plan), Ok(log)) => {
            assert_eq!(log.durable_lsn().map_or(0, Lsn::get), plan.last_lsn);
            assert_eq!(seals.last_lsn, log.durable_lsn(), "the inspector saw another end");
            assert_eq!(log.head_lsn(), plan.head);
        }
        (Decision::Plan(_), Err(error)) => {
            let known = [ErrorKind::Io, ErrorKind::Full, ErrorKind::Corrupt, ErrorKind::Poisoned];
            assert!(known.contains(&error.kind()), "planned, then {error:?}");
        }
        (Decision::Refuse(refusal), Err(error)) => {
            // An opening refuses an archive by its name alone; only an inspector judges what is in it.
            let expected = match refusal.kind {
                _ if facts.archive => ErrorKind::Archived,
                RefusalKind::Corrupt => ErrorKind::Corrupt,
                RefusalKind::Unsupported => ErrorKind::Unsupported,
                RefusalKind::Archived => ErrorKind::Archived,
            };
            assert_eq!(error.kind(), expected);
        }
        (Decision::Refuse(refusal), Ok(_)) => panic!("opened in spite of {refusal:?}"),
    }
}

fn agrees(report: &Report, decision: &Decision) {
    match decision {
        Decision::Plan(plan) => {
            assert_eq!(report.row, plan.row);
            assert!(report.state < State::Corrupt, "{report:?}");
            assert_eq!(report.state == State::TornTail, plan.cut.is_some(), "{report:?}");
        }
        Decision::Refuse(refusal) => {
            assert_eq!(report.row, refusal.row);
            let archived = refusal.kind == RefusalKind::Archived;
            assert_eq!(report.state >= State::Corrupt, !archived, "{report:?}");
        }
    }
}

/// What somebody sees who owns nothing: first what is proven, then all that is whole.
fn look(disk: &MemDir) -> Option<Shown> {
    let reader = LogReader::open_in(disk.dir()).ok()?;
    let proven = collect(reader.range(..));
    let all = collect(reader.clone().unproven(true).range(..));
    let part = proven.0.iter().zip(&all.0).all(|(a, b)| a == b);
    let same_start = proven.0.first().map(|(lsn, _)| lsn) == all.0.first().map(|(lsn, _)| lsn);
    assert!(part || !same_start, "what is proven is not part of what is whole");
    // Each step that finds nothing may read the directory again: a few are enough.
    for from in [1, 30, u64::MAX] {
        let Ok(mut follow) = reader.follow(Lsn::new(from).expect("not 0")) else { continue };
        for _ in 0..6 {
            let _ = follow.try_next();
        }
    }
    Some(proven)
}

fn refused(disk: &MemDir, before: &Files, error: &Error) {
    match error.kind() {
        ErrorKind::Corrupt
        | ErrorKind::Unsupported
        | ErrorKind::Archived
        | ErrorKind::NotALog
        | ErrorKind::Invalid => {
            assert!(log_files(disk) == *before, "a refused opening changed a file: {error}");
        }
        // The disk was full half way: what there is must still be a log, or refused in words.
        ErrorKind::Full => {
            let _ = open(&disk.crash(Keep::Nothing));
        }
        _ => panic!("opening memory: {error:?}"),
    }
}

/// In words, without payloads.
fn told((head, last, holds, (records, error)): &All) -> String {
    let lsns = records.first().zip(records.last()).map(|(first, last)| (first.0, last.0));
    format!("head {head}, last {last:?}, holds {holds:?}, LSNs {lsns:?}, then {error:?}")
}

type All = (Lsn, Option<Lsn>, Vec<(String, Lsn)>, Shown);

fn shown(log: &Log) -> All {
    (log.head_lsn(), log.durable_lsn(), log.holds(), collect(log.range(..)))
}

fn use_it(disk: &MemDir, log: &Log, seen: &Option<Shown>, whole: bool, seed: u64) {
    let first = shown(log);
    asked::of(log, whole);
    if let Some((seen, _)) = seen {
        let head = first.0.get();
        let lost = seen.iter().find(|(lsn, payload)| {
            let there = first.3.0.iter().any(|(own, bytes)| own == lsn && bytes == payload);
            *lsn >= head && !there && first.3.1.is_none()
        });
        assert!(lost.is_none(), "a reader saw LSN {:?}, the opening did not", lost.map(|l| l.0));
    }
    for keep in [Keep::Nothing, Keep::Some(seed), Keep::Everything] {
        let again = open(&disk.crash(keep)).expect("what was opened opens after a crash");
        let now = shown(&again);
        assert!(now == first, "{keep:?}: {} was shown, now {}", told(&first), told(&now));
    }
    let appended = match log.append("after") {
        Ok(lsn) => lsn,
        Err(error) => {
            assert!(log.poisoned().is_none(), "poisoned: {error:?}");
            assert!(!error.outcome_unknown(), "{error:?}");
            return;
        }
    };
    assert_eq!(first.1.map_or(1, |last| last.get() + 1), appended.get());
    let kept = log.get(appended).expect("what was just acknowledged can be read");
    assert_eq!(kept.payload, b"after");
    let second = shown(log);
    let mut expected = first.3.clone();
    if expected.1.is_none() {
        expected.0.push((appended.get(), b"after".to_vec()));
    }
    // An opening does not read the bodies of sealed segments: a range may meet damage on its way to
    // the new record, behind the last one that it gave before.
    let met = !whole && second.3.1 == Some(ErrorKind::Corrupt) && second.3.0 == first.3.0;
    let same = second.3 == expected || met;
    assert!(same, "appending changed something else: {}, {}", told(&first), told(&second));
    let again = open(&disk.crash(Keep::Nothing)).expect("opens after an append and a crash");
    let now = shown(&again);
    assert!(now == second, "acknowledged {}, now {}", told(&second), told(&now));
    // A trim in the middle, a clean end, and again.
    let trimmed = log.trim(appended);
    assert!(log.poisoned().is_none(), "{trimmed:?}, poisoned by {:?}", log.poisoned());
    let third = shown(log);
    let closed = log.clone().close();
    assert!(log.poisoned().is_none(), "{closed:?}");
    let again = open(&disk.killed()).expect("opens after a close");
    let now = shown(&again);
    assert!(now == third, "closed {}, now {}", told(&third), told(&now));
}
