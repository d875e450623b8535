//! The fresh process: recovers the log and compares it with what the parent was told.
//!
//! Reads the parent's record from stdin, prints one JSON object. Everything acknowledged must be
//! there with its hash, in order; everything there must have been begun; counts must agree.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Instant;

use annals_observer::entries;
use annals_registry::{Key, Registry};
use annals_wal::Log;
use serde_json::json;

use super::record::Record;
use super::story;
use crate::args::CheckArgs;
use crate::exit::{Exit, Failure};
use crate::opening;
use crate::out::Out;

pub(crate) fn run(args: &CheckArgs, out: &mut Out) -> Result<Exit, Failure> {
    let mut told = String::new();
    io::stdin().lock().read_to_string(&mut told)?;
    let record = Record::from_lines(&told)
        .ok_or_else(|| Failure::new(Exit::Usage, "the record on stdin is none"))?;
    let start = Instant::now();
    let log = opening::or_new(&args.dir, false)?;
    let recovery_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let recovery = log.recovery().clone();
    let mut check = Check { args, record: &record, problems: Vec::new(), entries: 0, changes: 0 };
    check.entries(&log)?;
    check.registry(log)?;
    let verdict = json!({
        "problems": check.problems,
        "entries": check.entries,
        "changes": check.changes,
        "recovery_us": recovery_us,
        "row": recovery.row.letter(),
        "cut_bytes": recovery.cut.map_or(0, |cut| cut.to - cut.from),
    });
    out.line(&verdict.to_string())?;
    Ok(if check.problems.is_empty() { Exit::Clean } else { Exit::Failed })
}

struct Check<'a> {
    args: &'a CheckArgs,
    record: &'a Record,
    problems: Vec<String>,
    entries: u64,
    changes: u64,
}

impl Check<'_> {
    fn problem(&mut self, what: String) {
        // One loss tends to be a thousand; a few say it.
        if self.problems.len() < 10 {
            self.problems.push(what);
        }
    }

    /// Every entry of this round's sessions, in LSN order.
    fn entries(&mut self, log: &Log) -> Result<(), Failure> {
        let round = self.args.round;
        let mut agents = BTreeMap::new();
        for agent in 0..self.args.agents {
            agents.insert(story::session(round, agent), (agent, Vec::new()));
        }
        for stored in entries(log)? {
            let stored = stored?;
            let session = stored.entry.session.as_ref().map_or("", |session| session.as_str());
            let hash = story::hash_of(&stored.entry);
            match agents.get_mut(session) {
                Some((_, found)) => found.push((stored.lsn.get(), hash)),
                None if story::round_of(session) == Some(round) => {
                    self.problem(format!("LSN {}: a session that nobody began", stored.lsn));
                }
                None => {}
            }
        }
        for (agent, found) in agents.into_values() {
            self.agent(agent, &found);
        }
        Ok(())
    }

    fn agent(&mut self, agent: u32, found: &[(u64, u64)]) {
        self.entries += found.len() as u64;
        let told = self.record.agents.get(&agent).cloned().unwrap_or_default();
        if (found.len() as u64) > told.begun {
            let (found, begun) = (found.len(), told.begun);
            self.problem(format!("agent {agent}: {found} entries, but only {begun} were begun"));
        }
        for (n, (lsn, hash)) in (0u64..).zip(found) {
            if *hash != story::hash_due(self.args.round, agent, n) {
                self.problem(format!("agent {agent}: LSN {lsn} is not its entry {n}"));
            }
        }
        for (n, (lsn, hash)) in told.acknowledged.iter().enumerate() {
            match found.get(n) {
                Some(there) if there == &(*lsn, *hash) => {}
                Some(_) => {
                    self.problem(format!("agent {agent}: entry {n} was acknowledged elsewhere"))
                }
                None => self.problem(format!(
                    "agent {agent}: entry {n}, acknowledged at LSN {lsn}, is LOST"
                )),
            }
        }
    }

    fn registry(&mut self, log: Log) -> Result<(), Failure> {
        let registry = Registry::on(log)?;
        let mut sum = 0;
        for agent in 0..self.args.agents {
            let told = self.record.agents.get(&agent).cloned().unwrap_or_default();
            let key = Key::new(story::agent_key(self.args.round, agent))?;
            let count: u64 = registry.get_json(&key)?.unwrap_or(0);
            sum += count;
            let (low, high) = (told.changes_acknowledged, told.changes_begun);
            if count < low || count > high {
                self.problem(format!(
                    "agent {agent}: its count is {count}; {low} changes were acknowledged and \
                     {high} begun"
                ));
            }
        }
        let total = Key::new(story::total_key(self.args.round))?;
        let total: u64 = registry.get_json(&total)?.unwrap_or(0);
        if total != sum {
            self.problem(format!("the total is {total}, the agents' counts make {sum}"));
        }
        self.changes = sum;
        Ok(())
    }
}
