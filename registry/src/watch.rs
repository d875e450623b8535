//! Watches: what changed after a revision, without a gap, then what changes.
//!
//! Never here: a buffer of what is to come; the log is that. A watch is one reader of the log that
//! goes from history to the present without changing hands, so there is no gap; a reader that is
//! overtaken by a trim says so, so there is no silence.
//! Invariants: a transaction is delivered whole (as far as the prefix covers it), durable, once,
//! in order; after [`Event::Lagged`] and after an error nothing comes, and nothing ends without one
//! of the two while its registry lives. Next rooms: `stream`, [`crate::history`].

mod stream;

use std::sync::{Arc, Weak};
use std::time::Duration;

use annals_wal::{Follow, LogReader, Lsn};

pub use stream::WatchStream;

use crate::bell::Bell;
use crate::change::{Change, Note};
use crate::codec::{self, TRANSACTION};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Prefix;
use crate::mutant;
use crate::process::Process;
use crate::reader;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::source::{OURS, Source};
use crate::value::Revision;

/// How long a watch waits before it looks by itself: another room's failure rings no bell.
const TICK: Duration = Duration::from_millis(100);

/// Where a watch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// With the first transaction that the log has kept.
    Start,
    /// With the first one after this revision: one from an entry, or from [`Event::Progress`].
    Revision(Revision),
    /// With the first one after what is durable now.
    Now,
}

/// What a watch tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A transaction changed something that the prefix covers.
    Changed {
        /// The transaction.
        revision: Revision,
        /// Who and why, if anybody said so.
        note: Option<Note>,
        /// Its changes at and below the prefix.
        changes: Vec<Change>,
    },
    /// Nothing up to this revision is left to tell: store it, and begin after it next time.
    Progress(Revision),
    /// The log was trimmed past this watch: what came after `last` can no longer be told. Read the
    /// state, and begin a new watch after its revision. Nothing follows.
    Lagged {
        /// The last revision told, or the one that the watch began after.
        last: Option<Revision>,
    },
}

/// A watch; see [`Registry::watch`]. As an iterator it waits for what comes, and ends when the
/// registry is dropped or closed.
#[derive(Debug)]
pub struct Watch {
    follow: Follow,
    prefix: Prefix,
    owner: Option<Owner>,
    process: Process,
    /// Everything up to here was told.
    told: Option<Lsn>,
    /// The last progress that was told, or where the watch began.
    progressed: Option<Lsn>,
    ended: bool,
}

/// The registry in this process; none where another one owns the log.
#[derive(Debug)]
struct Owner {
    bell: Arc<Bell>,
    shared: Weak<Shared>,
}

impl Registry {
    /// Watches the keys at and below `prefix`, from a revision on: first what has changed since,
    /// then what changes. The watch keeps nothing from being trimmed; if it is overtaken it ends
    /// with [`Event::Lagged`].
    ///
    /// # Errors
    /// `Trimmed` if what came after the revision is not kept any more; `Invalid` for a revision
    /// that is not durable here.
    ///
    /// ```
    /// use annals_registry::{After, Event, Key, Prefix, Registry, Value};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let first = registry.put(&Key::new("agents/A7")?, Value::json(&1)?)?;
    /// let second = registry.put(&Key::new("agents/A8")?, Value::json(&2)?)?;
    ///
    /// let mut watch = registry.watch(Prefix::new("agents")?, After::Revision(first))?;
    /// let Some(Event::Changed { revision, .. }) = watch.try_next()? else { panic!() };
    /// assert_eq!(revision, second);
    /// assert_eq!(watch.try_next()?, Some(Event::Progress(second)));
    /// assert_eq!(watch.try_next()?, None, "nothing more for now");
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, prefix: Prefix, after: After) -> Result<Watch> {
        let shared = self.shared();
        let owner = Owner { bell: shared.bell.clone(), shared: Arc::downgrade(shared) };
        shared.look();
        let durable = shared.log.durable_lsn();
        if let After::Revision(revision) = after
            && Some(revision.lsn()) > durable
        {
            return Err(Error::out_of_range(revision.lsn(), durable));
        }
        let begin = match after {
            After::Start => None,
            After::Revision(revision) => Some(Some(revision.lsn())),
            After::Now => Some(durable),
        };
        Watch::of(Source::Own(&shared.log), prefix, begin, Some(owner))
    }
}

impl Watch {
    /// A watch of a log that another process owns, whose state was read up to `read`. `After::Now`
    /// is what is durable as far as this process can tell when it is called.
    ///
    /// The owner may trim at any moment. What this looks at before the watch begins is looked at
    /// anew then: a watch that began behind the head would end with its first look.
    pub(crate) fn foreign(
        log: &LogReader,
        prefix: &Prefix,
        after: After,
        read: Option<Lsn>,
    ) -> Result<Watch> {
        // The head of the reader that read the state may be long gone.
        reader::anew(
            || LogReader::open_in(log.dir().clone()),
            |now| {
                let made = Watch::foreign_once(Source::Foreign(&now), prefix, after, read);
                match (made, after) {
                    // A revision that was trimmed does not come back.
                    (Err(error), After::Revision(revision))
                        if revision.lsn().next() < Some(now.head_lsn()) =>
                    {
                        Ok(Err(error))
                    }
                    (made, _) => made.map(Ok),
                }
            },
        )?
    }

    fn foreign_once(
        source: Source<'_>,
        prefix: &Prefix,
        after: After,
        read: Option<Lsn>,
    ) -> Result<Watch> {
        let head = source.head();
        let begin = match after {
            After::Start => None,
            After::Revision(revision) => {
                let lsn = revision.lsn();
                if lsn >= head {
                    let first = source
                        .all_records(lsn)
                        .and_then(|mut records| records.next().transpose().map_err(Error::of_log));
                    if first.map_err(|error| trimmed(error, lsn, head))?.is_none() {
                        return Err(Error::out_of_range(lsn, None));
                    }
                }
                Some(Some(lsn))
            }
            After::Now => {
                let known = read.filter(|read| *read >= head);
                Some(last_of(source, known.unwrap_or(head))?.or(known).or(before(head)))
            }
        };
        Watch::of(source, prefix.clone(), begin, None)
    }

    /// `after`: `None` for the head, `Some(None)` for before the first.
    fn of(
        source: Source<'_>,
        prefix: Prefix,
        after: Option<Option<Lsn>>,
        owner: Option<Owner>,
    ) -> Result<Watch> {
        let told = after.unwrap_or_else(|| before(source.head()));
        let from = told.map_or(Some(Lsn::FIRST), Lsn::next);
        let from = from.ok_or_else(|| Error::invalid("no LSN follows this revision"))?;
        let from = if mutant::is("watch:skips-one") { from.next().unwrap_or(from) } else { from };
        let follow = source.follow(from).map_err(|error| trimmed(error, from, source.head()))?;
        let (follow, process) = (follow.only(OURS), Process::here(source.dir()));
        Ok(Watch { follow, prefix, owner, process, told, progressed: told, ended: false })
    }

    /// The next event if there is one by now. Never waits.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported` or the log's own. Nothing follows.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        if self.ended {
            return Ok(None);
        }
        let found = self.admit().and_then(|()| self.find());
        self.ended = matches!(found, Err(_) | Ok(Some(Event::Lagged { .. })));
        found
    }

    /// The owner's registry has locks that a forked child must not touch.
    fn admit(&self) -> Result<()> {
        if self.owner.is_some() { self.process.check() } else { Ok(()) }
    }

    fn find(&mut self) -> Result<Option<Event>> {
        loop {
            match self.follow.try_next_ref() {
                Ok(Some(record)) if record.kind == TRANSACTION => {
                    let lsn = record.lsn;
                    let committed = codec::decode_committed(lsn, record.payload)?;
                    let mut changes = committed.changes;
                    changes.retain(|change| self.prefix.covers(change.key()));
                    if !changes.is_empty() {
                        self.told = Some(lsn);
                        let (revision, note) = (Revision::new(lsn), committed.note);
                        return Ok(Some(Event::Changed { revision, note, changes }));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(self.progress()),
                Err(error) if error.kind() == annals_wal::ErrorKind::Trimmed => {
                    return Ok(Some(Event::Lagged { last: self.told.map(Revision::new) }));
                }
                Err(error) => return Err(Error::of_log(error)),
            }
        }
    }

    /// Once for each end that was reached.
    fn progress(&mut self) -> Option<Event> {
        let next = self.follow.position()?.get();
        let end = Lsn::new(next - 1)?;
        if self.progressed >= Some(end) {
            return None;
        }
        (self.told, self.progressed) = (Some(end), Some(end));
        Some(Event::Progress(Revision::new(end)))
    }

    /// The next event; waits at most about `timeout` for one.
    ///
    /// # Errors
    /// As [`Watch::try_next`]; `Poisoned` or the log's `Closed` once all that is durable was told.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let mut left = timeout;
        loop {
            if let Err(error) = self.admit() {
                let told = std::mem::replace(&mut self.ended, true);
                return if told { Ok(None) } else { Err(error) };
            }
            let rings = self.owner.as_ref().map_or(0, |owner| owner.bell.rings());
            let alive = self.alive();
            // Looked at after that, so that nothing durable is missed at the end.
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            if self.ended || left.is_zero() {
                return Ok(None);
            }
            if let Err(why) = alive {
                self.ended = true;
                return why.map_or(Ok(None), Err);
            }
            let tick = TICK.min(left);
            left -= tick;
            self.wait(rings, tick);
        }
    }

    fn wait(&self, rings: u64, tick: Duration) {
        match &self.owner {
            Some(owner) => owner.bell.wait(rings, tick),
            None => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "another process's progress can only be polled"
                )]
                std::thread::sleep(tick.min(Duration::from_millis(10)));
            }
        }
    }

    /// Whether anything can still come; `Err(None)`: the registry is gone.
    fn alive(&self) -> std::result::Result<(), Option<Error>> {
        let Some(owner) = &self.owner else { return Ok(()) };
        let Some(shared) = owner.shared.upgrade() else { return Err(None) };
        if owner.bell.is_closed() || shared.log.is_closed() {
            return Err(None);
        }
        match shared.log.poisoned() {
            Some(error) => Err(Some(Error::poisoned(error))),
            None => Ok(()),
        }
    }

    /// As a stream, for async callers: a thread reads ahead into a buffer of this many events (at
    /// least 1) and waits where it is full, so that polling never does I/O.
    ///
    /// # Errors
    /// `Io` if there is no thread to be had.
    pub fn into_stream(self, events_max: usize) -> Result<WatchStream> {
        WatchStream::of(self, events_max.max(1))
    }
}

impl Iterator for Watch {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        while !self.ended {
            if let Some(event) = self.next_timeout(TICK).transpose() {
                return Some(event);
            }
        }
        None
    }
}

/// The LSN before this one; `None` before the first.
fn before(lsn: Lsn) -> Option<Lsn> {
    lsn.get().checked_sub(1).and_then(Lsn::new)
}

/// The last durable record of the registry's, from `from` on.
fn last_of(source: Source<'_>, from: Lsn) -> Result<Option<Lsn>> {
    let mut records = source.all_records(from)?.only(OURS);
    let mut last = None;
    while let Some(record) = records.next_ref() {
        last = Some(record.map_err(Error::of_log)?.lsn);
    }
    Ok(last)
}

fn trimmed(error: Error, from: Lsn, head: Lsn) -> Error {
    match error.kind() {
        ErrorKind::Log(annals_wal::ErrorKind::Trimmed) => Error::watch_trimmed(from, head),
        _ => error,
    }
}
