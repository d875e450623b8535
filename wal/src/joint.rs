//! The seam of one batch with two authors: records of one room before those of another.
//!
//! Two rooms that never import each other (the observer, the registry) commit together through
//! these two traits: one has records and a lock, the other makes the commit. Never here: either.
//! Invariant: both or none, because it is one batch. Next room: [`crate::Batch`].

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use crate::ids::Lsn;
use crate::record::Batch;

/// Records that go first in somebody else's batch. Whoever owns them may hold a lock for them from
/// before the commit begins: it is given back at [`Before::ordered`] or [`Before::give_up`], so
/// that nobody waits for a sync under it.
pub trait Before {
    /// Adds the records to the front of a batch. May be asked again: a commit may be overtaken.
    fn push_to<'a>(&'a self, batch: &mut Batch<'a>);

    /// The batch has its place, the records these LSNs. Called at most once, inside the closure of
    /// [`crate::Log::ordered`]: it must not wait for anything and not call the log.
    fn ordered(&mut self, lsns: RangeInclusive<Lsn>);

    /// Nothing was pushed and nothing will be. May be called more than once.
    fn give_up(&mut self);
}

/// No records: a commit of one author.
#[derive(Debug)]
pub struct NoneBefore;

impl Before for NoneBefore {
    fn push_to<'a>(&'a self, _batch: &mut Batch<'a>) {}

    fn ordered(&mut self, _lsns: RangeInclusive<Lsn>) {}

    fn give_up(&mut self) {}
}

/// A commit that is ready to be made and takes records of another room along.
pub trait Joint {
    /// What became of it.
    type Done;
    /// Why it could not be made.
    type Failure;

    /// Makes the commit, the records before its own in the same batch, and waits until it is
    /// durable. Runs no code of a user: a lock of the other room may be held.
    ///
    /// # Errors
    /// Those of the commit. If its outcome is unknown, so is that of the records.
    fn commit(self, before: &mut dyn Before) -> Result<Self::Done, Self::Failure>;
}

thread_local! {
    static IN_CLOSURE: Cell<bool> = const { Cell::new(false) };
}

/// This thread runs a user's closure under locks of a room, for as long as this lives. What would
/// wait under a lock that comes before those asks [`in_closure`] and refuses: a durable entry of an
/// observer waits for the drain, whose holder may wait for the gate that this thread has.
#[derive(Debug)]
#[must_use = "the mark is gone when this is dropped"]
pub struct InClosure(PhantomData<*const ()>);

impl InClosure {
    /// Marks this thread, until the mark is dropped. Marks do not nest.
    pub fn set() -> InClosure {
        IN_CLOSURE.set(true);
        InClosure(PhantomData) // not `Send`: the mark is this thread's
    }
}

impl Drop for InClosure {
    fn drop(&mut self) {
        IN_CLOSURE.set(false);
    }
}

/// Whether this thread is inside of a closure of a room on some log ([`InClosure`]).
pub fn in_closure() -> bool {
    IN_CLOSURE.get()
}
