//! Untrusted bytes on a terminal: nothing but plain characters gets through.
//!
//! A log is untrusted input to a terminal: escape sequences can set titles, links and clipboards
//! (kubernetes/kubernetes#101695), and bidirectional controls can make text read as something
//! else.

use std::fmt::Write;

/// The text with every control, bidirectional and invisible formatting character escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_escaped(c, &mut out));
    out
}

/// One character, escaped if a terminal would obey it.
pub(crate) fn push_escaped(c: char, out: &mut String) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if is_obeyed(c) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// Whether a character is anything but something to see.
pub(crate) fn is_obeyed(c: char) -> bool {
    c.is_control() || is_format(c)
}

/// Bidirectional controls, zero-width characters, line and paragraph separators, tags.
fn is_format(c: char) -> bool {
    matches!(
        u32::from(c),
        0xAD | 0x061C | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF
            | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F
    )
}

/// A line of valid JSON with the same value and none of those characters. JSON allows C0 controls
/// as white space between tokens and nowhere else, and all others inside strings and nowhere else;
/// so the ones become spaces and the others `\u` escapes, whatever the text is.
pub(crate) fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    json.chars().for_each(|c| push_escaped_json(c, &mut out));
    out
}

/// The same of several lines, each ended.
pub(crate) fn escape_pretty(json: &str) -> String {
    json.lines().map(|line| escape_json(line) + "\n").collect()
}

/// One character of a JSON text.
pub(crate) fn push_escaped_json(c: char, out: &mut String) {
    match c {
        '\0'..='\u{1f}' => out.push(' '),
        c if is_obeyed(c) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        c => out.push(c),
    }
}

/// At most `width` characters, the cut marked.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let hostile = "a\x1b]52;c;x\x07\u{9b}31m\u{202e}\r\n\u{7f}b";
        let escaped = escape(hostile);
        assert!(escaped.chars().all(|c| !c.is_control() && !is_format(c)), "{escaped}");
        assert_eq!(escape("plain äöü 漢字"), "plain äöü 漢字");
    }

    #[test]
    fn a_cut_falls_on_a_character_boundary() {
        assert_eq!(cut("äöü", 2), "äö...");
        assert_eq!(cut("äöü", 3), "äöü");
    }
}
