//! What a caller holds between order and durability: the slot, the pending handle.
//!
//! Never here: I/O. A [`Pending`] does not keep the log open and its drop loses only the answer.
//! Next room: [`crate::cohort`].

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::cohort::{Cohort, WakerPlace};
use crate::error::Result;
use crate::fork::Home;
use crate::ids::Lsn;
#[cfg(not(annals_lossy))]
use crate::mutant;
use crate::queue::{NoPlace, Queue};
use crate::record::EncodedBatch;

/// The place in the log's order at which the closure of [`crate::Log::ordered`] runs. It takes one
/// push: pushing uses it up.
#[derive(Debug)]
pub struct Slot<'a> {
    queue: &'a mut Queue,
    outcome: &'a mut SlotOutcome,
    home: &'a Home,
}

/// What became of a slot.
#[derive(Debug, Default)]
pub(crate) enum SlotOutcome {
    #[default]
    Unused,
    Pushed(Pending),
    Refused(NoPlace),
}

/// A push that was refused and changed nothing. Return it from the closure: the log then prepares
/// what is missing and runs the closure again, or returns the error behind it.
#[derive(Debug)]
#[must_use = "return it from the closure, with `?`"]
pub struct Refused {
    _private: (),
}

impl<'a> Slot<'a> {
    pub(crate) fn new(
        queue: &'a mut Queue,
        outcome: &'a mut SlotOutcome,
        home: &'a Home,
    ) -> Slot<'a> {
        Slot { queue, outcome, home }
    }

    /// Orders the batch here and returns its LSNs. On success the batch is empty afterwards, on
    /// refusal it is whole and nothing has changed.
    ///
    /// # Errors
    /// [`Refused`], to be returned from the closure as it is.
    pub fn push(
        self,
        batch: &mut EncodedBatch,
    ) -> std::result::Result<RangeInclusive<Lsn>, Refused> {
        match self.queue.admit(batch) {
            Ok(lsns) => {
                let pending = Pending::of(lsns.clone(), self.queue, self.home);
                *self.outcome = SlotOutcome::Pushed(pending);
                Ok(lsns)
            }
            Err(no_place) => {
                *self.outcome = SlotOutcome::Refused(no_place);
                Err(Refused { _private: () })
            }
        }
    }
}

#[cfg(not(annals_lossy))]
fn cohort_to_wait_for(queue: &Queue) -> Arc<Cohort> {
    if mutant::is("ack:before-the-sync") {
        let cohort = Arc::<Cohort>::default();
        cohort.publish(Ok(()));
        return cohort;
    }
    queue.last_cohort().unwrap_or_default()
}

/// A log that lies: whoever pushes is told at once that the write is done. Only `--cfg
/// annals_lossy` builds it, to show that the demo finds it out (`cargo xtask lossy-demo`).
#[cfg(annals_lossy)]
fn cohort_to_wait_for(_queue: &Queue) -> Arc<Cohort> {
    let cohort = Arc::<Cohort>::default();
    cohort.publish(Ok(()));
    cohort
}

/// What [`crate::Log::ordered`] returns.
#[derive(Debug)]
pub struct Ordered<T> {
    /// What the closure returned.
    pub value: T,
    /// The batch it pushed, if it pushed one.
    pub pending: Option<Pending>,
}

/// A batch that is ordered and not yet known to be durable. Wait for it on a thread or await it on
/// any runtime. Dropping it loses the answer, never the records.
#[derive(Debug)]
#[must_use = "the batch is not known to be durable until this was waited for"]
pub struct Pending {
    lsns: RangeInclusive<Lsn>,
    cohort: Arc<Cohort>,
    waker: Option<WakerPlace>,
    /// In a forked child nobody would ever answer.
    home: Home,
}

impl Pending {
    /// For what was just pushed.
    pub(crate) fn of(lsns: RangeInclusive<Lsn>, queue: &Queue, home: &Home) -> Pending {
        let cohort = cohort_to_wait_for(queue);
        Pending { lsns, cohort, waker: None, home: home.clone() }
    }

    /// Waits until the batch is durable and tells its LSNs.
    ///
    /// # Errors
    /// The failure of its group, always with [`crate::Error::outcome_unknown`]; `Locked` in a
    /// child that inherited this by fork.
    pub fn wait(self) -> Result<RangeInclusive<Lsn>> {
        self.home.check()?;
        self.cohort.wait()?;
        Ok(self.lsns)
    }

    /// Waits until the batch is written, and tells its LSNs: [`Level::Written`](crate::Level), no
    /// more. The handle stays, to be waited for or awaited as any other.
    ///
    /// # Errors
    /// The failure of its group, if that came before the write, always with
    /// [`crate::Error::outcome_unknown`]; `Locked` in a child that inherited this by fork.
    pub fn wait_written(&self) -> Result<RangeInclusive<Lsn>> {
        self.home.check()?;
        self.cohort.wait_written()?;
        Ok(self.lsns.clone())
    }

    /// Whether the batch's group has been written, or has failed: [`Pending::wait_written`] would
    /// not wait.
    pub fn is_written(&self) -> bool {
        self.cohort.is_written()
    }

    /// Whether the answer is there.
    pub fn is_done(&self) -> bool {
        self.cohort.result().is_some()
    }

    /// The LSNs that the batch has if it becomes durable. Until then they prove nothing, and
    /// after a crash other records may carry them.
    pub fn lsns_if_durable(&self) -> RangeInclusive<Lsn> {
        self.lsns.clone()
    }

    pub(crate) fn cohort(&self) -> &Cohort {
        &self.cohort
    }
}

impl Future for Pending {
    type Output = Result<RangeInclusive<Lsn>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = self.home.check() {
            return Poll::Ready(Err(error));
        }
        let Pending { lsns, cohort, waker, .. } = &mut *self;
        match cohort.poll(context.waker(), waker) {
            Some(result) => Poll::Ready(result.map(|()| lsns.clone())),
            None => Poll::Pending,
        }
    }
}
