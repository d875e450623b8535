//! The three-way merge of a typed update: what the struct knows changes, what it does not know
//! stays byte for byte.
//!
//! Never here: types, the registry. Texts in, a text out. The document is what is stored; *before*
//! is the struct as it was decoded from it, serialized again; *after* is the struct as the closure
//! left it. A member in *before* and not in *after* goes; one that differs or is new is written;
//! one that is in neither is unknown and keeps its bytes, its name's spelling too. An object that
//! comes anew where the document has one keeps what the struct does not know of it. An array or a
//! scalar that differs is replaced whole.
//! Invariants: numbers of unknown members are never parsed; a document with a member twice is not
//! merged; whatever the text, this ends with a text or a reason. Next room: [`crate::typed`].

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

/// Objects and arrays may stand this deep in one another; serde_json reads structs no deeper.
const DEPTH_MAX: usize = 128;

type Merged<T> = Result<T, &'static str>;

/// One member of an object, as slices of the text.
struct Member<'t> {
    /// The name as it is spelled, quotes included.
    spelled: &'t str,
    name: String,
    value: &'t str,
}

/// Merges; `None`: nothing differs, and the document stays as it is.
pub(crate) fn merge(document: &str, before: &str, after: &str) -> Merged<Option<String>> {
    // From here on the texts are JSON, and the scanner below need not judge them.
    for text in [document, before, after] {
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| "it is no JSON document")?;
    }
    check(document.trim(), 0)?;
    merge_value(document.trim(), before.trim(), after.trim())
}

/// `document` with this member set to `value`, all else as it was.
pub(crate) fn set_member(document: &str, name: &str, value: &str) -> Merged<String> {
    let before = member_text(document, name)?;
    let spelled = serde_json::to_string(name).map_err(|_| "its name is no text")?;
    let before = before.map_or_else(|| "{}".to_owned(), |text| format!("{{{spelled}:{text}}}"));
    let after = format!("{{{spelled}:{value}}}");
    Ok(merge(document, &before, &after)?.unwrap_or_else(|| document.to_owned()))
}

/// The text of a member of an object; `None` if there is none.
pub(crate) fn member_text<'t>(document: &'t str, name: &str) -> Merged<Option<&'t str>> {
    serde_json::from_str::<IgnoredAny>(document).map_err(|_| "it is no JSON document")?;
    if !document.trim().starts_with('{') {
        return Err("it is no JSON object");
    }
    let members = members(document.trim())?;
    Ok(members.into_iter().find(|member| member.name == name).map(|member| member.value))
}

/// The members of an object, names and texts, in their order; `None` for what is no object. What is
/// no JSON, has a member twice or is nested too deep is refused.
pub(crate) fn members_of(text: &str) -> Merged<Option<Vec<(String, &str)>>> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| "it is no JSON document")?;
    let text = text.trim();
    check(text, 0)?;
    if !text.starts_with('{') {
        return Ok(None);
    }
    let members = members(text)?.into_iter();
    Ok(Some(members.map(|member| (member.name, member.value)).collect()))
}

fn merge_value(document: &str, before: &str, after: &str) -> Merged<Option<String>> {
    if before == after {
        return Ok(None);
    }
    let objects = [document, before, after].iter().all(|text| text.starts_with('{'));
    if objects {
        merge_object(&members(document)?, &members(before)?, &members(after)?)
    } else {
        Ok(Some(after.to_owned()))
    }
}

fn merge_object(
    document: &[Member<'_>],
    before: &[Member<'_>],
    after: &[Member<'_>],
) -> Merged<Option<String>> {
    let index = |members: &[Member<'_>]| -> BTreeMap<String, usize> {
        members.iter().enumerate().map(|(at, member)| (member.name.clone(), at)).collect()
    };
    let (was, is, stored) = (index(before), index(after), index(document));
    let mut out = Vec::new();
    let mut differs = false;
    for member in document {
        let old = was.get(&member.name).map(|at| before[*at].value);
        let new = is.get(&member.name).map(|at| after[*at].value);
        let value = match (old, new) {
            (Some(old), Some(new)) => merge_value(member.value, old, new)?,
            // The struct left it out before (a default, say): what it does not know of it stays.
            (None, Some(new)) if member.value.starts_with('{') => {
                merge_value(member.value, "{}", new)?
            }
            (None, Some(new)) => Some(new.to_owned()),
            (None, None) => None,
            (Some(_), None) => {
                differs = true;
                continue;
            }
        };
        differs |= value.is_some();
        let value = value.as_deref().unwrap_or(member.value);
        out.push(format!("{}:{value}", member.spelled));
    }
    for member in after.iter().filter(|member| !stored.contains_key(&member.name)) {
        // A default that the document leaves out stays left out.
        let old = was.get(&member.name).map(|at| before[*at].value);
        if old != Some(member.value) {
            differs = true;
            out.push(format!("{}:{}", member.spelled, member.value));
        }
    }
    Ok(differs.then(|| format!("{{{}}}", out.join(","))))
}

/// No object in it has a member twice.
fn check(text: &str, depth: usize) -> Merged<()> {
    if depth > DEPTH_MAX {
        return Err("its objects and arrays are nested too deep");
    }
    match text.as_bytes().first() {
        Some(b'{') => {
            let members = members(text)?;
            let mut names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err("a member occurs twice in it");
            }
            members.iter().try_for_each(|member| check(member.value, depth + 1))
        }
        Some(b'[') => items(text)?.into_iter().try_for_each(|item| check(item, depth + 1)),
        _ => Ok(()),
    }
}

/// The members of an object, in their order.
fn members(object: &str) -> Merged<Vec<Member<'_>>> {
    let mut members = Vec::new();
    for item in items(object)? {
        let end = string_end(item.as_bytes()).ok_or(BROKEN)?;
        let (spelled, rest) = item.split_at_checked(end).ok_or(BROKEN)?;
        let value = rest.trim_start().strip_prefix(':').ok_or(BROKEN)?.trim();
        let name = serde_json::from_str(spelled).map_err(|_| BROKEN)?;
        members.push(Member { spelled, name, value });
    }
    Ok(members)
}

/// Said where the text was checked to be JSON and still is none; not met.
const BROKEN: &str = "its members cannot be told apart";

/// What stands between the commas of an array or object, trimmed.
fn items(text: &str) -> Merged<Vec<&str>> {
    let inner = text.get(1..text.len().saturating_sub(1)).ok_or(BROKEN)?;
    let bytes = inner.as_bytes();
    let (mut items, mut depth, mut from, mut at) = (Vec::new(), 0_usize, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += string_end(&bytes[at..]).ok_or(BROKEN)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1).ok_or(BROKEN)?,
            b',' if depth == 0 => {
                items.push(inner.get(from..at).ok_or(BROKEN)?.trim());
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    let last = inner.get(from..).ok_or(BROKEN)?.trim();
    if !last.is_empty() {
        items.push(last);
    }
    Ok(items)
}

/// Where the string that begins here ends, its quotes included.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests;
