//! Lines of a file of any size, one at a time, in bounded memory.
//!
//! Never here: text, JSON. Invariants: every byte read goes through the hash; a line over the cap
//! is counted and skipped, never held; the last line counts with or without its line break.
//! Next room: [`super::jsonl`].

use std::io::{self, BufRead};

use sha2::{Digest, Sha256};

use crate::ids::ContentHash;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One line without its line break.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    Bytes(&'a [u8]),
    /// Over the cap: this long.
    TooLong(u64),
}

/// Reads lines and hashes what it reads.
pub(crate) struct Lines<R> {
    input: R,
    max: usize,
    number: u64,
    line: Vec<u8>,
    hash: Sha256,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `max` bytes.
    pub(crate) fn new(input: R, max: usize) -> Lines<R> {
        Lines { input, max, number: 0, line: Vec::new(), hash: Sha256::new() }
    }

    /// The next line with its number, from 1; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Line<'_>)>> {
        self.line.clear();
        let mut length = 0_u64;
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() && length == 0 {
                return Ok(None);
            }
            let (taken, ended) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            let part = bytes.get(..taken).unwrap_or_default();
            self.hash.update(part);
            // Two more than the cap are kept, so that a line break beyond it does not count.
            let room = self.max.saturating_add(2).saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room.min(taken)).unwrap_or_default());
            length += taken as u64;
            self.input.consume(taken);
            if ended {
                break;
            }
        }
        self.number += 1;
        Ok(Some((self.number, self.judge(length))))
    }

    /// The hash of everything read; of the whole file after the last line.
    pub(crate) fn finish(self) -> ContentHash {
        ContentHash(self.hash.finalize().into())
    }

    fn judge(&self, length: u64) -> Line<'_> {
        let bytes = self.line.as_slice();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        // Of a longer line more was kept than a line break can take away again.
        if bytes.len() > self.max {
            return Line::TooLong(length);
        }
        match (self.number, bytes.strip_prefix(BYTE_ORDER_MARK)) {
            (1, Some(rest)) => Line::Bytes(rest),
            _ => Line::Bytes(bytes),
        }
    }
}
