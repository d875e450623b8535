//! The registry's tests on the log's crashable memory directory, one binary.
//!
//! Where to look: `keys`, `values`, `calls` (each call's contract), `transact` (what one attempt
//! may see, forced by hand), `released` (nothing leaves before it is durable), `poison`, `rebuild`,
//! `leases`, `writers`, `typed`, `machines`, `watches`, `history`, `checkpoint`, `reading`,
//! `import`, `metrics` (each room's promises and its bad input), `bad_input` (the list of issue 5),
//! `linear` (histories over crashes and their checker), `invariants` (and bad registries),
//! `seeds_own` (what the field reports ask for),
//! `model` (random calls against a `BTreeMap`), `threads` and `races`, `crash`,
//! `processes` (several on one log).

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod checkpoint;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod forked;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod history;
#[cfg(test)]
mod import;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod linear;
#[cfg(test)]
mod machines;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod model;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod races;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod rebuild;
#[cfg(test)]
mod released;
#[cfg(test)]
mod seeds_own;
#[cfg(test)]
mod support;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod transact;
#[cfg(test)]
mod typed;
#[cfg(test)]
mod values;
#[cfg(test)]
mod watches;
#[cfg(test)]
mod writers;
