//! `RwLock<BTreeMap>`: what a program has that needs no registry. Reads only; nothing is kept.
//!
//! Names and values as plain as they come (`String`, `Arc<[u8]>`); a read hands out the value as
//! ours does, shared and not copied. Never here: durability. Next room: [`crate::store`].

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::engine::{Outcome, Setup};
use crate::store::{Found, Start, Store};
use crate::workload::Workload;

pub(crate) struct Map {
    map: RwLock<BTreeMap<String, Arc<[u8]>>>,
    names: Vec<String>,
}

impl Store for Map {
    const NAME: &'static str = "rwlock-btreemap";
    const SETTINGS: &'static str = "std's RwLock and BTreeMap, in memory only";
    const DURABLE: bool = false;
    const KEPT: bool = false;

    fn has(workload: Workload) -> bool {
        workload == Workload::RegistryGet
    }

    fn open(_setup: &Setup, start: &Start) -> Outcome<Map> {
        let value = |(at, name): (usize, &String)| (name.clone(), Arc::from(start.value(at)));
        let map = RwLock::new(start.names.iter().enumerate().map(value).collect());
        Ok(Map { map, names: start.names.clone() })
    }

    fn get(&self, _thread: usize, key: usize) -> Outcome<usize> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let value = black_box(map.get(self.names[key].as_str()).cloned());
        Ok(value.ok_or("a key is not there")?.len())
    }

    fn reopen(_dir: &Path, _each: Found<'_>) -> Outcome<()> {
        Ok(())
    }
}
