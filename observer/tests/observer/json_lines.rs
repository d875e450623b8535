//! Is every line of a `.jsonl` there once, whole, and is a bad one named and left out?

use annals_observer::import::{ImportOptions, ImportOutcome, Reason};
use annals_observer::{Entry, EntryKind, JsonText, Level, TimeOrigin, session_entries};
use annals_wal::Options;
use annals_wal::fs::mem::MemDir;

use crate::common::{NEW_YEAR, all, file, import, observer, open, sample};

const DEFAULT: ImportOptions = ImportOptions { strict: false, again: false };

/// The entries of the lines, without the import's own.
fn lines(entries: &[Entry]) -> Vec<&Entry> {
    let own = [EntryKind::ImportBegin, EntryKind::ImportDone];
    entries.iter().filter(|entry| !own.contains(&entry.kind)).collect()
}

fn inputs(entries: &[Entry]) -> Vec<&str> {
    lines(entries).into_iter().filter_map(|entry| Some(entry.input.as_ref()?.as_str())).collect()
}

#[test]
fn every_line_is_kept_byte_for_byte_with_what_can_be_read_out_of_it() {
    let log = open(&MemDir::new(1));
    let (observer, clock) = observer(&log);
    clock.advance(77);
    let (report, bad) = import(&observer, &sample("events.jsonl"), DEFAULT);
    assert_eq!((report.items, report.bad, report.entries, bad.len()), (8, 0, 10, 0));

    let text = std::fs::read_to_string(sample("events.jsonl")).unwrap();
    let entries = all(&log);
    assert_eq!(inputs(&entries), text.lines().filter(|l| !l.is_empty()).collect::<Vec<_>>());
    let read = |entry: &&Entry| {
        let session = entry.session.as_ref().map_or("-", |id| id.as_str()).to_owned();
        let source = entry.source.as_ref().unwrap();
        (source.position.line, entry.kind, entry.name.clone().unwrap_or_default(), session)
    };
    let expected: Vec<(u64, EntryKind, String, String)> = [
        (1, EntryKind::AgentStart, "", "s-1"),
        (2, EntryKind::Imported, "thought", "s-2"),
        (3, EntryKind::ToolEnd, "", "r-3"),
        (5, EntryKind::Imported, "import_done", "17"),
        (6, EntryKind::Imported, "", "g-5"),
        (7, EntryKind::Imported, "", "a-6"),
        (8, EntryKind::Imported, "", "a-7"),
        (9, EntryKind::Imported, "", "-"),
    ]
    .map(|(line, kind, name, session)| (line, kind, name.to_owned(), session.to_owned()))
    .into();
    assert_eq!(lines(&entries).iter().map(read).collect::<Vec<_>>(), expected);
    assert_eq!(session_entries(&log, "g-5").unwrap().count(), 1);

    let lines = lines(&entries);
    assert_eq!(lines[0].agent.as_deref(), Some("planner"));
    assert_eq!(lines[2].tool.as_deref(), Some("search"));
    let times = |at: usize| (lines[at].wall.to_string(), lines[at].source.as_ref().unwrap().time);
    assert_eq!(times(0), ("2026-03-01T09:00:00.25Z".to_owned(), TimeOrigin::Source));
    assert_eq!(times(1), ("2026-03-01T09:00:01Z".to_owned(), TimeOrigin::SourceAssumedUtc));
    for unread in [2, 3, 4] {
        assert_eq!(lines[unread].wall.0, NEW_YEAR + 77, "the time of the import");
        assert_eq!(lines[unread].source.as_ref().unwrap().time, TimeOrigin::Import);
    }
    assert_eq!((lines[2].duration, &lines[2].output), (None, &None), "nothing is invented");
}

#[test]
fn the_usual_dirt_of_files_is_tolerated() {
    let log = open(&MemDir::new(2));
    let (observer, _) = observer(&log);
    let dirt =
        b"\xEF\xBB\xBF{\"bom\": 1}\r\n \t \r\n\n  {\"space\" : 2}  \n{\"cr\":\r3}\n{\"last\":4}";
    let (_dir, path) = file("dirt.JSONL", dirt);
    let (report, bad) = import(&observer, &path, DEFAULT);
    assert_eq!((report.items, bad.len()), (4, 0), "{bad:?}");
    let entries = all(&log);
    // A bare CR is white space to JSON but a line break to tools: it goes, with its kind.
    let expected = ["{\"bom\": 1}", "  {\"space\" : 2}  ", "{\"cr\":3}", "{\"last\":4}"];
    assert_eq!(inputs(&entries), expected);
}

#[test]
fn json_that_strict_readers_stumble_over_is_kept() {
    let log = open(&MemDir::new(3));
    let (observer, _) = observer(&log);
    let deep = format!("{{\"deep\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let odd = ["{\"twice\":1,\"twice\":2}", "{\"lone\":\"\\ud800\"}", "{\"\\ud800\":1}", &deep];
    let (_dir, path) = file("odd.jsonl", odd.join("\n"));
    let (report, bad) = import(&observer, &path, DEFAULT);
    assert_eq!((report.items, bad.len()), (4, 0), "{bad:?}");
    assert_eq!(inputs(&all(&log)), odd);
}

#[test]
fn a_bad_line_is_named_and_costs_no_other() {
    let log = open(&MemDir::new(4));
    let (observer, _) = observer(&log);
    let secret = "hunter2";
    let mut content = format!("{{\"a\":1}}\n[\"{secret}\"]\n\"{secret}\"\n{{\"{secret}\" 1}}\n");
    content.push_str("{\"b\":2}\n7\n{\"a\":1}{\"b\":2}\nnull\n{\"c\":3}\n");
    let mut content = content.into_bytes();
    content.extend(b"{\"x\":\"\xC3\x28\"}\n{\"d\":4}\n{\"cut\":\"hunter2");
    let (_dir, path) = file("bad.jsonl", content);
    let (report, bad) = import(&observer, &path, DEFAULT);
    let reasons: Vec<_> = bad.iter().map(|bad| (bad.line, bad.reason.clone())).collect();
    let expected = [
        (2, Reason::NotAnObject),
        (3, Reason::NotAnObject),
        (4, Reason::NotJson { line: 1, column: 12 }),
        (6, Reason::NotAnObject),
        (7, Reason::NotJson { line: 1, column: 8 }),
        (8, Reason::NotAnObject),
        (10, Reason::NotUtf8 { byte: 7 }),
        (12, Reason::CutShort),
    ];
    assert_eq!(reasons, expected);
    assert_eq!((report.items, report.bad), (4, 8));
    assert!(matches!(report.outcome, ImportOutcome::Imported(_)));
    assert_eq!(inputs(&all(&log)), ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}", "{\"d\":4}"]);
    let messages: Vec<String> = bad.iter().map(ToString::to_string).collect();
    assert!(messages.iter().all(|message| !message.contains(secret)), "{messages:?}");
    assert!(messages[0].ends_with("bad.jsonl:2: JSON, but not an object"), "{}", messages[0]);
}

#[test]
fn strict_stops_before_anything_is_written() {
    let log = open(&MemDir::new(5));
    let (observer, _) = observer(&log);
    // More good lines than a batch takes stand before the bad ones.
    let good = "{\"a\":1}\n".repeat(1000);
    let (_dir, path) = file("bad.jsonl", format!("{good}oops\nworse\n"));
    let strict = ImportOptions { strict: true, again: false };
    let (report, bad) = import(&observer, &path, strict);
    assert_eq!(report.outcome, ImportOutcome::Stopped);
    assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [1001]);
    assert_eq!((log.durable_lsn(), observer.health().accepted), (None, 0));
    let (report, _) = import(&observer, &path, DEFAULT);
    assert!(matches!(report.outcome, ImportOutcome::Imported(_)));
    assert_eq!(inputs(&all(&log)).len(), 1000);
}

#[test]
fn times_are_read_only_where_they_are_stated() {
    let log = open(&MemDir::new(8));
    let (observer, _) = observer(&log);
    let cases = [
        ("2026-03-01T09:00:00Z", "2026-03-01T09:00:00Z", TimeOrigin::Source),
        ("2026-03-01 09:00:00-02:00", "2026-03-01T11:00:00Z", TimeOrigin::Source),
        ("2026-03-01T09:00:00.5", "2026-03-01T09:00:00.5Z", TimeOrigin::SourceAssumedUtc),
        ("2026-03-01T09:00:00[Europe/Paris]", "2026-01-01T00:00:00Z", TimeOrigin::Import),
        ("9999-03-01T09:00:00Z", "2026-01-01T00:00:00Z", TimeOrigin::Import),
        ("2026-02-30T09:00:00Z", "2026-01-01T00:00:00Z", TimeOrigin::Import),
        ("", "2026-01-01T00:00:00Z", TimeOrigin::Import),
    ];
    let line = |(time, _, _): &(&str, &str, TimeOrigin)| format!("{{\"ts\":\"{time}\"}}\n");
    let (_dir, path) = file("times.jsonl", cases.iter().map(line).collect::<String>());
    import(&observer, &path, DEFAULT);
    let entries = all(&log);
    for (entry, (said, read, origin)) in lines(&entries).iter().zip(cases) {
        assert_eq!(entry.wall.to_string(), read, "{said}");
        assert_eq!(entry.source.as_ref().unwrap().time, origin, "{said}");
    }
}

#[test]
fn of_two_members_with_one_name_the_last_counts_and_both_are_kept() {
    let log = open(&MemDir::new(9));
    let (observer, _) = observer(&log);
    let twice = "{\"session_id\":\"first\",\"session_id\":\"last\"}";
    let (_dir, path) = file("twice.jsonl", twice);
    import(&observer, &path, DEFAULT);
    let entries = all(&log);
    assert_eq!(lines(&entries)[0].session.as_ref().unwrap().as_str(), "last");
    assert_eq!(inputs(&entries), [twice]);
}

#[test]
fn a_line_too_long_for_the_log_is_a_bad_line() {
    let log = Options::new().record_bytes_max(2048).open_in(MemDir::new(6).dir()).unwrap();
    let (observer, _) = observer(&log);
    let line = |length: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(length));
    // Longer than the buffer, longer than a record, a record only without its envelope, fine.
    let content = [line(200_000), line(3000), line(2000), line(1000)].join("\r\n");
    let (_dir, path) = file("long.jsonl", content);
    let (report, bad) = import(&observer, &path, DEFAULT);
    assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(bad.iter().all(|bad| matches!(bad.reason, Reason::TooLong { max: 2048, .. })));
    assert_eq!((report.items, report.bad), (1, 3));
    assert_eq!(inputs(&all(&log)), [line(1000)]);
}

#[test]
fn imported_and_live_entries_share_one_order() {
    let log = open(&MemDir::new(7));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap().level(Level::Ordered);
    session.error(JsonText::string("before")).unwrap();
    import(&observer, &sample("events.jsonl"), DEFAULT);
    session.error(JsonText::string("after")).unwrap();
    observer.flush().unwrap();
    let sequences: Vec<u64> = all(&log).iter().map(|entry| entry.ticket.sequence).collect();
    assert_eq!(sequences, (1..=12).collect::<Vec<u64>>());
    assert_eq!(session_entries(&log, "s-1").unwrap().count(), 3);
}
