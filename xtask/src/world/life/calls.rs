//! The acts that call the log, its registry or its observer, and what is noted of each answer.
//!
//! Never here: openings, crashes. Invariant: an error that does not say *outcome unknown* has
//! changed nothing, and the model holds the log to that too.

use annals_observer::{CallId, EntryKind, JsonText, Level};
use annals_registry::{
    After, Cas, Change, Commit, ErrorKind, Event, Expected, HOLD, Key, Outcome, Precondition,
    Prefix, TRANSACTION, TxResult, Value, decode_transaction,
};
use annals_wal::fs::mem::{Fault, Keep, MemDir};
use annals_wal::{Batch, Lsn, Record};

use super::archives::lowest_hold;
use super::{Rooms, World, options};
use crate::world::act::Act;
use crate::world::model::{
    Holds, Maybe, Model, effects, print_changes, print_checkpoint, print_entry, print_plain,
};

impl World {
    pub(super) fn call(&mut self, act: &Act) -> Result<(), String> {
        let Some(rooms) = self.rooms.take() else { return Ok(()) };
        let done = self.call_on(&rooms, act);
        // A close, done or not, gives the handles away: what the caller was told holds either way.
        if *act != Act::Close {
            self.rooms = Some(rooms);
        }
        done
    }

    fn call_on(&mut self, rooms: &Rooms, act: &Act) -> Result<(), String> {
        match *act {
            Act::Append { records, bytes } => self.append(rooms, records, bytes, false)?,
            Act::Submit { records, bytes } => self.append(rooms, records, bytes, true)?,
            Act::Trim { permille } => self.trim(rooms, permille)?,
            Act::Hold { name, permille } => self.hold(rooms, name, permille),
            Act::Holds { count } => (0..count).for_each(|name| self.hold(rooms, name, 500)),
            Act::Release { name } => self.release(rooms, name),
            Act::Put { .. } | Act::Delete { .. } => self.put(rooms, act)?,
            Act::Swap { key, right } => self.swap(rooms, key, right)?,
            Act::Commit { first, bytes } => self.commit(rooms, first, bytes)?,
            Act::Move { from, to } => self.move_one(rooms, from, to)?,
            Act::Checkpoint => self.checkpoint(rooms)?,
            Act::Lease { key } => self.lease(rooms, key)?,
            Act::Watch => watch(rooms)?,
            Act::Call { session, bytes, flushed } => self.tool(rooms, session, bytes, flushed)?,
            Act::Joint { session, key } => self.joint(rooms, session, key)?,
            Act::Large { session, bytes } => self.large(rooms, session, bytes)?,
            Act::Retain { records } => self.retain(rooms, records)?,
            Act::Recover => self.recover(rooms)?,
            Act::Import { lines } => self.import(rooms, lines)?,
            Act::Backup { fault_in } => self.backup(rooms, fault_in)?,
            Act::Archive { name, copy } => self.archive(rooms, name, copy)?,
            Act::Prepare => {
                let prepared = rooms.log.prepare_ahead();
                if let Err(e) = prepared
                    && self.is_quiet()
                {
                    return Err(format!("preparing failed, and nothing was made to fail: {e}"));
                }
            }
            Act::Read => self.read(rooms)?,
            Act::Overlap { records, bytes, behind } => {
                self.overlap(rooms, records, bytes, behind)?;
            }
            Act::Race { key } => self.race(rooms, key)?,
            Act::Owner { second } => self.owner(rooms, second)?,
            Act::LoseName { lock } => self.lose_name(rooms, lock)?,
            Act::Forked => self.forked(rooms)?,
            // Poisoned, or the machine has stopped: an error, and nothing else happens.
            Act::Close => {
                self.model.may_be_clean = true;
                drop(rooms.log.clone().close());
            }
            _ => {}
        }
        Ok(())
    }

    fn append(
        &mut self,
        rooms: &Rooms,
        records: u8,
        bytes: u32,
        submit: bool,
    ) -> Result<(), String> {
        let payloads: Vec<_> =
            (0..records.max(1)).map(|_| self.model.content(bytes as usize)).collect();
        let prints = payloads.iter().map(|payload| print_plain(payload)).collect();
        let asked = Maybe { prints, changes: Vec::new() };
        let batch: Batch = payloads.into_iter().map(Record::new).collect();
        let answer = if submit {
            rooms.log.submit(batch).and_then(annals_wal::Pending::wait)
        } else {
            rooms.log.append_batch(batch)
        };
        let first = answer.as_ref().ok().map(|lsns| lsns.start().get());
        self.note(asked, first, answer.err().map(|e| e.outcome_unknown()))
    }

    /// Notes the answer to a batch: its first LSN, or an error that may say *unknown*.
    pub(super) fn note(
        &mut self,
        asked: Maybe,
        lsn: Option<u64>,
        error: Option<bool>,
    ) -> Result<(), String> {
        self.refused |= error.is_some();
        match (lsn, error) {
            (_, Some(true)) => self.model.maybe.push(asked),
            (_, Some(false)) => {}
            (Some(lsn), None) if lsn != self.model.next_lsn() => {
                return Err(format!("got LSN {lsn}, not {}", self.model.next_lsn()));
            }
            (_, None) => {
                self.tally.acknowledged += 1;
                self.model.acknowledged(asked);
            }
        }
        Ok(())
    }

    /// An LSN from the head to one past the end.
    pub(super) fn lsn_at(&self, permille: u16) -> u64 {
        let (head, next) = (self.model.head, self.model.next_lsn());
        // A little past the end, too.
        head + next.saturating_sub(head) * u64::from(permille) / 1000
    }

    fn trim(&mut self, rooms: &Rooms, permille: u16) -> Result<(), String> {
        let to = self.lsn_at(permille);
        let lowest = lowest_hold(&rooms.log, &self.model.holds);
        let want = to.min(lowest).min(self.model.next_lsn()).max(self.model.head);
        self.model.head_max = self.model.head_max.max(want);
        let Some(to) = Lsn::new(to) else { return Ok(()) };
        let Ok(head) = rooms.log.trim(to) else { return Ok(()) };
        self.note_segments();
        let head = head.get();
        if head != want && head > self.model.head_max {
            return Err(format!("trimmed to {head}, not {want}"));
        }
        (self.model.head, self.model.head_max) = (head, head);
        Ok(())
    }

    fn hold(&mut self, rooms: &Rooms, name: u8, permille: u16) {
        let (name, at) = (hold_name(name), self.lsn_at(permille));
        let mut want = self.model.holds.clone();
        want.insert(name.clone(), at);
        let Some(lsn) = Lsn::new(at) else { return };
        self.changed(rooms.log.set_hold(&name, lsn), want);
    }

    fn release(&mut self, rooms: &Rooms, name: u8) {
        let name = hold_name(name);
        let mut want = self.model.holds.clone();
        want.remove(&name);
        self.changed(rooms.log.release_hold(&name), want);
    }

    pub(super) fn changed(&mut self, answer: Result<(), annals_wal::Error>, want: Holds) {
        match answer {
            Ok(()) => (self.model.holds, self.model.holds_maybe) = (want, None),
            Err(e) if e.outcome_unknown() => self.model.holds_maybe = Some(want),
            Err(_) => {}
        }
    }

    fn put(&mut self, rooms: &Rooms, act: &Act) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let change = match *act {
            Act::Put { key, bytes } => Change::Put { key: path(key), value: self.value(bytes) },
            Act::Delete { key } => Change::Delete { key: path(key) },
            _ => return Ok(()),
        };
        let answer = match &change {
            Change::Put { key, value } => registry.put(key, value.clone()),
            Change::Delete { key } => registry.delete(key),
            Change::PutLeased { key, value, lease } => {
                registry.put_leased(key, value.clone(), *lease)
            }
        };
        self.noted(rooms, &[change], answer.map(|revision| Some(revision.lsn().get())))
    }

    pub(super) fn value(&mut self, bytes: u16) -> Value {
        Value::raw(self.model.content(usize::from(bytes)))
    }

    /// Notes the answer to a transaction; `None`: nothing was to be changed.
    pub(super) fn noted(
        &mut self,
        rooms: &Rooms,
        changes: &[Change],
        answer: Result<Option<u64>, annals_registry::Error>,
    ) -> Result<(), String> {
        let changes = effects(changes);
        let asked = Maybe { prints: vec![print_changes(&changes)], changes };
        match answer {
            Ok(None) => {}
            Ok(lsn) => self.note(asked, lsn, None)?,
            Err(e) => self.note(asked, None, Some(e.outcome_unknown()))?,
        }
        // Plain reads go on after a failure, with what was acknowledged.
        match &rooms.registry {
            Some(registry) => self.model.check_registry(registry),
            _ => Ok(()),
        }
    }

    /// A checkpoint appends a record and moves the registry's hold. Where it fails, how far it came
    /// is read off the log: what was ordered and is not durable is an open question.
    fn checkpoint(&mut self, rooms: &Rooms) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let made = registry.checkpoint();
        let next = self.model.next_lsn();
        let asked = Maybe { prints: vec![print_checkpoint()], changes: Vec::new() };
        if rooms.log.durable_lsn().is_some_and(|lsn| lsn.get() >= next) {
            self.note(asked, Some(next), None)?;
        } else if rooms.log.poisoned().is_some() || self.disk.stopped() {
            self.model.maybe.push(asked);
        }
        let mut want = self.model.holds.clone();
        let holds = rooms.log.holds().into_iter();
        want.extend(holds.filter(|(name, _)| name == HOLD).map(|(n, lsn)| (n, lsn.get())));
        match made {
            Ok(_) => self.changed(Ok(()), want),
            Err(e) => {
                self.refused = true;
                if want != self.model.holds {
                    self.model.holds_maybe = Some(want);
                }
                if self.is_quiet() {
                    return Err(format!("a checkpoint failed, and nothing was made to fail: {e}"));
                }
            }
        }
        self.model.check_registry(registry)
    }

    /// Whatever becomes of it, the key is there or not as each answer said.
    fn lease(&mut self, rooms: &Rooms, key: u8) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let before = self.model.next_lsn();
        let granted = registry.grant(std::time::Duration::from_secs(1), "somebody");
        let lease = match granted {
            Ok(lease) => lease,
            Err(e) => return self.noted(rooms, &[], Err(e)),
        };
        self.noted(rooms, &[], Ok(Some(lease.revision.lsn().get())))?;
        debug_assert!(lease.revision.lsn().get() >= before);
        let (key, value) = (path(key), self.value(30));
        let bound = Change::PutLeased { key: key.clone(), value: value.clone(), lease: lease.id };
        let answer = registry.put_leased(&key, value, lease.id);
        let failed = answer.is_err();
        self.noted(rooms, &[bound], answer.map(|revision| Some(revision.lsn().get())))?;
        if failed {
            return Ok(());
        }
        let revoked = registry.revoke(lease.id, "somebody", "an act");
        if let Ok(keys) = &revoked
            && *keys != [key.clone()]
        {
            return Err(format!("a lease had the keys {keys:?}"));
        }
        let next = self.model.next_lsn();
        self.noted(rooms, &[Change::Delete { key }], revoked.map(|_| Some(next)))
    }

    fn swap(&mut self, rooms: &Rooms, key: u8, right: bool) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let key = path(key);
        let current = registry.get(&key).map(|entry| entry.revision);
        let expected = match (current, right) {
            (None, true) | (Some(_), false) => Expected::Absent,
            (Some(revision), true) => Expected::At(revision),
            (None, false) => match registry.scan(&annals_registry::Prefix::all()).first() {
                Some((_, entry)) => Expected::At(entry.revision),
                None => return Ok(()),
            },
        };
        let change = Change::Put { key: key.clone(), value: self.value(40) };
        let Change::Put { value, .. } = &change else { return Ok(()) };
        let answer = registry.compare_and_swap(&key, expected, value.clone());
        let wrong = match &answer {
            Ok(Cas::Done(_)) => !right,
            Ok(Cas::Conflict { .. }) => right,
            Err(_) => false,
        };
        if wrong {
            return Err(format!("swap with right = {right}: {:?}", answer.map(|_| ())));
        }
        let answer = answer.map(|cas| match cas {
            Cas::Done(revision) => Some(revision.lsn().get()),
            Cas::Conflict { .. } => None,
        });
        self.noted(rooms, &[change], answer)
    }

    fn commit(&mut self, rooms: &Rooms, first: u8, bytes: u16) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let expected = Expected::Any;
        let before = [Precondition { key: path(first), expected }];
        let changes = [
            Change::Put { key: path(first), value: self.value(bytes) },
            Change::Delete { key: path(first.wrapping_add(1)) },
            Change::Put { key: path(first.wrapping_add(2)), value: self.value(10) },
        ];
        let answer = registry.commit(&before, &changes);
        if let Ok(Commit::Conflict { .. }) = answer {
            return Err("a conflict with nobody".to_owned());
        }
        let answer = answer.map(|commit| match commit {
            Commit::Done(revision) => Some(revision.lsn().get()),
            Commit::Conflict { .. } => None,
        });
        self.noted(rooms, &changes, answer)
    }

    /// What two agents do with a counter: read both, write both.
    fn move_one(&mut self, rooms: &Rooms, from: u8, to: u8) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let (from, to) = (path(from), path(to.wrapping_add(1)));
        if from == to {
            return Ok(());
        }
        let stamp = self.model.content(12);
        let mut changes = Vec::new();
        let answer = registry.transact(|tx| -> TxResult<()> {
            let mut out = tx.get(&from)?.map(|value| value.bytes().to_vec()).unwrap_or_default();
            let mut into = tx.get(&to)?.map(|value| value.bytes().to_vec()).unwrap_or_default();
            out.truncate(20);
            into.truncate(20);
            out.extend_from_slice(&stamp);
            into.extend_from_slice(&stamp);
            let (out, into) = (Value::raw(into), Value::raw(out));
            changes = vec![
                Change::Put { key: from.clone(), value: out.clone() },
                Change::Put { key: to.clone(), value: into.clone() },
            ];
            tx.put(&from, out);
            tx.put(&to, into);
            Ok(())
        });
        let answer = match answer {
            Ok(Outcome::Done { revision, .. }) => Ok(revision.map(|revision| revision.lsn().get())),
            Ok(Outcome::Conflict { .. }) => return Err("a conflict with nobody".to_owned()),
            Ok(Outcome::Aborted(never)) => match never {},
            Err(e) => Err(e),
        };
        self.noted(rooms, &changes, answer)
    }

    /// A ticket, which comes after every other.
    pub(super) fn ticket(&mut self, ticket: u64) -> Result<(), String> {
        let last = std::mem::replace(&mut self.last_ticket, ticket);
        if ticket > last { Ok(()) } else { Err(format!("ticket {ticket} after {last}")) }
    }

    /// A tool call: its start, which may be ordered and then flushed, and its end.
    fn tool(
        &mut self,
        rooms: &Rooms,
        session: u8,
        bytes: u16,
        flushed: bool,
    ) -> Result<(), String> {
        let session = format!("session-{}", session % 4);
        let handle = rooms.observer.session(session.clone()).map_err(|e| e.to_string())?;
        let text = |model: &mut Model| {
            JsonText::string(&String::from_utf8_lossy(&model.content(usize::from(bytes))))
        };
        let (input, output) = (text(&mut self.model), text(&mut self.model));
        let call = format!("call-{}", self.model.stamp);
        let asked = |kind, text: &JsonText| Maybe {
            prints: vec![print_entry(kind, &session, &call, text.as_str())],
            changes: Vec::new(),
        };
        let started = asked(EntryKind::ToolStart, &input);
        let ended = asked(EntryKind::ToolEnd, &output);
        let id = CallId::new(call.clone()).map_err(|e| e.to_string())?;
        let level = if flushed { Level::Ordered } else { Level::Durable };
        let start = handle.tool("search").call_id(id).input(input).level(level);
        let mut open = match start.start() {
            Ok(open) => open,
            Err(e) => return self.note(started, None, Some(e.outcome_unknown())),
        };
        self.ticket(open.start_receipt().ticket.sequence)?;
        if flushed {
            // Ordered, and nobody was told more: whether it is there a failed flush leaves open.
            if rooms.observer.flush().is_err() {
                self.model.maybe.push(started);
                return Ok(());
            }
            self.note(started, None, None)?;
            rooms.observer.flush().map_err(|e| format!("a flush after a flush: {e}"))?;
            match open.end_ok(output) {
                Ok(end) => self.ticket(end.ticket.sequence)?,
                Err(e) => return self.note(ended, None, Some(e.outcome_unknown())),
            }
            let lost = rooms.observer.flush().is_err();
            return self.note(ended, None, lost.then_some(true));
        }
        let lsn = open.start_receipt().lsn.map(Lsn::get);
        self.note(started, lsn, None)?;
        let end = open.end_ok(output);
        if let Ok(end) = &end {
            self.ticket(end.ticket.sequence)?;
        }
        let lsn = end.as_ref().ok().and_then(|receipt| receipt.lsn).map(Lsn::get);
        self.note(ended, lsn, end.err().map(|e| e.outcome_unknown()))
    }

    /// A copy opens with everything durable; a broken-off one is refused, or holds it all.
    fn backup(&mut self, rooms: &Rooms, fault_in: Option<u8>) -> Result<(), String> {
        self.model.stamp += 1;
        let copy = MemDir::new(self.model.stamp);
        if let Some(ops) = fault_in {
            copy.fault_at(u64::from(ops), Fault::Error(5));
        }
        let done = rooms.log.backup_in(copy.dir());
        let lucky = Keep::Some(self.model.stamp);
        for keep in [Keep::Nothing, Keep::Everything, lucky] {
            self.check_copy(&copy.crash(keep), done.is_ok())
                .map_err(|why| format!("a copy, {fault_in:?}, {keep:?}: {why}"))?;
        }
        Ok(())
    }

    fn check_copy(&self, copy: &MemDir, done: bool) -> Result<(), String> {
        let is_log = copy.names().iter().any(|name| name.contains(".wal"));
        let copied = match options().open_in(copy.dir()) {
            Ok(copied) => copied,
            Err(_) if !done => return Ok(()),
            Err(e) => return Err(format!("opening a finished copy: {e:?}")),
        };
        if !done && !is_log {
            return Ok(());
        }
        let mut model = Model { generation: 0, ..self.model.clone() };
        model.maybe.clear();
        model.check(&copied)
    }
}

pub(super) fn hold_name(name: u8) -> String {
    format!("hold-{:02}", name % 62)
}

/// A watch from the start and the log itself tell the same.
fn watch(rooms: &Rooms) -> Result<(), String> {
    let Some(registry) = &rooms.registry else { return Ok(()) };
    let unless_io = |e: annals_registry::Error| match e.kind() {
        ErrorKind::Log(annals_wal::ErrorKind::Io) => Ok(()),
        _ => Err(format!("a watch: {e}")),
    };
    let mut watch = match registry.watch(Prefix::all(), After::Start) {
        Ok(watch) => watch,
        Err(e) => return unless_io(e),
    };
    let (mut told, mut last) = (Vec::new(), None);
    loop {
        match watch.try_next() {
            Ok(Some(Event::Changed { revision, changes, .. })) => {
                told.push((revision.lsn().get(), print_changes(&effects(&changes))));
            }
            Ok(Some(Event::Progress(revision))) => last = Some(revision.lsn()),
            Ok(Some(Event::Lagged { .. })) => return Err("a watch lags behind nobody".to_owned()),
            Ok(None) => break,
            Err(e) => return unless_io(e),
        }
    }
    let Ok(records) = rooms.log.range(..) else { return Ok(()) };
    let mut held = Vec::new();
    for record in records {
        let Ok(record) = record else { return Ok(()) };
        let changes = if record.kind == TRANSACTION {
            decode_transaction(record.lsn, &record.payload).map_err(|e| e.to_string())?
        } else {
            Vec::new()
        };
        if !changes.is_empty() {
            held.push((record.lsn.get(), print_changes(&effects(&changes))));
        }
    }
    if told != held {
        return Err(format!("a watch told {} transactions of {}", told.len(), held.len()));
    }
    let told_to = last.or(told.last().and_then(|(lsn, _)| Lsn::new(*lsn)));
    if told_to < rooms.log.durable_lsn() && rooms.log.durable_lsn() >= Some(rooms.log.head_lsn()) {
        return Err(format!("a watch came to {told_to:?} of {:?}", rooms.log.durable_lsn()));
    }
    Ok(())
}

#[allow(clippy::expect_used, reason = "a constant that is a key")]
pub(super) fn path(key: u8) -> Key {
    let key = key % 12;
    Key::new(format!("tasks/T{}/agents/A{}", key / 4, key % 4)).expect("a key")
}
