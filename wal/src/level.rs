//! Levels: what an append has survived when it returns.
//!
//! Never here: a second way to write. Every level's records go through the same queue into the same
//! groups, in one order, and each group is synced; a level says only how long its caller waits. So
//! nothing here can change what *durable* means. Invariant: whoever waits for less than the sync
//! never leads, because a leader syncs. Next rooms: [`crate::commit`], [`crate::cohort`].

use std::ops::RangeInclusive;

use crate::error::Result;
use crate::ids::Lsn;
use crate::log::Log;
use crate::record::{Batch, Record};

/// How far a record has come when the append returns.
///
/// Each group is written and synced as soon as the disk is free, whatever its callers wait for: a
/// record that is only written becomes durable with its group's sync, a few milliseconds later at
/// worst on a healthy disk. [`Log::durable_lsn`] tells, and [`Log::wait_durable`] waits.
///
/// | level | kill -9 of the process | kernel crash, power cut | what the caller waits for |
/// |---|---|---|---|
/// | [`Durable`](Level::Durable) | survives | survives | the group's write and sync |
/// | [`Written`](Level::Written) | survives | may be lost | the groups before it, and its write |
/// | [`Buffered`](Level::Buffered) | may be lost | may be lost | room, and a segment (it may make it) |
///
/// What is lost is always the end of the log: if a record is there, so is every record before it.
/// The LSN that a lower level returns is the record's own if it survives. If it does not, a later
/// record may carry the same number in the next generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Level {
    /// In the queue. It survives nothing: not the end of the process, and not a write that fails, of
    /// which nobody tells this caller. Later appends are then refused as `Poisoned`.
    /// [`Log::close`] writes what was admitted. The last handle's drop leaves that to the log's own
    /// thread, which a return from `main` ends: close first.
    Buffered,
    /// In the operating system's page cache. It survives the process, not the machine. A sync that
    /// fails afterwards poisons the log as always, and the record may then be lost although this
    /// caller was told that it is written: the system may drop what it could not put on the disk.
    /// Whether the segment still has its name is looked at after the sync, for durable records.
    Written,
    /// On the disk: a sync that covered it returned success. The default.
    #[default]
    Durable,
}

impl Log {
    /// Appends one record and returns when it has come so far. [`Level::Durable`] is
    /// [`Log::append`]. The other two leave the write to the log's own thread.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use annals_wal::{Level, Log};
    ///
    /// let log = Log::open(dir.path().join("log"))?;
    /// let lsn = log.append_at(Level::Written, "survives kill -9")?;
    /// log.wait_durable(lsn)?; // and now the power may go
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Log::append`]. A group that fails before its write tells those who wait for the write
    /// that their outcome is unknown. [`Level::Buffered`] never has an unknown outcome: nobody
    /// waits to be told.
    pub fn append_at<'a>(&self, level: Level, record: impl Into<Record<'a>>) -> Result<Lsn> {
        if level == Level::Durable {
            return self.append(record);
        }
        let pending = self.submit_record(&record.into())?;
        if level == Level::Written {
            pending.wait_written()?;
        }
        Ok(*pending.lsns_if_durable().start())
    }

    /// Appends a batch, all of its records or none, and returns when it has come so far. Half of it
    /// is never there, whatever it survives.
    ///
    /// # Errors
    /// As [`Log::append_at`], and `Invalid` for an empty batch.
    pub fn append_batch_at<'a>(
        &self,
        level: Level,
        batch: impl Into<Batch<'a>>,
    ) -> Result<RangeInclusive<Lsn>> {
        if level == Level::Durable {
            return self.append_batch(batch);
        }
        let pending = self.submit(batch)?;
        if level == Level::Written {
            pending.wait_written()?;
        }
        Ok(pending.lsns_if_durable())
    }
}
