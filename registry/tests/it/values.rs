//! Values and their codecs.

use std::collections::BTreeMap;

use annals_registry::{Codec, ErrorKind, Value};
use serde::{Deserialize, Serialize};

use crate::support::{key, open};
use annals_wal::fs::mem::MemDir;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Agent {
    name: String,
    turns: u32,
}

fn agent() -> Agent {
    Agent { name: "A7".to_owned(), turns: 3 }
}

#[test]
fn json_is_the_default_and_bincode_on_request() {
    let registry = open(&MemDir::new(1));
    registry.put_json(&key("json"), &agent()).unwrap();
    registry.put(&key("bincode"), Value::bincode(&agent()).unwrap()).unwrap();
    registry.put(&key("raw"), Value::raw(*b"\0\x01")).unwrap();

    let json = registry.get(&key("json")).unwrap();
    assert_eq!(
        (json.codec(), json.value.bytes()),
        (Codec::JSON, &br#"{"name":"A7","turns":3}"#[..])
    );
    assert_eq!(registry.get_json::<Agent>(&key("json")).unwrap(), Some(agent()));
    let bincode = registry.get(&key("bincode")).unwrap();
    assert_eq!(bincode.codec(), Codec::BINCODE);
    // Fixed-width, little endian: length, text, number.
    assert_eq!(bincode.value.bytes(), b"\x02\0\0\0\0\0\0\0A7\x03\0\0\0");
    assert_eq!(bincode.value.decode_bincode::<Agent>().unwrap(), agent());
    assert_eq!(registry.get(&key("raw")).unwrap().codec(), Codec::RAW);
}

#[test]
fn a_value_is_read_in_its_own_codec_only() {
    let (json, bincode) = (Value::json(&agent()).unwrap(), Value::bincode(&agent()).unwrap());
    assert_eq!(json.decode_bincode::<Agent>().unwrap_err().kind(), ErrorKind::Decode);
    assert_eq!(bincode.decode_json::<Agent>().unwrap_err().kind(), ErrorKind::Decode);
    let longer = Value::new([bincode.bytes(), b"\0"].concat(), Codec::BINCODE);
    assert_eq!(longer.decode_bincode::<Agent>().unwrap_err().kind(), ErrorKind::Decode);
    let no_text: BTreeMap<(u8, u8), u8> = BTreeMap::from([((1, 2), 3)]);
    assert_eq!(Value::json(&no_text).unwrap_err().kind(), ErrorKind::Encode);
}

#[test]
fn errors_and_debug_show_nothing_of_the_value() {
    // serde_json's own message is: invalid type: string "sk-secret", expected u32 ...
    let value = Value::new(*br#"{"name":"x","turns":"sk-secret"}"#, Codec::JSON);
    let error = value.decode_json::<Agent>().unwrap_err();
    assert!(error.to_string().contains("line 1 column"), "{error}");
    for shown in [error.to_string(), format!("{error:?}"), format!("{value:?}")] {
        assert!(!shown.contains("secret"), "{shown}");
    }
    assert!(std::error::Error::source(&error).is_none());
}
