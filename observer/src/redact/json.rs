//! The strings of a JSON text, one by one, each replaced or kept where it stands.
//!
//! Never here: a document model, a number read. What is between the strings is copied byte for
//! byte. The text is valid JSON ([`crate::JsonText`]); on anything else the walk would stop early
//! and keep the rest as it is. Next room: [`super::shapes`].

use super::shapes;

/// Calls `map` with each string and member name, decoded, and puts in what it returns. A value that
/// is a string comes with the name of its member. `None` if nothing was replaced.
pub(super) fn map_strings(
    text: &str,
    mut map: impl FnMut(Option<&str>, &str) -> Option<String>,
) -> Option<String> {
    let mut out = String::new();
    let (mut kept, mut at, mut changed) = (0, 0, false);
    // The name of the member whose value comes next, until that value or a comma is passed.
    let mut name: Option<String> = None;
    while let Some((start, end)) = next_string(text, at) {
        if text.get(at..start).is_some_and(|between| between.contains([',', '{', '['])) {
            name = None;
        }
        at = end;
        let Some(token) = text.get(start..end) else { break };
        let Ok(decoded) = serde_json::from_str::<std::borrow::Cow<'_, str>>(token) else { break };
        let is_name = text.get(end..).is_some_and(|rest| rest.trim_start().starts_with(':'));
        let replaced = map(name.as_deref().filter(|_| !is_name), &decoded);
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

/// Whether some member's name says that its value is a secret. Asked of text without escapes.
pub(super) fn has_secret_name(text: &str) -> bool {
    let mut at = 0;
    while let Some((start, end)) = next_string(text, at) {
        at = end;
        let rest = text.as_bytes().get(end);
        if matches!(rest, Some(b':' | b' '))
            && text.get(start..end).is_some_and(shapes::is_secret_name)
        {
            return true;
        }
    }
    false
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
