//! `crash-sweep`, `simulate` and `model`: runs the library's proofs whole and prints what they came to.
//!
//! Never here: a proof. Invariant: the last line counts, and the exit code agrees with it.

use std::process::ExitCode;
use std::time::Instant;

use xtask::model;
use xtask::simulate::simulate;
use xtask::sweep::{Depth, Script, Swept, scripts, sweep_all};

use crate::say;
use crate::tally::option;

/// Crash and error at every operation of every script, nested twice.
pub(crate) fn crash_sweep() -> ExitCode {
    let start = Instant::now();
    let told = |script: &Script, swept: &Swept| {
        let seconds = start.elapsed().as_secs_f64();
        say(&format!(
            "{seconds:6.1} s  {:32} {:3} operations, {} states",
            script.name, swept.ops, swept.states
        ));
        swept.violations.iter().for_each(|violation| say(violation));
    };
    let only = option("--only");
    let mut scripts = scripts();
    let names: Vec<&str> = scripts.iter().map(|script| script.name).collect();
    if let Some(unknown) = only.as_deref().filter(|only| !names.contains(only)) {
        return no_such("script", unknown, &names);
    }
    scripts.retain(|script| only.as_ref().is_none_or(|only| script.name == only));
    let swept = sweep_all(&scripts, Depth::WHOLE, threads(), &told);
    let level = |points: [u64; 3]| format!("{} + {} + {}", points[0], points[1], points[2]);
    say(&format!("{} scripts, {} operations", scripts.len(), swept.ops));
    say("points: in a script + in the opening after it + in the opening after that");
    say(&format!("crash points {}", level(swept.crashes)));
    say(&format!("error points {}", level(swept.errors)));
    say(&format!("{} different states opened and checked", swept.states));
    say(&format!("{:.0} s on {} threads", start.elapsed().as_secs_f64(), threads()));
    let points: u64 = swept.crashes.iter().chain(&swept.errors).sum();
    finish(points, swept.violations.len() as u64)
}

/// So many seeds.
pub(crate) fn simulation() -> ExitCode {
    let number = |name: &str, default: u64| {
        option(name).map_or(Ok(default), |text| text.parse::<u64>().map_err(|_| name.to_owned()))
    };
    let (seeds, from) = match (number("--seeds", 10_000), number("--from", 0)) {
        (Ok(seeds), Ok(from)) => (seeds, from),
        (Err(name), _) | (_, Err(name)) => {
            say(&format!("{name} wants a number"));
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    say(&format!("seeds {from} to {}", from.saturating_add(seeds)));
    let done = simulate(from..from.saturating_add(seeds), threads());
    let seconds = start.elapsed().as_secs_f64();
    let mean = |count: u64| count as f64 / done.seeds.max(1) as f64;
    let tally = &done.tally;
    say(&format!(
        "a seed: {:.0} operations, {:.1} crashes, {:.1} faults, {:.1} openings, {:.0} acknowledged",
        mean(tally.ops),
        mean(tally.crashes),
        mean(tally.faults),
        mean(tally.openings),
        mean(tally.acknowledged),
    ));
    say("rows of the recovery table met:");
    let most = tally.rows.values().copied().max().unwrap_or(1).max(1);
    for (row, count) in &tally.rows {
        // A bar of logarithms: the rare rows are the ones to look at.
        let bar = 40.0 * (1.0 + *count as f64).ln() / (1.0 + most as f64).ln();
        say(&format!("  {row:>3} {count:>9} {}", "#".repeat(bar as usize)));
    }
    for violation in &done.violations {
        say(&format!("seed {}: {}", violation.seed, violation.why));
        say(&format!("  {:?}", violation.life));
        violation.acts.iter().for_each(|act| say(&format!("  {act:?}")));
    }
    say(&format!("{:.0} seeds/s on {} threads", done.seeds as f64 / seconds, threads()));
    finish(done.seeds - done.failed, done.failed)
}

/// The protocol of a shared log, whole and with a rule left out.
pub(crate) fn model() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for model in model::all() {
        let start = Instant::now();
        let explored = model::explore(model);
        let what = match explored.broken {
            None => "whole".to_owned(),
            Some(broken) => format!("without a rule: {broken:?}"),
        };
        say(&format!(
            "{} processes, {what}: {} states, {} generated, depth {}, {:.1} s",
            explored.bounds.processes,
            explored.states,
            explored.generated,
            explored.depth,
            start.elapsed().as_secs_f64()
        ));
        for (name, steps) in &explored.violations {
            say(&format!("  not held: {name}, after {} steps", steps.len()));
            steps.iter().for_each(|step| say(&format!("    {step}")));
        }
        explored.missing.iter().for_each(|name| say(&format!("  never met: {name}")));
        let good = explored.passed();
        passed += u64::from(good);
        failed += u64::from(!good);
    }
    finish(passed, failed)
}

/// A name that nothing has is no proof that passed.
pub(crate) fn no_such(what: &str, unknown: &str, names: &[&str]) -> ExitCode {
    let list = names.join("\n  ");
    say(&format!("there is no {what} `{unknown}`; there are:\n  {list}\n0 passed, 1 failed"));
    ExitCode::from(2)
}

pub(crate) fn finish(passed: u64, failed: u64) -> ExitCode {
    say(&format!("{passed} passed, {failed} failed"));
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn threads() -> usize {
    let asked = option("--threads").and_then(|text| text.parse().ok());
    let here = || std::thread::available_parallelism().map_or(2, usize::from);
    asked.unwrap_or_else(here)
}
