//! The merge alone: what stays byte for byte, what goes, what cannot be merged.

use proptest::prelude::*;

use super::*;

fn merged(document: &str, before: &str, after: &str) -> String {
    merge(document, before, after).unwrap().unwrap()
}

#[test]
fn unknown_members_stay_byte_for_byte() {
    let document =
        r#"{ "n":1, "\u0061b" : 1.000e2, "big":123456789012345678901234567890 , "s":"a\"},{" }"#;
    assert_eq!(
        merged(document, r#"{"n":1}"#, r#"{"n":2}"#),
        r#"{"n":2,"\u0061b":1.000e2,"big":123456789012345678901234567890,"s":"a\"},{"}"#
    );
}

#[test]
fn members_that_the_struct_drops_go_and_new_ones_come_last() {
    assert_eq!(merged(r#"{"a":1,"x":0}"#, r#"{"a":1}"#, r#"{"b":2}"#), r#"{"x":0,"b":2}"#);
}

#[test]
fn objects_merge_member_by_member_and_arrays_whole() {
    let document = r#"{"o":{"k":1,"u":[ 1 ]},"l":[{"k":1,"u":2}]}"#;
    let (before, after) = (r#"{"o":{"k":1},"l":[{"k":1}]}"#, r#"{"o":{"k":2},"l":[{"k":2}]}"#);
    assert_eq!(merged(document, before, after), r#"{"o":{"k":2,"u":[ 1 ]},"l":[{"k":2}]}"#);
}

/// A struct that leaves a default out, and then says it: what it does not know of it stays.
#[test]
fn an_object_that_comes_anew_keeps_what_the_struct_does_not_know_of_it() {
    let document = r#"{"o":{"k":0,"u":1.50},"s":3,"l":[1]}"#;
    let after = r#"{"o":{"k":5},"s":{},"l":[{"a":1}]}"#;
    assert_eq!(merged(document, "{}", after), r#"{"o":{"k":5,"u":1.50},"s":{},"l":[{"a":1}]}"#);
}

#[test]
fn nothing_that_differs_is_nothing_written() {
    assert_eq!(merge(r#"{"a": 1, "u": 2}"#, r#"{"a":1,"d":0}"#, r#"{"a":1,"d":0}"#), Ok(None));
    let left_out = merged(r#"{"a":1}"#, r#"{"a":1,"d":0}"#, r#"{"a":2,"d":0}"#);
    assert_eq!(left_out, r#"{"a":2}"#, "a default that the document leaves out stays left out");
}

#[test]
fn a_member_twice_anywhere_is_not_merged() {
    for document in [r#"{"a":1,"\u0061":1}"#, r#"{"a":1,"u":[{"b":1,"b":2}]}"#] {
        assert!(merge(document, r#"{"a":1}"#, r#"{"a":2}"#).unwrap_err().contains("twice"));
    }
    let deep = format!("{{\"a\":1,\"u\":{}{}}}", "[".repeat(200), "]".repeat(200));
    assert!(merge(&deep, r#"{"a":1}"#, r#"{"a":2}"#).unwrap_err().contains("deep"));
}

#[test]
fn one_member_is_set_and_read() {
    let document = r#"{"id":"A7", "status":"working","n":1.0}"#;
    assert_eq!(member_text(document, "status"), Ok(Some("\"working\"")));
    assert_eq!(member_text(document, "none"), Ok(None));
    assert!(member_text("[1]", "status").is_err());
    let set = set_member(document, "status", "\"done\"").unwrap();
    assert_eq!(set, r#"{"id":"A7","status":"done","n":1.0}"#);
    assert_eq!(set_member("{}", "status", "1").unwrap(), r#"{"status":1}"#);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(serde_json::Value::from),
        "[a-c\"\\\\{,é]{0,4}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Where the struct knows everything, the merge is what the closure left.
    #[test]
    fn a_struct_that_knows_all_is_written_whole(before in json(), after in json()) {
        let texts = [before.to_string(), after.to_string()];
        let pretty = serde_json::to_string_pretty(&before).unwrap();
        let result = merge(&pretty, &texts[0], &texts[1]).unwrap().unwrap_or(pretty);
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&result).unwrap(), after);
    }

    /// Where it knows nothing, nothing changes.
    #[test]
    fn a_struct_that_knows_nothing_changes_nothing(document in json()) {
        prop_assert_eq!(merge(&document.to_string(), "{}", "{}"), Ok(None));
    }

    #[test]
    fn any_text_ends_with_a_verdict(text in "[ {}\\[\\]\":,a1\\\\]{0,24}") {
        let _ = merge(&text, "{\"a\":1}", "{\"a\":2}");
        let _ = member_text(&text, "a");
    }
}
