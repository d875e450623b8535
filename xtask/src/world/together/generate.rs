//! A shared life from a seed.
//!
//! Never here: doing it. Invariant: the same seed gives the same life for ever; the seeds of
//! [`crate::world::generate`] are others.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Fault, Keep, SyncFailure};

use super::{Deed, Setup, Step, Who};
use crate::world::Random;

/// The life and the steps of a seed.
pub fn life(seed: u64) -> (Setup, Vec<Step>) {
    let mut random = Random(seed ^ 0x7365_7665_7261_6c00);
    let setup = Setup {
        registry: random.one_in(2),
        tear_sectors: random.one_in(3),
        copy_on_write: random.one_in(5),
        seed: random.draw(),
    };
    let count = 16 + random.below(32);
    let steps = (0..count).map(|_| step(&mut random, setup.registry)).collect();
    (setup, steps)
}

fn step(random: &mut Random, registry: bool) -> Step {
    let who = if random.one_in(2) { Who::One } else { Who::Two };
    match random.below(100) {
        0..72 => Step::By(who, deed(random, registry)),
        72..76 => Step::By(who, Deed::Die),
        76..84 => Step::By(who, Deed::DieIn { ops: random.below(20) as u8 }),
        84..86 => Step::Crash(keep(random)),
        86..91 => Step::StopIn { ops: random.below(20) as u8, keep: keep(random) },
        91..95 => Step::FaultIn { ops: random.below(20) as u8, fault: fault(random) },
        _ => Step::FailSync {
            point: random.pick(&SyncPoint::ALL),
            nth: random.below(3) as u8,
            how: random.pick(&[SyncFailure::CleanNew, SyncFailure::CleanOld]),
        },
    }
}

fn deed(random: &mut Random, registry: bool) -> Deed {
    let key = random.below(6) as u8;
    match random.below(20) {
        0..6 if registry => Deed::Put { key, bytes: random.below(400) as u16 },
        6 if registry => Deed::Delete { key },
        7..10 if registry => Deed::Move { from: key, to: random.below(6) as u8 },
        0..10 => Deed::Append {
            records: 1 + random.below(4) as u8,
            bytes: random.pick(&[0, 1, 100, 500, 3000, 20_000, 40_000]),
        },
        10..12 => Deed::Batches {
            count: 2 + random.below(4) as u8,
            bytes: random.pick(&[10, 600, 20_000]),
        },
        12..14 => Deed::Trim { permille: random.below(1001) as u16 },
        14..17 => Deed::Look,
        17..19 => Deed::Close,
        _ => Deed::Drop,
    }
}

fn keep(random: &mut Random) -> Keep {
    match random.below(4) {
        0 => Keep::Nothing,
        1 => Keep::Everything,
        _ => Keep::Some(random.draw()),
    }
}

fn fault(random: &mut Random) -> Fault {
    random.pick(&[
        Fault::Error(5),
        Fault::Error(28),
        Fault::Short(7),
        Fault::Interrupted,
        Fault::Sync(SyncFailure::CleanOld),
        Fault::Sync(SyncFailure::CleanNew),
    ])
}
