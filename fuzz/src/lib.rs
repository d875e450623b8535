//! The bodies of the fuzz targets: any bytes give a verdict or a typed error, never a panic, a
//! hang, memory beyond what the bytes pay for, or wrong data.
//!
//! Never here: randomness. Each body is a function of its bytes, so that a saved input is a test
//! (`tests/corpus.rs`, on stable). Where a checksum would stop every mutation at the door, the body
//! mends it ([`mend`]) or writes sound files from a program of choices ([`forge`], [`files`]).
//!
//! The oracles: assertions in each body; overflow checks; [`memory`], which counts what a call
//! allocates and holds it against the input's size; and, while fuzzing, 5 seconds for an input,
//! 512 MiB for the process and 64 MiB for one allocation (`cargo xtask fuzz` has the flags).
//!
//! A new target: a body here, a line in [`TARGETS`], `fuzz_targets/`, `Cargo.toml`, a corpus.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod asked;
pub mod decode;
pub mod directory;
pub mod files;
pub mod forge;
pub mod input;
pub mod json;
pub mod memory;
pub mod mend;
pub mod model;
pub mod operations;
pub mod payloads;
pub mod registry;
pub mod scan;

/// A body of a target.
pub type Body = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Body); 7] = [
    ("decode", decode::decode),
    ("scan", scan::scan),
    ("directory", directory::directory),
    ("operations", operations::operations),
    ("registry", registry::registry),
    ("payloads", payloads::payloads),
    ("json", json::json),
];
