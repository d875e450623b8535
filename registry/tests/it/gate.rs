//! A log whose group syncs pass a door, so that a test can stand between *ordered* and *durable*
//! for as long as it likes, and decide how the sync ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_registry::Registry;
use annals_wal::Log;
use annals_wal::fs::gate::{Door, Gate, Shut, eio};
use annals_wal::fs::mem::MemDir;

use crate::support::{json, key};

/// The door before a log's group syncs, and a way to let its rotations fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Syncs {
    door: Arc<Door>,
    names_fail: Arc<AtomicBool>,
}

/// A log, the door before its syncs, and its disk.
pub(crate) fn gated_log() -> (MemDir, Syncs, Log) {
    let disk = MemDir::new(1);
    let syncs = Syncs::default();
    let told = syncs.clone();
    let dir = Gate::new(disk.dir(), move |op| match op {
        "sync Group" => told.door.pass(),
        "dirsync Published" if told.names_fail.load(Ordering::SeqCst) => Err(eio()),
        _ => Ok(()),
    });
    let log = annals_wal::Options::new().segment_bytes(64 << 10).open_in(dir).unwrap();
    (disk, syncs, log)
}

/// A registry on such a log, in which `k` is 1 and durable.
pub(crate) fn gated() -> (MemDir, Syncs, Registry) {
    let (disk, syncs, log) = gated_log();
    let registry = Registry::on(log).unwrap();
    registry.put(&key("k"), json(1)).unwrap();
    (disk, syncs, registry)
}

impl Syncs {
    /// Syncs that come from now on wait, at the longest until what is returned is dropped.
    pub(crate) fn close(&self) -> Shut<'_> {
        self.door.shut_for_now()
    }

    /// Lets the waiting sync and all later ones through.
    pub(crate) fn open(&self) {
        self.door.open();
    }

    /// Fails the waiting sync and all later ones; nothing they covered reaches the disk.
    pub(crate) fn fail(&self) {
        self.door.fail();
    }

    /// Fails the directory sync after a new segment got its name: a rotation then poisons the log.
    pub(crate) fn fail_names(&self) {
        self.names_fail.store(true, Ordering::SeqCst);
    }

    /// Returns once a sync waits at the shut door.
    pub(crate) fn wait_for_sync(&self) {
        self.door.await_guest();
    }
}
