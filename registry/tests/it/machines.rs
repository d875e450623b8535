//! State machines: refusals name what is allowed, lost races are values, tables mean what they say.

use std::collections::BTreeSet;
use std::thread;

use annals_registry::{
    AgentLife, AgentTurn, Codec, ErrorKind, Transition, Value, agent_life, agent_turn,
};
use annals_wal::fs::mem::MemDir;

use crate::support::{key, open, open_patient};

#[test]
fn a_refusal_names_the_allowed_next_states_and_changes_nothing() {
    let registry = open(&MemDir::new(1));
    registry.put_json(&key("k"), &AgentLife::Working).unwrap();
    let before = registry.log().durable_lsn();
    let refused = |from, to| {
        let error = registry.transition(&agent_life(), &key("k"), from, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        error.to_string()
    };
    let message = refused(AgentLife::Working, AgentLife::Starting);
    assert_eq!(
        message,
        "a agent does not go from `working` to `starting`: from `working` it goes to `blocked`, \
         `reviewing`, `completed`, `failed`, `terminated`"
            .replace("a agent", "agent: it")
    );
    let message = refused(AgentLife::Terminated, AgentLife::Working);
    assert!(message.ends_with("nothing follows `terminated`"), "{message}");
    assert_eq!(registry.log().durable_lsn(), before);
}

#[test]
fn a_state_that_is_another_one_is_told() {
    let registry = open(&MemDir::new(1));
    let go = |from, to| registry.transition(&agent_turn(), &key("k"), from, to).unwrap();
    let absent = go(AgentTurn::UserInput, AgentTurn::Assistant);
    assert_eq!(absent, Transition::Elsewhere { current: None });
    registry.put_json(&key("k"), &AgentTurn::UserInput).unwrap();
    assert!(matches!(go(AgentTurn::UserInput, AgentTurn::Assistant), Transition::Done(_)));
    let lost = go(AgentTurn::UserInput, AgentTurn::Assistant);
    assert_eq!(lost, Transition::Elsewhere { current: Some(AgentTurn::Assistant) });
}

#[test]
fn a_state_in_a_member_leaves_the_rest_alone() {
    let registry = open(&MemDir::new(1));
    let document = br#"{"id":"A7","status":"working","cost":1.50}"#;
    registry.put(&key("k"), Value::new(*document, Codec::JSON)).unwrap();
    let life = agent_life().in_member("status");
    let (from, to) = (AgentLife::Working, AgentLife::Completed);
    assert!(matches!(registry.transition(&life, &key("k"), from, to), Ok(Transition::Done(_))));
    let stored = registry.get(&key("k")).unwrap();
    assert_eq!(stored.value.bytes(), br#"{"id":"A7","status":"completed","cost":1.50}"#);
    registry.put_json(&key("k"), &[1]).unwrap();
    let error = registry.transition(&life, &key("k"), from, to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
}

/// Of many that would take one step, one takes it.
#[test]
fn one_of_many_makes_a_transition() {
    let registry = open_patient(&MemDir::new(1));
    registry.put_json(&key("k"), &AgentLife::Registered).unwrap();
    let won: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let (from, to) = (AgentLife::Registered, AgentLife::Starting);
                    match registry.transition(&agent_life(), &key("k"), from, to).unwrap() {
                        Transition::Done(_) => 1,
                        Transition::Elsewhere { current } => {
                            assert_eq!(current, Some(AgentLife::Starting));
                            0
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
}

/// Every state is reached, ends are ends, and an active agent can always be ended.
#[test]
fn the_table_of_an_agents_life_is_sound() {
    let life = agent_life();
    let states: BTreeSet<AgentLife> =
        life.transitions().iter().flat_map(|(from, to)| [*from, *to]).collect();
    assert_eq!(states.len(), 8);
    for state in states {
        assert_eq!(life.next(&state).next().is_none(), state.is_end(), "{state:?}");
        assert!(state.is_end() || life.allows(&state, &AgentLife::Terminated), "{state:?}");
        assert!(!(state.is_end() && state.is_active()));
    }
    assert!(life.to_string().contains("`working` -> `completed`"));
}
