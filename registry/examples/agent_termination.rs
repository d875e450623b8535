//! An agent is terminated in its task's registry and in the global one, counts included, in one
//! transaction; 64 threads end 64 agents at once, and the counts are exact.
//!
//! In the JSON files that this replaces, two agents that ended at once read the same count and
//! wrote the same count less one, and a crash between the two files left an agent active for ever.
//!
//! Run: `cargo run -p annals-registry --example agent_termination`

#![allow(clippy::print_stdout, reason = "an example says what it did")]

use std::thread;

use annals_registry::{
    Abort, AgentLife, Key, Machine, Outcome, Prefix, Registry, TxResult, agent_life,
};
use annals_wal::Log;
use serde::{Deserialize, Serialize};

const AGENTS: usize = 64;

/// What this program knows of an agent. Members that others add stay as they are.
#[derive(Serialize, Deserialize)]
struct Agent {
    status: AgentLife,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

type Error = Box<dyn std::error::Error>;

fn count(tx: &mut annals_registry::Tx<'_>, key: &Key, change: i64) -> annals_registry::Result<()> {
    let before: i64 = tx.get_json(key)?.unwrap_or(0);
    tx.put_json(key, &(before + change))
}

/// Ends one agent: both entries, all counts, or nothing.
fn terminate(
    registry: &Registry,
    life: &Machine<AgentLife>,
    task: &str,
    agent: &str,
    why: &str,
) -> Result<Outcome<(), Option<AgentLife>>, Error> {
    let entries = [
        Key::new(format!("tasks/{task}/agents/{agent}"))?,
        Key::new(format!("global/agents/{agent}"))?,
    ];
    let counts =
        [Key::new(format!("tasks/{task}/active_count"))?, Key::new("global/active_agents")?];
    Ok(registry.transact(|tx| -> TxResult<(), Option<AgentLife>> {
        for entry in &entries {
            tx.transition(life, entry, &AgentLife::Working, &AgentLife::Terminated)?
                .map_err(Abort::Because)?;
            let _ = tx.update_json(entry, |agent: &mut Agent| agent.reason = Some(why.into()))?;
        }
        for active in &counts {
            count(tx, active, -1)?;
        }
        tx.note(agent, why);
        Ok(())
    })?)
}

fn main() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    let life = agent_life().in_member("status");
    for n in 0..AGENTS {
        let agent = Agent { status: AgentLife::Working, reason: None };
        registry.put_json(&Key::new(format!("tasks/T1/agents/A{n}"))?, &agent)?;
        registry.put_json(&Key::new(format!("global/agents/A{n}"))?, &agent)?;
    }
    let counts = [Key::new("tasks/T1/active_count")?, Key::new("global/active_agents")?];
    for count in &counts {
        registry.put_json(count, &AGENTS)?;
    }

    thread::scope(|scope| {
        for n in 0..AGENTS {
            let (registry, life) = (&registry, &life);
            scope.spawn(move || {
                let ended = terminate(registry, life, "T1", &format!("A{n}"), "task cancelled");
                assert!(matches!(ended, Ok(Outcome::Done { .. })), "{:?}", ended.err());
            });
        }
    });
    for count in &counts {
        assert_eq!(registry.get_json::<i64>(count)?, Some(0));
    }
    // Ended twice is ended once: the second one learns so, and no count goes below zero.
    let again = terminate(&registry, &life, "T1", "A0", "again")?;
    assert_eq!(again, Outcome::Aborted(Some(AgentLife::Terminated)));

    let metrics = registry.metrics();
    println!("{AGENTS} agents ended by {AGENTS} threads at once; both counts are 0");
    println!("{} keys, {} overtaken", registry.scan(&Prefix::all()).len(), metrics.retries);
    println!(
        "commit p50 {} us, p99 {} us",
        metrics.commit_ns.p50 / 1000,
        metrics.commit_ns.p99 / 1000
    );
    Ok(())
}
