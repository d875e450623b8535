//! What can happen to a log, as plain data: so that a failing life can be cut shorter, printed, and
//! pasted into a test.
//!
//! Never here: how it is done ([`super::life`]). Invariant: an act means something after any other
//! acts, whatever was left out before it: LSNs are shares of what there is, operations are counted
//! from now.

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Fault, Keep, SyncFailure};

use super::damage::Damage;

/// One step of a life.
#[expect(missing_docs, reason = "an act's own line says what its fields are")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// One batch of this many records of this many bytes, durable on return.
    Append { records: u8, bytes: u32 },
    /// The same, submitted and then waited for.
    Submit { records: u8, bytes: u32 },
    /// Trims to this share of what is there.
    Trim { permille: u16 },
    /// Sets a hold at this share of what is there.
    Hold { name: u8, permille: u16 },
    /// Sets this many holds, one after the other.
    Holds { count: u8 },
    /// Releases a hold.
    Release { name: u8 },
    /// Registry: puts a value.
    Put { key: u8, bytes: u16 },
    /// Registry: deletes a key.
    Delete { key: u8 },
    /// Registry: compare and swap, with the right expectation or a wrong one.
    Swap { key: u8, right: bool },
    /// Registry: three keys in one commit.
    Commit { first: u8, bytes: u16 },
    /// Registry: a transaction that reads two keys and writes both.
    Move { from: u8, to: u8 },
    /// Registry: a snapshot, and the hold moved; trims are acts of their own.
    Checkpoint,
    /// Registry: a lease is granted, a key bound to it, and the lease revoked.
    Lease { key: u8 },
    /// Registry: a watch from the start tells every transaction that the log holds, once, in order.
    Watch,
    /// Observer: a tool call, its start and its end; `flushed`: ordered and then flushed.
    Call { session: u8, bytes: u16, flushed: bool },
    /// Both rooms: a tool call whose end and a change of this key are one batch.
    Joint { session: u8, key: u8 },
    /// Observer: a call whose input and metadata stand in records of their own, in its batch.
    Large { session: u8, bytes: u32 },
    /// Observer: keeps the last so many records, as far as open calls and holds allow.
    Retain { records: u8 },
    /// Observer: writes off the calls that an earlier opening left open.
    Recover,
    /// Observer: imports a file of so many lines, or goes on with an import that was cut.
    Import { lines: u16 },
    /// A backup into another directory, which may fail at one of its operations.
    Backup { fault_in: Option<u8> },
    /// Observer: hands over to an archive beside the log, by links or by copies.
    Archive { name: u8, copy: bool },
    /// While a batch is being synced, so many others come and wait behind it.
    Overlap { records: u8, bytes: u32, behind: u8 },
    /// Registry: somebody changes what a transaction has read, while it runs.
    Race { key: u8 },
    /// Others ask for the log while it is open: whether it has an owner, for a second registry;
    /// and to own it too (that takes a fifth of a second).
    Owner { second: bool },
    /// A file loses its name under the writer, and gets it back.
    LoseName { lock: bool },
    /// A child made by fork writes through the inherited handle.
    Forked,
    /// A writeback of every dirty page fails, and another program's fsync is told of it first, so
    /// that nobody who comes later is.
    OthersSync { how: SyncFailure },
    /// Reads everything, as the owner and as somebody who owns nothing, and inspects it.
    Read,
    /// The next segment is prepared before it is needed, as the log's own thread does it.
    Prepare,
    /// Somebody who owns nothing reads the log as it is now, open or not. What it was shown must
    /// stay.
    Peek,
    /// Closes cleanly.
    Close,
    /// Drops every handle.
    Drop,
    /// The process is killed.
    Kill,
    /// The power goes.
    Crash(Keep),
    /// The machine stops after so many operations from now.
    StopIn { ops: u8, then: Then },
    /// A fault at one operation from now.
    FaultIn { ops: u8, fault: Fault },
    /// A fault at the nth sync of one point from now.
    FailSync { point: SyncPoint, nth: u8, how: SyncFailure },
    /// The nth read from now fails.
    FailRead { nth: u8, errno: i32 },
    /// Reads are short from now on, or whole again.
    ShortReads { seed: Option<u64> },
    /// So many bytes are free.
    Fill { bytes: u32 },
    /// Space is free again.
    Free,
    /// Bytes go bad on a copy (other inodes) or on this very disk as it is now; the life goes on
    /// without the damage.
    Damage { what: Damage, copied: bool, seed: u64 },
}

/// What the next process finds after the machine has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Only the process died.
    Kill,
    /// The power went.
    Crash(Keep),
}
