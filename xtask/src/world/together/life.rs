//! Does what the steps say, and holds both processes to the one model.
//!
//! Never here: chance. Invariants: every answer is noted before the next step; an outcome that is
//! unknown stays an open question until a later record of either process, or an opening, answers
//! it for both; an error that nothing was armed for is a violation.

use annals_registry::{Change, Key, Outcome, Registry, Trim, TxResult, Value};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::recover::Row;
use annals_wal::{Batch, ErrorKind, Log, Lsn, Options, Record, Sharing};

use super::{Deed, Setup, Step, Who};
use crate::world::model::{Maybe, effects, print_changes, print_plain};
use crate::world::{Model, Tally};

/// Nobody is ever waited for here, so a wait is a violation that should come soon.
const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(50);
const OPENINGS_MAX: usize = 12;

/// The two, their disk, and what must be true of it.
#[derive(Debug)]
pub struct Pair {
    /// Their disk.
    pub disk: MemDir,
    /// What must be true of it.
    pub model: Model,
    /// What happened so far.
    pub tally: Tally,
    setup: Setup,
    members: [Member; 2],
    pids: u32,
    keep: Keep,
    faulted: bool,
    /// Whose call it is.
    acts: Who,
    /// Batches that may be there, in order, each with the opening it was made in: of one opening
    /// the first few, whole.
    open: Vec<(u64, Maybe)>,
}

#[derive(Debug)]
struct Member {
    dir: MemDir,
    rooms: Option<Rooms>,
}

#[derive(Clone, Debug)]
struct Rooms {
    opening: u64,
    log: Log,
    registry: Option<Registry>,
}

/// What a call came to: the first LSN it got, if it got one; or what was told.
type Answer = Result<Option<u64>, Told>;

struct Told {
    unknown: bool,
    why: String,
    /// Whoever slept past another's trim learns so, without any fault.
    trimmed: bool,
}

impl From<annals_wal::Error> for Told {
    fn from(e: annals_wal::Error) -> Told {
        let trimmed = e.kind() == ErrorKind::Trimmed;
        Told { unknown: e.outcome_unknown(), why: format!("{e:?}"), trimmed }
    }
}

impl From<annals_registry::Error> for Told {
    fn from(e: annals_registry::Error) -> Told {
        let trimmed = e.log_error().is_some_and(|e| e.kind() == ErrorKind::Trimmed);
        Told { unknown: e.outcome_unknown(), why: format!("{e:?}"), trimmed }
    }
}

impl Pair {
    /// Two processes and no log yet.
    pub fn new(setup: Setup) -> Pair {
        let disk = MemDir::new(setup.seed);
        disk.tear_sectors(setup.tear_sectors);
        disk.copy_on_write(setup.copy_on_write);
        let members = [11, 12].map(|pid| Member { dir: disk.as_process(pid), rooms: None });
        let (model, tally) = (Model::default(), Tally::default());
        let (keep, acts) = (Keep::Nothing, Who::One);
        let open = Vec::new();
        Pair { disk, model, tally, setup, members, pids: 12, keep, faulted: false, acts, open }
    }

    /// Does one step, and what must follow it.
    ///
    /// # Errors
    /// The violation, in words.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::By(who, deed) => self.deed(who, deed)?,
            Step::Crash(keep) => self.crash(keep),
            Step::StopIn { ops, keep } => self.stop_after(self.disk.ops() + u64::from(ops), keep),
            Step::FaultIn { ops, fault } => {
                self.tally.faults += 1;
                self.faulted = true;
                self.disk.fault_at(self.disk.ops() + u64::from(ops), fault);
            }
            Step::FailSync { point, nth, how } => {
                self.tally.faults += 1;
                self.faulted = true;
                self.disk.fail_sync(point, u64::from(nth), how);
            }
        }
        if self.disk.stopped() {
            self.crash(self.keep);
        }
        Ok(())
    }

    /// From this operation of the disk on nothing happens any more, until a crash keeps this.
    pub fn stop_after(&mut self, ops: u64, keep: Keep) {
        self.keep = keep;
        self.disk.stop_after(ops);
    }

    /// Arms a fault, whoever does that operation of the disk.
    pub fn fault_at(&mut self, op: u64, fault: annals_wal::fs::mem::Fault) {
        self.faulted = true;
        self.disk.fault_at(op, fault);
    }

    /// Kills one of them just before its changing operation with this number.
    pub fn kill_at(&self, who: Who, op: u64) {
        self.members[who as usize].dir.kill_at(op);
    }

    /// Changing operations of one of them, since it was started.
    pub fn ops_of(&self, who: Who) -> u64 {
        self.members[who as usize].dir.process_ops()
    }

    /// The end of every life: both open, know the same, write; the power goes; both open again, and
    /// close; every byte is sound, and nothing is left to recover.
    ///
    /// # Errors
    /// The violation, in words.
    pub fn finish(&mut self) -> Result<(), String> {
        self.disk.clear_faults();
        for round in 0..2 {
            for who in Who::BOTH {
                self.deed(who, Deed::Look)?;
                self.deed(who, Deed::Append { records: 2, bytes: 300 })?;
                self.deed(who, Deed::Move { from: 0, to: 1 })?;
                self.deed(who.other(), Deed::Look)?;
            }
            // What was armed for other processes is over; what one file was not told yet is not.
            self.crash(if round == 0 { Keep::Nothing } else { Keep::Everything });
        }
        for who in Who::BOTH {
            self.ensure_open(who)?;
        }
        for who in Who::BOTH {
            self.deed(who, Deed::Append { records: 1, bytes: 10 })?;
            self.deed(who, Deed::Close)?;
        }
        let report = inspect_in(&self.disk.dir(), Depth::Everything, &mut |_| ());
        let report = report.map_err(|e| format!("inspecting: {e:?}"))?;
        if report.state >= State::Corrupt {
            return Err(format!("inspected as {:?}: {:?}", report.state, report.findings));
        }
        self.deed(Who::Two, Deed::Look)?;
        let rooms = self.members[Who::Two as usize].rooms.as_ref().ok_or("it is not open")?;
        let row = rooms.log.recovery().row;
        if row != Row::A {
            return Err(format!("row {row:?} after both have closed"));
        }
        self.tally.ops += self.disk.ops();
        Ok(())
    }

    fn crash(&mut self, keep: Keep) {
        self.tally.crashes += 1;
        self.tally.ops += self.disk.ops();
        let after = self.disk.crash(keep);
        self.disk = after;
        for who in Who::BOTH {
            self.restart(who);
        }
        self.faulted = false;
    }

    /// Another process takes its place.
    fn restart(&mut self, who: Who) {
        self.pids += 1;
        let dir = self.disk.as_process(self.pids);
        self.members[who as usize] = Member { dir, rooms: None };
    }

    fn is_dead(&self, who: Who) -> bool {
        self.members[who as usize].dir.is_dead()
    }

    /// Whether an error of this one would have no reason.
    fn is_quiet(&self, who: Who) -> bool {
        !self.faulted && !self.disk.stopped() && !self.is_dead(who)
    }

    fn deed(&mut self, who: Who, deed: Deed) -> Result<(), String> {
        let dir = &self.members[who as usize].dir;
        match deed {
            Deed::Die => {
                self.tally.crashes += 1;
                dir.kill();
            }
            Deed::DieIn { ops } => {
                self.tally.crashes += 1;
                dir.kill_at(dir.process_ops() + u64::from(ops));
            }
            Deed::Drop => self.members[who as usize].rooms = None,
            _ => self.call(who, deed).map_err(|why| format!("{who:?}: {why}"))?,
        }
        if self.is_dead(who) {
            self.restart(who);
        }
        Ok(())
    }

    fn call(&mut self, who: Who, deed: Deed) -> Result<(), String> {
        let Some(rooms) = self.ensure_open(who)? else { return Ok(()) };
        self.acts = who;
        let refused = match deed {
            Deed::Append { records, bytes } => self.append(&rooms, records, bytes)?,
            Deed::Batches { count, bytes } => self.batches(&rooms, count, bytes)?,
            Deed::Put { key, bytes } => {
                let value = Value::raw(self.model.content(usize::from(bytes)));
                self.change(&rooms, Change::Put { key: path(key), value })?
            }
            Deed::Delete { key } => self.change(&rooms, Change::Delete { key: path(key) })?,
            Deed::Move { from, to } => self.move_one(&rooms, from, to)?,
            Deed::Trim { permille } => self.trim(&rooms, permille)?,
            Deed::Close => {
                self.members[who as usize].rooms = None;
                rooms.log.close().err().map(Told::from)
            }
            _ => self.look(&rooms)?,
        };
        match refused {
            Some(told) if self.is_quiet(who) && !told.trimmed => {
                Err(format!("{deed:?} failed, and nothing was made to fail: {}", told.why))
            }
            _ => Ok(()),
        }
    }

    /// The handles of this one, opened unless they are there and well. `None` if it cannot be: the
    /// machine has stopped.
    fn ensure_open(&mut self, who: Who) -> Result<Option<Rooms>, String> {
        let mut last = String::new();
        for attempt in 0..OPENINGS_MAX {
            if self.disk.stopped() {
                return Ok(None);
            }
            if self.is_dead(who) {
                self.restart(who);
            }
            let member = &mut self.members[who as usize];
            if let Some(rooms) = member.rooms.as_ref().filter(|r| r.log.poisoned().is_none()) {
                return Ok(Some(rooms.clone()));
            }
            member.rooms = None;
            if attempt >= 2 {
                self.disk.clear_faults();
            }
            match self.open(who)? {
                Ok(rooms) => self.members[who as usize].rooms = Some(rooms),
                Err(told) if self.is_quiet(who) => {
                    return Err(format!("opening, and nothing was made to fail: {}", told.why));
                }
                Err(told) => last = told.why,
            }
        }
        Err(format!("no opening succeeds, though nothing fails any more: {last}"))
    }

    fn open(&mut self, who: Who) -> Result<Result<Rooms, Told>, String> {
        self.tally.openings += 1;
        let options = Options::new().segment_bytes(64 << 10).sharing(Sharing::Processes);
        let dir = self.members[who as usize].dir.dir();
        let log = match options.lock_timeout(LOCK_TIMEOUT).open_in(dir) {
            Ok(log) => log,
            Err(e) => return Ok(Err(e.into())),
        };
        // Trims are steps.
        let options = annals_registry::Options::new().trim(Trim::Never).snapshot_bytes(0);
        let registry = self.setup.registry.then(|| options.on(log.clone())).transpose();
        let rooms = match registry {
            Ok(registry) => Rooms { opening: self.tally.openings, log, registry },
            Err(e) => return Ok(Err(e.into())),
        };
        let told = self.look(&rooms)?;
        Ok(told.map_or(Ok(rooms), Err))
    }

    fn append(&mut self, rooms: &Rooms, records: u8, bytes: u32) -> Noted {
        let (asked, batch) = self.batch(records, bytes);
        let answer = rooms.log.append_batch(batch);
        self.note(rooms, asked, answer.map(|lsns| Some(lsns.start().get())).map_err(Told::from))
    }

    fn batch(&mut self, records: u8, bytes: u32) -> (Maybe, Batch<'static>) {
        let payloads: Vec<_> =
            (0..records.max(1)).map(|_| self.model.content(bytes as usize)).collect();
        let prints = payloads.iter().map(|payload| print_plain(payload)).collect();
        (Maybe { prints, changes: Vec::new() }, payloads.into_iter().map(Record::new).collect())
    }

    /// Several groups in one turn.
    fn batches(&mut self, rooms: &Rooms, count: u8, bytes: u32) -> Noted {
        let turn = match rooms.log.turn() {
            Ok(turn) => turn,
            Err(e) => return Ok(Some(e.into())),
        };
        let mut refused = None;
        for _ in 0..count {
            refused = self.append(rooms, 1, bytes)?.or(refused);
        }
        drop(turn);
        Ok(refused)
    }

    fn change(&mut self, rooms: &Rooms, change: Change) -> Noted {
        let Some(registry) = &rooms.registry else { return Ok(None) };
        let changes = effects(std::slice::from_ref(&change));
        let answer = match change {
            Change::Put { key, value } => registry.put(&key, value),
            Change::Delete { key } => registry.delete(&key),
            Change::PutLeased { .. } => return Ok(None),
        };
        let asked = Maybe { prints: vec![print_changes(&changes)], changes };
        let answer = answer.map(|revision| Some(revision.lsn().get())).map_err(Told::from);
        self.note(rooms, asked, answer)
    }

    /// What it read must be the last value that anybody was told, whoever wrote it.
    fn move_one(&mut self, rooms: &Rooms, from: u8, to: u8) -> Noted {
        let Some(registry) = &rooms.registry else { return Ok(None) };
        let (from, to) = (path(from), path(to));
        let stamp = self.model.content(12);
        let (mut changes, mut read) = (Vec::new(), None);
        let answer = registry.transact(|tx| -> TxResult<()> {
            read = tx.get(&from)?.map(|value| value.bytes().to_vec());
            let value = Value::raw(stamp.clone());
            changes = [&from, &to]
                .map(|key| Change::Put { key: key.clone(), value: value.clone() })
                .to_vec();
            tx.put(&from, value.clone());
            tx.put(&to, value);
            Ok(())
        });
        let answer = match answer {
            Ok(Outcome::Done { revision, .. }) => Ok(revision.map(|revision| revision.lsn().get())),
            Ok(Outcome::Conflict { .. }) => return Err("a conflict with nobody".to_owned()),
            Ok(Outcome::Aborted(never)) => match never {},
            Err(e) => Err(Told::from(e)),
        };
        if from == to {
            changes.truncate(1);
        }
        let changes = effects(&changes);
        let asked = Maybe { prints: vec![print_changes(&changes)], changes };
        if let Ok(Some(lsn)) = answer {
            self.decided(rooms, lsn)?;
            if self.model.keys.get(from.as_str()).map(|value| value.to_vec()) != read {
                return Err(format!("a transaction at LSN {lsn} has read another value"));
            }
        }
        self.note(rooms, asked, answer)
    }

    fn trim(&mut self, rooms: &Rooms, permille: u16) -> Noted {
        let span = self.model.next_lsn() - self.model.head;
        let to = self.model.head + span * u64::from(permille.min(1000)) / 1000;
        self.model.head_max = self.model.head_max.max(to);
        let Some(lsn) = Lsn::new(to) else { return Ok(None) };
        match rooms.log.trim(lsn) {
            Ok(_) if self.is_dead(self.acts) => Ok(None),
            Ok(head) => self.head_is(head.get()).map(|()| None),
            Err(e) => Ok(Some(e.into())),
        }
    }

    fn head_is(&mut self, head: u64) -> Result<(), String> {
        if !(self.model.head..=self.model.head_max).contains(&head) {
            let (head_min, head_max) = (self.model.head, self.model.head_max);
            return Err(format!("head {head} not in {head_min}..={head_max}"));
        }
        // What an error left open stays so: another may still read it.
        self.model.head = head;
        Ok(())
    }

    /// Notes an answer, after what it decided of others' open questions.
    fn note(&mut self, rooms: &Rooms, asked: Maybe, answer: Answer) -> Noted {
        match answer {
            Ok(None) => Ok(None),
            Ok(Some(lsn)) => {
                self.decided(rooms, lsn)?;
                if self.is_dead(self.acts) {
                    // It died under its call, so nobody was told.
                    self.open.push((rooms.opening, asked));
                } else {
                    self.tally.acknowledged += 1;
                    self.model.acknowledged(asked);
                }
                Ok(None)
            }
            Err(told) => {
                if told.unknown {
                    self.open.push((rooms.opening, asked));
                }
                Ok(Some(told))
            }
        }
    }

    /// This LSN was given, so everything before it is decided: the open questions that are there
    /// are the first ones, whole, and the others never come.
    fn decided(&mut self, rooms: &Rooms, lsn: u64) -> Result<(), String> {
        let next = self.model.next_lsn();
        if lsn > next {
            let head = rooms.log.head_lsn().get();
            let records = rooms.log.range(..).map_err(|e| format!("range: {e:?}"))?;
            let before = records
                .take_while(|record| record.as_ref().map_or(true, |record| record.lsn.get() < lsn));
            self.take_in(head, before)?;
        }
        if lsn != self.model.next_lsn() {
            return Err(format!("got LSN {lsn}, not {}", self.model.next_lsn()));
        }
        self.open.clear();
        Ok(())
    }

    /// What was shown is a promise: the history, and open questions, whole. One that is left out
    /// takes all later ones of its opening with it.
    fn take_in(
        &mut self,
        head: u64,
        records: impl Iterator<Item = annals_wal::Result<annals_wal::StoredRecord>>,
    ) -> Result<(), String> {
        let extra = self.model.read(head, records)?;
        let mut rest = extra.as_slice();
        while !rest.is_empty() {
            let Some((opening, first)) = self.open.first().cloned() else {
                return Err("a record that nobody appended, or half a batch".to_owned());
            };
            if let Some(after) = rest.strip_prefix(first.prints.as_slice()) {
                rest = after;
                self.open.remove(0);
                self.model.acknowledged(first);
            } else {
                self.open.retain(|(of, _)| *of != opening);
            }
        }
        Ok(())
    }

    /// What others were told is durable is seen without a turn, in the log and in the registry.
    fn look(&mut self, rooms: &Rooms) -> Noted {
        if let Err(e) = rooms.log.refresh() {
            return Ok(Some(e.into()));
        }
        let head = rooms.log.head_lsn().get();
        self.head_is(head)?;
        let records = match rooms.log.range(..) {
            Ok(records) => records,
            Err(e) => return Ok(Some(e.into())),
        };
        match self.take_in(head, records) {
            // On this disk only a fault that was armed makes an I/O error.
            Err(why) if why.contains("Io") => {
                return Ok(Some(Told { unknown: false, why, trimmed: false }));
            }
            taken => taken?,
        }
        if let Some(registry) = &rooms.registry {
            self.model.check_registry(registry)?;
        }
        Ok(None)
    }
}

/// Why a call was refused, if it was; or the violation, in words.
type Noted = Result<Option<Told>, String>;

fn path(key: u8) -> Key {
    #[expect(clippy::expect_used, reason = "a key of this crate's own")]
    Key::new(format!("keys/k{}", key % 6)).expect("a sound key")
}
