//! The strings of a JSON text, one by one, each replaced or kept where it stands.
//!
//! Never here: a document model, a number read. What is between the strings is copied byte for
//! byte. The text is valid JSON ([`crate::JsonText`]); on anything else the walk would stop early
//! and keep the rest as it is. Next room: [`super::scan`].

use std::borrow::Cow;
use std::rc::Rc;

use super::names::named;

/// Where a string stands: as the name of a member, or as a value, with its member's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place<'n> {
    Name,
    Value(Option<&'n str>),
}

/// Calls `map` with each string and member name, decoded, and puts in what it returns. A value that
/// is a string comes with the name of its member; inside of a list or an object under a secret name,
/// with that name. `None` if nothing was replaced.
pub(super) fn map_strings(
    text: &str,
    mut map: impl FnMut(Place<'_>, &str) -> Option<String>,
) -> Option<String> {
    let mut out = String::new();
    let (mut kept, mut at, mut changed) = (0, 0, false);
    // The name of the member whose value comes next, until that value or a comma is passed.
    let mut name: Option<String> = None;
    // For each list and object around it, the secret name that all of its values are under.
    let mut around: Vec<Option<Rc<str>>> = Vec::new();
    while let Some((start, end)) = next_string(text, at) {
        for byte in text.get(at..start).unwrap_or_default().bytes() {
            match byte {
                b'{' | b'[' => {
                    let own = name.take().filter(|name| named(name).is_some());
                    let outer = || around.last().cloned().flatten();
                    around.push(own.map(Rc::from).or_else(outer));
                }
                b'}' | b']' => drop((around.pop(), name.take())),
                b',' => name = None,
                _ => {}
            }
        }
        at = end;
        let Some(token) = text.get(start..end) else { break };
        let decoded = decode(token);
        let is_name = text.get(end..).is_some_and(|rest| rest.trim_start().starts_with(':'));
        let outer = around.last().and_then(Option::as_deref);
        let own = name.as_deref().filter(|name| outer.is_none() || named(name).is_some());
        let place = if is_name { Place::Name } else { Place::Value(own.or(outer)) };
        let replaced = map(place, &decoded);
        name = is_name.then(|| decoded.into_owned());
        if let Some(replaced) = replaced {
            out.push_str(text.get(kept..start).unwrap_or_default());
            out.push_str(&serde_json::Value::from(replaced).to_string());
            (kept, changed) = (end, true);
        }
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    changed.then_some(out)
}

/// Whether some member's name says that its value is a secret, and the value is no number. Asked of
/// text without escapes.
pub(super) fn has_secret_name(text: &str) -> bool {
    let mut at = 0;
    while let Some((start, end)) = next_string(text, at) {
        at = end;
        let blank = |byte: &&u8| !matches!(byte, b':' | b' ' | b'\t' | b'\n' | b'\r');
        let mut rest = text.as_bytes().get(end..).unwrap_or_default().iter();
        let is_name = matches!(rest.clone().next(), Some(b':' | b' ' | b'\t' | b'\n' | b'\r'));
        if is_name
            && text.get(start..end).is_some_and(|name| named(name).is_some())
            && matches!(rest.find(blank), Some(b'"' | b'[' | b'{'))
        {
            return true;
        }
    }
    false
}

/// What a string says. A surrogate without its other half, as a cut emoji leaves it, is valid in a
/// JSON text and in no string of ours: it becomes U+FFFD, so that what stands beside it is still
/// looked at.
fn decode(token: &str) -> Cow<'_, str> {
    if let Ok(decoded) = serde_json::from_str::<Cow<'_, str>>(token) {
        return decoded;
    }
    let mut whole = String::with_capacity(token.len());
    let mut rest = token;
    while let Some(at) = rest.find('\\') {
        whole.push_str(rest.get(..at).unwrap_or_default());
        let escape = rest.get(at..).unwrap_or_default();
        let one = if escape.as_bytes().get(1) == Some(&b'u') { 6 } else { 2 };
        let pair = escape.get(..12).filter(|_| one == 6);
        let (taken, piece) = match pair.filter(|pair| is_string(pair)) {
            Some(pair) => (12, pair),
            None => {
                let piece = escape.get(..one).filter(|piece| is_string(piece));
                (one.min(escape.len()), piece.unwrap_or("\\ufffd"))
            }
        };
        whole.push_str(piece);
        rest = escape.get(taken..).unwrap_or_default();
    }
    whole.push_str(rest);
    serde_json::from_str(&whole).map_or_else(|_| token.to_owned().into(), Cow::Owned)
}

/// Whether this, in quotes, is a string.
fn is_string(inside: &str) -> bool {
    serde_json::from_str::<Cow<'_, str>>(&format!("\"{inside}\"")).is_ok()
}

/// First and one past the last byte of the next string, quotes included.
fn next_string(text: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let start = from + bytes.get(from..)?.iter().position(|byte| *byte == b'"')?;
    let mut at = start + 1;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if bytes.get(at) == Some(&b'"') {
            return Some((start, at + 1));
        }
        at += 2;
    }
}
