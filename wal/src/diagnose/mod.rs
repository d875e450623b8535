//! What is wrong with a log, each damage explained: its class, how that was decided, what it cost.
//!
//! Never here: writing, printing, and the verdict: whether an opening would go on is
//! [`crate::inspect`]'s and the recovery table's word, taken over unchanged as
//! [`Diagnosis::report`]. This room looks closely at what they found bad, and at nothing else
//! unless every byte is asked for. Invariants: every finding of the report is explained by at least
//! one [`Damaged`]; a class is a judgement from the bytes alone and says how it was reached. Rooms:
//! [`set`] and [`files`] (files), [`ends`] (headers and tails), [`look`] (one segment), [`judge`] (one run of bad bytes), [`flip`], [`salt`].

use std::path::Path;
use std::sync::Arc;

mod ends;
mod files;
pub(crate) mod flip;
pub(crate) mod judge;
pub(crate) mod look;
pub(crate) mod salt;
mod set;
mod value;

use crate::error::Result;
use crate::fs::{Dir, os::OsDir};
use crate::inspect::{Depth, Report, State, inspect_with};
use crate::recover::facts::Mark;
use crate::recover::{Facts, decide};
pub use flip::Flip;
pub use look::DAMAGES_MAX;
pub use value::{Class, Damaged, Loss, SegmentMap, Span, SpanKind};

/// A log's report and every damage in it, explained.
#[derive(Clone, PartialEq, Debug)]
pub struct Diagnosis {
    /// The verdict, and what is in the log.
    pub report: Report,
    /// Lowest segment first, lowest byte first; at most [`DAMAGES_MAX`].
    pub damages: Vec<Damaged>,
    /// How many more were met and are only counted: memory does not follow the damage.
    pub damages_cut: u64,
    /// What lies where, segment by segment, if it was asked for.
    pub maps: Vec<SegmentMap>,
    /// What the mark says that forbids opening, if there is one and it marks unfinished work.
    pub unfinished: Option<String>,
    /// Whether that file may be such a mark, or an archive's manifest, that lost its bytes, or is no
    /// file at all: nothing is to be removed on its word.
    pub doubtful: bool,
}

impl Diagnosis {
    /// A report alone: each of its findings with the class that its state implies.
    pub fn of(report: Report) -> Diagnosis {
        let row = report.row;
        let damages = report.findings.iter().map(|f| set::of_finding(f, row)).collect();
        let damages_cut = report.findings_cut;
        Diagnosis {
            report,
            damages,
            damages_cut,
            maps: Vec::new(),
            unfinished: None,
            doubtful: false,
        }
    }
}

/// How much is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// What the report reads.
    pub depth: Depth,
    /// Whether maps are made. With [`Depth::Seals`] what no seal and no damage tells is `Unread`.
    pub maps: bool,
    /// How many threads read sealed segments.
    pub threads: usize,
}

/// Diagnoses the log in `path`; `progress` is told how many bytes were read since the last call.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// # annals_wal::Log::open(&path)?.append("one")?;
/// use annals_wal::diagnose::{Scope, diagnose};
/// use annals_wal::inspect::Depth;
/// let scope = Scope { depth: Depth::Everything, maps: false, threads: 1 };
/// assert!(diagnose(&path, scope, &mut |_| ())?.damages.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `NotALog`, `Io`; `Corrupt` where no segment is left. Damage is in the diagnosis.
pub fn diagnose(
    path: impl AsRef<Path>,
    scope: Scope,
    progress: &mut dyn FnMut(u64),
) -> Result<Diagnosis> {
    diagnose_in(&(Arc::new(OsDir::new(path.as_ref())) as Arc<dyn Dir>), scope, progress)
}

/// [`diagnose`] on any file system behind the seam.
///
/// # Errors
/// As [`diagnose`].
pub fn diagnose_in(
    dir: &Arc<dyn Dir>,
    scope: Scope,
    progress: &mut dyn FnMut(u64),
) -> Result<Diagnosis> {
    let report = inspect_with(dir, scope.depth, scope.threads, progress)?;
    let mut diagnosis = Diagnosis {
        damages: Vec::new(),
        damages_cut: 0,
        maps: Vec::new(),
        unfinished: None,
        doubtful: false,
        report,
    };
    if diagnosis.report.state == State::Unfinished {
        diagnosis.unfinished = Facts::read(&**dir)?.unfinished().map(str::to_owned);
        return Ok(diagnosis);
    }
    if diagnosis.report.state < State::TornTail && !scope.maps {
        return Ok(diagnosis);
    }
    let facts = Facts::read(&**dir)?;
    diagnosis.doubtful = matches!(facts.mark, Some(Mark::Doubtful | Mark::Irregular));
    let decision = decide(&facts);
    let found = set::explain(&**dir, &facts, &decision, &diagnosis.report, scope)?;
    diagnosis.damages = found.damages;
    diagnosis.damages_cut = found.cut.max(diagnosis.report.findings_cut);
    diagnosis.maps = found.maps;
    for finding in &diagnosis.report.findings {
        if finding.segment.is_some_and(|segment| found.excused.contains(&segment)) {
            continue;
        }
        let cut = found.cut_segments.iter().any(|segment| finding.segment == Some(*segment));
        if !cut && !diagnosis.damages.iter().any(|damage| damage.explains(finding)) {
            diagnosis.damages.push(set::of_finding(finding, diagnosis.report.row));
        }
    }
    diagnosis.damages.sort_by_key(|damage| (damage.segment, damage.bytes));
    // While a process writes, what is above its durable end is in flight and no damage; and what a
    // second look alone calls bad, after the report did not, is a race with the writer.
    if diagnosis.report.state < State::TornTail {
        diagnosis.damages.clear();
        diagnosis.damages_cut = 0;
    }
    if diagnosis.report.live {
        diagnosis.damages.retain(|damage| damage.state >= State::Corrupt);
    }
    Ok(diagnosis)
}
