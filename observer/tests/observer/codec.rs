//! The envelope: its bytes are what they were, another crate reads them, and no bytes break it.
//!
//! Random tests print the failing case; `PROPTEST_RNG_SEED` and the regression file repeat it.

use std::time::Duration;

use annals_observer::{
    CallId, ContentHash, Entry, EntryKind, ErrorKind, Field, FieldNote, InstanceId, JsonText,
    MonoTime, Original, PayloadRef, Position, RunId, SessionId, Source, SpanId, Ticket, TimeOrigin,
    WallTime, decode_record, encode_entry,
};
use annals_wal::{Codec, Kind, Lsn, StoredRecord, Stream};
use proptest::prelude::*;

/// Version 1 as any reader must see it for ever, through another crate's derive.
#[derive(wincode::SchemaRead, wincode::SchemaWrite, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test holds few")]
enum Wire {
    V1(WireV1),
    V2(WireV2),
}

#[derive(wincode::SchemaRead, wincode::SchemaWrite, Debug, PartialEq)]
struct WireV2 {
    entry: WireV1,
    input: Option<WireNote>,
    output: Option<WireNote>,
    error: Option<WireNote>,
    metadata: Option<WireNote>,
}

#[derive(wincode::SchemaRead, wincode::SchemaWrite, Debug, PartialEq)]
struct WireNote {
    redactions: u32,
    original: Option<WireOriginal>,
    payload: Option<WirePayload>,
}

#[derive(wincode::SchemaRead, wincode::SchemaWrite, Debug, PartialEq)]
struct WireOriginal {
    bytes: u64,
    sha256: [u8; 32],
}

#[derive(wincode::SchemaRead, wincode::SchemaWrite, Debug, PartialEq)]
struct WirePayload {
    back: u32,
    count: u32,
    bytes: u64,
    sha256: [u8; 32],
}

#[derive(wincode::SchemaRead, wincode::SchemaWrite, Debug, PartialEq)]
struct WireV1 {
    instance: [u8; 16],
    sequence: u64,
    wall_ns: i64,
    mono_ns: u64,
    session: Option<String>,
    run: Option<String>,
    span: Option<u64>,
    parent_span: Option<u64>,
    call_id: Option<String>,
    agent: Option<String>,
    tool: Option<String>,
    model: Option<String>,
    name: Option<String>,
    tokens_in: Option<u64>,
    tokens_out: Option<u64>,
    duration_ns: Option<u64>,
    input: Option<String>,
    output: Option<String>,
    error: Option<String>,
    metadata: Option<String>,
    source: Option<WireSource>,
}

#[derive(wincode::SchemaRead, wincode::SchemaWrite, Debug, PartialEq)]
struct WireSource {
    file: String,
    sha256: [u8; 32],
    round: u32,
    line: u64,
    part: u32,
    time: u8,
}

fn record(kind: EntryKind, payload: Vec<u8>) -> StoredRecord {
    let (lsn, stream, codec) = (Lsn::FIRST, Stream::NONE, Codec::BINCODE);
    StoredRecord { lsn, kind: kind.record_kind(), stream, codec, payload }
}

fn decode(payload: &[u8]) -> Result<Entry, ErrorKind> {
    let entry = decode_record(&record(EntryKind::ToolEnd, payload.to_vec()));
    entry.map(Option::unwrap).map_err(|error| error.kind())
}

fn whole_entry() -> Entry {
    let mut entry = Entry::new(EntryKind::ToolEnd);
    entry.ticket = Ticket { instance: InstanceId::from_bytes(*b"0123456789abcdef"), sequence: 7 };
    entry.wall = WallTime(1_767_225_600_000_000_001);
    entry.mono = MonoTime(42);
    entry.session = Some(SessionId::new("s-1").unwrap());
    entry.run = Some(RunId::new("r-2").unwrap());
    entry.span = SpanId::new(0x0102_0304_0506_0708);
    entry.parent_span = SpanId::new(9);
    entry.call_id = Some(CallId::new("call_1").unwrap());
    entry.agent = Some("planner".to_owned());
    entry.tool = Some("search".to_owned());
    entry.model = Some("model-x".to_owned());
    entry.name = Some("custom".to_owned());
    entry.tokens_in = Some(3);
    entry.tokens_out = Some(4);
    entry.duration = Some(Duration::from_nanos(5));
    entry.input = Some(JsonText::parse("{\"a\": 0.10}").unwrap());
    entry.output = Some(JsonText::string("ö"));
    entry.error = Some(JsonText::parse("null").unwrap());
    entry.metadata = Some(JsonText::parse("[]").unwrap());
    entry.source = Some(Source {
        file: "x.jsonl".to_owned(),
        sha256: ContentHash([0xAB; 32]),
        round: 2,
        position: Position { line: 6, part: 1 },
        time: TimeOrigin::SourceAssumedUtc,
    });
    entry
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(char::is_ascii_hexdigit)
        .collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn the_golden_bytes_of_version_1_are_written_and_read() {
    let golden = from_hex(include_str!("../samples/entry-v1.hex"));
    assert_eq!(encode_entry(&whole_entry()).unwrap(), golden);
    assert_eq!(decode(&golden).unwrap(), whole_entry());
    let empty = from_hex(include_str!("../samples/entry-v1-empty.hex"));
    assert_eq!(encode_entry(&Entry::new(EntryKind::ToolEnd)).unwrap(), empty);
    assert_eq!(decode(&empty).unwrap(), Entry::new(EntryKind::ToolEnd));
}

#[test]
fn another_crate_reads_and_writes_the_golden_bytes() {
    let golden = from_hex(include_str!("../samples/entry-v1.hex"));
    let Wire::V1(wire) = wincode::deserialize::<Wire>(&golden).unwrap() else { panic!("V1") };
    assert_eq!((wire.sequence, wire.mono_ns), (7, 42));
    assert_eq!(wire.call_id.as_deref(), Some("call_1"));
    assert_eq!(wire.source.as_ref().unwrap().line, 6);
    assert_eq!(wincode::serialize(&Wire::V1(wire)).unwrap(), golden);
}

fn entry_with_notes() -> Entry {
    let mut entry = whole_entry();
    entry.input = None;
    let sha256 = ContentHash([0xCD; 32]);
    let payload = Some(PayloadRef { back: 3, count: 2, bytes: 70_000, sha256 });
    entry.notes.set(Field::Input, FieldNote { redactions: 1, original: None, payload });
    let original = Some(Original { bytes: 900, sha256: ContentHash([0xEF; 32]) });
    entry.notes.set(Field::Output, FieldNote { redactions: 0, original, payload: None });
    entry
}

#[test]
fn the_golden_bytes_of_version_2_are_written_read_and_read_by_another_crate() {
    let golden = from_hex(include_str!("../samples/entry-v2.hex"));
    let bytes = encode_entry(&entry_with_notes()).unwrap();
    assert_eq!(bytes, golden, "{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>());
    assert_eq!(decode(&golden).unwrap(), entry_with_notes());
    let Wire::V2(wire) = wincode::deserialize::<Wire>(&golden).unwrap() else { panic!("V2") };
    assert_eq!(wire.input.as_ref().unwrap().payload.as_ref().unwrap().bytes, 70_000);
    assert_eq!(wire.output.as_ref().unwrap().original.as_ref().unwrap().bytes, 900);
    assert_eq!(wincode::serialize(&Wire::V2(wire)).unwrap(), golden);
    for length in 0..golden.len() {
        assert_eq!(decode(&golden[..length]).unwrap_err(), ErrorKind::Corrupt, "cut at {length}");
    }
}

#[test]
fn a_newer_version_is_unsupported_and_bytes_to_spare_are_corrupt() {
    let mut bytes = encode_entry(&whole_entry()).unwrap();
    for version in [2u32, 3, 0x0100_0000, u32::MAX] {
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        assert_eq!(decode(&bytes).unwrap_err(), ErrorKind::Unsupported);
    }
    bytes[..4].copy_from_slice(&[0; 4]);
    assert!(decode(&bytes).is_ok());
    bytes.push(0);
    assert_eq!(decode(&bytes).unwrap_err(), ErrorKind::Corrupt);
    let mut foreign = record(EntryKind::ToolEnd, bytes);
    foreign.kind = Kind::new(0x1000).unwrap();
    assert_eq!(decode_record(&foreign).unwrap(), None);
}

#[test]
fn an_entry_cut_anywhere_is_corrupt() {
    let bytes = encode_entry(&whole_entry()).unwrap();
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes[..length]).unwrap_err(), ErrorKind::Corrupt, "cut at {length}");
    }
}

#[test]
fn forged_values_are_corrupt_each_for_itself() {
    let good = encode_entry(&whole_entry()).unwrap();
    let at = |needle: &[u8]| good.windows(needle.len()).position(|w| w == needle).unwrap();
    let forged = |place: usize, bytes: &[u8]| {
        let mut forged = good.clone();
        forged[place..place + bytes.len()].copy_from_slice(bytes);
        decode(&forged).unwrap_err()
    };
    let session = at(b"s-1");
    // A length: beyond the bytes, beyond the limit, beyond the address space.
    for length in [4_000u64, 60 << 20, 65 << 20, 1 << 40, u64::MAX] {
        assert_eq!(forged(session - 8, &length.to_le_bytes()), ErrorKind::Corrupt);
    }
    assert_eq!(forged(session - 9, &[2]), ErrorKind::Corrupt, "neither none nor some");
    assert_eq!(forged(session, b"\xFF"), ErrorKind::Corrupt, "no UTF-8");
    assert_eq!(forged(at(&[8, 7, 6, 5, 4, 3, 2, 1]), &[0; 8]), ErrorKind::Corrupt, "span 0");
    assert_eq!(forged(at(b"null"), b"nul}"), ErrorKind::Corrupt, "no JSON");
    assert_eq!(forged(good.len() - 1, &[3]), ErrorKind::Corrupt, "an unknown origin of time");
}

#[test]
fn an_entry_over_the_limit_is_neither_written_nor_read() {
    let text = "1".repeat((64 << 20) + 1);
    let empty = encode_entry(&Entry::new(EntryKind::ToolEnd)).unwrap();
    let mut bytes = empty[..empty.len() - 5].to_vec();
    bytes.push(1);
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend([0; 4]);
    assert_eq!(decode(&bytes).unwrap_err(), ErrorKind::Corrupt);
    let mut entry = Entry::new(EntryKind::ToolEnd);
    entry.input = Some(JsonText::parse(text).unwrap());
    assert_eq!(encode_entry(&entry).unwrap_err().kind(), ErrorKind::TooLarge);
}

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("\\PC{1,12}")
}

fn json() -> impl Strategy<Value = Option<JsonText>> {
    let any = prop_oneof![
        any::<f64>().prop_map(|n| JsonText::of(&n).unwrap()),
        "\\PC{0,40}".prop_map(|s| JsonText::string(&s)),
        proptest::collection::vec(any::<i64>(), 0..9).prop_map(|v| JsonText::of(&v).unwrap()),
    ];
    proptest::option::of(any)
}

prop_compose! {
    fn source()(
        file in "\\PC{0,20}", hash in any::<[u8; 32]>(), round in any::<u32>(),
        line in any::<u64>(), part in any::<u32>(), time in 0..3usize,
    ) -> Source {
        let times = [TimeOrigin::Import, TimeOrigin::Source, TimeOrigin::SourceAssumedUtc];
        let position = Position { line, part };
        Source { file, sha256: ContentHash(hash), round, position, time: times[time] }
    }
}

prop_compose! {
    fn any_entry()(
        instance in any::<[u8; 16]>(), numbers in any::<(u64, i64, u64)>(),
        ids in (text(), text(), text()), spans in any::<(u64, u64)>(),
        names in (text(), text(), text(), text()),
        counts in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
        texts in (json(), json(), json(), json()), source in proptest::option::of(source()),
    ) -> Entry {
        let mut entry = Entry::new(EntryKind::ToolEnd);
        let instance = InstanceId::from_bytes(instance);
        entry.ticket = Ticket { instance, sequence: numbers.0 };
        (entry.wall, entry.mono) = (WallTime(numbers.1), MonoTime(numbers.2));
        entry.session = ids.0.map(|id| SessionId::new(id).unwrap());
        entry.run = ids.1.map(|id| RunId::new(id).unwrap());
        entry.call_id = ids.2.map(|id| CallId::new(id).unwrap());
        (entry.span, entry.parent_span) = (SpanId::new(spans.0), SpanId::new(spans.1));
        (entry.agent, entry.tool, entry.model, entry.name) = names;
        (entry.tokens_in, entry.tokens_out) = (counts.0, counts.1);
        entry.duration = counts.2.map(Duration::from_nanos);
        (entry.input, entry.output, entry.error, entry.metadata) = texts;
        entry.source = source;
        entry
    }
}

proptest! {
    #[test]
    fn entries_come_back_and_another_crate_agrees(entry in any_entry()) {
        let bytes = encode_entry(&entry).unwrap();
        let wire = wincode::deserialize::<Wire>(&bytes).unwrap();
        prop_assert_eq!(wincode::serialize(&wire).unwrap(), bytes.clone());
        let Wire::V1(wire) = wire else { panic!("an entry without notes is version 1") };
        prop_assert_eq!(wire.output.as_deref(), entry.output.as_ref().map(JsonText::as_str));
        let part = entry.source.as_ref().map(|source| source.position.part);
        prop_assert_eq!(wire.source.map(|source| source.part), part);
        prop_assert_eq!(decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn damaged_entries_are_entries_or_typed_errors(
        entry in any_entry(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_entry(&entry).unwrap();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        typed(decode(&bytes))?;
        bytes.truncate(cut.index(bytes.len()));
        typed(decode(&bytes))?;
    }

    #[test]
    fn any_bytes_are_an_entry_or_a_typed_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        version in proptest::option::of(0..2u32),
    ) {
        let mut bytes = bytes;
        if let Some(version) = version.filter(|_| bytes.len() >= 4) {
            bytes[..4].copy_from_slice(&version.to_le_bytes());
        }
        typed(decode(&bytes))?;
    }
}

/// What can be decoded can be encoded to the same bytes again: nothing was guessed.
fn typed(decoded: Result<Entry, ErrorKind>) -> Result<(), TestCaseError> {
    match decoded {
        Ok(entry) => prop_assert!(encode_entry(&entry).is_ok()),
        Err(kind) => prop_assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported)),
    }
    Ok(())
}
