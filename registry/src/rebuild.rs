//! Rebuilds the state: the newest snapshot that can be used, and every transaction after it, in LSN
//! order.
//!
//! Never here: validation of transactions. What is in the log was checked before it was ordered;
//! replaying it decides nothing. Records of other kinds belong to other rooms and are skipped
//! unread.
//! Invariant: a state is rebuilt whole or not at all: from a snapshot after which every LSN is
//! kept, or from LSN 1. Next room: [`crate::registry`].

use annals_wal::{ErrorKind as LogErrorKind, Log, Lsn};

use crate::codec::{self, TRANSACTION};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Meter;
use crate::mutant;
use crate::shared::Ends;
use crate::snapshot;
use crate::source::Source;
use crate::state::{Durable, Transaction};

/// The name of the hold that keeps from being trimmed what the snapshots do not hold.
pub const HOLD: &str = "registry";

/// What a rebuilding led to.
pub(crate) struct Rebuilt {
    pub(crate) durable: Durable,
    pub(crate) ends: Ends,
    /// Bytes of transactions that were read after the snapshot.
    pub(crate) replayed_bytes: u64,
}

/// Makes sure of the hold, then reads.
pub(crate) fn rebuild(log: &Log, meter: &Meter) -> Result<Rebuilt> {
    // Another process may make a snapshot and trim between our look at the one and at the other.
    const TRIES: u32 = 10;
    for _ in 1..TRIES {
        match rebuild_once(log, meter) {
            Err(error) if log.is_shared() && is_trimmed(&error) => {
                log.refresh().map_err(Error::of_log)?;
            }
            other => return other,
        }
    }
    rebuild_once(log, meter)
}

/// Met by the look at the head, or by the log as it read.
fn is_trimmed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Trimmed | ErrorKind::Log(LogErrorKind::Trimmed))
}

fn rebuild_once(log: &Log, meter: &Meter) -> Result<Rebuilt> {
    let source = Source::Own(log);
    let base = base(source, None, Some(meter))?;
    keep(log, base.applied())?;
    // Asked before the records are read, so that every transaction up to it is among them.
    let promoted = log.durable_lsn();
    let (durable, replayed_bytes) = replay(source, base, None)?;
    let applied = durable.applied();
    let ends = Ends { applied, promoted: promoted.max(applied) };
    Ok(Rebuilt { durable, ends, replayed_bytes })
}

/// The state as it was after the transaction at `until`, or as it is: one base, one replay, for all
/// who read and own nothing.
pub(crate) fn state(source: Source<'_>, until: Option<Lsn>) -> Result<Durable> {
    let base = base(source, until, None)?;
    match (replay(source, base, until), until) {
        // Somebody trimmed meanwhile.
        (Err(error), Some(lsn)) if error.kind() == ErrorKind::Log(LogErrorKind::Trimmed) => {
            Err(Error::no_base(lsn, source.head()))
        }
        (replayed, _) => Ok(replayed?.0),
    }
}

/// The state at the newest snapshot at or below `at_most` that can be used; empty where LSN 1 is
/// kept and there is none.
fn base(source: Source<'_>, at_most: Option<Lsn>, meter: Option<&Meter>) -> Result<Durable> {
    let dir = source.dir();
    let listed = snapshot::list(&*dir)?;
    // What was listed was durable before it had its name, also if another process wrote it.
    source.read_on()?;
    for lsn in listed {
        let reached = lsn.next().is_some_and(|next| next >= source.head());
        if at_most.is_some_and(|at_most| lsn > at_most) || !reached {
            continue;
        }
        let read = match snapshot::read(&*dir, lsn) {
            // Another process has tidied it away since.
            Err(_) if source.is_shared() && !snapshot::list(&*dir)?.contains(&lsn) => continue,
            read => read?,
        };
        match read {
            Ok(snapshot) => {
                snapshot.check_log(source)?;
                return Ok(snapshot.into_state());
            }
            Err(why) => {
                tracing::warn!(%lsn, why = why.0, "a registry snapshot is damaged");
                if let Some(meter) = meter {
                    meter.corrupt();
                }
            }
        }
    }
    if source.head() > Lsn::FIRST && !mutant::is("snapshot:half-a-state") {
        return Err(match at_most {
            Some(lsn) => Error::no_base(lsn, source.head()),
            None => Error::trimmed(source.head()),
        });
    }
    Ok(Durable::default())
}

/// Adds the transactions after the base, up to `until`. Also how many bytes they had.
fn replay(source: Source<'_>, mut durable: Durable, until: Option<Lsn>) -> Result<(Durable, u64)> {
    let mut bytes = 0;
    each_after(source, durable.applied(), until, |transaction, payload_bytes| {
        bytes += payload_bytes;
        durable.apply(transaction);
    })?;
    Ok((durable, bytes))
}

/// The durable transactions after `base`, up to `until`, in order, each with its length in bytes.
pub(crate) fn each_after(
    source: Source<'_>,
    base: Option<Lsn>,
    until: Option<Lsn>,
    mut take: impl FnMut(Transaction, u64),
) -> Result<()> {
    // Not the head of by now: a trim since the base was chosen must be told, not passed over.
    let Some(from) = base.map_or(Some(Lsn::FIRST), Lsn::next) else { return Ok(()) };
    let mut records = source.records(from)?;
    while let Some(record) = records.next_ref() {
        let record = record.map_err(Error::of_log)?;
        if until.is_some_and(|until| record.lsn > until) {
            break;
        }
        if record.kind == TRANSACTION {
            let changes = codec::decode_all(record.lsn, record.payload)?.changes;
            take(Transaction { lsn: record.lsn, changes }, record.payload.len() as u64);
        }
    }
    Ok(())
}

/// Makes sure that the log is held from where the base ends. A hold that keeps more stays: an older
/// snapshot may need it.
fn keep(log: &Log, base: Option<Lsn>) -> Result<()> {
    let needed = base.and_then(Lsn::next).unwrap_or(Lsn::FIRST).max(log.head_lsn());
    let hold = log.holds().into_iter().find(|(name, _)| name == HOLD);
    if hold.is_some_and(|(_, lsn)| lsn <= needed) {
        return Ok(());
    }
    log.set_hold(HOLD, needed).map_err(Error::of_log)
}

#[cfg(test)]
mod tests;
