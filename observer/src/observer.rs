//! The observer: a handle on a log through which agents' entries are recorded.
//!
//! Never here: swallowed failures. A call that cannot record says so to its caller; what was only
//! ordered and then failed says so in [`Observer::flush`] and [`Observer::health`]. Invariant: all
//! clones share one queue ([`crate::drain`]), so one flush covers them all. Next room:
//! [`crate::session`].

use std::sync::Arc;
use std::time::Duration;

use annals_wal::{Log, Lsn};

use crate::clock::Clock;
use crate::drain::{Drain, Handle, Submitted, is_full};
use crate::error::{Error, Result};
use crate::flush::FlushOutcome;
use crate::ids::{InstanceId, SessionId, Ticket};
use crate::mutant;
use crate::options::Options;
use crate::session::Session;

/// When a recording call may go on. Never where its entry stands: all entries of an observer
/// stand in one order, and a durable one makes every entry before it durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Level {
    /// After the sync that covers the entry. It is on disk when the call returns.
    #[default]
    Durable,
    /// When the entry has its place in the log, in async code too. A crash may lose it until [`Observer::flush`], or
    /// a later durable entry, returns.
    Ordered,
    /// When the entry is in the observer's queue; the call does no I/O. A crash may lose it until a
    /// flush, or a later durable entry, returns; the queue is written after
    /// [`Options::batch_age_max`](crate::Options::batch_age_max) at the latest.
    Batched,
}

/// What a recording call hands back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Receipt {
    /// The entry's place in its observer's queue.
    pub ticket: Ticket,
    /// The entry's LSN, once it is durable: `Some` at [`Level::Durable`].
    pub lsn: Option<Lsn>,
    /// Whether the entry was dropped because the queue was full; an entry of kind `dropped` will
    /// say so. Only at [`Level::Batched`] with [`crate::Overflow::DropNewest`].
    pub dropped: bool,
}

/// How an observer is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Tickets given so far: the sequence of the last one.
    pub accepted: u64,
    /// Entries that wait in the queue.
    pub queued: u64,
    /// Entries that were dropped because the queue was full or no segment could take them.
    pub dropped: u64,
    /// Calls that have started here and not ended.
    pub open_starts: u64,
    /// Starts that were written off as `abandoned`.
    pub written_off: u64,
    /// Why nothing can be written now, if the disk was full at the last try. Room is tried again.
    pub full: Option<Error>,
    /// Why the last try to write failed, if it left the log whole: a full disk or an error that may
    /// pass. What is queued stays queued and is tried again.
    pub stuck: Option<Error>,
    /// Whether all of them are durable.
    pub all_durable: bool,
    /// Entries that were refused, each with an error to its caller.
    pub refused: u64,
    /// Whether the observer was shut down.
    pub closed: bool,
    /// The last failure, if there was one; the observer may have recovered since.
    pub last_error: Option<Error>,
    /// Why the log refuses every write until it is reopened, if it does.
    pub poisoned: Option<Error>,
}

impl Health {
    fn of_a_child(error: Error) -> Health {
        Health {
            accepted: 0,
            queued: 0,
            dropped: 0,
            open_starts: 0,
            written_off: 0,
            full: None,
            stuck: None,
            all_durable: false,
            refused: 0,
            closed: false,
            last_error: Some(error),
            poisoned: None,
        }
    }
}

/// Records agents' entries on a log. Clones share one queue; use one from as many threads as you
/// like. It keeps the log's directory locked until its last clone, session and call are dropped.
///
/// **Before a process ends, call [`Observer::shutdown`]** (in async code [`Observer::shutdown_async`];
/// [`Observer::force_flush`] has a time limit) and look at what it returns. Without it, this is what can be lost: entries at
/// [`Level::Ordered`] that no later durable entry or flush has covered, and entries at
/// [`Level::Batched`] of the last [`Options::batch_age_max`](crate::Options::batch_age_max). The drop of the last
/// clone, session or call hands the queue to the observer's thread and waits until it is durable, at
/// most one second; it cannot say whether it is. It waits for nothing if nothing is queued, which is
/// so after a shutdown, and not inside of a registry's closure. A process that leaves by
/// `std::process::exit`, or keeps a clone in a static, drops nothing and waits for nothing.
#[derive(Clone, Debug)]
pub struct Observer {
    handle: Arc<Handle>,
}

impl Observer {
    /// An observer on this log, with an instance id of its own. Nothing is written yet.
    ///
    /// # Errors
    /// `Io` if the operating system gives no random bytes.
    ///
    /// ```
    /// use annals_observer::{JsonText, Observer};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let mut call = observer.session("s-1")?.tool("search").start()?;
    /// call.end_ok(JsonText::string("three hits"))?;
    /// assert_eq!(observer.health().accepted, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on(log: Log) -> Result<Observer> {
        Options::new().on(log)
    }

    /// [`Observer::on`] with another clock: a test states how long its calls took.
    ///
    /// # Errors
    /// As [`Observer::on`].
    pub fn with_clock(log: Log, clock: Arc<dyn Clock>) -> Result<Observer> {
        Options::new().clock(clock).on(log)
    }

    pub(crate) fn of(log: Log, options: Options) -> Result<Observer> {
        let drain = Arc::new(Drain::new(log, options)?);
        Ok(Observer { handle: Arc::new(Handle { drain }) })
    }

    /// The log it records on.
    pub fn log(&self) -> &Log {
        self.drain().log()
    }

    /// This observer's id, part of every ticket.
    pub fn instance(&self) -> InstanceId {
        self.drain().instance()
    }

    /// A handle that records entries of this session. Nothing is written.
    ///
    /// # Errors
    /// `Invalid` if the id is empty.
    pub fn session(&self, id: impl Into<String>) -> Result<Session> {
        Ok(Session::new(self.handle.clone(), SessionId::new(id)?))
    }

    /// Waits until every entry accepted before this call is durable, of whatever level, session
    /// or clone, and returns the LSN of the last one. `None` if there was none.
    ///
    /// # Errors
    /// `Log` if the log failed first: some of the entries may be lost (see
    /// [`Error::outcome_unknown`]), and every later flush says so again.
    pub fn flush(&self) -> Result<Option<Lsn>> {
        self.drain().flush()
    }

    /// Waits at most this long until every entry taken before this call is durable. The observer's
    /// own thread does the work, so this may be called from anywhere, also on the only thread of a
    /// runtime. It holds that thread meanwhile; [`Observer::force_flush_async`] does not.
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals_observer::{FlushOutcome, JsonText, Level, Observer};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let observer = Observer::on(annals_wal::Log::open(dir.path().join("log"))?)?;
    /// let session = observer.session("s-1")?.level(Level::Batched);
    /// session.error(JsonText::string("out of budget"))?;
    /// match observer.force_flush(Duration::from_secs(5)) {
    ///     FlushOutcome::Flushed(lsn) => assert_eq!(lsn.map(|lsn| lsn.get()), Some(1)),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn force_flush(&self, timeout: Duration) -> FlushOutcome {
        self.drain().force_flush(timeout)
    }

    /// Refuses every later entry of every clone, then flushes. Idempotent: a second call flushes
    /// again and returns the same. The log stays open; it is the caller's.
    ///
    /// # Errors
    /// As [`Observer::flush`]; the observer is shut down all the same.
    pub fn shutdown(&self) -> Result<Option<Lsn>> {
        self.log().check_process()?;
        self.drain().close();
        self.flush()
    }

    /// How the observer is, without waiting for anything but its own short lock. In a child made by
    /// fork, which has no observer, there is nothing but a `last_error` that says so.
    pub fn health(&self) -> Health {
        // Before any lock: a thread of the parent may have had it at the fork, and never gives it
        // back here.
        if let Err(error) = self.log().check_process() {
            return Health::of_a_child(error.into());
        }
        let durable = self.log().durable_lsn();
        let poisoned = self.log().poisoned().map(Error::from);
        let state = self.drain().lock();
        let queued = (state.queue.len() + state.taken) as u64;
        Health {
            accepted: state.last,
            queued,
            dropped: state.dropped,
            open_starts: state.open.len() as u64,
            written_off: state.open.written_off,
            full: state.stuck.clone().filter(is_full),
            stuck: state.stuck.clone(),
            all_durable: queued == 0 && state.account.is_empty() && state.last_lsn <= durable,
            refused: state.refused,
            closed: state.closed,
            last_error: state.last_error.clone(),
            poisoned,
        }
    }

    pub(crate) fn drain(&self) -> &Arc<Drain> {
        &self.handle.drain
    }
}

/// Waits as long as the level says, and tells what may be told then.
pub(crate) fn receipt(drain: &Drain, submitted: Submitted, level: Level) -> Result<Receipt> {
    let ticket = submitted.ticket;
    let lsn = match level {
        Level::Ordered | Level::Batched => None,
        Level::Durable if mutant::is("observer:durable-does-not-wait") => None,
        Level::Durable => drain.wait(submitted)?,
    };
    Ok(Receipt { ticket, lsn, dropped: false })
}
