//! Finding secrets in a text: one expression finds candidates in one pass; each is then judged by
//! its shape's own rule, so that a word with dashes, a placeholder or a commit hash stays.
//!
//! Never here: JSON, the table ([`super::shapes`]). Invariants: no byte is looked at more than a
//! bounded number of times, whatever the text; a cut never parts a character.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::assigned;
use super::judge;
use super::shapes::{KEY_END, LEAD, LOOK_BYTES, Reach, SHAPES, Shape, in_token};

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
    let mut scan = Scan { text, kept: 0, out: None, key_end: KeyEnd::default(), run_end: 0 };
    let mut at = 0;
    while let Some((start, end)) = scan.candidate(any, at) {
        at = match scan.secret(start, end) {
            Some(secret) => {
                let secret = scan.between(any, start, secret);
                scan.replace(&secret)
            }
            // Not one: what begins inside of it may be.
            None => ceil(text, start + 1),
        };
    }
    let mut out = scan.out?;
    out.push_str(text.get(scan.kept..).unwrap_or_default());
    Some(out)
}

pub(super) fn ceil(text: &str, at: usize) -> usize {
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

struct Secret {
    marker: &'static str,
    start: usize,
    end: usize,
}

/// One pass over a text, with what it need not find twice.
struct Scan<'t> {
    text: &'t str,
    /// What is before it has been written.
    kept: usize,
    /// What has been written, once there is a secret.
    out: Option<String>,
    key_end: KeyEnd,
    /// Where the run of letters, digits and dashes ends that was looked at last.
    run_end: usize,
}

impl Scan<'_> {
    /// The next candidate from here on, without its lead.
    fn candidate(&self, any: &Regex, at: usize) -> Option<(usize, usize)> {
        let text = self.text;
        let found = any.find_at(text.as_bytes(), at).filter(|_| at < text.len())?;
        let (start, end) = (text.floor_char_boundary(found.start()), ceil(text, found.end()));
        Some((start + text.get(start..end).map_or(0, lead_bytes), end))
    }

    /// Writes the marker and what stands before it; where the secret ends.
    fn replace(&mut self, secret: &Secret) -> usize {
        let out = self.out.get_or_insert_default();
        out.push_str(self.text.get(self.kept..secret.start).unwrap_or_default());
        out.push_str(secret.marker);
        self.kept = secret.end;
        secret.end
    }

    /// Replaces what stands between a mark, from here on, and the secret that it is the mark of. What
    /// runs into that is one with it. The look bounds the stretch, so few bytes are looked at twice.
    fn between(&mut self, any: &Regex, mark: usize, secret: Secret) -> Secret {
        let mut at = ceil(self.text, mark + 1);
        while at < secret.start {
            let Some((start, end)) = self.candidate(any, at) else { break };
            if start >= secret.start {
                break;
            }
            at = match self.secret(start, end).filter(|other| other.start < secret.start) {
                Some(other) if other.end > secret.start => {
                    return Secret { end: other.end.max(secret.end), ..other };
                }
                Some(other) => self.replace(&other),
                None => ceil(self.text, start + 1),
            };
        }
        secret
    }

    /// The secret that the candidate is the look of, if it is one.
    fn secret(&mut self, start: usize, end: usize) -> Option<Secret> {
        let candidate = self.text.get(start..end)?;
        SHAPES.iter().zip(EACH.iter()).find_map(|(shape, alone)| {
            let found = alone.as_ref()?.find(candidate.as_bytes())?;
            // A look may end inside of a character, as the candidate's did before it was rounded.
            let whole = ceil(candidate, found.end()) == candidate.len();
            let (start, end) = whole.then(|| self.reach(shape, start, end)).flatten()?;
            Some(Secret { marker: shape.marker, start, end })
        })
    }

    /// From where to where a candidate of this shape is a secret.
    fn reach(&mut self, shape: &Shape, start: usize, end: usize) -> Option<(usize, usize)> {
        let text = self.text;
        let candidate = text.get(start..end)?;
        let cut = end - start >= LOOK_BYTES;
        match shape.reach {
            Reach::While(more) => (shape.judge)(candidate).then(|| {
                let end = if cut { to_its_end(text, end, more) } else { end };
                (start, before_quote(text, end))
            }),
            Reach::Back(before, least, most) => {
                let bytes = text.as_bytes().get(self.kept..start)?;
                let back = bytes.iter().rev().take(most).take_while(|byte| before(**byte)).count();
                let start = start - back;
                let is_one = back >= least && (shape.judge)(text.get(start..end)?);
                let end = if cut { to_its_end(text, end, in_token) } else { end };
                is_one.then_some((start, end))
            }
            Reach::Last(bytes) => {
                let start = end.checked_sub(bytes).filter(|at| *at >= start)?;
                (shape.judge)(text.get(start..end)?).then_some((start, end))
            }
            Reach::KeyBlock => {
                let (whole, closed) = self.key_end.after(text, end);
                let long = whole - start >= KEY_BYTES_MIN;
                let is_one = long && (closed || (shape.judge)(text.get(end..whole)?));
                is_one.then_some((start, whole))
            }
            Reach::Url => (shape.judge)(text.get(start..to_next_url(text, end))?)
                .then(|| (start, to_its_end(text, end, in_url))),
            Reach::Jwt => Some((start, self.jwt(end)?)),
            Reach::Assigned(whose) => Some((start, assigned::ends(text, start, end, whose)?)),
        }
    }

    /// Where a JWT ends whose header goes on at this place: three parts, or five if encrypted.
    fn jwt(&mut self, from: usize) -> Option<usize> {
        // Where there is no point, there is none for what begins later in the same run.
        if self.run_end < from {
            self.run_end = to_its_end(self.text, from, in_part);
        }
        let mut end = self.run_end;
        for part in 0..4 {
            let next = (self.text.as_bytes().get(end) == Some(&b'.')).then_some(end + 1);
            let next_end = next.map_or(end, |next| to_its_end(self.text, next, in_part));
            match next {
                Some(next) if next_end > next && (part > 0 || next_end - next >= 8) => {
                    end = next_end;
                }
                _ if part == 0 => return None,
                _ => break,
            }
        }
        Some(end)
    }
}

fn in_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn in_url(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b'<' | b'>')
}

/// The same end without the backslashes of an escaped quote behind it: they stay with the quote.
pub(super) fn before_quote(text: &str, end: usize) -> usize {
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
pub(super) fn to_its_end(text: &str, from: usize, more: fn(u8) -> bool) -> usize {
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

static LAST_LINE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!("(?-u){KEY_END}")).ok());

/// A key whose lines are strings of their own, in a list as a tool returns a file: each looked at
/// alone is a run of base64 and no key.
#[derive(Default)]
pub(super) struct KeyLines {
    /// How many lines there were since the first, if there was a first and no last.
    open: Option<usize>,
}

impl KeyLines {
    /// What the next string is replaced by, if it is a line of a key that has begun before it.
    pub(super) fn next(&mut self, text: &str) -> Option<&'static str> {
        let line = self.line(text);
        if line.is_none() {
            self.note(text);
        }
        line
    }

    fn line(&mut self, text: &str) -> Option<&'static str> {
        let lines = self.open.take()?;
        if is_last_line(text) {
            return None;
        }
        let word = text.split_whitespace().next_back().unwrap_or_default().as_bytes();
        let word = word.strip_suffix(b"==").or_else(|| word.strip_suffix(b"=")).unwrap_or(word);
        let base64 = word.iter().all(|byte| judge::in_base64(*byte));
        let header = text.contains(": ") && lines < 4;
        let is_line = judge::is_line_of_key(word) || lines > 0 && base64 || header;
        if !is_line && !text.trim().is_empty() {
            return None;
        }
        self.open = Some(lines + usize::from(is_line && !header));
        (is_line && !header).then_some(super::shapes::PRIVATE_KEY)
    }

    /// Notes a first line that has no last line in the same string.
    fn note(&mut self, text: &str) {
        // Most texts hold no key, and are not searched for one.
        let may = text.contains("PRIVATE KEY") || text.contains("Private-Lines");
        let Some(first) = FIRST_LINE
            .as_ref()
            .and_then(|line| may.then(|| line.find_iter(text.as_bytes()).last())?)
        else {
            return;
        };
        let rest = text.get(ceil(text, first.end())..).unwrap_or_default();
        if !is_last_line(rest) {
            self.open = Some(0);
        }
    }
}

fn is_last_line(text: &str) -> bool {
    LAST_LINE.as_ref().is_some_and(|line| line.is_match(text.as_bytes()))
}

static FIRST_LINE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!("(?-u){}", super::shapes::KEY_BEGIN)).ok());
