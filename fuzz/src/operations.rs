//! A life of a log on the crashable directory, told by the input: use, failures, crashes, each
//! answer compared with a model. The same questions as `wal/tests/lives` asks of random seeds;
//! here coverage chooses the steps, and batches are submitted ahead of their syncs, too.
//!
//! Never here: what is right ([`crate::model`]). One thing is not a function of the bytes alone:
//! the committer's thread may sync a submitted batch before or after the next step. What is
//! checked holds either way.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::{Batch, Error, ErrorKind, Log, Lsn, Options, Pending, Record};

use crate::input::Input;
use crate::model::{Holds, Model};

/// Steps and bytes of payload in one life: beyond them nothing new happens.
const STEPS_MAX: usize = 80;
const BYTES_MAX: usize = 1 << 20;

/// The body of the target `operations`.
pub fn operations(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let disk = MemDir::new(u64::from(input.byte()));
    let mut life = Life {
        input,
        disk,
        model: Model::default(),
        log: None,
        waiting: Vec::new(),
        trouble: false,
        bytes: 0,
    };
    for _ in 0..STEPS_MAX {
        if life.input.is_empty() || life.bytes > BYTES_MAX {
            break;
        }
        life.step();
    }
    life.last_opening();
}

struct Life<'a> {
    input: Input<'a>,
    disk: MemDir,
    model: Model,
    log: Option<Log>,
    /// Submitted, not asked about yet; each with the LSN it must get.
    waiting: Vec<(u64, Pending)>,
    /// Whether a failure was arranged since the disk was last a good one.
    trouble: bool,
    bytes: usize,
}

impl Life<'_> {
    fn step(&mut self) {
        match self.log.clone() {
            None => self.open(),
            Some(log) => {
                self.act(&log);
                if self.log.is_some() && (log.poisoned().is_some() || self.disk.stopped()) {
                    assert!(self.trouble, "poisoned on a good disk: {:?}", log.poisoned());
                    drop(log);
                    self.end_process();
                    self.restart();
                }
            }
        }
    }

    fn options(&mut self) -> Options {
        let bytes = self.input.pick(&[64 << 10, 64 << 10, 64 << 10, 68 << 10, 128 << 10]);
        Options::new().segment_bytes(bytes).segment_bytes_max(256 << 10)
    }

    /// Looks at the closed log, then opens it, perhaps with a failure on the way.
    fn open(&mut self) {
        self.look();
        match self.input.below(8) {
            0 => self.stop_soon(),
            1 => self.fail_sync(0),
            2 => self.fail_operation(),
            _ => {}
        }
        match self.options().open_in(self.disk.dir()) {
            Ok(log) => {
                self.model.check(&log);
                if self.input.one_in(2) && !self.disk.stopped() {
                    // What an opening has shown stays.
                    let crashed = self.disk.crash(Keep::Nothing);
                    crashed.set_bytes_free(None);
                    let again = self.options().open_in(crashed.dir()).expect("shown, so it opens");
                    self.model.clone().check(&again);
                }
                self.log = Some(log);
            }
            Err(error) => {
                assert!(self.trouble, "a good disk, but {error:?}");
                let kinds = [ErrorKind::Io, ErrorKind::Full, ErrorKind::Poisoned];
                assert!(kinds.contains(&error.kind()), "{error:?}");
                self.restart();
            }
        }
    }

    /// The inspector calls nothing corrupt, a reader sees nothing else, and neither leaves a trace.
    fn look(&self) {
        let names = self.disk.names();
        match inspect_in(&self.disk.dir(), Depth::Everything, &mut |_| ()) {
            Ok(report) => assert!(report.state < State::Corrupt, "{report:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotALog, "{error}"),
        }
        self.model.check_reader(&self.disk);
        assert_eq!(names, self.disk.names(), "looking changed names");
    }

    fn act(&mut self, log: &Log) {
        match self.input.below(24) {
            0..=4 => self.append(log),
            5 | 6 => self.submit(log),
            7 => self.wait_for_one(),
            8 => self.wait_durable(log),
            9 | 10 => self.set_hold(log),
            11 => self.release_hold(log),
            12 | 13 => self.trim(log),
            14 => self.backup(),
            15 => self.look(),
            16 => self.close(),
            17 => self.drop_it(),
            18 => self.lose_power(),
            19 => self.stop_soon(),
            20 => {
                let nth = self.input.below(3) as u64;
                self.fail_sync(nth);
            }
            21 => self.fail_operation(),
            22 => {
                self.trouble = true;
                self.disk.set_bytes_free(Some(u64::from(self.input.word()) * 4));
            }
            _ => self.disk.set_bytes_free(None),
        }
    }

    fn batch(&mut self) -> Vec<Vec<u8>> {
        let (class, count) = (self.input.byte(), 1 + self.input.below(4));
        (0..count)
            .map(|index| {
                let len = match class {
                    0..=99 => usize::from(class) + index,
                    100..=179 => usize::from(class) * 30,
                    180..=249 => usize::from(class) * 64,
                    _ => 90_000 / (index + 1),
                };
                self.bytes += len;
                self.model.payload(len)
            })
            .collect()
    }

    fn append(&mut self, log: &Log) {
        let payloads = self.batch();
        let expected = self.model.next_lsn();
        match log.append_batch(records(&payloads)) {
            Ok(lsns) => {
                assert_eq!(lsns.start().get(), expected);
                self.model.ordered(payloads);
                self.model.durable_up_to(lsns.end().get());
            }
            Err(error) if error.outcome_unknown() => self.model.ordered(payloads),
            Err(error) => self.refused(&error),
        }
    }

    /// Nothing was changed; on a good disk that needs a reason.
    fn refused(&self, error: &Error) {
        let fair = self.trouble || error.kind() == ErrorKind::TooLarge;
        assert!(fair, "a good disk, but {error:?}");
    }

    fn submit(&mut self, log: &Log) {
        let payloads = self.batch();
        match log.submit(records(&payloads)) {
            Ok(pending) => {
                self.waiting.push((self.model.next_lsn(), pending));
                self.model.ordered(payloads);
            }
            Err(error) => {
                assert!(!error.outcome_unknown(), "submit itself knows: {error:?}");
                self.refused(&error);
            }
        }
    }

    fn wait_for_one(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let index = self.input.below(self.waiting.len());
        let (first, pending) = self.waiting.remove(index);
        match pending.wait() {
            Ok(lsns) => {
                assert_eq!(lsns.start().get(), first);
                self.model.durable_up_to(lsns.end().get());
            }
            Err(error) => assert!(self.trouble && error.outcome_unknown(), "{error:?}"),
        }
    }

    fn wait_durable(&mut self, log: &Log) {
        let lsn = self.some_lsn();
        match log.wait_durable(lsn) {
            Ok(()) => {
                assert!(log.durable_lsn() >= Some(lsn));
                self.model.durable_up_to(lsn.get());
            }
            Err(error) if error.kind() == ErrorKind::OutOfRange => {
                assert!(lsn.get() >= self.model.next_lsn(), "{error}");
            }
            Err(error) => assert!(self.trouble, "{error:?}"),
        }
    }

    /// An LSN from the head to one past the end.
    fn some_lsn(&mut self) -> Lsn {
        let (head, next) = (self.model.head, self.model.next_lsn());
        let span = (next.saturating_sub(head) + 1).min(256) as usize;
        let from = if self.input.one_in(2) { (next + 1).saturating_sub(span as u64) } else { head };
        Lsn::new(from.max(head) + self.input.below(span) as u64).expect("not 0")
    }

    fn set_hold(&mut self, log: &Log) {
        let count = if self.input.one_in(8) { 70 } else { 1 };
        for n in 0..count {
            let name = format!("{:032}", if count == 1 { self.input.below(6) } else { n });
            let lsn = self.some_lsn();
            let mut want = self.model.holds.clone();
            want.insert(name.clone(), lsn.get());
            if want.len() > 64 {
                let refused = log.set_hold(&name, lsn).map_err(|error| error.kind());
                assert!(refused.is_err(), "a 65th hold");
                return;
            }
            if !self.changed(log.set_hold(&name, lsn), want) {
                return;
            }
        }
    }

    fn release_hold(&mut self, log: &Log) {
        let name = format!("{:032}", self.input.below(6));
        let mut want = self.model.holds.clone();
        want.remove(&name);
        self.changed(log.release_hold(&name), want);
    }

    /// Notes the answer to a change of the holds; whether the next may be asked for.
    fn changed(&mut self, answer: Result<(), Error>, want: Holds) -> bool {
        match answer {
            // A change is durable after every one that was ordered before it.
            Ok(()) => (self.model.holds, self.model.holds_maybe) = (want, None),
            Err(error) if error.outcome_unknown() => {
                assert!(self.trouble, "{error:?}");
                self.model.holds_maybe = Some(want);
                return false;
            }
            Err(error) => {
                self.refused(&error);
                return false;
            }
        }
        true
    }

    fn trim(&mut self, log: &Log) {
        let to = self.some_lsn().get();
        let lowest = self.model.holds.values().copied().min().unwrap_or(u64::MAX);
        let most = to.min(lowest).min(self.model.next_lsn()).max(self.model.head);
        self.model.head_max = self.model.head_max.max(most);
        match log.trim(Lsn::new(to).expect("not 0")) {
            Ok(head) => {
                let head = head.get();
                let between = self.model.head..=self.model.head_max;
                assert!(between.contains(&head), "trimmed to {head}, not in {between:?}");
                (self.model.head, self.model.head_max) = (head, head);
            }
            Err(error) => assert!(self.trouble, "{error:?}"),
        }
    }

    fn backup(&mut self) {
        let Some(log) = &self.log else { return };
        let copy = MemDir::new(3);
        let report = match log.backup_in(copy.dir()) {
            Ok(report) => report,
            Err(error) => {
                assert!(self.trouble, "{error:?}");
                return;
            }
        };
        let copied = self.options().open_in(copy.crash(Keep::Nothing).dir());
        let copied = copied.expect("a whole copy opens");
        assert!(report.last_lsn <= copied.durable_lsn());
        let mut model = self.model.clone();
        model.generation = 0;
        model.check(&copied);
    }

    fn close(&mut self) {
        self.waiting.clear();
        if let Some(log) = self.log.take() {
            match log.close() {
                // Everything that was ordered is durable.
                Ok(()) => self.model.durable_up_to(u64::MAX),
                Err(error) => assert!(self.trouble, "{error:?}"),
            }
        }
        self.restart();
    }

    /// The last handle goes, its process goes on; or the process dies at once.
    fn drop_it(&mut self) {
        let dies = self.input.one_in(2) || self.disk.stopped();
        let disk = self.disk.killed();
        self.end_process();
        if dies {
            self.good_again(disk);
        }
    }

    fn lose_power(&mut self) {
        let keep = match self.input.below(4) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            _ => Keep::Some(u64::from(self.input.word())),
        };
        let disk = self.disk.crash(keep);
        self.end_process();
        self.good_again(disk);
    }

    fn end_process(&mut self) {
        self.log = None;
        self.waiting.clear();
    }

    fn stop_soon(&mut self) {
        self.trouble = true;
        self.disk.stop_after(self.disk.ops() + self.input.below(24) as u64);
    }

    fn fail_sync(&mut self, nth: u64) {
        self.trouble = true;
        let point = self.input.pick(&SyncPoint::ALL);
        let how = self.input.pick(&[SyncFailure::CleanNew, SyncFailure::CleanOld]);
        self.disk.fail_sync(point, nth, how);
    }

    fn fail_operation(&mut self) {
        self.trouble = true;
        let op = self.disk.ops() + self.input.below(16) as u64;
        self.disk.fail_op(op, self.input.pick(&[28, 5]));
    }

    /// The process is gone; the disk stays as it is or goes through a crash.
    fn restart(&mut self) {
        let disk = match self.input.below(4) {
            0 => self.disk.killed(),
            1 => self.disk.crash(Keep::Nothing),
            2 => self.disk.crash(Keep::Everything),
            _ => self.disk.crash(Keep::Some(u64::from(self.input.word()))),
        };
        self.good_again(disk);
    }

    fn good_again(&mut self, disk: MemDir) {
        disk.set_bytes_free(None);
        (self.disk, self.trouble) = (disk, false);
    }

    /// However it ended, it opens on a good disk, holds what it must, and takes a record.
    fn last_opening(mut self) {
        self.end_process();
        let disk = self.disk.crash(Keep::Some(7));
        self.good_again(disk);
        self.look();
        let log = self.options().open_in(self.disk.dir()).expect("a good disk");
        self.model.check(&log);
        let lsn = log.append("last").expect("a good disk");
        assert_eq!(lsn.get(), self.model.next_lsn());
    }
}

fn records(payloads: &[Vec<u8>]) -> Batch {
    payloads.iter().map(|payload| Record::new(payload.clone())).collect()
}
