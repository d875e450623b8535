//! A child made by a real fork inherits an observer and nothing of it: every call is refused or
//! answers at once, whatever lock some thread of the parent had at that moment, and neither what the
//! child does nor its end disturbs the parent.
//!
//! One test, so that the process has few threads when it forks. A child that waits is ended by its
//! alarm, and the test says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]
#![expect(unsafe_code, reason = "a fork cannot be had without; tests only")]

use std::future::Future;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_observer::{
    Call, CallGuard, CallId, CallKind, FlushOutcome, Intent, JsonText, Level, Observer, Options,
    Outcome, Result, Retention, Session, call_state, entries,
};
use annals_wal::{Batch, Before, ErrorKind, Joint, Log, Lsn, Refused};

const PATIENCE_SECONDS: u32 = 20;

/// A child of this process.
struct Child(i32);

impl Child {
    /// Forks; the child runs `body`, and ends without running anything else of the test.
    fn new(body: impl FnOnce()) -> Child {
        // SAFETY: the child runs `body`, which uses the observer's handles and the allocator (glibc
        // makes that whole again after a fork), and leaves by `_exit`. A lock that it can never
        // get ends it by the alarm.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "no fork");
        if pid > 0 {
            return Child(pid);
        }
        // SAFETY: sets a timer of this process.
        unsafe { libc::alarm(PATIENCE_SECONDS) };
        let whole = catch_unwind(AssertUnwindSafe(body)).is_ok();
        // SAFETY: ends this process and nothing else.
        unsafe { libc::_exit(i32::from(!whole)) }
    }

    /// Waits for its end; it must have come through `body` without a panic and in time.
    fn join(self, what: &str) {
        let mut status = 0;
        // SAFETY: the pointer is to a local; the child is ours and not waited for elsewhere.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(waited, self.0);
        let hung = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM;
        assert!(!hung, "{what}: the child waited for ever");
        let done = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        assert!(done, "{what}: status {status:#x}");
    }
}

fn ok() -> JsonText {
    JsonText::string("ok")
}

fn id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

fn refused<T>(what: &str, result: Result<T>) {
    let Err(error) = result else { panic!("{what} went through") };
    let kind = error.log_error().map(annals_wal::Error::kind);
    assert_eq!(kind, Some(ErrorKind::Locked), "{what}: {error}");
    assert!(error.to_string().contains("fork"), "{what}: {error}");
    assert!(!error.outcome_unknown(), "{what}: {error}");
}

fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What a child has of the observer besides the handle itself.
struct Open {
    call: Call,
    guard: CallGuard,
    intent: Intent,
    waits: Pin<Box<dyn Future<Output = Result<Call>> + Send>>,
}

impl Open {
    fn of(session: &Session) -> Open {
        let start = |name: &str| session.tool("t").call_id(id(name));
        let call = start("call").start().unwrap();
        let guard = start("guard").guard().unwrap();
        let intent = start("intent").begin().unwrap();
        let waits = Box::pin(start("waits").start_async());
        Open { call, guard, intent, waits }
    }
}

/// Every call that an observer has, and the drop of everything that it gave.
fn every_call_answers(observer: Observer, session: Session, open: Open) {
    let health = observer.health();
    let told = health.last_error.expect("it says why it has nothing to say");
    assert!(told.to_string().contains("fork"), "{told}");
    assert!(!health.all_durable && health.poisoned.is_none());
    refused("flush", observer.flush());
    let FlushOutcome::Failed { cause, .. } = observer.force_flush(Duration::MAX) else {
        panic!("flushed")
    };
    refused::<()>("force_flush", Err(cause));
    refused("shutdown", observer.shutdown());
    refused("retain", observer.retain(Retention::new().records_max(1)));
    refused("recover", observer.recover());
    for level in [Level::Durable, Level::Ordered, Level::Batched] {
        let session = session.clone().level(level);
        refused("start", session.tool("t").start());
        refused("error", session.error(ok()));
        refused("handoff", session.handoff("a", "b"));
        refused("end", session.end_by_call_id(CallKind::Tool, id("call"), Outcome::Ok(ok())));
        let Poll::Ready(started) = poll(session.tool("t").start_async()) else { panic!("waits") };
        refused("start_async", started);
    }
    let Open { mut call, guard, intent, mut waits } = open;
    refused("end_ok", call.end_ok(ok()));
    let Poll::Ready(ended) = poll(call.end_async(Outcome::Ok(ok()))) else { panic!("it waits") };
    refused("end_async", ended);
    refused("error in a call", call.error(ok()));
    let Poll::Ready(started) = poll(&mut waits) else { panic!("a start that waited waits") };
    refused("a start that waited", started);
    drop((call, guard, intent, waits));
    // What is durable can be read.
    let starts = entries(observer.log()).unwrap().map(Result::unwrap).count();
    assert!(starts >= 3, "{starts}");
    call_state(observer.log(), "s-1", CallKind::Tool, "call").unwrap();
    drop((observer, session));
}

/// A commit that stops with the drain lock in its hands.
struct Stops<'t> {
    log: &'t Log,
    inside: Sender<()>,
    leave: &'t Receiver<()>,
}

impl Joint for Stops<'_> {
    type Done = RangeInclusive<Lsn>;
    type Failure = annals_wal::Error;

    fn commit(self, before: &mut dyn Before) -> annals_wal::Result<Self::Done> {
        let mut batch = Batch::new();
        before.push_to(&mut batch);
        self.inside.send(()).unwrap();
        self.leave.recv().unwrap();
        let lsns = self.log.append_batch(batch)?;
        before.ordered(lsns.clone());
        Ok(lsns)
    }
}

fn observer(dir: &Path) -> (Log, Observer, Session) {
    let log = Log::open(dir.join("log")).unwrap();
    let observer = Options::new().queue_entries_max(64).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    (log, observer, session)
}

#[test]
fn a_forked_child_neither_records_nor_waits_nor_disturbs_its_parent() {
    every_lock_that_can_be_held_is_held();
    a_fork_at_any_moment_of_a_busy_observer();
}

/// One thread has the drain lock, another the log's queue lock.
fn every_lock_that_can_be_held_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let (log, observer, session) = observer(dir.path());
    let mut open = Some(Open::of(&session));
    let mut ends = session.tool("t").start().unwrap();
    let (leave_drain, drain_left) = channel();
    let (leave_queue, queue_left) = channel::<()>();
    std::thread::scope(|scope| {
        let (inside, entered) = channel();
        let holder = log.clone();
        scope.spawn(move || {
            let stops = Stops { log: &holder, inside, leave: &drain_left };
            assert!(ends.end_with(Outcome::Ok(ok()), stops).unwrap().end.is_some());
        });
        entered.recv().unwrap();
        let (inside, entered) = channel();
        let holder = log.clone();
        scope.spawn(move || {
            holder
                .ordered(|_| {
                    inside.send(()).unwrap();
                    queue_left.recv().unwrap();
                    Ok::<(), Refused>(())
                })
                .unwrap();
        });
        entered.recv().unwrap();
        let mut handles = Some((observer.clone(), session.clone()));
        let child = Child::new(|| {
            let (observer, session) = handles.take().unwrap();
            every_call_answers(observer, session, open.take().unwrap());
        });
        // The other threads wait in this process; whatever happens, they are let go.
        let joined = catch_unwind(AssertUnwindSafe(|| child.join("locks held")));
        leave_queue.send(()).unwrap();
        leave_drain.send(()).unwrap();
        joined.unwrap();
    });
    let Open { mut call, guard, intent, waits } = open.take().unwrap();
    call.end_ok(ok()).unwrap();
    drop((guard, intent, waits));
    let lsn = observer.flush().unwrap();
    assert!(lsn.is_some() && !observer.health().closed);
    assert_eq!(observer.health().open_starts, 0, "the intent that was given up is open no more");
}

/// The short lock is nobody's to hold: other threads take it all the time, and the fork comes when it
/// comes.
fn a_fork_at_any_moment_of_a_busy_observer() {
    let dir = tempfile::tempdir().unwrap();
    let (log, observer, session) = observer(dir.path());
    let done = AtomicBool::new(false);
    let mut open = Some(Open::of(&session));
    let recorded = std::thread::scope(|scope| {
        let busy: Vec<_> = (0..2)
            .map(|_| {
                let (observer, done) = (&observer, &done);
                let session = session.clone().level(Level::Batched);
                scope.spawn(move || {
                    let mut recorded = 0u64;
                    while !done.load(SeqCst) {
                        for _ in 0..200 {
                            drop(observer.health());
                        }
                        session.error(ok()).unwrap();
                        recorded += 1;
                    }
                    recorded
                })
            })
            .collect();
        let mut joined = Ok(());
        for n in 0..40 {
            let mut handles = Some((observer.clone(), session.clone()));
            let child = Child::new(|| {
                let (observer, session) = handles.take().unwrap();
                every_call_answers(observer, session, open.take().unwrap());
            });
            joined = catch_unwind(AssertUnwindSafe(|| child.join(&format!("fork {n}"))));
            if joined.is_err() {
                break;
            }
        }
        done.store(true, SeqCst);
        joined.unwrap();
        busy.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    drop(open);
    observer.flush().unwrap();
    let stored = entries(&log).unwrap().map(Result::unwrap);
    let errors = stored.filter(|s| s.entry.kind == annals_observer::EntryKind::Error).count();
    assert_eq!(errors as u64, recorded, "the children neither took nor added any");
}
