//! What must hold in every state of the model, and what must be possible.
//!
//! Never here: steps. Next room: [`super::protocol`].

use stateright::Property;

use super::protocol::{Protocol, State, Store};

/// A claim about one state.
pub type Claim = fn(&Protocol, &State) -> bool;

/// What must hold in every state.
pub const ALWAYS: [(&str, Claim); 5] = [
    ("no lost update", no_lost_update),
    ("no acknowledged loss", no_acknowledged_loss),
    ("no two holders", no_two_holders),
    ("nobody sees what is not durable", views_are_durable),
    ("a look shows what was acknowledged", looks_are_fresh),
];

/// What some state must show: else the bounds are too small for the claims to say anything.
pub const MUST_HAPPEN: [(&str, Claim); 4] = [
    ("everybody finishes", |_, state| state.procs.iter().all(|p| p.left == 0)),
    ("a member recovers after another", |_, state| state.recovered_while_shared),
    ("a power cut is recovered from", |model, state| {
        state.power_cuts < model.bounds.power_cuts
            && state.procs.iter().any(|p| p.phase.has_a_view())
    }),
    ("a failed sync is outlived", |model, state| {
        state.sync_errors < model.bounds.sync_errors && state.procs.iter().all(|p| p.left == 0)
    }),
];

/// All of them, for the checker.
pub fn properties() -> Vec<Property<Protocol>> {
    let always = ALWAYS.map(|(name, claim)| Property::always(name, claim));
    let happens = MUST_HAPPEN.map(|(name, claim)| Property::sometimes(name, claim));
    always.into_iter().chain(happens).collect()
}

/// Each increment was made to the value that the one before it left.
fn no_lost_update(_: &Protocol, state: &State) -> bool {
    let whole = state.records.iter().take_while(|record| record.whole);
    whole.zip(1..).all(|(record, due)| record.value == due)
}

/// What was acknowledged stands in its place, and everything before it, and a power cut now would
/// change nothing of that.
fn no_acknowledged_loss(_: &Protocol, state: &State) -> bool {
    state.acknowledged.iter().all(|(at, id)| {
        let at = usize::from(*at);
        let there = state.records.get(at).is_some_and(|record| record.id == *id);
        there && durable(state, at + 1)
    })
}

fn no_two_holders(_: &Protocol, state: &State) -> bool {
    state.procs.iter().filter(|process| process.phase.holds_append()).count() <= 1
}

/// A view ends where something durable does: an own record counts in it from its sync on.
fn views_are_durable(_: &Protocol, state: &State) -> bool {
    let mut living = state.procs.iter().filter(|process| process.phase.has_a_view());
    living.all(|process| durable(state, usize::from(process.seen)))
}

/// Whoever was told may tell another process, which then looks: at what `CONTROL` says.
fn looks_are_fresh(_: &Protocol, state: &State) -> bool {
    let anybody_looks = state.procs.iter().any(|process| process.phase.has_a_view());
    !anybody_looks || state.acknowledged.iter().all(|(at, _)| *at < state.control.end)
}

fn durable(state: &State, count: usize) -> bool {
    let kept = |record: &super::protocol::Record| record.whole && record.store == Store::Disk;
    state.records.len() >= count && state.records[..count].iter().all(kept)
}
