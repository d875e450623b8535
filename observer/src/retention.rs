//! Retention: how much of a log is kept, by age, by size, by count, and never past a hold.
//!
//! Never here: an unlink; the log's own trim removes, as far as archives, registry and open calls
//! allow. Invariant: a start is kept until what ends it, or writes it off, is durable; one of an
//! earlier opening, too. Next room: [`crate::archive`].

use annals_wal::inspect::{Depth, Role, SegmentReport, inspect_in};
use annals_wal::{Log, Lsn};

use crate::clock::WallTime;
use crate::error::Result;
use crate::observer::Observer;

/// The observer's own hold.
pub const HOLD: &str = "observer";

/// What to keep. Each condition drops what it does not keep; none keeps everything. Whole segments
/// are dropped, so more is kept than asked, never less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "nothing is dropped before Observer::retain is called"]
pub struct Retention {
    records_max: Option<u64>,
    bytes_max: Option<u64>,
    since: Option<WallTime>,
}

impl Retention {
    /// Keeps everything.
    pub fn new() -> Retention {
        Retention::default()
    }

    /// Keeps the last so many records.
    pub fn records_max(mut self, count: u64) -> Retention {
        self.records_max = Some(count);
        self
    }

    /// Keeps the newest segments, as many as fit into so many bytes of files, and always the active
    /// one.
    pub fn bytes_max(mut self, bytes: u64) -> Retention {
        self.bytes_max = Some(bytes);
        self
    }

    /// Keeps what was written at this time or later, as the seals of the segments say: a segment is
    /// as old as its last record, by the wall clock of that moment. A segment is dropped only if it
    /// and all before it are too old. So where the clock has stepped back, nothing goes early: what
    /// was written before the step is kept until `time` has passed its own, later date, and all
    /// after it with it; bound that by [`Retention::records_max`] or [`Retention::bytes_max`]. Only a
    /// step inside of a segment is not seen: records of that one segment that carry later dates
    /// than its last go with it.
    pub fn since(mut self, time: WallTime) -> Retention {
        self.since = Some(time);
        self
    }
}

impl Observer {
    /// Drops what the policy does not keep, as far as all holds allow, and returns the log's new
    /// head. Durable on return. The observer's hold moves first: to the oldest start whose end, or
    /// write-off, is not durable. A start that an earlier opening left open is kept until
    /// [`Observer::recover`] has written it off; call that first. Let one observer of a log do
    /// this: it does not know of calls that are open at another, and on a
    /// log that several processes share it is refused.
    ///
    /// # Errors
    /// `Log` (on a shared log `Sharing` is behind it).
    ///
    /// ```
    /// use annals_observer::{JsonText, Observer, Retention};
    /// use annals_wal::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let log = Options::new().segment_bytes(64 << 10).open(dir.path().join("log"))?;
    /// let observer = Observer::on(log)?;
    /// for _ in 0..60 {
    ///     observer.session("s-1")?.error(JsonText::string(&"x".repeat(4000)))?;
    /// }
    /// let head = observer.retain(Retention::new().records_max(10))?;
    /// assert!(head.get() > 1 && head.get() <= 51);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retain(&self, policy: Retention) -> Result<Lsn> {
        let log = self.log();
        log.check_process()?;
        // One hold keeps the open calls of one observer.
        log.check_alone("Observer::retain")?;
        let old = self.old_floor()?;
        let (oldest, next) = {
            let state = self.drain().lock();
            let next = log.durable_lsn().and_then(Lsn::next).unwrap_or(Lsn::FIRST);
            (state.open.floor().into_iter().chain(old).min(), next)
        };
        let hold = oldest.map_or(next, |floor| floor.min(next)).max(log.head_lsn());
        if log.holds().iter().all(|(name, lsn)| name != HOLD || *lsn != hold) {
            log.set_hold(HOLD, hold)?;
        }
        Ok(log.trim(limit(log, policy, next)?)?)
    }
}

/// The first LSN that the policy keeps.
fn limit(log: &Log, policy: Retention, next: Lsn) -> Result<Lsn> {
    let mut limit = log.head_lsn();
    if let Some(count) = policy.records_max {
        limit = limit.max(Lsn::new(next.get().saturating_sub(count)).unwrap_or(Lsn::FIRST));
    }
    if policy.bytes_max.is_none() && policy.since.is_none() {
        return Ok(limit);
    }
    let mut segments = inspect_in(log.dir(), Depth::Seals, &mut |_| ())?.segments;
    segments.retain(|segment| segment.role != Role::Prepared);
    if let Some(max) = policy.bytes_max {
        let mut kept_bytes = 0u64;
        let mut too_large = segments.iter().rev().filter(|segment| {
            kept_bytes = kept_bytes.saturating_add(segment.file_bytes);
            segment.role == Role::Sealed && kept_bytes > max
        });
        // One that was sealed without a record has nothing behind which one could trim.
        limit = limit.max(too_large.find_map(after).unwrap_or(limit));
    }
    if let Some(since) = policy.since {
        // The clock may have stepped back: what lies before a segment that is too old may be
        // younger by its own times, and is kept.
        let passed = segments.iter().map(|segment| (segment, age(segment, since)));
        let passed = passed.take_while(|(_, age)| *age != Age::Young);
        let too_old = passed.filter(|(_, age)| *age == Age::Old);
        limit =
            limit.max(too_old.filter_map(|(segment, _)| after(segment)).last().unwrap_or(limit));
    }
    Ok(limit)
}

/// The first LSN behind a segment.
fn after(segment: &SegmentReport) -> Option<Lsn> {
    segment.lsns.and_then(|(_, last)| last.next())
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Age {
    /// All of it was written before.
    Old,
    Young,
    /// An opening sealed it after an unclean end, and nobody knows when its records came; or it has
    /// none. It goes with the next that is old. (Such a one kept everything behind it for ever.)
    Unknown,
}

/// Whether a segment was written before this time.
fn age(segment: &SegmentReport, since: WallTime) -> Age {
    if segment.role != Role::Sealed {
        return Age::Young;
    }
    // Not when the next one was made: it may have waited for its turn for days. The millisecond of
    // an append is cut off, so what is dropped is older than all of it.
    let last = segment.last_append_ms.filter(|ms| *ms > 0);
    match last.map(|ms| (i128::from(ms) + 1) * 1_000_000) {
        None => Age::Unknown,
        Some(end) if end <= i128::from(since.0) => Age::Old,
        Some(_) => Age::Young,
    }
}
