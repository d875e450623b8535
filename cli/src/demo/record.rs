//! What the parent was told, and the lines in which it is told and passes it on.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One agent's side of the story, as far as it reached the parent.
#[derive(Clone, Default, Debug)]
pub(crate) struct Told {
    /// Entries begun: numbers below this may be in the log.
    pub(crate) begun: u64,
    /// LSN and hash of every acknowledged entry, by number.
    pub(crate) acknowledged: Vec<(u64, u64)>,
    /// Registry changes begun and acknowledged.
    pub(crate) changes_begun: u64,
    pub(crate) changes_acknowledged: u64,
}

/// Everything that was told in one round.
#[derive(Clone, Default, Debug)]
pub(crate) struct Record {
    pub(crate) agents: BTreeMap<u32, Told>,
}

/// A line of the fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// The log is open.
    Ready,
    /// An entry is about to be appended.
    Begin { agent: u32, n: u64 },
    /// It is durable.
    Done { agent: u32, n: u64, lsn: u64, hash: u64, micros: u64 },
    /// A registry change is about to be made: the agent's count becomes `n`.
    BeginChange { agent: u32, n: u64 },
    /// It is durable.
    DoneChange { agent: u32, n: u64 },
}

impl Line {
    pub(crate) fn text(self) -> String {
        match self {
            Line::Ready => "ready\n".to_owned(),
            Line::Begin { agent, n } => format!("b {agent} {n}\n"),
            Line::Done { agent, n, lsn, hash, micros } => {
                format!("d {agent} {n} {lsn} {hash} {micros}\n")
            }
            Line::BeginChange { agent, n } => format!("B {agent} {n}\n"),
            Line::DoneChange { agent, n } => format!("D {agent} {n}\n"),
        }
    }

    /// `None` for a line that the kill has cut.
    pub(crate) fn parse(text: &str) -> Option<Line> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let verb = words.next()?;
        if verb == "ready" {
            return Some(Line::Ready);
        }
        let agent = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let n = number()?;
        match verb {
            "b" => Some(Line::Begin { agent, n }),
            "d" => {
                Some(Line::Done { agent, n, lsn: number()?, hash: number()?, micros: number()? })
            }
            "B" => Some(Line::BeginChange { agent, n }),
            "D" => Some(Line::DoneChange { agent, n }),
            _ => None,
        }
    }
}

impl Record {
    pub(crate) fn note(&mut self, line: Line) {
        match line {
            Line::Ready => {}
            Line::Begin { agent, n } => self.agent(agent).begun = n + 1,
            Line::Done { agent, lsn, hash, .. } => {
                self.agent(agent).acknowledged.push((lsn, hash));
            }
            Line::BeginChange { agent, n } => self.agent(agent).changes_begun = n,
            Line::DoneChange { agent, n } => self.agent(agent).changes_acknowledged = n,
        }
    }

    fn agent(&mut self, agent: u32) -> &mut Told {
        self.agents.entry(agent).or_default()
    }

    /// Whether an append or a registry change had begun and was not acknowledged.
    pub(crate) fn in_flight(&self) -> bool {
        self.agents.values().any(|told| {
            told.begun > told.acknowledged.len() as u64
                || told.changes_begun > told.changes_acknowledged
        })
    }

    pub(crate) fn entries(&self) -> u64 {
        self.agents.values().map(|told| told.acknowledged.len() as u64).sum()
    }

    pub(crate) fn changes(&self) -> u64 {
        self.agents.values().map(|told| told.changes_acknowledged).sum()
    }

    /// The record as lines, for the process that checks.
    pub(crate) fn to_lines(&self) -> String {
        let mut out = String::new();
        for (agent, told) in &self.agents {
            let Told { begun, changes_begun, changes_acknowledged, acknowledged } = told;
            let _ = writeln!(out, "agent {agent} {begun} {changes_begun} {changes_acknowledged}");
            for (lsn, hash) in acknowledged {
                let _ = writeln!(out, "{lsn} {hash}");
            }
        }
        out
    }

    pub(crate) fn from_lines(lines: &str) -> Option<Record> {
        let mut record = Record::default();
        let mut current = None;
        for line in lines.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["agent", agent, begun, changes_begun, changes_acknowledged] => {
                    let agent = agent.parse().ok()?;
                    let told = Told {
                        begun: begun.parse().ok()?,
                        acknowledged: Vec::new(),
                        changes_begun: changes_begun.parse().ok()?,
                        changes_acknowledged: changes_acknowledged.parse().ok()?,
                    };
                    record.agents.insert(agent, told);
                    current = Some(agent);
                }
                [lsn, hash] => {
                    let told = record.agents.get_mut(&current?)?;
                    told.acknowledged.push((lsn.parse().ok()?, hash.parse().ok()?));
                }
                _ => return None,
            }
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_cut_lines_do_not() {
        let line = Line::Done { agent: 3, n: 7, lsn: 99, hash: u64::MAX, micros: 12 };
        let text = line.text();
        assert_eq!(Line::parse(&text), Some(line));
        for cut in 0..text.len() {
            assert_eq!(Line::parse(&text[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_record_passes_through_its_lines() {
        let mut record = Record::default();
        record.note(Line::Begin { agent: 1, n: 0 });
        record.note(Line::Done { agent: 1, n: 0, lsn: 5, hash: 8, micros: 1 });
        record.note(Line::Begin { agent: 1, n: 1 });
        record.note(Line::BeginChange { agent: 2, n: 1 });
        let back = Record::from_lines(&record.to_lines()).unwrap();
        assert_eq!(back.to_lines(), record.to_lines());
        assert!(back.in_flight());
        assert_eq!((back.entries(), back.changes()), (1, 0));
    }
}
