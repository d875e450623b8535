//! The seeds' way: one JSON file of all agents, read, changed and rewritten under a lock.
//!
//! As their reports describe it once they were careful: a lock around the whole (of the process, or
//! for several processes flock on a file beside it, waited for in the kernel), a temporary file,
//! `fsync`, `rename`. The directory is not synced afterwards, so a power loss
//! could still undo a change; that is left out in its favour. Agents are found by their id, in
//! a list, and every member is parsed and written again. Next room: [`crate::store`].

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::engine::{Outcome, Setup};
use crate::store::{Found, Start, Store};
use crate::workload::Workload;

const FILE: &str = "AGENT_REGISTRY.json";
const LOCK: &str = "AGENT_REGISTRY.lock";
const PREFIX: &str = "agents/";

pub(crate) struct JsonFile {
    dir: Mutex<PathBuf>,
    /// Of several processes.
    lock: Option<File>,
    ids: Vec<String>,
}

impl Store for JsonFile {
    const NAME: &'static str = "json-file";
    const SETTINGS: &'static str =
        "a mutex, or flock; read, parse, change, temporary file, fsync, rename";

    fn has(workload: Workload) -> bool {
        workload.of_agents()
    }

    fn open(setup: &Setup, start: &Start) -> Outcome<JsonFile> {
        let agent = |at| Ok(serde_json::from_slice::<Value>(&start.value(at))?);
        let agents = (0..start.names.len()).map(agent).collect::<Outcome<Vec<_>>>()?;
        write(&setup.dir, &json!({ "task_id": "TASK-1", "status": "ACTIVE", "agents": agents }))?;
        JsonFile::join(setup, start)
    }

    fn join(setup: &Setup, start: &Start) -> Outcome<JsonFile> {
        let lock = (start.workload == Workload::Processes4).then(|| {
            let mut options = File::options();
            options.write(true).create(true).truncate(false).open(setup.dir.join(LOCK))
        });
        let ids = start.names.iter().map(|name| name.trim_start_matches(PREFIX).to_owned());
        let dir = Mutex::new(setup.dir.clone());
        Ok(JsonFile { dir, lock: lock.transpose()?, ids: ids.collect() })
    }

    fn increment(&self, key: usize) -> Outcome<()> {
        let dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        let _turn = self.lock.as_ref().map(Turn::take).transpose()?;
        let mut registry = read(&dir)?;
        let agents = registry["agents"].as_array_mut().ok_or("there are no agents")?;
        let agent = agents.iter_mut().find(|agent| agent["id"] == self.ids[key].as_str());
        let updates = &mut agent.ok_or("an agent is not there")?["updates"];
        *updates = json!(updates.as_u64().ok_or("an agent has no count")? + 1);
        write(&dir, &registry)
    }

    fn reopen(dir: &Path, each: Found<'_>) -> Outcome<()> {
        let registry = read(dir)?;
        for agent in registry["agents"].as_array().ok_or("there are no agents")? {
            let id = agent["id"].as_str().ok_or("an agent without an id")?;
            each(&format!("{PREFIX}{id}"), &serde_json::to_vec(agent)?)?;
        }
        Ok(())
    }
}

/// The file of all processes is this one's.
struct Turn<'a>(&'a File);

impl Turn<'_> {
    fn take(file: &File) -> Outcome<Turn<'_>> {
        flock(file, FlockOperation::LockExclusive)?;
        Ok(Turn(file))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Who cannot give it back keeps the others waiting; their run then says so.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

fn read(dir: &Path) -> Outcome<Value> {
    Ok(serde_json::from_slice(&fs::read(dir.join(FILE))?)?)
}

fn write(dir: &Path, registry: &Value) -> Outcome<()> {
    let temporary = dir.join("AGENT_REGISTRY.json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(registry)?)?;
    file.sync_all()?;
    Ok(fs::rename(temporary, dir.join(FILE))?)
}
