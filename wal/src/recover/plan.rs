//! What the recovery table can say: the rows, a plan, a refusal. Values only.
//!
//! Never here: a decision ([`super::decide()`] takes it), a deed ([`super::apply`] does it).

use crate::error::Location;
use crate::format::{Hold, OwnBody};
use crate::ids::{Generation, Lsn, Sequence};

/// A row of the recovery table (`docs/FORMAT.md`, section Recovery).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Row {
    /// No log here yet; or one whose creation never got as far as its first byte.
    Fresh,
    /// Closed cleanly.
    A,
    /// Whole batches, no close record.
    APrime,
    /// Torn tail.
    B,
    /// Corruption in the active segment.
    C,
    /// A segment that was never in use, with a bad header.
    D,
    /// A bad header with data behind it, or one that a witness reaches into.
    DPrime,
    /// A sealed segment whose seal is not what its successor says.
    E,
    /// Written by a newer version.
    F,
    /// Something is missing, foreign or there twice.
    G,
}

impl Row {
    /// The letter in the table.
    pub fn letter(self) -> &'static str {
        match self {
            Row::Fresh => "new",
            Row::A => "A",
            Row::APrime => "A'",
            Row::B => "B",
            Row::C => "C",
            Row::D => "D",
            Row::DPrime => "D'",
            Row::E => "E",
            Row::F => "F",
            Row::G => "G",
        }
    }
}

/// What the table says.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Go on; this is how.
    Plan(Box<Plan>),
    /// Change nothing.
    Refuse(Refusal),
}

/// Why an opening for writing is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The row that matched.
    pub row: Row,
    /// What the caller must do.
    pub kind: RefusalKind,
    /// What was expected and what was found.
    pub why: String,
    /// Where.
    pub location: Location,
}

/// The sort of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// A byte that a sync had promised is bad or gone.
    Corrupt,
    /// A newer version wrote it.
    Unsupported,
    /// An archive is never opened for writing.
    Archived,
}

/// Everything an opening for writing will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The row of the active segment.
    pub row: Row,
    /// The generation to write in.
    pub generation: Generation,
    /// The first LSN kept.
    pub head: Lsn,
    /// The holds kept.
    pub holds: Vec<Hold>,
    /// LSN of the last record kept, 0 if none.
    pub last_lsn: u64,
    /// What to do with the active segment; `None` where there is none yet.
    pub active: Option<ActivePlan>,
    /// The segment to go on in, if not the active one.
    pub next: Option<NextSegment>,
    /// A spare to keep beyond the active segment while the log goes on in it.
    pub spare: Option<Sequence>,
    /// Names to remove at the end, lowest segment first.
    pub removals: Vec<String>,
    /// How many of them, at the front, are segments below the head.
    pub below_head: usize,
    /// What is cut, if anything.
    pub cut: Option<Cut>,
}

/// The repair of the active segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActivePlan {
    /// Its place in [`super::Facts::segments`].
    pub index: usize,
    /// Kept bytes below this were witnessed: they stay untouched.
    pub witnessed_end: u64,
    /// End of what is kept.
    pub kept_end: u64,
    /// Row B where not even the open record is whole: the one to write anew.
    pub open_anew: Option<OwnBody>,
    /// Whether a seal must be appended.
    pub seal: bool,
}

/// The segment to go on in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextSegment {
    /// Its sequence.
    pub sequence: Sequence,
    /// Whether a spare of that sequence is there to be used.
    pub reuse: bool,
}

/// What recovery cut off, reported on every opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The segment.
    pub segment: Sequence,
    /// First byte cut.
    pub from: u64,
    /// First byte after the last one that was not zero (or the end of a short file).
    pub to: u64,
    /// The LSNs that stood there, as far as can be told: both inclusive, `None` if no record can
    /// have.
    pub lsns: Option<(Lsn, Lsn)>,
}
