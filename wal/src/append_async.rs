//! `append_async`: a future that waits for room, then for durability.
//!
//! Never here: I/O, also not in `poll`: committer and preparer do it. Invariants: until it is
//! admitted the future is a handle of the log, so the log cannot end under it, and its drop takes
//! its waker along; admitted, it is a [`Pending`] and keeps nothing open.
//! Next rooms: [`crate::room`], [`crate::pending`].

use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::log::Log;
use crate::mutant;
use crate::pending::Pending;
use crate::record::{Batch, EncodedBatch};
use crate::room::Seat;

/// What [`Log::append_async`] returns: resolves to the batch's LSNs once it is durable.
///
/// Dropped before it was admitted, the batch is certainly not written; dropped later, it may be,
/// and usually is. [`AppendAsync::is_admitted`] tells which. Polled again after its end it gives
/// the same answer again.
///
/// Until it is admitted it is a handle of the log: one that is parked and forgotten keeps the directory
/// locked. It must not be dropped inside the closure of [`Log::ordered`], whose lock its drop takes.
#[must_use = "futures do nothing unless polled"]
pub struct AppendAsync {
    state: State,
}

enum State {
    Waiting(Waiting),
    Admitted(Pending),
    Refused(Error),
}

/// A batch on its way into the queue.
struct Waiting {
    log: Log,
    batch: EncodedBatch,
    seat: Option<Seat>,
    /// See [`crate::commit::Core::ask_for_a_spare`].
    asked: Option<u64>,
}

impl Log {
    /// Appends a batch without ever blocking the thread that polls: waits for room in the queue and
    /// for the next segment as a future does, then for the batch to be durable. The log's own
    /// threads do all I/O. Works on any runtime. Checksums are taken by this call; the place in the
    /// order is given by a poll.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # struct Unpark(std::thread::Thread);
    /// # impl std::task::Wake for Unpark {
    /// #     fn wake(self: std::sync::Arc<Self>) { self.0.unpark() }
    /// # }
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut future = std::pin::pin!(future);
    /// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    /// #     loop {
    /// #         let mut context = std::task::Context::from_waker(&waker);
    /// #         match future.as_mut().poll(&mut context) {
    /// #             std::task::Poll::Ready(output) => return output,
    /// #             std::task::Poll::Pending => std::thread::park(),
    /// #         }
    /// #     }
    /// # }
    /// use annals_wal::{Log, Record};
    ///
    /// let log = Log::open(dir.path().join("log"))?;
    /// let lsns = block_on(async { log.append_async(Record::new("durable, then")).await })?;
    /// assert_eq!(lsns.start().get(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The future's: as [`Log::append_batch`].
    pub fn append_async<'a>(&self, batch: impl Into<Batch<'a>>) -> AppendAsync {
        let state = match batch.into().encode(self.record_bytes_max()) {
            Ok(batch) => {
                State::Waiting(Waiting { log: self.clone(), batch, seat: None, asked: None })
            }
            Err(error) => State::Refused(error),
        };
        AppendAsync { state }
    }
}

impl AppendAsync {
    /// Whether the batch has its place in the log's order, so that it may be written whatever
    /// becomes of this future.
    pub fn is_admitted(&self) -> bool {
        matches!(self.state, State::Admitted(_))
    }
}

impl Waiting {
    /// Asks for a place; leaves the waker if there is none.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Pending>> {
        let core = self.log.core_arc();
        // Before the lock, which in a forked child nobody may ever leave.
        if let Err(error) = core.home.check() {
            return Poll::Ready(Err(error));
        }
        let mut queue = core.queue();
        let attempt = core.attempt(&mut queue, &mut self.batch, &mut self.asked);
        let Some(answer) = attempt.transpose() else {
            let before = queue.room_wakers.leave(&mut self.seat, context.waker());
            drop(queue);
            drop(before);
            return Poll::Pending;
        };
        let waker = queue.room_wakers.give_up(self.seat.take());
        drop(queue);
        // Its drop may run anything.
        drop(waker);
        Poll::Ready(answer)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let core = self.log.core_arc();
        if self.seat.is_none() || !core.home.is_here() || mutant::is("room:wakers-left-behind") {
            return;
        }
        let waker = core.queue().room_wakers.give_up(self.seat);
        drop(waker);
    }
}

impl Future for AppendAsync {
    type Output = Result<RangeInclusive<Lsn>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Waiting(waiting) = &mut self.state {
            match waiting.poll(context) {
                Poll::Pending => return Poll::Pending,
                // From here on it is no handle of the log any more.
                Poll::Ready(Ok(pending)) => self.state = State::Admitted(pending),
                Poll::Ready(Err(error)) => self.state = State::Refused(error),
            }
        }
        match &mut self.state {
            State::Admitted(pending) => Pin::new(pending).poll(context),
            State::Refused(error) => Poll::Ready(Err(error.clone())),
            State::Waiting(_) => Poll::Pending,
        }
    }
}

impl fmt::Debug for AppendAsync {
    /// How far it is and nothing more: what waits is payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting(_) => "waiting for room",
            State::Admitted(_) => "admitted",
            State::Refused(_) => "refused",
        };
        f.debug_tuple("AppendAsync").field(&state).finish()
    }
}
