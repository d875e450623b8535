//! A flush and a shutdown as futures: they hold no thread while they wait.
//!
//! Never here: I/O, a timer, a runtime. The observer's thread writes and syncs and wakes the task; the
//! time after which nobody waits longer is a future that the caller brings. Invariant: what a dropped
//! future had asked for is done all the same, and nothing of it is left behind but that. Next room:
//! [`crate::observer`].

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use annals_wal::Lsn;

use crate::drain::Drain;
use crate::error::{Error, Result};
use crate::flush::{FlushOutcome, Goal};
use crate::observer::Observer;

/// Waits until everything that was taken before its first poll is durable, or cannot be.
#[derive(Debug)]
struct Flushed {
    drain: Arc<Drain>,
    goal: Option<Goal>,
    /// Of its place among those who wait.
    key: Option<u64>,
}

impl Flushed {
    fn of(drain: &Arc<Drain>) -> Flushed {
        Flushed { drain: drain.clone(), goal: None, key: None }
    }

    fn asked(&mut self) -> Result<Goal> {
        self.drain.log().check_process()?;
        match self.goal {
            // Whoever is in a closure is waited for, maybe by the thread that would wake this.
            Some(goal) => Error::if_in_closure().map_or(Ok(goal), Err),
            None => Ok(*self.goal.insert(self.drain.ask_for_flush()?)),
        }
    }

    /// How things are now that nobody waits longer.
    fn timed_out(&self) -> FlushOutcome {
        let state = self.drain.lock();
        let (durable, pending) = (state.durable_lsn, state.pending());
        let outcome = self.goal.and_then(|goal| goal.outcome(&state));
        outcome.unwrap_or(FlushOutcome::TimedOut { durable, pending })
    }
}

impl Future for Flushed {
    type Output = FlushOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<FlushOutcome> {
        let goal = match self.asked() {
            Ok(goal) => goal,
            Err(cause) => return Poll::Ready(self.drain.cannot_flush(cause)),
        };
        let (waker, key, drain) = (context.waker().clone(), self.key, self.drain.clone());
        let mut state = drain.lock();
        if let Some(outcome) = goal.outcome(&state) {
            return Poll::Ready(outcome);
        }
        // A worker that is gone has told those who stood here; this one comes after it.
        if let Err(cause) = drain.start_worker(&mut state) {
            drop(state);
            return Poll::Ready(drain.cannot_flush(cause));
        }
        let key = key.unwrap_or_else(|| {
            state.flush_keys += 1;
            state.flush_keys
        });
        let replaced = state.flush_waits.insert(key, (goal.target, waker));
        state.stale.extend(replaced.map(|(_, waker)| waker));
        drop(state);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if let Some(key) = self.key.filter(|_| self.drain.log().check_process().is_ok()) {
            let mut state = self.drain.lock();
            let gone = state.flush_waits.remove(&key);
            state.stale.extend(gone.map(|(_, waker)| waker));
        }
    }
}

impl Observer {
    /// [`Observer::flush`] for async code: the observer's thread does the work, and this holds none
    /// while it waits, on no runtime or any. It covers what was accepted before its first poll, and
    /// returns the LSN of the last entry that is durable then. Dropped before it is ready, it loses the
    /// answer and nothing else: what it asked for is written and synced all the same.
    ///
    /// # Errors
    /// As [`Observer::flush`]; on a full disk too, and what is pending then stays queued.
    ///
    /// ```
    /// # use annals_observer::{JsonText, Level, Observer};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?.level(Level::Batched);
    /// session.error_async(JsonText::string("out of budget")).await?;
    /// let last = observer.flush_async().await?;
    /// assert_eq!(last.map(|lsn| lsn.get()), Some(1), "durable");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn flush_async(&self) -> Result<Option<Lsn>> {
        match Flushed::of(self.drain()).await {
            FlushOutcome::Failed { cause, .. } => Err(cause),
            FlushOutcome::Flushed(durable) | FlushOutcome::TimedOut { durable, .. } => Ok(durable),
        }
    }

    /// [`Observer::force_flush`] for async code: waits until everything taken before its first poll is
    /// durable, or until `timeout` is ready, which is the caller's own: a runtime's `sleep`, a
    /// cancellation. It is asked last, so one that is ready at once tells how things are. Dropped
    /// before it is ready, as [`Observer::flush_async`].
    ///
    /// ```
    /// use std::time::Duration;
    /// # use annals_observer::{FlushOutcome, JsonText, Level, Observer};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    /// # runtime.block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?.level(Level::Batched);
    /// session.error_async(JsonText::string("out of budget")).await?;
    /// let outcome = observer.force_flush_async(tokio::time::sleep(Duration::from_secs(30))).await;
    /// assert!(outcome.is_flushed(), "{outcome:?}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn force_flush_async(&self, timeout: impl Future<Output = ()>) -> FlushOutcome {
        let mut flushed = pin!(Flushed::of(self.drain()));
        let mut timeout = pin!(timeout);
        poll_fn(|context| match flushed.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => timeout.as_mut().poll(context).map(|()| flushed.timed_out()),
        })
        .await
    }

    /// [`Observer::shutdown`] for async code: from its first poll on every later entry of every clone
    /// is refused; then as [`Observer::flush_async`]. Idempotent. Dropped before it is ready, the
    /// observer is shut down and what it had is written all the same; a second call tells whether it
    /// is durable.
    ///
    /// # Errors
    /// As [`Observer::flush_async`]; the observer is shut down all the same.
    ///
    /// ```
    /// # use annals_observer::{ErrorKind, JsonText, Level, Observer};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?.level(Level::Batched);
    /// session.error_async(JsonText::string("out of budget")).await?;
    /// assert!(observer.shutdown_async().await?.is_some(), "it is durable");
    /// let late = session.error_async(JsonText::string("too late")).await;
    /// assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn shutdown_async(&self) -> Result<Option<Lsn>> {
        self.log().check_process()?;
        self.drain().close();
        self.flush_async().await
    }
}
