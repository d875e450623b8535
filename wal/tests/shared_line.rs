//! Threads of one process while one of them stands in line for `APPEND`: the others read, and learn
//! how it ends (`docs/adr/0022`).
//!
//! Another member keeps its turn meanwhile, so the line lasts for as long as the test wants; that
//! somebody stands in it is seen by a third process, on the flock of `CONTROL`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_wal::fs::LockMode;
use annals_wal::fs::gate::Door;
use annals_wal::fs::mem::MemDir;
use annals_wal::{Error, ErrorKind, Listen, Log, Lsn, Options, RecordRef, Sharing, Turn};

/// Nobody who is to answer takes so long; nobody who stands in line is refused before.
const LONG: Duration = Duration::from_secs(20);

fn open(disk: &MemDir) -> Log {
    let options = Options::new().segment_bytes(64 << 10).sharing(Sharing::Processes);
    options.lock_timeout(4 * LONG).open_in(disk.dir()).unwrap()
}

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).unwrap()
}

/// Whether another process holds this lock now.
fn is_held(disk: &MemDir, name: &str) -> bool {
    disk.dir().try_lock(name, LockMode::Exclusive, false).unwrap().is_none()
}

/// What never comes is not waited for without end: each look takes a lock and yields.
fn until(is_so: impl Fn() -> bool) {
    for _ in 0..20_000_000 {
        if is_so() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("it never comes");
}

fn on_a_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(call()));
    told
}

fn answer<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(LONG).expect("waits for ever")
}

/// Two members of one log, and who looks at their locks.
struct Three {
    /// Whose threads wait.
    a: Log,
    /// Whose turn it is.
    b: Log,
    third: MemDir,
}

impl Three {
    fn new() -> Three {
        let disk = MemDir::new(1);
        let [one, two, third] = [11, 22, 33].map(|pid| disk.as_process(pid));
        Three { a: open(&one), b: open(&two), third }
    }

    /// A turn of the second member, which has left the line.
    fn keep_turn(&self) -> Turn {
        let turn = self.b.turn().unwrap();
        self.b.append("kept").unwrap();
        assert!(!is_held(&self.third, "CONTROL"), "it is first in line no more");
        turn
    }

    /// A thread of the first member that is first in line.
    fn stand_in_line(&self) -> Receiver<Result<Lsn, Error>> {
        let a = self.a.clone();
        let appended = on_a_thread(move || a.append("waited"));
        until(|| is_held(&self.third, "CONTROL"));
        appended
    }
}

#[test]
fn a_refresh_does_not_wait_for_who_stands_in_line() {
    let three = Three::new();
    let turn = three.keep_turn();
    let appended = three.stand_in_line();
    three.b.append("meanwhile").unwrap();
    let a = three.a.clone();
    answer(&on_a_thread(move || a.refresh())).unwrap();
    assert_eq!(three.a.get(lsn(2)).unwrap().payload, b"meanwhile");
    // Again, and by several at once, with and without something to read.
    three.b.append("more").unwrap();
    let readers = [(); 4].map(|()| three.a.clone()).map(|a| {
        on_a_thread(move || {
            a.refresh()?;
            Ok::<_, Error>(a.durable_lsn())
        })
    });
    for told in readers {
        assert_eq!(answer(&told).unwrap(), Some(lsn(3)));
    }
    assert!(appended.try_recv().is_err(), "the turn is kept yet");
    drop(turn);
    assert_eq!(answer(&appended).unwrap(), lsn(4));
}

/// A look finds out that the log is lost for this process; whoever stands in line is told, gives its
/// place back, and the other processes go on.
#[test]
fn who_stands_in_line_learns_of_a_look_that_failed() {
    let three = Three::new();
    let turn = three.keep_turn();
    let appended = three.stand_in_line();
    let a = three.a.clone();
    let joins = on_a_thread(move || a.append("behind it"));
    while three.b.stats().rotations < 2 {
        three.b.append(vec![7; 20_000]).unwrap();
    }
    three.b.trim(three.b.durable_lsn().unwrap()).unwrap();
    let a = three.a.clone();
    let looked = answer(&on_a_thread(move || a.refresh()));
    let kinds = [looked.err(), answer(&appended).err(), answer(&joins).err()];
    let kinds = kinds.map(|error| error.map(|error| error.kind()));
    // Whichever thread looked first.
    assert!(kinds.contains(&Some(ErrorKind::Trimmed)), "{kinds:?}");
    let (trimmed, poisoned) = (ErrorKind::Trimmed, ErrorKind::Poisoned);
    let refused = |kind: &Option<ErrorKind>| [Some(trimmed), Some(poisoned)].contains(kind);
    assert!(kinds[1..].iter().all(refused), "{kinds:?}");
    assert!(!is_held(&three.third, "CONTROL"), "it stands in line no more");
    drop(turn);
    assert!(!is_held(&three.third, "APPEND"));
    three.b.append("on").unwrap();
    assert_eq!(three.a.append("no").unwrap_err().kind(), ErrorKind::Poisoned);
}

/// Stands at a door with each record that it is told of.
#[derive(Debug, Default)]
struct AtDoor {
    door: Door,
    heard: Mutex<Vec<u64>>,
}

impl Listen for AtDoor {
    fn appended(&self, record: RecordRef<'_>) {
        self.heard.lock().unwrap().push(record.lsn.get());
        self.door.pass().unwrap();
    }
}

/// Who has `APPEND` waits for the thread that looks, and for no look that would begin later.
#[test]
fn a_turn_begins_when_the_look_of_another_thread_has_ended() {
    let three = Three::new();
    let heard = Arc::new(AtDoor::default());
    let listener: Arc<dyn Listen> = heard.clone();
    three.a.listen(&listener).unwrap();
    let turn = three.keep_turn();
    let appended = three.stand_in_line();
    let shut = heard.door.shut_for_now();
    let a = three.a.clone();
    let looks = on_a_thread(move || a.refresh());
    heard.door.await_guest();
    drop(turn);
    until(|| is_held(&three.third, "APPEND"));
    let a = three.a.clone();
    let later = on_a_thread(move || a.refresh());
    assert!(appended.try_recv().is_err(), "the writer is with the thread that looks");
    drop(shut);
    answer(&looks).unwrap();
    answer(&later).unwrap();
    assert_eq!(answer(&appended).unwrap(), lsn(2));
    assert_eq!(*heard.heard.lock().unwrap(), [1], "told once");
}

/// Panics with the first record that it is told of.
#[derive(Debug)]
struct Panics;

impl Listen for Panics {
    fn appended(&self, _record: RecordRef<'_>) {
        panic!("on purpose");
    }
}

#[test]
fn who_stands_in_line_learns_of_a_look_that_panicked() {
    let three = Three::new();
    let listener: Arc<dyn Listen> = Arc::new(Panics);
    three.a.listen(&listener).unwrap();
    let turn = three.keep_turn();
    let appended = three.stand_in_line();
    let a = three.a.clone();
    let looked = on_a_thread(move || {
        let call = std::panic::AssertUnwindSafe(|| a.refresh());
        std::panic::catch_unwind(call).is_err()
    });
    // Either of the two looks first; where it is the one in line, its thread ends there.
    let panicked = answer(&looked);
    match appended.recv_timeout(LONG) {
        Ok(result) => assert_eq!(result.unwrap_err().kind(), ErrorKind::Poisoned),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => assert!(!panicked),
        Err(error) => panic!("waits for ever: {error}"),
    }
    assert!(!is_held(&three.third, "CONTROL"));
    drop(turn);
    three.b.append("on").unwrap();
    assert!(three.a.poisoned().is_some());
}

/// Threads that read without a pause keep nobody's turn from beginning.
#[test]
fn readers_without_a_pause_keep_no_turn_from_beginning() {
    let three = Three::new();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers = [(); 3].map(|()| {
        let (a, over) = (three.a.clone(), over.clone());
        on_a_thread(move || {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                a.refresh()?;
            }
            Ok::<_, Error>(())
        })
    });
    let (a, b) = (three.a.clone(), three.b.clone());
    let writes =
        [a, b].map(|log| on_a_thread(move || (0..50).try_for_each(|_| log.append("x").map(drop))));
    let written = writes.each_ref().map(answer);
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    written.into_iter().for_each(|result| result.unwrap());
    readers.iter().for_each(|told| answer(told).unwrap());
    three.a.refresh().unwrap();
    assert_eq!(three.a.durable_lsn(), Some(lsn(100)));
}
