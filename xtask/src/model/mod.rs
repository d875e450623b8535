//! The protocol of a shared log as a model that is explored whole (`docs/adr/0021`): two and three
//! processes, a kill, a power cut, a failed sync and a failed mark at every step, the page cache
//! apart from the disk.
//!
//! Never here: the log's code. Each step of the model names the function that it stands for
//! ([`protocol::Action::stands_for`]); whoever changes one changes the other. Invariant: a variant
//! with one rule left out must be caught, or the model shows nothing. Who is next is left open here:
//! processes take turns in every order, so a row of turns (`docs/adr/0022`) is among them.
//! Rooms: [`protocol`] (states and steps), [`check`] (what must hold).

pub mod check;
pub mod protocol;

use stateright::{Checker, HasDiscoveries, Model};

use protocol::{Bounds, Broken, Protocol};

/// What exploring one model came to.
#[derive(Debug)]
pub struct Explored {
    /// Which rule was left out, if any.
    pub broken: Option<Broken>,
    /// Its bounds.
    pub bounds: Bounds,
    /// Different states.
    pub states: usize,
    /// States generated, repeated ones too.
    pub generated: usize,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// What must always hold and did not: its name and the steps there.
    pub violations: Vec<(&'static str, Vec<String>)>,
    /// What must be possible and was not.
    pub missing: Vec<&'static str>,
}

impl Explored {
    /// Whether it ended as it should: whole and sound, or caught if a rule was left out.
    pub fn passed(&self) -> bool {
        match self.broken {
            Some(_) => !self.violations.is_empty(),
            None => self.violations.is_empty() && self.missing.is_empty(),
        }
    }
}

/// Every model that `cargo xtask model` explores.
pub fn all() -> Vec<Protocol> {
    let sound = [Bounds::TWO, Bounds::THREE].map(|bounds| Protocol { bounds, broken: None });
    let broken = Broken::ALL.map(|broken| Protocol { bounds: Bounds::TWO, broken: Some(broken) });
    sound.into_iter().chain(broken).collect()
}

/// Explores one model: all of it, or until its violation is found.
pub fn explore(model: Protocol) -> Explored {
    let (broken, bounds) = (model.broken, model.bounds);
    // One thread finds the shortest way to a violation.
    let checker = match broken {
        Some(_) => model.checker().finish_when(HasDiscoveries::AnyFailures),
        None => model.checker().threads(2),
    };
    let checker = checker.spawn_bfs().join();
    let mut violations = Vec::new();
    let mut met = Vec::new();
    for (name, path) in checker.discoveries() {
        if check::MUST_HAPPEN.iter().any(|(known, _)| *known == name) {
            met.push(name);
        } else {
            violations.push((name, path.into_actions().iter().map(ToString::to_string).collect()));
        }
    }
    let missing = check::MUST_HAPPEN.iter().map(|(name, _)| *name);
    Explored {
        broken,
        bounds,
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        violations,
        missing: missing.filter(|name| !met.contains(name)).collect(),
    }
}
