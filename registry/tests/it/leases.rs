//! Leases: nobody is active for ever, nothing is owned twice, and nothing that lives is swept.

use std::sync::Arc;
use std::time::Duration;

use annals_registry::{
    Change, Clock, ErrorKind, LeaseId, Options, Outcome, Prefix, Registry, Sweeper, TRANSACTION,
    TxResult, decode_committed,
};
use annals_wal::fs::mem::{Keep, MemDir};

use crate::support::{HandClock, json, key, meanwhile, number, open, open_log};

const TTL: Duration = Duration::from_millis(1000);

fn clocked(disk: &MemDir) -> (Arc<HandClock>, Registry) {
    let clock = Arc::new(HandClock::default());
    let registry = Options::new().clock(clock.clone()).on(open_log(disk)).unwrap();
    (clock, registry)
}

fn sweeper(registry: &Registry) -> Sweeper {
    Sweeper::new(registry.clone(), "test")
}

#[test]
fn a_lease_that_nobody_renews_takes_its_keys_with_it() {
    let disk = MemDir::new(1);
    let (clock, registry) = clocked(&disk);
    let (lease, other) = (registry.grant(TTL, "A7").unwrap(), registry.grant(TTL, "A8").unwrap());
    for (path, lease) in [("agents/A7", &lease), ("owner", &lease), ("agents/A8", &other)] {
        registry.put_leased(&key(path), json(1), lease.id).unwrap();
    }
    registry.put(&key("free"), json(1)).unwrap();
    registry.put_leased(&key("unbound"), json(1), lease.id).unwrap();
    registry.put(&key("unbound"), json(2)).unwrap();
    registry.put_leased(&key("moved"), json(1), lease.id).unwrap();
    registry.put_leased(&key("moved"), json(2), other.id).unwrap();

    let mut sweeper = sweeper(&registry);
    assert!(sweeper.sweep().unwrap().leases.is_empty(), "seen for the first time");
    clock.go_on(999);
    registry.keep_alive(other.id).unwrap();
    assert!(sweeper.sweep().unwrap().leases.is_empty(), "not a whole ttl");
    clock.go_on(1);
    let swept = sweeper.sweep().unwrap();
    assert_eq!(swept.leases, std::slice::from_ref(&lease));
    assert_eq!(swept.keys, [key("agents/A7"), key("owner")]);
    let left = registry.scan(&Prefix::all()).into_iter().map(|(key, _)| key.to_string());
    assert_eq!(left.collect::<Vec<_>>(), ["agents/A8", "free", "moved", "unbound"]);
    assert_eq!(registry.leases().unwrap().len(), 1);
    assert_eq!(registry.metrics().leases_expired, 1);

    // Expired is expired: nothing under it, and it never comes back.
    for error in [
        registry.keep_alive(lease.id).unwrap_err(),
        registry.put_leased(&key("late"), json(1), lease.id).unwrap_err(),
        registry.revoke(lease.id, "me", "why").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::LeaseExpired);
        assert!(error.to_string().contains(&lease.id.to_string()), "{error}");
    }
    assert_eq!(registry.get(&key("late")), None);
}

#[test]
fn a_sweep_says_in_the_log_who_why_and_when() {
    let disk = MemDir::new(1);
    let (clock, registry) = clocked(&disk);
    let lease = registry.grant(TTL, "agent A7").unwrap();
    let mut sweeper = sweeper(&registry);
    sweeper.sweep().unwrap();
    clock.go_on(1000);
    sweeper.sweep().unwrap();
    let last = registry.log().range(..).unwrap().last().unwrap().unwrap();
    assert_eq!(last.kind, TRANSACTION);
    let note = decode_committed(last.lsn, &last.payload).unwrap().note.unwrap();
    assert_eq!((note.who.as_str(), note.wall_ms), ("test", 1_000_000 - 7_000));
    assert!(note.why.contains("agent A7") && note.why.contains(&lease.id.to_string()), "{note:?}");
}

/// No deadline is stored: whoever comes new waits a whole ttl by his own clock.
#[test]
fn a_reopening_gives_every_lease_a_fresh_ttl() {
    let disk = MemDir::new(1);
    let (clock, registry) = clocked(&disk);
    let lease = registry.grant(TTL, "A7").unwrap();
    let mut first = sweeper(&registry);
    first.sweep().unwrap();
    clock.go_on(999);
    drop((first, registry));

    let disk = disk.crash(Keep::Nothing);
    let (clock, registry) = clocked(&disk);
    let mut second = sweeper(&registry);
    second.sweep().unwrap();
    clock.go_on(999);
    assert!(second.sweep().unwrap().leases.is_empty());
    assert_eq!(registry.lease(lease.id).unwrap(), Some(lease));
    clock.go_on(1);
    assert_eq!(second.sweep().unwrap().leases.len(), 1);
}

/// A renewal and a sweep at once: whichever commits first, the other one sees it.
#[test]
fn a_renewal_that_commits_first_saves_the_lease() {
    let (clock, registry) = clocked(&MemDir::new(1));
    let lease = registry.grant(TTL, "A7").unwrap();
    registry.put_leased(&key("k"), json(1), lease.id).unwrap();
    let mut sweeper = sweeper(&registry);
    sweeper.sweep().unwrap();
    clock.go_on(1000);
    registry.keep_alive(lease.id).unwrap();
    assert!(sweeper.sweep().unwrap().leases.is_empty(), "another revision: seen anew");
    assert_eq!(number(&registry, &key("k")), Some(1));
}

/// What is bound between the sweep's look and its commit goes too: the look counts as read.
#[test]
fn a_key_bound_during_a_revocation_is_no_ghost() {
    let registry = crate::support::open(&MemDir::new(1));
    let lease = registry.grant(TTL, "A7").unwrap();
    registry.put_leased(&key("a"), json(1), lease.id).unwrap();
    let mut runs = 0;
    let outcome = registry.transact(|tx| -> TxResult<()> {
        runs += 1;
        // Under the lease, while somebody revokes it.
        tx.put_leased(&key("b"), json(1), lease.id)?;
        if runs == 1 {
            let gone = meanwhile(|| registry.revoke(lease.id, "me", "test").unwrap());
            assert_eq!(gone, [key("a")]);
        }
        Ok(())
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LeaseExpired);
    assert_eq!(runs, 2);
    assert_eq!(registry.scan(&Prefix::all()), []);
}

#[test]
fn bindings_raced_by_revocations_leave_no_ghost() {
    for seed in 0..20 {
        let registry = Options::new().attempts_max(1000).on(open_log(&MemDir::new(seed))).unwrap();
        let lease = registry.grant(TTL, "A7").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (registry, id) = (&registry, lease.id);
                scope.spawn(move || {
                    for n in 0..10 {
                        let bound = key(format!("threads/{thread}/{n}"));
                        match registry.put_leased(&bound, json(n), id) {
                            Ok(_) => {}
                            Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseExpired),
                        }
                    }
                });
            }
            scope.spawn(|| registry.revoke(lease.id, "me", "test").unwrap());
        });
        assert_eq!(registry.scan(&Prefix::all()), [], "seed {seed}");
    }
}

#[test]
fn leases_last_over_reopening_and_bindings_too() {
    let disk = MemDir::new(1);
    let registry = open(&disk);
    let lease = registry.grant(TTL, "A7").unwrap();
    registry.put_leased(&key("k"), json(1), lease.id).unwrap();
    drop(registry);
    let registry = open(&disk);
    assert_eq!(registry.get(&key("k")).unwrap().lease, Some(lease.id));
    assert_eq!(registry.revoke(lease.id, "me", "why").unwrap(), [key("k")]);
    assert_eq!(registry.get(&key("k")), None);
}

#[test]
fn leases_are_no_keys_of_the_callers() {
    let registry = open(&MemDir::new(1));
    registry.grant(TTL, "A7").unwrap();
    assert_eq!(registry.scan(&Prefix::all()), []);
    let outcome = registry.transact(|tx| -> TxResult<usize> {
        let all = tx.scan(&Prefix::all())?.len();
        meanwhile(|| registry.grant(TTL, "A8").unwrap());
        tx.put(&key("k"), json(1));
        Ok(all)
    });
    assert!(matches!(outcome, Ok(Outcome::Done { value: 0, .. })), "no conflict: {outcome:?}");
    assert_eq!(registry.metrics().retries, 0);
}

#[test]
fn bad_input_changes_nothing() {
    let registry = open(&MemDir::new(1));
    let before = registry.log().durable_lsn();
    for error in [
        registry.grant(Duration::from_micros(999), "A7").unwrap_err(),
        registry.grant(TTL, "x".repeat(1025)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let never = LeaseId::from(7);
    let change = [Change::PutLeased { key: key("k"), value: json(1), lease: never }];
    assert_eq!(registry.commit(&[], &change).unwrap_err().kind(), ErrorKind::LeaseExpired);
    assert_eq!("7".parse::<LeaseId>().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(never.to_string().parse::<LeaseId>().unwrap(), never);
    assert_eq!(registry.log().durable_lsn(), before);
}

/// The background task, with real time, as short as it goes.
#[test]
fn a_sweeper_in_the_background_sweeps_until_it_is_stopped() {
    let registry = open(&MemDir::new(1));
    let lease = registry.grant(Duration::from_millis(1), "A7").unwrap();
    let mut watch = registry.watch(Prefix::all(), annals_registry::After::Now).unwrap();
    registry.put_leased(&key("k"), json(1), lease.id).unwrap();
    let sweeping = sweeper(&registry).in_background(Duration::from_millis(1)).unwrap();
    // The binding, and then the sweep that ends it.
    let gone = watch.find(|event| match event.as_ref().unwrap() {
        annals_registry::Event::Changed { changes, .. } => changes[0].value().is_none(),
        _ => false,
    });
    assert!(gone.is_some());
    sweeping.stop().unwrap();
    assert_eq!(registry.leases().unwrap(), []);
}

/// A clock that lets somebody else do something while a sweep is under way: a sweep asks for the wall
/// time after it has looked at the lease.
#[derive(Default)]
struct Meddling {
    now: HandClock,
    hook: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// The same, while somebody looks at the clock that leases are judged by.
    hook_of_now: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Meddling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddling")
    }
}

impl Clock for Meddling {
    fn now(&self) -> Duration {
        let now = self.now.now();
        let hook = self.hook_of_now.lock().unwrap().take();
        if let Some(hook) = hook {
            meanwhile(hook);
        }
        now
    }

    fn wall_ms(&self) -> u64 {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            meanwhile(hook);
        }
        0
    }
}

#[test]
fn a_renewal_in_the_middle_of_a_sweep_saves_the_lease() {
    let clock = Arc::new(Meddling::default());
    let log = open_log(&MemDir::new(1));
    let registry = Options::new().clock(clock.clone()).on(log).unwrap();
    let lease = registry.grant(TTL, "A7").unwrap();
    registry.put_leased(&key("k"), json(1), lease.id).unwrap();
    let mut sweeper = sweeper(&registry);
    sweeper.sweep().unwrap();
    clock.now.go_on(1000);
    let other = registry.clone();
    let renew = move || assert_eq!(other.keep_alive(lease.id).unwrap().renewals, 1);
    *clock.hook.lock().unwrap() = Some(Box::new(renew));
    assert_eq!(sweeper.sweep().unwrap(), annals_registry::Swept::default());
    assert!(clock.hook.lock().unwrap().is_none(), "it was renewed in the middle");
    assert_eq!(number(&registry, &key("k")), Some(1));
    assert_eq!(registry.lease(lease.id).unwrap().map(|lease| lease.renewals), Some(1));
}

/// Granted while a sweep looks at the clock: it was not there when that was looked at, so its time
/// begins with the next sweep.
#[test]
fn a_lease_granted_in_the_middle_of_a_sweep_was_not_seen_before_it_was_there() {
    let clock = Arc::new(Meddling::default());
    let registry = Options::new().clock(clock.clone()).on(open_log(&MemDir::new(1))).unwrap();
    let mut sweeper = sweeper(&registry);
    let (other, of_hook) = (registry.clone(), clock.clone());
    *clock.hook_of_now.lock().unwrap() = Some(Box::new(move || {
        of_hook.now.go_on(600);
        drop(other.grant(TTL, "A7").unwrap());
    }));
    assert!(sweeper.sweep().unwrap().leases.is_empty());
    assert_eq!(registry.leases().unwrap().len(), 1);
    clock.now.go_on(400); // 400 ms after it was granted
    assert_eq!(sweeper.sweep().unwrap(), annals_registry::Swept::default());
    assert_eq!(registry.leases().unwrap().len(), 1, "it lived for 400 of its 1000 ms");
}
