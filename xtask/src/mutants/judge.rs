//! The child process of one mutant: sweeps and simulates until something is wrong, and says what.
//!
//! Never here: the choice of the mutant; the environment has made it before this process began.
//! Invariants: cheap proofs first, the same for every mutant; stops at the first violation; every
//! line on stdout is one [`Line`].

use std::panic;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use xtask::simulate::live;
use xtask::sweep::{Depth, scripts, sweep};
use xtask::world::generate::life;
use xtask::world::together;

use crate::say;

/// A hidden verb: the child.
pub(crate) const VERB: &str = "mutants-judge";
/// A child that asks for more memory than this is refused it, and dies.
const MEMORY_MAX: u64 = 3 << 30;

/// What a child says of itself, one a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// What it begins with now.
    At(String),
    /// What proof found something, and what.
    Killed(String),
    /// Nothing was found.
    Survived,
}

impl Line {
    pub(crate) fn parse(text: &str) -> Option<Line> {
        match text.split_once(' ').unwrap_or((text, "")) {
            ("at", what) => Some(Line::At(what.to_owned())),
            ("killed", how) => Some(Line::Killed(how.to_owned())),
            ("survived", _) => Some(Line::Survived),
            _ => None,
        }
    }

    fn tell(&self) {
        match self {
            Line::At(what) => say(&format!("at {what}")),
            Line::Killed(how) => say(&format!("killed {}", how.replace('\n', " "))),
            Line::Survived => say("survived"),
        }
    }
}

enum Stage {
    Sweep(Depth),
    Seeds(std::ops::Range<u64>),
    /// Two processes: every script at each so many eth operation, and seeds.
    Two(usize, std::ops::Range<u64>),
}

/// From cheap to dear. Nothing of it depends on the mutant.
fn stages(whole: bool) -> Vec<Stage> {
    let depth = |nested, subsets, stride| Depth { nested, nested_from_all: false, subsets, stride };
    let mut stages = vec![
        Stage::Sweep(depth(0, 1, 6)),
        Stage::Seeds(0..300),
        Stage::Two(2, 0..200),
        Stage::Sweep(depth(1, 1, 3)),
        Stage::Seeds(300..1500),
    ];
    if whole {
        stages.push(Stage::Two(1, 200..2000));
        stages.push(Stage::Sweep(depth(1, 3, 1)));
        stages.push(Stage::Seeds(1500..6000));
        stages.push(Stage::Sweep(depth(2, 4, 1)));
    }
    stages
}

/// The child's main. `whole`: also the dear proofs, which no mutant should need.
pub(crate) fn command(rest: &[String]) -> ExitCode {
    let limit = rustix::process::Rlimit { current: Some(MEMORY_MAX), maximum: Some(MEMORY_MAX) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::As, limit);
    let panicked = Arc::new(Mutex::new(String::new()));
    let told = panicked.clone();
    panic::set_hook(Box::new(move |info| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = info.to_string();
    }));
    let whole = rest.iter().any(|arg| arg == "whole");
    let found = stages(whole).into_iter().find_map(|stage| match stage {
        Stage::Sweep(depth) => sweeps(depth),
        Stage::Seeds(seeds) => simulation(seeds),
        Stage::Two(stride, seeds) => two(stride, seeds),
    });
    let Some(found) = found else {
        Line::Survived.tell();
        return ExitCode::SUCCESS;
    };
    let panicked = panicked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Line::Killed(found.replace("panic, see above", &panicked)).tell();
    ExitCode::FAILURE
}

fn sweeps(depth: Depth) -> Option<String> {
    scripts().iter().find_map(|script| {
        Line::At(format!("the sweep, {}", script.name)).tell();
        let swept = sweep(script, depth);
        swept.violations.first().map(|violation| format!("sweep; {violation}"))
    })
}

fn simulation(seeds: std::ops::Range<u64>) -> Option<String> {
    Line::At(format!("the simulation, seeds from {}", seeds.start)).tell();
    seeds.into_iter().find_map(|seed| {
        let (setup, acts) = life(seed);
        let (act, why) = live(setup, &acts).err()?;
        let doing = acts.get(act).map_or("the end".to_owned(), |act| format!("{act:?}"));
        Some(format!("simulation; seed {seed}, act {act} ({doing}): {why}"))
    })
}

/// Two processes on one log.
fn two(stride: usize, seeds: std::ops::Range<u64>) -> Option<String> {
    Line::At("the sweep of two processes".to_owned()).tell();
    let scripts = together::scripts::scripts();
    let swept = scripts.iter().find_map(|script| {
        let swept = together::explore::sweep(script, stride);
        swept.violations.first().map(|violation| format!("two processes; {violation}"))
    });
    Line::At(format!("the simulation of two processes, seeds from {}", seeds.start)).tell();
    swept.or_else(|| {
        seeds.into_iter().find_map(|seed| {
            let (setup, steps) = together::generate::life(seed);
            let why = together::explore::live(setup, &steps).err()?;
            Some(format!("two processes; seed {seed}, {why}"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn a_line_is_read_as_it_was_told() {
        let killed = Line::Killed("sweep; trims: stop after 3: lost".to_owned());
        assert_eq!(Line::parse("killed sweep; trims: stop after 3: lost"), Some(killed));
        assert_eq!(Line::parse("at the sweep, trims"), Some(Line::At("the sweep, trims".into())));
        assert_eq!(Line::parse("survived"), Some(Line::Survived));
        assert_eq!(Line::parse("thread panicked"), None);
    }
}
