//! Where a registry is rebuilt from: the log of this process, or one that another process owns.
//!
//! Never here: writes. Invariant: both give durable records only. Next room: [`crate::rebuild`].

use std::sync::Arc;

use annals_wal::fs::Dir;
use annals_wal::{Filter, Follow, Generation, Log, LogId, LogReader, Lsn, Records};

use crate::codec::{CHECKPOINT, TRANSACTION};
use crate::error::{Error, Result};

/// A log to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'l> {
    Own(&'l Log),
    Foreign(&'l LogReader),
}

/// The registry's records.
pub(crate) const OURS: Filter = Filter::new().kinds(TRANSACTION..=CHECKPOINT);

impl Source<'_> {
    pub(crate) fn dir(self) -> Arc<dyn Dir> {
        match self {
            Source::Own(log) => log.dir().clone(),
            Source::Foreign(reader) => reader.dir().clone(),
        }
    }

    /// Whether other processes write the log that is ours.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Source::Own(log) if log.is_shared())
    }

    /// Takes in what other processes have made durable by now.
    pub(crate) fn read_on(self) -> Result<()> {
        match self {
            Source::Own(log) => log.refresh().map_err(Error::of_log),
            Source::Foreign(_) => Ok(()),
        }
    }

    /// The registry's records from an LSN on, up to what is durable now.
    pub(crate) fn records(self, from: Lsn) -> Result<Records> {
        Ok(self.all_records(from)?.only(OURS))
    }

    pub(crate) fn all_records(self, from: Lsn) -> Result<Records> {
        match self {
            // A range that begins after the last record is empty, as it should be.
            Source::Own(log) => log.range(from..),
            Source::Foreign(reader) => reader.range(from..),
        }
        .map_err(Error::of_log)
    }

    pub(crate) fn follow(self, from: Lsn) -> Result<Follow> {
        match self {
            Source::Own(log) => log.follow(from),
            Source::Foreign(reader) => reader.follow(from),
        }
        .map_err(Error::of_log)
    }

    /// The first LSN kept; of a foreign log, as it was when its reader was opened.
    pub(crate) fn head(self) -> Lsn {
        match self {
            Source::Own(log) => log.head_lsn(),
            Source::Foreign(reader) => reader.head_lsn(),
        }
    }

    pub(crate) fn log_id(self) -> Option<LogId> {
        match self {
            Source::Own(log) => Some(log.log_id()),
            Source::Foreign(reader) => reader.log_id(),
        }
    }

    /// The newest generation, where it is known.
    pub(crate) fn generation(self) -> Option<Generation> {
        match self {
            Source::Own(log) => Some(log.generation()),
            Source::Foreign(_) => None,
        }
    }
}
