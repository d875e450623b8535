//! The model of the shared log: whole and sound for two processes, and each rule left out is
//! caught. `cargo xtask model` explores three processes too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use xtask::model::protocol::{Bounds, Broken, Protocol};
use xtask::model::{all, explore};

#[test]
fn the_protocol_holds_for_two_processes() {
    let bounds = Bounds { increments: 1, ..Bounds::TWO };
    let explored = explore(Protocol { bounds, broken: None });
    assert!(explored.violations.is_empty(), "{:#?}", explored.violations);
    assert!(explored.missing.is_empty(), "{:?}", explored.missing);
    assert!(explored.states > 10_000, "{}", explored.states);
}

#[test]
fn each_rule_left_out_is_caught() {
    let broken: Vec<_> = all().into_iter().filter(|model| model.broken.is_some()).collect();
    assert_eq!(broken.len(), Broken::ALL.len());
    for model in broken {
        let explored = explore(model);
        assert!(explored.passed(), "{:?} was not caught", explored.broken);
    }
}
