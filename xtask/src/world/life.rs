//! Does what acts say, on one disk, and holds the log to the model at every step.
//!
//! Never here: chance, clocks, threads of its own. Invariants: every answer of the log is noted
//! before the next act; an outcome that is unknown stays an open question until an opening answers
//! it; with no fault armed an opening succeeds. Next rooms: [`super::model`], [`super::damage`].

pub(crate) mod archives;
mod calls;
mod disk;
mod entries;
mod opening;
mod visitors;

pub(crate) use opening::rows;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_observer::archive::Target;
use annals_observer::{Clock, MonoTime, Observer, WallTime};
use annals_registry::Registry;
use annals_wal::fs::mem::{Fault, Keep, MemDir, SyncFailure};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::{Log, LogReader, Options};

use super::act::{Act, Then};
use super::damage;
use super::model::Model;
use visitors::During;

/// What a life went through.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often each row of the recovery table was met, D and H among them.
    pub rows: BTreeMap<&'static str, u64>,
    /// Changing operations of the disk.
    pub ops: u64,
    /// Stops of the machine or of the process.
    pub crashes: u64,
    /// Faults armed.
    pub faults: u64,
    /// Openings.
    pub openings: u64,
    /// Batches, changes and entries acknowledged.
    pub acknowledged: u64,
    /// Segments handed over to archives.
    pub archived: u64,
}

impl Tally {
    /// Adds another's.
    pub fn add(&mut self, other: &Tally) {
        for (row, count) in &other.rows {
            *self.rows.entry(row).or_default() += count;
        }
        self.ops += other.ops;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.openings += other.openings;
        self.acknowledged += other.acknowledged;
        self.archived += other.archived;
    }

    pub(crate) fn row(&mut self, row: &'static str) {
        *self.rows.entry(row).or_default() += 1;
    }
}

/// How a life is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Life {
    /// Whether there is a registry on the log; its hold then forbids every trim.
    pub registry: bool,
    /// Whether crashes tear sectors inside.
    pub tear_sectors: bool,
    /// Whether overwrites take new space.
    pub copy_on_write: bool,
    /// Whether segments grow.
    pub grows: bool,
    /// Seeds salts and ids.
    pub seed: u64,
}

/// A log in the middle of its life.
pub struct World {
    /// Its disk.
    pub disk: MemDir,
    /// What must be true of it.
    pub model: Model,
    /// What happened so far.
    pub tally: Tally,
    life: Life,
    rooms: Option<Rooms>,
    then: Then,
    /// A sweep looks at the disk where the machine stopped, or where an opening failed: nothing is
    /// restarted and nothing tried again.
    pauses: bool,
    /// While it pauses: an opening was tried and gave nothing.
    opening_failed: bool,
    passes_rows: bool,
    /// Something was made to fail, or may still be told of a failure.
    faulted: bool,
    /// Some file's cached bytes may go back to what the disk has, the control block's too.
    reverts: bool,
    /// A call answered with an error.
    refused: bool,
    /// The observer's last ticket in this opening.
    last_ticket: u64,
    clock: Arc<Ticks>,
    during: Arc<During>,
}

/// The open handles.
struct Rooms {
    log: Log,
    registry: Option<Registry>,
    observer: Observer,
    /// Archives that were handed over to since the log was opened.
    targets: RefCell<BTreeMap<u8, Target>>,
}

/// A clock that moves with every act. (It moved when it was asked, and the observer's thread asks
/// too: the same seed gave entries with other times, and damage hit other bytes.)
#[derive(Debug, Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000_000_000)
    }

    fn mono(&self) -> MonoTime {
        MonoTime(self.0.load(Ordering::Relaxed))
    }
}

impl annals_registry::Clock for Ticks {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

/// Small segments, so that everything happens often.
pub(crate) fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

impl Life {
    pub(crate) fn options(self) -> Options {
        if self.grows { Options::new().segment_bytes_first(64 << 10) } else { options() }
    }
}

impl World {
    /// A world without a log yet.
    pub fn new(life: Life) -> World {
        let disk = MemDir::new(life.seed);
        disk.tear_sectors(life.tear_sectors);
        disk.copy_on_write(life.copy_on_write);
        World { faulted: false, ..World::at(life, disk, Model::default()) }
    }

    /// A world that goes on from here.
    pub fn at(life: Life, disk: MemDir, model: Model) -> World {
        let then = Then::Crash(Keep::Nothing);
        let clock = Arc::default();
        World {
            disk,
            model,
            tally: Tally::default(),
            life,
            rooms: None,
            then,
            pauses: false,
            opening_failed: false,
            passes_rows: false,
            faulted: true,
            reverts: false,
            refused: false,
            last_ticket: 0,
            clock,
            during: Arc::default(),
        }
    }

    /// Does one act, and what must follow it.
    ///
    /// # Errors
    /// The violation, in words.
    pub fn act(&mut self, act: &Act) -> Result<(), String> {
        self.clock.0.fetch_add(1, Ordering::Relaxed);
        match *act {
            Act::Kill | Act::Crash(_) | Act::Drop => self.end(*act),
            Act::StopIn { ops, then } => {
                self.then = then;
                self.disk.stop_after(self.disk.ops() + u64::from(ops));
            }
            Act::FaultIn { ops, fault } => {
                self.tally.faults += 1;
                self.faulted |= fault != Fault::Interrupted;
                self.reverts |= matches!(fault, Fault::Writeback(SyncFailure::CleanOld));
                self.disk.fault_at(self.disk.ops() + u64::from(ops), fault);
            }
            Act::FailSync { point, nth, how } => {
                self.tally.faults += 1;
                self.faulted = true;
                self.disk.fail_sync(point, u64::from(nth), how);
            }
            Act::FailRead { nth, errno } => {
                self.tally.faults += 1;
                self.faulted = true;
                self.disk.fail_read(u64::from(nth), errno);
            }
            Act::ShortReads { seed } => self.disk.short_reads(seed),
            Act::Fill { bytes } => {
                self.tally.faults += 1;
                self.faulted = true;
                self.disk.set_bytes_free(Some(u64::from(bytes)));
            }
            Act::Free => self.disk.set_bytes_free(None),
            Act::Damage { what, copied, seed } => {
                return damage::judge(self, what, copied, seed);
            }
            Act::Peek => self.peek()?,
            Act::OthersSync { how } => self.others_sync(how),
            _ => {
                self.ensure_open()?;
                self.refused = false;
                self.call(act)?;
                let failed = self.refused || self.failed();
                if failed && self.is_quiet() && !matches!(act, Act::LoseName { .. }) {
                    return Err("an error, and nothing was made to fail".to_owned());
                }
            }
        }
        if self.disk.stopped() && !self.pauses {
            self.restart();
        }
        Ok(())
    }

    /// From now on it stands still where the machine stops or an opening fails.
    pub fn pause_on_trouble(&mut self) {
        self.pauses = true;
    }

    /// Lets go of every handle and gives the disk as the next process finds it, the machine
    /// running on.
    pub fn into_parts(mut self) -> (MemDir, Model) {
        self.rooms = None;
        (self.disk, self.model)
    }

    /// The end of every life: power goes, the log opens, holds what it must, takes more, closes,
    /// and every byte of it is sound.
    ///
    /// # Errors
    /// The violation, in words.
    pub fn finish(&mut self) -> Result<(), String> {
        self.disk.clear_faults();
        self.disk.set_bytes_free(None);
        for _ in 0..2 {
            self.ensure_open()?;
            self.end(Act::Crash(Keep::Nothing));
        }
        self.ensure_open()?;
        self.check_leftovers()?;
        self.call(&Act::Append { records: 2, bytes: 300 })?;
        self.finish_archives()?;
        self.call(&Act::Close)?;
        let dir = self.disk.dir();
        let report = inspect_in(&dir, Depth::Everything, &mut |_| ()).map_err(|e| e.to_string())?;
        if report.state != State::Clean {
            return Err(format!(
                "closed, and inspected as {:?}: {:?}",
                report.state, report.findings
            ));
        }
        self.tally.ops += self.disk.ops();
        self.check_salts()
    }

    /// Whether everything must succeed: nothing was made to fail and the machine runs.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.faulted && !self.pauses && !self.disk.stopped()
    }

    /// Whether an opening failed, or the log did.
    pub fn failed(&self) -> bool {
        self.opening_failed
            || self.rooms.as_ref().is_some_and(|rooms| rooms.log.poisoned().is_some())
    }

    /// Opens, appends and loses the power. Behind an open record these records end where a sector
    /// does, so that nothing of them hides old frames of their size.
    ///
    /// # Errors
    /// The violation, in words.
    pub fn settle(&mut self) -> Result<(), String> {
        self.pass_rows();
        self.ensure_open()?;
        self.call(&Act::Append { records: 3, bytes: 408 })?;
        self.end(Act::Crash(Keep::Nothing));
        Ok(())
    }

    /// Does not count the rows that its openings meet.
    pub fn pass_rows(&mut self) {
        self.passes_rows = true;
    }

    /// Whether the log has failed for good, or was never opened.
    pub fn is_down(&self) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.log.poisoned().is_some())
    }

    /// The machine has stopped: what comes back is what was asked for.
    pub(crate) fn restart(&mut self) {
        match self.then {
            Then::Kill => self.end(Act::Kill),
            Then::Crash(keep) => self.end(Act::Crash(keep)),
        }
    }

    fn end(&mut self, how: Act) {
        self.rooms = None;
        self.tally.ops += self.disk.ops();
        let was_stopped = self.disk.stopped();
        self.disk = match how {
            Act::Crash(keep) => self.disk.crash(keep),
            _ => self.disk.killed(),
        };
        self.tally.crashes += u64::from(was_stopped || how != Act::Drop);
    }

    /// Reads as everybody may. A read that was made to fail is an error and no record.
    fn read(&self, rooms: &Rooms) -> Result<(), String> {
        let head = rooms.log.head_lsn().get();
        if let Ok(reader) = LogReader::open_in(self.disk.dir())
            && reader.is_live().is_ok_and(|live| !live)
        {
            return Err("open, and nobody seems to own it".to_owned());
        }
        if let Ok(records) = rooms.log.range(..) {
            self.model.read(head, records).map(drop).or_else(unless_io)?;
        }
        match LogReader::open_in(self.disk.dir()).and_then(|reader| reader.range(..)) {
            Ok(records) => self.model.check_reader(records).or_else(unless_io)?,
            Err(e) if e.kind() == annals_wal::ErrorKind::Io => {}
            Err(e) => return Err(format!("reader: {e:?}")),
        }
        match inspect_in(&self.disk.dir(), Depth::Everything, &mut |_| ()) {
            Ok(report) if report.state >= State::Corrupt => {
                Err(format!("inspected as {:?}: {:?}", report.state, report.findings))
            }
            _ => Ok(()),
        }
    }
}

/// On this disk only a fault that was armed makes an I/O error.
pub(crate) fn unless_io(why: String) -> Result<(), String> {
    if why.contains("Io") { Ok(()) } else { Err(why) }
}
