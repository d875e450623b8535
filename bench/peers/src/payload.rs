//! Records that can be told apart and checked: writer, sequence, and a fill that follows from them.
//!
//! Never here: I/O. Invariants: a record is ASCII without quotes (so that JSON needs no escapes and
//! no engine is charged for one); two records of a run are never equal; what [`Seen`] passes was
//! written by this run, whole, once. Next room: [`crate::window`].

use std::collections::HashSet;

use crate::engine::Outcome;

/// Eight digits of the writer, sixteen of its sequence.
const HEAD: usize = 24;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Makes and checks records of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload {
    pub(crate) seed: u64,
    pub(crate) size: usize,
}

impl Payload {
    /// The record number `sequence` of this writer, into a buffer that is used again.
    pub(crate) fn write(self, record: &mut Vec<u8>, writer: usize, sequence: u64) {
        record.clear();
        record.extend_from_slice(format!("{writer:08x}{sequence:016x}").as_bytes());
        let mut state = self.seed ^ (writer as u64).rotate_left(48) ^ sequence;
        while record.len() < self.size {
            state = split_mix(state);
            let room = self.size - record.len();
            let digits = state.to_le_bytes().map(|byte| DIGITS[usize::from(byte & 63)]);
            record.extend_from_slice(&digits[..room.min(digits.len())]);
        }
        record.truncate(self.size.max(HEAD));
    }
}

/// Steele, Lea and Flood's mixer: one multiplication chain, no state but a number.
fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writer and sequence of a record, if it starts with them.
pub(crate) fn identity(record: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(record.get(..HEAD)?).ok()?;
    let writer = usize::from_str_radix(&text[..8], 16).ok()?;
    Some((writer, u64::from_str_radix(&text[8..], 16).ok()?))
}

/// What a reopened engine showed, held against what was acknowledged.
#[derive(Debug)]
pub(crate) struct Seen {
    payload: Payload,
    found: HashSet<(usize, u64)>,
    expected: Vec<u8>,
}

impl Seen {
    pub(crate) fn new(payload: Payload) -> Seen {
        Seen { payload, found: HashSet::new(), expected: Vec::new() }
    }

    /// Takes one record.
    ///
    /// # Errors
    /// It is not one of this run's, is damaged, or was shown before.
    pub(crate) fn take(&mut self, record: &[u8]) -> Outcome<()> {
        let Some((writer, sequence)) = identity(record) else {
            return Err("a record that nobody wrote".into());
        };
        self.payload.write(&mut self.expected, writer, sequence);
        if self.expected != record {
            return Err(format!("record {sequence} of writer {writer} is damaged").into());
        }
        if !self.found.insert((writer, sequence)) {
            return Err(format!("record {sequence} of writer {writer} came twice").into());
        }
        Ok(())
    }

    /// Whether everything acknowledged is there: writer `w` had its first `acknowledged[w]`.
    /// Returns how many records there were.
    ///
    /// # Errors
    /// Something acknowledged is missing, or there is more than was ever begun.
    pub(crate) fn check(&self, acknowledged: &[u64]) -> Outcome<u64> {
        for (writer, &count) in acknowledged.iter().enumerate() {
            let lost: Vec<u64> =
                (0..count).filter(|sequence| !self.found.contains(&(writer, *sequence))).collect();
            if let Some(first) = lost.first() {
                let lost = lost.len();
                let what = format!("{lost} of {count} acknowledged records of writer {writer}");
                return Err(format!("{what} are lost, the first is {first}").into());
            }
        }
        let total: u64 = acknowledged.iter().sum();
        // Nobody was in the middle of an append when the process was killed.
        if self.found.len() as u64 != total {
            return Err(format!("{} records for {total} acknowledged", self.found.len()).into());
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: Payload = Payload { seed: 7, size: 128 };

    fn record(writer: usize, sequence: u64) -> Vec<u8> {
        let mut record = Vec::new();
        PAYLOAD.write(&mut record, writer, sequence);
        record
    }

    #[test]
    fn a_record_says_who_wrote_it_and_has_its_size() {
        let record = record(3, 70_000);
        assert_eq!(record.len(), 128);
        assert_eq!(identity(&record), Some((3, 70_000)));
        assert!(record.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"'));
    }

    #[test]
    fn a_whole_run_passes() {
        let mut seen = Seen::new(PAYLOAD);
        for (writer, sequence) in [(1, 0), (0, 0), (0, 1)] {
            seen.take(&record(writer, sequence)).unwrap();
        }
        assert_eq!(seen.check(&[2, 1]).unwrap(), 3);
    }

    #[test]
    fn a_lost_record_is_named() {
        let mut seen = Seen::new(PAYLOAD);
        seen.take(&record(0, 0)).unwrap();
        seen.take(&record(0, 2)).unwrap();
        let error = seen.check(&[3]).unwrap_err().to_string();
        assert_eq!(error, "1 of 3 acknowledged records of writer 0 are lost, the first is 1");
    }

    #[test]
    fn damage_repetition_and_invention_are_errors() {
        let mut seen = Seen::new(PAYLOAD);
        let mut bad = record(0, 0);
        bad[100] ^= 1;
        assert!(seen.take(&bad).is_err());
        assert!(seen.take(b"short").is_err());
        seen.take(&record(0, 0)).unwrap();
        assert!(seen.take(&record(0, 0)).is_err());
        seen.take(&record(0, 1)).unwrap();
        assert!(seen.check(&[1]).is_err(), "one more than anybody began");
    }
}
