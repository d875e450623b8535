//! The observer's tests, one binary so that they link once.
//!
//! Each module asks one question; helpers that more than one needs are in `common`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy sees helpers of tests as libraries; a failure in one is its test's failure"
)]

mod archives;
mod async_forms;
mod batched;
mod codec;
mod common;
mod delivery;
mod disguised;
mod excused;
mod exports;
mod finding;
mod handed_on;
mod imports;
mod json_lines;
mod json_text;
mod late_ends;
mod left_waiting;
mod mended;
mod nine_bugs;
mod open_calls;
mod pairing;
mod panics;
mod real_input;
mod redaction;
mod resume;
mod reviewed;
mod secrets;
mod sessions;
#[cfg(feature = "sqlite")]
mod sqlite;
mod trajectories;
mod truth;
mod waits;
