//! The time, as a part that a test can replace.
//!
//! Never here: decisions. Invariant: what is decided by ([`Clock::now`]) never goes back; what is
//! read by people ([`Clock::wall_ms`]) is compared with nothing. Next room: [`crate::sweep`].

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a registry takes the time from: leases are judged by it, calls are measured by it.
pub trait Clock: Debug + Send + Sync {
    /// Time since some moment in the past that stays the same for this value. Never goes back.
    fn now(&self) -> Duration;

    /// Unix time in milliseconds, for people.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Counts from now.
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
