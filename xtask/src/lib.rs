//! The heavy proofs that need all rooms at once: a world with a log, a registry and an observer in
//! it ([`world`]), exhaustive sweeps over short scripts ([`sweep`]), a seeded simulation
//! ([`simulate`]) and the model of a shared log ([`model`]). `cargo xtask` runs them whole, `tests/` a quick cut.
//!
//! Never here: a fixed answer, a case left out. A violation is a value with all that is needed to
//! see it again.

pub mod model;
mod pin;
pub mod simulate;
pub mod sweep;
pub mod world;
