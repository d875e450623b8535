//! Ours: `annals_registry::Registry` on a log with default options; `transact` and `get`.
//!
//! Of several processes each has a registry of its own on the same shared log.
//! A counter is a JSON number, read and written in one transaction; an agent is changed by
//! `update_json`, which leaves the members it does not know alone. Snapshots by growth are on, as
//! they are by default. Never here: a setting that a user would not have.
//! Next room: [`crate::store`].

use std::hint::black_box;
use std::path::Path;

use annals_registry::{Change, Codec, Commit, Key, Outcome as Ended, Registry, TxResult, Value};
use annals_wal::{Options, Sharing};
use serde::{Deserialize, Serialize};

use crate::engine::{Outcome, Setup};
use crate::store::{Found, Start, Store};
use crate::workload::Workload;

pub(crate) struct AnnalsRegistry {
    registry: Registry,
    keys: Vec<Key>,
    agents: bool,
}

/// What an update of an agent knows of it.
#[derive(Serialize, Deserialize)]
struct Agent {
    updates: u64,
}

impl Store for AnnalsRegistry {
    const NAME: &'static str = "annals-registry";
    const SETTINGS: &'static str = "Options::default(), transact, update_json and get";

    fn has(workload: Workload) -> bool {
        workload.of_registry()
    }

    fn open(setup: &Setup, start: &Start) -> Outcome<AnnalsRegistry> {
        let get = start.workload == Workload::RegistryGet;
        let codec = if get { Codec::RAW } else { Codec::JSON };
        let store = AnnalsRegistry::join(setup, start)?;
        let puts: Vec<Change> = store
            .keys
            .iter()
            .enumerate()
            .map(|(at, key)| {
                let value = Value::new(start.value(at), codec);
                Change::Put { key: key.clone(), value }
            })
            .collect();
        for puts in puts.chunks(1000) {
            let Commit::Done(_) = store.registry.commit(&[], puts)? else {
                return Err("a commit without preconditions had a conflict".into());
            };
        }
        Ok(store)
    }

    fn join(setup: &Setup, start: &Start) -> Outcome<AnnalsRegistry> {
        let processes = start.workload == Workload::Processes4;
        let sharing = if processes { Sharing::Processes } else { Sharing::Exclusive };
        let registry = Registry::on(Options::new().sharing(sharing).open(setup.dir.join("log"))?)?;
        let keys = start.names.iter().map(Key::new).collect::<Result<_, _>>()?;
        Ok(AnnalsRegistry { registry, keys, agents: start.workload.of_agents() })
    }

    fn increment(&self, key: usize) -> Outcome<()> {
        let key = &self.keys[key];
        let done = if self.agents {
            let update = |agent: &mut Agent| agent.updates += 1;
            matches!(self.registry.update_json(key, update)?, Ended::Done { .. })
        } else {
            let update = self.registry.transact(|tx| -> TxResult<()> {
                let number: u64 = tx.get_json(key)?.unwrap_or(0);
                tx.put_json(key, &(number + 1))?;
                Ok(())
            })?;
            matches!(update, Ended::Done { .. })
        };
        if done { Ok(()) } else { Err("an update was given up".into()) }
    }

    fn get(&self, _thread: usize, key: usize) -> Outcome<usize> {
        let entry = black_box(self.registry.get(&self.keys[key])).ok_or("a key is not there")?;
        Ok(entry.value.bytes().len())
    }

    fn reopen(dir: &Path, each: Found<'_>) -> Outcome<()> {
        let registry =
            Registry::on(Options::new().sharing(Sharing::AsMade).open(dir.join("log"))?)?;
        for (key, entry) in registry.scan(&annals_registry::Prefix::all()) {
            each(key.as_str(), entry.value.bytes())?;
        }
        Ok(())
    }
}
