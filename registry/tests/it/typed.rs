//! Typed updates: a struct changes what it knows and nothing else.

use std::collections::HashMap;

use annals_registry::{Codec, ErrorKind, Key, Outcome, Registry, TxResult, Updated, Value};
use annals_wal::fs::mem::MemDir;
use serde::{Deserialize, Serialize};

use crate::support::{done, key, open};

#[derive(Serialize, Deserialize)]
struct Agent {
    status: String,
    #[serde(default)]
    retries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default)]
    tags: HashMap<String, u64>,
}

fn with(document: &str) -> (Registry, Key) {
    let registry = open(&MemDir::new(1));
    registry.put(&key("k"), Value::new(document.as_bytes(), Codec::JSON)).unwrap();
    (registry, key("k"))
}

fn text(registry: &Registry) -> String {
    String::from_utf8(registry.get(&key("k")).unwrap().value.bytes().to_vec()).unwrap()
}

#[test]
fn an_update_keeps_what_it_does_not_know() {
    let (registry, k) = with(r#"{"status":"working","cost":1.10,"error":"x","progress":[ 1 ]}"#);
    let updated = registry.update_json(&k, |agent: &mut Agent| {
        agent.status = "done".to_owned();
        agent.error = None;
    });
    assert_eq!(done(updated.unwrap()), Updated::Written);
    assert_eq!(text(&registry), r#"{"status":"done","cost":1.10,"progress":[ 1 ]}"#);
}

#[test]
fn nothing_changed_is_nothing_written() {
    let (registry, k) = with(r#"{ "status" : "working" }"#);
    let before = registry.log().durable_lsn();
    let updated = registry.update_json(&k, |_: &mut Agent| {});
    assert_eq!(done(updated.unwrap()), Updated::Unchanged);
    let absent = registry.update_json(&key("none"), |_: &mut Agent| panic!("not called"));
    assert_eq!(done(absent.unwrap()), Updated::Absent);
    assert_eq!(registry.log().durable_lsn(), before);
}

#[test]
fn what_cannot_be_merged_changes_nothing() {
    /// Reads back as something else than was written.
    #[derive(Serialize, Deserialize)]
    struct Odd {
        #[serde(rename(serialize = "a", deserialize = "b"))]
        n: u64,
    }
    let twice = r#"{"status":"a","u":1,"u":2}"#;
    for (document, odd) in [(twice, false), (r#"{"b":1}"#, true)] {
        let (registry, k) = with(document);
        let before = registry.log().durable_lsn();
        let error = if odd {
            registry.update_json(&k, |odd: &mut Odd| odd.n = 2).unwrap_err()
        } else {
            registry.update_json(&k, |a: &mut Agent| a.status = "b".into()).unwrap_err()
        };
        assert_eq!(error.kind(), ErrorKind::NotMergeable, "{document}: {error}");
        assert_eq!(text(&registry), document);
        assert_eq!(registry.log().durable_lsn(), before);
    }
}

#[test]
fn a_value_of_another_shape_is_a_decode_error() {
    let (registry, k) = with("[1]");
    let kind =
        |registry: &Registry| registry.update_json(&k, |_: &mut Agent| {}).unwrap_err().kind();
    assert_eq!(kind(&registry), ErrorKind::Decode);
    registry.put(&k, Value::bincode(&1_u64).unwrap()).unwrap();
    assert_eq!(kind(&registry), ErrorKind::Decode);
}

#[test]
fn updates_keep_the_lease_and_see_the_transactions_own_writes() {
    let registry = open(&MemDir::new(1));
    let lease = registry.grant(std::time::Duration::from_secs(1), "A7").unwrap();
    let outcome = registry.transact(|tx| -> TxResult<()> {
        tx.put_leased(&key("k"), Value::new(*b"{\"status\":\"a\"}", Codec::JSON), lease.id)?;
        assert_eq!(tx.update_json(&key("k"), |a: &mut Agent| a.retries = 3)?, Updated::Written);
        Ok(())
    });
    assert!(matches!(outcome, Ok(Outcome::Done { .. })));
    assert_eq!(text(&registry), r#"{"status":"a","retries":3}"#);
    assert_eq!(registry.get(&key("k")).unwrap().lease, Some(lease.id));
}

/// serde's usual way with a part that is mostly absent: a default is left out of the text.
#[test]
fn a_part_that_the_struct_leaves_out_keeps_its_unknown_members() {
    #[derive(Serialize, Deserialize, Default, PartialEq)]
    struct Limits {
        #[serde(default)]
        tokens: u64,
    }
    #[derive(Serialize, Deserialize)]
    struct Agent {
        #[serde(default, skip_serializing_if = "is_default")]
        limits: Limits,
    }
    fn is_default(limits: &Limits) -> bool {
        *limits == Limits::default()
    }
    let (registry, k) = with(r#"{"limits":{"cost":1.50,"tokens":0}}"#);
    let outcome = registry.update_json(&k, |agent: &mut Agent| agent.limits.tokens = 7);
    assert_eq!(done(outcome.unwrap()), Updated::Written);
    assert_eq!(text(&registry), r#"{"limits":{"cost":1.50,"tokens":7}}"#);
}
