//! A log that several processes write, in turns: what a member has besides an owner's rooms.
//!
//! Never here: another way to order, write or sync. A turn ([`turn`]) takes `APPEND` ([`append`]),
//! looks at what others did and recovers what one of them left ([`begin`]), reads on over what they
//! wrote ([`catch_up`]), and then the queue, the leader and the writer do what they always do; when
//! nothing is left to write the turn ends. Between turns, and while it waits for one, a process
//! reads on without ([`look`]). Invariants: LSNs are given only while `APPEND` is held; what a turn
//! leaves behind is durable, or the mark in `CONTROL` stands. The protocol is in
//! `docs/adr/0021-several-processes.md`, its model in `xtask/src/model`. Locks: the queue's guards
//! the turn's state; `APPEND` comes before it. Next rooms: [`open`] for an opening,
//! [`crate::commit`] back.

use std::fmt::Debug;
use std::sync::{Arc, Weak};

use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::records::RecordRef;
use crate::sync::{Mutex, PoisonError};

use append::Append;

mod append;
mod begin;
mod catch_up;
mod look;
pub(crate) mod open;
pub(crate) mod turn;
mod wait;

/// What makes a core a member of a shared log.
#[derive(Debug)]
pub(crate) struct Member {
    append: Append,
    /// Who is told of others' records. Taken alone.
    listeners: Mutex<Vec<Weak<dyn Listen>>>,
}

/// A room that keeps state of its own and must know what other processes append.
pub trait Listen: Send + Sync + Debug {
    /// A durable record that another process appended, in LSN order, none left out since
    /// [`Log::listen`]. Called while the log takes its turn, before anything is ordered in it, so
    /// it must not call the log.
    fn appended(&self, record: RecordRef<'_>);
}

impl Log {
    /// Whether other processes may have the log open for writing too
    /// ([`Sharing::Processes`](crate::Sharing::Processes)).
    pub fn is_shared(&self) -> bool {
        self.core_arc().member.is_some()
    }

    /// For what is right only while no other process writes: refuses it on a shared log, naming it.
    ///
    /// # Errors
    /// `Sharing` on a shared log.
    pub fn check_alone(&self, what: &str) -> Result<()> {
        if self.is_shared() { Err(not_when_shared(what)) } else { Ok(()) }
    }

    /// Has `listener` told, for as long as it lives, of every record that another process appends
    /// after the LSN that this returns (`None`: from the first on). On a log of one process it is
    /// never called.
    ///
    /// # Errors
    /// As [`Log::refresh`].
    pub fn listen(&self, listener: &Arc<dyn Listen>) -> Result<Option<crate::Lsn>> {
        let core = self.core_arc();
        core.home.check()?;
        let Some(member) = &core.member else { return Ok(self.durable_lsn()) };
        // In a turn nobody reads on, so the listener misses nothing and hears nothing twice.
        let turn = core.hold_turn()?;
        member.listeners().push(Arc::downgrade(listener));
        let from = self.durable_lsn();
        drop(turn);
        Ok(from)
    }

    /// Reads what other processes have made durable by now: after this [`Log::durable_lsn`],
    /// [`Log::range`], [`Log::holds`] and the head say so. Any record that another process was told
    /// is durable before this call is among it. Takes no turn, and does not wait where a thread of
    /// this process waits for one, only for the moments in which one begins or ends. Where the
    /// control block says nothing of this log (it is gone, replaced or damaged) a turn is taken
    /// after all, because only a recovery tells then: that waits as an append does. On a log of one
    /// process it does nothing.
    ///
    /// # Errors
    /// `Trimmed` if another process trimmed what this one has not read yet, and `Corrupt`, both of
    /// which poison the handle: open the log again; `Poisoned` from then on; `Io`. Where a turn was
    /// to be taken, as [`Log::turn`].
    pub fn refresh(&self) -> Result<()> {
        self.core_arc().refresh()
    }

    /// Takes a turn and keeps it until what is returned is dropped: no other process appends
    /// meanwhile, and everything it appended before is known. What this process orders meanwhile
    /// is written as always. For short work only: all other processes wait for it, also after
    /// [`Log::close`]. On a log of one process it does nothing.
    ///
    /// # Errors
    /// `Locked` after [`Options::lock_timeout`](crate::Options::lock_timeout); `Poisoned`,
    /// `Closed`; `Trimmed`, `Corrupt` and `Io` as [`Log::refresh`].
    pub fn turn(&self) -> Result<Turn> {
        let core = self.core_arc();
        core.home.check()?;
        if core.member.is_some() {
            std::mem::forget(core.hold_turn()?);
        }
        Ok(Turn { log: self.clone() })
    }
}

/// A turn that is kept ([`Log::turn`]).
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub struct Turn {
    log: Log,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let core = self.log.core_arc();
        if core.member.is_some() && core.home.is_here() {
            core.leave_turn(true);
        }
    }
}

impl Member {
    pub(crate) fn new(append: Append) -> Member {
        Member { append, listeners: Mutex::default() }
    }

    fn listeners(&self) -> crate::sync::MutexGuard<'_, Vec<Weak<dyn Listen>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self) -> Vec<Arc<dyn Listen>> {
        let mut listeners = self.listeners();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whoever waits to be next may come nearer: this turn is about to sync.
    pub(crate) fn let_the_next_queue(&self) {
        self.append.leave_the_line();
    }
}

/// What is not there on a shared log.
pub(crate) fn not_when_shared(what: &str) -> Error {
    let why = format!("{what} is not there on a log that several processes write");
    Error::new(ErrorKind::Sharing, why)
}
