//! Whether a candidate is a secret, or only looks like one.
//!
//! Never here: where a candidate begins and ends ([`super::scan`]), what a name says
//! ([`super::names`]). A judge sees a bounded text and says yes or no; a word with dashes, a
//! placeholder, a path, a class name and a call in a program are none.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::lexeme;

pub(super) fn always(_: &str) -> bool {
    true
}

/// Letters and digits both.
pub(super) fn mixed(text: &str) -> bool {
    let seen = Seen::of(text);
    seen.digits > 0 && seen.letters() > 0
}

/// Digits and letters of both cases, as no checksum has them.
pub(super) fn of_both_cases(text: &str) -> bool {
    let seen = Seen::of(text);
    seen.digits > 0 && seen.upper >= 4 && seen.lower >= 4
}

/// The last part of a URL's path is no word.
pub(super) fn last_part_mixed(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|part| part.len() >= 16 && mixed(part))
}

/// After the prefix, a run of letters and digits mixed that no word is; or many short ones, as in a
/// UUID, one of which is shuffled.
pub(super) fn random_run(text: &str) -> bool {
    let Some((_, tail)) = text.split_once('-') else { return false };
    let runs = || tail.split(['-', '_']);
    let seen = Seen::of(tail);
    runs().any(|run| run.len() >= 16 && mixed(run))
        || seen.digits >= 6
            && seen.digits + seen.letters() >= 20
            && runs().any(|run| run.len() >= 8 && is_interleaved(run))
}

/// What follows `bearer` is no word.
pub(super) fn bearer(text: &str) -> bool {
    text.get("bearer".len()..).is_some_and(|rest| secret_value(after_break(rest)))
}

/// What follows `basic` is base64 of `user:password`.
pub(super) fn basic(text: &str) -> bool {
    let Some(word) = text.get("basic".len()..).map(after_break) else { return false };
    let seen = Seen::of(word);
    let looks = seen.upper > 0 && seen.lower > 0 && (word.ends_with('=') || seen.digits > 0);
    word.len() % 4 == 0 && looks || is_user_and_password(word)
}

/// What follows the scheme in an `Authorization` header. Bearer and basic have shapes of their own.
pub(super) fn authorization(text: &str) -> bool {
    let mut words = text.split([' ', '\t', '=', ':', '"', '\'', '\\']).filter(|w| !w.is_empty());
    let scheme = words.nth(1).unwrap_or_default();
    let own = ["bearer", "basic"].iter().any(|own| scheme.eq_ignore_ascii_case(own));
    !own && text.split_whitespace().last().is_some_and(secret_value)
}

/// Base64 of a printable text with a colon in it.
pub(super) fn is_user_and_password(word: &str) -> bool {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&STANDARD, config).decode(word);
    word.len() >= 8
        && decoded.is_ok_and(|decoded| {
            let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
            decoded.iter().all(printable) && decoded.contains(&b':')
        })
}

/// What follows the first line of a key whose last line is missing: it has a line of key near.
pub(super) fn key_block(rest: &str) -> bool {
    let bytes = rest.as_bytes();
    let near = bytes.get(..1024).unwrap_or(bytes);
    near.split(|byte| !in_base64(*byte)).any(is_line_of_key)
}

/// A run of base64 as the lines of a key are.
pub(super) fn is_line_of_key(run: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| run.iter().any(is);
    let cases = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    run.len() >= 24 && cases && has(u8::is_ascii_digit)
}

pub(super) fn in_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// The password of a URL, unless it is plainly made up for an example, or the port of a host whose
/// path has an `@`.
pub(super) fn url_password(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let Some((user, rest)) = rest.split_once(':') else { return false };
    let first = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if let Some((password, _)) = first.rsplit_once('@') {
        return !is_placeholder(password);
    }
    // `git+ssh://git@host:owner/repo@v1`: the user has ended, what follows is a path.
    if user.contains('@') {
        return false;
    }
    let Some((password, _)) = rest.rsplit_once('@') else { return false };
    let port = first.len() <= 5 && first.bytes().all(|byte| byte.is_ascii_digit());
    // A slash at once is a password's or, behind a drive's letter, a file's.
    let made_up = if first.is_empty() { scheme == "file" } else { port || is_placeholder(first) };
    !made_up && !is_placeholder(password)
}

/// No sentence, no path, no name in a program: digits among letters, or letters of both cases
/// without the humps of a name.
pub(super) fn secret_value(value: &str) -> bool {
    let seen = Seen::of(value);
    let random = seen.digits >= 2 || value.len() >= 20 && seen.is_shuffled();
    seen.letters() >= 2 && random && !is_something_else(value)
}

/// What a person may have chosen. `sure`: it stands in quotes or is a member of JSON, so that it is
/// a text and no word of a program.
pub(super) fn password_value(value: &str, sure: bool) -> bool {
    let seen = Seen::of(value);
    if seen.letters() == 0 || value.len() < 6 || is_something_else(value) {
        return false;
    }
    seen.digits > 0 || has_sign(value, sure) || seen.is_shuffled() && value.len() >= 20
}

/// A password beside the host and the user of a connection: of any length. `word`: it may as well
/// be a name in a program.
pub(super) fn password_of_connection(value: &str, word: bool) -> bool {
    let seen = Seen::of(value);
    let words =
        ["none", "null", "nil", "true", "false", "undefined", "string", "str", "text", "pw"];
    let lower = value.to_ascii_lowercase();
    let made_up = words.contains(&lower.as_str())
        || seen.digits == 0 && ["pass", "pwd", "secret"].iter().any(|word| lower.contains(word));
    let chosen = seen.digits > 0 && seen.letters() > 0 || has_sign(value, true);
    !value.is_empty() && !is_something_else(value) && (chosen || !word && !made_up)
}

/// A sign among the letters, where it does not belong to a program: `$name`, `*name`, `Name!`.
fn has_sign(value: &str, sure: bool) -> bool {
    let signs: &[char] = if sure {
        &['!', '@', '#', '$', '%', '^', '*', '&', '+', '=', '~', '?']
    } else {
        &['!', '@', '#', '$', '^']
    };
    let inside = value.trim_start_matches(['$', '@', '%', '#', '?', '&', '*', '!']);
    let inside = if sure { inside } else { inside.trim_end_matches(['!', '?', '*']) };
    inside.contains(signs) && inside.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The letters and digits of a text, counted.
#[derive(Default)]
struct Seen {
    digits: usize,
    upper: usize,
    lower: usize,
    /// A small letter and then a large one: once a word in `CamelCase`, more often by chance.
    rises: usize,
}

impl Seen {
    fn of(text: &str) -> Seen {
        let mut seen = Seen::default();
        let mut after_lower = false;
        for byte in text.bytes() {
            seen.digits += usize::from(byte.is_ascii_digit());
            seen.upper += usize::from(byte.is_ascii_uppercase());
            seen.lower += usize::from(byte.is_ascii_lowercase());
            seen.rises += usize::from(after_lower && byte.is_ascii_uppercase());
            after_lower = byte.is_ascii_lowercase();
        }
        seen
    }

    fn letters(&self) -> usize {
        self.upper + self.lower
    }

    /// Letters of both cases as chance mixes them, and no words.
    fn is_shuffled(&self) -> bool {
        let share = if self.digits > 0 { 5 } else { 4 };
        self.upper.min(self.lower) * share >= self.letters() && self.rises * 8 >= self.letters()
    }
}

/// Letters, digits and letters again, or the other way round.
fn is_interleaved(text: &str) -> bool {
    let kinds = text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.is_ascii_digit());
    let mut changes = 0;
    let mut last = None;
    for digit in kinds {
        changes += usize::from(last.is_some_and(|last| last != digit));
        last = Some(digit);
    }
    changes >= 2
}

/// A placeholder, a sentence, a path, an address, a name in a program, a method by its name.
fn is_something_else(value: &str) -> bool {
    let program = [
        "self.",
        "this.",
        "os.",
        "process.",
        "config.",
        "settings.",
        "env.",
        "secrets.",
        "args.",
        "options.",
        "request.",
        "req.",
        "ctx.",
        "std.",
        "crate.",
        "vault.",
    ];
    let methods =
        ["argon2i", "argon2id", "pbkdf2", "sha256", "sha512", "base64", "aws4-hmac-sha256"];
    value.contains(char::is_whitespace)
        || value.starts_with("arn:")
        || value.contains("::")
        || value.contains("://")
        || is_path(value)
        || program.iter().any(|begin| value.starts_with(begin))
        || methods.iter().any(|method| value.eq_ignore_ascii_case(method))
        || lexeme::is_sized_type(value)
        || is_placeholder(value)
}

/// Base64 begins with a slash, too, and holds some: a path has a second part, and is short or made
/// of words.
fn is_path(value: &str) -> bool {
    if let [drive, b':', b'\\' | b'/', ..] = value.as_bytes() {
        return drive.is_ascii_alphabetic();
    }
    let Some(rest) = value.strip_prefix(['/', '.', '~']) else { return false };
    let random = |part: &str| {
        let seen = Seen::of(part);
        seen.digits > 0 && seen.upper > 0 && seen.lower > 0
    };
    rest.contains(['/', '.']) && (value.len() < 20 || !rest.split(['/', '.']).any(random))
}

/// What people write where a secret would stand.
pub(super) fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let filler = value.bytes().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.' | b'-' | b'_'));
    let digits = |rest: &str| rest.bytes().any(|byte| byte.is_ascii_digit());
    // A service may mark its secrets with such a word, and a person may begin with it.
    let marks = ["password", "secret", "pass"].iter().any(|word| {
        lower
            .strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_') && !digits(rest))
    });
    // The number of a word, as in `your_key_2`, is no digit of a secret.
    let word = |part: &str| !digits(part.trim_end_matches(|c: char| c.is_ascii_digit()));
    let words = |rest: &str| rest.split(['_', '-']).all(word);
    let examples = ["example", "changeme", "placeholder", "redacted", "dummy"].iter().any(|word| {
        lower
            .strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '-']) && words(rest))
    });
    filler
        || marks
        || examples
        || lower.strip_prefix("your").is_some_and(words)
        || is_variable(value.trim_end_matches('\\'))
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

/// What stands behind blanks and line breaks, written or escaped.
fn after_break(text: &str) -> &str {
    let mut text = text.trim_start();
    while let Some(rest) = after_escaped_break(text) {
        text = rest.trim_start();
    }
    text
}

/// The same, but an escaped line break is one only with blanks behind it: a value may begin so.
pub(super) fn after_break_with_blank(text: &str) -> &str {
    let text = text.trim_start();
    let mut rest = text;
    while let Some(after) = after_escaped_break(rest) {
        rest = after;
    }
    if rest.starts_with([' ', '\t']) { rest.trim_start() } else { text }
}

fn after_escaped_break(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('\\')?.trim_start_matches('\\');
    rest.strip_prefix(['n', 'r'])
}

/// A bot's token: an id in base64, and two parts that no names of a program are.
pub(super) fn discord(text: &str) -> bool {
    text.starts_with(['M', 'N', 'O'])
        && text.split('.').all(|part| Seen::of(part).letters() > 0)
        && {
            let seen = Seen::of(text);
            seen.digits >= 2 && seen.upper >= 4 && seen.lower >= 4
        }
}
