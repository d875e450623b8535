//! Annals, ours: `Options::default()`, one `Log::append` a record.
//!
//! Never here: a setting that a user would not have. Segments grow from 1 MiB; `rotations` is the
//! log's own count. Next room: [`crate::engine`].

use std::path::Path;

use annals_wal::{Log, Options, Record};

use crate::engine::{Each, Engine, Outcome, Setup};

pub(crate) struct Annals(Log);

impl Engine for Annals {
    const NAME: &'static str = "annals";
    const SETTINGS: &'static str = "Options::default(), Log::append";

    fn open(setup: &Setup) -> Outcome<Annals> {
        Ok(Annals(Options::default().open(setup.dir.join("log"))?))
    }

    fn append(&self, _writer: usize, record: &[u8]) -> Outcome<()> {
        self.0.append(Record::new(record))?;
        Ok(())
    }

    fn rotations(&self) -> Option<u64> {
        Some(self.0.stats().rotations)
    }

    fn reopen(dir: &Path, _size: usize, each: Each<'_>) -> Outcome<()> {
        let log = Options::default().create(false).open(dir.join("log"))?;
        for record in log.range(..)? {
            each(&record?.payload)?;
        }
        log.close()?;
        Ok(())
    }
}
