//! The scripts of the sweeps: short lives, each about something, together everything a log does.
//!
//! Never here: chance. Invariant: each has at least 30 operations on files (a test counts them).

use annals_wal::fs::mem::SyncFailure;

use crate::world::{Act, Life};

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it is about.
    pub name: &'static str,
    /// How its world is set up.
    pub life: Life,
    /// What happens.
    pub acts: Vec<Act>,
    /// How many openings after a disturbance are disturbed too, at most. Less than 2 only where an
    /// act is so costly that a sweep would take an hour: the openings are those of other scripts.
    pub nested_max: usize,
}

const KIB: u32 = 1024;

fn append(records: u8, bytes: u32) -> Act {
    Act::Append { records, bytes }
}

fn call(session: u8, flushed: bool) -> Act {
    Act::Call { session, bytes: 300, flushed }
}

fn plain(name: &'static str, acts: Vec<Act>) -> Script {
    Script { name, life: Life { seed: 1, ..Life::default() }, acts, nested_max: 2 }
}

fn with_registry(name: &'static str, acts: Vec<Act>) -> Script {
    Script { name, life: Life { seed: 2, registry: true, ..Life::default() }, acts, nested_max: 2 }
}

/// All of them.
pub fn scripts() -> Vec<Script> {
    let mut scripts = of_the_log();
    scripts.extend(of_ends());
    scripts.extend(of_trims());
    scripts.extend(of_the_rooms());
    scripts.extend(of_the_observer());
    scripts.extend(of_others());
    scripts.extend(of_archives());
    scripts
}

fn of_the_log() -> Vec<Script> {
    let small = append(1, 100);
    vec![
        plain(
            "appends",
            vec![small, append(2, 400), append(3, 700), small, append(1, 5000), small],
        ),
        plain(
            "batches that span sectors",
            vec![append(4, 700), append(7, 333), append(2, 1900), append(9, 60), small],
        ),
        // A rotation's first group, torn: what stays of it must not come back.
        plain(
            "batches behind rotations",
            vec![
                append(1, 56_000),
                append(30, 408),
                append(2, 300),
                append(1, 40 * KIB),
                append(30, 408),
                append(2, 300),
            ],
        ),
        plain(
            "submits",
            vec![
                Act::Submit { records: 1, bytes: 90 },
                Act::Submit { records: 3, bytes: 800 },
                small,
                Act::Submit { records: 2, bytes: 2000 },
                small,
                small,
            ],
        ),
        plain(
            "rotations",
            vec![
                append(1, 30 * KIB),
                append(1, 30 * KIB),
                append(1, 30 * KIB),
                append(2, 20 * KIB),
            ],
        ),
        plain(
            "a seal alone",
            vec![append(1, 50 * KIB), append(1, 20 * KIB), small, Act::Close, append(1, 40 * KIB)],
        ),
        plain("large batches", vec![small, append(7, 40_000), small, append(2, 100_000)]),
        Script {
            name: "torn sectors",
            nested_max: 2,
            life: Life { seed: 3, tear_sectors: true, ..Life::default() },
            acts: vec![append(3, 700), append(2, 1500), small, append(1, 3000), small],
        },
        plain(
            "prepared ahead",
            vec![
                append(1, 30 * KIB),
                Act::Prepare,
                append(2, 16 * KIB),
                small,
                Act::Prepare,
                small,
                Act::Drop,
                append(1, 50 * KIB),
            ],
        ),
        Script {
            name: "growing segments",
            nested_max: 2,
            life: Life { seed: 5, grows: true, ..Life::default() },
            acts: vec![
                append(1, 40 * KIB),
                Act::Prepare,
                append(1, 40 * KIB),
                append(1, 90 * KIB),
                Act::Fill { bytes: 200 * KIB },
                append(1, 40 * KIB),
                append(1, 50 * KIB),
            ],
        },
        Script {
            name: "copy on write, a full disk",
            nested_max: 2,
            life: Life { seed: 4, copy_on_write: true, ..Life::default() },
            acts: vec![
                small,
                Act::Fill { bytes: 80 * KIB },
                append(1, 30 * KIB),
                append(1, 30 * KIB),
                append(1, 30 * KIB),
                Act::Free,
                small,
            ],
        },
    ]
}

fn of_ends() -> Vec<Script> {
    let small = append(1, 100);
    vec![
        plain(
            "clean ends",
            vec![small, Act::Close, append(1, 900), Act::Close, append(1, 1800), Act::Close],
        ),
        plain(
            "unclean ends",
            vec![append(2, 700), Act::Drop, append(2, 1400), Act::Kill, append(2, 300)],
        ),
        plain(
            "ends without appends",
            vec![Act::Close, Act::Close, small, Act::Drop, Act::Drop, Act::Close],
        ),
        plain(
            "power cuts",
            vec![
                append(2, 700),
                Act::Crash(annals_wal::fs::mem::Keep::Nothing),
                append(2, 700),
                Act::Crash(annals_wal::fs::mem::Keep::Everything),
                append(1, 50),
            ],
        ),
        plain(
            "ends at a seal",
            vec![append(1, 50 * KIB), Act::Close, append(1, 10 * KIB), Act::Close, small],
        ),
        plain(
            "readers and short reads",
            vec![
                Act::ShortReads { seed: Some(5) },
                append(2, 700),
                Act::Read,
                Act::Drop,
                append(1, 60 * KIB),
                Act::Read,
                Act::Close,
                Act::Read,
            ],
        ),
    ]
}

fn of_trims() -> Vec<Script> {
    let (small, big) = (append(1, 100), append(1, 30 * KIB));
    vec![
        plain(
            "trims",
            vec![
                big,
                big,
                big,
                big,
                Act::Trim { permille: 600 },
                big,
                Act::Trim { permille: 1000 },
            ],
        ),
        plain(
            "holds",
            vec![
                small,
                Act::Hold { name: 1, permille: 500 },
                big,
                big,
                Act::Trim { permille: 1000 },
                Act::Release { name: 1 },
                Act::Trim { permille: 1000 },
                small,
            ],
        ),
        plain(
            "many holds",
            vec![small, Act::Holds { count: 6 }, Act::Close, small, Act::Holds { count: 3 }],
        ),
        plain(
            "trims across ends",
            vec![
                big,
                big,
                big,
                Act::Trim { permille: 900 },
                Act::Drop,
                big,
                Act::Trim { permille: 900 },
                Act::Close,
                small,
            ],
        ),
        plain(
            "a full disk, trimmed",
            vec![
                big,
                big,
                big,
                Act::Fill { bytes: 10 * KIB },
                big,
                big,
                Act::Trim { permille: 900 },
                big,
                small,
            ],
        ),
        plain(
            "backups",
            vec![
                big,
                big,
                Act::Backup { fault_in: None },
                small,
                Act::Backup { fault_in: Some(5) },
                big,
                Act::Close,
                small,
            ],
        ),
    ]
}

/// Sealed segments go to archives, and the log lets go of them.
fn of_archives() -> Vec<Script> {
    let (small, big) = (append(1, 100), append(1, 30 * KIB));
    let archive = |name, copy| Act::Archive { name, copy };
    let trim = Act::Trim { permille: 1000 };
    vec![
        plain(
            "archives by links",
            vec![
                big,
                big,
                big,
                archive(0, false),
                trim,
                big,
                big,
                archive(0, false),
                Act::Kill,
                small,
                archive(0, false),
                trim,
            ],
        ),
        plain(
            "archives by copies",
            vec![
                big,
                big,
                big,
                archive(0, true),
                trim,
                big,
                big,
                Act::Close,
                archive(0, true),
                trim,
            ],
        ),
        plain(
            "two archives and retention",
            vec![
                append(1, 60 * KIB),
                call(1, false),
                archive(0, false),
                append(1, 60 * KIB),
                archive(1, true),
                Act::Retain { records: 1 },
                archive(0, false),
                Act::Retain { records: 1 },
                append(1, 60 * KIB),
                archive(1, true),
                small,
            ],
        ),
        plain(
            "archives of what is empty",
            vec![
                archive(0, false),
                small,
                archive(0, false),
                Act::Kill,
                append(1, 50 * KIB),
                archive(1, false),
                append(1, 50 * KIB),
                archive(0, true),
                archive(1, false),
                trim,
            ],
        ),
    ]
}

/// Others come while the log is busy, or take its files away.
fn of_others() -> Vec<Script> {
    let small = append(1, 100);
    let overlap = |bytes, behind| Act::Overlap { records: 2, bytes, behind };
    let broken_off = (1..24).map(|op| Act::Backup { fault_in: Some(op) });
    vec![
        plain(
            "others behind a sync",
            vec![small, overlap(300, 2), overlap(20_000, 3), small, Act::Peek, overlap(50, 1)],
        ),
        // Torn by a short write, its writeback failed, and nobody is told: what an opening keeps of
        // it must be written again.
        plain(
            "a sync by others",
            vec![
                small,
                overlap(300, 3),
                Act::OthersSync { how: SyncFailure::CleanNew },
                small,
                overlap(3000, 3),
                Act::OthersSync { how: SyncFailure::CleanNew },
                Act::Kill,
                small,
                overlap(30, 3),
                Act::OthersSync { how: SyncFailure::CleanOld },
                small,
            ],
        ),
        plain(
            "names lost",
            vec![
                append(2, 700),
                Act::Peek,
                Act::Forked,
                append(2, 700),
                Act::LoseName { lock: false },
                small,
                Act::LoseName { lock: true },
            ],
        ),
        with_registry(
            "races",
            vec![
                Act::Put { key: 1, bytes: 100 },
                Act::Race { key: 1 },
                Act::Owner { second: false },
                Act::Race { key: 2 },
                Act::Kill,
                Act::Race { key: 2 },
            ],
        ),
        plain(
            "backups broken off",
            [append(2, 700), append(1, 50 * KIB), append(1, 30 * KIB)]
                .into_iter()
                .chain(broken_off)
                .chain([append(1, 3000), Act::Close, small])
                .collect(),
        ),
    ]
}

fn of_the_rooms() -> Vec<Script> {
    let small = append(1, 100);
    let put = |key| Act::Put { key, bytes: 200 };
    vec![
        with_registry(
            "registry snapshots",
            vec![
                Act::Put { key: 1, bytes: 100 },
                append(1, 40 * KIB),
                Act::Put { key: 2, bytes: 100 },
                append(1, 40 * KIB),
                Act::Checkpoint,
                Act::Put { key: 1, bytes: 50 },
                Act::Checkpoint,
                Act::Trim { permille: 1000 },
                Act::Delete { key: 2 },
                Act::Watch,
                Act::Close,
                Act::Put { key: 3, bytes: 10 },
                Act::Checkpoint,
                Act::Checkpoint,
                Act::Trim { permille: 1000 },
            ],
        ),
        with_registry(
            "registry leases and watches",
            vec![
                Act::Lease { key: 1 },
                Act::Put { key: 1, bytes: 20 },
                Act::Lease { key: 1 },
                Act::Watch,
                Act::Checkpoint,
                Act::Lease { key: 2 },
                Act::Watch,
                Act::Close,
                Act::Lease { key: 3 },
            ],
        ),
        with_registry(
            "registry puts",
            vec![put(1), put(2), Act::Delete { key: 1 }, put(1), Act::Close, put(3)],
        ),
        with_registry(
            "registry transactions",
            vec![
                put(1),
                Act::Commit { first: 1, bytes: 900 },
                Act::Move { from: 1, to: 2 },
                Act::Swap { key: 3, right: true },
                Act::Swap { key: 3, right: false },
                Act::Drop,
                Act::Move { from: 3, to: 1 },
            ],
        ),
        with_registry(
            "registry across rotations",
            vec![
                put(1),
                append(1, 40 * KIB),
                Act::Commit { first: 4, bytes: 3000 },
                append(1, 40 * KIB),
                Act::Delete { key: 4 },
                Act::Kill,
                put(5),
            ],
        ),
        plain(
            "observer calls",
            vec![call(1, false), call(2, false), call(1, true), Act::Close, call(1, false)],
        ),
        plain(
            "observer flushes",
            vec![
                call(1, true),
                append(1, 50 * KIB),
                call(2, true),
                call(3, true),
                Act::Drop,
                call(1, true),
            ],
        ),
        with_registry(
            "all rooms",
            vec![
                call(1, false),
                put(1),
                small,
                call(2, true),
                Act::Commit { first: 2, bytes: 100 },
                Act::Backup { fault_in: None },
                Act::Kill,
                put(2),
            ],
        ),
    ]
}

fn of_the_observer() -> Vec<Script> {
    let small = append(1, 100);
    vec![
        plain(
            "retention",
            vec![
                call(1, false),
                append(1, 60 * KIB),
                Act::Retain { records: 1 },
                Act::Kill,
                Act::Retain { records: 1 },
                small,
            ],
        ),
        Script {
            nested_max: 1,
            ..plain(
                "large payloads",
                vec![
                    Act::Large { session: 1, bytes: 3_000 },
                    small,
                    Act::Large { session: 2, bytes: 29_000 },
                    Act::Close,
                    small,
                ],
            )
        },
        with_registry(
            "one commit of two rooms",
            vec![
                Act::Put { key: 1, bytes: 100 },
                Act::Joint { session: 1, key: 1 },
                append(1, 58 * KIB),
                Act::Joint { session: 2, key: 2 },
                Act::Kill,
                Act::Joint { session: 1, key: 1 },
                Act::Recover,
            ],
        ),
        plain("write-offs", vec![call(1, true), Act::Kill, Act::Recover, small]),
        Script {
            nested_max: 0,
            ..plain(
                "imports resumed",
                vec![Act::Import { lines: 2 }, Act::Kill, Act::Import { lines: 2 }, small],
            )
        },
    ]
}
