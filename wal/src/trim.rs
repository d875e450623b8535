//! Head and holds: who still needs what, and the removal of what nobody needs.
//!
//! Never here: a decision by age or size. Order: the trim record is durable before any unlink,
//! segments go lowest first, then the directory is synced; so a crash in between leaves only
//! leftovers below a durable head (row H). Next room: [`crate::queue`] for the record.

use std::io;
use std::sync::Arc;

use crate::commit::Leads;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, HOLD_NAME_MAX, HOLDS_MAX, Hold, KIND_TRIM, OwnBody};
use crate::fs::SyncPoint;
use crate::ids::{Lsn, Sequence};
use crate::log::Log;
use crate::mutant;
use crate::queue::Queue;
use crate::sync::{Ordering, PoisonError};

impl Log {
    /// Creates or moves the named hold: records from `lsn` on are kept until it moves or is
    /// released. Durable on return.
    ///
    /// # Errors
    /// `Trimmed` below the head, `Invalid` for a name of 0 or more than 32 bytes or a 65th hold.
    pub fn set_hold(&self, name: &str, lsn: Lsn) -> Result<()> {
        if name.is_empty() || name.len() > HOLD_NAME_MAX {
            let why = format!("a hold's name has 1 to {HOLD_NAME_MAX} bytes, not {}", name.len());
            return Err(Error::invalid(why));
        }
        self.change(|queue| {
            if lsn < queue.head {
                return Err(Error::trimmed(lsn, queue.head));
            }
            let mut holds = queue.holds.clone();
            let known = holds.iter().position(|hold| hold.name == name);
            match known {
                Some(index) => holds[index].lsn = lsn,
                None if holds.len() == HOLDS_MAX => {
                    return Err(Error::invalid(format!("a log has at most {HOLDS_MAX} holds")));
                }
                None => holds.push(Hold { name: name.to_owned(), lsn }),
            }
            Ok((queue.head, holds))
        })
    }

    /// Removes the named hold; a hold that is not there is no error. Durable on return.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`, `Full`.
    pub fn release_hold(&self, name: &str) -> Result<()> {
        self.change(|queue| {
            let holds = queue.holds.iter().filter(|hold| hold.name != name).cloned().collect();
            Ok((queue.head, holds))
        })
    }

    /// The holds, by name; on a shared log as of the last turn or [`Log::refresh`].
    pub fn holds(&self) -> Vec<(String, Lsn)> {
        let queue = self.core_arc().queue();
        queue.holds.iter().map(|hold| (hold.name.clone(), hold.lsn)).collect()
    }

    /// Drops whole sealed segments below `lsn`, as far as the holds allow, and returns the new
    /// head: the lowest of `lsn`, all holds and the LSN after the last durable one. The new head
    /// is durable on return.
    ///
    /// # Errors
    /// `Io` if a segment could not be removed: the next opening or trim does it.
    pub fn trim(&self, lsn: Lsn) -> Result<Lsn> {
        let core = self.core_arc();
        core.home.check()?;
        // Of a shared log: unlinks happen in the turn that ordered the record.
        let _turn = core.hold_turn()?;
        let mut head = Lsn::FIRST;
        if mutant::is("order:trim-record-before-unlink") {
            self.remove_below(lsn)?;
        }
        self.change(|queue| {
            let durable = core.shared.durable_lsn.load(Ordering::Acquire);
            let limit = Lsn::new(durable.saturating_add(1)).unwrap_or(Lsn::FIRST);
            let limit = if mutant::is("head:past-the-end") { lsn } else { limit };
            let lowest = queue.holds.iter().map(|hold| hold.lsn).min().unwrap_or(limit);
            let lowest = if mutant::is("holds:ignored") { limit } else { lowest };
            // The head never goes back.
            head = lsn.min(lowest).min(limit);
            head = if mutant::is("head:goes-back") { head } else { head.max(queue.head) };
            Ok((head, queue.holds.clone()))
        })?;
        self.remove_below(head)?;
        Ok(head)
    }

    /// Orders a trim record with the changed head and holds and waits until it is durable.
    fn change(&self, mut change: impl FnMut(&Queue) -> Result<(Lsn, Vec<Hold>)>) -> Result<()> {
        let core = self.core_arc();
        let (cohort, head) = core.with_place(Leads::Caller, |queue| {
            let (head, holds) = change(queue).map_err(crate::queue::NoPlace::Failed)?;
            if head == queue.head && holds == queue.holds {
                // Nothing to write: a caller that trims again and again must not eat the reserve.
                queue.check_mode().map_err(crate::queue::NoPlace::Failed)?;
                return Ok((queue.last_change.clone(), head));
            }
            let body = OwnBody {
                generation: Some(queue.generation),
                head: Some(head),
                holds: holds.clone(),
                ..OwnBody::default()
            };
            queue.admit_own(KIND_TRIM, &body)?;
            queue.head = head;
            queue.holds = holds;
            queue.last_change = queue.last_cohort();
            Ok((queue.last_change.clone(), head))
        })?;
        if let Some(cohort) = cohort {
            core.lead_or_wait(&cohort)?;
        }
        core.shared.edit_frontier(|frontier| frontier.head = frontier.head.max(head));
        Ok(())
    }

    /// Unlinks what lies wholly below the head: first what readers see no more, then for good. What
    /// could not be unlinked is tried again by the next trim or opening.
    fn remove_below(&self, head: Lsn) -> Result<()> {
        let core = self.core_arc();
        let dir = &core.shared.dir;
        // A close waits for this lock before it lets the directory's lock go, and who comes after
        // it unlinks nothing.
        let mut condemned = core.shared.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        core.queue().check_mode()?;
        // What lies under our names in a directory that is not ours any more may be somebody's log.
        core.watch.lock_stands().map_err(|e| {
            let error = Error::io("removing trimmed segments", e);
            core.poison(error.clone().with_kind(ErrorKind::Poisoned));
            error
        })?;
        condemned.extend(self.take_below(head));
        while let Some(sequence) = condemned.first() {
            let name = format::segment_name(*sequence);
            match dir.remove(&name) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    return Err(Error::io(
                        format!("removing {}", dir.path().join(name).display()),
                        e,
                    ));
                }
            }
            condemned.remove(0);
        }
        dir.sync(SyncPoint::Trimmed).map_err(|e| {
            let error = Error::io(format!("syncing {}", dir.path().display()), e);
            core.poison(error.clone().with_kind(ErrorKind::Poisoned));
            error
        })
    }

    /// Takes the segments wholly below the head out of the set that readers see, lowest first.
    fn take_below(&self, head: Lsn) -> Vec<Sequence> {
        let mut taken = Vec::new();
        self.core_arc().shared.edit_frontier(|frontier| {
            let below = frontier.spans.windows(2).take_while(|pair| pair[1].before < head.get());
            let count = below.count();
            let spans = Arc::make_mut(&mut frontier.spans);
            taken = spans.drain(..count).map(|span| span.sequence).collect();
        });
        taken
    }
}
