//! The engines, one file each, and the table that finds them by name.
//!
//! Never here: a measurement. Each file's head says which settings its engine has, why, and where
//! that is documented. All of them build with Rust 1.95 and a C compiler (SQLite, LMDB, LZ4).
//! Left out, with reasons: RocksDB and other engines behind C++ (minutes of build, no `libclang`
//! here), `mrecordlog` (one writer by its API, two syncs by design).
//! Next room: [`crate::child`].

mod annals;
mod fjall;
mod floor;
mod jsonl;
mod lmdb;
mod okaywal;
mod raft_engine;
mod redb;
mod sled;
mod sqlite;
mod walrus;

use crate::child::{self, Run, Verify};
use crate::engine::{Engine, Outcome};

/// One engine, its type gone: each call of a window stays static.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static str,
    pub(crate) durable: bool,
    pub(crate) run: fn(&Run) -> Outcome<()>,
    pub(crate) verify: fn(&Verify) -> Outcome<()>,
}

impl Entry {
    const fn of<E: Engine>() -> Entry {
        Entry {
            name: E::NAME,
            settings: E::SETTINGS,
            durable: E::DURABLE,
            run: child::run::<E>,
            verify: child::verify::<E>,
        }
    }
}

/// All engines, in the order of the tables.
pub(crate) const ALL: [Entry; 15] = [
    Entry::of::<annals::Annals>(),
    Entry::of::<okaywal::OkayWal<okaywal::Default>>(),
    Entry::of::<okaywal::OkayWal<okaywal::Large>>(),
    Entry::of::<raft_engine::RaftEngine<raft_engine::Default>>(),
    Entry::of::<raft_engine::RaftEngine<raft_engine::Prefilled>>(),
    Entry::of::<walrus::WalrusEngine>(),
    Entry::of::<fjall::Fjall>(),
    Entry::of::<redb::Redb>(),
    Entry::of::<sqlite::Sqlite>(),
    Entry::of::<lmdb::Lmdb>(),
    Entry::of::<sled::Sled>(),
    Entry::of::<jsonl::Jsonl>(),
    Entry::of::<floor::Floor<floor::Append>>(),
    Entry::of::<floor::Floor<floor::Fallocate>>(),
    Entry::of::<floor::Floor<floor::Overwrite>>(),
];

/// What the ratios of the table are taken to: the better of these is the best peer.
pub(crate) const BEST_PEERS: [&str; 4] =
    ["okaywal", "okaywal-large", "raft-engine", "raft-engine-prefill"];
/// And the disk itself.
pub(crate) const FLOOR: &str = "floor-overwrite";

/// The engine of this name.
pub(crate) fn of(name: &str) -> Option<Entry> {
    ALL.into_iter().find(|entry| entry.name == name)
}
