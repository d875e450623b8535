//! Queries, resume and tail: the right entries, and no others.

use std::ops::Bound;

use annals_observer::{
    CallId, EntryKind, Field, JsonText, Level, Options, Query, RunId, StoredEntry, Tail, WallTime,
    entries, last_entries, read_field, session_entries,
};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{LogReader, Lsn};

use crate::common::{NEW_YEAR, all, observer, open, stored};

#[test]
fn each_condition_finds_what_a_look_at_every_entry_finds() {
    let log = open(&MemDir::new(1));
    let (observer, clock) = observer(&log);
    for n in 0..60u64 {
        let session = observer.session(format!("s-{}", n % 3)).unwrap().level(Level::Ordered);
        let session = session.run(RunId::new(format!("r-{}", n % 2)).unwrap());
        let id = CallId::new(format!("c-{n}")).unwrap();
        let tool = session.tool(format!("t-{}", n % 5)).call_id(id);
        let mut call = tool.by_agent(format!("a-{}", n % 4)).start().unwrap();
        clock.advance(1_000);
        match n % 7 {
            0 => call.end_error(JsonText::string("failed")).map(drop),
            _ => call.end_ok(JsonText::string("ok")).map(drop),
        }
        .unwrap();
    }
    observer.flush().unwrap();
    let every = stored(&log);
    let check = |query: Query, wanted: &dyn Fn(&StoredEntry) -> bool| {
        let found: Vec<_> = query.run(&log).unwrap().map(Result::unwrap).collect();
        let expected: Vec<_> = every.iter().filter(|stored| wanted(stored)).cloned().collect();
        assert_eq!(found, expected, "{query:?}");
        assert!(!found.is_empty() && found.len() < every.len(), "it tells nothing: {query:?}");
    };
    let name = |of: &Option<String>, name: &str| of.as_deref() == Some(name);
    let in_one = |s: &StoredEntry| s.entry.session.as_ref().unwrap().as_str() == "s-1";
    check(Query::new().session("s-1").unwrap(), &in_one);
    check(Query::new().agent("a-2"), &|s| name(&s.entry.agent, "a-2"));
    check(Query::new().tool("t-4"), &|s| name(&s.entry.tool, "t-4"));
    check(Query::new().kind(EntryKind::ToolEnd), &|s| s.entry.kind == EntryKind::ToolEnd);
    check(Query::new().failed(), &|s| s.entry.error.is_some());
    check(Query::new().of_run(RunId::new("r-1").unwrap()), &|s| {
        s.entry.run.as_ref().unwrap().as_str() == "r-1"
    });
    check(Query::new().call_id(CallId::new("c-9").unwrap()), &|s| {
        s.entry.call_id.as_ref().unwrap().as_str() == "c-9"
    });
    let (from, to) = (WallTime(NEW_YEAR + 10_000), WallTime(NEW_YEAR + 20_000));
    check(Query::new().since(from).before(to), &|s| s.entry.wall >= from && s.entry.wall < to);
    let lsns = (Bound::Included(Lsn::new(5).unwrap()), Bound::Excluded(Lsn::new(9).unwrap()));
    check(Query::new().lsns(lsns), &|s| (5..9).contains(&s.lsn.get()));
    let both = Query::new().session("s-1").unwrap().tool("t-4").failed();
    check(both, &|s| in_one(s) && name(&s.entry.tool, "t-4") && s.entry.error.is_some());
    let kinds = Query::new().agent("a-1").kind(EntryKind::ToolEnd).kind(EntryKind::Error);
    check(kinds, &|s| name(&s.entry.agent, "a-1") && s.entry.kind == EntryKind::ToolEnd);
}

#[test]
fn the_last_entries_of_a_session_are_those_wherever_they_stand() {
    let log = open(&MemDir::new(2));
    let (observer, _) = observer(&log);
    for n in 0..6_000u64 {
        // The session is rare at the end and dense at the beginning, over many segments.
        let id = if n < 40 || n % 997 == 0 { "s-1" } else { "s-2" };
        let session = observer.session(id).unwrap().level(Level::Ordered);
        session.error(JsonText::string(&n.to_string())).unwrap();
    }
    observer.flush().unwrap();
    let end = log.durable_lsn().unwrap();
    let every: Vec<_> = session_entries(&log, "s-1").unwrap().map(Result::unwrap).collect();
    assert_eq!(every.len(), 46);
    for count in [0, 1, 5, 20, 46, 100] {
        let found = last_entries(&log, "s-1", count, end).unwrap();
        assert_eq!(found, every[every.len().saturating_sub(count)..], "{count}");
    }
    let earlier = last_entries(&log, "s-1", 2, Lsn::new(10).unwrap()).unwrap();
    assert_eq!(earlier.iter().map(|s| s.lsn.get()).collect::<Vec<_>>(), [9, 10]);
}

#[test]
fn a_tail_sees_each_match_once_across_rotations() {
    let disk = MemDir::new(3);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    let reader = LogReader::open_in(disk.dir()).unwrap();
    let query = Query::new().session("s-1").unwrap().failed();
    let mut tail = Tail::from(&reader, Lsn::FIRST, query).unwrap();
    let mut seen = 0;
    for n in 0..400u64 {
        let session = observer.session(format!("s-{}", n % 2)).unwrap();
        session.error(JsonText::string(&format!("{n} {}", "x".repeat(500)))).unwrap();
        while let Some(stored) = tail.try_next().unwrap() {
            assert_eq!(stored.entry.session.as_ref().unwrap().as_str(), "s-1");
            seen += 1;
        }
    }
    assert!(log.stats().segments > 1 || seen == 200, "one segment tells nothing");
    while tail.try_next().unwrap().is_some() {
        seen += 1;
    }
    assert_eq!(seen, 200);
}

#[test]
fn large_texts_stand_in_the_batch_of_their_entry_whole_or_not_at_all() {
    let disk = MemDir::new(4);
    let log = open(&disk);
    let observer = Options::new().inline_bytes_max(1_000).on(log.clone()).unwrap();
    let session = observer.session("s-1").unwrap();
    let large = |letter: &str, n: usize| JsonText::string(&letter.repeat(n));
    let start = session.tool("t").input(large("i", 3_000)).metadata(large("m", 2_000));
    start.start().unwrap().end_ok(JsonText::string("small")).unwrap();
    // Larger than one piece, from the queue this time.
    let batched = session.clone().level(Level::Batched);
    batched.tool("t").start().unwrap().end_ok(large("o", 2_500_000)).unwrap();
    observer.flush().unwrap();
    let crashed = open(&disk.crash(Keep::Nothing));
    let read: Vec<_> = entries(&crashed).unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 4);
    let text = |n: usize, field| read_field(&crashed, &read[n], field).unwrap();
    assert_eq!(text(0, Field::Input), Some(large("i", 3_000)));
    assert_eq!(text(0, Field::Metadata), Some(large("m", 2_000)));
    assert_eq!(text(1, Field::Output), Some(JsonText::string("small")));
    assert_eq!(text(1, Field::Error), None);
    assert_eq!(text(3, Field::Output), Some(large("o", 2_500_000)));
    assert_eq!(read[3].entry.notes.get(Field::Output).unwrap().payload.unwrap().count, 3);
    assert!(all(&crashed).iter().all(|entry| entry.output.is_none() || entry.notes.is_empty()));
    // An entry that names what is not its own is told as damage.
    let mut forged = read[0].clone();
    let mut note = *forged.entry.notes.get(Field::Input).unwrap();
    note.payload.as_mut().unwrap().back = 1;
    forged.entry.notes.set(Field::Input, note);
    let error = read_field(&crashed, &forged, Field::Input).unwrap_err();
    assert_eq!(error.kind(), annals_observer::ErrorKind::Corrupt);
}
