//! sled as a registry: `update_and_fetch` and `flush`, which is no sync (see `engines/sled.rs`).
//!
//! The background flusher is off. Counters are decimal text. Its changes stand in no ratio.
//! Next room: [`crate::store`].

use std::path::Path;

use sled::{Config, Db};

use crate::engine::{Outcome, Setup};
use crate::store::{Found, Start, Store};
use crate::workload::Workload;

pub(crate) struct SledRegistry {
    values: Db,
    names: Vec<String>,
}

impl Store for SledRegistry {
    const NAME: &'static str = "sled-registry";
    const SETTINGS: &'static str =
        "default, flush() a change; sync_file_range: not durable (#1452)";
    const DURABLE: bool = false;

    fn has(workload: Workload) -> bool {
        workload.of_registry() && !workload.of_agents()
    }

    fn open(setup: &Setup, start: &Start) -> Outcome<SledRegistry> {
        let values = open(&setup.dir)?;
        for (at, name) in start.names.iter().enumerate() {
            values.insert(name, start.value(at))?;
        }
        values.flush()?;
        Ok(SledRegistry { values, names: start.names.clone() })
    }

    fn increment(&self, key: usize) -> Outcome<()> {
        let next = |text: Option<&[u8]>| {
            let number: u64 = std::str::from_utf8(text?).ok()?.parse().ok()?;
            Some((number + 1).to_string().into_bytes())
        };
        self.values.update_and_fetch(&self.names[key], next)?.ok_or("a key is not there")?;
        self.values.flush()?;
        Ok(())
    }

    fn get(&self, _thread: usize, key: usize) -> Outcome<usize> {
        Ok(self.values.get(&self.names[key])?.ok_or("a key is not there")?.len())
    }

    fn reopen(dir: &Path, each: Found<'_>) -> Outcome<()> {
        for row in open(dir)?.iter() {
            let (name, value) = row?;
            each(std::str::from_utf8(&name)?, &value)?;
        }
        Ok(())
    }
}

fn open(dir: &Path) -> Outcome<Db> {
    Ok(Config::new().path(dir.join("log")).flush_every_ms(None).open()?)
}
