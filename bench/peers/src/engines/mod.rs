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
mod sequential;
mod sled;
mod sqlite;
mod walrus;

#[cfg(test)]
pub(crate) use self::annals::Annals;
pub(crate) use self::lmdb::open as open_lmdb;
use crate::child::{self, Run, Verify};
use crate::engine::{Engine, Outcome};
use crate::processes::{self, Member};
use crate::store::Store;
use crate::stores;
use crate::workload::Workload;

/// One engine, its type gone: each call of a window stays static.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static str,
    pub(crate) durable: bool,
    /// Whether one task can have many appends under way.
    pub(crate) awaits: bool,
    /// Whether its scan compares checksums.
    pub(crate) scans_verified: bool,
    /// Records that one call of its own window makes durable.
    pub(crate) records_per_call: u64,
    /// Whether it runs this workload.
    pub(crate) has: fn(Workload) -> bool,
    pub(crate) run: fn(&Run) -> Outcome<()>,
    /// What one of several processes does.
    pub(crate) member: fn(&Member) -> Outcome<()>,
    pub(crate) verify: fn(&Verify) -> Outcome<()>,
}

impl Entry {
    const fn of<E: Engine>() -> Entry {
        Entry {
            name: E::NAME,
            settings: E::SETTINGS,
            durable: E::DURABLE,
            awaits: E::AWAITS,
            scans_verified: E::SCANS_VERIFIED,
            records_per_call: E::RECORDS_PER_CALL,
            has: |workload| E::window(workload).is_some(),
            run: child::run::<E>,
            member: |_| Err(format!("{} is no registry", E::NAME).into()),
            verify: child::verify::<E>,
        }
    }

    const fn of_store<S: Store>() -> Entry {
        Entry {
            name: S::NAME,
            settings: S::SETTINGS,
            durable: S::DURABLE,
            awaits: false,
            scans_verified: false,
            records_per_call: 1,
            has: S::has,
            run: child::run_store::<S>,
            member: processes::member::<S>,
            verify: child::verify_store::<S>,
        }
    }
}

/// All engines, in the order of the tables.
pub(crate) const ALL: [Entry; 26] = [
    Entry::of::<annals::Annals>(),
    Entry::of::<annals::Annals<true>>(),
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
    Entry::of::<sequential::Sequential<sequential::Fresh>>(),
    Entry::of::<sequential::Sequential<sequential::Mebibyte>>(),
    Entry::of::<sequential::Sequential<sequential::FourMebibytes>>(),
    Entry::of_store::<stores::annals::AnnalsRegistry>(),
    Entry::of_store::<stores::sqlite::SqliteRegistry>(),
    Entry::of_store::<stores::redb::RedbRegistry>(),
    Entry::of_store::<stores::lmdb::LmdbRegistry>(),
    Entry::of_store::<stores::sled::SledRegistry>(),
    Entry::of_store::<stores::json_file::JsonFile>(),
    Entry::of_store::<stores::map::Map>(),
];

/// Ours.
pub(crate) const OURS: &str = "annals";
/// And on it our registry, which is held against its own log too.
pub(crate) const OURS_REGISTRY: &str = "annals-registry";
/// And our log as several processes write it.
pub(crate) const OURS_SHARED: &str = "annals-shared";
/// What the ratios of `append` are taken to: the better of these is the best peer. In the other
/// workloads it is the best durable engine that is neither ours nor a floor.
pub(crate) const BEST_PEERS: [&str; 4] =
    ["okaywal", "okaywal-large", "raft-engine", "raft-engine-prefill"];
/// And the disk itself.
pub(crate) const FLOOR: &str = "floor-overwrite";
/// What is no engine, but the disk, begins so.
pub(crate) const FLOORS: &str = "floor-";
/// The disk in sequence begins so.
pub(crate) const SEQUENTIAL: &str = "floor-sequential";

/// The engine of this name.
pub(crate) fn of(name: &str) -> Option<Entry> {
    ALL.into_iter().find(|entry| entry.name == name)
}
