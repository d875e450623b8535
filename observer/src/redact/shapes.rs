//! The built-in shapes of secrets: how they look, and what only looks like one.
//!
//! Never here: JSON. One expression finds candidates in one pass; each candidate is then judged by
//! its shape's own rule, so that a word with dashes, a placeholder or a commit hash stays. A look is
//! bounded (256 bytes of an open-ended part), because what begins inside of a rejected candidate is
//! looked at again; what is replaced goes on to the secret's end.
//! Invariant: the marker names the shape and holds nothing of the secret.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// What stands for a value whose member's name says that it is a secret.
pub(super) const NAMED: &str = "[redacted:named-secret]";

struct Shape {
    marker: &'static str,
    pattern: &'static str,
    /// Whether a candidate is one.
    judge: fn(&str) -> bool,
    /// Bytes with which a long one goes on.
    more: fn(u8) -> bool,
}

/// A candidate of this length may have been cut by the bound of its shape.
const LOOK_BYTES: usize = 256;

const fn shape(marker: &'static str, pattern: &'static str, judge: fn(&str) -> bool) -> Shape {
    Shape { marker, pattern, judge, more: in_token }
}

const fn shape_until(
    marker: &'static str,
    pattern: &'static str,
    judge: fn(&str) -> bool,
    more: fn(u8) -> bool,
) -> Shape {
    Shape { marker, pattern, judge, more }
}

fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'~' | b'+' | b'/' | b'-' | b'=')
}

fn in_url(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b'<' | b'>')
}

fn in_value(byte: u8) -> bool {
    in_url(byte) && !matches!(byte, b',' | b';' | b'&' | b'(' | b')' | b'{' | b'}' | b'[' | b']')
}

const API_KEY: &str = "[redacted:api-key]";
const BEARER: &str = "[redacted:bearer-token]";
const PRIVATE_KEY: &str = "[redacted:private-key]";
const CONNECTION: &str = "[redacted:connection-string]";
const ASSIGNED: &str = "[redacted:assigned-secret]";

/// The longest shapes first: of two that begin at one place the earlier row is taken.
static SHAPES: [Shape; 12] = [
    shape(
        PRIVATE_KEY,
        r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----)?",
        |text| text.len() >= 80,
    ),
    shape(API_KEY, r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}", always),
    // Services that mark their keys with a prefix.
    shape(
        API_KEY,
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22}|xox[abeoprs]-[A-Za-z0-9-]{10}|xapp-[0-9]-[A-Z0-9]{5}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20}|GOCSPX-[A-Za-z0-9_-]{20}|glpat-[A-Za-z0-9_-]{20}|[sr]k_(?:live|test)_[A-Za-z0-9]{16}|whsec_[A-Za-z0-9+/]{24}|npm_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30}|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}|pypi-[A-Za-z0-9_-]{50}|gsk_[A-Za-z0-9]{40}|xai-[A-Za-z0-9]{40}|pplx-[A-Za-z0-9]{40}|do[oprt]_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|r8_[A-Za-z0-9]{37}|lin_api_[A-Za-z0-9]{40}|ntn_[A-Za-z0-9]{40}|sq0(?:atp|csp)-[A-Za-z0-9_-]{22}|EAAC[A-Za-z0-9]{30})[A-Za-z0-9_.+/-]{0,256}=*",
        mixed,
    ),
    shape(API_KEY, r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", mixed),
    shape(API_KEY, r"\b(?:SK|AC|key-)[0-9a-f]{32}\b", mixed),
    shape(API_KEY, r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}", always),
    shape(API_KEY, r"\bsk-[A-Za-z0-9_-]{20,256}", random_run),
    // What goes into an Authorization header.
    shape(BEARER, r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", always),
    shape(BEARER, r"\b(?i:bearer)[ \t]+[A-Za-z0-9_.~+/-]{16,256}=*", credential),
    shape(BEARER, r"\b(?i:basic)[ \t]+[A-Za-z0-9+/]{12,256}={0,2}", basic),
    // A password inside a URL or a list of settings.
    shape_until(
        CONNECTION,
        r#"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/?#@"'<>\[\]]{0,256}:[^\s/?#@"'<>]{1,256}@[^\s"'<>]{1,256}"#,
        url_password,
        in_url,
    ),
    // Also as a member of JSON that stands in a string, its quotes escaped once more or not.
    shape_until(
        ASSIGNED,
        r#"(?i:accountkey|sharedaccesskey|sharedaccesssignature|api[_-]?key|access[_-]?key|secret[_-]?key|client[_-]?secret|secret|token|passwd|password|pwd)(?:\\{0,7}["'])?[ \t]*[=:][ \t]*(?:\\{0,7}["'])?[^\s"',;&<>(){}\[\]]{8,256}"#,
        assigned,
        in_value,
    ),
];

/// All shapes as one expression. Bytes and no Unicode classes: one automaton and no second pass.
static ANY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let all: Vec<&str> = SHAPES.iter().map(|shape| shape.pattern).collect();
    Regex::new(&format!("(?-u){}", all.join("|"))).ok()
});

/// Each shape alone, to tell which one a candidate is.
static EACH: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
    let alone = |shape: &Shape| Regex::new(&format!("(?-u)^(?:{})", shape.pattern)).ok();
    SHAPES.iter().map(alone).collect()
});

/// Whether there is a candidate at all.
pub(super) fn may_hold_secret(text: &str) -> bool {
    // An expression that does not compile would let secrets pass; a test shows that they all do.
    ANY.as_ref().is_none_or(|any| any.is_match(text.as_bytes()))
}

/// The text with a marker for each secret; `None` if there is none.
pub(super) fn redact(text: &str) -> Option<String> {
    let any = ANY.as_ref()?;
    let mut out: Option<String> = None;
    let (mut kept, mut at) = (0, 0);
    while let Some(found) = any.find_at(text.as_bytes(), at) {
        let (start, end) = (text.floor_char_boundary(found.start()), ceil(text, found.end()));
        match text.get(start..end).and_then(|candidate| judged(candidate)) {
            Some(shape) => {
                let marker = shape.marker;
                let end = if end - start < LOOK_BYTES { end } else { to_its_end(text, end, shape) };
                let out = out.get_or_insert_default();
                out.push_str(text.get(kept..start).unwrap_or_default());
                out.push_str(marker);
                (kept, at) = (end, end);
            }
            // Not one: what begins inside of it may be.
            None => at = ceil(text, start + 1),
        }
        if at >= text.len() {
            break;
        }
    }
    let mut out = out?;
    out.push_str(text.get(kept..).unwrap_or_default());
    Some(out)
}

fn ceil(text: &str, at: usize) -> usize {
    text.ceil_char_boundary(at)
}

/// The first shape that the whole candidate is.
fn judged(candidate: &str) -> Option<&'static Shape> {
    let mut rows = SHAPES.iter().zip(EACH.iter());
    rows.find_map(|(shape, alone)| {
        let found = alone.as_ref()?.find(candidate.as_bytes())?;
        (found.end() == candidate.len() && (shape.judge)(candidate)).then_some(shape)
    })
}

/// Where a secret ends that was cut by the bound of the look.
fn to_its_end(text: &str, from: usize, shape: &Shape) -> usize {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    let more = rest.iter().take_while(|byte| (shape.more)(**byte)).count();
    ceil(text, from + more)
}

/// Whether a member of this name, quotes included or not, holds a secret by what it is called.
pub(super) fn is_secret_name(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "apikey",
        "accesskey",
        "secretkey",
        "secretaccesskey",
        "clientsecret",
        "password",
        "passwd",
        "authtoken",
        "accesstoken",
        "privatekey",
    ];
    if !(6..=64).contains(&name.len()) {
        return false;
    }
    let mut plain = [0u8; 64];
    let mut len = 0;
    for byte in name.bytes().filter(u8::is_ascii_alphanumeric) {
        if let Some(place) = plain.get_mut(len) {
            *place = byte.to_ascii_lowercase();
            len += 1;
        }
    }
    let plain = plain.get(..len).unwrap_or_default();
    NAMES.iter().any(|name| plain.ends_with(name.as_bytes()))
}

/// Whether the value of a member of this name is a secret: not a sentence, not a placeholder.
pub(super) fn is_named_secret(name: &str, value: &str) -> bool {
    is_secret_name(name) && value.len() >= 8 && looks_random(value)
}

fn always(_: &str) -> bool {
    true
}

/// Letters and digits both.
fn mixed(text: &str) -> bool {
    let digit = text.bytes().any(|byte| byte.is_ascii_digit());
    digit && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// After the prefix, a run of letters and digits mixed that no word is.
fn random_run(text: &str) -> bool {
    text.split(['-', '_']).any(|run| run.len() >= 16 && mixed(run))
}

/// What follows `bearer` is no word.
fn credential(text: &str) -> bool {
    text.split_whitespace().last().is_some_and(looks_random)
}

/// What follows `basic` is base64 of `user:password`.
fn basic(text: &str) -> bool {
    let Some(word) = text.split_whitespace().last() else { return false };
    let cases = word.bytes().any(|b| b.is_ascii_uppercase())
        && word.bytes().any(|b| b.is_ascii_lowercase());
    word.len() % 4 == 0 && cases && (word.ends_with('=') || mixed(word))
}

/// The password of a URL, unless it is plainly made up for an example.
fn url_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let Some((authority, _)) = rest.split_once('@') else { return false };
    authority.split_once(':').is_some_and(|(_, password)| !is_placeholder(password))
}

/// The value behind `=` or `:`.
fn assigned(text: &str) -> bool {
    let Some((_, value)) = text.split_once(['=', ':']) else { return false };
    looks_random(value.trim_start().trim_start_matches(['"', '\'', '\\']))
}

/// No sentence, no path, no name in a program: letters and digits (or signs) without a break.
fn looks_random(value: &str) -> bool {
    if is_placeholder(value) || value.contains(char::is_whitespace) || value.contains("::") {
        return false;
    }
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let letters = value.bytes().filter(u8::is_ascii_alphabetic).count();
    let path = value.starts_with(['/', '.', '~']) || value.contains("://");
    digits >= 2 && letters >= 2 && !path
}

/// What people write where a secret would stand.
fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let filler = value.bytes().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.' | b'-' | b'_'));
    filler
        || value.starts_with(['$', '<', '{', '%', '['])
        || ["your", "example", "changeme", "placeholder", "redacted", "password", "secret", "pass"]
            .iter()
            .any(|word| lower == *word || lower.starts_with(&format!("{word}_")))
        || lower.starts_with("your")
}
