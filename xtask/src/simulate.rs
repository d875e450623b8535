//! Seeded simulation: one seed is one life; a life that violates the model is cut shorter until
//! nothing can be left out.
//!
//! Never here: the model, the acts. Invariants: a seed's life is the same on every machine and
//! every run; threads share nothing but the next seed's number.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::generate::life;
use crate::world::{Act, Life, Tally, World};

/// A life that violated the model.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Its seed.
    pub seed: u64,
    /// What is wrong.
    pub why: String,
    /// How the world was set up.
    pub life: Life,
    /// The shortest list of acts found that still violates it.
    pub acts: Vec<Act>,
}

/// What many lives came to.
#[derive(Debug, Default)]
pub struct Simulated {
    /// How many.
    pub seeds: u64,
    /// What they went through together.
    pub tally: Tally,
    /// The first few violations, shortened.
    pub violations: Vec<Violation>,
    /// How many there were in all.
    pub failed: u64,
}

/// Lives one life to its end.
///
/// # Errors
/// The act that was being done, and the violation.
pub fn live(life: Life, acts: &[Act]) -> Result<Tally, (usize, String)> {
    let mut at = 0;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(life);
        for (index, act) in acts.iter().enumerate() {
            at = index;
            world.act(act)?;
        }
        at = acts.len();
        world.finish()?;
        Ok(world.tally)
    }));
    match lived {
        Ok(Ok(tally)) => Ok(tally),
        Ok(Err(why)) => Err((at, why)),
        Err(_) => Err((at, "panic, see above".to_owned())),
    }
}

/// Lives the lives of these seeds on so many threads.
pub fn simulate(seeds: Range<u64>, threads: usize) -> Simulated {
    let next = AtomicU64::new(seeds.start);
    let whole = Mutex::new(Simulated::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mine = simulate_some(&next, seeds.end);
                let mut whole = whole.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                whole.seeds += mine.seeds;
                whole.failed += mine.failed;
                whole.tally.add(&mine.tally);
                whole.violations.extend(mine.violations);
            });
        }
    });
    whole.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn simulate_some(next: &AtomicU64, end: u64) -> Simulated {
    let mut mine = Simulated::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return mine;
        }
        mine.seeds += 1;
        let (setup, acts) = life(seed);
        match live(setup, &acts) {
            Ok(tally) => mine.tally.add(&tally),
            Err((_, why)) => {
                mine.failed += 1;
                if mine.violations.len() < 3 {
                    let (acts, why) = shrink(setup, acts, why);
                    mine.violations.push(Violation { seed, why, life: setup, acts });
                }
            }
        }
    }
}

/// Leaves out acts, large runs first, as long as some violation remains.
fn shrink(life: Life, mut acts: Vec<Act>, mut why: String) -> (Vec<Act>, String) {
    let mut run = acts.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < acts.len() {
            let mut fewer = acts.clone();
            fewer.drain(from..(from + run).min(acts.len()));
            match live(life, &fewer) {
                Err((_, still)) => {
                    (acts, why, shorter) = (fewer, still, true);
                }
                Ok(_) => from += run,
            }
        }
        if run == 1 && !shorter {
            return (acts, why);
        }
        run = run.div_ceil(2).max(1);
        if run == 1 && acts.is_empty() {
            return (acts, why);
        }
    }
}
