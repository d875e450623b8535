//! What can be read: runs of sound frames, file by file, then merged by LSN.
//!
//! Never here: writing. A file counts as the segment that its header says, whatever its name; a
//! header that is lost is put together from the frames. Invariant: memory is by the number of
//! damages, not of records. Next rooms: [`super::known`], [`super::write`].

use std::sync::Arc;

use super::known::{self, Claim, Extent, Told};
use super::{SalvageOptions, SalvageReport, SourceReport};
use crate::diagnose::salt::header_from_frames;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, APPEND_NAME, HeaderVerdict, Hold, OwnBody, SegmentHeader};
use crate::fs::{Access, Dir, File};
use crate::ids::{Generation, LogId, Lsn};
use crate::recover::Facts;
use crate::recover::facts::{SegmentFacts, reading};
use crate::scan::{Frame, Step, Walker};
use crate::window::Window;

/// A run of sound frames in one file; LSNs without a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) source: usize,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// A file to read from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: Arc<dyn File>,
    pub(super) name: String,
    pub(super) header: SegmentHeader,
    pub(super) len: u64,
}

/// What a log still has.
#[derive(Debug)]
pub(super) struct Harvest {
    pub(super) sources: Vec<Source>,
    pub(super) runs: Vec<Run>,
    /// The LSN after the last one that it is known to have had.
    pub(super) next: u64,
    /// First and last LSN that can be read, from the head on.
    pub(super) readable: Option<(Lsn, Lsn)>,
    pub(super) generation: Generation,
    /// Whether it was made for several processes: so is what is made of it, or a repair would lock
    /// out those who open it as they always did.
    pub(super) shared: bool,
    pub(super) head: Lsn,
    pub(super) holds: Vec<Hold>,
    pub(super) snapshots: Vec<Lsn>,
    /// LSNs that the segments that are there once had, by their own word, and that no run has.
    pub(super) unreadable: Vec<(Lsn, Lsn)>,
    pub(super) report: SalvageReport,
}

impl Harvest {
    pub(super) fn of(
        dir: &dyn Dir,
        options: SalvageOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Harvest> {
        let facts = Facts::read(dir)?;
        if facts.segments.is_empty() {
            return Err(crate::inspect::no_segment(dir, &facts));
        }
        let log_id = most(&facts).unwrap_or(LogId([0; 16]));
        let mut gather = Gather::new(log_id);
        let mut sources: Vec<(bool, Source)> = Vec::new();
        for segment in &facts.segments {
            if let Some(source) = gather.source(dir, segment)? {
                let own_name = source.header.sequence == segment.sequence;
                sources.push((!own_name, source));
            }
        }
        // A segment's own file before any copy of it.
        sources.sort_by_key(|(copy, source)| (source.header.sequence, *copy));
        for (_, source) in sources {
            gather.read(dir, source)?;
            progress(gather.sources.last().map_or(0, |source| source.len));
        }
        gather.shared = made_shared(dir, &facts, gather.log_id);
        let (snapshots, no_snapshots) = known::snapshots(dir, gather.log_id)?;
        gather.left_out.extend(no_snapshots);
        gather.finish(&facts, snapshots, options)
    }
}

/// What the highest header that can be read says; where none can, whether the lock of turns is there,
/// which a log of one process never had.
fn made_shared(dir: &dyn Dir, facts: &Facts, log_id: LogId) -> bool {
    let headers = facts.segments.iter().rev().filter_map(SegmentFacts::good_header);
    let mut ours = headers.filter(|header| header.log_id == log_id);
    ours.next().map_or_else(|| dir.status(APPEND_NAME).is_ok(), |header| header.shared)
}

/// The id that most segments bear.
fn most(facts: &Facts) -> Option<LogId> {
    let ids = || facts.segments.iter().filter_map(SegmentFacts::good_header).map(|h| h.log_id);
    ids().max_by_key(|id| ids().filter(|other| other == id).count())
}

struct Gather {
    log_id: LogId,
    sources: Vec<Source>,
    reports: Vec<SourceReport>,
    left_out: Vec<(String, String)>,
    runs: Vec<Run>,
    generation: Generation,
    shared: bool,
    /// The highest head that an own record names.
    head: Option<Lsn>,
    /// The highest LSN that a frame proves and that need not be in a run.
    told: u64,
    /// The newest holds read: LSN, offset and what they are.
    holds: (u64, Vec<Hold>),
}

impl Gather {
    fn new(log_id: LogId) -> Gather {
        Gather {
            log_id,
            sources: Vec::new(),
            reports: Vec::new(),
            left_out: Vec::new(),
            runs: Vec::new(),
            generation: Generation::FIRST,
            shared: false,
            head: None,
            told: 0,
            holds: (0, Vec::new()),
        }
    }

    /// A file as a source, or a note why it is none.
    fn source(&mut self, dir: &dyn Dir, segment: &SegmentFacts) -> Result<Option<Source>> {
        let name = format::segment_name(segment.sequence);
        let mut leave = |why: String| {
            self.left_out.push((name.clone(), why));
            Ok(None)
        };
        if segment.irregular {
            return leave("it is no regular file".to_owned());
        }
        let failed = |e| reading(dir, &name, e);
        let file = dir.open(&name, Access::Read).map_err(failed)?;
        let len = segment.file_len;
        let header = match &segment.header {
            HeaderVerdict::Unsupported(what) => {
                let why = format!("{name} was written by a newer version ({what}): use that one");
                return Err(Error::new(ErrorKind::Unsupported, why));
            }
            HeaderVerdict::Good(header) if header.log_id != self.log_id => {
                return leave(format!("it belongs to another log, {}", header.log_id));
            }
            HeaderVerdict::Good(header) => *header,
            HeaderVerdict::Bad(why) => {
                let mut window = Window::limited(file.clone(), len);
                let found = header_from_frames(&mut window, segment.sequence, self.log_id);
                match found.map_err(failed)? {
                    Some(header) if self.log_id == LogId([0; 16]) => {
                        self.log_id = header.log_id;
                        header
                    }
                    Some(header) if header.log_id == self.log_id => header,
                    Some(_) => return leave("its frames belong to another log".to_owned()),
                    None => return leave(format!("{why}, and no frames tell its salt")),
                }
            }
        };
        Ok(Some(Source { file, name, header, len: len.min(header.capacity) }))
    }

    /// Walks one file.
    fn read(&mut self, dir: &dyn Dir, source: Source) -> Result<()> {
        let failed = |e| reading(dir, &source.name, e);
        let window = Window::limited(source.file.clone(), source.len);
        let mut walker = Walker::new(window, &source.header);
        let (index, mut run, mut records) = (self.sources.len(), None, 0);
        let mut told = Told::default();
        while let Some(step) = walker.step().map_err(failed)? {
            told.step(&step);
            match step {
                Step::Frame(frame) if frame.trouble.is_none() && frame.header.is_own() => {
                    self.own(&frame, walker.payload(&frame).map_err(failed)?);
                    self.end(&mut run);
                }
                Step::Frame(frame) if frame.trouble.is_none() => {
                    records += 1;
                    self.record(index, &frame, &mut run);
                }
                _ => self.end(&mut run),
            }
        }
        self.end(&mut run);
        self.told = self.told.max(told.last_lsn());
        self.reports.push(SourceReport {
            name: source.name.clone(),
            sequence: source.header.sequence,
            records,
            header_from_frames: source.header.created_ms == 0,
        });
        self.sources.push(source);
        Ok(())
    }

    /// A later head and later holds count, wherever they stand.
    fn own(&mut self, frame: &Frame, payload: &[u8]) {
        let Ok(body) = OwnBody::decode(payload) else { return };
        self.generation = self.generation.max(body.generation.unwrap_or(Generation::FIRST));
        self.head = self.head.max(body.head);
        if body.head.is_some() && frame.header.lsn >= self.holds.0 {
            self.holds = (frame.header.lsn, body.holds);
        }
    }

    fn record(&mut self, source: usize, frame: &Frame, run: &mut Option<Run>) {
        let lsn = frame.header.lsn;
        match run {
            Some(run) if run.to == frame.offset && run.last.checked_add(1) == Some(lsn) => {
                (run.to, run.last) = (frame.end(), lsn);
            }
            _ => {
                self.end(run);
                let (from, to) = (frame.offset, frame.end());
                *run = Some(Run { source, from, to, first: lsn, last: lsn });
            }
        }
    }

    fn end(&mut self, run: &mut Option<Run>) {
        self.runs.extend(run.take());
    }

    /// Merges the runs: each LSN once, lowest first, from the head on, to the last one known.
    fn finish(
        mut self,
        facts: &Facts,
        snapshots: Vec<Claim>,
        options: SalvageOptions,
    ) -> Result<Harvest> {
        if facts.archive && facts.unfinished().is_none() {
            // An archive keeps just what its log's later trims let go of (`crate::view` has it so).
            self.head = None;
        }
        self.runs.sort_by_key(|run| (run.first, run.source));
        let begin = self.head.unwrap_or(Lsn::FIRST);
        let read = self.runs.iter().map(|run| run.last).max().unwrap_or(0);
        let own = Extent::of(&self.runs, begin, read.max(self.told));
        // What others say is followed as far as there is room for placeholders, and never a reason to
        // refuse: a header of 128 bytes would else cost every record that can be read.
        let room = options.fill_max.saturating_sub(known::count(&own.all_lost()));
        let limit = (own.next - 1).saturating_add(room);
        let claims = known::outside(facts, self.log_id, &snapshots);
        let (believed, claims): (Vec<Claim>, Vec<Claim>) =
            claims.into_iter().partition(|(_, lsn)| lsn.get() <= limit);
        let last = believed.iter().map(|(_, lsn)| lsn.get()).max().unwrap_or(0);
        let extent = Extent::of(&self.runs, begin, last.max(own.next - 1));
        let Extent { head, end, next, .. } = extent;
        let open = known::unreadable(facts, begin, (head.get(), end), &extent.lost);
        let lost = extent.all_lost();
        let filled = known::check_filled(&lost, options)?;
        let snapshots = snapshots.into_iter().map(|(_, lsn)| lsn).filter(|lsn| lsn.get() < next);
        let begin = known::begin(facts, self.log_id, self.head);
        let report = SalvageReport {
            log_id: self.log_id,
            first_lsn: head,
            last_lsn: Lsn::new(next - 1).filter(|last| *last >= head),
            kept: (next - head.get()) - filled,
            payload_bytes: 0,
            begin,
            before: begin.and_then(|begin| known::range(begin.get(), head.get() - 1)),
            lost,
            broken_batches: Vec::new(),
            sources: self.reports,
            left_out: self.left_out,
            claims,
            segments: 0,
            snapshots: 0,
        };
        Ok(Harvest {
            snapshots: snapshots.collect(),
            unreadable: open,
            sources: self.sources,
            runs: self.runs,
            next,
            readable: known::range(head.get(), end - 1),
            generation: self.generation.next(),
            shared: self.shared,
            head,
            // One below the head holds what is left of what it held: without it the next trim would
            // take records that an archive or a registry has not got.
            holds: {
                let clamped = |hold: Hold| Hold { lsn: hold.lsn.max(head), ..hold };
                self.holds.1.into_iter().map(clamped).collect()
            },
            report,
        })
    }
}
