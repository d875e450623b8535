//! The preparer beside everybody else: a caller may find the spare there, may wait for it, may make
//! it first; the log may end or fail meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_wal::ErrorKind;
use shuttle::thread;

use crate::explore::explore;
use crate::world::{End, Told, World, options};

/// Three of them fill a segment.
const LARGE: usize = 20 << 10;

fn fill(world: &World, log: &annals_wal::Log, name: &str) -> Vec<Told> {
    (0..3).map(|i| world.append(log, &format!("{name}-{i}"), LARGE)).collect()
}

#[test]
fn the_preparer_and_callers_who_need_the_segment() {
    explore("prepared ahead", || {
        let (world, log) = World::new();
        world.disk.set_background(true);
        let (other_world, other) = (world.clone(), log.clone());
        let thread = thread::spawn(move || fill(&other_world, &other, "other"));
        let told = [fill(&world, &log, "this"), thread.join().unwrap()].concat();
        assert!(told.iter().all(|told| matches!(told, Told::Durable(_))), "{told:?}");
        assert!(log.stats().rotations >= 1);
        world.judge_log(log, &[]);
    });
}

#[test]
fn a_log_that_ends_while_its_next_segment_is_prepared() {
    explore("prepared ahead, and closed", || {
        let (world, log) = World::new();
        world.disk.set_background(true);
        let (other_world, other) = (world.clone(), log.clone());
        let thread = thread::spawn(move || fill(&other_world, &other, "other"));
        let told = world.append(&log, "this", LARGE);
        assert!(matches!(told, Told::Durable(_)), "{told:?}");
        let closed = log.clone().close();
        let told = thread.join().unwrap();
        assert!(closed.is_ok(), "{closed:?}");
        assert!(!told.contains(&Told::Unknown), "{told:?}");
        world.judge_log(log, &[ErrorKind::Closed]);
    });
}

#[test]
fn a_preparation_in_the_background_that_fails() {
    // A sync that fails poisons, whoever called it; a full disk is for those who need the segment.
    for (op, error) in [("sync Prepared", eio as fn() -> io::Error), ("create", enospc)] {
        explore(&format!("prepared ahead, and failed: {op}"), move || {
            let failed = Arc::new(AtomicBool::new(false));
            let (armed, hit) = (Arc::new(AtomicBool::new(false)), failed.clone());
            let arm = armed.clone();
            let (world, log) = World::with(options(), move |now| {
                let mine = arm.load(Ordering::SeqCst) && now.starts_with(op);
                if mine && !hit.swap(true, Ordering::SeqCst) { Err(error()) } else { Ok(()) }
            });
            world.disk.set_background(true);
            armed.store(true, Ordering::SeqCst);
            let (other_world, other) = (world.clone(), log.clone());
            let thread = thread::spawn(move || fill(&other_world, &other, "other"));
            fill(&world, &log, "this");
            thread.join().unwrap();
            assert!(failed.load(Ordering::SeqCst), "nobody prepared");
            let end = End::of(&log);
            let sync = op.starts_with("sync");
            // The preparer may not have come to poison it yet.
            assert!(sync || end == End::Whole, "{end:?}");
            // Who waits for the preparation is told how it ended.
            world.judge_log(log, &[if sync { ErrorKind::Io } else { ErrorKind::Full }]);
        });
    }
}

fn eio() -> io::Error {
    annals_wal::fs::gate::eio()
}

fn enospc() -> io::Error {
    annals_wal::fs::gate::enospc()
}
