//! What is assigned to a name: `password=x`, `"token": "x"`, `--api-key x`, `<secret>x</secret>`.
//!
//! Never here: the name ([`super::names`]). A look says that there is a name and a value; here it is
//! asked whether the value is a secret, beside what stands around it, and where it ends: at its
//! closing quote, or where an unquoted value ends.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::judge;
use super::lexeme;
use super::scan::{before_quote, ceil, to_its_end};
use super::shapes::{Assigned, LOOK_BYTES};

/// How far around a short password its host and user are looked for, in bytes.
const NEAR_BYTES: usize = 160;
/// A quote that closes further away than that is another one.
const QUOTE_BYTES: usize = 256;

/// Where the value of this candidate ends, if it is a secret.
pub(super) fn ends(text: &str, start: usize, end: usize, whose: Assigned) -> Option<usize> {
    let candidate = text.get(start..end)?;
    let value = Value::of(candidate)?;
    let next = text.as_bytes().get(end).copied();
    // `token = lexer.next2token(`: a call. A password may hold such a sign.
    if value.quote.is_none() && next == Some(b'(') && value.text.contains('.') {
        return None;
    }
    // `PASS: TestFoo2`: what a test program says of a test.
    if value.quote.is_none() && candidate.starts_with("PASS:") {
        return None;
    }
    // `token:`, and in the next line a name with its own value.
    if value.quote.is_none() && value.text.ends_with(':') {
        return None;
    }
    let bare = value.text.trim_end_matches('\\');
    let is_secret = match whose {
        Assigned::Token => {
            let before = text.get(..start).unwrap_or_default();
            let of_parser = lexeme::is_lexeme(bare) && lexeme::said_of_token(before, candidate);
            judge::secret_value(bare) && !of_parser
        }
        Assigned::Password => {
            // `password: Text!` declares a name's type.
            let sure = value.quote.is_some();
            let word = !sure && matches!(next, Some(b',' | b')' | b'(' | b'[' | b'.'));
            judge::password_value(bare, sure)
                || value.is && judge::password_of_connection(bare, word) && {
                    let from = text.floor_char_boundary(start.saturating_sub(NEAR_BYTES));
                    let to = ceil(text, end.saturating_add(NEAR_BYTES));
                    near_a_user(text.get(from..start)?) || near_a_user(text.get(end..to)?)
                }
        }
    };
    if !is_secret {
        return None;
    }
    let end = if end - start >= LOOK_BYTES { to_its_end(text, end, in_value) } else { end };
    let end = match value.quote {
        Some(quote) => to_quote(text, end, quote),
        None => past_ampersands(text, end),
    };
    Some(before_quote(text, end))
}

struct Value<'t> {
    text: &'t str,
    quote: Option<u8>,
    /// Whether a `=` stands before it.
    is: bool,
}

impl<'t> Value<'t> {
    /// The value of a candidate: behind the sign of an assignment, the end of an element's name, or
    /// the blanks behind a flag.
    fn of(candidate: &'t str) -> Option<Value<'t>> {
        let mut is = false;
        let rest = if candidate.starts_with('<') {
            candidate.split_once('>')?.1
        } else if candidate.starts_with("--") {
            candidate.split_once([' ', '\t'])?.1
        } else if let Some(at) = netrc(candidate) {
            candidate.get(at..)?
        } else {
            let at = candidate.find(['=', ':'])?;
            is = candidate.as_bytes().get(at) == Some(&b'=');
            let rest = candidate.get(at + 1..)?;
            if !is && rest.starts_with(':') {
                return None;
            }
            judge::after_break_with_blank(rest.trim_start_matches(['=', '>']))
        };
        let rest = rest.trim_start();
        let bare = rest.trim_start_matches('\\');
        match bare.as_bytes().first() {
            Some(quote @ (b'"' | b'\'')) => {
                Some(Value { text: bare.get(1..)?, quote: Some(*quote), is })
            }
            _ => Some(Value { text: rest, quote: None, is }),
        }
    }
}

/// Where the password of a line in a `.netrc` begins.
fn netrc(candidate: &str) -> Option<usize> {
    let begin = candidate.get(.."login".len())?;
    let blanks = candidate.get("login".len()..)?.starts_with([' ', '\t']);
    let word = "password";
    let at = candidate.find(word).filter(|_| blanks && begin.eq_ignore_ascii_case("login"))?;
    Some(at + word.len())
}

fn in_value(byte: u8) -> bool {
    !byte.is_ascii_whitespace()
        && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b',' | b';' | b'&')
        && !matches!(byte, b'(' | b')' | b'{' | b'}' | b'[' | b']')
}

/// To the quote that closes the value, if there is one near in the same line.
fn to_quote(text: &str, from: usize, quote: u8) -> usize {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    let near = rest.get(..QUOTE_BYTES).unwrap_or(rest);
    let line = near.split(|byte| *byte == b'\n').next().unwrap_or(near);
    let close = line.iter().position(|byte| *byte == quote);
    close.map_or(from, |close| ceil(text, from + close))
}

/// Past each `&` that no `name=` follows: it is a sign of the password and parts no parameters.
fn past_ampersands(text: &str, from: usize) -> usize {
    let mut end = from;
    while text.as_bytes().get(end) == Some(&b'&') {
        let more = to_its_end(text, end + 1, in_value);
        let part = text.get(end + 1..more).unwrap_or_default();
        let parameter = part.find('=').is_some_and(|at| at > 0);
        if part.is_empty() || parameter {
            break;
        }
        end = more;
    }
    end
}

fn near_a_user(text: &str) -> bool {
    static USER: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?i-u)\b(?:host|server|uid|user(?:[ _]?id|[ _]?name)?|data source)[ ]?=").ok()
    });
    USER.as_ref().is_some_and(|user| user.is_match(text.as_bytes()))
}
