//! The observer: a handle on a log through which agents' entries are recorded.
//!
//! Never here: swallowed failures. A call that cannot record says so to its caller; what was only
//! ordered and then failed says so in [`Observer::flush`] and [`Observer::health`]. Invariant: all
//! clones share one queue ([`crate::drain`]), so one flush covers them all. Next room:
//! [`crate::session`].

use std::sync::Arc;

use annals_wal::{Log, Lsn};

use crate::clock::{Clock, SystemClock};
use crate::drain::{Drain, Submitted};
use crate::error::{Error, Result};
use crate::ids::{InstanceId, SessionId, Ticket};
use crate::mutant;
use crate::session::Session;

/// When a recording call may go on. Never where its entry stands: all entries of an observer
/// stand in one order, and a durable one makes every entry before it durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Level {
    /// After the sync that covers the entry. It is on disk when the call returns.
    #[default]
    Durable,
    /// When the entry has its place in the log. A crash may lose it until [`Observer::flush`], or
    /// a later durable entry, returns.
    Ordered,
}

/// What a recording call hands back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Receipt {
    /// The entry's place in its observer's queue.
    pub ticket: Ticket,
    /// The entry's LSN, once it is durable: `Some` at [`Level::Durable`].
    pub lsn: Option<Lsn>,
}

/// How an observer is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Entries accepted so far: the sequence of the last ticket.
    pub accepted: u64,
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

/// Records agents' entries on a log. Clones share one queue; use one from as many threads as you
/// like. It keeps the log's directory locked until its last clone, session and call are dropped.
#[derive(Clone, Debug)]
pub struct Observer {
    drain: Arc<Drain>,
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
        Observer::with_clock(log, Arc::new(SystemClock::new()))
    }

    /// [`Observer::on`] with another clock: a test states how long its calls took.
    ///
    /// # Errors
    /// As [`Observer::on`].
    pub fn with_clock(log: Log, clock: Arc<dyn Clock>) -> Result<Observer> {
        Ok(Observer { drain: Arc::new(Drain::new(log, clock)?) })
    }

    /// The log it records on.
    pub fn log(&self) -> &Log {
        self.drain.log()
    }

    /// This observer's id, part of every ticket.
    pub fn instance(&self) -> InstanceId {
        self.drain.instance()
    }

    /// A handle that records entries of this session. Nothing is written.
    ///
    /// # Errors
    /// `Invalid` if the id is empty.
    pub fn session(&self, id: impl Into<String>) -> Result<Session> {
        Ok(Session::new(self.drain.clone(), SessionId::new(id)?))
    }

    /// Waits until every entry accepted before this call is durable, of whatever level, session
    /// or clone, and returns the LSN of the last one. `None` if there was none.
    ///
    /// # Errors
    /// `Log` if the log failed first: some of the entries may be lost (see
    /// [`Error::outcome_unknown`]), and every later flush says so again.
    pub fn flush(&self) -> Result<Option<Lsn>> {
        self.drain.flush()
    }

    /// Refuses every later entry of every clone, then flushes. Idempotent: a second call flushes
    /// again and returns the same. The log stays open; it is the caller's.
    ///
    /// # Errors
    /// As [`Observer::flush`]; the observer is shut down all the same.
    pub fn shutdown(&self) -> Result<Option<Lsn>> {
        self.drain.close();
        self.flush()
    }

    /// How the observer is, without waiting for anything but its own short lock.
    pub fn health(&self) -> Health {
        let peek = self.drain.peek();
        let durable = self.log().durable_lsn();
        Health {
            accepted: peek.last,
            all_durable: peek.last_lsn <= durable,
            refused: peek.refused,
            closed: peek.closed,
            last_error: peek.last_error,
            poisoned: self.log().poisoned().map(Error::from),
        }
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }
}

/// Waits as long as the level says, and tells what may be told then.
pub(crate) fn receipt(drain: &Drain, submitted: Submitted, level: Level) -> Result<Receipt> {
    let ticket = submitted.ticket;
    let lsn = match level {
        Level::Ordered => None,
        Level::Durable if mutant::is("observer:durable-does-not-wait") => None,
        Level::Durable => drain.wait(submitted)?,
    };
    Ok(Receipt { ticket, lsn })
}
