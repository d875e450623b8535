//! Large texts, read back out of the payload records that stand before their entry.
//!
//! Never here: guesses. Length and SHA-256 must be those that the entry names. Next room:
//! [`crate::read`].

use annals_wal::{Codec, Kind};

use crate::capture::sha256;
use crate::error::{Error, ErrorKind, Result};
use crate::json::JsonText;
use crate::kind::PAYLOAD_RECORD_KIND;
use crate::notes::{Field, PayloadRef};
use crate::read::{ReadRecords, StoredEntry};

/// One text of an entry, whole, wherever it stands, an error too whose beginning stands in the entry.
/// `None` if the entry has no such text.
///
/// Memory: the text. Its records were durable together with the entry's, and no trim or archive
/// parts them, because a segment holds batches whole.
///
/// # Errors
/// `Log` if its records cannot be read, `Corrupt` if they are not what the entry says.
///
/// ```
/// use annals_observer::{Field, JsonText, Options, entries, read_field};
///
/// # let dir = tempfile::tempdir()?;
/// let log = annals_wal::Log::open(dir.path().join("log"))?;
/// let observer = Options::new().inline_bytes_max(100).on(log)?;
/// let mut call = observer.session("s-1")?.tool("cat").start()?;
/// call.end_ok(JsonText::string(&"x".repeat(5000)))?;
/// let end = entries(observer.log())?.last().transpose()?.expect("two entries");
/// assert_eq!(end.entry.output, None, "it stands in a record of its own");
/// let output = read_field(observer.log(), &end, Field::Output)?;
/// assert_eq!(output.map(|text| text.as_str().len()), Some(5002));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_field(
    from: &impl ReadRecords,
    stored: &StoredEntry,
    field: Field,
) -> Result<Option<JsonText>> {
    let note = stored.entry.notes.get(field);
    let Some(payload) = note.and_then(|note| note.payload) else {
        return Ok(stored.entry.field(field).cloned());
    };
    read(from, stored, payload).map(Some).map_err(|error| match error.kind() {
        ErrorKind::Log => error,
        _ => error.at(stored.lsn),
    })
}

fn read(from: &impl ReadRecords, stored: &StoredEntry, payload: PayloadRef) -> Result<JsonText> {
    let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, format!("a large text {why}"));
    let first = stored.lsn.get().checked_sub(u64::from(payload.back));
    let first = first.and_then(annals_wal::Lsn::new);
    let first = first.ok_or_else(|| corrupt("would begin before the first record"))?;
    let mut bytes = Vec::new();
    let mut pieces = 0;
    if payload.count > payload.back {
        return Err(corrupt("would overlap its entry"));
    }
    for record in from.records(first..stored.lsn)?.take(payload.count as usize) {
        let record = record?;
        let is_piece = Some(record.kind) == Kind::new(PAYLOAD_RECORD_KIND);
        if !is_piece || record.codec != Codec::RAW {
            return Err(corrupt("is missing: another record stands in its place"));
        }
        pieces += 1;
        bytes.extend(record.payload);
        if bytes.len() as u64 > payload.bytes {
            break;
        }
    }
    if pieces != payload.count || bytes.len() as u64 != payload.bytes {
        return Err(corrupt("has another length than its entry says"));
    }
    if sha256(&bytes) != payload.sha256 {
        return Err(corrupt("has another SHA-256 than its entry says"));
    }
    let text = String::from_utf8(bytes).map_err(|_| corrupt("is no UTF-8"))?;
    JsonText::parse(text).map_err(|_| corrupt("is no JSON"))
}
