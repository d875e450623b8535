//! The acts of the observer that do more than one step: large entries, ends that are one batch with
//! a change of the registry, retention, write-offs, imports.
//!
//! Never here: a second opinion on what a batch is; each act says which records it asks for, in
//! which batches, before it asks. Invariants: a start that nothing has ended stays in the log; an
//! import that was cut is gone on with where it stopped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use annals_observer::import::{ImportOptions, ImportOutcome, Importer};
use annals_observer::{
    CallId, Entry, EntryKind, JointError, JsonText, Options, Outcome, Retention, SpanId,
    StoredEntry, Together, entries, read_field,
};
use annals_registry::{Change, Written};
use annals_wal::Lsn;
use tempfile::TempDir;

use super::archives::lowest_hold;
use super::calls::path;
use super::{Rooms, World};
use crate::world::model::{Maybe, effects, print_changes, print_entry, print_plain};

/// The observer's own hold.
const HOLD: &str = annals_observer::HOLD;
/// All lines of an import together: its batches hold 256 KiB, so that of two lines each has its own.
const IMPORT_BYTES: usize = 300_000;
/// And so many entries.
const IMPORT_BATCH: usize = 512;

fn one(prints: Vec<u64>) -> Maybe {
    Maybe { prints, changes: Vec::new() }
}

/// The entries of a log that can be read now; `None` if a read was made to fail.
fn readable(rooms: &Rooms) -> Option<Vec<StoredEntry>> {
    entries(&rooms.log).ok()?.collect::<Result<_, _>>().ok()
}

/// Starts that are neither ended nor written off, by LSN.
fn open_starts(stored: &[StoredEntry]) -> BTreeMap<u64, Entry> {
    let mut open: BTreeMap<u64, Entry> = BTreeMap::new();
    for StoredEntry { lsn, entry } in stored {
        match entry.kind {
            EntryKind::ToolStart => drop(open.insert(lsn.get(), entry.clone())),
            EntryKind::ToolEnd | EntryKind::Abandoned => {
                let same =
                    |start: &Entry| start.span.map(SpanId::get) == entry.span.map(SpanId::get);
                open.retain(|_, start| !same(start));
            }
            _ => {}
        }
    }
    open
}

impl World {
    /// A start with two payload records before it, all three in one batch.
    pub(super) fn large(&mut self, rooms: &Rooms, session: u8, bytes: u32) -> Result<(), String> {
        let observer = Options::new().inline_bytes_max(1_000).on(rooms.log.clone());
        let observer = observer.map_err(|e| e.to_string())?;
        let session = format!("session-{}", session % 4);
        let handle = observer.session(session.clone()).map_err(|e| e.to_string())?;
        let mut text = || {
            let content = self.model.content(bytes as usize);
            JsonText::string(&String::from_utf8_lossy(&content))
        };
        let (input, metadata) = (text(), text());
        let id = format!("large-{}", self.model.stamp);
        let asked = one(vec![
            print_plain(input.as_str().as_bytes()),
            print_plain(metadata.as_str().as_bytes()),
            print_entry(EntryKind::ToolStart, &session, &id, ""),
        ]);
        let call_id = CallId::new(id).map_err(|e| e.to_string())?;
        let start = handle.tool("search").call_id(call_id).input(input.clone()).metadata(metadata);
        match start.start() {
            Err(e) => self.note(asked, None, Some(e.outcome_unknown())),
            Ok(call) => {
                let lsn = call.start_receipt().lsn;
                self.note(asked, lsn.map(|lsn| lsn.get() - 2), None)?;
                let stored =
                    readable(rooms).and_then(|all| all.into_iter().find(|s| Some(s.lsn) == lsn));
                let Some(stored) = stored else { return Ok(()) };
                match read_field(&rooms.log, &stored, annals_observer::Field::Input) {
                    Ok(Some(whole)) if whole == input => Ok(()),
                    Ok(other) => Err(format!("a large input came back as {:?}", other.is_some())),
                    Err(e) => super::unless_io(format!("{e:?}")),
                }
            }
        }
    }

    /// An end and a change of the registry in one batch: both are there after any crash, or neither.
    /// The writer is registered for it, and the start is durable before.
    pub(super) fn joint(&mut self, rooms: &Rooms, session: u8, key: u8) -> Result<(), String> {
        let Some(registry) = &rooms.registry else { return Ok(()) };
        let next = self.model.next_lsn();
        let mut writer = match registry.writer() {
            Ok(writer) => writer,
            Err(e) => return self.noted(rooms, &[], Err(e)),
        };
        self.noted(rooms, &[], Ok(Some(next)))?;
        let session = format!("session-{}", session % 4);
        let handle = rooms.observer.session(session.clone()).map_err(|e| e.to_string())?;
        let changes = [Change::Put { key: path(key), value: self.value(60) }];
        let output = JsonText::string(&String::from_utf8_lossy(&self.model.content(200)));
        let call = format!("joint-{}", self.model.stamp);
        let start = one(vec![print_entry(EntryKind::ToolStart, &session, &call, "")]);
        let changed = effects(&changes);
        let end = print_entry(EntryKind::ToolEnd, &session, &call, output.as_str());
        let asked = Maybe { prints: vec![end, print_changes(&changed)], changes: changed };
        let id = CallId::new(call).map_err(|e| e.to_string())?;
        let mut open = match handle.tool("search").call_id(id).start() {
            Ok(open) => open,
            Err(e) => return self.note(start, None, Some(e.outcome_unknown())),
        };
        self.ticket(open.start_receipt().ticket.sequence)?;
        self.note(start, open.start_receipt().lsn.map(Lsn::get), None)?;
        match open.end_with(Outcome::Ok(output), writer.joint(&[], &changes)) {
            Ok(Together { end: Some(end), done: Written::Done { revision: Some(made), .. } }) => {
                self.ticket(end.ticket.sequence)?;
                let lsn = end.lsn.map(Lsn::get);
                if lsn.map(|lsn| lsn + 1) != Some(made.lsn().get()) {
                    return Err(format!("an end at {lsn:?}, its change at {}", made.lsn()));
                }
                self.note(asked, lsn, None)?;
            }
            Ok(other) => return Err(format!("a commit against nobody: {:?}", other.end)),
            Err(JointError::Observer(e)) => {
                self.note(asked, None, Some(e.outcome_unknown()))?;
            }
            Err(JointError::Commit(e)) => self.note(asked, None, Some(e.outcome_unknown()))?,
            Err(e) => return Err(e.to_string()),
        }
        self.model.check_registry(registry)
    }

    /// Moves the hold, then trims: either may be done and the other not.
    pub(super) fn retain(&mut self, rooms: &Rooms, records: u8) -> Result<(), String> {
        let open = readable(rooms).map(|stored| open_starts(&stored));
        let made = rooms.observer.retain(Retention::new().records_max(u64::from(records)));
        let mut want = self.model.holds.clone();
        let holds = rooms.log.holds().into_iter();
        want.extend(holds.filter(|(name, _)| name == HOLD).map(|(name, lsn)| (name, lsn.get())));
        let lowest = lowest_hold(&rooms.log, &want);
        let to = self.model.next_lsn().saturating_sub(u64::from(records)).min(lowest);
        self.model.head_max = self.model.head_max.max(to);
        let oldest = open.as_ref().and_then(|open| open.keys().next()).copied();
        match made {
            Ok(head) => {
                self.changed(Ok(()), want);
                self.note_segments();
                let head = head.get();
                if head > self.model.head_max || oldest.is_some_and(|oldest| head > oldest) {
                    return Err(format!("retention came to {head}, a call is open at {oldest:?}"));
                }
                (self.model.head, self.model.head_max) = (head, head);
            }
            Err(e) => {
                self.refused = true;
                if want != self.model.holds {
                    self.model.holds_maybe = Some(want);
                }
                if self.is_quiet() {
                    return Err(format!("retention failed, and nothing was made to fail: {e}"));
                }
            }
        }
        Ok(())
    }

    /// Each call that an earlier opening left open is written off, once, all in one batch.
    pub(super) fn recover(&mut self, rooms: &Rooms) -> Result<(), String> {
        let Some(stored) = readable(rooms) else { return Ok(()) };
        let before = rooms.log.recovery().last_lsn.map_or(0, Lsn::get);
        let mut open = open_starts(&stored);
        open.retain(|lsn, _| *lsn <= before);
        let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
        let prints = open.values().map(|start| {
            let session = text(start.session.as_ref().map(|id| id.as_str()));
            let call = text(start.call_id.as_ref().map(|id| id.as_str()));
            print_entry(EntryKind::Abandoned, &session, &call, "")
        });
        let asked = one(prints.collect());
        match rooms.observer.recover() {
            Ok(recovered) if recovered.written_off != open.len() as u64 => {
                Err(format!("{} written off of {open:?}", recovered.written_off))
            }
            Ok(_) if open.is_empty() => Ok(()),
            Ok(recovered) => {
                let first = recovered.open.iter().filter_map(|call| call.abandoned).map(Lsn::get);
                let next = self.model.next_lsn();
                self.note(asked, first.filter(|lsn| *lsn >= next).min(), None)
            }
            Err(e) => self.note(asked, None, Some(e.outcome_unknown())),
        }
    }

    /// A file that is the same in every world, imported whole: what an earlier try has brought is
    /// not brought again.
    pub(super) fn import(&mut self, rooms: &Rooms, lines: u16) -> Result<(), String> {
        let (path, lines) = file(lines)?;
        let Some(stored) = readable(rooms) else { return Ok(()) };
        let name = path.to_string_lossy();
        let of_file = |s: &&StoredEntry| s.entry.source.as_ref().is_some_and(|of| of.file == name);
        let there = stored.iter().filter(of_file).count();
        let done = |s: &StoredEntry| s.entry.kind == EntryKind::ImportDone;
        let finished = stored.iter().filter(of_file).any(done);
        let all = [print_entry(EntryKind::ImportBegin, "", "", "")]
            .into_iter()
            .chain(lines.iter().map(|line| print_entry(EntryKind::Imported, "", "", line)))
            .chain([print_entry(EntryKind::ImportDone, "", "", "")]);
        let missing: Vec<u64> = all.skip(there).filter(|_| !finished).collect();
        let batches = batches(missing, there, lines.len());
        let imported = Importer::new(&rooms.observer)
            .map(|importer| importer.raw(true)) // what redactors do is no question of a crash
            .and_then(|mut importer| importer.import(&path, ImportOptions::default(), |_| {}));
        match imported {
            Ok(report) => {
                let already = matches!(report.outcome, ImportOutcome::AlreadyImported(_));
                if already != finished || report.resumed != (there > 0 && !finished) {
                    return Err(format!("{there} there, finished {finished}: {report:?}"));
                }
                batches.into_iter().try_for_each(|batch| self.note(batch, None, None))
            }
            Err(e) => {
                // Batches are ordered one by one: what has become durable is known.
                self.refused = true;
                let flushed = rooms.observer.flush();
                let durable = rooms.log.durable_lsn().map_or(0, Lsn::get);
                for batch in batches {
                    if durable >= self.model.next_lsn() + batch.prints.len() as u64 - 1 {
                        self.note(batch, None, None)?;
                    } else if flushed.is_err() {
                        self.model.maybe.push(batch);
                    } else {
                        break; // refused, and nothing of it or after it is in the log
                    }
                }
                match self.is_quiet() {
                    true => Err(format!("an import failed, and nothing was made to fail: {e}")),
                    false => Ok(()),
                }
            }
        }
    }
}

thread_local! {
    /// Where this thread's imports come from: it goes with the thread.
    static IMPORTED: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A file of so many lines, made once for each thread.
fn file(lines: u16) -> Result<(PathBuf, Vec<String>), String> {
    let pad = "x".repeat(IMPORT_BYTES / usize::from(lines.max(1)));
    let lines: Vec<String> =
        (0..lines).map(|n| format!("{{\"n\":{n},\"pad\":\"{pad}\"}}")).collect();
    let path = IMPORTED.with_borrow_mut(|dir| -> std::io::Result<PathBuf> {
        let dir = match dir {
            Some(dir) => dir,
            None => dir.insert(tempfile::Builder::new().prefix("annals-import-").tempdir()?),
        };
        let path = dir.path().join(format!("{:05}.jsonl", lines.len()));
        if !path.exists() {
            let mut content = lines.join("\n");
            content.push('\n');
            // By another name first: a full disk leaves no half of it.
            let part = path.with_extension("part");
            std::fs::write(&part, content)?;
            std::fs::rename(part, &path)?;
        }
        Ok(path)
    });
    Ok((path.map_err(|e| format!("a file to import: {e}"))?, lines))
}

/// The batches of what is missing, by the writer's own rule: one is submitted before the entry that
/// would make it larger than 256 KiB, or than so many entries.
fn batches(missing: Vec<u64>, there: usize, lines: usize) -> Vec<Maybe> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (n, print) in missing.into_iter().enumerate() {
        // The first is the begin entry, the last the done entry; lines are between.
        let is_line = (1..=lines).contains(&(there + n));
        let long = if is_line { IMPORT_BYTES / lines } else { 0 };
        if bytes + long > (256 << 10) || batch.len() >= IMPORT_BATCH {
            batches.push(one(std::mem::take(&mut batch)));
            bytes = 0;
        }
        bytes += long;
        batch.push(print);
    }
    batches.extend((!batch.is_empty()).then(|| one(batch)));
    batches
}
