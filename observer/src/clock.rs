//! The two clocks of an entry: wall time for people, monotonic time for durations.
//!
//! Never here: an order. Tickets order entries; no decision hangs on a clock. It is a seam so that
//! a test can state how long a call took instead of sleeping. Invariant: monotonic time never goes
//! back. Next room: [`crate::drain`].

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

/// Wall-clock time: nanoseconds since the Unix epoch. It may jump, and two machines differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WallTime(pub i64);

/// Monotonic time: nanoseconds since an origin that only one observer instance knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// The time from `start` to this; zero if `start` is later.
    pub fn since(self, start: MonoTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(start.0))
    }
}

/// Where an observer reads the time. [`SystemClock`] outside tests.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock now.
    fn wall(&self) -> WallTime;
    /// The monotonic clock now: never less than what it said before.
    fn mono(&self) -> MonoTime;
}

/// The machine's clocks; monotonic time counts from when this was made.
#[derive(Clone, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> SystemClock {
        SystemClock { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> WallTime {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => WallTime(nanos(after)),
            Err(before) => WallTime(-nanos(before.duration())),
        }
    }

    fn mono(&self) -> MonoTime {
        MonoTime(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// RFC 3339, in UTC.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
