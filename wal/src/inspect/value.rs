//! A report as plain values.
//!
//! Never here: reading, judgement. Next room: [`super`].

use crate::ids::{Generation, LogId, Lsn, Sequence};
use crate::recover::Row;

/// So many findings are listed; what is beyond is counted in [`Report::findings_cut`].
pub const FINDINGS_MAX: usize = 10_000;

/// How much is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Headers, open records and seals, and the active segment whole: what an opening reads.
    Seals,
    /// Every byte of every segment.
    Everything,
    /// As [`Depth::Seals`], and every byte of so many of a hundred sealed segments, spread evenly;
    /// at least one. Which ones hangs on `offset`: another number, another sample.
    Sample {
        /// Of a hundred; from 1 to 100.
        percent: u8,
        /// Any number.
        offset: u64,
    },
}

impl Depth {
    /// Whether the sealed segment with this index, of so many, is read whole.
    pub(super) fn takes(self, index: usize, count: usize) -> bool {
        match self {
            Depth::Seals => false,
            Depth::Everything => true,
            Depth::Sample { percent, offset } => {
                let (index, count) = (index as u64, count.max(1) as u64);
                let place = (index + offset % count) % count;
                let wanted = (count * u64::from(percent)).div_ceil(100).clamp(1, count);
                place * wanted / count != (place + 1) * wanted / count
            }
        }
    }
}

/// The state of a log in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Closed cleanly.
    Clean,
    /// A process has it open for writing.
    Live,
    /// Ended without a close record; every batch is whole.
    Unclean,
    /// Ended inside a write; nothing that was promised is affected.
    TornTail,
    /// Something that a sync had promised is damaged or missing.
    Corrupt,
    /// A copy that was broken off. It was never a log, and nobody reads it as one.
    Unfinished,
    /// Written by a newer version.
    Unsupported,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Torn tail, corruption or unsupported.
    pub state: State,
    /// The segment, where there is one.
    pub segment: Option<Sequence>,
    /// First and one past the last byte, as far as known.
    pub bytes: Option<(u64, u64)>,
    /// First and last LSN concerned, as far as known.
    pub lsns: Option<(Lsn, Lsn)>,
    /// What was expected and what was found.
    pub why: String,
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentReport {
    /// Its sequence.
    pub sequence: Sequence,
    /// Size of its file.
    pub file_bytes: u64,
    /// Sealed, active, prepared or bad.
    pub role: Role,
    /// Records in it, where a seal or a full read tells.
    pub records: Option<u64>,
    /// Bytes used by frames, header included.
    pub used_bytes: Option<u64>,
    /// First and last LSN in it.
    pub lsns: Option<(Lsn, Lsn)>,
    /// The generation it was begun in.
    pub generation: Option<Generation>,
    /// When it was prepared, Unix ms.
    pub created_ms: Option<u64>,
    /// When its last record was appended, Unix ms; 0 or `None` where its seal does not know.
    pub last_append_ms: Option<u64>,
}

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Takes appends.
    Active,
    /// Never changes again.
    Sealed,
    /// Empty and waiting.
    Prepared,
    /// Its header is bad.
    Bad,
}

/// A whole log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The worst that was found, or how it ended.
    pub state: State,
    /// Whether a process has it open for writing.
    pub live: bool,
    /// Whether it was made for several processes ([`crate::Sharing::Processes`]), as its segments say;
    /// `None` where no header is left to say so.
    pub shared: Option<bool>,
    /// The row of the recovery table that an opening would take.
    pub row: Row,
    /// The log's id.
    pub log_id: Option<LogId>,
    /// The highest generation read.
    pub generation: Option<Generation>,
    /// The first LSN kept.
    pub head: Lsn,
    /// Named holds.
    pub holds: Vec<(String, Lsn)>,
    /// The last record that can be read.
    pub last_lsn: Option<Lsn>,
    /// The last record that something proves durable (a later frame or the control block).
    pub proven_lsn: Option<Lsn>,
    /// What a control block of this log says was durable that was written for other files, if that is
    /// more than what is here. It proves nothing; a copy that lost its end looks like this.
    pub copied_lsn: Option<Lsn>,
    /// Records in all, where every segment's count is known.
    pub records: Option<u64>,
    /// Lowest first.
    pub segments: Vec<SegmentReport>,
    /// Lowest offset first within a segment; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more were met and only counted: memory does not follow the damage.
    pub findings_cut: u64,
    /// Leftovers that the next opening removes.
    pub leftovers: Vec<String>,
}

impl Report {
    /// Lists a finding, or counts it where enough are listed. Its state counts either way.
    pub(super) fn note(&mut self, finding: Finding) {
        self.state = self.state.max(finding.state);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_cut += 1;
        }
    }
}
