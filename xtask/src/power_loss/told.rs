//! What the marks before a cut say: what had been begun, and what had been acknowledged.
//!
//! Never here: a log that was read. Invariant: marks are taken in the order of the log of writes,
//! and only those before the cut. Next room: [`super::oracle`].

use std::collections::BTreeMap;

use super::mark::{Mark, What};

/// One thread's calls of one sort.
#[derive(Clone, Default, Debug)]
pub(crate) struct Line {
    /// Numbers below this were begun.
    pub(crate) begun: u64,
    /// The LSN of every number acknowledged.
    pub(crate) acknowledged: BTreeMap<u64, u64>,
}

/// The newest backup.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) number: u64,
    /// First and last LSN, once it is acknowledged.
    pub(crate) done: Option<(u64, u64)>,
    /// The highest LSN of `plain` acknowledged when it was begun.
    pub(crate) at_least: u64,
}

pub(crate) type Holds = BTreeMap<String, u64>;

#[derive(Clone, Default, Debug)]
pub(crate) struct Told {
    /// Openings begun and done.
    pub(crate) sessions: (u64, u64),
    pub(crate) appends: BTreeMap<u64, Line>,
    pub(crate) changes: BTreeMap<u64, Line>,
    pub(crate) entries: BTreeMap<u64, Line>,
    /// The head of `plain`: acknowledged, and the highest that a trim may have made it.
    pub(crate) head: (u64, u64),
    pub(crate) holds: Holds,
    /// The holds after a change that was begun and not acknowledged.
    pub(crate) holds_next: Option<Holds>,
    pub(crate) backup: Option<Backup>,
    /// The last LSN that a recovery has shown, of `plain` and of `shared`.
    pub(crate) shown: [Option<u64>; 2],
}

pub(crate) fn hold_name(number: u64) -> String {
    format!("reader-{number}")
}

impl Told {
    pub(crate) fn new() -> Told {
        Told { head: (1, 1), ..Told::default() }
    }

    pub(crate) fn hear(&mut self, mark: Mark) {
        let Mark { done, thread, b, c, .. } = mark;
        match mark.what {
            What::Probe | What::Work => {}
            What::Session if done => self.sessions.1 = b,
            What::Session => self.sessions.0 = b,
            What::Append => line(&mut self.appends, mark, b + 1),
            // A count of n is the n-th change.
            What::Change => line(&mut self.changes, mark, b),
            What::Entry => line(&mut self.entries, mark, b + 1),
            What::Hold if done => self.holds = self.holds_next.take().unwrap_or_default(),
            What::Hold => {
                let mut next = self.holds.clone();
                match c {
                    0 => drop(next.remove(&hold_name(b))),
                    _ => drop(next.insert(hold_name(b), c)),
                }
                self.holds_next = Some(next);
            }
            What::Trim if done => self.head = (c, c),
            What::Trim => self.head.1 = self.head.1.max(b),
            What::Backup => {
                let at_least = self.highest_plain();
                match self.backup.as_mut().filter(|backup| done && backup.number == thread) {
                    Some(backup) => backup.done = Some((b, c)),
                    None => self.backup = Some(Backup { number: thread, done: None, at_least }),
                }
            }
            What::Removal => self.backup = None,
            What::Shown => self.shown[usize::from(thread == 1)] = Some(c),
        }
    }

    fn highest_plain(&self) -> u64 {
        let plain = self.appends.iter().filter(|(thread, _)| super::story::PLAIN.contains(thread));
        plain.flat_map(|(_, line)| line.acknowledged.values()).max().copied().unwrap_or(0)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        let lines = [&self.appends, &self.changes, &self.entries];
        let lines = lines.iter().flat_map(|lines| lines.values());
        lines.map(|line| line.acknowledged.len() as u64).sum()
    }
}

fn line(lines: &mut BTreeMap<u64, Line>, mark: Mark, begun: u64) {
    let line = lines.entry(mark.thread).or_default();
    if mark.done {
        line.acknowledged.insert(mark.b, mark.c);
    } else {
        line.begun = line.begun.max(begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_begun_binds_from_above_and_what_is_done_from_below() {
        let mut told = Told::new();
        told.hear(Mark::begun(What::Append, 1, 0, 0));
        assert_eq!((told.appends[&1].begun, told.acknowledged()), (1, 0));
        told.hear(Mark::done(What::Append, 1, 0, 40));
        told.hear(Mark::begun(What::Trim, 0, 30, 0));
        assert_eq!(told.head, (1, 30));
        told.hear(Mark::done(What::Trim, 0, 30, 12));
        assert_eq!((told.head, told.acknowledged()), ((12, 12), 1));
        told.hear(Mark::begun(What::Change, 10, 1, 0));
        assert_eq!(told.changes[&10].begun, 1);
    }

    #[test]
    fn holds_have_two_states_between_begun_and_done() {
        let mut told = Told::new();
        told.hear(Mark::begun(What::Hold, 0, 2, 9));
        let next = told.holds_next.clone().unwrap();
        assert!(told.holds.is_empty() && next[&hold_name(2)] == 9);
        told.hear(Mark::done(What::Hold, 0, 2, 9));
        assert_eq!((&told.holds, told.holds_next.is_none()), (&next, true));
        told.hear(Mark::begun(What::Hold, 0, 2, 0));
        assert!(told.holds_next.as_ref().unwrap().is_empty() && told.holds == next);
    }

    #[test]
    fn a_backup_is_whole_only_when_it_is_done_and_gone_when_its_removal_began() {
        let mut told = Told::new();
        told.hear(Mark::done(What::Append, 0, 0, 5));
        told.hear(Mark::begun(What::Backup, 3, 0, 0));
        assert_eq!(told.backup.as_ref().map(|b| (b.done, b.at_least)), Some((None, 5)));
        told.hear(Mark::done(What::Backup, 3, 1, 6));
        assert_eq!(told.backup.as_ref().unwrap().done, Some((1, 6)));
        told.hear(Mark::begun(What::Removal, 3, 0, 0));
        assert!(told.backup.is_none());
    }
}
