//! The quick cut of the heavy proofs: every script disturbed at every third operation, and a fixed
//! set of seeds. `cargo xtask crash-sweep` and `cargo xtask simulate` do it all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use xtask::simulate::simulate;
use xtask::sweep::{Depth, scripts, sweep_all};
use xtask::world::{World, together};

/// Rows that a life can meet. The simulation visits them all.
const ROWS: [&str; 11] = ["new", "A", "A'", "B", "C", "D", "D'", "E", "F", "G", "H"];

#[test]
fn the_scripts_survive_a_quick_sweep() {
    let swept = sweep_all(&scripts(), Depth::QUICK, 2, &|script, swept| {
        println!("{}: {} states", script.name, swept.states);
    });
    assert!(swept.violations.is_empty(), "{:#?}", swept.violations);
    println!("{swept:?}");
}

#[test]
fn there_are_twenty_scripts_of_thirty_operations() {
    assert!(scripts().len() >= 20);
    for script in scripts() {
        let mut world = World::new(script.life);
        for act in &script.acts {
            world.act(act).unwrap();
        }
        let ops = world.tally.ops + world.disk.ops();
        assert!(ops >= 30, "{} has {ops} operations", script.name);
        let archived = world.tally.archived;
        assert!(archived >= 3 || !script.name.contains("archives"), "{}: {archived}", script.name);
    }
}

#[test]
fn a_fixed_set_of_seeds_lives_and_visits_every_row() {
    let done = simulate(0..1200, 2);
    assert!(done.violations.is_empty(), "{:#?}", done.violations);
    println!("{:?}", done.tally);
    for row in ROWS {
        assert!(done.tally.rows.contains_key(row), "no life met row {row}: {:?}", done.tally.rows);
    }
    assert!(done.tally.archived > 100, "{} segments were handed over", done.tally.archived);
    let mean = |count: u64| count / done.seeds;
    assert!(mean(done.tally.ops) >= 200, "{} operations a seed", mean(done.tally.ops));
    assert!(mean(done.tally.crashes) >= 2, "{} crashes a seed", mean(done.tally.crashes));
    assert!(mean(done.tally.faults) >= 1, "{} faults a seed", mean(done.tally.faults));
}

/// The same seed is the same life, to the last byte of the disk after every act: else nothing that
/// it finds could be looked at twice.
#[test]
fn a_seed_is_the_same_life_every_time() {
    let lived = |seed| {
        let (life, acts) = xtask::world::generate::life(seed);
        let mut world = World::new(life);
        let mut disks = Vec::new();
        for act in &acts {
            world.act(act).unwrap();
            disks.push((*act, world.disk.state_hash()));
        }
        world.finish().unwrap();
        (disks, format!("{:?}", world.tally))
    };
    for seed in 0..40 {
        let (once, again) = (lived(seed), lived(seed));
        for (a, b) in once.0.iter().zip(&again.0) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(once.1, again.1, "seed {seed}");
    }
}

/// Two processes on one log: every script disturbed at every fifth operation of either.
#[test]
fn two_processes_survive_a_quick_sweep() {
    let scripts = together::scripts::scripts();
    assert!(scripts.len() >= 4);
    std::thread::scope(|scope| {
        for script in &scripts {
            scope.spawn(|| {
                let swept = together::explore::sweep(script, 5);
                println!("{}: {swept:?}", script.name);
                assert!(swept.ops >= 30, "{} has {} operations", script.name, swept.ops);
                assert!(swept.violations.is_empty(), "{:#?}", swept.violations);
            });
        }
    });
}

#[test]
fn seeds_of_two_processes_live() {
    let mut tally = xtask::world::Tally::default();
    for seed in 0..400 {
        let (setup, steps) = together::generate::life(seed);
        match together::explore::live(setup, &steps) {
            Ok(lived) => tally.add(&lived),
            Err(why) => panic!("seed {seed}: {why}: {setup:?} {steps:#?}"),
        }
    }
    println!("{tally:?}");
    assert!(tally.crashes > 800 && tally.faults > 400 && tally.acknowledged > 4000, "{tally:?}");
}

/// As of one process, to the last byte after every step.
#[test]
fn a_seed_of_two_is_the_same_life_every_time() {
    let lived = |seed| {
        let (setup, steps) = together::generate::life(seed);
        let mut pair = together::Pair::new(setup);
        let mut disks = Vec::new();
        for step in &steps {
            pair.step(step).unwrap();
            disks.push((*step, pair.disk.state_hash()));
        }
        pair.finish().unwrap();
        (disks, pair.disk.state_hash(), format!("{:?}", pair.tally))
    };
    for seed in 0..40 {
        let (once, again) = (lived(seed), lived(seed));
        for (a, b) in once.0.iter().zip(&again.0) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!((once.1, once.2), (again.1, again.2), "seed {seed}");
    }
}
