//! The registries that ours is held against, one file each.
//!
//! Never here: a measurement. Each file's head says which settings its registry has and why. They
//! stand in the one table of [`crate::engines`], under names of their own.
//! Next room: [`crate::child`].

pub(crate) mod annals;
pub(crate) mod json_file;
pub(crate) mod lmdb;
pub(crate) mod map;
pub(crate) mod redb;
pub(crate) mod sled;
pub(crate) mod sqlite;
