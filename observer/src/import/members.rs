//! The members of a JSON object as raw text: names and values untouched, in their order.
//!
//! Never here: a parsed number, an unescaped name, a dropped duplicate. What an import does not
//! use goes on byte for byte. Invariant: the text was valid JSON; whatever is taken out of a
//! [`Members`] plus what is left is all there was. Next room: [`super::jsonl`].

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Reason;
use crate::json::JsonText;

/// Name (with its quotes) and value of each member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The members of the one object that this text is.
    pub(crate) fn of(text: &'a str) -> Result<Members<'a>, Reason> {
        match serde_json::from_str(text) {
            Ok(members) => Ok(members),
            Err(error) if error.is_data() => Err(Reason::NotAnObject),
            Err(error) => Err(Reason::of_json(&error)),
        }
    }

    /// The value of a member; of its last occurrence, as JSON readers do.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| is_named(key, name)).map(|(_, value)| *value)
    }

    /// [`Members::get`] as the text of a string.
    pub(crate) fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(as_string)
    }

    /// Takes a member out; an earlier one of the same name stays.
    pub(crate) fn take(&mut self, name: &str) -> Option<JsonText> {
        let at = self.0.iter().rposition(|(key, _)| is_named(key, name))?;
        Some(json(self.0.remove(at).1))
    }

    /// All members as one object; `None` if there are none.
    pub(crate) fn object(&self) -> Option<JsonText> {
        if self.0.is_empty() {
            return None;
        }
        let pairs: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{}:{}", key.get(), value.get())).collect();
        Some(JsonText::checked(format!("{{{}}}", pairs.join(","))))
    }
}

/// Names are compared as they are usually written; one written with escapes is left alone.
fn is_named(key: &RawValue, name: &str) -> bool {
    let inner = key.get().strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    inner == Some(name)
}

/// A raw value as text to store.
pub(crate) fn json(raw: &RawValue) -> JsonText {
    JsonText::checked(raw.get().to_owned())
}

/// The content of a JSON string; `None` for any other value, and for one that is no Unicode text.
pub(crate) fn as_string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The values of a JSON array.
pub(crate) fn as_list(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

/// Raw values as one array.
pub(crate) fn array(values: &[&RawValue]) -> JsonText {
    let values: Vec<&str> = values.iter().map(|value| value.get()).collect();
    JsonText::checked(format!("[{}]", values.join(",")))
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Members(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}
