//! Does reading a session give that session, all of it, and nothing else?

use std::collections::HashMap;

use annals_observer::{
    EntryKind, ErrorKind, JsonText, SessionId, encode_entry, entries, session_entries,
};
use annals_wal::fs::mem::MemDir;
use annals_wal::{Codec, Kind, LogReader, Record, Stream};

use crate::common::{all, observer, open};

/// Two ids of one CRC-32. Sixteen digits of a mixed counter: consecutive numbers written in
/// decimal never collide, CRC being linear.
fn colliding_ids() -> (String, String) {
    let mut seen: HashMap<u32, String> = HashMap::new();
    for count in 1u64.. {
        let mixed = count.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ (count << 7);
        let id = format!("{:016x}", mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9));
        let tag = SessionId::new(id.clone()).unwrap().stream();
        if let Some(other) = seen.insert(tag.0, id.clone()) {
            return (other, id);
        }
    }
    unreachable!("32 bits collide after some 80,000 ids")
}

#[test]
fn sessions_whose_tags_collide_are_told_apart() {
    let (one, two) = colliding_ids();
    assert_ne!(one, two);
    let tag = |id: &str| SessionId::new(id).unwrap().stream();
    assert_eq!(tag(&one), tag(&two));
    let log = open(&MemDir::new(1));
    let (observer, _) = observer(&log);
    for round in 0..10 {
        for id in [&one, &two, &"another".to_owned()] {
            let output = JsonText::string(&format!("{id} {round}"));
            let mut call = observer.session(id.as_str()).unwrap().tool("t").start().unwrap();
            call.end_ok(output).unwrap();
        }
    }
    for id in [&one, &two] {
        let read: Vec<_> = session_entries(&log, id).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.len(), 20);
        assert!(read.iter().all(|s| s.entry.session.as_ref().unwrap().as_str() == id));
        let outputs: Vec<_> = read.iter().filter_map(|s| s.entry.output.clone()).collect();
        let expected: Vec<_> =
            (0..10).map(|round| JsonText::string(&format!("{id} {round}"))).collect();
        assert_eq!(outputs, expected, "in order, each once");
        assert!(read.windows(2).all(|pair| pair[0].lsn < pair[1].lsn));
    }
}

#[test]
fn a_tag_is_never_the_mark_of_no_session() {
    let zero = SessionId::new("econnmhbh```").unwrap();
    assert_eq!(crc32fast::hash(zero.as_str().as_bytes()), 0);
    assert_eq!(zero.stream(), Stream(1));
    let log = open(&MemDir::new(2));
    let (observer, _) = observer(&log);
    observer.session(zero.as_str()).unwrap().error(JsonText::string("e")).unwrap();
    assert_eq!(log.range(..).unwrap().next().unwrap().unwrap().stream, Stream(1));
    assert_eq!(session_entries(&log, zero.as_str()).unwrap().count(), 1);
}

#[test]
fn records_carry_kind_codec_and_tag() {
    let log = open(&MemDir::new(3));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    session.tool("t").start().unwrap().end_ok(JsonText::string("")).unwrap();
    let records: Vec<_> = log.range(..).unwrap().map(Result::unwrap).collect();
    let kinds: Vec<u16> = records.iter().map(|record| record.kind.get()).collect();
    assert_eq!(kinds, [0x0205, 0x0206]);
    for record in &records {
        assert_eq!((record.codec, record.stream), (Codec::BINCODE, session.id().stream()));
    }
}

/// What one bad line of the seeds' store hid: every later entry.
#[test]
fn an_entry_that_cannot_be_decoded_hides_no_other() {
    let log = open(&MemDir::new(4));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    let tag = session.id().stream();
    let kind = |number: u8| EntryKind::from_number(number).record_kind();
    let raw = |payload: &'static [u8]| Record::new(payload).kind(kind(5)).stream(tag);
    session.error(JsonText::string("first")).unwrap();
    log.append(raw(b"\0\0\0\0 garbage").codec(Codec::BINCODE)).unwrap();
    log.append(raw(b"\x02\0\0\0 the next version").codec(Codec::BINCODE)).unwrap();
    log.append(raw(b"{}").codec(Codec::JSON)).unwrap();
    session.error(JsonText::string("last")).unwrap();

    let read: Vec<_> = session_entries(&log, "s-1").unwrap().collect();
    let bad: Vec<_> = read
        .iter()
        .filter_map(|item| item.as_ref().err())
        .map(|error| (error.kind(), error.lsn().unwrap().get()))
        .collect();
    let expected =
        [(ErrorKind::Corrupt, 2), (ErrorKind::Unsupported, 3), (ErrorKind::Unsupported, 4)];
    assert_eq!(bad, expected);
    let good: Vec<_> = read.into_iter().flatten().map(|stored| stored.lsn.get()).collect();
    assert_eq!(good, [1, 5]);
}

#[test]
fn other_kinds_are_passed_over_and_unknown_entry_kinds_are_delivered() {
    let log = open(&MemDir::new(5));
    let (observer, _) = observer(&log);
    let session = observer.session("s-1").unwrap();
    session.tool("t").start().unwrap().end_ok(JsonText::string("")).unwrap();
    let mut newer = all(&log).pop().unwrap();
    newer.kind = EntryKind::Other(200);
    for kind in [0x0000, 0x0100, 0x0300, 0x1000, 0x7FFF] {
        log.append(Record::new("not an entry").kind(Kind::new(kind).unwrap())).unwrap();
    }
    let payload = encode_entry(&newer).unwrap();
    let record = Record::new(payload).kind(Kind::new(0x0200 + 200).unwrap());
    log.append(record.codec(Codec::BINCODE).stream(session.id().stream())).unwrap();

    let kinds: Vec<EntryKind> =
        entries(&log).unwrap().map(|stored| stored.unwrap().entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ToolStart, EntryKind::ToolEnd, EntryKind::Other(200)]);
    assert_eq!(session_entries(&log, "s-1").unwrap().count(), 3);
}

#[test]
fn a_reader_that_owns_nothing_sees_the_same() {
    let disk = MemDir::new(6);
    let log = open(&disk);
    let (observer, _) = observer(&log);
    for id in ["a", "b", "a"] {
        observer.session(id).unwrap().error(JsonText::string(id)).unwrap();
    }
    let reader = LogReader::open_in(disk.dir()).unwrap();
    let read = |id| session_entries(&reader, id).unwrap().map(|s| s.unwrap().lsn.get());
    assert_eq!(read("a").collect::<Vec<_>>(), [1, 3]);
    assert_eq!(read("b").collect::<Vec<_>>(), [2]);
    assert_eq!(entries(&reader).unwrap().count(), 3);
}

#[test]
fn kinds_and_names_are_one_table() {
    for number in 0..=u8::MAX {
        let kind = EntryKind::from_number(number);
        assert_eq!(kind.number(), number);
        assert_eq!(EntryKind::of_record(kind.record_kind()), Some(kind));
        match kind {
            EntryKind::Other(same) => assert_eq!(same, number),
            known => assert_eq!(EntryKind::from_name(&known.to_string()), Some(known)),
        }
    }
    let names: Vec<String> = (0..=20).map(|n| EntryKind::from_number(n).to_string()).collect();
    let golden = "other-0 agent_start agent_end llm_start llm_end tool_start tool_end trace_start \
                  trace_end span_start span_end handoff error imported import_begin import_done \
                  abandoned dropped not_run run_start other-20";
    assert_eq!(names.join(" "), golden, "numbers and names are for ever");
    assert_eq!(EntryKind::of_record(Kind::new(0x0300).unwrap()), None);
    assert_eq!(EntryKind::of_record(Kind::new(0x01FF).unwrap()), None);
}
