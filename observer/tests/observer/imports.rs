//! Is a file imported once, by what is in it?

use annals_observer::import::{
    FileKind, ImportOptions, ImportOutcome, Importer, already_imported, content_hash,
};
use annals_observer::{EntryKind, ErrorKind, Position};
use annals_wal::fs::mem::MemDir;

use crate::common::{all, file, import, observer, open, sample, stored};

const DEFAULT: ImportOptions = ImportOptions { strict: false, again: false };
const AGAIN: ImportOptions = ImportOptions { strict: false, again: true };

#[test]
fn content_that_is_there_is_refused_whatever_its_name() {
    let log = open(&MemDir::new(1));
    let (observer, _) = observer(&log);
    let path = sample("events.jsonl");
    let hash = content_hash(&path).unwrap();
    assert_eq!(already_imported(&log, hash).unwrap(), None);
    let (first, _) = import(&observer, &path, DEFAULT);
    let ImportOutcome::Imported(done) = first.outcome else { panic!("{first:?}") };
    assert_eq!(first.sha256, hash);
    let entries = stored(&log);
    assert_eq!(entries.last().unwrap().lsn, done);
    assert_eq!(entries.last().unwrap().entry.kind, EntryKind::ImportDone);
    assert_eq!(already_imported(&log, hash).unwrap(), Some(done));

    let (_dir, copy) = file("copy.jsonl", std::fs::read(&path).unwrap());
    let (second, bad) = import(&observer, &copy, DEFAULT);
    assert_eq!(second.outcome, ImportOutcome::AlreadyImported(done));
    assert_eq!((second.entries, bad.len()), (0, 0));
    assert_eq!(stored(&log).len(), entries.len(), "nothing was written");
}

#[test]
fn again_imports_it_once_more_with_other_spans() {
    let log = open(&MemDir::new(2));
    let (observer, _) = observer(&log);
    let path = sample("steps.traj");
    let mut importer = Importer::new(&observer).unwrap();
    importer.import(&path, AGAIN, |_| {}).unwrap();
    let one = all(&log);
    importer.import(&path, AGAIN, |_| {}).unwrap();
    let two = all(&log).split_off(one.len());
    assert_eq!(one.len(), two.len());
    for (one, two) in one.iter().zip(&two) {
        assert_eq!((one.kind, &one.input), (two.kind, &two.input));
        let (from, again) = (one.source.as_ref().unwrap(), two.source.as_ref().unwrap());
        assert_eq!((from.round, again.round), (1, 2));
        assert_eq!(from.position, again.position);
        assert!(one.span.is_none() || one.span != two.span, "two calls, not one with two ends");
    }
    let report = importer.import(&path, DEFAULT, |_| {}).unwrap();
    assert!(matches!(report.outcome, ImportOutcome::AlreadyImported(_)));
}

#[test]
fn a_file_that_grows_while_it_is_imported_is_not_marked_done() {
    let log = open(&MemDir::new(3));
    let (observer, _) = observer(&log);
    let (_dir, path) = file("live.jsonl", "oops\n{\"a\":1}\n");
    let mut importer = Importer::new(&observer).unwrap();
    let grow = |_: &_| {
        std::fs::write(&path, "oops\n{\"a\":1}\n{\"b\":2}\n").unwrap();
    };
    let error = importer.import(&path, DEFAULT, grow).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    observer.flush().unwrap();
    assert!(all(&log).iter().all(|entry| entry.kind != EntryKind::ImportDone));
    let report = importer.import(&path, DEFAULT, |_| {}).unwrap();
    assert_eq!((report.items, report.resumed), (2, false));
}

#[test]
fn other_files_are_refused_by_name() {
    let log = open(&MemDir::new(4));
    let (observer, _) = observer(&log);
    let mut importer = Importer::new(&observer).unwrap();
    for name in ["GLOBAL_REGISTRY.json", "notes", "x.jsonl.gz", ".jsonl"] {
        let (_dir, path) = file(name, "{}\n");
        let error = importer.import(&path, DEFAULT, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(name), "{error}");
    }
    let dir = tempfile::Builder::new().suffix(".jsonl").tempdir().unwrap();
    let error = importer.import(dir.path(), DEFAULT, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "a directory: {error}");
    let gone = dir.path().join("gone.traj");
    assert_eq!(importer.import(&gone, DEFAULT, |_| {}).unwrap_err().kind(), ErrorKind::Io);
    let (_dir, large) = file("large.traj", "");
    std::fs::File::options().write(true).open(&large).unwrap().set_len((256 << 20) + 1).unwrap();
    assert_eq!(importer.import(&large, DEFAULT, |_| {}).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(FileKind::of("A.TRAJ".as_ref()).unwrap(), FileKind::Trajectory);
    assert_eq!(log.durable_lsn(), None);
}

#[test]
fn an_empty_file_is_an_import_of_nothing() {
    let log = open(&MemDir::new(5));
    let (observer, _) = observer(&log);
    let (_dir, path) = file("empty.jsonl", "\n\n");
    let (report, bad) = import(&observer, &path, DEFAULT);
    assert_eq!((report.items, report.entries, bad.len()), (0, 2, 0));
    let kinds: Vec<EntryKind> = all(&log).iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ImportBegin, EntryKind::ImportDone]);
}

#[test]
fn entries_say_where_they_are_from() {
    let log = open(&MemDir::new(6));
    let (observer, _) = observer(&log);
    let path = sample("steps.traj");
    import(&observer, &path, DEFAULT);
    let positions: Vec<Position> =
        all(&log).iter().map(|entry| entry.source.as_ref().unwrap().position).collect();
    assert!(positions[1..].windows(2).all(|pair| pair[0] < pair[1]), "{positions:?}");
    for entry in all(&log) {
        let source = entry.source.unwrap();
        assert_eq!(source.file, path.to_string_lossy());
        assert_eq!(source.sha256, content_hash(&path).unwrap());
    }
}

/// Half a step would look like a call that crashed.
#[test]
fn a_step_with_a_part_over_the_cap_leaves_no_entry_at_all() {
    let log =
        annals_wal::Options::new().record_bytes_max(4_000).open_in(MemDir::new(9).dir()).unwrap();
    let (observer, _) = observer(&log);
    let step = |observation: &str| {
        format!(
            "{{\"action\": \"ls\", \"observation\": \"{observation}\", \"response\": \"r\", \
             \"thought\": \"t\"}}"
        )
    };
    let content = format!("{{\"trajectory\": [{}, {}]}}", step(&"x".repeat(5_000)), step("short"));
    let (_dir, path) = file("large.traj", content);
    let (report, bad) = import(&observer, &path, DEFAULT);
    assert_eq!((report.items, report.bad, bad.len()), (1, 1, 1));
    let count = |kind| all(&log).iter().filter(|entry| entry.kind == kind).count();
    for kind in [EntryKind::LlmStart, EntryKind::LlmEnd, EntryKind::ToolStart, EntryKind::ToolEnd] {
        assert_eq!(count(kind), 1, "{kind}: the short step's alone");
    }
}
