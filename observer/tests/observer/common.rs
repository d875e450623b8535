//! Logs in memory, a clock that is set by hand, and everything a log holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use annals_observer::import::{BadLine, ImportOptions, ImportReport, Importer};
use annals_observer::{Clock, Entry, MonoTime, Observer, StoredEntry, WallTime, entries};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Log, Options};

/// 2026-01-01T00:00:00Z.
pub(crate) const NEW_YEAR: i64 = 1_767_225_600_000_000_000;

/// Stands still until it is moved.
#[derive(Debug, Default)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn advance(&self, nanos: u64) {
        self.0.fetch_add(nanos, SeqCst);
    }
}

impl Clock for HandClock {
    fn wall(&self) -> WallTime {
        WallTime(NEW_YEAR + i64::try_from(self.0.load(SeqCst)).unwrap())
    }

    fn mono(&self) -> MonoTime {
        MonoTime(self.0.load(SeqCst))
    }
}

/// Small segments, so that rotation happens in small tests.
pub(crate) fn open(disk: &MemDir) -> Log {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap()
}

pub(crate) fn observer(log: &Log) -> (Observer, Arc<HandClock>) {
    let clock = Arc::new(HandClock::default());
    (Observer::with_clock(log.clone(), clock.clone()).unwrap(), clock)
}

/// Every durable entry, all of which must decode.
pub(crate) fn stored(log: &Log) -> Vec<StoredEntry> {
    entries(log).unwrap().map(Result::unwrap).collect()
}

pub(crate) fn all(log: &Log) -> Vec<Entry> {
    stored(log).into_iter().map(|stored| stored.entry).collect()
}

pub(crate) fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)
}

/// Imports a file with a new importer, as a new process would.
pub(crate) fn import(
    observer: &Observer,
    path: &std::path::Path,
    options: ImportOptions,
) -> (ImportReport, Vec<BadLine>) {
    let mut bad = Vec::new();
    let mut importer = Importer::new(observer).unwrap();
    let report = importer.import(path, options, |line| bad.push(line.clone())).unwrap();
    (report, bad)
}

/// A file in a temporary directory; the directory lives as long as what is returned.
pub(crate) fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    (dir, path)
}
