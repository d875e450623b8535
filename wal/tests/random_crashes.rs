//! Crashes at random: a log lives through many steps, each of which may fail, stop or lose power,
//! and after each opening it holds what a model says it must.
//!
//! One seed is one life, the same on every machine; a failure prints its seed. `ANNALS_SEEDS` says
//! how many seeds to run, `ANNALS_SEED_FROM` the first of them.
//! Never here: the model (`lives/model.rs`), a sleep, a clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

mod lives;

use std::panic::catch_unwind;

use lives::life::Life;
use lives::number;

/// Takes a few seconds; a night shift asks for more by ANNALS_SEEDS.
const SEEDS: u64 = 200;

#[test]
fn a_log_lives_through_crashes_and_failures_without_losing_or_inventing() {
    let (from, count) = (number("ANNALS_SEED_FROM", 0), number("ANNALS_SEEDS", SEEDS));
    live_through(from..from + count);
}

/// A reader believed an old head while a crash had brought back some of the segments that a
/// durable trim had removed, and not others.
#[test]
fn seeds_that_once_found_something_stay_alive() {
    live_through([40, 1734, 2163, 2977, 3163]);
}

fn live_through(seeds: impl IntoIterator<Item = u64>) {
    let mut failed = Vec::new();
    for seed in seeds {
        match catch_unwind(|| Life::new(seed).live()) {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => println!("seed {seed}: {why}"),
            Err(_) => println!("seed {seed}: panic, see above"),
        }
        failed.push(seed);
    }
    assert!(failed.is_empty(), "run one with ANNALS_SEEDS=1 ANNALS_SEED_FROM=: {failed:?}");
}
