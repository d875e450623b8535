//! An agent's end and its status in one batch: a crash at every operation leaves both or none, and
//! a retry that is recognised appends no second end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use annals_observer::{
    CallId, CallKind, EntryKind, JsonText, Level, Observer, Outcome, Session, entries,
};
use annals_registry::{
    Change, Expected, Key, Outcome as Commit, Precondition, Registry, Value, WriterId, Written,
};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Log, Options};

fn open(disk: &MemDir) -> annals_wal::Result<Log> {
    Options::new().segment_bytes(64 << 10).open_in(disk.dir())
}

fn status() -> Key {
    Key::new("agents/planner/status").unwrap()
}

fn changes() -> Vec<Change> {
    let count = Key::new("agents/count").unwrap();
    vec![
        Change::Put { key: status(), value: Value::json("done").unwrap() },
        Change::Put { key: count, value: Value::json(&0).unwrap() },
    ]
}

fn ok() -> Outcome {
    Outcome::Ok(JsonText::string("done"))
}

fn kinds(log: &Log) -> Vec<EntryKind> {
    entries(log).unwrap().map(|stored| stored.unwrap().entry.kind).collect()
}

fn ends(log: &Log) -> usize {
    kinds(log).iter().filter(|kind| **kind == EntryKind::AgentEnd).count()
}

struct Rooms {
    log: Log,
    session: Session,
    registry: Registry,
}

impl Rooms {
    fn on(disk: &MemDir) -> Rooms {
        let log = open(disk).unwrap();
        let session = Observer::on(log.clone()).unwrap().session("s-1").unwrap();
        Rooms { session, registry: Registry::on(log.clone()).unwrap(), log }
    }
}

#[test]
fn a_crash_at_every_operation_leaves_both_or_none_and_a_retry_makes_them_once() {
    let (mut none, mut both, mut unknown, mut op) = (0, 0, 0, 0);
    loop {
        let disk = MemDir::new(op);
        let rooms = Rooms::on(&disk);
        let mut writer = rooms.registry.writer().unwrap();
        let (id, sequence): (WriterId, u64) = (writer.id(), writer.sequence());
        let call_id = CallId::new("agent_1").unwrap();
        let mut agent = rooms.session.agent("planner").call_id(call_id.clone()).start().unwrap();
        let queued = rooms.session.clone().level(Level::Batched);
        let queued = queued.error(JsonText::string("queued before the end")).unwrap();
        disk.stop_after(op);
        let changes = changes();
        let made = agent.end_with(ok(), writer.joint(&[], &changes));
        let stopped = disk.stopped();
        if let Ok(together) = &made {
            let end = together.end.unwrap();
            assert!(matches!(together.done, Written::Done { .. }));
            assert_eq!(end.ticket.sequence, queued.ticket.sequence + 1);
        }
        unknown += u32::from(made.as_ref().is_err());
        for keep in [Keep::Nothing, Keep::Everything] {
            let after = disk.crash(keep);
            let rooms = Rooms::on(&after);
            let there = rooms.registry.get(&status()).is_some();
            assert_eq!(ends(&rooms.log), usize::from(there), "operation {op}, {keep:?}");
            assert!(there || made.is_err(), "acknowledged and lost, operation {op}");
            if there {
                both += 1
            } else {
                none += 1
            }
            // Asked again: made now, or recognised; the end is there once either way.
            let mut writer = rooms.registry.resume_writer(id, sequence);
            let joint = writer.joint(&[], &changes);
            let kind = CallKind::Agent;
            let again =
                rooms.session.end_by_call_id_with(kind, call_id.clone(), ok(), joint).unwrap();
            assert_eq!(again.end.is_none(), there);
            assert_eq!(matches!(again.done, Written::AlreadyDone(_)), there);
            assert_eq!(ends(&rooms.log), 1);
            assert!(rooms.registry.get(&status()).is_some());
            // The ticket of an end that was not appended is the next one's.
            rooms.session.error(JsonText::string("after")).unwrap();
            assert!(!kinds(&rooms.log).contains(&EntryKind::Dropped));
        }
        if !stopped {
            break;
        }
        op += 1;
    }
    assert!(none > 0 && both > 2 && unknown > 0, "{none} {both} {unknown} of {op}");
}

#[test]
fn a_refused_commit_records_no_end_and_the_call_stays_open() {
    let rooms = Rooms::on(&MemDir::new(1));
    let mut writer = rooms.registry.writer().unwrap();
    let mut agent = rooms.session.agent("planner").start().unwrap();
    let changes = changes();
    rooms.registry.put(&status(), Value::json("running").unwrap()).unwrap();
    let absent = [Precondition { key: status(), expected: Expected::Absent }];
    let refused = agent.end_with(ok(), writer.joint(&absent, &changes)).unwrap();
    assert!(refused.end.is_none() && matches!(refused.done, Written::Refused(_)));
    assert!(!agent.is_ended());
    assert_eq!(ends(&rooms.log), 0);
    let made = agent.end_with(ok(), writer.joint(&[], &changes)).unwrap();
    assert!(made.end.is_some() && agent.is_ended());
    assert_eq!(ends(&rooms.log), 1);
    assert!(agent.end_with(ok(), writer.joint(&[], &changes)).is_err());
}

/// Drain before gate before queue: threads that go both ways at once. A closure that has the gate
/// alone must not wait for the drain, whose holder waits for the gate: it is told, not hung.
#[test]
fn threads_that_commit_together_and_apart_never_wait_for_each_other_for_ever() {
    const ROUNDS: u32 = 60;
    let rooms = Rooms::on(&MemDir::new(7));
    let observer =
        annals_observer::Options::new().queue_entries_max(8).on(rooms.log.clone()).unwrap();
    let session = observer.session("s-2").unwrap();
    let count = Key::new("count").unwrap();
    rooms.registry.put(&count, Value::json(&0u32).unwrap()).unwrap();
    let (refused, added) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (registry, session) = (rooms.registry.clone(), session.clone());
            scope.spawn(move || {
                let mut writer = registry.writer().unwrap();
                for _ in 0..ROUNDS {
                    let mut agent = session.agent("planner").start().unwrap();
                    let changes = changes();
                    let made = agent.end_with(ok(), writer.joint(&[], &changes)).unwrap();
                    assert!(made.end.is_some());
                }
            });
        }
        for _ in 0..3 {
            let (registry, session) = (rooms.registry.clone(), session.clone());
            let (count, refused, added) = (&count, &refused, &added);
            scope.spawn(move || {
                let batched = session.clone().level(Level::Batched);
                for _ in 0..ROUNDS {
                    let outcome = registry.transact(|tx| {
                        let now: u32 = tx.get_json(count)?.unwrap();
                        std::thread::yield_now(); // so that some are overtaken, and go alone
                        // Waits for the drain, or for room that only its holder makes.
                        let durable = session.error(JsonText::string("inside"));
                        assert!(durable.unwrap_err().to_string().contains("closure"));
                        let queued = batched.error(JsonText::string("inside"));
                        refused.fetch_add(u32::from(queued.is_err()), Relaxed);
                        tx.put_json(count, &(now + 1))?;
                        Ok::<_, annals_registry::Abort<()>>(())
                    });
                    let done = matches!(outcome.unwrap(), Commit::Done { .. });
                    added.fetch_add(u32::from(done), Relaxed);
                    session.error(JsonText::string("outside")).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                observer.flush().unwrap();
                drop(observer.force_flush(Duration::from_secs(60)));
            }
        });
    });
    observer.flush().unwrap();
    let end: u32 = rooms.registry.get_json(&count).unwrap().unwrap();
    assert_eq!(end, added.load(Relaxed));
    assert_eq!(ends(&rooms.log), 2 * ROUNDS as usize);
    // Each end stands right before its transaction, and in the order of the tickets.
    let stored: Vec<_> = entries(&rooms.log).unwrap().map(|stored| stored.unwrap()).collect();
    let ours = stored.iter().filter(|stored| stored.entry.ticket.instance == observer.instance());
    let tickets: Vec<u64> = ours.map(|stored| stored.entry.ticket.sequence).collect();
    assert!(tickets.windows(2).all(|pair| pair[0] < pair[1]), "one FIFO");
    for end in stored.iter().filter(|stored| stored.entry.kind == EntryKind::AgentEnd) {
        let next = rooms.log.get(end.lsn.next().unwrap()).unwrap();
        assert!(EntryKind::of_record(next.kind).is_none(), "the transaction at {}", next.lsn);
    }
    println!("{} batched entries had no room inside of a closure", refused.load(Relaxed));
}
