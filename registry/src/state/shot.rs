//! A snapshot under way: a cursor over the map, and what changed ahead of it since it began.
//!
//! Never here: files. Invariant: what the cursor delivers, all together, is the map as it was when
//! the snapshot began: a key that changes ahead of the cursor is first put aside as it was, once.
//! Next room: [`crate::snapshot`].

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::key::Key;
use crate::mutant;
use crate::value::Entry;

/// Values of one look, in bytes, unless a single one has more.
const BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Shot {
    /// Everything up to here was delivered.
    cursor: Option<Key>,
    done: bool,
    /// Keys ahead of the cursor that have changed, as they were; `None` if they were absent.
    aside: BTreeMap<Key, Option<Entry>>,
}

impl Shot {
    /// Called before `key` changes; `now` is its entry still.
    pub(super) fn put_aside(&mut self, key: &Key, now: impl FnOnce() -> Option<Entry>) {
        let ahead = !self.done && self.cursor.as_ref().is_none_or(|cursor| key > cursor);
        if ahead && !self.aside.contains_key(key) && !mutant::is("snapshot:nothing-put-aside") {
            self.aside.insert(key.clone(), now());
        }
    }

    /// The next entries, after looking at this many keys at most; empty at the end only.
    pub(super) fn next(
        &mut self,
        map: &BTreeMap<Key, Entry>,
        keys_max: usize,
    ) -> Vec<(Key, Entry)> {
        let mut entries = Vec::new();
        while !self.done && entries.is_empty() {
            self.look(map, keys_max.max(1), &mut entries);
        }
        entries
    }

    fn look(
        &mut self,
        map: &BTreeMap<Key, Entry>,
        keys_max: usize,
        entries: &mut Vec<(Key, Entry)>,
    ) {
        let cursor = self.cursor.clone();
        let from = cursor.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut stored = map.range::<Key, _>((from, Bound::Unbounded)).peekable();
        let mut bytes = 0;
        for _ in 0..keys_max {
            // Large values make a block of their own: no reader takes one that is too long.
            if bytes >= BYTES_MAX {
                return;
            }
            let next_aside = self.aside.first_key_value().map(|(key, _)| key);
            let next_stored = stored.peek().map(|(key, _)| *key);
            // What was put aside comes in the place of what the map has now.
            let key = match (next_aside, next_stored) {
                (Some(aside), Some(stored)) => aside.min(stored).clone(),
                (Some(key), None) | (None, Some(key)) => key.clone(),
                (None, None) => {
                    self.done = true;
                    return;
                }
            };
            let now = stored.next_if(|(stored, _)| **stored == key).map(|(_, entry)| entry);
            let entry = self.aside.remove(&key).unwrap_or_else(|| now.cloned());
            if let Some(entry) = entry {
                bytes += entry.value.bytes().len();
                entries.push((key.clone(), entry));
            }
            self.cursor = Some(key);
        }
    }
}
