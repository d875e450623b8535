//! Rebuilds the state from the log: every transaction from LSN 1, in LSN order.
//!
//! Never here: validation. What is in the log was checked before it was ordered; replaying it
//! decides nothing. Records of other kinds belong to other rooms and are skipped unread.
//! Invariant: a state is rebuilt whole or not at all. Next room: [`crate::registry`].

use annals_wal::{Log, Lsn};

use crate::codec::{self, TRANSACTION};
use crate::error::{Error, Result};
use crate::shared::Ends;
use crate::state::{Durable, Transaction};

/// The name of the hold that keeps the registry's transactions from being trimmed.
pub const HOLD: &str = "registry";

/// Makes sure of the hold, then reads.
pub(crate) fn rebuild(log: &Log) -> Result<(Durable, Ends)> {
    keep_from_first(log)?;
    // Asked before the records are read, so that every transaction up to it is among them.
    let mut promoted = log.durable_lsn();
    let mut durable = Durable::default();
    let mut applied = None;
    for record in log.range(..).map_err(Error::of_log)? {
        let record = record.map_err(Error::of_log)?;
        if record.kind != TRANSACTION {
            continue;
        }
        let changes = codec::decode_transaction(record.lsn, &record.payload)?;
        durable.apply(Transaction { lsn: record.lsn, changes });
        applied = Some(record.lsn);
    }
    promoted = promoted.max(applied);
    Ok((durable, Ends { applied, promoted }))
}

/// Without a snapshot the whole history is needed.
fn keep_from_first(log: &Log) -> Result<()> {
    let head = log.head_lsn();
    if head > Lsn::FIRST {
        return Err(Error::trimmed(head));
    }
    // Writes nothing where the hold is there already.
    log.set_hold(HOLD, Lsn::FIRST).map_err(Error::of_log)
}
