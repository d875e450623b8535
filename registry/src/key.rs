//! Names: [`Key`], a UTF-8 path, and [`Prefix`], whole segments of one.
//!
//! Never here: values, LSNs. A key is checked once, where it is made, and then believed.
//! Invariants: no segment is empty, nothing holds a control character, a key has at most 1024
//! bytes; keys and prefixes compare as their texts do, which the ordered map's lookups by `&str`
//! rest on. The registry's own names (leases, writers) are keys that no caller can spell. Next room: [`crate::value`].

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// At most this many bytes in a key.
pub const KEY_BYTES_MAX: usize = 1024;

/// What a name of the registry's own begins with: a control character, which no caller's key may
/// hold, and which sorts before every caller's key.
const SYSTEM: char = '\u{1}';

/// The first text that a caller's key can be.
const FIRST: &str = " ";

/// The name of a value: non-empty segments joined by slashes, as `tasks/T1/agents/A7`.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks `path` and makes it a key.
    ///
    /// # Errors
    /// `InvalidKey` for an empty path, an empty segment (so no slash leads, trails or follows
    /// another), a control character, or more than [`KEY_BYTES_MAX`] bytes. The message names the
    /// rule and the place and does not repeat the path.
    ///
    /// ```
    /// use annals_registry::Key;
    ///
    /// assert_eq!(Key::new("tasks/T1")?.as_str(), "tasks/T1");
    /// assert!(Key::new("tasks//T1").is_err());
    /// assert!(Key::new("/tasks").is_err());
    /// # Ok::<(), annals_registry::Error>(())
    /// ```
    pub fn new(path: impl AsRef<str>) -> Result<Key> {
        let path = path.as_ref();
        check(path).map_err(|why| Error::invalid_key("key", why))?;
        Ok(Key(path.into()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name of the registry's own: no caller can spell it, and no caller's prefix covers it.
    pub(crate) fn system(room: &str, id: u128) -> Key {
        Key(format!("{SYSTEM}{room}/{id:032x}").into())
    }

    /// Whether this is a name of the registry's own.
    pub(crate) fn is_system(&self) -> bool {
        self.0.starts_with(SYSTEM)
    }

    /// The id of a system key of this room.
    pub(crate) fn system_id(&self, room: &str) -> Option<u128> {
        let id = self.0.strip_prefix(SYSTEM)?.strip_prefix(room)?.strip_prefix('/')?;
        (id.len() == 32).then(|| u128::from_str_radix(id, 16).ok()).flatten()
    }

    /// A key as the log has it: a caller's, or one of the registry's own.
    pub(crate) fn stored(path: &str) -> Result<Key> {
        match path.strip_prefix(SYSTEM) {
            Some(rest) => Key::new(rest).map(|_| Key(path.into())),
            None => Key::new(path),
        }
    }

    /// Every prefix that covers this key, from the empty one to the key itself. The empty one
    /// covers no system key.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let inner = self.0.match_indices('/').map(|(at, _)| &self.0[..at]);
        let all = (!self.is_system()).then_some("");
        all.into_iter().chain(inner).chain(std::iter::once(&*self.0))
    }
}

/// All keys at and below a path: whole segments, so `tasks/T1` covers `tasks/T1` and
/// `tasks/T1/agents` but not `tasks/T10`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// Checks `path` and makes it a prefix. The empty path is [`Prefix::all`].
    ///
    /// # Errors
    /// `InvalidKey` for a path that is not empty and no key.
    ///
    /// ```
    /// use annals_registry::{Key, Prefix};
    ///
    /// let task = Prefix::new("tasks/T1")?;
    /// assert!(task.covers(&Key::new("tasks/T1/agents/A7")?));
    /// assert!(!task.covers(&Key::new("tasks/T10")?));
    /// # Ok::<(), annals_registry::Error>(())
    /// ```
    pub fn new(path: impl AsRef<str>) -> Result<Prefix> {
        let path = path.as_ref();
        if !path.is_empty() {
            check(path).map_err(|why| Error::invalid_key("prefix", why))?;
        }
        Ok(Prefix(path.into()))
    }

    /// The empty prefix, which covers every key.
    pub fn all() -> Prefix {
        Prefix("".into())
    }

    /// Everything of one of the registry's own rooms.
    pub(crate) fn system(room: &str) -> Prefix {
        Prefix(format!("{SYSTEM}{room}").into())
    }

    /// The path; empty for [`Prefix::all`].
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` lies at or below this path.
    pub fn covers(&self, key: &Key) -> bool {
        if self.0.is_empty() {
            return !key.is_system();
        }
        let below = key.0.strip_prefix(&*self.0);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What `map` holds at and below this path, in key order.
    ///
    /// Two steps, because the keys are not neighbours: `T1-old` sorts between `T1` and `T1/a`.
    pub(crate) fn range<'m, V>(
        &self,
        map: &'m BTreeMap<Key, V>,
    ) -> impl Iterator<Item = (&'m Key, &'m V)> + use<'m, V> {
        let itself = map.get_key_value(self.as_str());
        let (first, end) = (format!("{}/", self.0), format!("{}0", self.0));
        let below = if self.0.is_empty() {
            map.range::<str, _>((Bound::Included(FIRST), Bound::Unbounded))
        } else {
            // '0' is the character after '/', so this is every key that goes on with a slash.
            map.range::<str, _>((Bound::Included(&*first), Bound::Excluded(&*end)))
        };
        itself.into_iter().chain(below)
    }
}

/// Why `path` is no key, as a clause.
fn check(path: &str) -> std::result::Result<(), String> {
    if path.is_empty() {
        return Err("it is empty".to_owned());
    }
    if path.len() > KEY_BYTES_MAX {
        return Err(format!("it has {} bytes, over the cap of {KEY_BYTES_MAX}", path.len()));
    }
    if let Some((at, _)) = path.char_indices().find(|(_, c)| c.is_control()) {
        return Err(format!("there is a control character at byte {at}"));
    }
    let mut at = 0;
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err(format!("there is an empty segment at byte {at}"));
        }
        at += segment.len() + 1;
    }
    Ok(())
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Prefix {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(path: &str) -> Result<Key> {
        Key::new(path)
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(path: &str) -> Result<Prefix> {
        Prefix::new(path)
    }
}

impl From<&Key> for Prefix {
    fn from(key: &Key) -> Prefix {
        Prefix(key.0.clone())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", &*self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({:?})", &*self.0)
    }
}
