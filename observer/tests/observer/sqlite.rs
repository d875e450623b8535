//! Is a SQLite protocol store imported whole, once, and without a byte written to it?

use std::path::{Path, PathBuf};

use annals_observer::import::{ImportOptions, ImportOutcome, Importer, Reason};
use annals_observer::{
    Entry, EntryKind, ErrorKind, JsonText, TimeOrigin, entries, export, session_entries,
};
use annals_wal::fs::mem::{Keep, MemDir};
use rusqlite::{Connection, params};

use crate::common::{all, import, observer, open};

/// The seeds' own columns.
const SEEDS: &str = "CREATE TABLE protocol_entries (id TEXT PRIMARY KEY, timestamp TEXT NOT NULL, \
    event_type TEXT NOT NULL, session_id TEXT, agent_name TEXT, agent_id TEXT, tool_name TEXT, \
    input_data TEXT, output_data TEXT, system_prompt TEXT, tokens_used INTEGER, duration_ms REAL, \
    intermediate_steps TEXT, trace_id TEXT, span_id TEXT, metadata TEXT, error TEXT)";
const INSERT: &str = "INSERT INTO protocol_entries (id, timestamp, event_type, session_id, \
    agent_name, tool_name, input_data, tokens_used, duration_ms, metadata) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

fn store(dir: &Path, rows: u32) -> PathBuf {
    let path = dir.join("protocol store #1%.db");
    let database = Connection::open(&path).unwrap();
    database.execute_batch(SEEDS).unwrap();
    for n in 0..rows {
        let kind = ["agent_start", "tool_start", "tool_end", "something_else"][n as usize % 4];
        // Ids that do not sort like the rows, and times that go back.
        let id = format!("{:04}", 9_999 - n);
        let time = format!("2025-03-01T00:00:{:02}Z", 59 - n % 60);
        let input = format!(r#"{{"n": {n}, "q": "who \"is\" it"}}"#);
        let session = (n % 3 != 2).then(|| format!("s-{}", n % 3));
        let values = params![id, time, kind, session, "planner", "bash", input, n, 1.5, "{}"];
        database.execute(INSERT, values).unwrap();
    }
    path
}

fn listing(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn every_row_is_one_entry_in_the_order_in_which_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path(), 40);
    let before = listing(dir.path());
    let log = open(&MemDir::new(1));
    let (observer, _) = observer(&log);
    let (report, bad) = import(&observer, &path, ImportOptions::default());
    assert_eq!((report.items, report.bad, bad.len()), (40, 0, 0));
    assert!(matches!(report.outcome, ImportOutcome::Imported(_)));
    let rows: Vec<Entry> = all(&log).into_iter().filter(|e| e.input.is_some()).collect();
    assert_eq!(rows.len(), 40);
    for (n, entry) in rows.iter().enumerate() {
        let kinds = ["agent_start", "tool_start", "tool_end"];
        let known = kinds.get(n % 4).and_then(|name| EntryKind::from_name(name));
        assert_eq!(entry.kind, known.unwrap_or(EntryKind::Imported), "row {n}");
        let source = entry.source.as_ref().unwrap();
        assert_eq!((source.position.line, source.time), (n as u64 + 1, TimeOrigin::Source));
        let kept: serde_json::Value =
            serde_json::from_str(entry.input.as_ref().unwrap().as_str()).unwrap();
        assert_eq!(kept["id"], format!("{:04}", 9_999 - n));
        assert_eq!(kept["input_data"], format!(r#"{{"n": {n}, "q": "who \"is\" it"}}"#));
        assert_eq!((&kept["tokens_used"], &kept["duration_ms"]), (&n.into(), &1.5.into()));
        assert!(kept["error"].is_null() && kept.as_object().unwrap().len() == 17);
        assert_eq!(
            (entry.agent.as_deref(), entry.tool.as_deref()),
            (Some("planner"), Some("bash"))
        );
    }
    assert_eq!(session_entries(&log, "s-1").unwrap().count(), 13);
    let (again, _) = import(&observer, &path, ImportOptions::default());
    assert!(matches!(again.outcome, ImportOutcome::AlreadyImported(_)));
    assert_eq!(listing(dir.path()), before, "nothing was written, and no file beside it");
}

#[test]
fn an_import_of_rows_that_a_crash_cut_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path(), 700);
    let (mut cut, mut op) = (0, 0);
    loop {
        let disk = MemDir::new(2);
        let log = open(&disk);
        let (before, _) = observer(&log);
        disk.stop_after(op);
        let done = Importer::new(&before)
            .and_then(|mut importer| importer.import(&path, ImportOptions::default(), |_| {}));
        let log = open(&disk.crash(Keep::Nothing));
        let (after, _) = observer(&log);
        let (report, _) = import(&after, &path, ImportOptions::default());
        cut += u32::from(report.resumed && report.entries < 701);
        let inputs: Vec<_> = all(&log).into_iter().filter_map(|entry| entry.input).collect();
        assert_eq!(inputs.len(), 700, "stopped after {op}");
        let unique: std::collections::BTreeSet<&str> =
            inputs.iter().map(JsonText::as_str).collect();
        assert_eq!(unique.len(), 700);
        if done.is_ok() {
            break;
        }
        op += 1;
    }
    assert!(cut > 0, "no stop left a part of it");
}

#[test]
fn a_bad_row_costs_no_other_and_strict_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path(), 3);
    let database = Connection::open(&path).unwrap();
    let bad = "UPDATE protocol_entries SET output_data = CAST(x'61ff62' AS TEXT) WHERE rowid = 2";
    database.execute_batch(bad).unwrap();
    database
        .execute_batch("UPDATE protocol_entries SET metadata = x'00ff' WHERE rowid = 3")
        .unwrap();
    drop(database);
    let log = open(&MemDir::new(3));
    let (observer, _) = observer(&log);
    let strict = ImportOptions { strict: true, ..ImportOptions::default() };
    let (report, _) = import(&observer, &path, strict);
    assert_eq!((report.outcome, report.bad, all(&log).len()), (ImportOutcome::Stopped, 1, 0));
    let (report, bad) = import(&observer, &path, ImportOptions::default());
    assert_eq!((report.items, report.bad), (2, 1));
    assert_eq!((bad[0].line, &bad[0].reason), (2, &Reason::NotUtf8 { byte: 2 }));
    let last = all(&log).into_iter().filter_map(|entry| entry.input).next_back().unwrap();
    assert!(last.as_str().contains(r#""metadata":"00ff""#), "{}", last.as_str());
}

/// A cell of 24 MiB where a record has 64 KiB: SQLite refuses to load it (its own limit is set to
/// little more than twice the cap), so an import that looked at it would end there.
#[test]
fn a_huge_cell_is_measured_and_never_loaded() {
    for kind in ["", " WITHOUT ROWID"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let database = Connection::open(&path).unwrap();
        database.execute_batch(&format!("{SEEDS}{kind}")).unwrap();
        for n in 0..3 {
            let insert = "INSERT INTO protocol_entries (id, timestamp, event_type) \
                          VALUES (?1, '2025-03-01T00:00:00Z', 'tool_start')";
            database.execute(insert, [n.to_string()]).unwrap();
        }
        let huge = "UPDATE protocol_entries SET output_data = zeroblob(?1), error = 'after it' \
                    WHERE id = '1'";
        assert_eq!(database.execute(huge, [24 << 20]).unwrap(), 1);
        drop(database);
        let options = annals_wal::Options::new().segment_bytes(256 << 10);
        let log = options.record_bytes_max(64 << 10).open_in(MemDir::new(7).dir()).unwrap();
        let (observer, _) = observer(&log);
        let (report, bad) = import(&observer, &path, ImportOptions::default());
        assert_eq!((report.items, report.bad, bad[0].line), (2, 1, 2), "{kind}");
        let Reason::TooLong { bytes, max } = bad[0].reason else { panic!("{:?}", bad[0]) };
        assert!(bytes > 24 << 20 && max <= 64 << 10, "{bytes} of {max}");
        let kept = all(&log).into_iter().filter(|entry| entry.input.is_some()).count();
        assert_eq!(kept, 2, "the rows beside it");
    }
}

/// Many cells, each within the cap, together over it.
#[test]
fn a_row_is_over_the_cap_by_all_of_its_cells() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path(), 2);
    let database = Connection::open(&path).unwrap();
    let cells = ["input_data", "output_data", "system_prompt", "metadata", "error"];
    for cell in cells {
        let long = format!("UPDATE protocol_entries SET {cell} = zeroblob(30000) WHERE rowid = 1");
        database.execute_batch(&long).unwrap();
    }
    drop(database);
    let options = annals_wal::Options::new().segment_bytes(256 << 10);
    let log = options.record_bytes_max(64 << 10).open_in(MemDir::new(8).dir()).unwrap();
    let (observer, _) = observer(&log);
    let (report, bad) = import(&observer, &path, ImportOptions::default());
    assert_eq!((report.items, report.bad, bad[0].line), (1, 1, 1));
    let Reason::TooLong { bytes, .. } = bad[0].reason else { panic!("{:?}", bad[0]) };
    assert!((150_000..151_000).contains(&bytes), "{bytes}");
}

#[test]
fn what_is_no_store_is_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&MemDir::new(4));
    let (observer, _) = observer(&log);
    let refused = |path: &Path| {
        let mut importer = Importer::new(&observer).unwrap();
        importer.import(path, ImportOptions::default(), |_| {}).unwrap_err()
    };
    let text = dir.path().join("text.db");
    std::fs::write(&text, "no database at all, but longer than a header of one hundred bytes is. ")
        .unwrap();
    assert_eq!(refused(&text).kind(), ErrorKind::Corrupt);
    let other = dir.path().join("other.sqlite");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (a, timestamp)").unwrap();
    let error = refused(&other);
    assert!(error.to_string().contains("event_type"), "{error}");
    // Rows in a journal beside it: not read, and not passed over either.
    let live = store(dir.path(), 1);
    let writer = Connection::open(&live).unwrap();
    writer.pragma_update(None, "journal_mode", "wal").unwrap();
    writer.execute_batch("UPDATE protocol_entries SET error = 'late'").unwrap();
    let error = refused(&live);
    assert!(error.to_string().contains("-wal holds"), "{error}");
    drop(writer); // checkpoints
    let (report, _) = import(&observer, &live, ImportOptions::default());
    assert_eq!(report.items, 1);
    let kept = all(&log).into_iter().find_map(|entry| entry.input).unwrap();
    assert!(kept.as_str().contains(r#""error":"late""#));
}

#[test]
fn what_was_exported_can_be_imported() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&MemDir::new(5));
    let (from, _) = observer(&first);
    let session = from.session("s-1").unwrap();
    session.tool("bash").start().unwrap().end_ok(JsonText::string("ok")).unwrap();
    let path = dir.path().join("export.sqlite3");
    export::sqlite::write(entries(&first).unwrap(), &path).unwrap();
    let log = open(&MemDir::new(6));
    let (to, _) = observer(&log);
    let (report, _) = import(&to, &path, ImportOptions::default());
    assert_eq!((report.items, report.bad), (2, 0));
    let kinds: Vec<_> =
        session_entries(&log, "s-1").unwrap().map(|s| s.unwrap().entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ToolStart, EntryKind::ToolEnd]);
}

/// Its error stands in records of its own; a program that asks the column must see that it failed.
#[test]
fn a_failure_with_a_large_error_has_an_error_in_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.db");
    let log = crate::truth::a_large_error(&format!("no network: {}", "x".repeat(200)));
    export::sqlite::write(entries(&log).unwrap(), &path).unwrap();
    let database = Connection::open(&path).unwrap();
    let failed = "SELECT error FROM protocol_entries WHERE error IS NOT NULL";
    let error: String = database.query_row(failed, [], |row| row.get(0)).unwrap();
    assert!(error.starts_with("\"no network"), "{error}");
}

/// A table of a module that this program does not have is no store and no damage.
#[test]
fn a_store_beside_a_table_of_an_unknown_module_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path(), 3);
    let database = Connection::open(&path).unwrap();
    let unknown = "PRAGMA writable_schema = ON; INSERT INTO sqlite_master (type, name, tbl_name, \
                   rootpage, sql) VALUES ('table', 'vectors', 'vectors', 0, \
                   'CREATE VIRTUAL TABLE vectors USING nobody(embedding)')";
    database.execute_batch(unknown).unwrap();
    drop(database);
    let log = open(&MemDir::new(9));
    let (observer, _) = observer(&log);
    let (report, bad) = import(&observer, &path, ImportOptions::default());
    assert_eq!((report.items, bad.len()), (3, 0));
}

/// With `journal_mode = PERSIST` the journal stays, its header overwritten: it holds nothing.
#[test]
fn a_journal_that_persists_and_holds_nothing_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path(), 3);
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "journal_mode", "persist").unwrap();
    writer.execute_batch("UPDATE protocol_entries SET error = 'late'").unwrap();
    let before = listing(dir.path());
    assert!(before.len() == 2 && before.iter().all(|(_, bytes)| !bytes.is_empty()));
    let log = open(&MemDir::new(10));
    let (observer, _) = observer(&log);
    let (report, _) = import(&observer, &path, ImportOptions::default());
    assert_eq!(report.items, 3);
    assert_eq!(listing(dir.path()), before, "nothing was written");
    // With its first bytes it is that of a transaction that a crash cut.
    drop(writer);
    let journal = before.iter().find(|(path, _)| path.to_str().unwrap().ends_with("-journal"));
    let (journal, mut bytes) = journal.unwrap().clone();
    assert_eq!(bytes[..8], [0; 8]);
    bytes[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    std::fs::write(&journal, bytes).unwrap();
    let mut importer = Importer::new(&observer).unwrap();
    let again = ImportOptions { again: true, ..ImportOptions::default() };
    let error = importer.import(&path, again, |_| {}).unwrap_err();
    assert!(error.to_string().contains("-journal holds"), "{error}");
}
