//! Lives that once found something, kept as the acts they came down to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Fault, Keep, SyncFailure};
use xtask::simulate::live;
use xtask::world::damage::Damage;
use xtask::world::{Act, Life, Then};

fn lives(life: Life, acts: &[Act]) {
    if let Err((at, why)) = live(life, acts) {
        panic!("act {at}: {why}");
    }
}

/// Seed 1062448: a writeback of several files failed while nobody looked; each of them tells one
/// opening. The world gave up too early, the log was right.
#[test]
fn each_file_tells_one_opening_of_a_failed_writeback() {
    let life = Life { copy_on_write: true, seed: 894_454_943_129_396_402, ..Life::default() };
    let acts = [
        Act::Append { records: 2, bytes: 11932 },
        Act::FailSync { point: SyncPoint::Seal, nth: 0, how: SyncFailure::CleanNew },
        Act::Append { records: 1, bytes: 12626 },
        Act::Append { records: 3, bytes: 10736 },
        Act::Fill { bytes: 38700 },
        Act::Submit { records: 1, bytes: 524 },
        Act::FaultIn { ops: 12, fault: Fault::Writeback(SyncFailure::CleanOld) },
        Act::Call { session: 3, bytes: 10, flushed: false },
        Act::StopIn { ops: 13, then: Then::Kill },
        Act::Close,
        Act::Trim { permille: 356 },
    ];
    lives(life, &acts);
}

/// Seed 203218: a crash had left nothing of the last segment's first sector, and the damage made the
/// rest zeros: a segment never used, which proves nothing of the one that was lost before it. The
/// world wanted a refusal, the log was right.
#[test]
fn a_segment_never_used_proves_nothing_of_the_one_before() {
    let seed = 8_313_607_001_029_795_090;
    let life = Life { registry: true, tear_sectors: true, seed, ..Life::default() };
    let acts = [
        Act::Append { records: 2, bytes: 120 },
        Act::FaultIn { ops: 6, fault: Fault::Short(14_345_018_871_150_993_396) },
        Act::Append { records: 1, bytes: 689 },
        Act::Move { from: 9, to: 4 },
        Act::Put { key: 10, bytes: 8 },
        Act::Append { records: 3, bytes: 786 },
        Act::StopIn { ops: 14, then: Then::Crash(Keep::Some(16_947_015_691_664_218_755)) },
        Act::Overlap { records: 2, bytes: 9000, behind: 3 },
        Act::Damage { what: Damage::Gap, copied: false, seed: 9_695_969_424_956_322_057 },
    ];
    lives(life, &acts);
}
