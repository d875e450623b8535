//! The acts of others: who comes while a group is written, who wants the log that has an owner, who
//! takes a file away from under it.
//!
//! Never here: chance, an order that threads decide. Whoever comes during a sync is called from
//! within it, by the leader's own thread; a second thread has ended before the first goes on.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use annals_registry::{Change, Outcome, Registry, TxResult, Value};
use annals_wal::fs::gate::Gate;
use annals_wal::fs::mem::{Fault, SyncFailure};
use annals_wal::fs::{Access, Dir, SyncPoint};
use annals_wal::{Batch, ErrorKind, Log, LogReader, Lsn, Pending, Record};

use super::calls::{hold_name, path};
use super::{Rooms, World, options};
use crate::world::model::{Maybe, effects, print_changes, print_plain};

/// What is to happen during the next sync of a group.
#[derive(Default)]
pub(super) struct During {
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    coming: Option<Coming>,
    pending: Vec<Result<Pending, annals_wal::Error>>,
    held: Option<JoinHandle<Result<(), annals_wal::Error>>>,
}

/// Who comes: batches, and behind the first of them a hold.
struct Coming {
    log: Log,
    batches: Vec<Batch<'static>>,
    hold: Option<(String, Lsn)>,
}

impl fmt::Debug for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("During").finish_non_exhaustive()
    }
}

impl During {
    /// The directory, which tells when a group is about to be synced.
    pub(super) fn watch(self: &Arc<During>, dir: Arc<dyn Dir>) -> Arc<dyn Dir> {
        let during = self.clone();
        Gate::new(dir, move |operation| {
            if operation == "sync Group" {
                during.come();
            }
            Ok(())
        })
    }

    fn come(&self) {
        let Some(Coming { log, batches, mut hold }) = self.lock().coming.take() else { return };
        // Nobody holds our lock while the log is called.
        let mut pending = Vec::new();
        for batch in batches {
            pending.push(log.submit(batch));
            if let Some((name, lsn)) = hold.take() {
                let held = set_hold(&log, name, lsn);
                self.lock().held = Some(held);
            }
        }
        self.lock().pending = pending;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets a hold on a thread of its own, because that waits for its sync. Returns when it is ordered,
/// or refused: what comes after it comes behind it.
fn set_hold(log: &Log, name: String, lsn: Lsn) -> JoinHandle<Result<(), annals_wal::Error>> {
    let before = log.stats().queued_bytes;
    let other = log.clone();
    let held = std::thread::spawn(move || other.set_hold(&name, lsn));
    while log.stats().queued_bytes == before && !held.is_finished() {
        std::thread::yield_now();
    }
    held
}

impl World {
    /// An append, and others that come while it is being synced: batches, and if there are several,
    /// a hold between them, so that one group has the log's own records among others.
    pub(super) fn overlap(
        &mut self,
        rooms: &Rooms,
        records: u8,
        bytes: u32,
        behind: u8,
    ) -> Result<(), String> {
        let asked: Vec<_> = (0..=behind).map(|_| self.batch(records, bytes)).collect();
        let mut batches: Vec<Batch> = asked.iter().map(|(batch, _)| batch.clone()).collect();
        let first = batches.remove(0);
        let (name, at) = (hold_name(behind), self.lsn_at(500));
        let hold = Lsn::new(at).filter(|_| behind > 1).map(|lsn| (name.clone(), lsn));
        let coming = Coming { log: rooms.log.clone(), batches, hold };
        self.during.lock().coming = Some(coming);
        let answer = rooms.log.append_batch(first);
        let (came, held) = {
            let mut waiting = self.during.lock();
            waiting.coming = None;
            (std::mem::take(&mut waiting.pending), waiting.held.take())
        };
        if let Some(held) = held {
            let mut want = self.model.holds.clone();
            want.insert(name, at);
            let answer = held.join().map_err(|_| "a panic in a hold".to_owned())?;
            self.changed(answer, want);
        }
        let waited = came.into_iter().map(|pending| pending.and_then(Pending::wait));
        for ((_, maybe), answer) in asked.into_iter().zip(std::iter::once(answer).chain(waited)) {
            let lsn = answer.as_ref().ok().map(|lsns| lsns.start().get());
            self.note(maybe, lsn, answer.err().map(|e| e.outcome_unknown()))?;
        }
        Ok(())
    }

    fn batch(&mut self, records: u8, bytes: u32) -> (Batch<'static>, Maybe) {
        let contents: Vec<_> =
            (0..records.max(1)).map(|_| self.model.content(bytes as usize)).collect();
        let prints = contents.iter().map(|content| print_plain(content)).collect();
        let batch = contents.into_iter().map(Record::new).collect();
        (batch, Maybe { prints, changes: Vec::new() })
    }

    /// A transaction reads a key; somebody else changes it before the transaction ends.
    pub(super) fn race(&mut self, rooms: &Rooms, key: u8) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let key = path(key);
        let (other, mine) = (self.value(30), self.model.content(10));
        let (mut other_answer, mut seen, mut changes) = (None, None, Vec::new());
        let answer = registry.transact(|tx| -> TxResult<()> {
            seen = tx.get(&key)?.map(|value| value.bytes().to_vec());
            if other_answer.is_none() {
                let put = || registry.put(&key, other.clone());
                other_answer = std::thread::scope(|scope| scope.spawn(put).join().ok());
            }
            let value = Value::raw(mine.clone());
            changes = vec![Change::Put { key: key.clone(), value: value.clone() }];
            tx.put(&key, value);
            Ok(())
        });
        let Some(other_answer) = other_answer else { return Err("a panic in a put".to_owned()) };
        let put = effects(&[Change::Put { key: key.clone(), value: other.clone() }]);
        let asked = Maybe { prints: vec![print_changes(&put)], changes: put };
        let done = other_answer.as_ref().ok().map(|revision| revision.lsn().get());
        self.note(asked, done, other_answer.as_ref().err().map(|e| e.outcome_unknown()))?;
        let answer = match answer {
            Ok(Outcome::Done { revision, .. }) => Ok(revision.map(|revision| revision.lsn().get())),
            Ok(Outcome::Conflict { .. }) => return Err("a conflict after one change".to_owned()),
            Ok(Outcome::Aborted(never)) => match never {},
            Err(e) => Err(e),
        };
        if answer.is_ok() && done.is_some() && seen.as_deref() != Some(other.bytes()) {
            return Err("a transaction passed over a change of what it had read".to_owned());
        }
        self.noted(rooms, &changes, answer)
    }

    /// A log that is open has one owner and one registry.
    pub(super) fn owner(&mut self, rooms: &Rooms, second: bool) -> Result<(), String> {
        if rooms.registry.is_some() && Registry::on(rooms.log.clone()).is_ok() {
            return Err("a second registry on one open log".to_owned());
        }
        if second {
            return match options().open_in(self.disk.dir()) {
                Err(e) if e.kind() == ErrorKind::Locked || self.disk.stopped() => Ok(()),
                Err(e) if !self.is_quiet() && e.kind() == ErrorKind::Io => Ok(()),
                Err(e) => Err(format!("a second owner was told: {e:?}")),
                Ok(_) => Err("a second owner".to_owned()),
            };
        }
        Ok(())
    }

    /// A name is taken away under the writer: from then on nothing is acknowledged. Then it is
    /// given back, so that life goes on.
    pub(super) fn lose_name(&mut self, rooms: &Rooms, lock: bool) -> Result<(), String> {
        let name = if lock { Some("LOCK".to_owned()) } else { self.active_segment() };
        let Some(name) = name else { return Ok(()) };
        let Some(inode) = self.disk.take_name(&name) else { return Ok(()) };
        let (batch, asked) = self.batch(1, 20);
        let answer = rooms.log.append_batch(batch);
        self.disk.give_name(&name, inode);
        match answer {
            Ok(_) => Err(format!("acknowledged, though {name} was gone")),
            Err(e) => self.note(asked, None, Some(e.outcome_unknown())),
        }
    }

    /// A child has its parent's handles and is not its parent.
    pub(super) fn forked(&mut self, rooms: &Rooms) -> Result<(), String> {
        let parent = self.disk.pid();
        let (batch, _) = self.batch(1, 20);
        self.disk.set_pid(parent + 1);
        let answer = rooms.log.append_batch(batch);
        self.disk.set_pid(parent);
        match answer {
            Err(e) if e.kind() == ErrorKind::Locked && !e.outcome_unknown() => Ok(()),
            other => Err(format!("a forked child wrote: {other:?}")),
        }
    }

    /// A backup tool, say, that syncs what it copies, just when a writeback has failed.
    pub(crate) fn others_sync(&mut self, how: SyncFailure) {
        self.tally.faults += 1;
        self.faulted = true;
        self.reverts |= how == SyncFailure::CleanOld;
        self.disk.fault_at(self.disk.ops(), Fault::Writeback(how));
        let dir = self.disk.dir();
        for name in self.disk.names() {
            if let Ok(file) = dir.open(&name, Access::Write) {
                // Whatever it is told, it is not ours to act on.
                let _ = file.sync_data(SyncPoint::BackupFile);
            }
        }
    }

    /// Reads as somebody who owns nothing. What it is shown must stay.
    ///
    /// # Errors
    /// The violation, in words.
    pub fn peek(&mut self) -> Result<(), String> {
        match LogReader::open_in(self.disk.dir()).and_then(|reader| reader.range(..)) {
            Ok(records) => self.model.promise(records).or_else(super::unless_io),
            Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::NotALog) => Ok(()),
            Err(e) => Err(format!("reader: {e:?}")),
        }
    }
}
