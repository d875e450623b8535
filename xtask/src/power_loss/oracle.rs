//! Compares what recovery brought back with what was told before the cut.
//!
//! Everything acknowledged is there with exactly its content at exactly its LSN, unless it was
//! trimmed; nothing is there that was not begun; head, holds, registry and the newest backup are
//! what was acknowledged, or that with the one change that was under way.
//! Then the log takes another record, is closed, opened and read once more.
//! Next room: [`super::found`].

use std::collections::BTreeMap;
use std::path::Path;

use annals_registry::{Key, Prefix, Registry};
use annals_wal::{ErrorKind, Log};

use super::found::Found;
use super::story;
use super::told::{Holds, Line, Told};
use super::writer::options;

/// What was met on the way.
#[derive(Default)]
pub(crate) struct Met {
    /// Rows of the recovery table, of both logs and of backups.
    pub(crate) rows: Vec<String>,
    pub(crate) records: u64,
    pub(crate) cut_bytes: u64,
    /// Whether there was a backup acknowledged, and one under way.
    pub(crate) backups: (bool, bool),
    pub(crate) trimmed: bool,
    /// The file system itself was refused.
    pub(crate) unmountable: bool,
}

pub(crate) struct Judge<'a> {
    pub(crate) told: &'a Told,
    pub(crate) seed: u64,
    pub(crate) problems: Vec<String>,
    pub(crate) met: Met,
}

type Judged = Result<(), String>;

impl<'a> Judge<'a> {
    pub(crate) fn new(told: &'a Told, seed: u64) -> Judge<'a> {
        Judge { told, seed, problems: Vec::new(), met: Met::default() }
    }

    /// Judges everything on the file system.
    pub(crate) fn judge(&mut self, root: &Path) {
        for (name, judged) in [
            ("backup", self.backup(root)),
            (story::PLAIN_DIR, self.plain(&root.join(story::PLAIN_DIR))),
            (story::SHARED_DIR, self.shared(&root.join(story::SHARED_DIR))),
        ] {
            if let Err(problem) = judged {
                self.problems.push(format!("{name}: {problem}"));
            }
        }
    }

    fn problem(&mut self, log: &str, what: &str) {
        self.problems.push(format!("{log}: {what}"));
    }

    fn open(&mut self, dir: &Path) -> Result<Log, String> {
        let log = options().open(dir).map_err(|e| format!("does not open: {e}"))?;
        let recovery = log.recovery();
        self.met.rows.push(recovery.row.letter().to_owned());
        self.met.cut_bytes += recovery.cut.map_or(0, |cut| cut.to - cut.from);
        if recovery.row == annals_wal::recover::Row::Fresh && self.told.sessions.1 > 0 {
            return Err("a log that had been opened is not there any more".into());
        }
        Ok(log)
    }

    fn read(&mut self, name: &str, log: &Log) -> Found {
        let found = Found::read(log, self.seed);
        self.met.records += found.last + 1 - found.head;
        for problem in &found.problems {
            self.problem(name, problem);
        }
        found
    }

    /// What a recovery has shown stays, and nothing was appended after it.
    fn check_shown(&mut self, name: &str, shown: Option<u64>, last: u64) {
        if shown.is_some_and(|shown| shown != last) {
            self.problem(name, &format!("recovery had shown {shown:?}; now it ends at LSN {last}"));
        }
    }

    fn plain(&mut self, dir: &Path) -> Judged {
        let log = self.open(dir)?;
        let name = story::PLAIN_DIR;
        let found = self.read(name, &log);
        for problem in batches_missing(&self.told.appends, &story::PLAIN, self.seed, &found) {
            self.problem(name, &problem);
        }
        self.check_shown(name, self.told.shown[0], found.last);
        self.met.trimmed = found.head > 1;
        let (low, high) = self.told.head;
        if found.head < low || found.head > high {
            let head = found.head;
            self.problem(name, &format!("the head is {head}: {low} to {high} were told"));
        }
        let holds: Holds = log.holds().into_iter().map(|(name, lsn)| (name, lsn.get())).collect();
        if holds != self.told.holds && Some(&holds) != self.told.holds_next.as_ref() {
            let (told, next) = (&self.told.holds, &self.told.holds_next);
            self.problem(name, &format!("holds are {holds:?}; told {told:?}, next {next:?}"));
        }
        go_on(log, dir, &found)
    }

    fn shared(&mut self, dir: &Path) -> Judged {
        let log = self.open(dir)?;
        let name = story::SHARED_DIR;
        let found = self.read(name, &log);
        self.check_shown(name, self.told.shown[1], found.last);
        let mut problems = batches_missing(&self.told.appends, &[story::RAW], self.seed, &found);
        problems.extend(entries_missing(&self.told.entries, self.seed, &found));
        let registry = Registry::on(log.clone()).map_err(|e| format!("the registry: {e}"))?;
        problems.extend(self.registry(&registry, &found)?);
        for problem in problems {
            self.problem(name, &problem);
        }
        drop(registry);
        go_on(log, dir, &found)
    }

    fn registry(&self, registry: &Registry, found: &Found) -> Result<Vec<String>, String> {
        let mut problems = Vec::new();
        let state: BTreeMap<_, _> = registry
            .scan(&Prefix::all())
            .into_iter()
            .map(|(key, entry)| (key, (entry.value, entry.revision.lsn().get())))
            .collect();
        if state != found.replayed() {
            problems.push("the registry is not what its transactions make".to_owned());
        }
        let count = |name: String| -> Result<u64, String> {
            let key = Key::new(name).map_err(|e| e.to_string())?;
            Ok(registry.get_json(&key).map_err(|e| e.to_string())?.unwrap_or(0))
        };
        let mut sum = 0;
        for thread in story::REGISTRY {
            let told = self.told.changes.get(&thread).cloned().unwrap_or_default();
            let own = count(story::agent_key(thread))?;
            sum += own;
            let low = told.acknowledged.last_key_value().map_or(0, |(n, _)| *n);
            if own < low || own > told.begun {
                let begun = told.begun;
                problems.push(format!(
                    "the count of {thread} is {own}: {low} acknowledged, {begun} begun"
                ));
            }
            let due = Key::new(story::agent_key(thread)).map_err(|e| e.to_string())?;
            for (n, lsn) in &told.acknowledged {
                let at = found.transactions.binary_search_by_key(lsn, |(lsn, _)| *lsn);
                let is_there = at.ok().is_some_and(|at| {
                    let changes = &found.transactions[at].1;
                    changes.iter().any(|change| *change.key() == due)
                });
                if !is_there {
                    problems.push(format!("change {n} of {thread} at LSN {lsn} is LOST"));
                }
            }
        }
        let total = count(story::TOTAL.to_owned())?;
        let transactions = found.transactions.len() as u64;
        if total != sum || transactions != sum {
            problems.push(format!(
                "the total is {total}, the counts make {sum}, there are {transactions} transactions"
            ));
        }
        Ok(problems)
    }

    /// A backup that was acknowledged is whole. One that was under way is refused, or whole.
    fn backup(&mut self, root: &Path) -> Judged {
        let Some(told) = &self.told.backup else { return Ok(()) };
        let dir = root.join(story::backup_dir(told.number));
        let log = match options().create(false).open(&dir) {
            Ok(log) => log,
            Err(e) if told.done.is_none() => {
                self.met.backups.1 = true;
                return match e.kind() {
                    ErrorKind::Archived | ErrorKind::NotALog => Ok(()),
                    // The directory itself may not be there yet.
                    _ if !dir.exists() => Ok(()),
                    _ => Err(format!("half a backup is not called one: {e}")),
                };
            }
            Err(e) => return Err(format!("does not open: {e}")),
        };
        self.met.backups.0 |= told.done.is_some();
        let row = log.recovery().row.letter();
        self.met.rows.push(format!("backup {row}"));
        let (at_least, done) = (told.at_least, told.done);
        let found = self.read("backup", &log);
        if found.last < at_least {
            return Err(format!("it ends at LSN {}: {at_least} was acknowledged", found.last));
        }
        match done {
            Some((head, last)) if (found.head, found.last) != (head, last) => Err(format!(
                "it holds LSNs {} to {}: {head} to {last} were told",
                found.head, found.last
            )),
            _ => go_on(log, &dir, &found),
        }
    }
}

/// Acknowledged batches that are not there and were not trimmed, and batches that nobody began.
fn batches_missing(
    lines: &BTreeMap<u64, Line>,
    threads: &[u64],
    seed: u64,
    found: &Found,
) -> Vec<String> {
    let mut problems = Vec::new();
    for thread in threads {
        let told = lines.get(thread).cloned().unwrap_or_default();
        for (n, lsn) in &told.acknowledged {
            match found.batches.get(&(*thread, *n)) {
                Some((_, first)) if first == lsn => {}
                Some((_, first)) => problems.push(format!(
                    "batch {n} of thread {thread}, acknowledged at LSN {lsn}, is at {first}"
                )),
                // Trimmed: the whole of it lies below the head.
                None if lsn + story::batch_len(seed, *thread, *n) <= found.head => {}
                None => problems.push(format!(
                    "batch {n} of thread {thread}, acknowledged at LSN {lsn}, is LOST"
                )),
            }
        }
    }
    for (thread, n) in found.batches.keys() {
        let begun = lines.get(thread).map_or(0, |told| told.begun);
        if !threads.contains(thread) || *n >= begun {
            problems.push(format!("batch {n} of thread {thread} was never begun: {begun} were"));
        }
    }
    problems
}

fn entries_missing(lines: &BTreeMap<u64, Line>, seed: u64, found: &Found) -> Vec<String> {
    let mut problems = Vec::new();
    let told = lines.get(&story::OBSERVER).cloned().unwrap_or_default();
    if found.entries.len() as u64 > told.begun {
        problems.push(format!("{} entries, {} begun", found.entries.len(), told.begun));
    }
    for (n, (lsn, entry)) in (0..).zip(&found.entries) {
        let thread = story::OBSERVER;
        let text = story::entry_text(seed, thread, n);
        let is_due = entry.kind == story::entry_kind(n)
            && entry.session.as_ref().is_some_and(|id| id.as_str() == story::session(thread))
            && entry.call_id.as_ref().is_some_and(|id| id.as_str() == story::call_id(thread, n))
            && entry.input.as_ref().or(entry.output.as_ref()) == Some(&text);
        if !is_due {
            problems.push(format!("LSN {lsn} is not entry {n}"));
        }
    }
    for (n, lsn) in &told.acknowledged {
        let there = usize::try_from(*n).ok().and_then(|n| found.entries.get(n));
        if there.map(|(lsn, _)| lsn) != Some(lsn) {
            problems.push(format!("entry {n}, acknowledged at LSN {lsn}, is LOST"));
        }
    }
    problems
}

/// The log must be good for more: one record, a close, an opening that finds it closed, a reading.
fn go_on(log: Log, dir: &Path, found: &Found) -> Judged {
    let failed = |doing: &str, e: annals_wal::Error| format!("after recovery, {doing}: {e}");
    let lsn = log.append("after the cut").map_err(|e| failed("append", e))?;
    if lsn.get() != found.last + 1 {
        return Err(format!("after LSN {} the next is {lsn}", found.last));
    }
    log.close().map_err(|e| failed("close", e))?;
    let log = options().create(false).open(dir).map_err(|e| failed("opening again", e))?;
    if log.recovery().row != annals_wal::recover::Row::A {
        return Err(format!("closed, and then: {}", log.recovery()));
    }
    let mut last = found.head - 1;
    for record in log.range(..).map_err(|e| failed("reading again", e))? {
        last = record.map_err(|e| failed("reading again", e))?.lsn.get();
    }
    if last != lsn.get() || log.head_lsn().get() != found.head {
        return Err(format!("read again, it ends at {last} and not at {lsn}"));
    }
    log.close().map_err(|e| failed("close", e))
}

#[cfg(test)]
mod tests;
