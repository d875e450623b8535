//! A child made by fork has copies of locks that some thread of its parent held at that moment. It
//! is refused before it touches one.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use annals_registry::{After, Outcome, Prefix, Registry, Sweeper, TxResult, Writers};
use annals_wal::ErrorKind;
use annals_wal::fs::Dir;
use annals_wal::fs::gate::Door;
use annals_wal::fs::mem::MemDir;
use futures_util::Stream;

use crate::gate::gated;
use crate::support::{json, key, open, open_log};

/// Longer than any answer takes, and only a failing test waits so long.
const NEVER: Duration = Duration::from_secs(30);

#[test]
fn a_forked_child_is_refused_though_its_parent_held_the_queue() {
    let disk = MemDir::new(1);
    let log = open_log(&disk);
    let registry = annals_registry::Registry::on(log.clone()).unwrap();
    registry.put(&key("a"), json(1)).unwrap();
    let parent = disk.pid();
    let answers = log.ordered(|_| {
        // The queue lock is held here, as it may be at the moment of a fork.
        disk.set_pid(parent + 1);
        let (sender, receiver) = channel();
        let child = registry.clone();
        thread::spawn(move || {
            let put = child.put(&key("a"), json(2)).map(drop);
            let transacted = child.transact(|tx| -> TxResult<()> {
                tx.put(&key("b"), json(3));
                Ok(())
            });
            let transacted = transacted.map(|outcome| matches!(outcome, Outcome::Done { .. }));
            let _ = sender.send((put, transacted));
        });
        let answers = receiver.recv_timeout(NEVER);
        disk.set_pid(parent);
        Ok(answers)
    });
    let (put, transacted) = answers.unwrap().value.expect("the child waits for its parent's lock");
    for error in [put.unwrap_err(), transacted.unwrap_err()] {
        assert_eq!(error.log_error().map(annals_wal::Error::kind), Some(ErrorKind::Locked));
    }
    registry.put(&key("a"), json(4)).unwrap();
}

/// What a child does, on a thread: it must be done soon, whatever its parent's threads do.
fn in_a_child<T: Send + 'static>(
    disk: &MemDir,
    what: &str,
    call: impl FnOnce() -> T + Send + 'static,
) -> T {
    let parent = disk.pid();
    disk.set_pid(parent + 1);
    let (sender, receiver) = channel();
    thread::spawn(move || drop(sender.send(call())));
    let done = receiver.recv_timeout(Duration::from_secs(60));
    disk.set_pid(parent);
    done.unwrap_or_else(|_| panic!("{what}: the child waits for its parent's thread"))
}

fn is_refused(error: &annals_registry::Error) -> bool {
    error.kind() == annals_registry::ErrorKind::Log(ErrorKind::Locked)
}

/// The sweeper's thread is in the middle of a sweep, which waits for a sync.
#[test]
fn a_child_neither_ends_nor_awaits_its_parents_sweeping() {
    let (disk, gate, registry) = gated();
    let lease = registry.grant(Duration::from_millis(1), "A7").unwrap();
    let sweep = || {
        let sweeper = Sweeper::new(registry.clone(), "test");
        sweeper.in_background(Duration::from_millis(1)).unwrap()
    };
    // Declared before the door is shut, so that a test that fails opens it first.
    let (dropped, stopped);
    let closed = gate.close();
    (dropped, stopped) = (sweep(), sweep());
    gate.wait_for_sync();
    in_a_child(&disk, "drop", move || drop(dropped));
    let stopped = in_a_child(&disk, "stop", move || stopped.stop().unwrap_err());
    assert!(is_refused(&stopped), "{stopped}");
    let mut sweeper = Sweeper::new(registry.clone(), "child");
    assert!(is_refused(&in_a_child(&disk, "sweep", move || sweeper.sweep().unwrap_err())));
    let writers = Writers::new(registry.clone());
    let refused = in_a_child(&disk, "writers", move || writers.with(|_| ()).unwrap_err());
    assert!(is_refused(&refused), "{refused}");
    // The parent's goes on.
    drop(closed);
    while registry.lease(lease.id).unwrap().is_some() {
        thread::yield_now();
    }
}

/// A waker that keeps the thread which wakes it.
struct Slow(Arc<Door>);

impl Wake for Slow {
    fn wake(self: Arc<Self>) {
        let _ = self.0.pass();
    }
}

fn poll(
    stream: &mut annals_registry::WatchStream,
    waker: &Waker,
) -> Poll<Option<annals_registry::Result<annals_registry::Event>>> {
    std::pin::Pin::new(stream).poll_next(&mut Context::from_waker(waker))
}

#[test]
fn a_child_has_no_watch_and_awaits_no_stream_of_its_parent() {
    let disk = MemDir::new(1);
    let registry: Registry = open(&disk);
    let watch = || registry.watch(Prefix::all(), After::Now).unwrap();
    let (mut stream, door) = (watch().into_stream(4).unwrap(), Arc::new(Door::default()));
    let waker = Waker::from(Arc::new(Slow(door.clone())));
    assert!(poll(&mut stream, &waker).is_pending());
    let shut = door.shut_for_now();
    registry.put(&key("k"), json(1)).unwrap();
    door.await_guest(); // the stream's thread
    let told = in_a_child(&disk, "stream", move || {
        let first = poll(&mut stream, Waker::noop());
        let second = poll(&mut stream, Waker::noop());
        drop(stream);
        (first, second)
    });
    assert!(matches!(&told.0, Poll::Ready(Some(Err(error))) if is_refused(error)), "{told:?}");
    assert!(matches!(told.1, Poll::Ready(None)), "{told:?}");
    drop(shut);
    let mut own = watch();
    let told = in_a_child(&disk, "watch", move || (own.next(), own.next().is_none()));
    assert!(matches!(told, (Some(Err(error)), true) if is_refused(&error)));
}
