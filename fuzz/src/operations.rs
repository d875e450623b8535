//! A life of a log on the crashable directory, told by the input: use, failures, crashes, each
//! answer compared with a model. The same questions as `wal/tests/lives` asks of random seeds;
//! here coverage chooses the steps, and batches are submitted ahead of their syncs, too.
//!
//! Never here: what is right ([`crate::model`]). One thing is not a function of the bytes alone:
//! the committer's thread may sync a submitted batch before or after the next step. What is
//! checked holds either way.

mod changes;
mod ends;

use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::inspect::{Depth, State, inspect_in};
use annals_wal::{ErrorKind, Log, Options, Pending};

use crate::input::Input;
use crate::model::Model;

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
        // The threads of a log that was dropped a moment ago may be on their way out.
        let options = self.options();
        let open = || options.clone().open_in(self.disk.dir());
        let is_locked = |e: &annals_wal::Error| e.kind() == ErrorKind::Locked;
        let opened = (0..100).map(|_| open()).find(|opened| !opened.as_ref().is_err_and(is_locked));
        match opened.unwrap_or_else(open) {
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
