//! Salvage: every record that no damage touched, the source untouched, a broken-off copy marked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and damages real files"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::inspect::{Depth, State, inspect};
use annals_wal::salvage::compare::{Sort, compare};
use annals_wal::salvage::repair::{self, Repaired};
use annals_wal::salvage::{SalvageOptions, salvage, salvage_in, salvage_plan};
use annals_wal::{Batch, ErrorKind, Kind, Log, Lsn, Options, Record, Sharing, Stream};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A log of mixed records and batches; where each record's bytes are, by the scanner.
fn make(path: &Path, random: &mut Random, rotations: u64) -> Vec<Vec<u8>> {
    let log = Options::new().segment_bytes(64 << 10).open(path).unwrap();
    let mut records = Vec::new();
    while log.stats().rotations < rotations {
        let mut batch = Batch::new();
        for _ in 0..1 + random.below(3) {
            let len = [10, 100, 900, 5000][random.below(4) as usize] + random.below(50);
            let payload: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
            records.push(payload.clone());
            batch.push(Record::new(payload).kind(Kind::new(0x1001).unwrap()).stream(Stream(7)));
        }
        log.append_batch(batch).unwrap();
    }
    log.close().unwrap();
    records
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

/// LSN -> (file, first byte, one past the last), found without the code under test: frames follow
/// one another from byte 128 on, each as long as its length field says.
fn places(dir: &Path) -> BTreeMap<u64, (String, usize, usize)> {
    let mut places = BTreeMap::new();
    for (name, bytes) in files(dir).into_iter().filter(|(name, _)| name.ends_with(".wal")) {
        let mut at = 128;
        while at + 32 <= bytes.len() {
            let number = |from: usize, len: usize| {
                bytes[at + from..at + from + len]
                    .iter()
                    .rev()
                    .fold(0u64, |n, b| n << 8 | u64::from(*b))
            };
            let (lsn, len, kind) = (number(8, 8), number(16, 4) as usize, number(28, 2));
            if number(0, 4) == 0 && kind == 0 {
                break;
            }
            let end = (at + 32 + len).next_multiple_of(8);
            if kind & 0x8000 == 0 {
                places.insert(lsn, (name.clone(), at, end));
            }
            at = end;
        }
    }
    places
}

fn flip_bursts(
    dir: &Path,
    random: &mut Random,
    share: f64,
) -> BTreeMap<String, Vec<(usize, usize)>> {
    let mut bursts: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    let files: Vec<_> = files(dir).into_iter().filter(|f| f.0.ends_with(".wal")).collect();
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut left = (total as f64 * share / 512.0).ceil() as usize;
    let mut new: BTreeMap<_, _> = files.iter().cloned().collect();
    while left > 0 {
        let (name, bytes) = &files[random.below(files.len() as u64) as usize];
        // Every eighth burst hits a segment's header.
        let at = if left.is_multiple_of(8) {
            0
        } else {
            random.below(bytes.len() as u64 - 512) as usize
        };
        let target: &mut Vec<u8> = new.get_mut(name).unwrap();
        for byte in &mut target[at..at + 512] {
            *byte = random.below(256) as u8;
        }
        bursts.entry(name.clone()).or_default().push((at, at + 512));
        left -= 1;
    }
    for (name, bytes) in new {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    bursts
}

/// 1 % of the bytes in bursts of 512, segment headers among them: what no burst touched is there,
/// byte for byte, under its own LSN; what one touched is a placeholder; nothing else is.
#[test]
fn every_record_that_no_burst_touched_is_kept() {
    let mut touched_headers = 0;
    for seed in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("log"), dir.path().join("new"));
        let mut random = Random(seed);
        let records = make(&from, &mut random, 24);
        let places = places(&from);
        assert_eq!(places.len(), records.len(), "seed {seed}: the test's own walk");
        let bursts = flip_bursts(&from, &mut random, 0.01);
        touched_headers += bursts.values().flatten().filter(|(at, _)| *at < 128).count();
        let before = files(&from);
        let report = salvage(&from, &to, SalvageOptions::default(), &mut |_| ()).unwrap();
        assert!(files(&from) == before, "seed {seed}: the source changed");
        assert_eq!(inspect(&to, Depth::Everything, &mut |_| ()).unwrap().state, State::Clean);
        let touched: BTreeSet<u64> = places
            .iter()
            .filter(|(_, (name, from, to))| {
                let hit = |(at, end): &(usize, usize)| at < to && end > from;
                bursts.get(name).is_some_and(|bursts| bursts.iter().any(hit))
            })
            .map(|(lsn, _)| *lsn)
            .collect();
        let log = Log::open(&to).unwrap();
        let mut kept = 0;
        for record in log.range(..).unwrap() {
            let record = record.unwrap();
            let lsn = record.lsn.get();
            if record.kind == Kind::LOST {
                assert!(touched.contains(&lsn), "seed {seed}: LSN {lsn} was not touched");
                continue;
            }
            kept += 1;
            assert_eq!(record.payload, records[lsn as usize - 1], "seed {seed}: LSN {lsn}");
            assert_eq!((record.kind.get(), record.stream), (0x1001, Stream(7)));
        }
        let due = records.len() - touched.len();
        assert!(kept >= due, "seed {seed}: {kept} kept of {due} untouched");
        assert_eq!(report.kept, kept as u64);
        // It goes on where it ended.
        let last = report.last_lsn.unwrap();
        assert_eq!(log.append("next").unwrap().get(), last.get() + 1);
        log.close().unwrap();
        println!("seed {seed}: {kept} of {} kept, {} bursts", records.len(), bursts.len());
    }
    assert!(touched_headers > 0, "no burst hit a segment header");
}

#[test]
fn a_sound_log_is_copied_whole_with_head_and_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("log"), dir.path().join("new"));
    make(&from, &mut Random(1), 6);
    let log = Log::open(&from).unwrap();
    log.set_hold("reader", Lsn::new(40).unwrap()).unwrap();
    log.trim(Lsn::new(60).unwrap()).unwrap();
    log.close().unwrap();
    let report = salvage(&from, &to, SalvageOptions::default(), &mut |_| ()).unwrap();
    assert_eq!((report.first_lsn.get(), report.lost_records()), (40, 0));
    let new = Log::open(&to).unwrap();
    assert_eq!(new.holds(), vec![("reader".to_owned(), Lsn::new(40).unwrap())]);
    assert_eq!(new.head_lsn().get(), 40);
    drop(new);
    let comparison = compare(&from, &to).unwrap();
    assert_eq!((comparison.same, comparison.differences), (report.kept, vec![]));
    assert_eq!(
        salvage_plan(&from, SalvageOptions::default(), &mut |_| ()).unwrap().kept,
        report.kept
    );
}

#[test]
fn a_renamed_file_counts_as_what_its_header_says() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("log"), dir.path().join("new"));
    let records = make(&from, &mut Random(2), 4);
    let name = |n: u64| from.join(format!("{n:020}.wal"));
    std::fs::rename(name(2), name(77)).unwrap();
    let report = salvage(&from, &to, SalvageOptions::default(), &mut |_| ()).unwrap();
    assert_eq!((report.kept, report.lost_records()), (records.len() as u64, 0));
}

#[test]
fn a_lost_segment_is_a_run_of_placeholders_and_the_rest_keeps_its_lsns() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("log"), dir.path().join("new"));
    let records = make(&from, &mut Random(3), 4);
    let whole = dir.path().join("whole");
    salvage(&from, &whole, SalvageOptions::default(), &mut |_| ()).unwrap();
    std::fs::remove_file(from.join(format!("{:020}.wal", 2))).unwrap();
    let few = SalvageOptions { fill_max: 1, ..SalvageOptions::default() };
    let refused = salvage_plan(&from, few, &mut |_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    let report = salvage(&from, &to, SalvageOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(report.lost.len(), 1);
    assert_eq!(report.kept + report.lost_records(), records.len() as u64);
    let comparison = compare(&whole, &to).unwrap();
    let (first, last) = report.lost[0];
    let run = comparison.differences[0];
    assert_eq!((run.first, run.last, run.sort), (first, last, Sort::LostInSecond));
}

#[test]
fn a_log_in_use_a_target_in_use_and_a_newer_version_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("log"), dir.path().join("new"));
    make(&from, &mut Random(4), 1);
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("mine"), "text").unwrap();
    let error = salvage(&from, &to, SalvageOptions::default(), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(files(&to).len(), 1);
    let log = Log::open(&from).unwrap();
    let error = salvage(&from, dir.path().join("x"), SalvageOptions::default(), &mut |_| ());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Locked);
    drop(log);
}

/// The machine stops after each operation of a salvage: the copy is whole, or it is marked.
#[test]
fn a_salvage_that_is_broken_off_anywhere_is_never_taken_for_a_log() {
    let source = MemDir::new(1);
    let log = Options::new().segment_bytes(64 << 10).open_in(source.dir()).unwrap();
    for n in 0..30u32 {
        log.append(n.to_le_bytes().repeat(1000)).unwrap();
    }
    log.close().unwrap();
    let run = |to: &MemDir| {
        salvage_in(&*source.dir(), Some(&*to.dir()), SalvageOptions::default(), &mut |_| ())
    };
    let target = MemDir::new(2);
    run(&target).unwrap();
    let operations = target.ops();
    let mut marked = 0;
    for stop in 0..operations {
        for keep in [Keep::Nothing, Keep::Everything] {
            let target = MemDir::new(2);
            target.stop_after(stop);
            let _ = run(&target);
            let after = target.crash(keep);
            match Options::new().create(false).open_in(after.dir()) {
                Ok(log) => assert_eq!(log.range(..).unwrap().count(), 30, "stopped after {stop}"),
                Err(error) if error.kind() == ErrorKind::Archived => marked += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotALog, "after {stop}: {error}"),
            }
        }
    }
    assert!(marked > 5, "{marked} of {operations}");
}

#[test]
fn a_repair_is_what_its_plan_said_and_keeps_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    make(&path, &mut Random(5), 4);
    let options = SalvageOptions::default();
    assert_eq!(repair::plan(&path, options).unwrap().method, repair::Method::Nothing);
    let file = path.join(format!("{:020}.wal", 2));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3000] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let plan = repair::plan(&path, options).unwrap();
    assert_eq!(plan.method, repair::Method::Rebuild);
    let lost = plan.salvage.as_ref().unwrap().lost.clone();
    // The plan is for these bytes and no others.
    bytes[3001] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(repair::apply(&path, &plan, options).unwrap_err().kind(), ErrorKind::Invalid);
    bytes[3001] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let before = files(&path);
    let Repaired::Rebuilt(report, damaged) = repair::apply(&path, &plan, options).unwrap() else {
        panic!("not rebuilt")
    };
    assert_eq!(report.lost, lost);
    let kept: BTreeMap<_, _> = files(&damaged);
    assert!(before.iter().all(|(name, bytes)| kept.get(name) == Some(bytes)), "a byte is gone");
    assert_eq!(damaged, PathBuf::from(format!("{}.damaged", path.display())));
    assert_eq!(inspect(&path, Depth::Everything, &mut |_| ()).unwrap().state, State::Clean);
    Log::open(&path).unwrap().close().unwrap();
}

/// A log of several processes stays one: with another sharing, those who always opened it so would be
/// locked out by its repair.
#[test]
fn a_salvage_and_both_repairs_keep_the_sharing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let shared = || Options::new().segment_bytes(64 << 10).sharing(Sharing::Processes);
    let is_shared = |path: &Path| inspect(path, Depth::Seals, &mut |_| ()).unwrap().shared;
    let log = shared().open(&path).unwrap();
    for n in 0..300u32 {
        log.append(vec![n as u8; 1000]).unwrap();
    }
    drop(log);
    // Ended inside a write: half a frame after the last one.
    let control = path.join("CONTROL");
    std::fs::remove_file(&control).unwrap();
    let (name, _, end) = places(&path).remove(&300).unwrap();
    let file = path.join(name);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[end - 5] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let options = SalvageOptions::default();
    let plan = repair::plan(&path, options).unwrap();
    assert_eq!(plan.method, repair::Method::Recover);
    assert!(matches!(repair::apply(&path, &plan, options).unwrap(), Repaired::Recovered(_)));
    assert_eq!(is_shared(&path), Some(true));
    // Damaged in the middle.
    let file = path.join(format!("{:020}.wal", 2));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3000] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let copy = dir.path().join("copy");
    salvage(&path, &copy, options, &mut |_| ()).unwrap();
    assert_eq!(is_shared(&copy), Some(true));
    let plan = repair::plan(&path, options).unwrap();
    let Repaired::Rebuilt(..) = repair::apply(&path, &plan, options).unwrap() else {
        panic!("not rebuilt")
    };
    assert_eq!(is_shared(&path), Some(true));
    shared().open(&path).unwrap().close().unwrap();
}
