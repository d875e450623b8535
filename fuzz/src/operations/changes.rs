//! What a life does with an open log: batches, holds, trims, backups, each answer compared.
//!
//! Never here: failures and ends ([`super::ends`]).

use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Batch, Error, ErrorKind, Log, Lsn, Record};

use super::Life;
use crate::model::Holds;

impl Life<'_> {
    pub(super) fn batch(&mut self) -> Vec<Vec<u8>> {
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

    pub(super) fn append(&mut self, log: &Log) {
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
    pub(super) fn refused(&self, error: &Error) {
        let fair = self.trouble || error.kind() == ErrorKind::TooLarge;
        assert!(fair, "a good disk, but {error:?}");
    }

    pub(super) fn submit(&mut self, log: &Log) {
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

    pub(super) fn wait_for_one(&mut self) {
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

    pub(super) fn wait_durable(&mut self, log: &Log) {
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
    pub(super) fn some_lsn(&mut self) -> Lsn {
        let (head, next) = (self.model.head, self.model.next_lsn());
        let span = (next.saturating_sub(head) + 1).min(256) as usize;
        let from = if self.input.one_in(2) { (next + 1).saturating_sub(span as u64) } else { head };
        Lsn::new(from.max(head) + self.input.below(span) as u64).expect("not 0")
    }

    pub(super) fn set_hold(&mut self, log: &Log) {
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

    pub(super) fn release_hold(&mut self, log: &Log) {
        let name = format!("{:032}", self.input.below(6));
        let mut want = self.model.holds.clone();
        want.remove(&name);
        self.changed(log.release_hold(&name), want);
    }

    /// Notes the answer to a change of the holds; whether the next may be asked for.
    pub(super) fn changed(&mut self, answer: Result<(), Error>, want: Holds) -> bool {
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

    pub(super) fn trim(&mut self, log: &Log) {
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

    pub(super) fn backup(&mut self) {
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
}

fn records(payloads: &[Vec<u8>]) -> Batch<'_> {
    payloads.iter().map(|payload| Record::new(payload.clone())).collect()
}
