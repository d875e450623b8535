//! Records that can be told apart and checked: writer, sequence, and a fill that follows from them.
//!
//! Never here: I/O. Invariants: a record is ASCII without quotes (so that JSON needs no escapes and
//! no engine is charged for one); two records of a run are never equal; what [`Seen`] passes was
//! written by this run, whole, once. The fill comes out of a pool that is made before the window,
//! so that making a record costs little beside the fastest append; records in a row take places in
//! a row, so that nothing in a batch repeats and no engine compresses it.
//! Next room: [`crate::window`].

use std::sync::Arc;

use crate::engine::Outcome;

/// Eight digits of the writer, sixteen of its sequence.
const HEAD: usize = 24;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Bytes of the pool, and twice the largest record.
const POOL: usize = 2 << 20;
/// More records of one writer than any window makes.
const SEQUENCE_MAX: u64 = 1 << 32;

/// Makes and checks records of one run.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) size: usize,
    pool: Arc<[u8]>,
}

impl Payload {
    pub(crate) fn new(seed: u64, size: usize) -> Payload {
        let mut pool = Vec::with_capacity(POOL);
        let mut state = seed;
        while pool.len() < POOL {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let digits = split_mix(state).to_le_bytes();
            pool.extend(digits.map(|byte| DIGITS[usize::from(byte & 63)]));
        }
        Payload { size: size.max(HEAD), pool: pool.into() }
    }

    /// The record number `sequence` of this writer, into a buffer that is used again.
    pub(crate) fn write(&self, record: &mut Vec<u8>, writer: usize, sequence: u64) {
        let fill = self.size - HEAD;
        let place = (writer as u64).wrapping_mul(7919).wrapping_add(sequence);
        let from = place.wrapping_mul(fill as u64) % (POOL - fill) as u64;
        record.clear();
        record.extend_from_slice(&head(writer, sequence));
        record.extend_from_slice(&self.pool[from as usize..from as usize + fill]);
    }
}

fn head(writer: usize, sequence: u64) -> [u8; HEAD] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let number = (writer as u128) << 64 | u128::from(sequence);
    std::array::from_fn(|at| HEX[(number >> (4 * (HEAD - 1 - at)) & 15) as usize])
}

/// Steele, Lea and Flood's mixer: one multiplication chain, no state but a number.
pub(crate) fn split_mix(state: u64) -> u64 {
    let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writer and sequence of a record, if it starts with them.
pub(crate) fn identity(record: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(record.get(..HEAD)?).ok()?;
    let writer = usize::from_str_radix(&text[..8], 16).ok()?;
    Some((writer, u64::from_str_radix(&text[8..], 16).ok()?))
}

/// What a reopened engine showed, held against what was acknowledged: a bit for each record.
#[derive(Debug)]
pub(crate) struct Seen {
    payload: Payload,
    found: Vec<Vec<u64>>,
    count: u64,
    expected: Vec<u8>,
}

impl Seen {
    pub(crate) fn new(payload: Payload, writers: usize) -> Seen {
        Seen { payload, found: vec![Vec::new(); writers], count: 0, expected: Vec::new() }
    }

    /// Takes one record.
    ///
    /// # Errors
    /// It is not one of this run's, is damaged, or was shown before.
    pub(crate) fn take(&mut self, record: &[u8]) -> Outcome<()> {
        let known = identity(record).filter(|(_, sequence)| *sequence < SEQUENCE_MAX);
        let Some((writer, sequence)) = known else {
            return Err("a record that nobody wrote".into());
        };
        self.payload.write(&mut self.expected, writer, sequence);
        if self.expected != record {
            return Err(format!("record {sequence} of writer {writer} is damaged").into());
        }
        let (word, bit) = ((sequence / 64) as usize, 1_u64 << (sequence % 64));
        let found = self.found.get_mut(writer).ok_or("a record of a writer that there was not")?;
        if found.len() <= word {
            found.resize(word + 1, 0);
        }
        if found[word] & bit != 0 {
            return Err(format!("record {sequence} of writer {writer} came twice").into());
        }
        found[word] |= bit;
        self.count += 1;
        Ok(())
    }

    /// Whether everything acknowledged is there: writer `w` had its first `acknowledged[w]`.
    /// Returns how many records there were.
    ///
    /// # Errors
    /// Something acknowledged is missing, or there is more than was ever begun.
    pub(crate) fn check(&self, acknowledged: &[u64]) -> Outcome<u64> {
        for (writer, &count) in acknowledged.iter().enumerate() {
            let mut lost = (0..count).filter(|sequence| !self.has(writer, *sequence));
            if let Some(first) = lost.next() {
                let lost = 1 + lost.count();
                let what = format!("{lost} of {count} acknowledged records of writer {writer}");
                return Err(format!("{what} are lost, the first is {first}").into());
            }
        }
        let total: u64 = acknowledged.iter().sum();
        // Nobody was in the middle of an append when the process was killed.
        if self.count != total {
            return Err(format!("{} records for {total} acknowledged", self.count).into());
        }
        Ok(total)
    }

    fn has(&self, writer: usize, sequence: u64) -> bool {
        let word = self.found.get(writer).and_then(|found| found.get((sequence / 64) as usize));
        word.is_some_and(|word| word & 1 << (sequence % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        Payload::new(7, 128)
    }

    fn seen() -> Seen {
        Seen::new(payload(), 4)
    }

    fn record(writer: usize, sequence: u64) -> Vec<u8> {
        let mut record = Vec::new();
        payload().write(&mut record, writer, sequence);
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
        let mut seen = seen();
        for (writer, sequence) in [(1, 0), (0, 0), (0, 1)] {
            seen.take(&record(writer, sequence)).unwrap();
        }
        assert_eq!(seen.check(&[2, 1]).unwrap(), 3);
    }

    #[test]
    fn a_lost_record_is_named() {
        let mut seen = seen();
        seen.take(&record(0, 0)).unwrap();
        seen.take(&record(0, 2)).unwrap();
        let error = seen.check(&[3]).unwrap_err().to_string();
        assert_eq!(error, "1 of 3 acknowledged records of writer 0 are lost, the first is 1");
    }

    #[test]
    fn damage_repetition_and_invention_are_errors() {
        let mut seen = seen();
        let mut bad = record(0, 0);
        bad[100] ^= 1;
        assert!(seen.take(&bad).is_err());
        assert!(seen.take(b"short").is_err());
        assert!(seen.take(&record(4, 0)).is_err(), "there were four writers");
        seen.take(&record(0, 0)).unwrap();
        assert!(seen.take(&record(0, 0)).is_err());
        seen.take(&record(0, 1)).unwrap();
        assert!(seen.check(&[1]).is_err(), "one more than anybody began");
    }
}
