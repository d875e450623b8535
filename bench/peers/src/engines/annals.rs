//! Annals, ours: `Options::default()`; a record is `Log::append`, a batch `Log::append_batch`, a
//! task or a record in flight `Log::submit` and its future, a scan `Records::replay`.
//!
//! Never here: a setting that a user would not have. Segments grow from 1 MiB; `rotations` is the
//! log's own count. A scan verifies header and payload checksums. Next room: [`crate::engine`].

use std::path::Path;

use annals_wal::{Batch, Error, Log, Options, Pending, Record, Sharing};

use crate::engine::{Each, Engine, Failure, Outcome, Setup, Submits};
use crate::window::{self, Window, closed, in_flight};
use crate::workload::Workload;

/// `SHARED`: on a log made for several processes, of which this is the only one.
pub(crate) struct Annals<const SHARED: bool = false>(Log);

impl<const SHARED: bool> Engine for Annals<SHARED> {
    const NAME: &'static str = if SHARED { "annals-shared" } else { "annals" };
    const SETTINGS: &'static str =
        if SHARED { "Options::default(), Sharing::Processes" } else { "Options::default()" };
    const BATCHES: bool = true;
    const SCANS: bool = true;
    const SCANS_VERIFIED: bool = true;
    const AWAITS: bool = true;

    fn open(setup: &Setup) -> Outcome<Self> {
        let sharing = if SHARED { Sharing::Processes } else { Sharing::Exclusive };
        Ok(Annals(Options::default().sharing(sharing).open(setup.dir.join("log"))?))
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        self.0.append(Record::new(record))?;
        Ok(())
    }

    fn append_batch(&self, _writer: usize, records: &[Vec<u8>]) -> Outcome<()> {
        self.0.append_batch(records.iter().map(Record::new).collect::<Batch<'_>>())?;
        Ok(())
    }

    fn scan(&self, each: Each<'_>) -> Outcome<()> {
        self.0.range(..)?.replay(|record| each(record.payload).map_err(Told)).map_err(|Told(e)| e)
    }

    fn rotations(&self) -> Option<u64> {
        Some(self.0.stats().rotations)
    }

    fn window(workload: Workload) -> Option<Window<Self>> {
        match workload {
            Workload::Shared1 => Some(closed::append::<Self>),
            _ if SHARED => None,
            Workload::AppendAsync => Some(in_flight::tasks::<Self>),
            Workload::InFlight | Workload::InFlight1k => Some(in_flight::one::<Self>),
            // Beside the registry on it, which makes a record of each change.
            Workload::RegistryHot | Workload::RegistryDistinct => Some(closed::append::<Self>),
            _ => window::blocking(workload),
        }
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        let log =
            Options::default().create(false).sharing(Sharing::AsMade).open(dir.join("log"))?;
        for record in log.range(..)? {
            each(&record?.payload)?;
        }
        log.close()?;
        Ok(())
    }
}

impl<const SHARED: bool> Submits for Annals<SHARED> {
    type Pending = Pending;

    fn submit(&self, record: &[u8]) -> Outcome<Pending> {
        Ok(self.0.submit(Record::new(record))?)
    }

    fn is_done(pending: &Pending) -> bool {
        pending.is_done()
    }

    async fn durable(pending: Pending) -> Outcome<()> {
        pending.await?;
        Ok(())
    }
}

/// `replay` wants an error that a log's error becomes by itself.
struct Told(Failure);

impl From<Error> for Told {
    fn from(error: Error) -> Told {
        Told(error.into())
    }
}
