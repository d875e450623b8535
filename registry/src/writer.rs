//! Writers and sequences: how a retry after *unknown* is recognised.
//!
//! Never here: the decision to retry. A writer is a key of the registry's own that says which of
//! its transactions was committed last, and by what request; every transaction of the writer reads
//! it and writes it, so the answer is in the same transaction as what was asked for.
//! Invariants: a writer has at most one transaction without a known outcome; only committed
//! transactions consume a sequence; an equal request with the last sequence is never applied
//! again. Next room: [`crate::registry`].

use std::sync::{Mutex, PoisonError};

use annals_wal::{Before, Joint, NoneBefore};

use crate::change::{Abort, Change, Expected, Outcome, Precondition, TxResult};
use crate::codec::{self, System};
use crate::error::{Error, Result};
use crate::ids::WriterId;
use crate::key::{Key, Prefix};
use crate::lease::done;
use crate::mutant;
use crate::registry::{Registry, check_changes};
use crate::tx::Tx;
use crate::value::{Entry, Revision};

const ROOM: &str = "writers";

/// The key under which a writer is kept.
pub(crate) fn key(writer: WriterId) -> Key {
    Key::system(ROOM, writer.get())
}

/// Every writer, and the transaction that it last committed.
pub(crate) fn all(registry: &Registry) -> Vec<(WriterId, Revision)> {
    let all = registry.scan(&Prefix::system(ROOM)).into_iter();
    all.filter_map(|(key, entry)| Some((WriterId(key.system_id(ROOM)?), entry.revision))).collect()
}

/// What became of a writer's transaction.
#[must_use = "a lost race is not an error: look what became of it"]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written<T, C> {
    /// Made and durable now.
    Done {
        /// What the closure returned.
        value: T,
        /// The new revision of every key it changed; `None` if it changed none, and then it has
        /// consumed no sequence.
        revision: Option<Revision>,
    },
    /// The same request was made before, by this transaction; nothing was applied again.
    AlreadyDone(Revision),
    /// Not made: a precondition that did not hold, or the closure's own reason. Nothing was
    /// changed, and no sequence is consumed.
    Refused(C),
}

/// One writer: its id and the sequence of its next transaction. It makes one at a time.
///
/// ```
/// use annals_registry::{Change, Key, Registry, Value, Written};
/// # use annals_wal::Log;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
/// let mut writer = registry.writer()?;
/// let (id, sequence) = (writer.id(), writer.sequence()); // keep these
/// let change = [Change::Put { key: Key::new("k")?, value: Value::json(&1)? }];
/// let Written::Done { revision: Some(made), .. } = writer.commit(&[], &change)? else { panic!() };
///
/// // The outcome was lost: the log was opened again, and the same is asked once more.
/// let mut again = registry.resume_writer(id, sequence);
/// assert_eq!(again.commit(&[], &change)?, Written::AlreadyDone(made));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer {
    registry: Registry,
    id: WriterId,
    sequence: u64,
    /// The last call's outcome is unknown.
    in_doubt: bool,
}

/// What a writer's own key says to a request.
enum Verdict {
    Proceed,
    Already(Revision),
}

/// A precondition that did not hold: the key, and what it was instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Met {
    /// The key.
    pub key: Key,
    /// What it was; durable.
    pub current: Option<Entry>,
}

impl Registry {
    /// Registers a new writer. Durable on return.
    ///
    /// # Errors
    /// As [`Registry::put`].
    pub fn writer(&self) -> Result<Writer> {
        let id = WriterId::random(self.log())?;
        done(self.transact(|tx| -> TxResult<()> {
            tx.put(&key(id), codec::encode_system(&System::WriterV1 { sequence: 0, request: 0 })?);
            Ok(())
        })?)?;
        Ok(Writer { registry: self.clone(), id, sequence: 1, in_doubt: false })
    }

    /// A writer that was registered before, whose next transaction has this sequence: to ask again
    /// for one whose outcome is unknown, after the log was opened again. Nothing is read yet.
    pub fn resume_writer(&self, id: WriterId, sequence: u64) -> Writer {
        Writer { registry: self.clone(), id, sequence, in_doubt: false }
    }
}

impl Writer {
    /// Its id: keep it with the sequence, to ask again after a crash.
    pub fn id(&self) -> WriterId {
        self.id
    }

    /// The sequence of its next transaction, or of the one whose outcome is unknown.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the last call's outcome is unknown. Nothing more goes through this value then: open
    /// the log again, and [`Registry::resume_writer`] there.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// [`Registry::commit`] as this writer's next transaction, or as the retry of its last one: the
    /// same preconditions and changes with the same sequence are made once.
    ///
    /// # Errors
    /// `BadSequence`, `WriterExpired`; else as [`Registry::commit`].
    pub fn commit(
        &mut self,
        preconditions: &[Precondition],
        changes: &[Change],
    ) -> Result<Written<(), Met>> {
        self.joint(preconditions, changes).commit(&mut NoneBefore)
    }

    /// [`Writer::commit`] as a [`Joint`]: to be made together with an entry of an observer, in one
    /// batch (`Call::end_with` there). Nothing is done before that. The observer redacts its entry
    /// and nothing of this: keys, values and the writer's id are stored as they are. A retry that is
    /// recognised, and a commit that is refused, leave the entry out.
    pub fn joint<'w>(
        &'w mut self,
        preconditions: &'w [Precondition],
        changes: &'w [Change],
    ) -> JointCommit<'w> {
        JointCommit { writer: self, preconditions, changes }
    }

    fn commit_after(
        &mut self,
        preconditions: &[Precondition],
        changes: &[Change],
        before: &mut dyn Before,
    ) -> Result<Written<(), Met>> {
        check_changes(changes)?;
        let request = request_of(preconditions, changes)?;
        self.run(request, before, |tx| {
            for Precondition { key, expected } in preconditions {
                let current = tx.entry(key)?;
                if !expected.holds(current.as_ref()) {
                    return Err(Abort::Because(Met { key: key.clone(), current }));
                }
            }
            for change in changes {
                tx.apply(change)?;
            }
            Ok(())
        })
    }

    /// [`Registry::transact`] as this writer's next transaction, or as the retry of its last one.
    /// `token` names the request: a retry brings the same, another transaction another one.
    ///
    /// # Errors
    /// As [`Writer::commit`], and what the closure failed with.
    ///
    /// # Panics
    /// As [`Registry::transact`].
    pub fn transact<T, E>(
        &mut self,
        token: &[u8],
        closure: impl FnMut(&mut Tx<'_>) -> TxResult<T, E>,
    ) -> Result<Written<T, E>> {
        self.run(crc32fast::hash(token), &mut NoneBefore, closure)
    }

    fn run<T, E>(
        &mut self,
        request: u32,
        before: &mut dyn Before,
        mut closure: impl FnMut(&mut Tx<'_>) -> TxResult<T, E>,
    ) -> Result<Written<T, E>> {
        if self.in_doubt {
            return Err(Error::bad_sequence(
                self.id,
                self.sequence,
                self.sequence - 1,
                "the outcome of that is unknown; open the log again and resume the writer there",
            ));
        }
        let (id, sequence) = (self.id, self.sequence);
        let ran =
            self.registry.transact_after(before, |tx| match verdict(tx, id, sequence, request)? {
                Verdict::Already(revision) => Ok((None, Some(revision))),
                Verdict::Proceed => {
                    let value = closure(tx)?;
                    if tx.has_writes() {
                        let system = System::WriterV1 { sequence, request };
                        tx.put(&key(id), codec::encode_system(&system)?);
                    }
                    Ok((Some(value), None))
                }
            });
        match ran {
            Ok(Outcome::Done { value: (Some(value), _), revision }) => {
                self.sequence += u64::from(revision.is_some());
                Ok(Written::Done { value, revision })
            }
            Ok(Outcome::Done { value: (None, already), .. }) => {
                self.sequence += 1;
                let unread = || Error::invalid("a retry that was recognised has a revision");
                already.map(Written::AlreadyDone).ok_or_else(unread)
            }
            Ok(Outcome::Aborted(reason)) => Ok(Written::Refused(reason)),
            Ok(Outcome::Conflict { attempts, .. }) => Err(Error::gave_up(attempts)),
            Err(error) => {
                self.in_doubt |= error.outcome_unknown();
                Err(error)
            }
        }
    }
}

/// A writer's transaction that is ready to be committed together with another room's records.
#[derive(Debug)]
#[must_use = "nothing is committed before it is given to the other room"]
pub struct JointCommit<'w> {
    writer: &'w mut Writer,
    preconditions: &'w [Precondition],
    changes: &'w [Change],
}

impl Joint for JointCommit<'_> {
    type Done = Written<(), Met>;
    type Failure = Error;

    fn commit(self, before: &mut dyn Before) -> Result<Self::Done> {
        self.writer.commit_after(self.preconditions, self.changes, before)
    }
}

/// Asked before anything else of a request is looked at.
fn verdict(tx: &mut Tx<'_>, id: WriterId, sequence: u64, request: u32) -> Result<Verdict> {
    let Some(entry) = tx.entry(&key(id))? else { return Err(Error::writer_expired(id)) };
    let lsn = entry.revision.lsn();
    let System::WriterV1 { sequence: last, request: made } =
        codec::decode_system(lsn, &entry.value)?
    else {
        return Err(Error::corrupt(lsn, "a lease stands under a writer"));
    };
    let bad = |why| Err(Error::bad_sequence(id, sequence, last, why));
    if last.checked_add(1) == Some(sequence) || mutant::is("writer:any-sequence") {
        Ok(Verdict::Proceed)
    } else if sequence == last && last > 0 && (request == made || mutant::is("writer:any-request"))
    {
        Ok(Verdict::Already(entry.revision))
    } else if sequence == last {
        bad("that was another request")
    } else if sequence < last {
        bad("later ones were made since, and what became of this one is not kept")
    } else {
        bad("the ones between are missing")
    }
}

/// A checksum of everything that was asked for.
fn request_of(preconditions: &[Precondition], changes: &[Change]) -> Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    for Precondition { key, expected } in preconditions {
        let expected = match expected {
            Expected::Absent => 0,
            Expected::Any => u64::MAX,
            Expected::At(revision) => revision.lsn().get(),
        };
        hasher.update(&(key.as_str().len() as u64).to_le_bytes());
        hasher.update(key.as_str().as_bytes());
        hasher.update(&expected.to_le_bytes());
    }
    hasher.update(&codec::encode_transaction(changes, None)?);
    Ok(hasher.finalize())
}

/// Writers for a handle that several threads use: each takes one for as long as it has a
/// transaction under way.
#[derive(Debug)]
pub struct Writers {
    registry: Registry,
    idle: Mutex<Vec<Writer>>,
}

impl Writers {
    /// None yet: they are registered as they are needed.
    pub fn new(registry: Registry) -> Writers {
        Writers { registry, idle: Mutex::new(Vec::new()) }
    }

    /// Lends an idle writer, or a new one, to `call`. It comes back afterwards, unless the outcome
    /// of its last transaction is unknown.
    ///
    /// # Errors
    /// As [`Registry::writer`]; what `call` returns is its own.
    pub fn with<T>(&self, call: impl FnOnce(&mut Writer) -> T) -> Result<T> {
        // Before the lock, which in a forked child nobody may ever leave.
        self.registry.log().check_process().map_err(Error::of_log)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut writer = idle.map_or_else(|| self.registry.writer(), Ok)?;
        let result = call(&mut writer);
        if !writer.in_doubt {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
        }
        Ok(result)
    }
}
