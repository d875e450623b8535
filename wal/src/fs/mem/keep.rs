//! What a crash keeps of the bytes and names that no sync covered: nothing, all, a subset drawn
//! from a seed, or the n-th of all subsets where there are few.
//!
//! Never here: what there is to choose from ([`super::disk`] and [`super::inode`] ask).
//! Invariant: the questions come in the same order for the same disk, so a number names an answer.

use super::next_random;

/// What a crash keeps of the bytes and names that no sync covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing: the disk as of the last syncs.
    Nothing,
    /// Everything: as after a `kill -9`.
    Everything,
    /// Any subset, drawn from this seed.
    Some(u64),
    /// The subset with this number, below [`super::MemDir::crash_outcomes`].
    Nth(u64),
}

/// Answers the questions of one crash.
pub(super) enum Chooser {
    Nothing,
    Everything,
    Seed(u64),
    Nth(u64),
    /// Counts the answers there are.
    Count(u64),
}

impl Chooser {
    pub(super) fn of(keep: Keep) -> Chooser {
        match keep {
            Keep::Nothing => Chooser::Nothing,
            Keep::Everything => Chooser::Everything,
            Keep::Some(seed) => Chooser::Seed(seed),
            Keep::Nth(n) => Chooser::Nth(n),
        }
    }

    /// One of `n` answers; the last means *none of it* by the callers' convention.
    pub(super) fn one_of(&mut self, n: u64) -> u64 {
        match self {
            Chooser::Nothing | Chooser::Everything => 0,
            Chooser::Seed(seed) => next_random(seed) % n,
            Chooser::Nth(rest) => {
                let answer = *rest % n;
                *rest /= n;
                answer
            }
            Chooser::Count(count) => {
                *count = count.saturating_mul(n);
                0
            }
        }
    }

    /// Whether one change of a name is kept.
    pub(super) fn keeps_name(&mut self) -> bool {
        match self {
            Chooser::Nothing => false,
            Chooser::Everything => true,
            _ => self.one_of(2) == 1,
        }
    }
}
