//! JSON as text: validated once, then carried byte for byte.
//!
//! Never here: a document model. Numbers are not parsed, keys not sorted, nothing is rounded; what
//! an agent said comes back as it said it. Debug output shows a length and never the text.
//! Invariant: a [`JsonText`] is one valid JSON value without a line break, so that any tool may
//! put it into a line of its own output. Next room: [`crate::entry`].

use std::fmt;

use serde::de::IgnoredAny;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// One JSON value, kept as text.
///
/// ```
/// use annals_observer::JsonText;
///
/// let exact = JsonText::parse(r#"{"z": 1e400, "a": 0.10}"#)?;
/// assert_eq!(exact.as_str(), r#"{"z": 1e400, "a": 0.10}"#);
/// assert_eq!(JsonText::string("a \"quoted\" word").as_str(), r#""a \"quoted\" word""#);
/// assert!(JsonText::parse("{oops").is_err());
/// # Ok::<(), annals_observer::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonText(String);

impl JsonText {
    /// Takes JSON text as it is. Text with line breaks loses the white space between its tokens
    /// (the value stays the same); any other text keeps every byte.
    ///
    /// # Errors
    /// `Invalid` if the text is not exactly one JSON value. The message has the column, not the
    /// text.
    pub fn parse(text: impl Into<String>) -> Result<JsonText> {
        let text = text.into();
        match serde_json::from_str::<IgnoredAny>(&text) {
            Ok(_) => Ok(JsonText::checked(text)),
            Err(error) => Err(Error::invalid(format!(
                "the text is not one JSON value (line {}, column {}): pass valid JSON, or make a \
                 JSON string of it with JsonText::string",
                error.line(),
                error.column()
            ))),
        }
    }

    /// A JSON string with this content: for plain text such as an error message.
    pub fn string(content: &str) -> JsonText {
        JsonText(serde_json::Value::from(content).to_string())
    }

    /// Any value that serde can write as JSON.
    ///
    /// # Errors
    /// `Invalid` if it cannot: a map whose keys are no strings, or an error of the value's own.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<JsonText> {
        match serde_json::to_string(value) {
            // Checked because a value may hold a RawValue of several lines.
            Ok(text) => Ok(JsonText::checked(text)),
            Err(_) => Err(Error::invalid(
                "the value cannot be written as JSON: its keys must be strings and its Serialize \
                 must not fail",
            )),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Text that was already validated by a JSON parser.
    pub(crate) fn checked(text: String) -> JsonText {
        if text.contains(['\n', '\r']) { JsonText(compact(&text)) } else { JsonText(text) }
    }
}

/// Drops white space outside strings. In valid JSON white space alone never parts two tokens.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in text.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if matches!(character, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_string = character == '"';
        }
        out.push(character);
    }
    out
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({} bytes)", self.0.len())
    }
}

/// Written as the value itself by `serde_json`; other formats cannot carry raw JSON text.
impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(&self.0) {
            Ok(raw) => raw.serialize(serializer),
            Err(_) => Err(S::Error::custom("a JsonText holds no JSON value")),
        }
    }
}
