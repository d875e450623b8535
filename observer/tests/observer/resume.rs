//! After a crash anywhere in an import, does the next one leave every line and step there once?

use annals_observer::import::{ImportOptions, ImportOutcome, Importer};
use annals_observer::{CallId, Entry, EntryKind, JsonText, SessionId, SpanId};
use annals_wal::fs::mem::{Keep, MemDir};
use annals_wal::{Log, Record};

use crate::common::{all, file, import, observer, open, sample};

const DEFAULT: ImportOptions = ImportOptions { strict: false, again: false };
const AGAIN: ImportOptions = ImportOptions { strict: false, again: true };

/// What must be the same in an import that a crash cut and one that none did.
type Essence = (
    EntryKind,
    (u32, u64, u32),
    Option<SessionId>,
    Option<SpanId>,
    Option<CallId>,
    [Option<JsonText>; 3],
);

fn essence(entry: &Entry) -> Essence {
    let source = entry.source.as_ref().unwrap();
    let place = (source.round, source.position.line, source.position.part);
    let texts = [entry.input.clone(), entry.output.clone(), entry.metadata.clone()];
    (entry.kind, place, entry.session.clone(), entry.span, entry.call_id.clone(), texts)
}

fn essences(log: &Log) -> Vec<Essence> {
    all(log).iter().map(essence).collect()
}

/// A log that holds the first `count` records of another: what a crash leaves of an import.
fn prefix(seed: u64, log: &Log, count: usize) -> Log {
    let cut = open(&MemDir::new(seed));
    for record in log.range(..).unwrap().take(count) {
        let record = record.unwrap();
        let (kind, stream, codec) = (record.kind, record.stream, record.codec);
        let copy = Record::new(record.payload).kind(kind).stream(stream).codec(codec);
        cut.append(copy).unwrap();
    }
    cut
}

#[test]
fn an_import_cut_after_any_record_goes_on_to_the_same_entries() {
    for name in ["events.jsonl", "steps.traj", "history.traj"] {
        let whole = open(&MemDir::new(1));
        let (first, _) = import(&observer(&whole).0, &sample(name), DEFAULT);
        let expected = essences(&whole);
        assert_eq!(expected.len() as u64, first.entries);
        for count in 0..=expected.len() {
            let cut = prefix(2, &whole, count);
            let (report, _) = import(&observer(&cut).0, &sample(name), DEFAULT);
            assert_eq!(essences(&cut), expected, "{name} cut after {count} records");
            assert_eq!(report.entries as usize, expected.len() - count);
            assert_eq!(report.resumed, count > 0 && count < expected.len());
            let finished = matches!(report.outcome, ImportOutcome::AlreadyImported(_));
            assert_eq!(finished, count == expected.len(), "only a done entry means done");
        }
    }
}

#[test]
fn a_second_import_that_was_cut_is_gone_on_with_only_when_asked() {
    let whole = open(&MemDir::new(3));
    let (live, _) = observer(&whole);
    let path = sample("steps.traj");
    import(&live, &path, DEFAULT);
    let once = essences(&whole).len();
    import(&live, &path, AGAIN);
    let expected = essences(&whole);
    for count in once + 1..expected.len() {
        let cut = prefix(4, &whole, count);
        let (other, _) = observer(&cut);
        let (report, _) = import(&other, &path, DEFAULT);
        assert!(matches!(report.outcome, ImportOutcome::AlreadyImported(_)));
        assert_eq!(essences(&cut).len(), count);
        let (report, _) = import(&other, &path, AGAIN);
        assert!(report.resumed);
        assert_eq!(essences(&cut), expected, "cut after {count} records");
    }
}

/// 1,300 lines, three batches and more.
fn long_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let line = |n| format!("{{\"session_id\":\"s-{}\",\"n\":{n}}}\n", n % 7);
    file("long.jsonl", (1..=1300).map(line).collect::<String>())
}

#[test]
fn a_machine_that_stops_at_any_operation_of_an_import_loses_and_doubles_no_line() {
    let (_dir, path) = long_file();
    let start = {
        let disk = MemDir::new(10);
        drop(observer(&open(&disk)));
        disk.ops()
    };
    let total = {
        let disk = MemDir::new(10);
        let log = open(&disk);
        import(&observer(&log).0, &path, DEFAULT);
        disk.ops()
    };
    assert!(total > start + 3, "the import writes more than once: {start} to {total}");
    let mut resumed = 0;
    for ops in start..=total {
        for keep in [Keep::Nothing, Keep::Everything, Keep::Some(ops)] {
            let disk = MemDir::new(10);
            let log = open(&disk);
            disk.stop_after(ops);
            let live = observer(&log).0;
            let mut importer = Importer::new(&live).unwrap();
            let done = importer.import(&path, DEFAULT, |_| {}).is_ok();
            let crashed = open(&disk.crash(keep));
            let (report, _) = import(&observer(&crashed).0, &path, DEFAULT);
            resumed += u32::from(report.resumed);
            let was_done = matches!(report.outcome, ImportOutcome::AlreadyImported(_));
            assert!(was_done || !done, "acknowledged, and gone: stopped at {ops}, {keep:?}");
            let lines: Vec<u64> = all(&crashed)
                .iter()
                .filter(|entry| entry.kind == EntryKind::Imported)
                .map(|entry| entry.source.as_ref().unwrap().position.line)
                .collect();
            assert!(lines.iter().copied().eq(1..=1300), "stopped at {ops}, {keep:?}");
        }
    }
    assert!(resumed > 0, "no crash point left a part of the import behind");
}

#[test]
fn an_import_that_failed_goes_on_in_the_same_process() {
    let (_dir, path) = long_file();
    let mut resumed = 0;
    for kib in (0..).step_by(32) {
        let disk = MemDir::new(20);
        let log = open(&disk);
        let (observer, _) = observer(&log);
        let mut importer = Importer::new(&observer).unwrap();
        disk.set_bytes_free(Some(kib << 10));
        let Err(error) = importer.import(&path, DEFAULT, |_| {}) else { break };
        assert_eq!(error.log_error().unwrap().kind(), annals_wal::ErrorKind::Full);
        disk.set_bytes_free(None);
        let report = importer.import(&path, DEFAULT, |_| {}).unwrap();
        resumed += u32::from(report.resumed);
        assert_eq!((report.items, report.bad), (1300, 0));
        let lines: Vec<u64> = all(&log)
            .iter()
            .filter(|entry| entry.kind == EntryKind::Imported)
            .map(|entry| entry.source.as_ref().unwrap().position.line)
            .collect();
        assert!(lines.iter().copied().eq(1..=1300), "{kib} KiB were free");
    }
    assert!(resumed > 0, "the disk was never full in the middle of the import");
}
