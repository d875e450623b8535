//! Watches: no gap between history and present, no silence after a trim, nobody waits for ever.

use std::thread;
use std::time::Duration;

use annals_registry::{
    After, Change, ErrorKind, Event, Options, Prefix, Registry, RegistryReader, Revision, Trim,
};
use annals_wal::LogReader;
use annals_wal::fs::gate::Gate;
use annals_wal::fs::mem::MemDir;
use futures_util::StreamExt;

use crate::gate::gated;
use crate::support::{json, key, open, open_log, open_patient, prefix};

fn changed(event: Event) -> (Revision, Vec<Change>) {
    match event {
        Event::Changed { revision, changes, .. } => (revision, changes),
        other => panic!("not a change: {other:?}"),
    }
}

#[test]
fn history_then_live_without_a_gap() {
    const EACH: u64 = 100;
    let registry = open_patient(&MemDir::new(1));
    let counts: Vec<Vec<Revision>> = thread::scope(|scope| {
        for thread in 0..4 {
            let registry = &registry;
            scope.spawn(move || {
                for n in 0..EACH {
                    registry.put(&key(format!("agents/{thread}")), json(n)).unwrap();
                }
            });
        }
        // Watches that begin anywhere in the middle see all the same.
        let watchers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let watch = registry.watch(prefix("agents"), After::Start).unwrap();
                    let changes = watch.map(Result::unwrap).filter_map(|event| match event {
                        Event::Changed { revision, .. } => Some(revision),
                        _ => None,
                    });
                    changes.take(4 * EACH as usize).collect::<Vec<_>>()
                })
            })
            .collect();
        watchers.into_iter().map(|watcher| watcher.join().unwrap()).collect()
    });
    for seen in &counts {
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        assert_eq!(seen, &counts[0]);
    }
}

#[test]
fn a_prefix_leaves_the_rest_out_and_progress_says_how_far() {
    let registry = open(&MemDir::new(1));
    let mut watch = registry.watch(prefix("a"), After::Now).unwrap();
    assert_eq!(watch.try_next().unwrap(), None);
    let both = [
        Change::Put { key: key("a/1"), value: json(1) },
        Change::Put { key: key("b/1"), value: json(1) },
    ];
    let _ = registry.commit(&[], &both).unwrap();
    let (first, changes) = changed(watch.try_next().unwrap().unwrap());
    assert_eq!(changes, both[..1]);
    let last = registry.put(&key("ab"), json(1)).unwrap();
    assert_eq!(
        watch.try_next().unwrap(),
        Some(Event::Progress(last)),
        "nothing for it up to there"
    );
    assert_eq!(watch.try_next().unwrap(), None);
    // A stored revision goes on where it stopped, over another room's records too.
    registry.log().append("an entry").unwrap();
    registry.delete(&key("a/1")).unwrap();
    for after in [first, last] {
        let mut again = registry.watch(prefix("a"), After::Revision(after)).unwrap();
        let (_, changes) = changed(again.try_next().unwrap().unwrap());
        assert_eq!(changes, [Change::Delete { key: key("a/1") }]);
    }
}

#[test]
fn a_watch_tells_durable_changes_only() {
    let (_disk, gate, registry) = gated();
    thread::scope(|scope| {
        let _closed = gate.close();
        let writer = scope.spawn(|| registry.put(&key("k"), json(2)));
        gate.wait_for_sync();
        let mut watch = registry.watch(Prefix::all(), After::Start).unwrap();
        assert_eq!(changed(watch.try_next().unwrap().unwrap()).1.len(), 1);
        assert!(matches!(watch.try_next().unwrap(), Some(Event::Progress(_))));
        assert_eq!(watch.try_next().unwrap(), None, "ordered is not durable");
        // The log fails: the watch says so and does not wait for ever.
        gate.fail();
        writer.join().unwrap().unwrap_err();
        let error = watch.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        assert!(watch.next().is_none());
    });
}

#[test]
fn a_watch_that_is_overtaken_by_a_trim_says_lagged() {
    let options = Options::new().trim(Trim::ToHolds);
    let registry = options.on(open_log(&MemDir::new(1))).unwrap();
    let first = registry.put(&key("k"), json(0)).unwrap();
    let mut watch = registry.watch(Prefix::all(), After::Start).unwrap();
    assert_eq!(changed(watch.try_next().unwrap().unwrap()).0, first);
    for n in 1..=6 {
        registry.put(&key("k"), json(n)).unwrap();
        registry.log().append(vec![7; 40_000]).unwrap();
        registry.checkpoint().unwrap();
    }
    assert!(registry.log().head_lsn() > first.lsn().next().unwrap());
    // What stands in a segment that is still there is told; then comes the gap, and it is named.
    let mut events = Vec::new();
    while let Some(event) = watch.try_next().unwrap() {
        events.push(event);
    }
    assert!(matches!(events.last(), Some(Event::Lagged { last: Some(_) })), "{events:?}");
    assert!(watch.next().is_none());
    let error = registry.watch(Prefix::all(), After::Revision(first)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Trimmed);
}

#[test]
fn a_watch_ends_with_its_registry_and_its_log() {
    for close in [false, true] {
        let registry = open(&MemDir::new(1));
        registry.put(&key("k"), json(1)).unwrap();
        let watch = registry.watch(Prefix::all(), After::Start).unwrap();
        let watcher = thread::spawn(move || watch.map(Result::unwrap).count());
        if close {
            registry.log().clone().close().unwrap();
        } else {
            drop(registry);
        }
        assert!((1..=2).contains(&watcher.join().unwrap()), "the change, perhaps a progress");
    }
}

fn stream_of(registry: &Registry, events_max: usize) -> annals_registry::WatchStream {
    let watch = registry.watch(Prefix::all(), After::Start).unwrap();
    watch.into_stream(events_max).unwrap()
}

#[test]
fn a_stream_loses_nothing_when_a_wait_is_cancelled() {
    let registry = open(&MemDir::new(1));
    let mut events = stream_of(&registry, 2);
    for n in 0..20 {
        // A wait that is begun and dropped, whether or not there is anything.
        let waker = std::task::Waker::noop();
        let mut next = Box::pin(events.next());
        let polled = next.as_mut().poll(&mut std::task::Context::from_waker(waker));
        drop(next);
        if let std::task::Poll::Ready(event) = polled {
            assert!(matches!(event, Some(Ok(Event::Progress(_)))), "{event:?}");
        }
        let revision = registry.put(&key("k"), json(n)).unwrap();
        let told = futures_executor::block_on(async {
            loop {
                if let Event::Changed { revision, .. } = events.next().await.unwrap().unwrap() {
                    return revision;
                }
            }
        });
        assert_eq!(told, revision);
    }
    drop(registry);
    let rest = futures_executor::block_on(events.collect::<Vec<_>>());
    assert!(rest.iter().all(|event| matches!(event, Ok(Event::Progress(_)))), "{rest:?}");
}

#[test]
fn a_stream_that_nobody_polls_keeps_a_bounded_buffer_and_can_be_dropped() {
    let registry = open(&MemDir::new(1));
    for n in 0..50 {
        registry.put(&key("k"), json(n)).unwrap();
    }
    let events = stream_of(&registry, 1);
    drop(events); // its thread waits for room, and is not waited for in vain
    let mut events = stream_of(&registry, 1);
    let seen = futures_executor::block_on(events.by_ref().take(50).collect::<Vec<_>>());
    assert!(seen.iter().all(|event| matches!(event, Ok(Event::Changed { .. }))));
}

#[test]
fn a_reader_watches_a_log_that_another_owns() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    let first = registry.put(&key("k"), json(1)).unwrap();
    registry.put(&key("k"), json(2)).unwrap();
    let reader = RegistryReader::on(LogReader::open_in(disk.dir()).unwrap()).unwrap();
    let mut watch = reader.watch(Prefix::all(), After::Revision(first)).unwrap();
    assert_eq!(
        changed(watch.next().unwrap().unwrap()).1,
        [Change::Put { key: key("k"), value: json(2) }]
    );
    let third = registry.put(&key("k"), json(3)).unwrap();
    let told = loop {
        let event = watch.next_timeout(Duration::from_secs(60)).unwrap().unwrap();
        if let Event::Changed { revision, .. } = event {
            break revision;
        }
    };
    assert_eq!(told, third);
}

/// A log that another one owns, trimmed since its reader was opened.
fn trimmed_since() -> (MemDir, Registry, RegistryReader) {
    let disk = MemDir::new(1);
    let options = Options::new().trim(Trim::ToHolds).snapshot_bytes(0);
    let registry = options.on(open_log(&disk)).unwrap();
    registry.put(&key("k"), json(0)).unwrap();
    let reader = RegistryReader::on(LogReader::open_in(disk.dir()).unwrap()).unwrap();
    for n in 1..=6 {
        registry.put(&key("k"), json(n)).unwrap();
        registry.log().append(vec![7; 40_000]).unwrap();
        registry.checkpoint().unwrap();
    }
    assert!(registry.log().head_lsn().get() > 3);
    (disk, registry, reader)
}

fn next_change(watch: &mut annals_registry::Watch) -> Revision {
    loop {
        let event = watch.next_timeout(Duration::from_secs(10)).unwrap();
        match event.expect("it ended in silence") {
            Event::Changed { revision, .. } => return revision,
            Event::Progress(_) => {}
            Event::Lagged { .. } => panic!("nothing was trimmed since it began"),
        }
    }
}

#[test]
fn a_reader_behind_the_head_watches_from_there_or_from_now() {
    let (_disk, registry, mut reader) = trimmed_since();
    let mut now = reader.watch(Prefix::all(), After::Now).unwrap();
    let mut start = reader.watch(Prefix::all(), After::Start).unwrap();
    let last = registry.put(&key("k"), json(9)).unwrap();
    assert_eq!(next_change(&mut now), last);
    assert!(next_change(&mut start) < last);
    // What it read before stays what it shows, and the past begins where the log does.
    assert_eq!(
        reader.refresh().unwrap_err().kind(),
        ErrorKind::Log(annals_wal::ErrorKind::Trimmed)
    );
    assert_eq!(reader.get(&key("k")).unwrap().value, json(0));
    let history = reader.history(&key("k")).unwrap();
    assert!(history.lower_bound() > annals_registry::Lsn::FIRST);
    assert!(history.map(Result::unwrap).count() >= 1);
}

/// The owner trims before each single file that a new watch opens: it is told of what comes, or that
/// it lags.
#[test]
fn a_watch_from_now_beside_a_trim_never_ends_in_silence() {
    let mut opens = 0;
    loop {
        let disk = MemDir::new(1);
        let options = Options::new().trim(Trim::ToHolds).snapshot_bytes(0);
        let registry = options.on(open_log(&disk)).unwrap();
        for n in 0..4 {
            registry.put(&key("k"), json(n)).unwrap();
            registry.log().append(vec![7; 40_000]).unwrap();
        }
        let gate = Gate::new(disk.dir(), |_| Ok(()));
        let reader = RegistryReader::on(LogReader::open_in(gate.clone()).unwrap()).unwrap();
        let owner = registry.clone();
        gate.before_open(opens, move || {
            for n in 0..3 {
                owner.put(&key("k"), json(n)).unwrap();
                owner.log().append(vec![7; 40_000]).unwrap();
                owner.checkpoint().unwrap();
            }
        });
        let mut watch = reader.watch(Prefix::all(), After::Now).unwrap();
        let was_called = gate.was_called();
        let last = registry.put(&key("k"), json(9)).unwrap();
        loop {
            let event = watch.next_timeout(Duration::from_secs(10)).unwrap();
            match event.unwrap_or_else(|| panic!("open {opens}: it ended in silence")) {
                Event::Changed { revision, .. } if revision == last => break,
                Event::Changed { .. } | Event::Progress(_) => {}
                Event::Lagged { .. } => break, // trimmed once it had begun, and that is said
            }
        }
        if !was_called {
            assert!(opens > 3, "{opens}");
            return;
        }
        opens += 1;
    }
}
