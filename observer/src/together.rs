//! An end and a change of another room in one batch: both are durable, or neither is.
//!
//! Never here: what the other room is; it is an [`annals_wal::Joint`]. Its commit runs under the
//! drain lock, which is given back as soon as the batch has its place, so no sync is waited for
//! under it. Invariants: everything queued before the entry stands before it; an entry whose batch
//! was not pushed leaves no record behind, and its ticket is the next one's or accounted for.
//! Next room: [`crate::drain`].

use std::ops::RangeInclusive;

use annals_wal::{Batch, Before, Joint, Lsn};

use crate::call::{Call, Outcome};
use crate::codec::EncodedEntry;
use crate::drain::{Drain, OrderGuard, Own};
use crate::error::Error;
use crate::ids::{CallId, Ticket};
use crate::kind::CallKind;
use crate::observer::Receipt;
use crate::session::Session;

/// What became of an end and of the commit that it was part of.
#[derive(Debug)]
#[must_use = "the commit may have been refused, and then there is no end"]
pub struct Together<D> {
    /// The receipt of the end; `None` if the commit appended nothing, and then the call is open.
    pub end: Option<Receipt>,
    /// What became of the commit.
    pub done: D,
}

/// The own entries of a joint batch, between drain and log.
struct Joining<'d> {
    drain: &'d Drain,
    order: Option<OrderGuard<'d>>,
    own: Option<Own>,
    ordered: Option<(u64, Lsn)>,
}

impl Before for Joining<'_> {
    fn push_to<'a>(&'a self, batch: &mut Batch<'a>) {
        let own = self.own.iter().flat_map(|own| &own.entries);
        own.for_each(|entry| entry.push_to(batch));
    }

    fn ordered(&mut self, lsns: RangeInclusive<Lsn>) {
        if let Some(own) = self.own.take() {
            self.ordered = Some((*own.tickets.end(), *lsns.end()));
            self.drain.joined(*own.tickets.end(), *lsns.end());
        }
        self.order = None;
    }

    fn give_up(&mut self) {
        if let Some(own) = self.own.take() {
            self.drain.refuse(&own, None);
        }
        self.order = None;
    }
}

/// A panic in a commit is a commit that appended nothing: its tickets are not lost.
impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Drain {
    /// Records the entry in the batch of this commit. `E` gets the errors of either room.
    fn record_with<J: Joint>(&self, entry: EncodedEntry, joint: J) -> Made<J> {
        let order = self.order().map_err(JointFailure::observer)?;
        let own = self.send_before(&order, vec![entry]).map_err(JointFailure::observer)?;
        let mut joining =
            Joining { drain: self, order: Some(order), own: Some(own), ordered: None };
        let done = joint.commit(&mut joining);
        joining.give_up();
        let ordered = joining.ordered;
        drop(joining);
        match (done, ordered) {
            (Ok(done), None) => Ok((None, done)),
            (Ok(done), Some((ticket, lsn))) => {
                self.settle();
                let ticket = Ticket { instance: self.instance(), sequence: ticket };
                Ok((Some(Receipt { ticket, lsn: Some(lsn), dropped: false }), done))
            }
            (Err(error), ordered) => {
                self.settle();
                // The worker or a flush meets the log's own failure and says so.
                Err(JointFailure { error: JointError::Commit(error), ordered: ordered.is_some() })
            }
        }
    }
}

/// The receipt of the end, if there is one, and what became of the commit.
type Made<J> =
    std::result::Result<(Option<Receipt>, <J as Joint>::Done), JointFailure<<J as Joint>::Failure>>;

struct JointFailure<F> {
    error: JointError<F>,
    /// The batch had its place, so the end may be in the log.
    ordered: bool,
}

impl<F> JointFailure<F> {
    fn observer(error: Error) -> JointFailure<F> {
        JointFailure { error: JointError::Observer(error), ordered: false }
    }
}

/// Why an end and a commit could not be recorded together.
#[derive(Debug)]
#[non_exhaustive]
pub enum JointError<F> {
    /// The observer refused the end; the commit was not tried.
    Observer(Error),
    /// The commit failed. If its outcome is unknown, so is that of the end: both or none.
    Commit(F),
}

impl<F: std::fmt::Display> std::fmt::Display for JointError<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JointError::Observer(error) => write!(f, "the end was refused: {error}"),
            JointError::Commit(error) => write!(f, "the commit with the end failed: {error}"),
        }
    }
}

impl<F: std::error::Error + 'static> std::error::Error for JointError<F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            JointError::Observer(error) => Some(error),
            JointError::Commit(error) => Some(error),
        }
    }
}

impl Call {
    /// Records the end in one batch with a commit of another room, such as
    /// `annals_registry::Writer::joint`: both are durable on return, or neither is. A commit that
    /// appends nothing (a refused one, a recognised retry) records no end.
    ///
    /// What is redacted: the end's own entry, its output or error, metadata, names and ids, as in every
    /// other end. What is **not**: anything that the commit writes into its room, a registry's keys,
    /// values and writer ids. They pass as they are, whatever redactors this observer has
    /// (`docs/adr/0020`): keep secrets out of them, or redact before you put them there.
    ///
    /// # Errors
    /// [`JointError`]; after a commit of unknown outcome open the log again, and ask again by
    /// [`Session::end_by_call_id_with`].
    pub fn end_with<J: Joint>(
        &mut self,
        outcome: Outcome,
        joint: J,
    ) -> std::result::Result<Together<J::Done>, JointError<J::Failure>> {
        let mut entry = self.end_entry(outcome).map_err(JointError::Observer)?;
        let encoded = self.handle.prepare(&mut entry).map_err(JointError::Observer)?;
        let made = self.handle.record_with(encoded, joint);
        self.ended = match &made {
            Ok((end, _)) => end.is_some(),
            Err(failure) => failure.ordered,
        };
        if self.ended {
            let end = made.as_ref().ok().and_then(|(end, _)| end.map(|end| end.ticket.sequence));
            self.handle.close_start(self.start.ticket.sequence, end);
        }
        let (end, done) = made.map_err(|failure| failure.error)?;
        Ok(Together { end, done })
    }
}

impl Session {
    /// [`Call::end_with`] for a call whose [`Call`] is not at hand: after a restart. The same is
    /// redacted, and the same is not.
    ///
    /// # Errors
    /// As [`Call::end_with`].
    pub fn end_by_call_id_with<J: Joint>(
        &self,
        kind: CallKind,
        call_id: CallId,
        outcome: Outcome,
        joint: J,
    ) -> std::result::Result<Together<J::Done>, JointError<J::Failure>> {
        let known = self.ending(kind, &call_id).map_err(JointError::Observer)?;
        let mut entry = match &known {
            Some(known) => known.end(),
            None => self.end_of(kind, call_id),
        };
        outcome.put(&mut entry);
        let encoded = self.handle.prepare(&mut entry).map_err(JointError::Observer)?;
        let made = self.handle.record_with(encoded, joint);
        if let Some(known) = known {
            match &made {
                Ok((Some(end), _)) => known.ended(Some(end.ticket.sequence)),
                Err(failure) if failure.ordered => known.ended(None),
                _ => drop(known), // it can be found again
            }
        }
        let (end, done) = made.map_err(|failure| failure.error)?;
        Ok(Together { end, done })
    }
}
