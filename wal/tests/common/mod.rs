//! The crash oracle: a model of what was asked and acknowledged, compared with what a reopened log
//! shows.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the oracle")]

use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Batch, Error, Log, Lsn, Options, Record};

/// What the script asked for and what it was told.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Payload of every record that must be there, LSN 1 first.
    pub history: Vec<Vec<u8>>,
    /// A batch whose call has not returned, or returned with an unknown outcome.
    pub maybe: Vec<Vec<u8>>,
    /// The head must be at least this, and at most `head_maybe`.
    pub head: u64,
    pub head_maybe: u64,
    /// Holds acknowledged.
    pub hold: Option<u64>,
}

pub fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

pub fn open(disk: &MemDir) -> Result<Log, Error> {
    options().open_in(disk.dir())
}

impl Model {
    pub fn new() -> Model {
        Model { head: 1, head_maybe: 1, ..Model::default() }
    }

    /// A payload that tells which record it is.
    pub fn payload(&self, extra: usize, len: usize) -> Vec<u8> {
        let n = self.history.len() + extra + 1;
        let mut payload = format!("record {n} ").into_bytes();
        payload.resize(len.max(payload.len()), b'a' + (n % 26) as u8);
        payload
    }

    /// Appends a batch of `count` records of `len` bytes and notes the answer.
    pub fn append(&mut self, log: &Log, count: usize, len: usize) -> Result<(), Error> {
        let payloads: Vec<_> = (0..count).map(|extra| self.payload(extra, len)).collect();
        self.maybe = payloads.clone();
        let batch: Batch = payloads.iter().map(|p| Record::new(p.clone())).collect();
        let lsns = log.append_batch(batch)?;
        assert_eq!(lsns.start().get(), self.history.len() as u64 + 1, "LSNs are dense");
        self.history.append(&mut self.maybe);
        Ok(())
    }

    pub fn trim(&mut self, log: &Log, lsn: u64) -> Result<(), Error> {
        self.head_maybe = self.head_maybe.max(lsn);
        let head = log.trim(Lsn::new(lsn).unwrap())?;
        self.head = head.get();
        Ok(())
    }

    /// Reads the log and compares. On success the model knows what became of `maybe`.
    pub fn check(&mut self, log: &Log) -> Result<(), String> {
        let head = log.head_lsn().get();
        if head < self.head || head > self.head_maybe {
            return Err(format!("head {head}, not in {}..={}", self.head, self.head_maybe));
        }
        if let Some(hold) = self.hold {
            let held = log.holds().iter().any(|(name, lsn)| name == "test" && lsn.get() == hold);
            if !held {
                return Err(format!("the hold at {hold} is gone: {:?}", log.holds()));
            }
        }
        let mut next = head;
        let records = log.range(..).map_err(|e| format!("range: {e}"))?;
        let mut extra = Vec::new();
        for record in records {
            let record = record.map_err(|e| format!("reading LSN {next}: {e:?}"))?;
            if record.lsn.get() != next {
                return Err(format!("LSN {} where {next} was due", record.lsn));
            }
            let known = self.history.get(next as usize - 1);
            match known {
                Some(known) if *known == record.payload => {}
                Some(_) => return Err(format!("LSN {next} holds another record's bytes")),
                None => extra.push(record.payload),
            }
            next += 1;
        }
        let acked = self.history.len() as u64;
        if next <= acked {
            return Err(format!("acknowledged LSNs {next} to {acked} are lost"));
        }
        if !extra.is_empty() && extra != self.maybe {
            return Err(format!("{} records that nobody appended, or half a batch", extra.len()));
        }
        self.history.append(&mut extra);
        self.maybe.clear();
        self.head = head;
        self.head_maybe = self.head_maybe.max(head);
        Ok(())
    }
}

/// What is kept of the un-synced bytes and names after a crash.
pub fn keeps(seeds: u64, salt: u64) -> Vec<Keep> {
    let some = (0..seeds).map(|seed| Keep::Some(0x5EED_0000 + seed * 7919 + salt * 104_729));
    [Keep::Nothing, Keep::Everything].into_iter().chain(some).collect()
}

/// One script: opens the log on the disk and does things until the machine stops.
pub type Script = fn(&MemDir, &mut Model) -> Result<(), Error>;

/// Which hooks a sweep runs under.
#[derive(Clone, Copy)]
pub struct Sweep {
    pub prepare: fn(&MemDir),
    pub seeds: u64,
    /// Whether the recovery after each crash is crashed at each of its own operations too.
    pub nested: bool,
}

/// Runs the script once to count its operations, then once for every operation to crash after.
/// Returns how many crashes were survived, or the first violation.
pub fn sweep(script: Script, sweep: Sweep) -> Result<u64, String> {
    let whole = MemDir::new(1);
    (sweep.prepare)(&whole);
    script(&whole, &mut Model::new()).map_err(|e| format!("without a crash: {e:?}"))?;
    let mut survived = 0;
    for ops in 0..=whole.ops() {
        let disk = MemDir::new(1);
        (sweep.prepare)(&disk);
        disk.stop_after(ops);
        let mut model = Model::new();
        let _ = script(&disk, &mut model);
        // A kill leaves the machine running: what it shows next it must keep.
        recovered(&disk.killed(), model.clone())
            .map_err(|e| format!("kill after operation {ops} ({:?}): {e}", disk.trace().last()))?;
        for keep in keeps(sweep.seeds, ops) {
            let at = format!("crash after operation {ops} ({:?}), {keep:?}", disk.trace().last());
            let crashed = disk.crash(keep);
            if sweep.nested {
                survived += nested(&crashed, &model).map_err(|e| format!("{at}: {e}"))?;
            }
            recovered(&crashed, model.clone()).map_err(|e| format!("{at}: {e}"))?;
            survived += 1;
        }
    }
    Ok(survived)
}

/// Opens, compares, writes on, crashes with nothing kept, and compares again.
pub fn recovered(disk: &MemDir, model: Model) -> Result<(), String> {
    recovered_rounds(disk, model, 2)
}

fn recovered_rounds(disk: &MemDir, mut model: Model, rounds: u32) -> Result<(), String> {
    for round in 0..rounds {
        let log = open(disk).map_err(|e| format!("open, round {round}: {e:?}"))?;
        model.check(&log)?;
        let crashed = disk.crash(Keep::Nothing);
        // What recovery showed must be durable before anything else happens.
        let again = open(&crashed).map_err(|e| format!("reopen, round {round}: {e:?}"))?;
        model.clone().check(&again).map_err(|e| format!("shown and then lost: {e}"))?;
        model.append(&log, 2, 300).map_err(|e| format!("append, round {round}: {e:?}"))?;
        let crashed = disk.crash(Keep::Nothing);
        let again = open(&crashed).map_err(|e| format!("after append, round {round}: {e:?}"))?;
        model.clone().check(&again).map_err(|e| format!("round {round}: {e}"))?;
        log.close().map_err(|e| format!("close, round {round}: {e:?}"))?;
    }
    Ok(())
}

/// Crashes the recovery itself after each of its operations.
fn nested(disk: &MemDir, model: &Model) -> Result<u64, String> {
    let whole = disk.killed();
    open(&whole).map_err(|e| format!("open: {e:?}"))?;
    let mut survived = 0;
    for ops in 0..=whole.ops() {
        for keep in keeps(1, ops) {
            let again = disk.killed();
            again.stop_after(ops);
            let _ = open(&again);
            let crashed = again.crash(keep);
            recovered_rounds(&crashed, model.clone(), 1).map_err(|e| {
                format!("and again after operation {ops} of recovery, {keep:?}: {e}")
            })?;
            survived += 1;
        }
    }
    Ok(survived)
}
