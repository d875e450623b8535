//! What a registry is here: keys with values, one counter changed durably, one value read.
//!
//! Never here: a registry (`stores/`), time, threads. Invariant: [`Store::increment`] returns only
//! when its change is durable; which key a thread changes in its n-th call follows from the two
//! numbers, so that the check knows every counter from the number of acknowledged calls alone.
//! Next room: [`crate::stores`].

use std::collections::HashMap;
use std::path::Path;

use crate::engine::{Outcome, Setup};
use crate::payload::split_mix;
use crate::workload::Workload;

/// Keys of `registry_get`.
const KEYS: usize = 100_000;
/// Bytes of a value there.
const VALUE: usize = 100;
/// Agents of `registry_json_rewrite_1000`.
const AGENTS: usize = 1_000;
/// Agents of `processes_4`.
const AGENTS_SHARED: usize = 100;

/// One registry in one configuration.
pub(crate) trait Store: Send + Sync + Sized + 'static {
    /// What `--engines` and the tables call it.
    const NAME: &'static str;
    /// Its settings in half a line, for `--list`.
    const SETTINGS: &'static str;
    /// Whether its changes are synced. One that says no stands in no ratio of changes.
    const DURABLE: bool = true;
    /// Whether anything is left after the process; if not there is nothing to check.
    const KEPT: bool = true;

    /// Whether it has this workload.
    fn has(workload: Workload) -> bool;

    /// Makes it with these values. Nothing in here is timed.
    fn open(setup: &Setup, start: &Start) -> Outcome<Self>;

    /// Opens what [`Store::open`] made and left, as one of several processes that write at once.
    fn join(_setup: &Setup, _start: &Start) -> Outcome<Self> {
        Err(format!("{} is not opened by several processes here", Self::NAME).into())
    }

    /// Adds one to the counter of this key. Durable on return.
    fn increment(&self, _key: usize) -> Outcome<()> {
        Err(format!("{} has no counters", Self::NAME).into())
    }

    /// Reads the value of this key for this thread; how many bytes it has.
    fn get(&self, _thread: usize, _key: usize) -> Outcome<usize> {
        Err(format!("{} has no reads", Self::NAME).into())
    }

    /// Opens what a killed process left and hands out every key with its value.
    fn reopen(dir: &Path, each: Found<'_>) -> Outcome<()>;
}

/// Takes keys with their values.
pub(crate) type Found<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Outcome<()>;

/// What a registry begins with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) workload: Workload,
    pub(crate) names: Vec<String>,
}

impl Start {
    /// The keys of a workload with so many threads.
    pub(crate) fn of(workload: Workload, threads: usize) -> Start {
        let names = match workload {
            Workload::RegistryHot => vec!["hot".to_owned()],
            Workload::RegistryDistinct => (0..threads).map(|n| format!("k/{n}")).collect(),
            Workload::RegistryRewrite => {
                (0..AGENTS).map(|n| format!("agents/builder-{n:06}")).collect()
            }
            Workload::Processes4 => {
                (0..AGENTS_SHARED).map(|n| format!("agents/builder-{n:06}")).collect()
            }
            _ => (0..KEYS).map(|n| format!("tasks/T{}/agents/A{n}", n % 100)).collect(),
        };
        Start { workload, names }
    }

    /// What a key has at first: a number, an agent as the seeds' registries have it, or bytes.
    pub(crate) fn value(&self, key: usize) -> Vec<u8> {
        match self.workload {
            Workload::RegistryHot | Workload::RegistryDistinct => b"0".to_vec(),
            _ if self.workload.of_agents() => agent(&self.names[key]),
            _ => vec![b'v'; VALUE],
        }
    }

    /// Which key this thread changes in its n-th call.
    pub(crate) fn key_of(&self, thread: usize, call: u64) -> usize {
        match self.workload {
            Workload::RegistryHot => 0,
            Workload::RegistryDistinct => thread,
            _ => {
                let mixed = split_mix(((thread as u64) << 40) + call + 1);
                (mixed % self.names.len() as u64) as usize
            }
        }
    }

    /// Holds what a reopened registry has against what its threads were told; returns how many
    /// changes (of `registry_get`: how many keys) it found.
    ///
    /// # Errors
    /// A key is missing, is another, or came twice; a counter has less than was acknowledged (an
    /// update is lost), or more than anybody began; a value is damaged.
    pub(crate) fn check(
        &self,
        acknowledged: &[u64],
        all: impl FnOnce(Found<'_>) -> Outcome<()>,
    ) -> Outcome<u64> {
        let mut found: Vec<Option<u64>> = vec![None; self.names.len()];
        let places: HashMap<&str, usize> =
            self.names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        all(&mut |name, value| {
            let at = *places.get(name).ok_or_else(|| format!("nobody made the key {name}"))?;
            let count = match self.workload {
                Workload::RegistryGet if value == self.value(at) => 1,
                Workload::RegistryGet => {
                    return Err(format!("the value of {name} is damaged").into());
                }
                _ => count(value).ok_or_else(|| format!("{name} is no counter any more"))?,
            };
            match found[at].replace(count) {
                Some(_) => Err(format!("{name} came twice").into()),
                None => Ok(()),
            }
        })?;
        let mut expected = vec![u64::from(self.workload == Workload::RegistryGet); found.len()];
        for (thread, calls) in acknowledged.iter().enumerate() {
            (0..*calls).for_each(|call| expected[self.key_of(thread, call)] += 1);
        }
        for ((name, found), expected) in self.names.iter().zip(&found).zip(&expected) {
            let found = found.ok_or_else(|| format!("the key {name} is lost"))?;
            if found != *expected {
                let what = if found < *expected { "updates are lost" } else { "more than begun" };
                return Err(format!("{name} is {found} for {expected}: {what}").into());
            }
        }
        Ok(expected.iter().sum())
    }
}

/// An agent of a seed's AGENT_REGISTRY.json, without its prompt.
fn agent(name: &str) -> Vec<u8> {
    let id = name.rsplit('/').next().unwrap_or(name);
    format!(
        "{{\"id\":\"{id}\",\"type\":\"builder\",\"tmux_session\":\"agent_{id}\",\"parent\":\
         \"orchestrator\",\"depth\":1,\"status\":\"working\",\"started_at\":\
         \"2025-10-18T21:24:19.868795\",\"updates\":0,\"last_update\":\
         \"2025-10-18T21:24:52.559255\"}}"
    )
    .into_bytes()
}

/// A counter's value: a number, or an agent's `updates`.
fn count(value: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(value).ok()?;
    value.as_u64().or_else(|| value["updates"].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[(&str, &str)], acknowledged: &[u64]) -> Outcome<u64> {
        Start::of(Workload::RegistryDistinct, 2).check(acknowledged, |each| {
            found.iter().try_for_each(|(name, value)| each(name, value.as_bytes()))
        })
    }

    #[test]
    fn counters_that_have_what_was_acknowledged_pass() {
        assert_eq!(check(&[("k/0", "3"), ("k/1", "4")], &[3, 4]).unwrap(), 7);
        let start = Start::of(Workload::RegistryRewrite, 8);
        let agents = |each: Found<'_>| {
            (0..AGENTS).try_for_each(|at| each(&start.names[at], &start.value(at)))
        };
        assert_eq!(start.check(&[0; 8], agents).unwrap(), 0);
        assert!(start.check(&[0, 1], agents).is_err(), "one update is lost");
    }

    #[test]
    fn a_lost_update_a_lost_key_and_inventions_are_errors() {
        let error = check(&[("k/0", "2"), ("k/1", "4")], &[3, 4]).unwrap_err().to_string();
        assert_eq!(error, "k/0 is 2 for 3: updates are lost");
        for found in [
            &[("k/0", "3")][..],
            &[("k/0", "3"), ("k/1", "5")],
            &[("k/0", "3"), ("k/1", "4"), ("k/2", "0")],
            &[("k/0", "3"), ("k/1", "4"), ("k/1", "4")],
            &[("k/0", "3"), ("k/1", "four")],
        ] {
            assert!(check(found, &[3, 4]).is_err(), "{found:?}");
        }
    }

    #[test]
    fn a_value_that_is_not_what_was_put_is_damaged() {
        let start = Start::of(Workload::RegistryGet, 8);
        let all = |each: Found<'_>| {
            (0..KEYS).try_for_each(|at| {
                let mut value = start.value(at);
                value[7] ^= u8::from(at == 77_777);
                each(&start.names[at], &value)
            })
        };
        let error = start.check(&[], all).unwrap_err().to_string();
        assert_eq!(error, "the value of tasks/T77/agents/A77777 is damaged");
    }
}
