//! A life from a seed: how it is set up, and what happens in it.
//!
//! Never here: doing it. Invariant: the same seed gives the same life for ever; a seed that once
//! found something is kept as the acts it stood for, so that this file may change.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Fault, Keep, SyncFailure};

use super::act::{Act, Then};
use super::damage::{self, Damage};
use super::forge;
use super::life::Life;
use super::random::Random;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// The life and the acts of a seed.
pub fn life(seed: u64) -> (Life, Vec<Act>) {
    let mut random = Random(seed);
    let life = Life {
        registry: random.one_in(2),
        tear_sectors: random.one_in(3),
        copy_on_write: random.one_in(5),
        grows: random.one_in(4),
        seed: random.draw(),
    };
    let long = random.one_in(10);
    let count = if long { 60 + random.below(80) } else { 16 + random.below(28) };
    let acts = (0..count).map(|_| act(&mut random, life.registry)).collect();
    (life, acts)
}

fn act(random: &mut Random, registry: bool) -> Act {
    match random.below(112) {
        0..30 => append(random),
        30..46 if registry => change(random),
        30..38 => Act::Trim { permille: random.below(1100) as u16 },
        38..43 => Act::Hold { name: random.below(6) as u8, permille: random.below(1100) as u16 },
        43..46 => Act::Release { name: random.below(6) as u8 },
        46..56 => Act::Call {
            session: random.below(4) as u8,
            bytes: random.pick(&[10, 200, 3000]),
            flushed: random.one_in(3),
        },
        56 => Act::Archive { name: random.below(2) as u8, copy: random.one_in(3) },
        57 => Act::Backup { fault_in: random.one_in(2).then(|| random.below(24) as u8) },
        58..62 => Act::Read,
        62..69 => Act::Close,
        69..72 => Act::Drop,
        72..75 => Act::Kill,
        75..78 => Act::Crash(keep(random)),
        78..86 => Act::StopIn { ops: random.below(16) as u8, then: then(random) },
        86..94 => fault(random),
        94..96 => Act::Free,
        96 if random.one_in(3) => Act::Holds { count: 20 + random.below(40) as u8 },
        97..105 => visitor(random),
        _ => Act::Damage {
            what: if random.one_in(2) {
                Damage::Forge(random.pick(&forge::ALL))
            } else {
                random.pick(&damage::ALL)
            },
            copied: random.one_in(2),
            seed: random.draw(),
        },
    }
}

/// What others do.
fn visitor(random: &mut Random) -> Act {
    match random.below(12) {
        0..4 => Act::Overlap {
            records: 1 + random.below(3) as u8,
            bytes: random.pick(&[30, 900, 9000]),
            behind: 1 + random.below(3) as u8,
        },
        4 | 5 => Act::Race { key: random.below(12) as u8 },
        6 => Act::Owner { second: random.one_in(40) },
        7 => Act::LoseName { lock: random.one_in(2) },
        8 => Act::Forked,
        9 => Act::OthersSync { how: random.pick(&[SyncFailure::CleanNew, SyncFailure::CleanOld]) },
        10 => Act::Prepare,
        _ => Act::Peek,
    }
}

fn append(random: &mut Random) -> Act {
    let bytes = match random.below(20) {
        0 => 40_000 + random.below(60_000),
        1..8 => 3_000 + random.below(12_000),
        _ => random.below(1_000),
    } as u32;
    let records = 1 + random.below(4) as u8;
    // Together below what a segment can hold, mostly: larger batches get larger segments.
    if random.one_in(4) {
        return Act::Submit { records: 1, bytes };
    }
    Act::Append { records: if bytes > 20_000 { 1 } else { records }, bytes }
}

fn change(random: &mut Random) -> Act {
    let (key, bytes) = (random.below(12) as u8, random.pick(&[8, 100, 2000]));
    match random.below(10) {
        9 => Act::Joint { session: random.below(4) as u8, key },
        6 => Act::Checkpoint,
        7 => Act::Lease { key },
        8 => Act::Watch,
        0 | 1 => Act::Put { key, bytes },
        2 => Act::Delete { key },
        3 => Act::Swap { key, right: random.one_in(2) },
        4 => Act::Commit { first: key, bytes },
        _ => Act::Move { from: key, to: random.below(12) as u8 },
    }
}

fn keep(random: &mut Random) -> Keep {
    match random.below(6) {
        0 => Keep::Nothing,
        1 => Keep::Everything,
        _ => Keep::Some(random.draw()),
    }
}

fn then(random: &mut Random) -> Then {
    if random.one_in(5) { Then::Kill } else { Then::Crash(keep(random)) }
}

fn fault(random: &mut Random) -> Act {
    let ops = random.below(16) as u8;
    let how = random.pick(&[SyncFailure::CleanNew, SyncFailure::CleanOld]);
    match random.below(10) {
        0 | 1 => {
            Act::FailSync { point: random.pick(&SyncPoint::ALL), nth: random.below(2) as u8, how }
        }
        2 | 3 => Act::FaultIn { ops, fault: Fault::Error(random.pick(&[EIO, ENOSPC, EDQUOT])) },
        4 => Act::FaultIn { ops, fault: Fault::Sync(how) },
        5 => Act::FaultIn { ops, fault: Fault::Writeback(how) },
        6 => Act::FaultIn { ops, fault: Fault::Short(random.draw()) },
        7 => Act::FaultIn { ops, fault: Fault::Interrupted },
        8 => match random.below(3) {
            0 => Act::FailRead { nth: random.below(40) as u8, errno: EIO },
            1 => Act::ShortReads { seed: Some(random.draw()) },
            _ => Act::ShortReads { seed: None },
        },
        _ => Act::Fill { bytes: random.below(150_000) as u32 },
    }
}
