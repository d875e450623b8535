//! The built-in shapes of secrets: the table.
//!
//! Never here: JSON, a search ([`super::scan`]), a judgement ([`super::judge`]). Each row says how a
//! candidate looks, who judges it, and how far the secret goes beyond the look. A look is bounded
//! (256 bytes of an open-ended part), because what begins inside of a rejected candidate is looked
//! at again; what is replaced goes on to the secret's end.
//! Invariant: the marker names the shape and holds nothing of the secret.

use super::{judge, names, vendors};

/// What stands for a value whose member's name says that it is a secret.
pub(super) const NAMED: &str = "[redacted:named-secret]";

pub(super) struct Shape {
    pub(super) marker: &'static str,
    /// `VENDORS`, `PASSWORD`, `TOKEN`, `IS`, `QUOTE` and `BREAK` in it stand for expressions.
    pattern: &'static str,
    /// Whether a candidate is one.
    pub(super) judge: fn(&str) -> bool,
    pub(super) reach: Reach,
}

/// How far a secret goes beyond the look that found it.
pub(super) enum Reach {
    /// If the look was cut by its bound, as long as there are such bytes.
    While(fn(u8) -> bool),
    /// As far back as there are such bytes, so many at least and at most. The look is the mark in
    /// the middle of a key that has none at its beginning.
    Back(fn(u8) -> bool, usize, usize),
    /// So many bytes at the end of the look: what stands before them is the mark of a key that has none
    /// itself.
    Last(usize),
    /// From the first line of a key to its last, or to the end of the text.
    KeyBlock,
    /// To the end of a URL; its password ends at the last `@`.
    Url,
    /// All parts of a JWT.
    Jwt,
    /// What is assigned: to its quote, or as long as there is a value.
    Assigned(Assigned),
}

/// Whose value it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Assigned {
    Password,
    Token,
}

/// A candidate of this length may have been cut by the bound of its shape.
pub(super) const LOOK_BYTES: usize = 256;

/// What a secret may stand right behind: the edge of a word, an escape that nobody has decoded, a
/// colour code as terminals have it. It stays where the secret is replaced.
pub(super) const LEAD: &str = r"(?:\b|\\[bfnrtv0]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|%[0-9A-Fa-f]{2}|(?:\x1b|\\(?:[uU]001[bB]|x1[bB]|033|e))\[[0-9;]*[A-Za-z])";

const fn shape(marker: &'static str, pattern: &'static str, judge: fn(&str) -> bool) -> Shape {
    Shape { marker, pattern, judge, reach: Reach::While(in_token) }
}

/// A key with its mark in the middle, behind `least` to `most` such bytes.
const fn marked(
    pattern: &'static str,
    before: fn(u8) -> bool,
    least: usize,
    most: usize,
    judge: fn(&str) -> bool,
) -> Shape {
    Shape { marker: API_KEY, pattern, judge, reach: Reach::Back(before, least, most) }
}

const fn assigned(whose: Assigned, pattern: &'static str) -> Shape {
    let reach = Reach::Assigned(whose);
    Shape { marker: ASSIGNED, pattern, judge: judge::always, reach }
}

pub(super) fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'~' | b'+' | b'/' | b'-' | b'=')
}

fn in_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn in_azure(byte: u8) -> bool {
    in_id(byte) || matches!(byte, b'.' | b'~')
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

const API_KEY: &str = "[redacted:api-key]";
const BEARER: &str = "[redacted:bearer-token]";
pub(super) const PRIVATE_KEY: &str = "[redacted:private-key]";
const CONNECTION: &str = "[redacted:connection-string]";
const ASSIGNED: &str = "[redacted:assigned-secret]";

/// The first line of a private key; of PuTTY's the line that counts those that follow.
pub(super) const KEY_BEGIN: &str =
    r"(?:-{4,5} ?BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)? ?-{4,5}|Private-Lines: [0-9])";
/// Its last line.
pub(super) const KEY_END: &str = r"(?:-{4,5} ?END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)? ?-{4,5}|Private-(?:MAC|Hash): [0-9a-f]{0,64})";

/// The longest shapes first: of two that begin at one place the earlier row is taken.
pub(super) static SHAPES: [Shape; 26] = [
    // Its first line; what is in it may be anything, so its end is looked for where this is found.
    Shape {
        marker: PRIVATE_KEY,
        pattern: KEY_BEGIN,
        judge: judge::key_block,
        reach: Reach::KeyBlock,
    },
    shape(API_KEY, r"AGE-SECRET-KEY-1[0-9A-Z]{58}", judge::always),
    shape(API_KEY, r"(?:VENDORS)[A-Za-z0-9_.+/-]{0,256}=*", judge::mixed),
    shape(API_KEY, r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", judge::mixed),
    shape(API_KEY, r"(?:SK|AC|key-)[0-9a-f]{32}\b", judge::mixed),
    shape(API_KEY, r"[0-9]{8,10}:A[A-Za-z0-9_-]{34}", judge::always),
    shape(API_KEY, r"(?:sk|pa)-[A-Za-z0-9_-]{20,256}", judge::random_run),
    shape(API_KEY, r"ops_eyJ[A-Za-z0-9+/]{50,256}", judge::always),
    // Cohere's keys have no mark, and alone they look like any id; its name stands beside them.
    Shape {
        marker: API_KEY,
        pattern: r#"(?i:cohere)[^\r\n]{0,32}[ \t"'(\[:=,>\\][A-Za-z0-9]{40}\b"#,
        judge: judge::of_both_cases,
        reach: Reach::Last(40),
    },
    // A URL that is a secret, and the signature of one.
    shape(
        API_KEY,
        r"(?:hooks\.slack\.com/(?:services|workflows|triggers)|discord(?:app)?\.com/api/webhooks|webhook\.office\.com/webhookb2)/[A-Za-z0-9@/_-]{20,256}",
        judge::last_part_mixed,
    ),
    shape(API_KEY, r"sig=[A-Za-z0-9%+/_-]{30,256}=*", judge::mixed),
    shape(API_KEY, r"X-(?:Amz|Goog)-Signature=[0-9a-f]{40,256}", judge::mixed),
    // What goes into an Authorization header.
    Shape {
        marker: BEARER,
        pattern: r"eyJ[A-Za-z0-9_-]{8}",
        judge: judge::always,
        reach: Reach::Jwt,
    },
    shape(
        BEARER,
        r"(?i:bearer)(?:[ \t]+|[ \t]*BREAK[ \t]*)[A-Za-z0-9_.~+/-]{16,256}=*",
        judge::bearer,
    ),
    shape(
        BEARER,
        r"(?i:basic)(?:[ \t]+|[ \t]*BREAK[ \t]*)[A-Za-z0-9+/]{10,256}={0,2}",
        judge::basic,
    ),
    shape(
        BEARER,
        r"(?i:authorization)QUOTE?[ \t]*[=:][ \t]*QUOTE?[A-Za-z][A-Za-z0-9-]{1,20}[ \t]+[A-Za-z0-9_.~+/:-]{8,256}=*",
        judge::authorization,
    ),
    // A password inside a URL; it may hold a slash, so its end is looked for where this is found.
    Shape {
        marker: CONNECTION,
        pattern: r#"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/?#"'<>\[\]]{0,256}:[^\s"'<>@]"#,
        judge: judge::url_password,
        reach: Reach::Url,
    },
    // From here on without a lead: they may begin anywhere. First keys with a mark in the middle.
    marked(r"\.atlasv1\.[A-Za-z0-9_=-]{40,256}", alphanumeric, 8, 20, judge::always),
    marked(r"[0-9]Q~[A-Za-z0-9_~.-]{31,40}", in_azure, 3, 3, judge::always),
    marked(r"JQQJ99[A-Z][A-Za-z0-9]{10,40}", alphanumeric, 30, 60, judge::always),
    marked(r"AZDO[A-Za-z0-9]{4}\b", alphanumeric, 50, 80, judge::mixed),
    marked(r"NRAL\b", hex, 36, 36, judge::mixed),
    marked(r"-us[0-9]{1,2}\b", hex, 32, 32, judge::mixed),
    marked(r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}", in_id, 23, 28, judge::discord),
    // Also as a member of JSON that stands in a string, its quotes escaped once more or not.
    assigned(
        Assigned::Password,
        r#"(?:PASSWORDIS|--[a-z0-9-]{0,30}PASSWORD[ \t]+|<[A-Za-z0-9:._-]{0,30}PASSWORD>|\b(?i:login)[ \t]+[^\s"']{1,64}[ \t]+password[ \t]+)(?:QUOTE[^\s"'<>]{1,256}|[^\s"',;&<>(){}\[\]]{1,256})"#,
    ),
    assigned(
        Assigned::Token,
        r#"(?:TOKENIS|--[a-z0-9-]{0,30}TOKEN[ \t]+|<[A-Za-z0-9:._-]{0,30}TOKEN>)(?:QUOTE[^\s"'<>]{8,256}|[^\s"',;&<>(){}\[\]]{8,256})"#,
    ),
];

impl Shape {
    pub(super) fn pattern(&self) -> String {
        let (passwords, tokens) = names::expressions();
        let new_line = r"(?:\r?\n|(?:\\{1,7}r)?\\{1,7}n)";
        let is = format!(r"QUOTE?[ \t]*(?:=>|={{1,3}}|:=?)(?:[ \t]*{new_line}[ \t]+|[ \t]*)");
        let pattern = self.pattern.replace("VENDORS", &vendors::PREFIXED.join("|"));
        let pattern = pattern.replace("PASSWORDIS", &format!("{passwords}{is}"));
        let pattern = pattern.replace("TOKENIS", &format!("{tokens}{is}"));
        let pattern = pattern.replace("PASSWORD", &passwords).replace("TOKEN", &tokens);
        pattern.replace("QUOTE", r#"(?:\\{0,7}["'])"#).replace("BREAK", new_line)
    }

    /// Whether it may begin anywhere, also inside of a word.
    pub(super) fn anywhere(&self) -> bool {
        matches!(self.reach, Reach::KeyBlock | Reach::Back(..) | Reach::Assigned(_))
    }
}
