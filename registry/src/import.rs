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
//! byte; what does not fit is reported and changes nothing of what is imported; a key that no import
//! made is never changed by one. Next rooms: `document` (shapes), `findings` (what does not fit),
//! `export` (the way back).

mod document;
mod export;
mod findings;

use std::collections::{BTreeMap, BTreeSet};

use annals_wal::Codec;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use findings::Finding;

use crate::change::{Abort, Outcome, TxResult};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::mutant;
use crate::registry::Registry;
use crate::tx::Tx;
use crate::value::{Revision, Value};
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
    /// Entries whose id comes again later in `ids`, by their place there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    earlier: BTreeMap<usize, Box<RawValue>>,
}

/// Stands where no member can: its colon is escaped in members' names.
const LAYOUT: &str = ":layout";

impl Registry {
    /// Imports a registry that is a JSON document, in one transaction. `name` is what messages call
    /// it; a task's registry that does not name its task takes its name from there. With `replace`
    /// an earlier import of the same task, or of the global registry, is replaced: the keys that it
    /// made, and no others. Without it a different one is refused, and an equal one changes nothing.
    ///
    /// # Errors
    /// `Import` for a text that is no JSON or no registry, where another document was imported, or
    /// where it would change a key that no import made, with `replace` too; `TooLarge`; else as
    /// [`Registry::transact`]. Nothing is changed.
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
        let (root, wanted) = wanted(name, &document)?;
        let outcome = self.transact(|tx| -> TxResult<_, Error> {
            let refuse = |why| Abort::Because(Error::import(name, why));
            let before = before(tx, name, &root)?;
            let plan = Plan::of(tx, &wanted, before.as_ref())?;
            if !plan.is_empty() {
                if let Some(before) = before.filter(|_| !replace) {
                    return Err(refuse(format!(
                        "another document stands under {root} already ({} keys); say that it is to \
                         be replaced, or name another directory",
                        before.len()
                    )));
                }
                if let Some(key) = plan.foreign {
                    return Err(refuse(format!(
                        "{key} is there with another value, and no import made it: move or delete \
                         it, or name another directory"
                    )));
                }
                plan.gone.iter().for_each(|key| tx.delete(key));
                plan.put.iter().for_each(|(key, value)| tx.put(key, (*value).clone()));
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
    wanted(name, &Document::parse(name, text)?)?;
    Ok(())
}

/// Where the document stands, and everything of it there. What no key can hold is an `Import` error.
fn wanted(name: &str, document: &Document<'_>) -> Result<(Prefix, BTreeMap<Key, Value>)> {
    let root = document.root().map_err(|error| Error::import(name, error))?;
    let keys = keys_of(document, &root).map_err(|error| Error::import(name, error))?;
    Ok((root, keys))
}

/// The keys that the import made which stands under `root`, its layout among them.
fn before(tx: &mut Tx<'_>, name: &str, root: &Prefix) -> Result<Option<BTreeSet<Key>>> {
    let at = layout_key(root)?;
    let Some(value) = tx.get(&at)? else { return Ok(None) };
    let layout: Layout = value.decode_json().map_err(|_| {
        Error::import(name, format!("{at} holds no layout of an import: move or delete it"))
    })?;
    let mut keys = BTreeSet::from([at]);
    for name in &layout.members {
        match layout.groups.get(name) {
            Some(group) => {
                for id in &group.ids {
                    keys.insert(key(root, &[name, id])?);
                }
            }
            None => drop(keys.insert(key(root, &[name])?)),
        }
    }
    Ok(Some(keys))
}

/// What an import would change.
struct Plan<'w> {
    gone: Vec<Key>,
    put: Vec<(&'w Key, &'w Value)>,
    /// The first key that it would change and that no import made.
    foreign: Option<&'w Key>,
}

impl<'w> Plan<'w> {
    fn of(
        tx: &mut Tx<'_>,
        wanted: &'w BTreeMap<Key, Value>,
        before: Option<&BTreeSet<Key>>,
    ) -> Result<Plan<'w>> {
        let mut plan = Plan { gone: Vec::new(), put: Vec::new(), foreign: None };
        for key in before.into_iter().flatten().filter(|key| !wanted.contains_key(*key)) {
            if tx.get(key)?.is_some() {
                plan.gone.push(key.clone());
            }
        }
        for (key, value) in wanted {
            let now = tx.get(key)?;
            if now.as_ref() == Some(value) {
                continue;
            }
            let ours = before.is_some_and(|before| before.contains(key));
            let ours = ours || mutant::is("import:any-key");
            if now.is_some() && !ours && plan.foreign.is_none() {
                plan.foreign = Some(key);
            }
            plan.put.push((key, value));
        }
        Ok(plan)
    }

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.put.is_empty()
    }
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
        let (array, ids) = (group.form == Form::Array, group.order.clone());
        let raw = |text: &str| {
            RawValue::from_string(text.to_owned()).map_err(|_| Error::encode("JSON", "it is none"))
        };
        let earlier = group.earlier.iter().map(|(at, text)| Ok((*at, raw(text)?)));
        let earlier = earlier.collect::<Result<_>>()?;
        layout.groups.insert(name.clone(), GroupLayout { array, ids, earlier });
        for (id, text) in &group.items {
            keys.insert(key(root, &[name, id])?, json(text));
        }
    }
    keys.insert(layout_key(root)?, Value::json(&layout)?);
    Ok(keys)
}

fn layout_key(root: &Prefix) -> Result<Key> {
    Key::new(format!("{root}/{LAYOUT}"))
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

/// What [`escaped`] was given. A part that it never makes stands for itself.
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
    let name = String::from_utf8(out).ok();
    name.filter(|name| escaped(name) == part).unwrap_or_else(|| part.to_owned())
}
