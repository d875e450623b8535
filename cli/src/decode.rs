//! A record as something to show: what kind it is, whose session, what is in it.
//!
//! Never here: output. A record that cannot be decoded is shown as bytes with the reason.

use annals_observer::{Entry, EntryKind, decode_record};
use annals_registry::{CHECKPOINT, Change, TRANSACTION, decode_transaction};
use annals_wal::{Codec, StoredRecord};
use serde_json::{Map, Value, json};

use crate::escape::hex;

/// A record, as far as this build can look into it.
pub(crate) enum Shown {
    Entry(Box<Entry>),
    Transaction(Vec<Change>),
    Payload,
    Undecodable(String),
}

pub(crate) fn decode(record: &StoredRecord) -> Shown {
    if EntryKind::of_record(record.kind).is_some() {
        return match decode_record(record) {
            Ok(Some(entry)) => Shown::Entry(Box::new(entry)),
            Ok(None) => Shown::Payload,
            Err(error) => Shown::Undecodable(error.to_string()),
        };
    }
    if record.kind == TRANSACTION {
        return match decode_transaction(record.lsn, &record.payload) {
            Ok(changes) => Shown::Transaction(changes),
            Err(error) => Shown::Undecodable(error.to_string()),
        };
    }
    Shown::Payload
}

/// The record's kind as `--kind` takes it.
pub(crate) fn kind_name(record: &StoredRecord) -> String {
    if let Some(kind) = EntryKind::of_record(record.kind) {
        return kind.to_string();
    }
    match record.kind.get() {
        0 => "untyped".to_owned(),
        _ if record.kind == annals_wal::Kind::LOST => "lost".to_owned(),
        _ if record.kind == TRANSACTION => "registry".to_owned(),
        _ if record.kind == CHECKPOINT => "registry-checkpoint".to_owned(),
        number => format!("{number:#06x}"),
    }
}

pub(crate) fn session(shown: &Shown) -> Option<&str> {
    match shown {
        Shown::Entry(entry) => entry.session.as_ref().map(|session| session.as_str()),
        _ => None,
    }
}

/// One JSON object. Imported and recorded JSON text is put in as it stands, so that numbers and key
/// order survive; that is why the line is put together as text.
pub(crate) fn json_line(record: &StoredRecord, shown: &Shown) -> serde_json::Result<String> {
    let mut head = Map::new();
    head.insert("schema".to_owned(), json!("wal.record/1"));
    head.insert("lsn".to_owned(), json!(record.lsn.get()));
    head.insert("kind".to_owned(), json!(kind_name(record)));
    if let Some(session) = session(shown) {
        head.insert("session".to_owned(), json!(session));
    }
    let (name, body) = match shown {
        Shown::Entry(entry) => ("entry", serde_json::to_string(entry)?),
        Shown::Transaction(changes) => {
            let changes: Vec<Value> = changes.iter().map(change_json).collect();
            ("changes", serde_json::to_string(&changes)?)
        }
        Shown::Payload => payload_json(record.codec, &record.payload)?,
        Shown::Undecodable(why) => {
            head.insert("undecodable".to_owned(), json!(why));
            ("payload_hex", json!(hex(&record.payload)).to_string())
        }
    };
    let mut line = serde_json::to_string(&head)?;
    line.truncate(line.len() - 1);
    line.push_str(&format!(",\"{name}\":{body}}}"));
    Ok(line)
}

/// JSON as JSON, text as text, anything else as hexadecimal digits.
fn payload_json(codec: Codec, payload: &[u8]) -> serde_json::Result<(&'static str, String)> {
    let Ok(text) = std::str::from_utf8(payload) else {
        return Ok(("payload_hex", json!(hex(payload)).to_string()));
    };
    if codec == Codec::JSON
        && let Ok(raw) = serde_json::from_str::<Box<serde_json::value::RawValue>>(text)
        && !text.contains(['\n', '\r'])
    {
        return Ok(("payload", raw.get().to_owned()));
    }
    Ok(("payload", serde_json::to_string(text)?))
}

fn change_json(change: &Change) -> Value {
    let key = change.key();
    match change.value() {
        Some(value) => {
            let shown = std::str::from_utf8(value.bytes()).ok().map(|text| {
                if value.codec() == Codec::JSON {
                    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
                } else {
                    json!(text)
                }
            });
            let shown = shown.unwrap_or_else(|| json!({ "hex": hex(value.bytes()) }));
            json!({ "put": key.as_str(), "value": shown })
        }
        None => json!({ "delete": key.as_str() }),
    }
}
