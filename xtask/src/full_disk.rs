//! `cargo xtask full-disk`: a real file system fills up under four writers.
//!
//! A full disk is an ordinary error: appends get `Full` before they have an LSN, and go on without
//! a reopening once there is room again, because somebody removed a file or because the log was
//! trimmed. Every acknowledged record is there after a close and an opening.
//! Never here: faults that are made up; the file system itself says ENOSPC.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use annals_wal::{ErrorKind, Log, Lsn, Options};

use crate::power_loss::dice::Dice;
use crate::power_loss::file_system::Fs;
use crate::power_loss::flags::Flags;
use crate::power_loss::rig::{self, Loop, Mounted, Res, Scratch, Stop};
use crate::power_loss::verdict;
use crate::say;

const DISK_BYTES: u64 = 32 << 20;
const BALLAST_BYTES: usize = 6 << 20;
const WRITERS: u64 = 4;
/// Refusals that each writer sees before it believes that the disk is full.
const REFUSALS: u64 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Ballast,
    Trim,
}

pub(crate) fn command(args: &[String]) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let done = Flags::parse(args, &[], &[]).and_then(|_| {
        if let Some(what) = rig::missing(&[Fs::Ext4], false) {
            return Ok(Some(what));
        }
        let stop = Stop::on_signals();
        for (room, name) in [(Room::Ballast, "a file removed"), (Room::Trim, "the log trimmed")] {
            stop.check()?;
            match fill(room) {
                Ok(figures) => {
                    passed += 1;
                    say(&format!("{name}: {figures}"));
                }
                Err(e) => {
                    failed += 1;
                    say(&format!("{name}: FAILED: {e}"));
                }
            }
        }
        Ok(None)
    });
    verdict(done, passed, failed)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Everything acknowledged: who wrote which record where.
#[derive(Default)]
struct Told {
    records: Mutex<BTreeMap<u64, (u64, u64)>>,
    problems: Mutex<Vec<String>>,
    full: AtomicU64,
}

impl Told {
    fn problem(&self, what: String) {
        if let Ok(mut problems) = self.problems.lock() {
            problems.push(what);
        }
    }

    fn acknowledged(&self) -> u64 {
        self.records.lock().map_or(0, |records| records.len() as u64)
    }
}

fn payload(writer: u64, n: u64) -> Vec<u8> {
    let mut dice = Dice::of(&[writer, n]);
    let mut payload = format!("{writer} {n} ").into_bytes();
    let len = 200 + dice.below(6000);
    payload.extend((0..len).map(|_| dice.next() as u8));
    payload
}

fn fill(room: Room) -> Res<String> {
    let scratch = Scratch::below(&std::env::temp_dir(), "full-disk")?;
    let disk = scratch.file("disk.img");
    File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).map_err(text)?;
    Fs::Ext4.make(&disk)?;
    let device = Loop::attach(&disk, DISK_BYTES)?;
    let target = scratch.dir("mnt")?;
    let mounted = Mounted::mount(device.device(), &target, Fs::Ext4, "")?;
    let figures = on_disk(&target, room);
    mounted.unmount()?;
    drop(device);
    figures
}

fn on_disk(root: &Path, room: Room) -> Res<String> {
    let ballast = root.join("ballast");
    fs::write(&ballast, vec![7; BALLAST_BYTES]).map_err(text)?;
    File::open(&ballast).and_then(|file| file.sync_all()).map_err(text)?;
    let dir = root.join("log");
    let log = Options::new().segment_bytes(256 << 10).open(&dir).map_err(text)?;
    let told = Told::default();
    let mut next = [0; WRITERS as usize];
    let mut figures = Vec::new();
    write_until(&log, &told, &mut next, None)?;
    let before = told.acknowledged();
    figures.push(format!("full after {before} acknowledged records"));
    dense(&log, &told)?;
    let head = make_room(&log, &ballast, room, before)?;
    let refused = told.full.load(Ordering::SeqCst);
    write_until(&log, &told, &mut next, Some(200))?;
    if told.full.load(Ordering::SeqCst) != refused {
        return Err("there was room again, and an append still got Full".into());
    }
    // And once more to the brim: the same again, on a log that has been full before.
    write_until(&log, &told, &mut next, None)?;
    dense(&log, &told)?;
    let after = told.acknowledged();
    figures.push(format!("{} more with the new room, full again", after - before));
    figures.push(format!("{} refusals, each Full", told.full.load(Ordering::SeqCst)));
    figures.push(format!("{} segments", log.stats().segments));
    log.close().map_err(|e| format!("close on a full disk: {e}"))?;
    figures.push(read_back(&dir, &told, head)?);
    Ok(figures.join("; "))
}

/// Four writers append until each has been refused some times in a row (`None`) or has appended so
/// many records more.
fn write_until(
    log: &Log,
    told: &Told,
    next: &mut [u64; WRITERS as usize],
    count: Option<u64>,
) -> Res<()> {
    let broken = AtomicBool::new(false);
    thread::scope(|scope| {
        for (writer, next) in (0..).zip(next.iter_mut()) {
            let broken = &broken;
            scope.spawn(move || {
                let (mut refused, mut appended) = (0, 0);
                while refused < REFUSALS && count.is_none_or(|count| appended < count) {
                    if broken.load(Ordering::SeqCst) {
                        return;
                    }
                    match append(log, told, writer, next) {
                        Ok(true) => (refused, appended) = (0, appended + 1),
                        Ok(false) => refused += 1,
                        Err(e) => {
                            told.problem(e);
                            broken.store(true, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    let problems = told.problems.lock().map_err(text)?;
    problems.first().map_or(Ok(()), |problem| Err(problem.clone()))
}

/// Whether it was acknowledged; else it was Full, which uses up no number.
fn append(log: &Log, told: &Told, writer: u64, next: &mut u64) -> Res<bool> {
    match log.append(payload(writer, *next)) {
        Ok(lsn) => {
            told.records.lock().map_err(text)?.insert(lsn.get(), (writer, *next));
            *next += 1;
            Ok(true)
        }
        Err(e) if e.kind() == ErrorKind::Full && !e.outcome_unknown() => {
            told.full.fetch_add(1, Ordering::SeqCst);
            Ok(false)
        }
        Err(e) => Err(format!("an append got {e:?} and not plainly Full")),
    }
}

/// Nobody was given an LSN who was then refused: those acknowledged are 1, 2, 3 and so on.
fn dense(log: &Log, told: &Told) -> Res<()> {
    if let Some(e) = log.poisoned() {
        return Err(format!("a full disk has poisoned the log: {e}"));
    }
    let records = told.records.lock().map_err(text)?;
    let last = records.last_key_value().map_or(0, |(lsn, _)| *lsn);
    let durable = log.durable_lsn().map_or(0, Lsn::get);
    if last != records.len() as u64 || durable != last {
        return Err(format!(
            "{} records, the last at LSN {last}, durable {durable}",
            records.len()
        ));
    }
    Ok(())
}

/// Returns the head from then on.
fn make_room(log: &Log, ballast: &Path, room: Room, last: u64) -> Res<u64> {
    match room {
        Room::Ballast => {
            fs::remove_file(ballast).map_err(text)?;
            Ok(1)
        }
        Room::Trim => {
            let middle = Lsn::new(last / 2).ok_or("nothing fitted on the disk")?;
            let head = log.trim(middle).map_err(|e| format!("a full disk was not trimmed: {e}"))?;
            Ok(head.get())
        }
    }
}

fn read_back(dir: &Path, told: &Told, head: u64) -> Res<String> {
    let log = Options::new().create(false).open(dir).map_err(text)?;
    let records = told.records.lock().map_err(text)?;
    let mut due = records.range(head..);
    let mut count = 0;
    for record in log.range(..).map_err(text)? {
        let record = record.map_err(text)?;
        let lsn = record.lsn.get();
        match due.next() {
            Some((at, (writer, n))) if *at == lsn && record.payload == payload(*writer, *n) => {}
            other => return Err(format!("LSN {lsn} is there, due was {other:?}")),
        }
        count += 1;
    }
    if let Some((lsn, _)) = due.next() {
        return Err(format!("LSN {lsn} was acknowledged and is LOST"));
    }
    let row = log.recovery().row.letter();
    log.close().map_err(text)?;
    Ok(format!("all {count} from LSN {head} on read back after close and open (row {row})"))
}
