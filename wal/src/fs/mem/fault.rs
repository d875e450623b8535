//! What can be made to go wrong on the crashable directory, and when.
//!
//! Never here: bytes, names. Invariant: each fault is armed for one numbered operation, so that a
//! sweep over the numbers is exhaustive and a failure is repeated by its number.
//! Next room: [`super::disk`], which asks here before every operation.

use std::collections::BTreeMap;
use std::io;

use super::super::SyncPoint;
use super::next_random;

/// What a failed sync, or a failed writeback, leaves in the cache (Rebello et al., ATC'20: no two
/// file systems agree). The disk has the old bytes either way, and the pages count as clean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncFailure {
    /// The pages show the new bytes (seen on ext4 and xfs).
    CleanNew,
    /// The pages show the old bytes again (btrfs).
    CleanOld,
}

/// What happens to one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It does nothing and fails with this system error number (5 is EIO, 28 ENOSPC, 122 EDQUOT).
    /// A file's sync leaves its pages as [`Fault::Sync`] with `CleanNew` does.
    Error(i32),
    /// A write stores a prefix only, of a length drawn from this seed, and says so. Anything else
    /// is not affected.
    Short(u64),
    /// A write stores nothing and fails with EINTR. Anything else is not affected: the system
    /// call wrappers below the seam ask again by themselves.
    Interrupted,
    /// A file's sync fails with EIO and leaves its pages like this. Anything else fails with EIO.
    Sync(SyncFailure),
    /// Just before it the machine writes back every dirty page of every file and fails. Nobody is
    /// told now: each open descriptor's next sync fails once, late, as Linux reports it since 4.13.
    Writeback(SyncFailure),
}

/// All that is armed.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    at_op: BTreeMap<u64, Fault>,
    sync: Option<(SyncPoint, u64, SyncFailure)>,
    read: Option<(u64, i32)>,
    short_reads: Option<u64>,
    reads: u64,
}

impl Faults {
    pub(super) fn arm(&mut self, op: u64, fault: Fault) {
        self.at_op.insert(op, fault);
    }

    pub(super) fn arm_sync(&mut self, point: SyncPoint, nth: u64, how: SyncFailure) {
        self.sync = Some((point, nth, how));
    }

    pub(super) fn arm_read(&mut self, nth: u64, errno: i32) {
        self.read = Some((self.reads + nth, errno));
    }

    pub(super) fn shorten_reads(&mut self, seed: Option<u64>) {
        self.short_reads = seed;
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    /// What is armed for this operation, which has it now behind it.
    pub(super) fn take(&mut self, op: u64) -> Option<Fault> {
        self.at_op.remove(&op)
    }

    /// Whether this occurrence of a sync point is the one to fail.
    pub(super) fn take_sync(&mut self, point: SyncPoint, nth: u64) -> Option<SyncFailure> {
        self.sync.take_if(|(at, n, _)| *at == point && *n == nth).map(|(_, _, how)| how)
    }

    /// Counts a read; how many of the bytes asked for it may deliver.
    pub(super) fn read(&mut self, asked: usize) -> io::Result<usize> {
        let index = self.reads;
        self.reads += 1;
        if let Some((_, errno)) = self.read.take_if(|(at, _)| *at == index) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let Some(seed) = &mut self.short_reads else { return Ok(asked) };
        let draw = next_random(seed);
        if draw.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(if asked == 0 { 0 } else { 1 + (draw >> 8) as usize % asked })
    }
}
