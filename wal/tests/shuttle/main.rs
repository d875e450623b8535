//! The commit queue under shuttle, whose scheduler chooses at every lock, wait, wake-up, atomic and
//! operation on a file which thread goes on: thousands of schedules for each scenario, and the
//! oracle of `world` after each. A thread that nobody wakes is a deadlock, and shuttle says so.
//!
//! Run it with `cargo xtask schedules`; no ordinary build compiles it. A failure prints the
//! schedule: `ANNALS_SCHEDULE=... cargo xtask schedules NAME` runs that one again.
//! Where to look: `explore` (schedulers, seeds), `world` (the oracle), then the scenarios:
//! `appends`, `ahead`, `futures`, `levels`, `failures`, `ends`, `trims`, and
//! `shared` (two processes on one log).
//! Never here: panics (shuttle takes each for the test's own failure; see `tests/panics.rs`), real
//! files, real time.

#![cfg(annals_shuttle)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

mod ahead;
mod appends;
mod ends;
mod explore;
mod failures;
mod futures;
mod levels;
mod shared;
mod trims;
mod world;
