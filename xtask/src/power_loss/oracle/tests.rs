//! Each thing that the oracle checks, wrong once.

use annals_observer::{CallId, Observer};
use annals_wal::{Batch, Lsn};

use super::super::mark::{Mark, What};
use super::super::rig::Scratch;
use super::super::told::hold_name;
use super::*;

const SEED: u64 = 3;

fn batch(thread: u64, n: u64) -> Batch<'static> {
    let len = story::batch_len(SEED, thread, n);
    (0..len).map(|i| story::record(SEED, thread, n, i)).collect()
}

/// Both logs, a backup, and what was told of them. `more` does something nobody was told of.
fn fixture(name: &str, more: impl Fn(&Log, &Registry)) -> (Scratch, Told) {
    let scratch = Scratch::below(&std::env::temp_dir(), &format!("oracle-{name}")).unwrap();
    let mut told = Told::new();
    let mut tell = |what, thread, b, c| {
        told.hear(Mark::begun(what, thread, b, c));
        told.hear(Mark::done(what, thread, b, c));
    };
    tell(What::Session, 0, 1, 0);
    let plain = options().open(scratch.file(story::PLAIN_DIR)).unwrap();
    for n in 0..4 {
        let lsns = plain.append_batch(batch(0, n)).unwrap();
        tell(What::Append, 0, n, lsns.start().get());
    }
    plain.set_hold(&hold_name(1), Lsn::new(2).unwrap()).unwrap();
    tell(What::Hold, 30, 1, 2);
    let report = plain.backup(scratch.file(&story::backup_dir(1))).unwrap();
    tell(What::Backup, 1, 1, report.last_lsn.unwrap().get());

    let shared = options().open(scratch.file(story::SHARED_DIR)).unwrap();
    let registry = Registry::on(shared.clone()).unwrap();
    let own = Key::new(story::agent_key(10)).unwrap();
    let total = Key::new(story::TOTAL).unwrap();
    for n in 1..=2u64 {
        let outcome = registry.transact(|tx| -> annals_registry::TxResult<()> {
            tx.put_json(&own, &n)?;
            tx.put_json(&total, &n)?;
            Ok(())
        });
        let annals_registry::Outcome::Done { revision, .. } = outcome.unwrap() else { panic!() };
        tell(What::Change, 10, n, revision.unwrap().lsn().get());
    }
    let observer = Observer::on(shared.clone()).unwrap();
    let session = observer.session(story::session(story::OBSERVER)).unwrap();
    let start = session.tool("tool").input(story::entry_text(SEED, story::OBSERVER, 0));
    let call_id = CallId::new(story::call_id(story::OBSERVER, 0)).unwrap();
    let mut call = start.call_id(call_id).start().unwrap();
    tell(What::Entry, story::OBSERVER, 0, call.start_receipt().lsn.unwrap().get());
    let end = call.end_ok(story::entry_text(SEED, story::OBSERVER, 1)).unwrap();
    tell(What::Entry, story::OBSERVER, 1, end.lsn.unwrap().get());
    more(&plain, &registry);
    drop((call, session, observer, registry));
    plain.close().unwrap();
    shared.close().unwrap();
    (scratch, told)
}

fn problems(scratch: &Scratch, told: &Told) -> Vec<String> {
    let mut judge = Judge::new(told, SEED);
    judge.judge(scratch.path());
    judge.problems
}

#[test]
fn what_was_told_and_is_there_is_no_problem() {
    let (scratch, mut told) = fixture("good", |_, _| {});
    assert_eq!(problems(&scratch, &told), Vec::<String>::new());
    // And it goes on being none while something is under way.
    let (scratch, _) = fixture("good-2", |_, _| {});
    told.hear(Mark::begun(What::Append, 0, 4, 0));
    told.hear(Mark::begun(What::Trim, 0, 3, 0));
    told.hear(Mark::begun(What::Hold, 30, 1, 0));
    told.hear(Mark::begun(What::Change, 11, 1, 0));
    told.hear(Mark::begun(What::Removal, 1, 0, 0));
    assert_eq!(problems(&scratch, &told), Vec::<String>::new());
}

#[test]
fn every_lie_about_what_was_told_is_seen() {
    type Lie = fn(&mut Told);
    let lies: [(&str, Lie); 15] = [
        ("plain: recovery had shown Some(90)", |told| {
            told.hear(Mark::done(What::Shown, 0, 0, 90));
        }),
        ("shared: recovery had shown Some(3)", |told| {
            told.hear(Mark::done(What::Shown, 1, 0, 3));
        }),
        ("acknowledged at LSN 90, is LOST", |told| {
            told.hear(Mark::done(What::Append, 0, 4, 90));
        }),
        ("acknowledged at LSN 1, is LOST", |told| told.hear(Mark::done(What::Append, 3, 0, 1))),
        ("acknowledged at LSN 90, is at", |told| told.hear(Mark::done(What::Append, 0, 0, 90))),
        ("was never begun", |told| told.appends.clear()),
        ("the head is 1", |told| told.head = (2, 5)),
        ("holds are", |told| told.holds.clear()),
        ("holds are", |told| told.holds = [(hold_name(1), 3)].into()),
        ("the count of 10 is 2", |told| told.hear(Mark::done(What::Change, 10, 3, 2))),
        ("the count of 10 is 2", |told| told.changes.clear()),
        ("change 1 of 10 at LSN 3 is LOST", |told| told.hear(Mark::done(What::Change, 10, 1, 3))),
        ("entry 2, acknowledged", |told| {
            told.hear(Mark::done(What::Entry, story::OBSERVER, 2, 5));
        }),
        ("2 entries, 0 begun", |told| told.entries.clear()),
        ("backup: it holds LSNs", |told| {
            told.hear(Mark::done(What::Backup, 1, 1, 2));
        }),
    ];
    for (at, (due, lie)) in lies.into_iter().enumerate() {
        let (scratch, mut told) = fixture(&format!("lie-{at}"), |_, _| {});
        lie(&mut told);
        let problems = problems(&scratch, &told);
        assert!(problems.iter().any(|problem| problem.contains(due)), "{due}: {problems:?}");
    }
}

#[test]
fn everything_that_is_there_and_should_not_be_is_seen() {
    type More = fn(&Log, &Registry);
    let more: [(&str, More); 6] = [
        ("none of the writer's records", |plain, _| assert!(plain.append("stray").is_ok())),
        ("is not record 0 of batch 4", |plain, _| assert!(plain.append("0 4 0 other").is_ok())),
        ("follows on", |plain, _| assert!(plain.append_batch(batch(0, 7)).is_ok())),
        ("ends after 1 records", |plain, _| {
            let n = (4..).find(|n| story::batch_len(SEED, 0, *n) > 1).unwrap();
            (4..n).for_each(|n| assert!(plain.append_batch(batch(0, n)).is_ok()));
            plain.append(story::record(SEED, 0, n, 0)).unwrap();
        }),
        ("there are 3 transactions", |_, registry| {
            registry.put_json(&Key::new("power/stray").unwrap(), &1).unwrap();
        }),
        ("the total is 9", |_, registry| {
            registry.put_json(&Key::new(story::TOTAL).unwrap(), &9).unwrap();
        }),
    ];
    for (at, (due, more)) in more.into_iter().enumerate() {
        let (scratch, told) = fixture(&format!("more-{at}"), more);
        let problems = problems(&scratch, &told);
        assert!(problems.iter().any(|problem| problem.contains(due)), "{due}: {problems:?}");
    }
}

#[test]
fn a_log_that_is_gone_or_a_backup_that_is_gone_is_seen() {
    let (scratch, told) = fixture("gone", |_, _| {});
    for name in [story::PLAIN_DIR.to_owned(), story::backup_dir(1)] {
        std::fs::remove_dir_all(scratch.file(&name)).unwrap();
    }
    let problems = problems(&scratch, &told);
    for due in ["plain: a log that had been opened is not there", "backup: does not open"] {
        assert!(problems.iter().any(|problem| problem.contains(due)), "{due}: {problems:?}");
    }
}
