//! Opens the log as a runtime would: again after a failure, and with everything it must hold.
//!
//! Never here: acts. Invariant: what an opening shows is checked before anybody goes on.

use std::cell::RefCell;
use std::time::Duration;

use annals_registry::{Registry, Trim};
use annals_wal::ErrorKind;
use annals_wal::fs::Dir;
use annals_wal::recover::{Decision, Facts, decide};

use super::{Rooms, World};

impl World {
    /// Opens the log unless it is open and well. A poisoned one is dropped first, as its errors
    /// tell a caller to do.
    ///
    /// # Errors
    /// The violation, in words.
    pub fn ensure_open(&mut self) -> Result<(), String> {
        if !self.is_down() {
            return Ok(());
        }
        self.rooms = None;
        let mut last = String::new();
        // A fault that is armed may end an opening; and a writeback that failed while nobody
        // looked is told to the next process, once for every file that it hit.
        let attempts = if self.pauses { 1 } else { 12 };
        for attempt in 0..attempts {
            if self.disk.stopped() {
                if self.pauses {
                    return Ok(());
                }
                self.restart();
            }
            if attempt >= 2 {
                self.disk.clear_faults();
                self.disk.set_bytes_free(None);
            }
            if !self.pauses && !self.passes_rows {
                self.count_rows();
            }
            self.check_before_opening()?;
            let claim = self.claim();
            let opened = self.open_when_free();
            self.check_claim(claim)?;
            match opened {
                Ok(rooms) => {
                    self.note_disk(&rooms)?;
                    self.rooms = Some(rooms);
                    return Ok(());
                }
                Err(Opening::Violated(why)) => return Err(why),
                Err(Opening::Failed(why)) if self.is_quiet() => {
                    return Err(format!("an opening failed, and nothing was made to fail: {why}"));
                }
                Err(Opening::Failed(why)) => last = why,
                Err(Opening::Locked) => {}
            }
        }
        if self.pauses {
            self.opening_failed = true;
            return Ok(());
        }
        Err(format!("no opening succeeds, though nothing fails any more: {last}"))
    }

    /// A log just dropped keeps its lock until its committer is gone, and on a busy machine that
    /// takes longer than the 200 ms that an opening waits: such a refusal says nothing.
    fn open_when_free(&mut self) -> Result<Rooms, Opening> {
        self.tally.openings += 1;
        for _ in 0..300 {
            match self.open() {
                Err(Opening::Locked) => std::thread::yield_now(),
                opened => return opened,
            }
        }
        Err(Opening::Violated("the lock of a log that was dropped is never free".to_owned()))
    }

    fn open(&mut self) -> Result<Rooms, Opening> {
        self.last_ticket = 0;
        let dir = self.during.watch(self.disk.dir());
        let log = self.life.options().open_in(dir).map_err(|e| match e.kind() {
            ErrorKind::Locked => Opening::Locked,
            ErrorKind::Io | ErrorKind::Full | ErrorKind::Poisoned => Opening::failed(&e),
            _ => Opening::Violated(format!("opening: {e:?}")),
        })?;
        self.model.check(&log).map_err(World::unless_faulty)?;
        self.check_archives(&log).map_err(World::unless_faulty)?;
        // An entry leaves its queue when an act asks for it, never because time went by.
        let options = annals_observer::Options::new().clock(self.clock.clone());
        let observer = options.batch_age_max(Duration::MAX).on(log.clone());
        let observer = observer.map_err(|e| Opening::failed(&e))?;
        let registry = if self.life.registry { Some(self.open_registry(&log)?) } else { None };
        Ok(Rooms { log, registry, observer, targets: RefCell::default() })
    }

    /// The registry's hold is a change of the log like any other.
    fn open_registry(&mut self, log: &annals_wal::Log) -> Result<Registry, Opening> {
        let mut with_hold = self.model.holds.clone();
        with_hold.entry(annals_registry::HOLD.to_owned()).or_insert(1);
        // Trims and checkpoints are acts.
        let options = annals_registry::Options::new().trim(Trim::Never).snapshot_bytes(0);
        match options.clock(self.clock.clone()).on(log.clone()) {
            Ok(registry) => {
                self.model.holds = with_hold;
                self.model.check_registry(&registry).map_err(Opening::Violated)?;
                Ok(registry)
            }
            Err(e) => {
                self.model.holds_maybe = Some(with_hold);
                Err(Opening::failed(&e))
            }
        }
    }

    /// A read that was made to fail is no violation: the next attempt reads again.
    fn unless_faulty(why: String) -> Opening {
        if why.contains("Io") { Opening::Failed(why) } else { Opening::Violated(why) }
    }

    /// Which rows an opening would meet now.
    pub(crate) fn count_rows(&mut self) {
        let copy = self.disk.killed();
        for row in rows(&*copy.dir()) {
            self.tally.row(row);
        }
    }
}

/// Why an opening gave no rooms.
enum Opening {
    Locked,
    Failed(String),
    Violated(String),
}

impl Opening {
    fn failed(error: &dyn std::fmt::Debug) -> Opening {
        Opening::Failed(format!("{error:?}"))
    }
}

/// The rows that the recovery table finds in a directory: the active segment's or a refusal's, and
/// D and H where they apply.
pub(crate) fn rows(dir: &dyn Dir) -> Vec<&'static str> {
    let Ok(facts) = Facts::read(dir) else { return Vec::new() };
    let plan = match decide(&facts) {
        Decision::Refuse(refusal) => return vec![refusal.row.letter()],
        Decision::Plan(plan) => plan,
    };
    let mut rows = vec![plan.row.letter()];
    let reuses = plan.next.is_some_and(|next| next.reuse) || plan.spare.is_some();
    if reuses || plan.below_head > 0 || !facts.tmp_names.is_empty() {
        rows.push("H");
    }
    let beyond = facts.active.as_ref().map_or(0, |active| active.index + 1);
    if facts.segments.iter().skip(beyond).any(|segment| segment.good_header().is_none()) {
        rows.push("D");
    }
    rows
}
