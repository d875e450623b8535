//! Crash after every operation of every script, on a directory that keeps only what was synced and
//! any subset of the rest; and inside the recovery that follows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

mod common;

use annals_wal::fs::mem::MemDir;
use annals_wal::{Error, Lsn};
use common::{Model, Sweep, open, sweep};

const PLAIN: Sweep = Sweep { prepare: |_| (), seeds: 4, nested: false };
const NESTED: Sweep = Sweep { prepare: |_| (), seeds: 1, nested: true };

fn survives(script: common::Script, how: Sweep) {
    match sweep(script, how) {
        Ok(crashes) => println!("{crashes} crashes survived"),
        Err(violation) => panic!("{violation}"),
    }
}

fn appends(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    let log = open(disk)?;
    for n in 0..6 {
        model.append(&log, 1 + n % 3, 200 + n * 331)?;
    }
    log.close()?;
    let log = open(disk)?;
    model.append(&log, 3, 100)?;
    model.append(&log, 1, 5000)?;
    Ok(())
}

fn rotations(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    let log = open(disk)?;
    for n in 0..8 {
        model.append(&log, 1 + n % 2, 18_000)?;
    }
    log.close()?;
    let log = open(disk)?;
    for _ in 0..3 {
        model.append(&log, 1, 25_000)?;
    }
    log.close()
}

fn unclean_ends(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    for round in 0..4 {
        let log = open(disk)?;
        model.append(&log, 2, 700 * (round + 1))?;
        drop(log);
    }
    Ok(())
}

fn clean_ends(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    for round in 0..5 {
        let log = open(disk)?;
        model.append(&log, 1, 900 * (round + 1))?;
        log.close()?;
    }
    Ok(())
}

fn trims_and_holds(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    let log = open(disk)?;
    for _ in 0..6 {
        model.append(&log, 1, 30_000)?;
    }
    model.trim(&log, 4)?;
    model.append(&log, 1, 30_000)?;
    log.set_hold("test", Lsn::new(5).unwrap())?;
    model.hold = Some(5);
    model.append(&log, 2, 20_000)?;
    model.trim(&log, 9)?;
    log.close()?;
    let log = open(disk)?;
    model.append(&log, 1, 100)?;
    log.close()
}

fn large_batches(disk: &MemDir, model: &mut Model) -> Result<(), Error> {
    let log = open(disk)?;
    model.append(&log, 1, 100)?;
    model.append(&log, 7, 40_000)?;
    model.append(&log, 1, 100)?;
    drop(log);
    let log = open(disk)?;
    model.append(&log, 2, 100_000)?;
    Ok(())
}

#[test]
fn appends_survive() {
    survives(appends, PLAIN);
}

#[test]
fn rotations_survive() {
    survives(rotations, PLAIN);
}

#[test]
fn unclean_ends_survive() {
    survives(unclean_ends, PLAIN);
}

#[test]
fn clean_ends_survive() {
    survives(clean_ends, PLAIN);
}

#[test]
fn trims_and_holds_survive() {
    survives(trims_and_holds, PLAIN);
}

#[test]
fn large_batches_survive() {
    survives(large_batches, PLAIN);
}

#[test]
fn a_crash_inside_recovery_recovers_to_the_same_log_after_appends() {
    survives(appends, NESTED);
}

#[test]
fn a_crash_inside_recovery_recovers_to_the_same_log_after_rotations() {
    survives(rotations, NESTED);
}

#[test]
fn a_crash_inside_recovery_recovers_to_the_same_log_after_unclean_ends() {
    survives(unclean_ends, NESTED);
}

#[test]
fn a_crash_inside_recovery_recovers_to_the_same_log_after_trims() {
    survives(trims_and_holds, NESTED);
}
