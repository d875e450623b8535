//! Runs a scenario under many schedules: random ones, and PCT's, which gives threads priorities and
//! changes them at a few points, so that rare orders of a few events are met for certain
//! (Burckhardt et al., ASPLOS 2010).

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner};

/// Schedules for each scenario and scheduler, unless `ANNALS_SCHEDULES` says otherwise.
const SCHEDULES: usize = 2_000;
/// The first seed, unless `ANNALS_SEED` says otherwise.
const SEED: u64 = 20_261_121;
/// How many points PCT places: bugs that need at most so many ordered events are met with a
/// probability that is known.
const DEPTH: usize = 3;

/// Runs the scenario under both schedulers, or under the one schedule in `ANNALS_SCHEDULE`.
pub(crate) fn explore(name: &str, scenario: impl Fn() + Send + Sync + Copy + 'static) {
    if let Ok(schedule) = std::env::var("ANNALS_SCHEDULE") {
        run(ReplayScheduler::new_from_encoded(&schedule), scenario);
        return;
    }
    let schedules = number("ANNALS_SCHEDULES").unwrap_or(SCHEDULES);
    let seed = number("ANNALS_SEED").unwrap_or(SEED);
    println!("{name}: {schedules} random and {schedules} PCT schedules; ANNALS_SEED={seed}");
    run(RandomScheduler::new_from_seed(seed, schedules), scenario);
    run(PctScheduler::new_from_seed(seed, DEPTH, schedules), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    // It warns that atomics are sequentially consistent here, whatever their ordering says.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario);
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
