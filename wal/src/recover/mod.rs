//! Recovery: facts are read, a pure table decides, one function repairs.
//!
//! Never here: a repair outside [`apply`]. The walk is forward, once: [`facts`] (reads only) ->
//! [`decide`](mod@decide) (pure: no I/O, no clock) -> [`apply`] (the only code that repairs) ->
//! [`crate::writer`]. `wal inspect` stops after the second step.
//! Invariant: a crash at any point inside `apply` recovers to the same log.

pub mod decide;
pub mod facts;
pub mod plan;

pub(crate) mod apply;
mod refusal;
mod set;

pub use decide::decide;
pub use facts::{Facts, SegmentFacts};
pub use plan::{ActivePlan, Cut, Decision, NextSegment, Plan, Refusal, RefusalKind, Row};
pub(crate) use set::{is_gap, trusted_control};
