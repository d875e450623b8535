//! The registry's tests on the log's crashable memory directory, one binary.
//!
//! Where to look: `keys`, `values`, `calls` (each call's contract), `transact` (what one attempt
//! may see, forced by hand), `released` (nothing leaves before it is durable), `poison`, `rebuild`,
//! `model` (random calls against a `BTreeMap`), `threads` and `races`, `crash`.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod crash;
mod forked;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod model;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod races;
#[cfg(test)]
mod rebuild;
#[cfg(test)]
mod released;
#[cfg(test)]
mod support;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod transact;
#[cfg(test)]
mod values;
