//! Verification by several threads says what one thread says: of a sound log, of a damaged one, and
//! of one that cannot be read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use annals_wal::fs::mem::MemDir;
use annals_wal::inspect::{Depth, Report, State, inspect_with};
use annals_wal::{Error, Options, Sequence, format};

const THREADS: [usize; 6] = [0, 1, 2, 3, 8, 100];

fn name(sequence: u64) -> String {
    format::segment_name(Sequence::new(sequence).unwrap())
}

/// Eleven segments of 64 KiB, closed.
fn written() -> MemDir {
    let disk = MemDir::new(91);
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    let mut n = 0usize;
    while log.stats().rotations < 10 {
        n += 1;
        log.append(vec![n as u8; (n * 733) % 9000]).unwrap();
    }
    log.close().unwrap();
    disk
}

/// The same from any number of threads, or a panic.
fn verified(disk: &MemDir) -> Result<(Report, u64), Error> {
    let by = |threads| {
        let mut read = 0;
        let report = inspect_with(&disk.dir(), Depth::Everything, threads, &mut |n| read += n);
        report.map(|report| (report, read))
    };
    let words = |verified: &Result<(Report, u64), Error>| format!("{verified:?}");
    let alone = by(1);
    for threads in THREADS {
        // Several times: threads that race differ from run to run.
        for _ in 0..5 {
            assert_eq!(words(&by(threads)), words(&alone), "{threads} threads");
        }
    }
    alone
}

#[test]
fn a_sound_log_is_sound_by_any_number_of_threads() {
    let (report, read) = verified(&written()).unwrap();
    assert_eq!((report.state, report.segments.len() as u64), (State::Clean, 11));
    assert_eq!(read, 11 * (64 << 10));
}

#[test]
fn damage_in_several_segments_is_found_and_ordered_by_any_number_of_threads() {
    let disk = written();
    for (sequence, at) in [(9, 40_000), (2, 300), (5, 20_000), (2, 50_000), (7, 30_000)] {
        let mut bytes = disk.bytes(&name(sequence)).unwrap();
        bytes[at] ^= 0x10;
        disk.set_bytes(&name(sequence), bytes);
    }
    let (report, _) = verified(&disk).unwrap();
    assert_eq!(report.state, State::Corrupt);
    let at: Vec<_> = report.findings.iter().map(|f| f.segment.unwrap().get()).collect();
    assert_eq!(at, [2, 2, 5, 7, 9], "{:?}", report.findings);
}

/// Samples of every size and offset read as many bodies as they say; damage in a body that a sample
/// takes is found, and all offsets together take every body.
#[test]
fn samples_take_what_they_say_and_together_everything() {
    use annals_wal::inspect::inspect_in;
    let disk = MemDir::new(3);
    let log = Options::new().segment_bytes(64 << 10).open_in(disk.dir()).unwrap();
    while log.stats().rotations < 9 {
        log.append(vec![7; 9_000]).unwrap();
    }
    log.close().unwrap();
    for name in disk.names().into_iter().filter(|name| name.ends_with(".wal")).take(9) {
        let mut bytes = disk.bytes(&name).unwrap();
        bytes[20_000] ^= 1;
        disk.set_bytes(&name, bytes);
    }
    for percent in [1, 12, 50, 100] {
        let mut seen = std::collections::BTreeSet::new();
        for offset in 0..9 {
            let report =
                inspect_in(&disk.dir(), Depth::Sample { percent, offset }, &mut |_| ()).unwrap();
            let wanted = (9 * usize::from(percent)).div_ceil(100);
            assert_eq!(report.findings.len(), wanted, "{percent} % from {offset}");
            assert_eq!(report.state, State::Corrupt);
            seen.extend(report.findings.iter().filter_map(|finding| finding.segment));
        }
        assert_eq!(seen.len(), 9, "{percent} %");
    }
    let report = inspect_in(&disk.dir(), Depth::Seals, &mut |_| ()).unwrap();
    assert_eq!(report.findings.len(), 0);
}
