//! What other programs really wrote: every line and step there once, in order, equal as JSON.
//!
//! The files are beside a checkout of the project, not in it: where they are absent the test says
//! so and passes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use annals_observer::import::{ImportOptions, ImportOutcome, Importer};
use annals_observer::{Entry, EntryKind, JsonText, Observer, entries};
use annals_wal::Log;
use serde_json::{Map, Value};

fn data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if data.is_dir() { Some(data) } else { None }
}

fn files(under: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![under.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Imports all files into one log and returns each file's entries, read back by a new handle.
fn imported(paths: &[PathBuf]) -> Vec<Vec<Entry>> {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let observer = Observer::on(log.clone()).unwrap();
    let mut importer = Importer::new(&observer).unwrap();
    let options = ImportOptions::default();
    for path in paths {
        let report = importer.import(path, options, |bad| panic!("{bad}")).unwrap();
        assert!(matches!(report.outcome, ImportOutcome::Imported(_)), "{}", path.display());
    }
    observer.shutdown().unwrap();
    drop((observer, importer));
    log.close().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let mut by_file: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for stored in entries(&log).unwrap() {
        let entry = stored.unwrap().entry;
        by_file.entry(entry.source.as_ref().unwrap().file.clone()).or_default().push(entry);
    }
    paths.iter().map(|path| by_file.remove(&*path.to_string_lossy()).unwrap()).collect()
}

fn value(text: &Option<JsonText>) -> Value {
    text.as_ref().map_or(Value::Null, |text| serde_json::from_str(text.as_str()).unwrap())
}

#[test]
fn every_line_of_the_orchestrator_is_there_once_and_equal() {
    let Some(data) = data() else { return println!("skipped: ../shared/data is not here") };
    let paths = files(&data, "jsonl");
    assert!(!paths.is_empty());
    let mut count = 0;
    for (path, entries) in paths.iter().zip(imported(&paths)) {
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let kept: Vec<&Entry> =
            entries.iter().filter(|entry| entry.kind == EntryKind::Imported).collect();
        assert_eq!(kept.len(), lines.len(), "{}", path.display());
        for (entry, line) in kept.iter().zip(&lines) {
            assert_eq!(entry.input.as_ref().unwrap().as_str(), *line);
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value(&entry.input), line);
            let agent = line["agent_id"].as_str();
            assert_eq!(entry.session.as_ref().map(|id| id.as_str()), agent);
            assert!(entry.wall.to_string().starts_with(&line["timestamp"].as_str().unwrap()[..19]));
        }
        count += lines.len();
    }
    println!("{count} lines of {} files", paths.len());
}

#[test]
fn every_step_of_the_trajectories_is_there_once_and_equal() {
    let Some(data) = data() else { return println!("skipped: ../shared/data is not here") };
    let paths = files(&data, "traj");
    assert!(!paths.is_empty());
    let (mut steps, mut messages) = (0, 0);
    for (path, entries) in paths.iter().zip(imported(&paths)) {
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let of_run = &entries[1..entries.len() - 1];
        assert!(of_run.iter().all(|e| e.session.as_ref().unwrap().as_str() == stem));
        match file["trajectory"].as_array() {
            Some(trajectory) => {
                assert_eq!(rebuilt_steps(of_run), *trajectory, "{stem}");
                assert_eq!(rebuilt_surroundings(of_run, trajectory), file, "{stem}");
                steps += trajectory.len();
            }
            None => messages += check_messages(of_run, file["history"].as_array().unwrap()),
        }
    }
    println!("{steps} steps and {messages} messages of {} files", paths.len());
    assert!(steps > 0 && messages > 0);
}

/// The steps as they must have been in the file, made of the entries alone.
fn rebuilt_steps(entries: &[Entry]) -> Vec<Value> {
    let mut steps: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
    for entry in &entries[1..entries.len() - 1] {
        let step = steps.entry(entry.source.as_ref().unwrap().position.line).or_default();
        let mut put = |name: &str, text: &Option<JsonText>| {
            assert_eq!(step.insert(name.to_owned(), value(text)), None, "{name} is there twice");
        };
        match entry.kind {
            EntryKind::LlmStart => {}
            EntryKind::LlmEnd => put("response", &entry.output),
            EntryKind::ToolStart => put("action", &entry.input),
            EntryKind::ToolEnd => put("observation", &entry.output),
            other => panic!("{other} inside a run"),
        }
        if let Value::Object(rest) = value(&entry.metadata) {
            step.extend(rest);
        }
    }
    steps.into_values().map(Value::Object).collect()
}

/// The whole file, made of the agent's start and end and the steps.
fn rebuilt_surroundings(entries: &[Entry], steps: &[Value]) -> Value {
    let mut file = value(&entries[0].metadata);
    file["trajectory"] = Value::from(steps);
    file["info"] = value(&entries[entries.len() - 1].output);
    file
}

/// Every message is in an entry: the model's own by what it said, the others where it saw them.
fn check_messages(entries: &[Entry], history: &[Value]) -> usize {
    let mut rebuilt = Vec::new();
    for entry in entries {
        match entry.kind {
            EntryKind::LlmStart => {
                rebuilt.extend(value(&entry.input).as_array().unwrap().clone());
            }
            EntryKind::LlmEnd => {
                let mut message = value(&entry.metadata);
                message["content"] = value(&entry.output);
                rebuilt.push(message);
            }
            _ => {}
        }
    }
    let last = entries.iter().rev().find(|entry| entry.kind == EntryKind::ToolEnd).unwrap();
    let mut message = value(&last.metadata);
    message["content"] = value(&last.output);
    rebuilt.push(message);
    assert_eq!(rebuilt, history);
    let pairs = |kind| entries.iter().filter(|entry| entry.kind == kind).count();
    assert_eq!(pairs(EntryKind::ToolStart), pairs(EntryKind::ToolEnd));
    history.len()
}
