//! Registries that are JSON files: read into keys, looked through for what does not fit, written
//! again.
//!
//! Never here: files, output. A *task's* registry names its task and lists its agents; a *global*
//! one lists tasks and agents of all of them. Each agent gets a key of its own, each other member
//! too, and one key says how the document was laid out, so that it can be written again.
//!
//! ```text
//! tasks/TASK/agents/AGENT    tasks/TASK/MEMBER    tasks/TASK/:layout
//! global/agents/AGENT        global/tasks/TASK    global/MEMBER    global/:layout
//! ```
//!
//! Invariants: a document is imported whole, in one transaction, or not at all; texts stay byte for
//! byte; what does not fit is reported and changes nothing of what is imported. Next rooms:
//! `document` (shapes), `findings` (what does not fit).

mod document;
mod findings;

use std::collections::BTreeMap;

use annals_wal::Codec;
use serde::{Deserialize, Serialize};

pub use findings::Finding;

use crate::change::{Abort, Outcome, TxResult};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::reader::RegistryReader;
use crate::registry::Registry;
use crate::value::{Entry, Revision, Value};
use document::{Document, Form, Group};

/// What became of an import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// Everything it stands under: `tasks/TASK` or `global`.
    pub root: Prefix,
    /// How many agents it lists.
    pub agents: usize,
    /// How many tasks it lists.
    pub tasks: usize,
    /// The transaction; `None` if all of it was there already, and nothing was written.
    pub revision: Option<Revision>,
    /// What does not fit, in this document and between it and those imported before.
    pub findings: Vec<Finding>,
}

/// How a document was laid out: the order of its members, and of the lists that were taken apart.
#[derive(Serialize, Deserialize, Default, Debug)]
struct Layout {
    members: Vec<String>,
    groups: BTreeMap<String, GroupLayout>,
}

#[derive(Serialize, Deserialize, Debug)]
struct GroupLayout {
    /// An array of objects, or an object by id.
    array: bool,
    ids: Vec<String>,
}

/// Stands where no member can: its colon is escaped in members' names.
const LAYOUT: &str = ":layout";

impl Registry {
    /// Imports a registry that is a JSON document, in one transaction. `name` is what messages call
    /// it; a task's registry that does not name its task takes its name from there. With `replace`
    /// an earlier import of the same task, or of the global registry, is replaced; without it a
    /// different one is refused, and an equal one changes nothing.
    ///
    /// # Errors
    /// `Import` for a text that is no JSON or no registry, or where another document was imported;
    /// `TooLarge`; else as [`Registry::transact`]. Nothing is changed.
    ///
    /// ```
    /// use annals_registry::{Key, Prefix, Registry};
    /// # use annals_wal::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
    /// let text = r#"{"task_id":"T1","agents":[{"id":"A7","status":"working"}],"active_count":0}"#;
    /// let imported = registry.import_json("AGENT_REGISTRY.json", text, false)?;
    /// assert_eq!(imported.agents, 1);
    /// assert!(registry.get(&Key::new("tasks/T1/agents/A7")?).is_some());
    /// let finding = imported.findings[0].to_string();
    /// assert!(finding.contains("active_count says 0, but 1 of the 1 agents listed is active"));
    /// assert_eq!(registry.export_json(&Prefix::new("tasks/T1")?)?, Some(text.to_owned()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn import_json(&self, name: &str, text: &str, replace: bool) -> Result<Imported> {
        let document = Document::parse(name, text)?;
        let root = document.root()?;
        let wanted = keys_of(&document, &root)?;
        let outcome = self.transact(|tx| -> TxResult<_, Error> {
            let found = tx.scan(&root)?;
            let same = found.len() == wanted.len()
                && found.iter().all(|(key, value)| wanted.get(key) == Some(value));
            if !same && !found.is_empty() && !replace {
                let why = format!(
                    "another document stands under {root} already ({} keys); say that it is to be \
                     replaced, or name another directory",
                    found.len()
                );
                return Err(Abort::Because(Error::import(name, why)));
            }
            if !same {
                for (key, _) in found.iter().filter(|(key, _)| !wanted.contains_key(key)) {
                    tx.delete(key);
                }
                for (key, value) in &wanted {
                    tx.put(key, value.clone());
                }
                tx.note("import", name);
            }
            // Read here, so that what is reported fits what is committed.
            let others = findings::Others::read(tx, &document)?;
            Ok(findings::of(&document, &others))
        })?;
        match outcome {
            Outcome::Done { value: findings, revision } => Ok(Imported {
                root,
                agents: document.group("agents").map_or(0, Group::len),
                tasks: document.group("tasks").map_or(0, Group::len),
                revision,
                findings,
            }),
            Outcome::Aborted(error) => Err(error),
            Outcome::Conflict { attempts, .. } => Err(Error::gave_up(attempts)),
        }
    }

    /// The JSON document under `root` again (`tasks/TASK` or `global`), as one line, with what has
    /// changed since: its members and lists in their old order, what is new after them. `None` if
    /// nothing was imported there.
    ///
    /// # Errors
    /// `Decode` for a value that is not JSON.
    pub fn export_json(&self, root: &Prefix) -> Result<Option<String>> {
        export(root, self.scan(root).into_iter().collect())
    }
}

impl RegistryReader {
    /// [`Registry::export_json`].
    ///
    /// # Errors
    /// As there.
    pub fn export_json(&self, root: &Prefix) -> Result<Option<String>> {
        export(root, self.scan(root).map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }
}

/// Whether a text is a registry that can be imported, without a log: what
/// [`Registry::import_json`] refuses whatever the log holds.
///
/// # Errors
/// `Import`.
///
/// ```
/// let error = annals_registry::check_json("T1.json", "{}").unwrap_err();
/// assert!(error.to_string().contains("lists neither agents nor tasks"));
/// ```
pub fn check_json(name: &str, text: &str) -> Result<()> {
    let document = Document::parse(name, text)?;
    keys_of(&document, &document.root()?)?;
    Ok(())
}

/// Everything below the root, as it is to be.
fn keys_of(document: &Document<'_>, root: &Prefix) -> Result<BTreeMap<Key, Value>> {
    let mut keys = BTreeMap::new();
    let mut layout = Layout::default();
    let json = |text: &str| Value::new(text.as_bytes(), Codec::JSON);
    for (name, text) in &document.members {
        layout.members.push(name.clone());
        let Some(group) = document.group(name) else {
            keys.insert(key(root, &[name])?, json(text));
            continue;
        };
        let ids = group.items.iter().map(|(id, _)| id.clone()).collect();
        let array = group.form == Form::Array;
        layout.groups.insert(name.clone(), GroupLayout { array, ids });
        for (id, text) in &group.items {
            keys.insert(key(root, &[name, id])?, json(text));
        }
    }
    let at = Key::new(format!("{root}/{LAYOUT}"))?;
    keys.insert(at, Value::json(&layout)?);
    Ok(keys)
}

/// A key below the root; what a key cannot hold is escaped.
fn key(root: &Prefix, parts: &[&str]) -> Result<Key> {
    let parts: Vec<String> = parts.iter().map(|part| escaped(part)).collect();
    Key::new(format!("{root}/{}", parts.join("/")))
}

/// `%`, `/`, `:` and control characters as `%` and the hex digits of their bytes; nothing as `%`.
pub(crate) fn escaped(part: &str) -> String {
    if part.is_empty() {
        return "%".to_owned();
    }
    let mut out = String::new();
    for c in part.chars() {
        if c.is_control() || matches!(c, '%' | '/' | ':') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("%{byte:02x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// What [`escaped`] was given.
fn unescaped(part: &str) -> String {
    if part == "%" {
        return String::new();
    }
    let (bytes, mut out, mut at) = (part.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let hex = part.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn export(root: &Prefix, entries: BTreeMap<Key, Entry>) -> Result<Option<String>> {
    let at = Key::new(format!("{root}/{LAYOUT}"))?;
    let Some(layout) = entries.get(&at) else { return Ok(None) };
    let layout: Layout = layout.value.decode_json()?;
    let (mut plain, mut groups) = (BTreeMap::new(), BTreeMap::<String, BTreeMap<_, _>>::new());
    for (key, entry) in entries.iter().filter(|(key, _)| **key != at) {
        let below = key.as_str().strip_prefix(root.as_str()).and_then(|r| r.strip_prefix('/'));
        let Some(below) = below else { continue };
        let text = text_of(key, entry)?;
        match below.split_once('/') {
            None => {
                plain.insert(unescaped(below), text);
            }
            Some((group, id)) => {
                groups.entry(unescaped(group)).or_default().insert(unescaped(id), text);
            }
        }
    }
    let mut members = Vec::new();
    for name in &layout.members {
        if let Some(group) = layout.groups.get(name) {
            let items = groups.remove(name).unwrap_or_default();
            members.push((name.clone(), group_text(group, items)));
        } else if let Some(text) = plain.remove(name) {
            members.push((name.clone(), text.to_owned()));
        }
    }
    members.extend(plain.into_iter().map(|(name, text)| (name, text.to_owned())));
    let new = GroupLayout { array: false, ids: Vec::new() };
    members.extend(groups.into_iter().map(|(name, items)| (name, group_text(&new, items))));
    Ok(Some(object(members.iter().map(|(name, text)| (name.as_str(), text.as_str())))))
}

/// A list as it was laid out, without what is gone, what is new at its end.
fn group_text(layout: &GroupLayout, mut items: BTreeMap<String, &str>) -> String {
    let mut ordered = Vec::new();
    for id in &layout.ids {
        if let Some(text) = items.remove(id) {
            ordered.push((id.clone(), text));
        }
    }
    ordered.extend(items);
    if layout.array {
        let texts: Vec<&str> = ordered.iter().map(|(_, text)| *text).collect();
        format!("[{}]", texts.join(","))
    } else {
        object(ordered.iter().map(|(id, text)| (id.as_str(), *text)))
    }
}

fn object<'m>(members: impl Iterator<Item = (&'m str, &'m str)>) -> String {
    let members: Vec<String> =
        members.map(|(name, text)| format!("{}:{text}", serde_json::Value::from(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn text_of<'e>(key: &Key, entry: &'e Entry) -> Result<&'e str> {
    let text = std::str::from_utf8(entry.value.bytes()).ok();
    text.filter(|_| entry.codec() == Codec::JSON)
        .ok_or_else(|| Error::decode("JSON", format!("the value of {key} is stored otherwise")))
}
