//! The sweeper: ends leases that nobody renews, and forgets writers that nobody uses.
//!
//! Never here: a wall clock, a stored deadline. A sweeper ends a lease only after it has itself
//! seen the same revision of it for a whole ttl by its own monotonic clock, so a new sweeper, and
//! so every reopening, gives every lease its whole ttl again.
//! Invariants: the sweep is a transaction that reads the lease; a renewal that commits first makes
//! it leave the lease alone. Until it has committed the lease is valid. What it did is in the log:
//! who, why, and when by the wall clock. A forked child ends and awaits no sweeping of its parent.
//! Next room: [`crate::writer`].

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::change::TxResult;
use crate::error::{Error, Result};
use crate::ids::{LeaseId, WriterId};
use crate::key::Key;
use crate::lease::{self, Lease, done};
use crate::mutant;
use crate::process::Process;
use crate::registry::Registry;
use crate::value::Revision;
use crate::writer;

/// What one sweep ended.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Swept {
    /// The leases, as they were seen.
    pub leases: Vec<Lease>,
    /// The keys that were bound to them and are gone.
    pub keys: Vec<Key>,
    /// The writers that are forgotten.
    pub writers: Vec<WriterId>,
}

/// A revision, and when it was first seen.
type Seen = (Revision, Duration);

/// Watches the leases of a registry and ends those that are not renewed.
///
/// ```
/// use std::time::Duration;
/// use annals_registry::{Registry, Sweeper};
/// # use annals_wal::Log;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
/// let lease = registry.grant(Duration::from_secs(10), "agent A7")?;
/// let mut sweeper = Sweeper::new(registry.clone(), "host 1");
/// // Call it every few seconds, or let `in_background` do so.
/// assert!(sweeper.sweep()?.leases.is_empty(), "seen for the first time");
/// assert!(registry.lease(lease.id)?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sweeper {
    registry: Registry,
    who: String,
    writer_idle: Option<Duration>,
    leases: BTreeMap<LeaseId, Seen>,
    writers: BTreeMap<WriterId, Seen>,
}

impl Sweeper {
    /// A sweeper that has seen nothing yet. `who` is written into the log with what it ends.
    pub fn new(registry: Registry, who: impl Into<String>) -> Sweeper {
        Sweeper {
            registry,
            who: who.into(),
            writer_idle: None,
            leases: BTreeMap::new(),
            writers: BTreeMap::new(),
        }
    }

    /// Forgets writers too that have committed nothing for this long. By default none is: a writer
    /// that is forgotten can no longer learn what became of its last transaction.
    pub fn writer_idle(mut self, idle: Duration) -> Sweeper {
        self.writer_idle = Some(idle);
        self
    }

    /// Looks at every lease once, and ends those seen unrenewed for their whole ttl. What it ended
    /// is durable on return.
    ///
    /// # Errors
    /// As [`Registry::transact`]; the leases ended before the failure are ended.
    pub fn sweep(&mut self) -> Result<Swept> {
        // Before any lock: in a forked child nobody may ever leave it.
        self.registry.log().check_process().map_err(Error::of_log)?;
        let mut swept = Swept::default();
        let clock = &self.registry.shared().options.clock;
        let early = mutant::is("lease:granted-is-seen").then(|| clock.now());
        let leases = self.registry.leases()?;
        // After the look: a lease granted in between must not count as seen before it was.
        let now = early.unwrap_or_else(|| clock.now());
        self.leases.retain(|id, _| leases.iter().any(|lease| lease.id == *id));
        for lease in leases {
            let seen = see(&mut self.leases, lease.id, lease.revision, now);
            if now.saturating_sub(seen) < lease.ttl && !mutant::is("lease:no-ttl") {
                continue;
            }
            if let Some(keys) = self.expire(&lease)? {
                self.leases.remove(&lease.id);
                self.registry.shared().meter.lease_expired();
                tracing::info!(lease = %lease.id, keys = keys.len(), "a lease expired");
                swept.keys.extend(keys);
                swept.leases.push(lease);
            }
        }
        self.sweep_writers(now, &mut swept)?;
        Ok(swept)
    }

    /// `None`: it was renewed or revoked meanwhile.
    fn expire(&self, lease: &Lease) -> Result<Option<Vec<Key>>> {
        let why = format!(
            "lease {} of {} was not renewed for {} ms",
            lease.id,
            lease.owner,
            lease.ttl.as_millis()
        );
        done(self.registry.transact(|tx| -> TxResult<_> {
            let same = tx.entry(&lease::key(lease.id))?.is_some_and(|entry| {
                entry.revision == lease.revision || mutant::is("lease:renewal-overlooked")
            });
            if !same {
                return Ok(None);
            }
            tx.note(&self.who, &why);
            Ok(Some(tx.end_lease(lease.id)?))
        })?)
    }

    fn sweep_writers(&mut self, now: Duration, swept: &mut Swept) -> Result<()> {
        let Some(idle) = self.writer_idle else { return Ok(()) };
        let writers = writer::all(&self.registry);
        self.writers.retain(|id, _| writers.iter().any(|(known, _)| known == id));
        for (id, revision) in writers {
            let seen = see(&mut self.writers, id, revision, now);
            if now.saturating_sub(seen) < idle {
                continue;
            }
            let key = writer::key(id);
            let gone = done(self.registry.transact(|tx| -> TxResult<bool> {
                // Its last sequence is what the revision of its key stands for.
                let same = tx.entry(&key)?.is_some_and(|entry| entry.revision == revision);
                if same {
                    tx.note(&self.who, format!("writer {id} was idle for {} ms", idle.as_millis()));
                    tx.delete(&key);
                }
                Ok(same)
            })?)?;
            if gone {
                self.writers.remove(&id);
                swept.writers.push(id);
            }
        }
        Ok(())
    }

    /// Sweeps on a thread of its own until what is returned is dropped or the registry fails.
    ///
    /// # Errors
    /// `Io` if there is no thread to be had.
    pub fn in_background(self, every: Duration) -> Result<Sweeping> {
        let process = Process::here(self.registry.log().dir().clone());
        let (stop, stopped) = mpsc::channel();
        let mut sweeper = self;
        let sweeping = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                match sweeper.sweep() {
                    Ok(_) => {}
                    // Too much going on: next time.
                    Err(error) if error.kind() == crate::ErrorKind::GaveUp => {}
                    Err(error) => {
                        tracing::error!(%error, "the sweeper of leases stopped");
                        return Some(error);
                    }
                }
            }
            None
        };
        let thread = std::thread::Builder::new().name("annals-sweeper".to_owned());
        let thread = thread.spawn(sweeping).map_err(|e| Error::io("starting the sweeper", e))?;
        Ok(Sweeping { stop: Some(stop), thread: Some(thread), process })
    }
}

/// When this revision was first seen; now, if it is new.
fn see<I: Ord>(seen: &mut BTreeMap<I, Seen>, id: I, revision: Revision, now: Duration) -> Duration {
    let entry = seen.entry(id).or_insert((revision, now));
    if entry.0 != revision {
        *entry = (revision, now);
    }
    entry.1
}

/// A sweeper at work. Dropping it ends the work and waits for a sweep that is under way; in a child
/// made by fork it does neither, since the work is the parent's.
#[derive(Debug)]
#[must_use = "the sweeping ends when this is dropped"]
pub struct Sweeping {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Option<Error>>>,
    process: Process,
}

impl Sweeping {
    /// Ends the work, and says why it had ended by itself, if it had.
    ///
    /// # Errors
    /// What the last sweep failed with; `Locked` in a child made by fork.
    pub fn stop(mut self) -> Result<()> {
        self.process.check()?;
        self.end().map_or(Ok(()), Err)
    }

    fn end(&mut self) -> Option<Error> {
        if !self.process.is_here() {
            // Left as they are: the channel has a lock, and the thread is not there.
            std::mem::forget((self.stop.take(), self.thread.take()));
            return None;
        }
        self.stop = None;
        self.thread.take().and_then(|thread| thread.join().ok().flatten())
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.end();
    }
}
