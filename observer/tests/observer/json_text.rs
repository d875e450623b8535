//! Is JSON text kept as it was, on one line, whatever is in it?
//!
//! Random tests print the failing case; `PROPTEST_RNG_SEED` and the regression file repeat it.

use annals_observer::{Entry, EntryKind, ErrorKind, JsonText, SessionId, WallTime};
use proptest::prelude::*;
use serde_json::Value;

#[test]
fn text_without_line_breaks_keeps_every_byte() {
    for text in ["{ \"b\" : 1.0 , \"a\":[ ] }", " 1e400", "\"\\u00e4\\ud800\"", "\t-0.0\t", "null"]
    {
        assert_eq!(JsonText::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn what_is_not_one_value_is_refused_without_showing_it() {
    for text in ["", "hunter2", "{\"hunter2\":}", "[1] hunter2", "\"hunter2", "\"hunter2\n\"", "01"]
    {
        let error = JsonText::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let shown = format!("{:?}", JsonText::string("hunter2"));
    assert_eq!(shown, "JsonText(9 bytes)");
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[ \t\n\r\"\\\\/a-z\u{0}\u{1F}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[ \"\\\\a-z]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn text_with_line_breaks_becomes_one_line_of_the_same_tokens(value in any_value()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let windows = pretty.replace('\n', "\r\n");
        for text in [pretty, windows, format!("\n{value}\n")] {
            let kept = JsonText::parse(text).unwrap();
            prop_assert_eq!(kept.as_str(), value.to_string());
        }
        let string = value.to_string();
        let quoted = JsonText::string(&string);
        prop_assert_eq!(serde_json::from_str::<String>(quoted.as_str()).unwrap(), string);
    }
}

#[test]
fn an_entry_as_json_holds_its_texts_as_values() {
    let mut entry = Entry::new(EntryKind::ToolEnd);
    entry.session = Some(SessionId::new("s-1").unwrap());
    entry.wall = WallTime(1_767_225_600_000_000_001);
    entry.duration = Some(std::time::Duration::from_micros(5));
    entry.output = Some(JsonText::parse("{\"n\": 1.0}").unwrap());
    let expected = "{\"kind\":\"tool_end\",\"ticket\":{\"instance\":\"\
                    00000000000000000000000000000000\",\"sequence\":0},\
                    \"wall\":\"2026-01-01T00:00:00.000000001Z\",\"mono_ns\":0,\"session\":\"s-1\",\
                    \"duration_ns\":5000,\"output\":{\"n\": 1.0}}";
    assert_eq!(serde_json::to_string(&entry).unwrap(), expected);
    assert_eq!(JsonText::of(&entry).unwrap().as_str(), expected);
}
