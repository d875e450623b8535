//! What a log looks like, as a value: the report behind `wal inspect` and `wal verify`.
//!
//! Never here: writing of any kind, not even a lock file; printing. Invariant: the verdict is the
//! recovery table's own ([`crate::recover::decide()`]), so inspector and recovery cannot disagree.
//! With a living owner, bytes above its control block are in flight and no finding. Rooms: `value`
//! (a report), `outline` (what the facts of an opening say), `sealed` (bodies against seals).

use std::path::Path;
use std::sync::Arc;

mod outline;
mod sealed;
mod value;

use crate::bodies;
use crate::error::{Error, ErrorKind, Result};
use crate::format;
use crate::fs::{Dir, os::OsDir};
use crate::lock::is_live;
use crate::recover::facts::Mark;
use crate::recover::{Decision, Facts, decide};
use outline::{note_refusal, note_torn, outline};
use sealed::read_bodies;
pub use value::{Depth, FINDINGS_MAX, Finding, Report, Role, SegmentReport, State};

/// Reports on the log in `path`; `progress` is told how many bytes were read since the last call.
/// Sealed segments are read by as many threads as there are processors, but at most four.
///
/// # Errors
/// `NotALog`, `Io`. Damage is in the report, not an error.
pub fn inspect(
    path: impl AsRef<Path>,
    depth: Depth,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    let dir = Arc::new(OsDir::new(path.as_ref())) as Arc<dyn Dir>;
    inspect_with(&dir, depth, bodies::threads(), progress)
}

/// [`inspect`] on any file system behind the seam, by this thread alone.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_in(
    dir: &Arc<dyn Dir>,
    depth: Depth,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    inspect_with(dir, depth, 1, progress)
}

/// [`inspect_in`] by so many threads. The report does not depend on how many; nor does the sum that
/// `progress`, always called on this thread, is told of a log that can be read.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("log");
/// # annals_wal::Log::open(&path)?.close()?;
/// use annals_wal::fs::{Dir, os::OsDir};
/// use annals_wal::inspect::{Depth, State, inspect_with};
/// let dir: std::sync::Arc<dyn Dir> = std::sync::Arc::new(OsDir::new(&path));
/// let report = inspect_with(&dir, Depth::Everything, 2, &mut |_| ())?;
/// assert_eq!(report.state, State::Clean);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`inspect`].
pub fn inspect_with(
    dir: &Arc<dyn Dir>,
    depth: Depth,
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    const TRIES: usize = 5;
    let mut tries = 0;
    loop {
        tries += 1;
        let before = is_live(&**dir)?;
        let outcome = report(dir, depth, threads, progress);
        let live = before || is_live(&**dir)?;
        // A living owner may rotate or trim between two reads of ours: what looks bad is looked
        // at again before it is called bad.
        let suspicious = match &outcome {
            Ok(report) => report.state >= State::Corrupt,
            Err(error) => error.kind() == ErrorKind::Io,
        };
        if live && suspicious && tries < TRIES {
            continue;
        }
        let mut report = outcome?;
        report.live = live;
        if live && report.state < State::Corrupt {
            report.state = State::Live;
            report.findings.retain(|finding| finding.state >= State::Corrupt);
        }
        return Ok(report);
    }
}

fn report(
    dir: &Arc<dyn Dir>,
    depth: Depth,
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Report> {
    let facts = Facts::read(&**dir)?;
    let copy = matches!(facts.mark, Some(Mark::Unfinished(_) | Mark::Doubtful | Mark::Irregular));
    if facts.segments.is_empty() && !copy {
        return Err(no_segment(&**dir, &facts));
    }
    let decision = decide(&facts);
    let mut report = outline(&facts, &decision);
    if facts.unfinished().is_some() {
        // Its segments are whatever was there when it was broken off: no damage of a log.
        report.state = State::Unfinished;
        return Ok(report);
    }
    note_mark(&mut report, &facts);
    match &decision {
        Decision::Plan(plan) => note_torn(&mut report, &facts, plan),
        Decision::Refuse(refusal) => note_refusal(&mut report, &facts, refusal),
    }
    if depth != Depth::Seals {
        read_bodies(dir, &facts, &decision, &mut report, (depth, threads), progress)?;
    }
    report.records = report
        .segments
        .iter()
        .filter(|segment| matches!(segment.role, Role::Active | Role::Sealed))
        .filter(|segment| !report.leftovers.contains(&format::segment_name(segment.sequence)))
        .map(|segment| segment.records)
        // A seal says how many, and a forged one says anything.
        .try_fold(0u64, |sum, records| Some(sum.saturating_add(records?)));
    report.findings.sort_by_key(|finding| (finding.segment, finding.bytes));
    merge_same_place(&mut report.findings);
    Ok(report)
}

/// What the table refused and what the full read found at the same place is one finding: the
/// table's sentence with the wider extent.
fn merge_same_place(findings: &mut Vec<Finding>) {
    let start = |finding: &Finding| (finding.segment, finding.bytes.map(|(from, _)| from));
    findings.dedup_by(|later, kept| {
        let same = start(later) == start(kept) && kept.bytes.is_some();
        if same {
            let to = later.bytes.max(kept.bytes).map_or(0, |(_, to)| to);
            kept.bytes = kept.bytes.map(|(from, own)| (from, own.max(to)));
        }
        same
    });
}

/// An empty directory is no log; a log whose segments are gone is a broken one.
pub(crate) fn no_segment(dir: &dyn Dir, facts: &Facts) -> Error {
    if !facts.any_log_file {
        return Error::not_a_log(dir.path(), "it holds no segment");
    }
    let path = dir.path().display();
    if let Err(error) = refuse_marked(dir, facts) {
        return error;
    }
    if facts.archive {
        return Error::new(
            ErrorKind::Corrupt,
            format!(
                "{path} is an archive without a segment: nothing was handed over to it yet, or they \
                 were moved or deleted. Its file ARCHIVE lists what should be there"
            ),
        );
    }
    let why = "it holds files of a log but no segment: they were moved or deleted";
    Error::new(
        ErrorKind::Corrupt,
        format!("{path} is not a whole log: {why}. Restore them or use a new directory"),
    )
}

/// What was broken off is no log: some of its segments may be there, and none need be whole. Nor
/// may a part be read as the whole where that is in doubt.
pub(crate) fn refuse_marked(dir: &dyn Dir, facts: &Facts) -> Result<()> {
    let path = dir.path().display();
    let why = match &facts.mark {
        Some(Mark::Unfinished(what)) => {
            format!("{path} is unfinished and not read as a log: {what}, and make it once more")
        }
        Some(mark @ (Mark::Doubtful | Mark::Irregular)) => {
            let why = if *mark == Mark::Irregular { IRREGULAR } else { DOUBTFUL };
            format!(
                "{path} may be unfinished and is not read as a log: {why}. Look at what is there \
                 with `wal salvage {path} --to NEW --dry-run` before you remove anything"
            )
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Archived, why))
}

/// What may be said of a mark that is none.
const DOUBTFUL: &str = "its file ARCHIVE is a mark or a manifest that lost its bytes: a copy was \
                        broken off here, or this is an archive";

const IRREGULAR: &str = "its file ARCHIVE is a link or no regular file, and is not followed";

fn note_mark(report: &mut Report, facts: &Facts) {
    let why = match &facts.mark {
        Some(Mark::Doubtful) => DOUBTFUL,
        Some(Mark::Irregular) => IRREGULAR,
        Some(Mark::DamagedManifest) => {
            "its file ARCHIVE is a manifest that begins with a zero byte"
        }
        _ => return,
    };
    let (state, why) = (State::Corrupt, why.to_owned());
    report.note(Finding { state, segment: None, bytes: None, lsns: None, why });
}
