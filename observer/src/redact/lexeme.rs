//! Words of programs that stand where a secret might: what a compiler calls a token, and types with
//! a width in their names.
//!
//! Never here: a list of languages' words, a judgement of what stands in no program. Invariant: that
//! a parser speaks excuses only what is shaped like a name or a number of a program; whatever else
//! stands behind its `token:`, a key that it choked on say, is judged like everywhere.

/// How far back a parser's own words are looked for, in bytes.
const SAID_BYTES: usize = 96;

/// Whether the line up to here, where `token:` begins, is what a parser says. Of its words only those
/// that nobody says of a credential: a server calls one invalid, unknown, expected or found, too.
pub(super) fn said_by_parser(before: &str) -> bool {
    let from = before.floor_char_boundary(before.len().saturating_sub(SAID_BYTES));
    let near = before.get(from..).unwrap_or_default();
    let line = near.rsplit('\n').next().unwrap_or(near).to_ascii_lowercase();
    let of_token =
        ["unexpected", "near", "stray", "offending", "unterminated", "extraneous", "lookahead"];
    let of_parser =
        ["syntax error", "syntaxerror", "parse error", "parseerror", "parser error", "parsererror"];
    let last = line.trim_end_matches([' ', '\t']);
    let last = last.rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    // What a quote or a brace parts from those words is a member of its own.
    let same = |after: &str| !after.contains(['"', '{', '}']);
    of_token.contains(&last)
        || of_parser.iter().any(|words| line.rsplit_once(words).is_some_and(|(_, rest)| same(rest)))
}

/// Whether it is shaped like a name or a number in a program.
pub(super) fn is_lexeme(value: &str) -> bool {
    is_name(value) || is_number(value)
}

/// A name: its words are letters, its digits stand at their ends. Longer than names are, or with
/// digits between letters, it is none.
fn is_name(value: &str) -> bool {
    const BYTES_MAX: usize = 40;
    let bytes = value.trim_matches(|c: char| c.is_ascii_punctuation() && c != '_').as_bytes();
    let begins = bytes.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_');
    let ends = |pair: &[u8]| match pair {
        [digit, next] if digit.is_ascii_digit() => !next.is_ascii_lowercase(),
        _ => true,
    };
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let letters = bytes.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    begins
        && bytes.len() <= BYTES_MAX
        && bytes.iter().all(inside)
        && bytes.windows(2).all(ends)
        && words(bytes) * 3 <= letters + 2
}

/// How many words a name has: they part at what is no letter, and where a large one follows a small.
fn words(name: &[u8]) -> usize {
    let mut before = b'_';
    let begins = name.iter().filter(|byte| {
        let hump = byte.is_ascii_uppercase() && !before.is_ascii_uppercase();
        let begin = byte.is_ascii_alphabetic() && (hump || !before.is_ascii_alphabetic());
        before = **byte;
        begin
    });
    begins.count()
}

/// A number as programs write it: `0x7fff5694`, `1_000_000u64`, `4096ULL`. No longer than an address
/// is: 64 hexadecimal digits are a key.
fn is_number(value: &str) -> bool {
    let value = value.trim_matches(|c: char| c.is_ascii_punctuation());
    if let Some(digits) = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        return digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let suffix = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
    let width = suffix.trim_start_matches(['u', 'U', 'i', 'l', 'L', 'f', 'n']);
    suffix.len() < value.len() && suffix.len() <= 4 && width.bytes().all(|b| b.is_ascii_digit())
}

/// A type with its width in its name: `uint64_t`, `Float64Array`, `uint_least16_t`.
pub(super) fn is_sized_type(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let mut name = lower.trim_matches(|c: char| c.is_ascii_punctuation() && c != '_');
    for end in ["_t", "array", "clamped"] {
        name = name.strip_suffix(end).unwrap_or(name);
    }
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let width = name.get(base.len()..).unwrap_or_default();
    let bases = [
        "int",
        "uint",
        "int_fast",
        "uint_fast",
        "int_least",
        "uint_least",
        "__int",
        "__uint",
        "bigint",
        "biguint",
        "float",
        "_float",
        "bytes",
    ];
    bases.contains(&base) && matches!(width, "8" | "16" | "32" | "64" | "128" | "256" | "512")
}
