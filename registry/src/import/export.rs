//! The way back: an imported registry as the JSON document that it was, with what has changed since.
//!
//! Never here: guesses. A key that has no place in such a document (one that lies deeper than lists
//! do, one whose name stands there already, a value that is no JSON, an entry of an array that does
//! not say its id) is an error that names it: a document without it would be wrong in silence.
//! Invariants: values stay byte for byte; what was imported and not changed comes out equal. Next
//! room: [`super`].

use std::collections::{BTreeMap, BTreeSet};

use annals_wal::Codec;
use serde_json::value::RawValue;

use super::document::said_id;
use super::{GroupLayout, Layout, layout_key, unescaped};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::mutant;
use crate::reader::RegistryReader;
use crate::registry::Registry;
use crate::value::Entry;

impl Registry {
    /// The JSON document under `root` again (`tasks/TASK` or `global`), with what has changed since:
    /// its members and lists in their old order, what is new after them. `None` if nothing was
    /// imported there.
    ///
    /// # Errors
    /// `Export` for a key that has no place in the document, `Decode` for a value that is no JSON;
    /// both name the key.
    pub fn export_json(&self, root: &Prefix) -> Result<Option<String>> {
        let all = self.scan(root);
        export(root, all.iter().map(|(key, entry)| (key, entry)))
    }
}

impl RegistryReader {
    /// [`Registry::export_json`].
    ///
    /// # Errors
    /// As there.
    pub fn export_json(&self, root: &Prefix) -> Result<Option<String>> {
        export(root, self.scan(root))
    }
}

/// Names and texts, and the key that each text is the value of.
type Texts<'e> = BTreeMap<String, (&'e Key, &'e str)>;

/// What stands under a root.
#[derive(Default)]
struct Found<'e> {
    plain: Texts<'e>,
    groups: BTreeMap<String, Texts<'e>>,
}

impl<'e> Found<'e> {
    fn add(&mut self, root: &Prefix, key: &'e Key, text: &'e str) -> Result<()> {
        let below = key.as_str().strip_prefix(root.as_str()).unwrap_or_default();
        let parts: Vec<&str> = below.split('/').skip(1).collect();
        let (texts, name) = match parts[..] {
            [] => return Err(Error::export(key, "it stands where the document itself does")),
            [name] => (&mut self.plain, name),
            [group, id] => (self.groups.entry(unescaped(group)).or_default(), id),
            _ if mutant::is("export:keys-left-out") => return Ok(()),
            _ => return Err(Error::export(key, "it lies deeper than the entries of a list")),
        };
        match texts.insert(unescaped(name), (key, text)) {
            Some(_) => Err(Error::export(key, "another key has the same name in the document")),
            None => Ok(()),
        }
    }

    /// No name is both a member and a list.
    fn check(&self, layout: &Layout) -> Result<()> {
        let both =
            |name: &&String| self.groups.contains_key(*name) || layout.groups.contains_key(*name);
        match self.plain.keys().find(both).and_then(|name| self.plain.get(name)) {
            Some((key, _)) => Err(Error::export(key, "a list of the document has the same name")),
            None => Ok(()),
        }
    }
}

fn export<'e>(
    root: &Prefix,
    entries: impl Iterator<Item = (&'e Key, &'e Entry)>,
) -> Result<Option<String>> {
    let at = layout_key(root)?;
    let mut layout: Option<Layout> = None;
    let mut others = Vec::new();
    for (key, entry) in entries {
        if *key == at {
            layout = Some(entry.value.decode_json()?);
        } else {
            others.push((key, entry));
        }
    }
    let Some(layout) = layout else { return Ok(None) };
    let mut found = Found::default();
    for (key, entry) in others {
        found.add(root, key, text_of(key, entry)?)?;
    }
    found.check(&layout)?;
    let Found { mut plain, mut groups } = found;
    let mut members = Vec::new();
    for name in &layout.members {
        if let Some(group) = layout.groups.get(name) {
            let items = groups.remove(name).unwrap_or_default();
            members.push((name.clone(), group_text(name, group, &items)?));
        } else if let Some((_, text)) = plain.remove(name) {
            members.push((name.clone(), text.to_owned()));
        }
    }
    members.extend(plain.into_iter().map(|(name, (_, text))| (name, text.to_owned())));
    let new = GroupLayout { array: false, ids: Vec::new(), earlier: BTreeMap::new() };
    for (name, items) in groups {
        let text = group_text(&name, &new, &items)?;
        members.push((name, text));
    }
    Ok(Some(object(members.iter().map(|(name, text)| (name.as_str(), text.as_str())))))
}

/// A list as it was laid out, without what is gone, what is new at its end.
fn group_text(name: &str, layout: &GroupLayout, items: &Texts<'_>) -> Result<String> {
    let mut ordered: Vec<(&str, &str)> = Vec::new();
    for (at, id) in layout.ids.iter().enumerate() {
        if let Some((_, text)) = items.get(id) {
            ordered.push((id, layout.earlier.get(&at).map_or(*text, |raw| raw.get())));
        }
    }
    let known: BTreeSet<&String> = layout.ids.iter().collect();
    let new = items.iter().filter(|(id, _)| !known.contains(id));
    ordered.extend(new.map(|(id, (_, text))| (id.as_str(), *text)));
    if !layout.array {
        return Ok(object(ordered.into_iter()));
    }
    // Its id stands nowhere else in an array.
    if let Some((id, (key, _))) =
        items.iter().find(|(id, (_, text))| said_id(name, text).as_ref() != Some(id))
    {
        return Err(Error::export(key, format!("its value does not say that its id is {id}")));
    }
    let texts: Vec<&str> = ordered.iter().map(|(_, text)| *text).collect();
    Ok(format!("[{}]", texts.join(",")))
}

fn object<'m>(members: impl Iterator<Item = (&'m str, &'m str)>) -> String {
    let members: Vec<String> =
        members.map(|(name, text)| format!("{}:{text}", serde_json::Value::from(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn text_of<'e>(key: &Key, entry: &'e Entry) -> Result<&'e str> {
    let text = std::str::from_utf8(entry.value.bytes()).ok();
    text.filter(|text| {
        entry.codec() == Codec::JSON && serde_json::from_str::<&RawValue>(text).is_ok()
    })
    .ok_or_else(|| Error::decode("JSON", format!("the value of {key} is stored otherwise")))
}
