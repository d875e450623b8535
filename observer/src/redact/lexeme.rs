//! Words of programs that stand where a secret might: what a compiler calls a token, and types with
//! a width in their names.
//!
//! Never here: a list of languages' words, a judgement of what stands in no program. Invariants: that
//! a parser speaks excuses only what stands behind the word `token` and a colon, in the same line, and
//! is shaped like a name or a number of a program; whatever else stands there, a key that it choked on
//! say, is judged like everywhere. Of keys that chance made hardly one has such a shape, and a test
//! draws thousands of each alphabet.

/// How far back a parser's own words are looked for, in bytes.
const SAID_BYTES: usize = 96;

/// Whether this candidate is what a parser says of a token: `token:`, as a word of its own, behind
/// the words of one.
pub(super) fn said_of_token(before: &str, candidate: &str) -> bool {
    let own = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'_' && byte != b'-';
    let name = candidate.split_once(':').map(|(name, _)| name);
    let name = name.map(|name| name.trim_end_matches(['"', '\'', '\\', ' ', '\t']));
    name.is_some_and(|name| name.eq_ignore_ascii_case("token"))
        && before.bytes().next_back().is_none_or(own)
        && said_by_parser(before)
}

/// Whether the line up to here is what a parser says. Of its words only those that nobody says of a
/// credential: a server calls one invalid, unknown, expected or found, too.
fn said_by_parser(before: &str) -> bool {
    let from = before.floor_char_boundary(before.len().saturating_sub(SAID_BYTES));
    let line = last_line(before.get(from..).unwrap_or_default()).to_ascii_lowercase();
    let of_token =
        ["unexpected", "near", "stray", "offending", "unterminated", "extraneous", "lookahead"];
    let of_parser =
        ["syntax error", "syntaxerror", "parse error", "parseerror", "parser error", "parsererror"];
    let last = line.trim_end_matches([' ', '\t']);
    let last = last.rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    of_token.contains(&last)
        || of_parser
            .iter()
            .any(|words| line.rsplit_once(words).is_some_and(|(_, rest)| is_place(rest)))
}

/// What stands behind the last line break, which in a text inside of a text is written as an escape.
fn last_line(text: &str) -> &str {
    let line = text.rsplit(['\n', '\r']).next().unwrap_or(text);
    let escape = |pair: &[u8]| matches!(pair, [b'\\', b'n' | b'r']);
    let after = line.as_bytes().windows(2).rposition(escape).and_then(|at| line.get(at + 2..));
    after.unwrap_or(line)
}

/// Between a parser's words and `token:` it may say where, and nothing else: what it quotes there is
/// no text of its own.
fn is_place(rest: &str) -> bool {
    let mark = |c: char| matches!(c, ' ' | '\t' | ',' | '(' | ')');
    let place = |word: &str| {
        matches!(word, "at" | "line" | "column" | "near")
            || word.len() <= 7 && word.bytes().all(|byte| byte.is_ascii_digit())
    };
    rest.split(mark).filter(|word| !word.is_empty()).all(place)
}

/// Whether it is shaped like a name or a number in a program.
pub(super) fn is_lexeme(value: &str) -> bool {
    is_name(value) || is_number(value)
}

/// A name: its words are letters, small ones or in humps; those with a number are short and have it at
/// their end. So one in capitals with a number in it is none: it looks like a seed in base32 more than
/// like a constant; one without any number is asked about only if its cases are shuffled, as no name's are.
fn is_name(value: &str) -> bool {
    const BYTES_MAX: usize = 40;
    let name = value.trim_matches(|c: char| c.is_ascii_punctuation() && c != '_');
    let letters = name.bytes().filter(u8::is_ascii_alphabetic).count();
    name.len() <= BYTES_MAX
        && !name.bytes().next().is_none_or(|first| first.is_ascii_digit())
        && name.bytes().any(|byte| byte.is_ascii_digit())
        && name.split('_').all(is_part)
        && words(name.as_bytes()) * 3 <= letters + 2
}

/// Letters, and at most a few digits behind a few of them: nothing follows a digit.
fn is_part(part: &str) -> bool {
    const LETTERS_MAX: usize = 8;
    const DIGITS_MAX: usize = 4;
    let word = part.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = part.len() - word.len();
    let small = |next: Option<&u8>| next.is_some_and(u8::is_ascii_lowercase);
    let hump = |at: usize| small(word.as_bytes().get(at + 1)) && small(word.as_bytes().get(at + 2));
    let mut bytes = word.bytes().enumerate();
    bytes.all(|(at, byte)| byte.is_ascii_lowercase() || byte.is_ascii_uppercase() && hump(at))
        && (digits == 0 || digits <= DIGITS_MAX && word.len() <= LETTERS_MAX)
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
