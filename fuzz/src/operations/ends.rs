//! How a life ends and what goes wrong in it: closed, dropped, killed, without power, on a disk that
//! fails or stops.
//!
//! Never here: use ([`super::changes`]). After an end the disk is a good one again.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};

use super::Life;

impl Life<'_> {
    pub(super) fn close(&mut self) {
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
    pub(super) fn drop_it(&mut self) {
        let dies = self.input.one_in(2) || self.disk.stopped();
        let disk = self.disk.killed();
        self.end_process();
        if dies {
            self.good_again(disk);
        }
    }

    pub(super) fn lose_power(&mut self) {
        let keep = match self.input.below(4) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            _ => Keep::Some(u64::from(self.input.word())),
        };
        let disk = self.disk.crash(keep);
        self.end_process();
        self.good_again(disk);
    }

    pub(super) fn end_process(&mut self) {
        self.log = None;
        self.waiting.clear();
    }

    pub(super) fn stop_soon(&mut self) {
        self.trouble = true;
        self.disk.stop_after(self.disk.ops() + self.input.below(24) as u64);
    }

    pub(super) fn fail_sync(&mut self, nth: u64) {
        self.trouble = true;
        let point = self.input.pick(&SyncPoint::ALL);
        let how = self.input.pick(&[SyncFailure::CleanNew, SyncFailure::CleanOld]);
        self.disk.fail_sync(point, nth, how);
    }

    pub(super) fn fail_operation(&mut self) {
        self.trouble = true;
        let op = self.disk.ops() + self.input.below(16) as u64;
        self.disk.fail_op(op, self.input.pick(&[28, 5]));
    }

    /// The process is gone; the disk stays as it is or goes through a crash.
    pub(super) fn restart(&mut self) {
        let disk = match self.input.below(4) {
            0 => self.disk.killed(),
            1 => self.disk.crash(Keep::Nothing),
            2 => self.disk.crash(Keep::Everything),
            _ => self.disk.crash(Keep::Some(u64::from(self.input.word()))),
        };
        self.good_again(disk);
    }

    pub(super) fn good_again(&mut self, disk: MemDir) {
        disk.set_bytes_free(None);
        (self.disk, self.trouble) = (disk, false);
    }
}
