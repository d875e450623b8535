//! The scripts that a sweep disturbs at every operation of either process.
//!
//! Never here: a crash or a fault; the sweep has them.

use super::Who::{One, Two};
use super::{Deed, Setup, Step};

/// A life of two that goes well until it is disturbed.
#[derive(Clone, Debug)]
pub struct Script {
    /// For messages.
    pub name: &'static str,
    /// How it is set up.
    pub setup: Setup,
    /// What happens.
    pub steps: Vec<Step>,
}

const SMALL: Deed = Deed::Append { records: 2, bytes: 300 };
const BIG: Deed = Deed::Append { records: 1, bytes: 40_000 };

/// All of them.
pub fn scripts() -> Vec<Script> {
    let by = |steps: &[(super::Who, Deed)]| {
        steps.iter().map(|(who, deed)| Step::By(*who, *deed)).collect::<Vec<_>>()
    };
    let setup = |seed, registry| Setup { seed, registry, ..Setup::default() };
    vec![
        Script {
            name: "two, in turns",
            setup: setup(101, false),
            steps: by(&[
                (One, SMALL),
                (Two, SMALL),
                (One, SMALL),
                (One, Deed::Look),
                (Two, SMALL),
                (Two, Deed::Batches { count: 3, bytes: 200 }),
                (One, SMALL),
                (Two, Deed::Look),
                (Two, SMALL),
            ]),
        },
        Script {
            name: "two, over rotations",
            setup: Setup { tear_sectors: true, ..setup(102, false) },
            steps: by(&[
                (One, BIG),
                (Two, BIG),
                (Two, BIG),
                (One, SMALL),
                (One, Deed::Batches { count: 5, bytes: 20_000 }),
                (Two, SMALL),
            ]),
        },
        Script {
            name: "two, a trim by one",
            setup: setup(103, false),
            steps: by(&[
                (One, BIG),
                (Two, Deed::Look),
                (One, BIG),
                (One, BIG),
                (Two, Deed::Trim { permille: 700 }),
                (One, Deed::Look),
                (One, SMALL),
                (One, Deed::Trim { permille: 1000 }),
                (Two, SMALL),
            ]),
        },
        Script {
            name: "two, registries",
            setup: setup(104, true),
            steps: by(&[
                (One, Deed::Put { key: 0, bytes: 100 }),
                (Two, Deed::Move { from: 0, to: 1 }),
                (One, Deed::Move { from: 1, to: 0 }),
                (Two, Deed::Look),
                (Two, Deed::Delete { key: 0 }),
                (One, Deed::Move { from: 0, to: 2 }),
                (Two, Deed::Put { key: 3, bytes: 300 }),
            ]),
        },
        Script {
            name: "two, coming and going",
            setup: Setup { copy_on_write: true, ..setup(105, true) },
            steps: by(&[
                (One, SMALL),
                (Two, Deed::Put { key: 1, bytes: 30 }),
                (One, Deed::Close),
                (Two, Deed::Move { from: 1, to: 2 }),
                (One, Deed::Move { from: 2, to: 1 }),
                (Two, Deed::Drop),
                (One, Deed::Close),
                (Two, SMALL),
                (One, Deed::Look),
                (Two, Deed::Close),
            ]),
        },
    ]
}
