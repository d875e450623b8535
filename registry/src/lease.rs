//! Leases: keys that last only as long as somebody says that he lives.
//!
//! Never here: time. A lease is a key of the registry's own with a ttl and a number of renewals;
//! no deadline is stored anywhere, and whether a ttl has passed only a sweeper knows, by its own
//! clock ([`crate::sweep`]).
//! Invariants: whatever is bound to a lease had the lease in its read set; what a sweep or a
//! revocation deletes is bound to this lease at that moment, and to no other; ids are never used
//! again. Next room: [`crate::sweep`].

use std::time::Duration;

use crate::change::{Change, Outcome, TxResult};
use crate::codec::{self, System};
use crate::error::{Error, Result};
use crate::ids::LeaseId;
use crate::key::{Key, Prefix};
use crate::registry::Registry;
use crate::tx::Tx;
use crate::value::{Entry, Revision, Value};

const ROOM: &str = "leases";

/// At most this many bytes in the owner's name.
const OWNER_BYTES_MAX: usize = 1024;

/// The key under which a lease is kept.
pub(crate) fn key(lease: LeaseId) -> Key {
    Key::system(ROOM, lease.get())
}

/// A lease as it was at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// For how long a sweeper must have seen no renewal before it may expire it. Milliseconds.
    pub ttl: Duration,
    /// Who asked for it: for people.
    pub owner: String,
    /// How often it was renewed.
    pub renewals: u64,
    /// The transaction that granted or last renewed it.
    pub revision: Revision,
}

impl Lease {
    pub(crate) fn read(id: LeaseId, entry: &Entry) -> Result<Lease> {
        let lsn = entry.revision.lsn();
        match codec::decode_system(lsn, &entry.value)? {
            System::LeaseV1 { ttl_ms, owner, renewals } => Ok(Lease {
                id,
                ttl: Duration::from_millis(ttl_ms),
                owner,
                renewals,
                revision: entry.revision,
            }),
            System::WriterV1 { .. } => Err(Error::corrupt(lsn, "a writer stands under a lease")),
        }
    }

    fn write(&self) -> Result<Value> {
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let (owner, renewals) = (self.owner.clone(), self.renewals);
        codec::encode_system(&System::LeaseV1 { ttl_ms, owner, renewals })
    }
}

impl Registry {
    /// Grants a new lease. Durable on return. It lasts until it is revoked or a
    /// [`crate::Sweeper`] has seen it for `ttl` without a renewal; without a sweeper, for ever.
    ///
    /// # Errors
    /// `Invalid` for a ttl under a millisecond or an owner's name over 1024 bytes; else as
    /// [`Registry::put`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals_registry::{Key, Registry, Value};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let lease = registry.grant(Duration::from_secs(10), "agent A7")?;
    /// let agent = Key::new("tasks/T1/agents/A7")?;
    /// registry.put_leased(&agent, Value::json("working")?, lease.id)?;
    /// let renewed = registry.keep_alive(lease.id)?;
    /// assert_eq!(renewed.renewals, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn grant(&self, ttl: Duration, owner: impl Into<String>) -> Result<Lease> {
        let owner = owner.into();
        if ttl.as_millis() == 0 || owner.len() > OWNER_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a lease lasts at least a millisecond, and its owner's name has at most \
                 {OWNER_BYTES_MAX} bytes"
            )));
        }
        let ttl = Duration::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let id = LeaseId::random(self.log())?;
        let outcome = self.transact(|tx| -> TxResult<Value> {
            let revision = Revision::new(annals_wal::Lsn::FIRST);
            let value = Lease { id, ttl, owner: owner.clone(), renewals: 0, revision }.write()?;
            tx.put(&key(id), value.clone());
            Ok(value)
        })?;
        self.made(id, outcome)
    }

    /// Says that the owner lives: a sweeper begins to wait anew. Durable on return.
    ///
    /// # Errors
    /// `LeaseExpired` if the lease is not there any more; else as [`Registry::transact`].
    pub fn keep_alive(&self, lease: LeaseId) -> Result<Lease> {
        let outcome = self.transact(|tx| -> TxResult<Value> {
            let mut now = tx.lease(lease)?;
            now.renewals = now.renewals.saturating_add(1);
            let value = now.write()?;
            tx.put(&key(lease), value.clone());
            Ok(value)
        })?;
        self.made(lease, outcome)
    }

    /// Ends a lease now: deletes the keys bound to it, and it, in one transaction whose note says
    /// who and why. Returns the keys. Durable on return.
    ///
    /// # Errors
    /// As [`Registry::keep_alive`].
    pub fn revoke(&self, lease: LeaseId, who: &str, why: &str) -> Result<Vec<Key>> {
        let outcome = self.transact(|tx| -> TxResult<Vec<Key>> {
            tx.lease(lease)?;
            tx.note(who, why);
            Ok(tx.end_lease(lease)?)
        })?;
        done(outcome)
    }

    /// The lease, if it is there, from the durable state.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be read.
    pub fn lease(&self, lease: LeaseId) -> Result<Option<Lease>> {
        self.get(&key(lease)).map(|entry| Lease::read(lease, &entry)).transpose()
    }

    /// All leases there are, from the durable state.
    ///
    /// # Errors
    /// `Corrupt` if one cannot be read.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        let all = self.scan(&Prefix::system(ROOM)).into_iter();
        let id = |key: &Key| key.system_id(ROOM).map(LeaseId);
        all.filter_map(|(key, entry)| Some(Lease::read(id(&key)?, &entry))).collect()
    }

    /// [`Registry::put`], bound to a lease: when that has expired, the key goes.
    ///
    /// # Errors
    /// `LeaseExpired` if the lease is not there; else as [`Registry::commit`].
    pub fn put_leased(&self, key: &Key, value: Value, lease: LeaseId) -> Result<Revision> {
        match self.commit(&[], &[Change::PutLeased { key: key.clone(), value, lease }])? {
            crate::Commit::Done(revision) => Ok(revision),
            // Not reached: there is no precondition.
            crate::Commit::Conflict { .. } => Err(Error::gave_up(0)),
        }
    }

    fn made(
        &self,
        id: LeaseId,
        outcome: Outcome<Value, std::convert::Infallible>,
    ) -> Result<Lease> {
        match outcome {
            Outcome::Done { value, revision: Some(revision) } => {
                Lease::read(id, &Entry { value, revision, lease: None })
            }
            other => done(other).and(Err(Error::lease_expired(id))),
        }
    }
}

impl Tx<'_> {
    /// The lease as this transaction reads it.
    ///
    /// # Errors
    /// `LeaseExpired` if it is not there; `Restart`: see [`Tx`].
    pub fn lease(&mut self, lease: LeaseId) -> Result<Lease> {
        match self.entry(&key(lease))? {
            Some(entry) => Lease::read(lease, &entry),
            None => Err(Error::lease_expired(lease)),
        }
    }

    /// Deletes a lease and what is bound to it when the transaction commits.
    pub(crate) fn end_lease(&mut self, lease: LeaseId) -> Result<Vec<Key>> {
        let bound = self.bound(lease)?;
        for key in &bound {
            self.delete(key);
        }
        self.delete(&key(lease));
        Ok(bound.into_iter().collect())
    }
}

/// The value of an outcome that cannot be an abort.
pub(crate) fn done<T>(outcome: Outcome<T, std::convert::Infallible>) -> Result<T> {
    match outcome {
        Outcome::Done { value, .. } => Ok(value),
        Outcome::Conflict { attempts, .. } => Err(Error::gave_up(attempts)),
        Outcome::Aborted(never) => match never {},
    }
}
