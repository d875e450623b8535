//! A diagnosis as plain values.
//!
//! Never here: judgement. Next room: [`super::set`].

use super::flip::Flip;
use crate::format::FRAME_HEADER_LEN;
use crate::ids::{Lsn, Sequence};
use crate::inspect::{Finding, State};

/// What happened to the bytes, as far as the bytes tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Class {
    /// The end of a write that a crash interrupted; no sync had promised these bytes.
    TornTail,
    /// The end of a file is gone, though a sync had promised it.
    LostTail,
    /// Bytes changed.
    BitRot,
    /// Bytes became zero.
    ZeroedRange,
    /// Bytes of another place, another segment or another log.
    ForeignBytes,
    /// A segment or a run of LSNs is missing.
    Gap,
    /// Two files for one place, or a file under another's name.
    Overlap,
    /// Checksums hold, and what they protect is nothing that this log writes there.
    BrokenRules,
    /// Written by a newer version.
    Unsupported,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 9] = [
        Class::TornTail,
        Class::LostTail,
        Class::BitRot,
        Class::ZeroedRange,
        Class::ForeignBytes,
        Class::Gap,
        Class::Overlap,
        Class::BrokenRules,
        Class::Unsupported,
    ];

    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Class::TornTail => "torn_tail",
            Class::LostTail => "lost_tail",
            Class::BitRot => "bit_rot",
            Class::ZeroedRange => "zeroed_range",
            Class::ForeignBytes => "foreign_bytes",
            Class::Gap => "gap",
            Class::Overlap => "overlap",
            Class::BrokenRules => "broken_rules",
            Class::Unsupported => "unsupported",
        }
    }
}

/// One damage, explained.
#[derive(Clone, PartialEq, Debug)]
pub struct Damaged {
    /// What happened.
    pub class: Class,
    /// What it makes of the log: torn tail, corrupt or unsupported.
    pub state: State,
    /// The segment, where there is one.
    pub segment: Option<Sequence>,
    /// First and one past the last byte that cannot be used.
    pub bytes: Option<(u64, u64)>,
    /// First and last LSN concerned, as far as known.
    pub lsns: Option<(Lsn, Lsn)>,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
    /// How the class was decided.
    pub decided: String,
    /// What it cost.
    pub loss: Loss,
    /// The one flipped bit that explains it, if one does. Nothing is ever mended by it.
    pub flip: Option<Flip>,
}

impl Damaged {
    /// Whether it speaks of what this finding speaks of.
    pub(crate) fn explains(&self, finding: &Finding) -> bool {
        let meets = match (self.bytes, finding.bytes) {
            (Some((from, to)), Some((found, until))) => {
                // Behind the end of a file everything is missing; and a file without bytes, or none,
                // is bad from its first one on.
                let to = if self.class == Class::LostTail {
                    u64::MAX
                } else {
                    to.max(from.saturating_add(1))
                };
                // Who names a place names the frame there, whose payload alone may be bad.
                found < to && from < until.max(found.saturating_add(FRAME_HEADER_LEN as u64 + 1))
            }
            _ => true,
        };
        self.segment == finding.segment && meets
    }
}

/// What a damage cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    /// How many records cannot be read, if sound neighbours tell.
    pub records: Option<u64>,
    /// Whether a sync had promised them: `None` where nothing tells.
    pub promised: Option<bool>,
}

/// What lies where in one segment.
#[derive(Clone, PartialEq, Debug)]
pub struct SegmentMap {
    /// Which one.
    pub segment: Sequence,
    /// Size of its file, or what it should be.
    pub len: u64,
    /// Whether there is a file.
    pub present: bool,
    /// Offset below which everything was durable, in the active segment.
    pub durable_end: Option<u64>,
    /// In order, without a step.
    pub spans: Vec<Span>,
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First byte.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// What it is.
    pub kind: SpanKind,
}

/// What a run of bytes is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SpanKind {
    /// The segment's header.
    Header,
    /// Sound frames.
    Data,
    /// Frames below a seal that was read; they were not.
    Unread,
    /// Zeros that no frame has taken yet.
    Free,
    /// Damage.
    Bad(Class),
}
