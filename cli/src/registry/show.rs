//! The reading verbs of `wal registry`, and how keys and values look.
//!
//! Never here: writes. A value is printed as it is stored where it is plain text; anything that a
//! terminal might take for a command is escaped.

use std::collections::BTreeMap;
use std::path::Path;

use annals_registry::{Change, Codec, Key, Note, Prefix, Revision, Value};
use serde_json::json;

use crate::args::Format;
use crate::escape::{escape, hex};
use crate::exit::{Exit, Failure};
use crate::out::Out;
use crate::place;

pub(super) fn get(dir: &Path, key: &Key, format: Format, out: &mut Out) -> Result<Exit, Failure> {
    let reader = place::registry(dir)?;
    let entry = reader.get(key).ok_or_else(|| no_such(key))?;
    match format {
        Format::Text => out.line(&text(&entry.value))?,
        Format::Json => {
            let head = json!({
                "schema": "wal.registry-entry/1",
                "key": key.as_str(),
                "revision": entry.revision.lsn().get(),
            });
            let head = head.to_string();
            let head = head.strip_suffix('}').unwrap_or(&head);
            out.line(&format!("{head},\"value\":{}}}", json_text(&entry.value)))?;
        }
    }
    Ok(Exit::Clean)
}

pub(super) fn no_such(key: &Key) -> Failure {
    Failure::new(Exit::Failed, format!("{key}: there is no such key"))
}

pub(super) fn list(
    dir: &Path,
    prefix: &Prefix,
    as_of: Option<Revision>,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let reader = place::registry(dir)?;
    match as_of {
        None => {
            for (key, _) in reader.scan(prefix) {
                out.line(&escape(key.as_str()))?;
            }
        }
        Some(revision) => {
            for (key, _) in reader.as_of(revision)?.scan(prefix) {
                out.line(&escape(key.as_str()))?;
            }
        }
    }
    Ok(Exit::Clean)
}

pub(super) fn history(dir: &Path, key: &Key, out: &mut Out) -> Result<Exit, Failure> {
    let reader = place::registry(dir)?;
    let history = reader.history(key)?;
    let (from, mut versions) = (history.lower_bound(), 0);
    for version in history {
        let version = version?;
        let change = match version.value {
            Some(value) => Change::Put { key: key.clone(), value },
            None => Change::Delete { key: key.clone() },
        };
        out.line(&self::change(version.revision, &change, version.note.as_ref()))?;
        versions += 1;
    }
    if versions == 0 && reader.get(key).is_none() {
        return Err(no_such(key));
    }
    if from.get() > 1 {
        crate::out::message(&format!("wal: versions from before LSN {from} are not kept"));
    }
    Ok(Exit::Clean)
}

/// The imported documents; where nothing was imported, every key with its value. What is then not in
/// it, or not as it is stored, is said.
pub(super) fn export(dir: &Path, root: Option<&Prefix>, out: &mut Out) -> Result<Exit, Failure> {
    let reader = place::registry(dir)?;
    if let Some(root) = root {
        let text = reader.export_json(root)?.ok_or_else(|| {
            Failure::new(Exit::Failed, format!("{root}: no JSON registry was imported there"))
        })?;
        out.line(&text)?;
        return Ok(Exit::Clean);
    }
    let (mut documents, mut roots) = (BTreeMap::new(), Vec::new());
    for (key, _) in reader.scan(&Prefix::all()) {
        let mut parts = key.as_str().split('/');
        let root = match (parts.next(), parts.next()) {
            (Some("tasks"), Some(task)) => format!("tasks/{task}"),
            (Some(first), _) => first.to_owned(),
            (None, _) => continue,
        };
        if let std::collections::btree_map::Entry::Vacant(vacant) = documents.entry(root) {
            let root = Prefix::new(vacant.key())?;
            if let Some(text) = reader.export_json(&root)? {
                vacant.insert(text);
                roots.push(root);
            }
        }
    }
    let all = || reader.scan(&Prefix::all());
    if documents.is_empty() {
        let other = all().filter(|(_, entry)| !is_stored_json(&entry.value));
        told("values are no JSON and are written as texts", other.map(|(key, _)| key));
        documents = all().map(|(k, entry)| (k.to_string(), json_text(&entry.value))).collect();
    } else {
        let other = all().filter(|(key, _)| !roots.iter().any(|root| root.covers(key)));
        told("keys are of no imported registry and are left out", other.map(|(key, _)| key));
        if documents.len() == 1
            && let Some(text) = documents.values().next()
        {
            out.line(text)?;
            return Ok(Exit::Clean);
        }
    }
    let members: Vec<String> =
        documents.iter().map(|(name, text)| format!("{}:{text}", json!(name))).collect();
    out.line(&format!("{{{}}}", members.join(",")))?;
    Ok(Exit::Clean)
}

/// Says what an export does not have, or not as it is stored.
fn told<'k>(what: &str, mut keys: impl Iterator<Item = &'k Key>) {
    if let Some(first) = keys.next() {
        let count = 1 + keys.count();
        crate::out::message(&format!(
            "wal: {count} {what}; the first is {}",
            escape(first.as_str())
        ));
    }
}

/// One change as a line.
pub(super) fn change(revision: Revision, change: &Change, note: Option<&Note>) -> String {
    let key = escape(change.key().as_str());
    let what = match change.value() {
        Some(value) => format!("put {key} {}", one_line(value)),
        None => format!("delete {key}"),
    };
    let note = note.map(|n| format!("  ({}: {})", escape(&n.who), escape(&n.why)));
    format!("{revision} {what}{}", note.unwrap_or_default())
}

/// The stored text, if a terminal can take it; else escaped, or in hex.
fn text(value: &Value) -> String {
    match std::str::from_utf8(value.bytes()) {
        Ok(text) if !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') => {
            text.to_owned()
        }
        Ok(text) => escape(text),
        Err(_) => hex(value.bytes()),
    }
}

fn one_line(value: &Value) -> String {
    match std::str::from_utf8(value.bytes()) {
        Ok(text) => escape(text),
        Err(_) => hex(value.bytes()),
    }
}

/// A value inside a JSON document: JSON as it is stored, text as a string, bytes as hex.
fn json_text(value: &Value) -> String {
    match std::str::from_utf8(value.bytes()) {
        // Between its tokens a line break is white space; inside a string there is none.
        Ok(text) if is_stored_json(value) => text.replace(['\n', '\r'], " "),
        Ok(text) => json!(text).to_string(),
        Err(_) => json!({ "hex": hex(value.bytes()) }).to_string(),
    }
}

fn is_stored_json(value: &Value) -> bool {
    value.codec() == Codec::JSON
        && serde_json::from_slice::<&serde_json::value::RawValue>(value.bytes()).is_ok()
}
