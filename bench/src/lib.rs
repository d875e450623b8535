//! The room of the benches. Speed is measured here and nowhere in the tests.
//!
//! Never here: comparisons with other engines; they come with a manifest of their own.
