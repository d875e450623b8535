//! Two processes that share one log on one crashable disk, act by act on one thread.
//!
//! The model is a single process's: whatever either was told is durable is there, in LSN order;
//! what it was told may be there is there whole or never; the registry of each is the replay.
//! Never here: threads, a wait for the other (it has finished its act or died), a sleep for order.
//! Invariant: a step means something after any other steps. Next rooms: [`life`] does it,
//! [`scripts`] and [`generate`] have the steps, [`explore`] disturbs them everywhere.

pub mod explore;
pub mod generate;
pub mod life;
pub mod scripts;

use annals_wal::fs::SyncPoint;
use annals_wal::fs::mem::{Fault, Keep, SyncFailure};

pub use life::Pair;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The one that opens first, as a rule.
    One,
    /// The other.
    Two,
}

impl Who {
    /// Both.
    pub const BOTH: [Who; 2] = [Who::One, Who::Two];

    /// The other one.
    pub fn other(self) -> Who {
        match self {
            Who::One => Who::Two,
            Who::Two => Who::One,
        }
    }
}

/// How such a life is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setup {
    /// Whether both have a registry on the log; its hold then forbids every trim.
    pub registry: bool,
    /// Whether crashes tear sectors inside.
    pub tear_sectors: bool,
    /// Whether overwrites take new space.
    pub copy_on_write: bool,
    /// Seeds salts and ids.
    pub seed: u64,
}

/// What happens.
#[expect(missing_docs, reason = "a step's own line says what its fields are")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// One of them does something, opening the log first if it has not.
    By(Who, Deed),
    /// The power goes under both.
    Crash(Keep),
    /// The machine stops after so many operations from now.
    StopIn { ops: u8, keep: Keep },
    /// A fault at one operation from now, whoever does it.
    FaultIn { ops: u8, fault: Fault },
    /// A fault at the nth sync of one point from now.
    FailSync { point: SyncPoint, nth: u8, how: SyncFailure },
}

/// What one of them does.
#[expect(missing_docs, reason = "a deed's own line says what its fields are")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// One batch of this many records of this many bytes, durable on return.
    Append { records: u8, bytes: u32 },
    /// This many batches in one turn, each durable before the next: several groups.
    Batches { count: u8, bytes: u32 },
    /// Registry: puts a value.
    Put { key: u8, bytes: u16 },
    /// Registry: deletes a key.
    Delete { key: u8 },
    /// Registry: a transaction that reads two keys and writes both.
    Move { from: u8, to: u8 },
    /// Trims to this share of what is there.
    Trim { permille: u16 },
    /// Reads everything, others' records too, without a turn.
    Look,
    /// Closes.
    Close,
    /// Drops its handles.
    Drop,
    /// Is killed between two calls.
    Die,
    /// Is killed just before its so many eth changing operation from now.
    DieIn { ops: u8 },
}
