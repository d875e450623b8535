//! Futures: dropped after any number of polls, and awaited beside those. The record is there, and
//! whoever still waits is woken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use shuttle::thread;

use crate::explore::explore;
use crate::world::{Submitted, Told, World, choose};

struct Idle;

impl Wake for Idle {
    fn wake(self: Arc<Self>) {}
}

/// Polls so many times, with a waker that nobody waits for, and lets the handle go.
fn poll_and_drop(mut submitted: Submitted, polls: u64) {
    let waker = Waker::from(Arc::new(Idle));
    for _ in 0..polls {
        let polled = Pin::new(&mut submitted.pending).poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(result) = polled {
            assert_eq!(*result.unwrap().start(), submitted.lsn());
        }
        thread::yield_now();
    }
}

#[test]
fn a_future_dropped_at_any_poll_loses_only_the_answer() {
    explore("dropped futures", || {
        let (world, log) = World::new();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (world, log) = (world.clone(), log.clone());
                thread::spawn(move || {
                    let first = world.submit(&log, &format!("{n} first"), 20).unwrap();
                    let second = world.submit(&log, &format!("{n} second"), 20).unwrap();
                    poll_and_drop(first, choose(4));
                    if n > 0 {
                        let told = second.block_on();
                        assert!(matches!(told, Told::Durable(_)), "{told:?}");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // Two of the six may still be on their way: nobody waits for them.
        world.judge_log(log, &[]);
    });
}

/// One waits on a thread, one awaits, and both for a group that an appender may lead.
#[test]
fn futures_and_threads_wait_for_the_same_group() {
    explore("futures and threads", || {
        let (world, log) = World::new();
        let awaited = world.submit(&log, "awaited", 20).unwrap();
        let waited = world.submit(&log, "waited", 20).unwrap();
        let awaiting = thread::spawn(move || awaited.block_on());
        let waiting = thread::spawn(move || waited.wait());
        let told = world.append(&log, "appended", 20);
        assert_eq!(told, Told::Durable(3));
        assert_eq!(awaiting.join().unwrap(), Told::Durable(1));
        assert_eq!(waiting.join().unwrap(), Told::Durable(2));
        world.judge_log(log, &[]);
    });
}
