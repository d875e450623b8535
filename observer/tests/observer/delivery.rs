//! What is durable when a call has returned, and who hears of it when it is not?

use annals_observer::{EntryKind, ErrorKind, JsonText, Level, Observer};
use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Keep, MemDir, SyncFailure};

use crate::common::{all, observer, open, stored};

#[test]
fn a_durable_start_is_on_disk_when_it_returns() {
    let disk = MemDir::new(1);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    let call = observer.session("s-1").unwrap().tool("t").start().unwrap();
    let crashed = open(&disk.crash(Keep::Nothing));
    let read = stored(&crashed);
    assert_eq!(read.len(), 1);
    assert_eq!(Some(read[0].lsn), call.start_receipt().lsn);
    assert_eq!(read[0].entry.ticket, call.start_receipt().ticket);
}

#[test]
fn a_durable_entry_makes_all_before_it_durable() {
    let disk = MemDir::new(2);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    let ordered = observer.session("s-1").unwrap().level(Level::Ordered);
    for n in 0..50 {
        let receipt = ordered.error(JsonText::string(&n.to_string())).unwrap();
        assert_eq!(receipt.lsn, None, "an LSN is told only once it is durable");
    }
    let last = observer.session("s-2").unwrap().error(JsonText::string("durable")).unwrap();
    let read = stored(&open(&disk.crash(Keep::Nothing)));
    assert_eq!(read.len(), 51);
    assert_eq!(last.lsn, Some(read[50].lsn));
}

#[test]
fn a_flush_covers_every_ticket_taken_before_it() {
    let disk = MemDir::new(3);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    assert_eq!(observer.flush().unwrap(), None, "nothing to cover");
    let session = observer.session("s-1").unwrap().level(Level::Ordered);
    for n in 1..=200 {
        session.error(JsonText::string(&n.to_string())).unwrap();
        if n % 50 == 0 {
            let lsn = observer.clone().flush().unwrap().unwrap();
            assert_eq!(lsn.get(), n);
            assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len() as u64, n);
        }
    }
    assert!(observer.health().all_durable);
}

#[test]
fn tickets_are_dense_and_in_the_order_of_the_log() {
    let log = open(&MemDir::new(4));
    let (observer, _) = observer(&log);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let observer = &observer;
            scope.spawn(move || {
                let level = if thread % 2 == 0 { Level::Durable } else { Level::Ordered };
                let session = observer.session(format!("s-{thread}")).unwrap().level(level);
                for _ in 0..100 {
                    session.tool("t").start().unwrap().end_ok(JsonText::string("ok")).unwrap();
                }
            });
        }
    });
    observer.flush().unwrap();
    let sequences: Vec<u64> = all(&log).iter().map(|entry| entry.ticket.sequence).collect();
    assert_eq!(sequences, (1..=1600).collect::<Vec<u64>>());
    let spans: std::collections::HashSet<_> =
        all(&log).iter().map(|entry| entry.span.unwrap()).collect();
    assert_eq!(spans.len(), 800, "a span for every call and no other");
}

#[test]
fn two_observers_on_one_log_have_their_own_tickets() {
    let log = open(&MemDir::new(5));
    let (one, _) = observer(&log);
    let (two, _) = observer(&log);
    assert_ne!(one.instance(), two.instance());
    for observer in [&one, &two, &one] {
        observer.session("s-1").unwrap().error(JsonText::string("e")).unwrap();
    }
    let tickets: Vec<_> =
        all(&log).iter().map(|entry| (entry.ticket.instance, entry.ticket.sequence)).collect();
    assert_eq!(tickets, [(one.instance(), 1), (two.instance(), 1), (one.instance(), 2)]);
}

#[test]
fn shutdown_flushes_is_idempotent_and_refuses_what_comes_after() {
    let disk = MemDir::new(6);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap().level(Level::Ordered);
    let mut open_call = session.tool("t").start().unwrap();
    let clone = observer.clone();
    let last = observer.shutdown().unwrap();
    assert_eq!(last.map(|lsn| lsn.get()), Some(1));
    assert_eq!(clone.shutdown().unwrap(), last);
    assert_eq!(all(&open(&disk.crash(Keep::Nothing))).len(), 1);

    let closed = |error: annals_observer::Error| error.kind() == ErrorKind::Closed;
    assert!(closed(open_call.end_ok(JsonText::string("late")).unwrap_err()));
    assert!(closed(session.tool("t").start().unwrap_err()));
    assert!(closed(clone.session("s-2").unwrap().error(JsonText::string("e")).unwrap_err()));
    assert!(observer.health().closed);
    assert_eq!(all(&log).len(), 1);
    log.append("the log itself is still open").unwrap();
}

/// The seeds logged every write error and went on.
#[test]
fn a_failed_sync_reaches_the_durable_caller_the_flush_and_health() {
    let disk = MemDir::new(7);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let kept = session.tool("t").start().unwrap();
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanNew);
    let ordered = session.clone().level(Level::Ordered);
    ordered.error(JsonText::string("accepted, and then lost")).unwrap();

    let failed = observer.flush().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Log);
    assert!(failed.outcome_unknown(), "{failed}");
    assert!(observer.health().last_error.unwrap().outcome_unknown());
    assert!(observer.flush().is_err(), "said again, not once");
    let refused = session.tool("t").start().unwrap_err();
    assert_eq!(refused.log_error().unwrap().kind(), annals_wal::ErrorKind::Poisoned);
    let health = observer.health();
    assert!(health.poisoned.is_some() && !health.all_durable);
    assert_eq!((health.accepted, health.refused), (2, 1));
    assert_eq!(kept.start_receipt().lsn.map(|lsn| lsn.get()), Some(1));
    assert_eq!(all(&log).len(), 1, "only what was durable is read");
}

#[test]
fn a_durable_entry_whose_sync_fails_is_an_error_of_unknown_outcome() {
    let disk = MemDir::new(8);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    disk.fail_sync(SyncPoint::Group, 0, SyncFailure::CleanOld);
    let error = observer.session("s-1").unwrap().tool("t").start().unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
}

#[test]
fn a_full_disk_refuses_without_a_gap_and_recovers_with_the_space() {
    let disk = MemDir::new(9);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let payload = JsonText::string(&"x".repeat(4000));
    disk.set_bytes_free(Some(0));
    let mut written = 0;
    let refused = loop {
        match session.error(payload.clone()) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "a segment of 64 KiB takes no 4 MB");
    };
    assert_eq!(refused.log_error().unwrap().kind(), annals_wal::ErrorKind::Full);
    assert!(!refused.outcome_unknown());
    let health = observer.health();
    assert_eq!((health.refused, health.poisoned.is_none()), (1, true));
    let last = health.last_error.unwrap();
    assert_eq!(last.log_error().unwrap().kind(), annals_wal::ErrorKind::Full);
    disk.set_bytes_free(None);
    let receipt = session.error(payload).unwrap();
    assert_eq!(receipt.ticket.sequence, written + 1, "the refused entry left no gap");
    let sequences: Vec<u64> = all(&log).iter().map(|entry| entry.ticket.sequence).collect();
    assert_eq!(sequences, (1..=written + 1).collect::<Vec<u64>>());
}

#[test]
fn handles_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Observer>();
    crosses::<annals_observer::Session>();
    crosses::<annals_observer::Call>();
    let log = open(&MemDir::new(10));
    let (observer, _) = observer(&log);
    let _dropped = observer.session("s-1").unwrap().agent("a").start().unwrap();
    drop(_dropped);
    let kinds: Vec<EntryKind> = all(&log).iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::AgentStart], "a dropped call records nothing");
}
