//! What one fleet said before it was killed: the lines of `wal demo-fleet`, and the record that
//! `wal demo-check` takes.
//!
//! Written anew and not shared with `cli/src/demo`, so that the parent of the proof and that of the
//! demo do not have one bug. Next room: [`super`].

use std::collections::BTreeMap;
use std::fmt::Write;

/// One agent.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Agent {
    begun: u64,
    /// LSN and hash of each entry, in order.
    acknowledged: Vec<(u64, u64)>,
    changes_begun: u64,
    changes_acknowledged: u64,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Told {
    agents: BTreeMap<u32, Agent>,
    pub(crate) ready: bool,
    /// How long each acknowledged append took.
    pub(crate) micros: Vec<u64>,
}

impl Told {
    /// Takes one line; one that the kill has cut is not heard.
    pub(crate) fn hear(&mut self, line: &str) {
        let Some(line) = line.strip_suffix('\n') else { return };
        if line == "ready" {
            self.ready = true;
            return;
        }
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let Some(agent) = numbers.first().and_then(|agent| u32::try_from(*agent).ok()) else {
            return;
        };
        let agent = self.agents.entry(agent).or_default();
        match (verb, &numbers[1..]) {
            ("b", [n]) => agent.begun = n + 1,
            ("d", [_, lsn, hash, micros]) => {
                agent.acknowledged.push((*lsn, *hash));
                self.micros.push(*micros);
            }
            ("B", [n]) => agent.changes_begun = *n,
            ("D", [n]) => agent.changes_acknowledged = *n,
            _ => {}
        }
    }

    /// Whether something was begun and not acknowledged.
    pub(crate) fn in_flight(&self) -> bool {
        self.agents.values().any(|agent| {
            agent.begun > agent.acknowledged.len() as u64
                || agent.changes_begun > agent.changes_acknowledged
        })
    }

    pub(crate) fn entries(&self) -> u64 {
        self.agents.values().map(|agent| agent.acknowledged.len() as u64).sum()
    }

    pub(crate) fn changes(&self) -> u64 {
        self.agents.values().map(|agent| agent.changes_acknowledged).sum()
    }

    pub(crate) fn record(&self) -> String {
        let mut out = String::new();
        for (number, agent) in &self.agents {
            let Agent { begun, changes_begun, changes_acknowledged, acknowledged } = agent;
            let _ = writeln!(out, "agent {number} {begun} {changes_begun} {changes_acknowledged}");
            for (lsn, hash) in acknowledged {
                let _ = writeln!(out, "{lsn} {hash}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_heard_and_cut_ones_are_not() {
        let mut told = Told::default();
        for line in ["ready\n", "b 2 0\n", "d 2 0 41 777 12\n", "b 2 1\n", "B 2 1\n"] {
            told.hear(line);
        }
        assert!(told.ready && told.in_flight());
        assert_eq!((told.entries(), told.changes()), (1, 0));
        assert_eq!(told.record(), "agent 2 2 1 0\n41 777\n");
        told.hear("D 2 1"); // cut before its newline
        assert_eq!(told.changes(), 0);
        told.hear("D 2 1\n");
        told.hear("d 2 1 42 778 9\n");
        assert!(!told.in_flight());
    }
}
