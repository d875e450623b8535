//! The oracle: a disk, a log on it, and a ledger of what each call asked and was told.
//!
//! After a scenario the machine crashes with nothing kept that no sync covered, and again with all
//! of it kept; the log opens, its LSNs are dense, every acknowledged record is where its caller was
//! told, nothing refused is there, and nothing is there twice. As many calls were acknowledged as
//! LSNs are durable, so exactly those behind a failed sync were told *unknown*.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_wal::fs::gate::Gate;
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::fs::{Dir, LockMode};
use annals_wal::{Error, ErrorKind, Level, Log, Lsn, Options, Pending, Record, Result, Sharing};
use shuttle::sync::atomic::{AtomicU64, Ordering};

/// Yields after which a lock that is not free never will be: PCT lets everybody else go first.
const PATIENCE: u32 = 20_000;

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// Its caller went away; the record must be there.
    Nobody,
    Durable(u64),
    Unknown,
    /// With this kind of error: certainly not written.
    Refused(ErrorKind),
}

#[derive(Debug)]
struct Entry {
    payload: Vec<u8>,
    /// What the handle of a submitted record said.
    lsn_if_durable: Option<u64>,
    told: Told,
}

/// Clones are the same world. The ledger's lock is not shuttle's: nothing happens under it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) disk: MemDir,
    ledger: Arc<Mutex<Vec<Entry>>>,
}

/// What became of a log in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Whole,
    Poisoned { durable: u64 },
}

impl End {
    /// Asked when nobody writes any more.
    pub(crate) fn of(log: &Log) -> End {
        let durable = log.durable_lsn().map_or(0, Lsn::get);
        log.poisoned().map_or(End::Whole, |_| End::Poisoned { durable })
    }
}

pub(crate) fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

impl World {
    pub(crate) fn new() -> (World, Log) {
        World::with(options(), |_| Ok(()))
    }

    /// A fresh log. Every operation on its files is a point at which the scheduler chooses, and the
    /// hook may fail it.
    pub(crate) fn with(
        options: Options,
        hook: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static,
    ) -> (World, Log) {
        let world = World { disk: MemDir::new(1), ledger: Arc::default() };
        let point = AtomicU64::new(0);
        let gate = Gate::new(world.disk.dir(), move |op| {
            point.fetch_add(1, Ordering::SeqCst);
            hook(op)
        });
        let log = options.open_in(gate).unwrap();
        (world, log)
    }

    /// A fresh log and two processes that share it, each with its directory. What waits for the other
    /// process polls, and each of its pauses is a point at which the scheduler chooses: the time limit
    /// is none.
    pub(crate) fn shared() -> (World, [(Log, Arc<Gate>); 2]) {
        let world = World { disk: MemDir::new(1), ledger: Arc::default() };
        let members = [11, 22].map(|pid| {
            let point = AtomicU64::new(0);
            let gate = Gate::new(world.disk.as_process(pid).dir(), move |_| {
                point.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            let options = options().sharing(Sharing::Processes);
            let log = options.lock_timeout(Duration::from_secs(3_600)).open_in(gate.clone());
            (log.unwrap(), gate)
        });
        (world, members)
    }

    /// Appends one record; `name` tells it from all others.
    pub(crate) fn append(&self, log: &Log, name: &str, len: usize) -> Told {
        self.append_at(log, Level::Durable, name, len)
    }

    /// Appends one record at a level. What is not durable yet is awaited before it is noted.
    pub(crate) fn append_at(&self, log: &Log, level: Level, name: &str, len: usize) -> Told {
        self.note_async(name, len, |record| {
            let lsn = log.append_at(level, record)?;
            log.wait_durable(lsn).map(|()| lsn)
        })
    }

    /// One record, appended by whatever way.
    pub(crate) fn note_async(
        &self,
        name: &str,
        len: usize,
        append: impl FnOnce(Record<'_>) -> Result<Lsn>,
    ) -> Told {
        let payload = payload(name, len);
        let told = told(&append(Record::new(&*payload)));
        self.note(payload, None, told);
        told
    }

    /// One whose future was dropped: certainly not written, unless it had been admitted.
    pub(crate) fn note_dropped(
        &self,
        name: &str,
        len: usize,
        admitted: impl FnOnce(Record<'_>) -> bool,
    ) {
        let payload = payload(name, len);
        let told = match admitted(Record::new(&*payload)) {
            true => Told::Nobody,
            false => Told::Refused(ErrorKind::WouldBlock),
        };
        self.note(payload, None, told);
    }

    /// Orders one record. `None` if it was refused.
    pub(crate) fn submit(&self, log: &Log, name: &str, len: usize) -> Option<Submitted> {
        let payload = payload(name, len);
        match log.submit(Record::new(payload.clone())) {
            Ok(pending) => {
                let lsn = pending.lsns_if_durable().start().get();
                let entry = self.note(payload, Some(lsn), Told::Nobody);
                Some(Submitted { world: self.clone(), entry, pending })
            }
            Err(error) => {
                assert!(!error.outcome_unknown(), "submit knows that it ordered nothing: {error}");
                self.note(payload, None, Told::Refused(error.kind()));
                None
            }
        }
    }

    fn note(&self, payload: Vec<u8>, lsn_if_durable: Option<u64>, told: Told) -> usize {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.push(Entry { payload, lsn_if_durable, told });
        ledger.len() - 1
    }

    /// How many calls were answered so far.
    pub(crate) fn calls(&self) -> usize {
        self.ledger.lock().unwrap().len()
    }

    /// How many calls were told that their outcome is unknown.
    pub(crate) fn unknown(&self) -> usize {
        self.ledger.lock().unwrap().iter().filter(|entry| entry.told == Told::Unknown).count()
    }

    /// How many were refused.
    pub(crate) fn refused(&self) -> usize {
        let ledger = self.ledger.lock().unwrap();
        ledger.iter().filter(|entry| matches!(entry.told, Told::Refused(_))).count()
    }

    /// Waits until the directory's lock is free: until committer and leaders are gone.
    pub(crate) fn await_unlocked(&self) {
        for _ in 0..PATIENCE {
            match self.disk.try_lock("LOCK", LockMode::Exclusive, false).unwrap() {
                Some(_free) => return,
                None => shuttle::thread::yield_now(),
            }
        }
        panic!("the lock is never free: somebody who may write waits for ever");
    }

    /// Until no thread of a log has anything of it any more.
    pub(crate) fn await_forgotten(dir: &Arc<Gate>) {
        for _ in 0..PATIENCE {
            if Arc::strong_count(dir) == 1 {
                return;
            }
            shuttle::thread::yield_now();
        }
        panic!("a thread of a log that is over never ends");
    }

    /// Drops the last handle and judges.
    pub(crate) fn judge_log(&self, log: Log, refusals: &[ErrorKind]) {
        let end = End::of(&log);
        drop(log);
        self.judge(end, refusals);
    }

    /// Judges, when all handles are gone. `refusals` are the kinds of error that may have happened.
    pub(crate) fn judge(&self, end: End, refusals: &[ErrorKind]) {
        self.await_unlocked();
        let ledger = self.ledger.lock().unwrap();
        let may_refuse = |kind| match end {
            End::Whole => refusals.contains(&kind),
            End::Poisoned { .. } => kind == ErrorKind::Poisoned || refusals.contains(&kind),
        };
        for entry in ledger.iter() {
            match entry.told {
                Told::Unknown => assert!(end != End::Whole, "unknown, and nothing failed"),
                Told::Refused(kind) => assert!(may_refuse(kind), "refused: {kind:?}"),
                Told::Nobody | Told::Durable(_) => {}
            }
        }
        if let End::Poisoned { durable } = end {
            let acknowledged = ledger.iter().filter(|entry| entry.is_durable(durable)).count();
            assert_eq!(acknowledged as u64, durable, "told durable or gone, and durable LSNs");
        }
        for disk in [self.disk.crash(Keep::Nothing), self.disk.killed()] {
            judge_disk(&disk, &ledger, end);
        }
    }
}

impl Entry {
    fn is_durable(&self, durable: u64) -> bool {
        match self.told {
            Told::Durable(lsn) => {
                assert!(lsn <= durable, "LSN {lsn} is acknowledged and over {durable}");
                true
            }
            Told::Nobody => self.lsn_if_durable.is_some_and(|lsn| lsn <= durable),
            Told::Unknown | Told::Refused(_) => false,
        }
    }
}

fn judge_disk(disk: &MemDir, ledger: &[Entry], end: End) {
    let log = options().sharing(Sharing::AsMade).open_in(disk.dir()).unwrap();
    let (head, mut next) = (log.head_lsn().get(), log.head_lsn().get());
    let mut found = BTreeMap::new();
    for record in log.range(..).unwrap() {
        let record = record.unwrap();
        assert_eq!(record.lsn.get(), next, "LSNs are dense");
        assert!(found.insert(record.payload, next).is_none(), "LSN {next} is there twice");
        next += 1;
    }
    let count = found.len();
    let mut known = 0;
    for entry in ledger {
        let at = found.get(&entry.payload).copied();
        known += usize::from(at.is_some());
        match entry.told {
            Told::Durable(lsn) if lsn < head => assert_eq!(at, None),
            Told::Durable(lsn) => assert_eq!(at, Some(lsn), "acknowledged"),
            Told::Nobody if end == End::Whole && entry.lsn_if_durable.is_none() => {
                assert!(at.is_some(), "admitted, and nothing failed");
            }
            Told::Nobody if end == End::Whole && entry.lsn_if_durable >= Some(head) => {
                assert_eq!(at, entry.lsn_if_durable, "admitted, and nothing failed");
            }
            Told::Nobody | Told::Unknown => {}
            Told::Refused(_) => assert_eq!(at, None, "refused, and there"),
        }
    }
    assert_eq!(known, count, "records that nobody wrote");
}

/// A record in the order, whose caller has not been told yet.
#[derive(Debug)]
pub(crate) struct Submitted {
    world: World,
    entry: usize,
    pub(crate) pending: Pending,
}

impl Submitted {
    pub(crate) fn lsn(&self) -> Lsn {
        *self.pending.lsns_if_durable().start()
    }

    pub(crate) fn wait(self) -> Told {
        let result = self.pending.wait().map(|lsns| *lsns.start());
        self.world.told(self.entry, &result)
    }

    pub(crate) fn block_on(self) -> Told {
        let result = shuttle::future::block_on(self.pending).map(|lsns| *lsns.start());
        self.world.told(self.entry, &result)
    }
}

impl World {
    fn told(&self, entry: usize, result: &Result<Lsn>) -> Told {
        let told = told(result);
        assert!(!matches!(told, Told::Refused(_)), "it was ordered: {result:?}");
        self.ledger.lock().unwrap()[entry].told = told;
        told
    }
}

fn told(result: &Result<Lsn>) -> Told {
    match result {
        Ok(lsn) => Told::Durable(lsn.get()),
        Err(error) => refusal(error),
    }
}

pub(crate) fn refusal(error: &Error) -> Told {
    if error.outcome_unknown() { Told::Unknown } else { Told::Refused(error.kind()) }
}

fn payload(name: &str, len: usize) -> Vec<u8> {
    let mut payload = name.as_bytes().to_vec();
    payload.resize(len.max(payload.len()), b'.');
    payload
}

/// A number below `end`, the scheduler's choice.
pub(crate) fn choose(end: u64) -> u64 {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..end)
}
