//! Marks: what the writer tells the rig, in the stream of writes itself.
//!
//! A mark is one sector behind the file system, written through the same device. What counts is its
//! place in the log of writes: a call that is marked *done* before a cut had returned before the
//! power went; one that is not marked *begun* before a cut had not been made. The mark itself need
//! not be durable. Never here: I/O, judgement. Next room: [`super::told`].

const MAGIC: &str = "ANNLMARK";
pub(crate) const SECTOR: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// A single fdatasync, to see that it becomes a FLUSH. `b` numbers it.
    Probe,
    /// Begun: cuts may be made from here on. Done: the writer has ended.
    Work,
    /// Opening both logs. `b` numbers it.
    Session,
    /// A batch of `thread`, number `b`; done: its first LSN is `c`.
    Append,
    /// A transaction of `thread`, its count becomes `b`; done: at LSN `c`.
    Change,
    /// An observer's entry of `thread`, number `b`; done: at LSN `c`.
    Entry,
    /// Hold number `b` goes to LSN `c`, or away if `c` is 0.
    Hold,
    /// The log `plain` is trimmed: asked for LSN `b`; done: the head is `c`.
    Trim,
    /// Backup number `thread`; done: it holds the LSNs from `b` to `c`.
    Backup,
    /// Backup number `thread` is removed.
    Removal,
    /// A recovery has returned and shown `plain` (`thread` 0) or `shared` (1) up to LSN `c`.
    Shown,
}

const WORDS: [(What, &str); 11] = [
    (What::Probe, "probe"),
    (What::Work, "work"),
    (What::Session, "session"),
    (What::Append, "append"),
    (What::Change, "change"),
    (What::Entry, "entry"),
    (What::Hold, "hold"),
    (What::Trim, "trim"),
    (What::Backup, "backup"),
    (What::Removal, "removal"),
    (What::Shown, "shown"),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) what: What,
    pub(crate) done: bool,
    pub(crate) thread: u64,
    pub(crate) b: u64,
    pub(crate) c: u64,
}

impl Mark {
    pub(crate) fn begun(what: What, thread: u64, b: u64, c: u64) -> Mark {
        Mark { what, done: false, thread, b, c }
    }

    pub(crate) fn done(what: What, thread: u64, b: u64, c: u64) -> Mark {
        Mark { what, done: true, thread, b, c }
    }

    pub(crate) fn sector(self) -> [u8; SECTOR] {
        let word = WORDS.iter().find(|(what, _)| *what == self.what).map_or("?", |(_, word)| word);
        let Mark { done, thread, b, c, .. } = self;
        let state = if done { "done" } else { "begun" };
        let text = format!("{MAGIC} {word} {state} {thread} {b} {c} \n");
        let mut sector = [0; SECTOR];
        sector.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        sector
    }

    /// `None` for a sector that is no mark.
    pub(crate) fn parse(sector: &[u8]) -> Option<Mark> {
        let line = sector.split(|byte| *byte == b'\n').next()?;
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        if words.next()? != MAGIC {
            return None;
        }
        let word = words.next()?;
        let what = WORDS.iter().find(|(_, known)| *known == word)?.0;
        let done = match words.next()? {
            "done" => true,
            "begun" => false,
            _ => return None,
        };
        let mut number = || words.next()?.parse().ok();
        Some(Mark { what, done, thread: number()?, b: number()?, c: number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_other_sectors_are_none() {
        for (what, _) in WORDS {
            for mark in [Mark::begun(what, 3, 7, 0), Mark::done(what, 20, u64::MAX, 1)] {
                assert_eq!(Mark::parse(&mark.sector()), Some(mark));
            }
        }
        assert_eq!(Mark::parse(&[0; SECTOR]), None);
        assert_eq!(Mark::parse(b"ANNLMARK nonsense done 1 2 3 \n"), None);
    }
}
