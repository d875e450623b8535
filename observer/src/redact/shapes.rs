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
    /// [`LEAD`] stands before it unless it says otherwise; `NAMES` in it stands for [`NAMES`].
    pattern: &'static str,
    /// Whether a candidate is one.
    judge: fn(&str) -> bool,
    reach: Reach,
}

/// How far a secret goes beyond the look that found it.
enum Reach {
    /// If the look was cut by its bound, as long as there are such bytes.
    While(fn(u8) -> bool),
    /// From the first line of a key to its last, or to the end of the text.
    KeyBlock,
    /// To the end of a URL; its password ends at the last `@`.
    Url,
}

/// A candidate of this length may have been cut by the bound of its shape.
const LOOK_BYTES: usize = 256;

/// What a secret may stand right behind: the edge of a word, an escape that nobody has decoded, a
/// colour code as terminals have it. It stays where the secret is replaced.
const LEAD: &str = r"(?:\b|\\[bfnrtv0]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|%[0-9A-Fa-f]{2}|(?:\x1b|\\(?:[uU]001[bB]|x1[bB]|033|e))\[[0-9;]*[A-Za-z])";

const fn shape(marker: &'static str, pattern: &'static str, judge: fn(&str) -> bool) -> Shape {
    Shape { marker, pattern, judge, reach: Reach::While(in_token) }
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

/// How a name ends whose value is a secret, in a member of JSON and in an assignment. Where a bar is
/// there may be a dash or an underscore.
const NAMES: [&str; 14] = [
    "account|key",
    "shared|access|key",
    "shared|access|signature",
    "api|key",
    "access|key",
    "secret|key",
    "private|key",
    "client|secret",
    "secret",
    "token",
    "passwd",
    "password",
    "passphrase",
    "pwd",
];

/// The longest shapes first: of two that begin at one place the earlier row is taken.
static SHAPES: [Shape; 12] = [
    // Its first line; what is in it may be anything, so its end is looked for where this is found.
    Shape {
        marker: PRIVATE_KEY,
        pattern: r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----",
        judge: key_block,
        reach: Reach::KeyBlock,
    },
    shape(API_KEY, r"AGE-SECRET-KEY-1[0-9A-Z]{58}", always),
    // Services that mark their keys with a prefix.
    shape(
        API_KEY,
        r"(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22}|xox[abeoprs]-[A-Za-z0-9-]{10}|xapp-[0-9]-[A-Z0-9]{5}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20}|GOCSPX-[A-Za-z0-9_-]{20}|glpat-[A-Za-z0-9_-]{20}|[sr]k_(?:live|test)_[A-Za-z0-9]{16}|whsec_[A-Za-z0-9+/]{24}|npm_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30}|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}|pypi-[A-Za-z0-9_-]{50}|gsk_[A-Za-z0-9]{40}|xai-[A-Za-z0-9]{40}|pplx-[A-Za-z0-9]{40}|do[oprt]_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|r8_[A-Za-z0-9]{37}|lin_api_[A-Za-z0-9]{40}|ntn_[A-Za-z0-9]{40}|sq0(?:atp|csp)-[A-Za-z0-9_-]{22}|EAAC[A-Za-z0-9]{30})[A-Za-z0-9_.+/-]{0,256}=*",
        mixed,
    ),
    shape(API_KEY, r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", mixed),
    shape(API_KEY, r"(?:SK|AC|key-)[0-9a-f]{32}\b", mixed),
    shape(API_KEY, r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}", always),
    shape(API_KEY, r"sk-[A-Za-z0-9_-]{20,256}", random_run),
    // What goes into an Authorization header.
    shape(BEARER, r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", always),
    shape(BEARER, r"(?i:bearer)[ \t]+[A-Za-z0-9_.~+/-]{16,256}=*", credential),
    shape(BEARER, r"(?i:basic)[ \t]+[A-Za-z0-9+/]{12,256}={0,2}", basic),
    // A password inside a URL; it may hold a slash, so its end is looked for where this is found.
    Shape {
        marker: CONNECTION,
        pattern: r#"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/?#@"'<>\[\]]{0,256}:[^\s"'<>@]"#,
        judge: url_password,
        reach: Reach::Url,
    },
    // Also as a member of JSON that stands in a string, its quotes escaped once more or not.
    Shape {
        marker: ASSIGNED,
        pattern: r#"(?i:NAMES)(?:\\{0,7}["'])?[ \t]*[=:][ \t]*(?:\\{0,7}["'])?[^\s"',;&<>(){}\[\]]{8,256}"#,
        judge: assigned,
        reach: Reach::While(in_value),
    },
];

impl Shape {
    fn pattern(&self) -> String {
        let names = NAMES.map(|name| name.replace('|', "[_-]?")).join("|");
        self.pattern.replace("NAMES", &names)
    }

    /// Whether it may begin anywhere, also inside of a word.
    fn anywhere(&self) -> bool {
        matches!(self.marker, PRIVATE_KEY | ASSIGNED)
    }
}

/// All shapes as one expression. Bytes and no Unicode classes: one automaton and no second pass.
static ANY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let of = |anywhere: bool| {
        let shapes = SHAPES.iter().filter(|shape| shape.anywhere() == anywhere);
        shapes.map(Shape::pattern).collect::<Vec<_>>().join("|")
    };
    Regex::new(&format!("(?-u){LEAD}(?:{})|{}", of(false), of(true))).ok()
});

/// Each shape alone, to tell which one a candidate is.
static EACH: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
    let alone = |shape: &Shape| Regex::new(&format!("(?-u)^(?:{})", shape.pattern())).ok();
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
    let mut key_end = KeyEnd::default();
    while let Some(found) = any.find_at(text.as_bytes(), at) {
        let (start, end) = (text.floor_char_boundary(found.start()), ceil(text, found.end()));
        let start = start + text.get(start..end).map_or(0, lead_bytes);
        match secret(text, start, end, &mut key_end) {
            Some((marker, end)) => {
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

/// How much of a candidate is the [`LEAD`]: no secret of a shape begins as one of them does.
fn lead_bytes(candidate: &str) -> usize {
    let bytes = candidate.as_bytes();
    let color = |from: usize| {
        let rest = bytes.get(from..).filter(|rest| rest.first() == Some(&b'['))?;
        Some(from + rest.iter().position(u8::is_ascii_alphabetic)? + 1)
    };
    let (escape, colored) = match bytes {
        [0x1b, ..] => (1, true),
        [b'\\', b'u' | b'U', code @ ..] => (6, code.get(..4).is_some_and(is_esc)),
        [b'\\', b'x', code @ ..] => (4, code.get(..2).is_some_and(is_esc)),
        [b'\\', b'0', b'3', b'3', b'[', ..] => (4, true),
        [b'\\', b'e', ..] => (2, true),
        [b'\\', ..] => (2, false),
        [b'%', ..] => (3, false),
        _ => (0, false),
    };
    color(escape).filter(|_| colored).unwrap_or(escape)
}

/// Whether these hexadecimal digits are the character that begins a colour code.
fn is_esc(digits: &[u8]) -> bool {
    digits.to_ascii_lowercase().ends_with(b"1b")
}

/// The marker of the candidate's shape and where the secret ends, if it is one.
fn secret(
    text: &str,
    start: usize,
    end: usize,
    key_end: &mut KeyEnd,
) -> Option<(&'static str, usize)> {
    let candidate = text.get(start..end)?;
    SHAPES.iter().zip(EACH.iter()).find_map(|(shape, alone)| {
        let found = alone.as_ref()?.find(candidate.as_bytes())?;
        if found.end() != candidate.len() {
            return None;
        }
        match shape.reach {
            Reach::While(more) => (shape.judge)(candidate).then(|| {
                let cut = end - start >= LOOK_BYTES;
                let end = if cut { to_its_end(text, end, more) } else { end };
                (shape.marker, before_quote(text, end))
            }),
            Reach::KeyBlock => {
                let (whole, closed) = key_end.after(text, end);
                let long = whole - start >= KEY_BYTES_MIN;
                let is_one = long && (closed || (shape.judge)(text.get(end..whole)?));
                is_one.then_some((shape.marker, whole))
            }
            Reach::Url => (shape.judge)(text.get(start..to_next_url(text, end))?)
                .then(|| (shape.marker, to_its_end(text, end, in_url))),
        }
    })
}

/// The same end without the backslashes of an escaped quote behind it: they stay with the quote.
fn before_quote(text: &str, end: usize) -> usize {
    let (before, after) = text.as_bytes().split_at_checked(end).unwrap_or_default();
    let slashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
    if after.first() == Some(&b'"') { end - slashes } else { end }
}

/// Where a URL ends or the next one has its `://`, so that no byte is looked at for two of them.
fn to_next_url(text: &str, from: usize) -> usize {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    let same = |at: &usize| !rest.get(*at..).is_some_and(|rest| rest.starts_with(b"://"));
    let length = rest.iter().enumerate().take_while(|(at, byte)| in_url(**byte) && same(at));
    ceil(text, from + length.count())
}

/// Where a secret ends that was cut by the bound of the look.
fn to_its_end(text: &str, from: usize, more: fn(u8) -> bool) -> usize {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    let more = rest.iter().take_while(|byte| more(**byte)).count();
    ceil(text, from + more)
}

/// Less than that is the word of a key and no key.
const KEY_BYTES_MIN: usize = 80;

/// Where the next last line of a key ends, and whether there is one. It is looked for once, however
/// many first lines there are before it.
#[derive(Default)]
struct KeyEnd(Option<(usize, bool)>);

impl KeyEnd {
    fn after(&mut self, text: &str, from: usize) -> (usize, bool) {
        if let Some(known) = self.0.filter(|known| known.0 > from) {
            return known;
        }
        let found = LAST_LINE.as_ref().and_then(|line| line.find_at(text.as_bytes(), from));
        let end = found.map_or((text.len(), false), |found| (ceil(text, found.end()), true));
        self.0 = Some(end);
        end
    }
}

static LAST_LINE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("(?-u)-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----").ok()
});

/// Whether a member of this name, quotes included or not, holds a secret by what it is called.
pub(super) fn is_secret_name(name: &str) -> bool {
    NAMES.iter().any(|end| {
        let bytes = name.bytes().rev().filter(u8::is_ascii_alphanumeric);
        let mut bytes = bytes.map(|byte| byte.to_ascii_lowercase());
        let mut end = end.bytes().rev().filter(|byte| *byte != b'|');
        end.all(|byte| bytes.next() == Some(byte))
    })
}

/// Whether the value of a member of this name is a secret: not a sentence, not a placeholder.
pub(super) fn is_named_secret(name: &str, value: &str) -> bool {
    value.len() >= 8 && is_secret_name(name) && looks_random(value)
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

/// What follows the first line of a key whose last line is missing: it has a line of key near.
fn key_block(rest: &str) -> bool {
    let bytes = rest.as_bytes();
    let near = bytes.get(..1024).unwrap_or(bytes);
    let mut runs = near.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/'));
    runs.any(|run| {
        let has = |is: fn(&u8) -> bool| run.iter().any(is);
        let cases = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
        run.len() >= 24 && cases && has(u8::is_ascii_digit)
    })
}

/// The password of a URL, unless it is plainly made up for an example, or the port of a host whose
/// path has an `@`.
fn url_password(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let Some((_, rest)) = rest.split_once(':') else { return false };
    let first = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if let Some((password, _)) = first.rsplit_once('@') {
        return !is_placeholder(password);
    }
    let Some((password, _)) = rest.rsplit_once('@') else { return false };
    let port = first.len() <= 5 && first.bytes().all(|byte| byte.is_ascii_digit());
    // A slash at once is a password's or, behind a drive's letter, a file's.
    let made_up = if first.is_empty() { scheme == "file" } else { port || is_placeholder(first) };
    !made_up && !is_placeholder(password)
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
    digits >= 2 && letters >= 2 && !is_path(value) && !value.contains("://")
}

/// Base64 begins with a slash, too, and holds some: a path has a second part, and is short or made
/// of words.
fn is_path(value: &str) -> bool {
    let Some(rest) = value.strip_prefix(['/', '.', '~']) else { return false };
    let random = |part: &str| {
        let has = |is: fn(&u8) -> bool| part.as_bytes().iter().any(is);
        has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
    };
    rest.contains(['/', '.']) && (value.len() < 20 || !rest.split(['/', '.']).any(random))
}

/// What people write where a secret would stand.
fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let filler = value.bytes().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.' | b'-' | b'_'));
    filler
        || is_variable(value.trim_end_matches('\\'))
        || ["your", "example", "changeme", "placeholder", "redacted", "password", "secret", "pass"]
            .iter()
            .any(|word| lower == *word || lower.starts_with(&format!("{word}_")))
        || lower.starts_with("your")
}

/// What a program or a reader fills in. It must close: secrets begin with such signs, too.
fn is_variable(value: &str) -> bool {
    let closes = [("${", "}"), ("$(", ")"), ("<", ">"), ("{", "}"), ("[", "]"), ("%(", ")s")];
    let shell = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let percent = value.strip_prefix('%');
    closes.iter().any(|(open, close)| value.starts_with(open) && value.ends_with(close))
        || value.strip_prefix('$').is_some_and(|name| name.bytes().all(shell))
        || percent.is_some_and(|rest| rest.len() < 2 || rest.ends_with('%'))
}
