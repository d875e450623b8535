//! One life of a log, drawn from a seed: steps of use, failure and crash, each checked.
//!
//! Never here: what is right (`model.rs`). Two kinds of lives: short ones with every misfortune,
//! and long ones that close and reopen on one disk again and again.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::{Batch, Error, ErrorKind, Log, Lsn, Options, Record};

use super::Rng;
use super::model::Model;

pub struct Life {
    rng: Rng,
    disk: MemDir,
    model: Model,
    log: Option<Log>,
    long: bool,
}

/// What a step does to an open log.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Append,
    Hold,
    Release,
    Trim,
    Backup,
    Close,
    Drop,
    LosePower,
    StopSoon,
    FailSync,
    FailOperation,
    FillDisk,
    FreeDisk,
}

use Deed::*;

const SHORT: [Deed; 17] = [
    Append,
    Append,
    Append,
    Append,
    Append,
    Append,
    Hold,
    Release,
    Trim,
    Trim,
    Backup,
    Close,
    Drop,
    LosePower,
    StopSoon,
    FailSync,
    FailOperation,
];
const FULL: [Deed; 2] = [FillDisk, FreeDisk];
const LONG: [Deed; 8] = [Close, Close, Close, Close, Hold, Trim, Append, Release];
const LONG_RARE: [Deed; 5] = [Append, LosePower, StopSoon, FailSync, FillDisk];

impl Life {
    pub fn new(seed: u64) -> Life {
        let disk = MemDir::new(seed);
        Life { rng: Rng(seed), disk, model: Model::new(), log: None, long: seed.is_multiple_of(3) }
    }

    pub fn live(mut self) -> Result<(), String> {
        let steps = if self.long { 150 } else { 12 + self.rng.below(30) };
        for step in 0..steps {
            let done = match self.log.clone() {
                None => self.open(),
                Some(log) => self.use_it(&log),
            };
            done.map_err(|why| format!("step {step}: {why}"))?;
        }
        Ok(())
    }

    fn options(&mut self) -> Options {
        let segment_bytes = self.rng.pick(&[64 << 10, 64 << 10, 128 << 10, 68 << 10]);
        Options::new().segment_bytes(segment_bytes).segment_bytes_max(1 << 20)
    }

    /// Looks at the closed log, then opens it, perhaps with a failure on the way.
    fn open(&mut self) -> Result<(), String> {
        self.inspect()?;
        self.model.check_reader(&self.disk)?;
        match self.rng.below(if self.long { 60 } else { 6 }) {
            0 => self.disk.stop_after(self.disk.ops() + self.rng.below(14)),
            1 => self.fail_sync(0),
            _ => {}
        }
        match self.options().open_in(self.disk.dir()) {
            Ok(log) => self.opened(log),
            Err(error) => self.not_opened(&error),
        }
    }

    /// The inspector calls nothing corrupt and changes nothing.
    fn inspect(&self) -> Result<(), String> {
        let names = self.disk.names();
        match inspect_in(&self.disk.dir(), Depth::Everything, &mut |_| ()) {
            Ok(report) if report.state >= State::Corrupt => return Err(format!("{report:?}")),
            Err(e) if e.kind() != ErrorKind::NotALog => return Err(format!("inspect {e:?}")),
            _ => {}
        }
        if names == self.disk.names() { Ok(()) } else { Err("inspecting changed names".into()) }
    }

    /// What an opening has shown stays, also if the power goes right after it.
    fn opened(&mut self, log: Log) -> Result<(), String> {
        self.model.check(&log).map_err(|why| format!("{why}; {}", log.recovery()))?;
        if self.rng.one_in(2) && !self.disk.stopped() {
            let crashed = self.disk.crash(Keep::Nothing);
            crashed.set_bytes_free(None);
            let again = self.options().open_in(crashed.dir());
            let again = again.map_err(|e| format!("opening what was shown: {e:?}"))?;
            self.model.clone().check(&again).map_err(|why| format!("shown, then {why}"))?;
        }
        self.log = Some(log);
        Ok(())
    }

    fn not_opened(&mut self, error: &Error) -> Result<(), String> {
        if !matches!(error.kind(), ErrorKind::Io | ErrorKind::Full | ErrorKind::Poisoned) {
            return Err(format!("open {error:?}"));
        }
        self.disk.set_bytes_free(None);
        self.restart_machine();
        Ok(())
    }

    fn use_it(&mut self, log: &Log) -> Result<(), String> {
        let deed = self.choose();
        self.act(deed, log).map_err(|why| format!("{deed:?}: {why}"))?;
        if self.log.is_some() && (log.poisoned().is_some() || self.disk.stopped()) {
            self.log = None;
            self.restart_machine();
        }
        Ok(())
    }

    fn choose(&mut self) -> Deed {
        match (self.long, self.rng.below(9)) {
            (true, 0) => self.rng.pick(&LONG_RARE),
            (true, _) => self.rng.pick(&LONG),
            (false, 0) => self.rng.pick(&FULL),
            (false, _) => self.rng.pick(&SHORT),
        }
    }

    fn act(&mut self, deed: Deed, log: &Log) -> Result<(), String> {
        match deed {
            Append => return self.append_some(log),
            Trim => return self.trim(log),
            Backup => return self.backup(log),
            Hold => self.hold(log),
            Release => self.release(log),
            Close => self.close(),
            Drop => self.drop_it(),
            LosePower => self.lose_power(),
            StopSoon => self.disk.stop_after(self.disk.ops() + self.rng.below(12)),
            FailSync => {
                let nth = self.rng.below(2);
                self.fail_sync(nth);
            }
            FailOperation => {
                let op = self.disk.ops() + self.rng.below(8);
                self.disk.fail_op(op, self.rng.pick(&[28, 5]));
            }
            FillDisk => self.disk.set_bytes_free(Some(self.rng.below(200_000))),
            FreeDisk => self.disk.set_bytes_free(None),
        }
        Ok(())
    }

    fn fail_sync(&mut self, nth: u64) {
        let point = self.rng.pick(&SyncPoint::ALL);
        let how = self.rng.pick(&[SyncFailure::CleanNew, SyncFailure::CleanOld]);
        self.disk.fail_sync(point, nth, how);
    }

    fn append_some(&mut self, log: &Log) -> Result<(), String> {
        for _ in 0..1 + self.rng.below(6) {
            let payloads = self.payloads();
            let batch: Batch = payloads.iter().map(|p| Record::new(p.clone())).collect();
            match log.append_batch(batch) {
                Ok(lsns) if lsns.start().get() != self.model.next_lsn() => {
                    return Err(format!("got {lsns:?}, not {}", self.model.next_lsn()));
                }
                Ok(_) => self.model.history.extend(payloads),
                Err(e) => {
                    if e.outcome_unknown() {
                        self.model.maybe = payloads;
                    }
                    break;
                }
            }
        }
        self.model.check_reader(&self.disk)
    }

    fn payloads(&mut self) -> Vec<Vec<u8>> {
        let big = self.rng.one_in(if self.long { 48 } else { 12 });
        let lengths = if big { [90_000; 3] } else { [100, 3000, 14_000] };
        let count = 1 + self.rng.below(4);
        let draw = |rng: &mut Rng| {
            let below = rng.pick(&lengths);
            rng.below(below)
        };
        (0..count).map(|_| self.model.payload(draw(&mut self.rng))).collect()
    }

    /// An LSN from the head to one past the end.
    fn some_lsn(&mut self) -> u64 {
        let (head, next) = (self.model.head, self.model.next_lsn());
        head + self.rng.below(next.saturating_sub(head) + 1)
    }

    fn hold(&mut self, log: &Log) {
        let many = self.rng.one_in(3);
        let count = if many { 20 + self.rng.below(44) } else { 1 };
        for n in 0..count {
            let name = format!("{:032}", if many { n } else { self.rng.below(64) });
            let at = self.some_lsn();
            let mut want = self.model.holds.clone();
            want.insert(name.clone(), at);
            if !self.changed(log.set_hold(&name, Lsn::new(at).unwrap()), want) {
                break;
            }
        }
    }

    fn release(&mut self, log: &Log) {
        let names: Vec<_> = self.model.holds.keys().cloned().collect();
        for name in names {
            let mut want = self.model.holds.clone();
            want.remove(&name);
            if !self.changed(log.release_hold(&name), want) {
                break;
            }
        }
    }

    /// Notes the answer to a change of the holds.
    fn changed(&mut self, answer: Result<(), Error>, want: super::model::Holds) -> bool {
        match answer {
            Ok(()) => (self.model.holds, self.model.holds_maybe) = (want, None),
            Err(e) if e.outcome_unknown() => self.model.holds_maybe = Some(want),
            Err(_) => {}
        }
        self.model.holds_maybe.is_none()
            && self.log.as_ref().is_some_and(|l| l.poisoned().is_none())
    }

    fn trim(&mut self, log: &Log) -> Result<(), String> {
        let to = self.some_lsn();
        let lowest = self.model.holds.values().copied().min().unwrap_or(u64::MAX);
        let want = to.min(lowest).min(self.model.next_lsn()).max(self.model.head);
        self.model.head_max = self.model.head_max.max(want);
        let Ok(head) = log.trim(Lsn::new(to).unwrap()) else { return Ok(()) };
        let head = head.get();
        if head != want && head > self.model.head_max {
            return Err(format!("trimmed to {head}, not {want}"));
        }
        (self.model.head, self.model.head_max) = (head, head);
        Ok(())
    }

    fn backup(&mut self, log: &Log) -> Result<(), String> {
        let copy = MemDir::new(self.rng.next());
        let Ok(report) = log.backup_in(copy.dir()) else { return Ok(()) };
        let copied = self.options().open_in(copy.crash(Keep::Nothing).dir());
        let copied = copied.map_err(|e| format!("opening the copy: {e:?}"))?;
        let mut model = Model { generation: 0, ..self.model.clone() };
        model.check(&copied).map_err(|why| format!("the copy: {why}"))?;
        let last = report.last_lsn.map_or(0, Lsn::get);
        if last + 1 == self.model.next_lsn() { Ok(()) } else { Err(format!("copied to {last}")) }
    }

    /// Closes it, as far as that goes, and stays on this disk or goes through a crash.
    fn close(&mut self) {
        if let Some(log) = self.log.take() {
            let _ = log.close();
        }
        if self.disk.stopped() {
            self.disk = self.disk.killed();
        } else if !self.long && !self.rng.one_in(4) {
            self.restart_machine();
        }
    }

    /// Its process goes on; or dies, with nobody to drop anything.
    fn drop_it(&mut self) {
        self.log = None;
        if self.disk.stopped() || self.rng.one_in(2) {
            self.disk = self.disk.killed();
        }
    }

    fn lose_power(&mut self) {
        self.log = None;
        let keep = if self.rng.one_in(3) { Keep::Nothing } else { Keep::Some(self.rng.next()) };
        self.disk = self.disk.crash(keep);
    }

    fn restart_machine(&mut self) {
        let seed = self.rng.next();
        let keep = self.rng.pick(&[None, Some(0), Some(1), Some(2)]);
        self.disk = match keep {
            None => self.disk.killed(),
            Some(0) => self.disk.crash(Keep::Nothing),
            Some(1) => self.disk.crash(Keep::Everything),
            Some(_) => self.disk.crash(Keep::Some(seed)),
        };
    }
}
