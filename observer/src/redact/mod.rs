//! Redaction: what of a text is replaced before a byte of it is written.
//!
//! Never here: cutting, writing. A text is JSON; a redactor sees its strings and member names one
//! by one and decoded, so no escape hides a secret, and numbers stay as they were written.
//! Invariants: a whole value is redacted before it is cut; a redactor that panics costs the value
//! and not the entry; a name or id that matches becomes its keyed hash, the same everywhere.
//! Next rooms: [`scan`], [`json`].

mod assigned;
mod json;
mod judge;
mod lexeme;
mod names;
mod scan;
mod shapes;
mod vendors;

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_wal::Log;
use sha2::{Digest, Sha256};

use self::json::Place;
use self::names::Named;
use crate::ids::InstanceId;
use crate::json::JsonText;

/// What stands where a redactor panicked.
pub const PANICKED: &str = "[redactor panicked]";

/// How a name begins that was replaced by its hash; sixteen digits follow.
const HASHED: &str = "redacted-";

fn is_hash(name: &str) -> bool {
    let digits = name.strip_prefix(HASHED).map(str::as_bytes);
    digits.is_some_and(|digits| {
        digits.len() == 16 && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Finds what must not be written in a plain text and says what to write instead.
///
/// It is called on the recording thread, for each string, member name and id, and must be fast. It
/// may be any closure `Fn(&str) -> Option<String>`: `None` keeps the text.
pub trait Redactor: Send + Sync {
    /// The text without what must not be written; `None` if there is nothing of it in the text.
    fn redact(&self, text: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String> + Send + Sync> Redactor for F {
    fn redact(&self, text: &str) -> Option<String> {
        self(text)
    }
}

/// The redactors of an observer: the built-in shapes of secrets, and the caller's own after them.
///
/// The built-in shapes are API keys of well-known services, bearer and basic credentials and JWTs,
/// private keys, and passwords in connection strings and assignments. They are found by their look:
/// a secret that looks like nothing is not found. See [`crate::Options::redactor`].
#[derive(Clone)]
pub(crate) struct Redaction {
    built_in: bool,
    own: Vec<Arc<dyn Redactor>>,
    key: [u8; 16],
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (built_in, own) = (self.built_in, self.own.len());
        f.debug_struct("Redaction").field("built_in", &built_in).field("own", &own).finish()
    }
}

impl Default for Redaction {
    fn default() -> Redaction {
        Redaction { built_in: true, own: Vec::new(), key: [0; 16] }
    }
}

impl Redaction {
    /// Replaces nothing.
    pub(crate) fn none() -> Redaction {
        Redaction { built_in: false, ..Redaction::default() }
    }

    pub(crate) fn add(&mut self, redactor: Arc<dyn Redactor>) {
        self.own.push(redactor);
    }

    pub(crate) fn without_built_in(&mut self) {
        self.built_in = false;
    }

    pub(crate) fn set_key(&mut self, key: [u8; 16]) {
        self.key = key;
    }

    /// A random key where none was given.
    pub(crate) fn complete_key(&mut self, log: &Log) -> crate::error::Result<()> {
        if self.key == [0; 16] {
            self.key = InstanceId::random(log)?.to_bytes();
        }
        Ok(())
    }

    /// The text without secrets and how many of its strings were changed; `None` if it has none.
    pub(crate) fn json(&self, text: &JsonText) -> Option<(JsonText, u32)> {
        if !self.built_in && self.own.is_empty() {
            return None;
        }
        // Strings without escapes stand in the JSON text as they are, so where nothing looks like a
        // secret in the whole text, no string of it does.
        let plain = !text.as_str().contains('\\') && self.own.is_empty();
        if plain && !scan::may_hold_secret(text.as_str()) && !json::has_secret_name(text.as_str()) {
            return None;
        }
        let mut count = 0;
        let mut key = scan::KeyLines::default();
        let redacted = json::map_strings(text.as_str(), |place, value| {
            let line = (self.built_in && place != Place::Name).then(|| key.next(value)).flatten();
            let redacted = match (line, place) {
                (Some(marker), _) => Some(marker.to_owned()),
                (None, Place::Value(name)) => self.string(name, value),
                (None, Place::Name) => self.string(None, value),
            };
            count += u32::from(redacted.is_some());
            redacted
        })?;
        Some((JsonText::checked(redacted), count))
    }

    /// A name or an id: itself, or its keyed hash if a redactor matches it. A text that looks like
    /// such a hash is one: an end has the ids that its start was written with, whatever a caller's
    /// redactor says of them.
    pub(crate) fn name(&self, name: &str) -> Option<String> {
        if is_hash(name) {
            return None;
        }
        self.string(None, name)?;
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(name.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Some(format!("{HASHED}{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    /// One decoded string and the name of the member that it is the value of, if of one.
    fn string(&self, name: Option<&str>, text: &str) -> Option<String> {
        let mut changed: Option<String> = None;
        if self.built_in {
            changed = match name {
                Some(name) if is_named_secret(name, text) => Some(shapes::NAMED.to_owned()),
                _ => scan::redact(text),
            };
        }
        for redactor in &self.own {
            let now: Cow<'_, str> = changed.as_deref().unwrap_or(text).into();
            // Nothing of ours is changed by a redactor, so nothing is left half changed.
            match catch_unwind(AssertUnwindSafe(|| redactor.redact(&now))) {
                Ok(None) => {}
                Ok(redacted) => changed = redacted,
                Err(_) => return Some(PANICKED.to_owned()),
            }
        }
        changed
    }
}

/// Whether the value of a member of this name is a secret: not a sentence, not a placeholder.
fn is_named_secret(name: &str, value: &str) -> bool {
    let long = value.len() >= 8;
    match names::named(name) {
        None => false,
        Some(Named::Password) => judge::password_value(value, true),
        Some(Named::Token) => long && judge::secret_value(value),
        Some(Named::Auth) => judge::is_user_and_password(value),
        Some(Named::Authorization) => {
            let mut words = value.split(' ');
            let (first, second, more) = (words.next(), words.next(), words.next());
            let credential = second.or(first).filter(|_| more.is_none());
            long && credential.is_some_and(judge::secret_value)
        }
    }
}
