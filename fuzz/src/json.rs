//! What the tool prints of any record and of any report: each line of JSON output is one JSON
//! value, and in neither format does a character get through that a terminal obeys.
//!
//! Never here: the tool's own list of such characters; this one is written from the standard.

use std::path::Path;
use std::time::Duration;

use annals_cli::{Format, cat_record, print_report};
use annals_observer::{CallId, Entry, EntryKind, JsonText, RunId, SessionId, encode_entry};
use annals_registry::TRANSACTION;
use annals_wal::inspect::{Finding, Report, Role, SegmentReport, State};
use annals_wal::recover::Row;
use annals_wal::{Codec, Generation, Kind, LogId, Lsn, Sequence, StoredRecord, Stream};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::input::Input;
use crate::registry::forged;

/// The body of the target `json`. The first byte picks what is printed.
pub fn json(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(5) {
        0 => record(&raw(&mut input)),
        1 => record(&entry(&mut input)),
        2 => record(&kept(&mut input, TRANSACTION, Codec::BINCODE, forged)),
        3 => record(&kept(&mut input, Kind::UNTYPED, Codec::JSON, |i| i.rest().to_vec())),
        _ => report(&mut input),
    }
}

fn record(record: &StoredRecord) {
    for format in [Format::Text, Format::Json] {
        let (line, message) = cat_record(record, format).expect("every record can be printed");
        harmless(&line);
        message.iter().for_each(|message| harmless(message));
        if format == Format::Json {
            let lsn = format!("{{\"kind\":{}", Value::from("")).len();
            assert!(line.len() > lsn && line.starts_with('{'), "{line:?}");
            one_value(&line);
            same_payload(record, &line);
        }
    }
}

/// JSON goes in, and the same JSON comes out.
fn same_payload(record: &StoredRecord, line: &str) {
    if record.codec != Codec::JSON || record.kind != Kind::UNTYPED {
        return;
    }
    let (Ok(payload), Ok(line)) =
        (serde_json::from_slice::<Value>(&record.payload), serde_json::from_str::<Value>(line))
    else {
        return;
    };
    let text = std::str::from_utf8(&record.payload).unwrap_or_default();
    // Of several lines it is shown as a string.
    let expected = if text.contains(['\n', '\r']) { Value::from(text) } else { payload };
    assert_eq!(line["payload"], expected);
}

/// No C0, DEL or C1 control, no line or paragraph separator, nothing that turns the text around.
fn harmless(text: &str) {
    let obeyed = |c: &char| {
        matches!(
            u32::from(*c),
            0..=0x1F | 0x7F..=0x9F | 0x061C | 0x200E | 0x200F | 0x2028..=0x202E | 0x2066..=0x2069
        )
    };
    assert_eq!(text.chars().find(obeyed), None, "{text:?}");
}

/// Whatever its depth and its numbers, it parses.
fn one_value(line: &str) {
    let parsed = serde_json::from_str::<IgnoredAny>(line);
    assert!(parsed.is_ok(), "{parsed:?}: {line:?}");
}

fn raw(input: &mut Input<'_>) -> StoredRecord {
    let kind = match input.below(4) {
        0 => 0x0200 + u16::from(input.byte()),
        1 => input.word(),
        _ => 0,
    };
    StoredRecord {
        lsn: Lsn::new(input.number()).unwrap_or(Lsn::FIRST),
        kind: Kind::new(kind).unwrap_or(Kind::UNTYPED),
        codec: Codec(input.byte() % 4),
        stream: Stream(u32::from(input.byte())),
        payload: input.rest().to_vec(),
    }
}

fn kept(
    input: &mut Input<'_>,
    kind: Kind,
    codec: Codec,
    payload: impl Fn(&mut Input<'_>) -> Vec<u8>,
) -> StoredRecord {
    StoredRecord { lsn: Lsn::FIRST, kind, codec, stream: Stream::NONE, payload: payload(input) }
}

fn text(input: &mut Input<'_>) -> String {
    String::from_utf8_lossy(input.some()).into_owned()
}

fn optional(input: &mut Input<'_>) -> Option<String> {
    if input.one_in(2) { Some(text(input)) } else { None }
}

/// JSON as the input has it, if it is; else a string of it.
fn json_text(input: &mut Input<'_>) -> Option<JsonText> {
    let text = optional(input)?;
    Some(JsonText::parse(text.clone()).unwrap_or_else(|_| JsonText::string(&text)))
}

/// An entry as observers write them, every text the input's own.
fn entry(input: &mut Input<'_>) -> StoredRecord {
    let number = input.byte();
    let record_kind = Kind::new(0x0200 + u16::from(number)).unwrap_or(Kind::UNTYPED);
    let kind = EntryKind::of_record(record_kind).unwrap_or(EntryKind::ToolEnd);
    let mut entry = Entry::new(kind);
    entry.wall.0 = input.number() as i64;
    entry.session = optional(input).and_then(|id| SessionId::new(id).ok());
    entry.run = optional(input).and_then(|id| RunId::new(id).ok());
    entry.call_id = optional(input).and_then(|id| CallId::new(id).ok());
    (entry.agent, entry.tool) = (optional(input), optional(input));
    (entry.model, entry.name) = (optional(input), optional(input));
    entry.duration = if input.one_in(2) { Some(Duration::from_nanos(input.long())) } else { None };
    (entry.input, entry.output) = (json_text(input), json_text(input));
    (entry.error, entry.metadata) = (json_text(input), json_text(input));
    let payload = encode_entry(&entry).expect("a small entry");
    kept(input, record_kind, Codec::BINCODE, |_| payload.clone())
}

fn report(input: &mut Input<'_>) {
    let dir = text(input);
    let report = any_report(input);
    for verb in ["inspect", "verify"] {
        let printed = print_report(verb, Path::new(&dir), &report, Format::Text);
        let printed = String::from_utf8(printed).expect("text");
        printed.lines().for_each(harmless);
        let findings = report.findings.len();
        assert!(printed.lines().count() <= 200 + 9 * findings, "a name made lines of its own");
        let printed = print_report(verb, Path::new(&dir), &report, Format::Json);
        let printed = String::from_utf8(printed).expect("text");
        assert_eq!(printed.lines().count(), 1);
        let line = printed.trim_end_matches('\n');
        harmless(line);
        one_value(line);
        let value: Value = serde_json::from_str(line).expect("no number is odd");
        assert_eq!(value["dir"], dir.as_str());
        for (index, (name, lsn)) in report.holds.iter().enumerate() {
            assert_eq!(value["holds"][index]["name"], name.as_str());
            assert_eq!(value["holds"][index]["lsn"], lsn.get());
        }
        assert_eq!(value["findings"].as_array().map_or(0, Vec::len), findings);
    }
}

fn any_report(input: &mut Input<'_>) -> Report {
    let state = |input: &mut Input<'_>| {
        input.pick(&[
            State::Clean,
            State::Live,
            State::Unclean,
            State::TornTail,
            State::Corrupt,
            State::Unsupported,
        ])
    };
    let lsn = |input: &mut Input<'_>| Lsn::new(input.number());
    let roles = [Role::Active, Role::Sealed, Role::Prepared, Role::Bad];
    let segment = |input: &mut Input<'_>| SegmentReport {
        sequence: Sequence::new(input.number()).unwrap_or(Sequence::FIRST),
        file_bytes: input.number(),
        role: input.pick(&roles),
        records: Some(input.number()),
        used_bytes: if input.one_in(2) { Some(input.number()) } else { None },
        lsns: lsn(input).zip(lsn(input)),
        generation: Some(Generation(input.number())),
        created_ms: Some(input.number()),
        last_append_ms: if input.one_in(2) { Some(input.number()) } else { None },
    };
    let finding = |input: &mut Input<'_>| Finding {
        state: state(input),
        segment: Sequence::new(input.number()),
        bytes: if input.one_in(2) { Some((input.number(), input.number())) } else { None },
        lsns: lsn(input).zip(lsn(input)),
        why: text(input),
    };
    Report {
        state: state(input),
        live: input.one_in(2),
        shared: input.pick(&[None, Some(false), Some(true)]),
        row: input.pick(&[Row::A, Row::B, Row::DPrime, Row::Fresh]),
        log_id: Some(LogId([input.byte(); 16])),
        generation: Some(Generation(input.number())),
        head: lsn(input).unwrap_or(Lsn::FIRST),
        last_lsn: lsn(input),
        proven_lsn: lsn(input),
        copied_lsn: if input.one_in(4) { lsn(input) } else { None },
        records: Some(input.number()),
        holds: (0..input.below(3)).map(|_| (text(input), Lsn::FIRST)).collect(),
        segments: (0..input.below(30)).map(|_| segment(input)).collect(),
        findings: (0..input.below(4)).map(|_| finding(input)).collect(),
        findings_cut: if input.one_in(4) { input.number() } else { 0 },
        leftovers: (0..input.below(3)).map(|_| text(input)).collect(),
    }
}
