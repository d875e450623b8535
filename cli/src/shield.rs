//! What stands between a terminal and bytes that come from anywhere.
//!
//! Every line for people is escaped where it is made ([`crate::escape`]); this is the second door, for
//! what is printed as it is stored (`export`, `registry export`) and for what somebody forgot. Never
//! here: a change of what goes to a pipe or a file. Invariant: of control sequences a terminal gets
//! the colours of [`crate::out`] and no others, and a cut character stays cut. Next room:
//! [`crate::out`].

use std::io::{self, Write};

use crate::escape::{is_obeyed, push_escaped, push_escaped_json};

/// The colours that [`crate::out::Out::toned`] uses, and their end.
const COLOURS: [&str; 4] = ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"];

/// A text for a terminal: lines, tabs and our own colours as they are, all else escaped.
pub(crate) fn shielded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(colour) = COLOURS.iter().find(|colour| rest.starts_with(**colour)) {
            out.push_str(colour);
            rest = &rest[colour.len()..];
            continue;
        }
        match c {
            '\n' | '\t' => out.push(c),
            c => push_escaped(c, &mut out),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// A writer in front of a terminal.
pub(crate) struct Shield<W> {
    to: W,
    /// Whether it is JSON, which has escapes of its own; else lines of text.
    json: bool,
    /// The beginning of a character whose rest has not come.
    held: Vec<u8>,
}

impl<W: Write> Shield<W> {
    pub(crate) fn new(to: W, json: bool) -> Shield<W> {
        Shield { to, json, held: Vec::new() }
    }

    fn pass(&self, text: &str, out: &mut String) {
        for c in text.chars() {
            match c {
                '\n' => out.push(c),
                '\t' if !self.json => out.push(c),
                c if !is_obeyed(c) => out.push(c),
                c if self.json => push_escaped_json(c, out),
                c => push_escaped(c, out),
            }
        }
    }
}

impl<W: Write> Write for Shield<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let (mut rest, mut out) = (all.as_slice(), String::with_capacity(all.len()));
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.pass(text, &mut out);
                    break;
                }
                Err(error) => {
                    let (sound, bad) = rest.split_at(error.valid_up_to());
                    self.pass(std::str::from_utf8(sound).unwrap_or_default(), &mut out);
                    let Some(len) = error.error_len() else {
                        self.held = bad.to_vec();
                        break;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &bad[len..];
                }
            }
        }
        self.to.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_anywhere_it_comes_out_as_in_one_piece() {
        let text = "a\u{9b}31m \u{202e}\x1b]0;x\x07 \r\n ä漢\u{1f600}\tb".as_bytes();
        for json in [false, true] {
            let mut whole = Shield::new(Vec::new(), json);
            whole.write_all(text).unwrap();
            for cut in 0..text.len() {
                let mut pieces = Shield::new(Vec::new(), json);
                pieces.write_all(&text[..cut]).unwrap();
                pieces.write_all(&text[cut..]).unwrap();
                assert_eq!(pieces.to, whole.to, "cut at {cut}");
            }
            let printed = String::from_utf8(whole.to).unwrap();
            assert!(printed.chars().all(|c| "\n\t".contains(c) || !is_obeyed(c)), "{printed:?}");
            assert!(printed.contains("ä漢\u{1f600}"), "{printed:?}");
        }
    }

    #[test]
    fn only_our_own_colours_pass() {
        assert_eq!(shielded("\x1b[31mbad\x1b[0m\n"), "\x1b[31mbad\x1b[0m\n");
        assert_eq!(shielded("\x1b[35m\x1b[2J"), "\\u{1b}[35m\\u{1b}[2J");
    }
}
