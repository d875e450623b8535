//! Two logs side by side, record by record, as far as each can be read.
//!
//! Never here: payloads; a record is compared by header and payload checksum, after both were found
//! sound. Invariant: every LSN that either log can show is counted once. Next room:
//! [`super::harvest`].

use std::path::Path;

use super::SalvageOptions;
use super::harvest::Harvest;
use crate::error::{Error, Location, Result};
use crate::format::{FRAME_HEADER_LEN, FrameHeader};
use crate::fs::{Dir, os::OsDir};
use crate::ids::{LogId, Lsn};
use crate::record::Kind;
use crate::recover::facts::reading;
use crate::scan::Source as _;
use crate::window::Window;

/// First and last LSN, if there is any.
pub type LsnRange = Option<(Lsn, Lsn)>;

/// What two logs have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Their ids.
    pub log_ids: (LogId, LogId),
    /// First and last LSN that can be read in each.
    pub lsns: (LsnRange, LsnRange),
    /// Records that are the same in both.
    pub same: u64,
    /// Runs of LSNs, lowest first, whose records differ in some way.
    pub differences: Vec<Difference>,
    /// How many LSNs each log once had, from its head on, and cannot show: they were not compared. What
    /// whole files had that are gone is not counted.
    pub unreadable: (u64, u64),
}

/// A run of LSNs with the same difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Difference {
    /// First LSN.
    pub first: Lsn,
    /// Last LSN.
    pub last: Lsn,
    /// What differs.
    pub sort: Sort,
}

/// How a record differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sort {
    /// Only the first log can show it.
    OnlyFirst,
    /// Only the second log can show it.
    OnlySecond,
    /// The second log has a placeholder for it ([`Kind::LOST`]), and the first cannot show it.
    LostInBoth,
    /// The second log has a placeholder for it, and the first can show it.
    LostInSecond,
    /// The first log has a placeholder for it, and the second can show it.
    LostInFirst,
    /// Both show one, and they are not the same.
    Different,
}

/// Compares two logs. Neither is written to; damage in either is passed over.
///
/// # Errors
/// `NotALog`, `Unsupported`, `Io`.
pub fn compare(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Result<Comparison> {
    compare_in(&OsDir::new(a.as_ref()), &OsDir::new(b.as_ref()))
}

/// [`compare`] on any file system behind the seam.
///
/// # Errors
/// As [`compare`].
pub fn compare_in(a: &dyn Dir, b: &dyn Dir) -> Result<Comparison> {
    let options = SalvageOptions { fill_max: u64::MAX, ..SalvageOptions::default() };
    let (first, second) =
        (Harvest::of(a, options, &mut |_| ())?, Harvest::of(b, options, &mut |_| ())?);
    let mut comparison = Comparison {
        log_ids: (first.report.log_id, second.report.log_id),
        lsns: (first.readable, second.readable),
        same: 0,
        differences: Vec::new(),
        unreadable: (count(&first.unreadable), count(&second.unreadable)),
    };
    let (mut left, mut right) = (Headers::of(a, &first), Headers::of(b, &second));
    let (mut one, mut two) = (left.next()?, right.next()?);
    loop {
        let lsn = match (&one, &two) {
            (None, None) => return Ok(comparison),
            (Some(one), Some(two)) => one.lsn.min(two.lsn),
            (Some(one), None) => one.lsn,
            (None, Some(two)) => two.lsn,
        };
        let (l, r) = (one.filter(|h| h.lsn == lsn), two.filter(|h| h.lsn == lsn));
        comparison.add(lsn, l, r);
        if l.is_some() {
            one = left.next()?;
        }
        if r.is_some() {
            two = right.next()?;
        }
    }
}

fn count(ranges: &[(Lsn, Lsn)]) -> u64 {
    let counts = ranges.iter().map(|(first, last)| (last.get() - first.get()).saturating_add(1));
    counts.fold(0, u64::saturating_add)
}

impl Comparison {
    fn add(&mut self, lsn: u64, left: Option<FrameHeader>, right: Option<FrameHeader>) {
        let lost = |header: &FrameHeader| header.kind == Kind::LOST.get();
        let sort = match (left, right) {
            (Some(l), Some(r)) if is_same(&l, &r) => {
                self.same += 1;
                return;
            }
            (Some(_), Some(r)) if lost(&r) => Sort::LostInSecond,
            (Some(l), Some(_)) if lost(&l) => Sort::LostInFirst,
            (Some(_), Some(_)) => Sort::Different,
            (None, Some(r)) if lost(&r) => Sort::LostInBoth,
            (None, _) => Sort::OnlySecond,
            (_, None) => Sort::OnlyFirst,
        };
        let Some(lsn) = Lsn::new(lsn) else { return };
        match self.differences.last_mut() {
            Some(run) if run.sort == sort && run.last.next() == Some(lsn) => run.last = lsn,
            _ => self.differences.push(Difference { first: lsn, last: lsn, sort }),
        }
    }
}

/// Batch flags do not count: a salvage keeps what is left of a broken batch record by record.
fn is_same(a: &FrameHeader, b: &FrameHeader) -> bool {
    let content = |h: &FrameHeader| (h.payload_crc, h.len, h.stream, h.kind, h.codec);
    content(a) == content(b)
}

/// The sound record headers of a log, each LSN once.
struct Headers<'a> {
    dir: &'a dyn Dir,
    harvest: &'a Harvest,
    run: usize,
    at: u64,
    window: Option<Window>,
    next: u64,
}

impl<'a> Headers<'a> {
    fn of(dir: &'a dyn Dir, harvest: &'a Harvest) -> Headers<'a> {
        let next = harvest.head.get();
        Headers { dir, harvest, run: 0, at: 0, window: None, next }
    }

    fn next(&mut self) -> Result<Option<FrameHeader>> {
        while let Some(run) = self.harvest.runs.get(self.run) {
            let source = &self.harvest.sources[run.source];
            if self.window.is_none() {
                self.at = run.from;
                self.window = Some(Window::limited(source.file.clone(), source.len));
            }
            let Some(window) = self.window.as_mut().filter(|_| self.at < run.to) else {
                (self.run, self.window) = (self.run + 1, None);
                continue;
            };
            let bytes = window.bytes(self.at, FRAME_HEADER_LEN);
            let bytes = bytes.map_err(|e| reading(self.dir, &source.name, e))?;
            let header = bytes.first_chunk();
            let header = header.and_then(|b| FrameHeader::decode(b, source.header.salt, self.at));
            let Some(header) = header else {
                let why = "the log changed while it was read: try again";
                return Err(Error::corrupt(why, Location::default()));
            };
            self.at += header.frame_size();
            if header.lsn >= self.next {
                self.next = header.lsn.saturating_add(1);
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}
