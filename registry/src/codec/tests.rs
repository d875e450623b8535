//! The envelope's bytes: golden, read by bincode's exit, and hostile.

use proptest::prelude::*;
use wincode::{SchemaRead, SchemaWrite};

use super::*;
use crate::ErrorKind;

/// V1: `tasks/T1` becomes the JSON text `{"n":1}`, `agents/é` is deleted.
const GOLDEN: &str = "\
    00000000 0200000000000000 \
    00000000 0800000000000000 7461736b732f5431 02 0700000000000000 7b226e223a317d \
    01000000 0900000000000000 6167656e74732fc3a9";

fn golden_bytes() -> Vec<u8> {
    let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn golden_changes() -> Vec<Change> {
    vec![
        Change::Put {
            key: Key::new("tasks/T1").unwrap(),
            value: Value::new(*b"{\"n\":1}", Codec::JSON),
        },
        Change::Delete { key: Key::new("agents/é").unwrap() },
    ]
}

fn decode(bytes: &[u8]) -> Result<Vec<Change>> {
    decode_transaction(Lsn::new(7).unwrap(), bytes)
}

fn kind_of(bytes: &[u8]) -> ErrorKind {
    decode(bytes).unwrap_err().kind()
}

#[test]
fn the_kind_in_the_log_is_the_registrys() {
    assert_eq!(TRANSACTION.get(), 0x0100);
}

#[test]
fn golden_bytes_are_written_and_read() {
    assert_eq!(encode_transaction(&golden_changes(), None).unwrap(), golden_bytes());
    assert_eq!(decode(&golden_bytes()).unwrap(), golden_changes());
}

/// The layout once more, in wincode's own derive.
#[derive(SchemaRead, SchemaWrite, PartialEq, Debug)]
enum WincodeEnvelope {
    V1(Vec<WincodeChange>),
}

#[derive(SchemaRead, SchemaWrite, PartialEq, Debug)]
enum WincodeChange {
    Put { key: String, codec: u8, value: Vec<u8> },
    Delete { key: String },
}

fn through_wincode(changes: &[Change]) -> WincodeEnvelope {
    let change = |change: &Change| match change {
        Change::Put { key, value } => WincodeChange::Put {
            key: key.to_string(),
            codec: value.codec().0,
            value: value.bytes().to_vec(),
        },
        Change::Delete { key } => WincodeChange::Delete { key: key.to_string() },
        Change::PutLeased { .. } => panic!("not of the first version"),
    };
    WincodeEnvelope::V1(changes.iter().map(change).collect())
}

#[test]
fn wincode_reads_and_writes_the_golden_bytes() {
    let envelope = through_wincode(&golden_changes());
    let read: WincodeEnvelope = wincode::deserialize_exact(&golden_bytes()).unwrap();
    assert_eq!(read, envelope);
    assert_eq!(wincode::serialize(&envelope).unwrap(), golden_bytes());
}

#[test]
fn a_newer_version_is_unsupported_and_anything_else_corrupt() {
    let mut newer = golden_bytes();
    newer[0] = 2;
    assert_eq!(kind_of(&newer), ErrorKind::Unsupported);

    let golden = golden_bytes();
    let mut longer = golden.clone();
    longer.push(0);
    assert_eq!(kind_of(&longer), ErrorKind::Corrupt, "a byte left over");
    for end in 0..golden.len() {
        assert_eq!(kind_of(&golden[..end]), ErrorKind::Corrupt, "cut at {end}");
    }

    let mut no_utf8 = golden.clone();
    no_utf8[24] = 0xff;
    assert_eq!(kind_of(&no_utf8), ErrorKind::Corrupt);
    let mut no_key = golden.clone();
    no_key[24] = b'/';
    assert_eq!(kind_of(&no_key), ErrorKind::Corrupt);
    let mut no_change = golden;
    no_change[12] = 2;
    assert_eq!(kind_of(&no_change), ErrorKind::Corrupt);
    assert_eq!(kind_of(&[0; 12]), ErrorKind::Corrupt, "no change at all");
}

#[test]
fn a_message_names_the_lsn_and_nothing_of_the_payload() {
    let mut bytes = golden_bytes();
    bytes.push(0);
    let message = decode(&bytes).unwrap_err().to_string();
    assert!(message.contains("LSN 7"), "{message}");
    assert!(!message.contains("tasks") && !message.contains("{\"n\""), "{message}");
}

/// V2: `who` made `a` raw and bound to lease 5, and deleted a name of the registry's own.
const GOLDEN_V2: &str = "\
    01000000 01 0300000000000000 77686f 0300000000000000 776879 0700000000000000 \
    0200000000000000 \
    00000000 0100000000000000 61 00 01 05000000000000000000000000000000 0100000000000000 ff \
    01000000 0a00000000000000 016c65617365732f3561";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[derive(SchemaRead, SchemaWrite, PartialEq, Debug)]
enum WincodeEnvelopeV2 {
    V1(Vec<WincodeChange>),
    V2 { note: Option<(String, String, u64)>, changes: Vec<WincodeChangeV2> },
}

#[derive(SchemaRead, SchemaWrite, PartialEq, Debug)]
enum WincodeChangeV2 {
    Put { key: String, codec: u8, lease: Option<u128>, value: Vec<u8> },
    Delete { key: String },
}

#[test]
fn golden_bytes_of_the_second_version_are_written_and_read() {
    let note = Note { who: "who".to_owned(), why: "why".to_owned(), wall_ms: 7 };
    let changes = vec![
        Change::PutLeased {
            key: Key::new("a").unwrap(),
            value: Value::raw(*b"\xff"),
            lease: LeaseId(5),
        },
        Change::Delete { key: Key::stored("\u{1}leases/5a").unwrap() },
    ];
    let bytes = hex(GOLDEN_V2);
    assert_eq!(encode_transaction(&changes, Some(&note)).unwrap(), bytes);
    let committed = decode_all(Lsn::FIRST, &bytes).unwrap();
    assert_eq!(committed, Committed { note: Some(note), changes: changes.clone() });
    assert_eq!(decode(&bytes).unwrap(), changes[..1], "its own names are left out");
    let read: WincodeEnvelopeV2 = wincode::deserialize_exact(&bytes).unwrap();
    assert_eq!(wincode::serialize(&read).unwrap(), bytes);
    let WincodeEnvelopeV2::V2 { changes, .. } = read else { panic!("the second version") };
    assert!(matches!(&changes[0], WincodeChangeV2::Put { lease: Some(5), .. }));
}

/// What a registry keeps of itself, byte for byte.
#[test]
fn golden_bytes_of_leases_and_writers() {
    let lease = System::LeaseV1 { ttl_ms: 9, owner: "o".to_owned(), renewals: 2 };
    let writer = System::WriterV1 { sequence: 3, request: 4 };
    let golden = [
        (lease, "00000000 0900000000000000 0100000000000000 6f 0200000000000000"),
        (writer, "01000000 0300000000000000 04000000"),
    ];
    for (system, golden) in golden {
        let value = encode_system(&system).unwrap();
        assert_eq!(value.bytes(), hex(golden));
        assert_eq!(decode_system(Lsn::FIRST, &value).unwrap(), system);
        let cut = Value::raw(&value.bytes()[..value.bytes().len() - 1]);
        assert_eq!(decode_system(Lsn::FIRST, &cut).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// What was read, written again in the version that it was read from.
fn again(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    if bytes[0] == 0 {
        return encode_transaction(changes, None).unwrap();
    }
    let all = decode_all(Lsn::FIRST, bytes).unwrap();
    let written = encode_transaction(&all.changes, all.note.as_ref()).unwrap();
    assert_eq!(decode_all(Lsn::FIRST, &written).unwrap(), all);
    bytes.to_vec()
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let key = "[a-zé]{1,8}(/[A-Z0-9 .-]{1,4}){0,3}".prop_map(|path| Key::new(path).unwrap());
    let value = (any::<Vec<u8>>(), any::<u8>());
    let change = (key, proptest::option::of(value)).prop_map(|(key, value)| match value {
        Some((bytes, codec)) => Change::Put { key, value: Value::new(bytes, Codec(codec)) },
        None => Change::Delete { key },
    });
    proptest::collection::vec(change, 1..8)
}

proptest! {
    #[test]
    fn what_is_written_is_read(changes in changes()) {
        let bytes = encode_transaction(&changes, None).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &changes);
        let read: WincodeEnvelope = wincode::deserialize_exact(&bytes).unwrap();
        prop_assert_eq!(read, through_wincode(&changes));
    }

    /// Either an error, or exactly the bytes that a registry would have written.
    #[test]
    fn hostile_bytes_end_with_a_verdict(
        changes in changes(),
        at in any::<prop::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let mut bytes = encode_transaction(&changes, None).unwrap();
        let at = at.index(bytes.len());
        let end = bytes.len().min(at + with.len());
        bytes[at..end].copy_from_slice(&with[..end - at]);
        if let Ok(changes) = decode(&bytes) {
            prop_assert_eq!(again(&bytes, &changes), bytes);
        }
    }

    #[test]
    fn random_bytes_end_with_a_verdict(bytes in any::<Vec<u8>>()) {
        let _ = decode_value::<Vec<String>>(&bytes);
        let _ = decode_system(Lsn::FIRST, &Value::raw(bytes.clone()));
        let _ = blocks::decode(&bytes);
        if let Ok(changes) = decode(&bytes) {
            prop_assert_eq!(again(&bytes, &changes), bytes);
        }
    }
}
