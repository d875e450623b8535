//! `two-processes`: runs the library's sweep and simulation of two processes that share a log, and
//! prints what they came to.
//!
//! Never here: a proof. Invariant: the last line counts, and the exit code agrees with it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use xtask::world::Tally;
use xtask::world::together::{explore, generate, scripts};

use crate::proofs::{finish, threads};
use crate::say;
use crate::tally::option;

/// Every script at every operation, then so many seeds.
pub(crate) fn command() -> ExitCode {
    let number = |name: &str, default: u64| {
        option(name).map_or(Ok(default), |text| text.parse::<u64>().map_err(|_| name.to_owned()))
    };
    let (Ok(seeds), Ok(from)) = (number("--seeds", 10_000), number("--from", 0)) else {
        say("--seeds and --from want a number");
        return ExitCode::from(2);
    };
    let (mut passed, mut failed) = (0, 0);
    for script in scripts::scripts() {
        let swept = explore::sweep(&script, 1);
        let points = swept.crashes + swept.kills + swept.errors + swept.last_words;
        say(&format!(
            "{:24} {:3} operations: {} stops, {} kills of one, {} faults, {} faults and kills",
            script.name, swept.ops, swept.crashes, swept.kills, swept.errors, swept.last_words
        ));
        swept.violations.iter().for_each(|violation| say(violation));
        failed += swept.violations.len() as u64;
        passed += points - swept.violations.len() as u64;
    }
    let (next, end) = (AtomicU64::new(from), from.saturating_add(seeds));
    let whole = Mutex::new((Tally::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let (setup, steps) = generate::life(seed);
                    let lived = explore::live(setup, &steps);
                    let mut whole = whole.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match lived {
                        Ok(tally) => whole.0.add(&tally),
                        Err(why) => whole.1.push(format!("seed {seed}: {why}")),
                    }
                }
            });
        }
    });
    let (tally, violations) = whole.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    say(&format!(
        "seeds {from} to {end}: {} operations, {} crashes and kills, {} faults, {} openings, {} \
         acknowledged",
        tally.ops, tally.crashes, tally.faults, tally.openings, tally.acknowledged
    ));
    violations.iter().take(20).for_each(|violation| say(violation));
    let wrong = violations.len() as u64;
    finish(passed + seeds - wrong, failed + wrong)
}
