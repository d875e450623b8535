//! A world: one log on a crashable disk, with a registry and an observer on it, and a model that
//! knows what must be there. The sweeps and the simulation both live in it.
//!
//! [`act`]: what can happen, as plain data. [`life`]: does it. [`model`]: what must be true
//! afterwards. [`damage`]: bytes that go bad, on a copy; [`forge`]: the same with good checksums.
//! [`generate`]: acts from a seed. [`together`]: the same for two processes that share a log.
//! Never here: threads, clocks, chance that does not come from a seed.

pub mod act;
pub mod damage;
pub mod forge;
pub mod generate;
pub mod life;
pub mod model;
pub mod random;
pub mod together;

pub use act::{Act, Then};
pub use life::{Life, Tally, World};
pub use model::Model;
pub use random::Random;
