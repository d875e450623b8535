//! The envelope: an entry as the bytes of its record, and back. The only file that knows bincode.
//!
//! Never here: the kind (it stands in the record's header), the log, a copy before a check.
//! Invariants: the bytes begin with a version (u32); a version never changes its layout; every
//! length is checked against the bytes that are there before anything is allocated; all bytes are
//! used up; the ticket's sequence stands at [`SEQUENCE_AT`], so that it can be stamped into
//! finished bytes. Why bincode, why pinned, and the way out: docs/adr/0003. Next room:
//! [`crate::clock`].

use std::ops::Range;
use std::time::Duration;

use annals_wal::{Batch, Codec, Kind, Record, RecordRef, StoredRecord, Stream};
use bincode::{BorrowDecode, Encode, config};

use crate::clock::{MonoTime, WallTime};
use crate::entry::{Entry, Position, Source, TimeOrigin, duration_nanos};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CallId, ContentHash, InstanceId, RunId, SessionId, SpanId, Ticket};
use crate::json::JsonText;
use crate::kind::{EntryKind, PAYLOAD_RECORD_KIND};
use crate::notes::{Field, FieldNote, Notes, Original, PayloadRef};

/// The longest entry in bytes, whatever the log's own cap; it binds writers and readers alike.
pub(crate) const ENTRY_BYTES_MAX: usize = 64 << 20;

/// Where the ticket's sequence stands: after the version (4) and the instance (16).
const SEQUENCE_AT: Range<usize> = 20..28;

/// Where its wall time stands, in every version: behind the sequence.
const WALL_AT: Range<usize> = 28..36;

/// Little endian, fixed-width integers: what every bincode ever wrote by default, and wincode.
const CONFIG: config::Configuration<
    config::LittleEndian,
    config::Fixint,
    config::Limit<ENTRY_BYTES_MAX>,
> = config::legacy().with_limit::<ENTRY_BYTES_MAX>();

/// Every version there was. A new one is a new variant at the end; old ones stay as they are.
#[derive(Encode, BorrowDecode)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack, for a moment")]
enum Wire<'a> {
    V1(WireV1<'a>),
    V2(WireV2<'a>),
}

/// The numbers that [`Wire`] knows are below this one.
const VERSIONS: u32 = 2;

#[derive(Encode, BorrowDecode)]
struct WireV1<'a> {
    instance: [u8; 16],
    sequence: u64,
    wall_ns: i64,
    mono_ns: u64,
    session: Option<&'a str>,
    run: Option<&'a str>,
    span: Option<u64>,
    parent_span: Option<u64>,
    call_id: Option<&'a str>,
    agent: Option<&'a str>,
    tool: Option<&'a str>,
    model: Option<&'a str>,
    name: Option<&'a str>,
    tokens_in: Option<u64>,
    tokens_out: Option<u64>,
    duration_ns: Option<u64>,
    input: Option<&'a str>,
    output: Option<&'a str>,
    error: Option<&'a str>,
    metadata: Option<&'a str>,
    source: Option<WireSourceV1<'a>>,
}

#[derive(Encode, BorrowDecode)]
struct WireSourceV1<'a> {
    file: &'a str,
    sha256: [u8; 32],
    round: u32,
    line: u64,
    part: u32,
    time: u8,
}

/// Version 1 and what was done to its four texts. Written only where something was: an entry is
/// encoded in the oldest version that holds it.
#[derive(Encode, BorrowDecode)]
struct WireV2<'a> {
    entry: WireV1<'a>,
    input: Option<WireNoteV2>,
    output: Option<WireNoteV2>,
    error: Option<WireNoteV2>,
    metadata: Option<WireNoteV2>,
}

#[derive(Encode, BorrowDecode)]
struct WireNoteV2 {
    redactions: u32,
    original: Option<WireOriginalV2>,
    payload: Option<WirePayloadV2>,
}

#[derive(Encode, BorrowDecode)]
struct WireOriginalV2 {
    bytes: u64,
    sha256: [u8; 32],
}

#[derive(Encode, BorrowDecode)]
struct WirePayloadV2 {
    back: u32,
    count: u32,
    bytes: u64,
    sha256: [u8; 32],
}

/// The payload of an entry's record, exactly as the observer writes it.
///
/// For tools that check or move entries; to record one, use [`crate::Session`]. Nothing is
/// durable: nothing is written.
///
/// # Errors
/// `TooLarge` for more than 64 MiB, which no reader would take back.
///
/// ```
/// use annals_observer::{Entry, EntryKind, encode_entry};
///
/// let payload = encode_entry(&Entry::new(EntryKind::ToolStart))?;
/// assert_eq!(payload[..4], [0, 0, 0, 0], "version 1 is the first variant");
/// # Ok::<(), annals_observer::Error>(())
/// ```
pub fn encode_entry(entry: &Entry) -> Result<Vec<u8>> {
    let bytes = encode(entry)?;
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(Error::entry_too_large(bytes.len(), ENTRY_BYTES_MAX));
    }
    Ok(bytes)
}

fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let wire = if entry.notes.is_empty() {
        Wire::V1(to_wire(entry))
    } else {
        let note = |field| entry.notes.get(field).map(to_wire_note);
        Wire::V2(WireV2 {
            entry: to_wire(entry),
            input: note(Field::Input),
            output: note(Field::Output),
            error: note(Field::Error),
            metadata: note(Field::Metadata),
        })
    };
    let mut bytes = Vec::with_capacity(room(entry));
    // Writing to memory has no failure of its own; the limit binds decoding only.
    bincode::encode_into_std_write(wire, &mut bytes, CONFIG)
        .map_err(|_| Error::invalid("the entry could not be encoded: shorten its fields"))?;
    Ok(bytes)
}

/// Enough for the envelope, so that one allocation holds it.
fn room(entry: &Entry) -> usize {
    const FIXED: usize = 512;
    let texts = Field::ALL.into_iter().filter_map(|field| entry.field(field));
    let ids = [
        entry.session.as_ref().map(SessionId::as_str),
        entry.run.as_ref().map(RunId::as_str),
        entry.call_id.as_ref().map(CallId::as_str),
        entry.agent.as_deref(),
        entry.tool.as_deref(),
        entry.model.as_deref(),
        entry.name.as_deref(),
        entry.source.as_ref().map(|source| source.file.as_str()),
    ];
    let ids = ids.into_iter().flatten().map(str::len).sum::<usize>();
    FIXED + ids + texts.map(|text| text.as_str().len()).sum::<usize>()
}

/// How long an entry's bytes may be in a log with this record cap.
pub(crate) fn entry_cap(record_bytes_max: u32) -> usize {
    usize::try_from(record_bytes_max).unwrap_or(usize::MAX).min(ENTRY_BYTES_MAX)
}

/// An entry as bytes, its sequence still 0, with the payload records that go before it.
#[derive(Clone, Debug)]
pub(crate) struct EncodedEntry {
    bytes: Vec<u8>,
    kind: EntryKind,
    stream: Stream,
    /// Pieces of fields that were too large; empty for nearly every entry.
    payloads: Vec<Vec<u8>>,
}

impl EncodedEntry {
    /// The entry's envelope, however long. Done before any lock.
    pub(crate) fn new(entry: &Entry, payloads: Vec<Vec<u8>>) -> Result<EncodedEntry> {
        let bytes = encode(entry)?;
        let stream = entry.session.as_ref().map_or(Stream::NONE, SessionId::stream);
        Ok(EncodedEntry { bytes, kind: entry.kind, stream, payloads })
    }

    pub(crate) fn kind(&self) -> EntryKind {
        self.kind
    }

    /// How long the record's payload is.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of all its records.
    pub(crate) fn weight(&self) -> usize {
        self.payloads.iter().map(Vec::len).sum::<usize>() + self.bytes.len()
    }

    /// How many records it becomes.
    pub(crate) fn records(&self) -> u64 {
        self.payloads.len() as u64 + 1
    }

    /// The same, with this sequence in its ticket.
    pub(crate) fn stamp(&mut self, sequence: u64) {
        if let Some(place) = self.bytes.get_mut(SEQUENCE_AT) {
            place.copy_from_slice(&sequence.to_le_bytes());
        }
    }

    /// Adds its records to a batch: payload records first, the entry last.
    pub(crate) fn push_to<'e>(&'e self, batch: &mut Batch<'e>) {
        let kind = Kind::new(PAYLOAD_RECORD_KIND).unwrap_or(Kind::UNTYPED);
        for payload in &self.payloads {
            batch.push(Record::new(payload).kind(kind).stream(self.stream).codec(Codec::RAW));
        }
        batch.push(
            Record::new(&self.bytes)
                .kind(self.kind.record_kind())
                .stream(self.stream)
                .codec(Codec::BINCODE),
        );
    }
}

/// The entry that a record holds.
///
/// `Ok(None)` if the record is no entry at all (its kind is not one of the observer's).
///
/// # Errors
/// `Unsupported` for a newer envelope or codec, `Corrupt` for bytes that are no entry. Both name
/// the LSN and neither hides any other record.
pub fn decode_record(record: &StoredRecord) -> Result<Option<Entry>> {
    decode_ref(&RecordRef::from(record))
}

/// [`decode_record`] of a record whose payload its reader lends.
///
/// # Errors
/// As [`decode_record`].
pub fn decode_ref(record: &RecordRef<'_>) -> Result<Option<Entry>> {
    let Some(kind) = EntryKind::of_record(record.kind) else { return Ok(None) };
    if record.codec != Codec::BINCODE {
        let what = format!(
            "the entry is written in codec {}, which this version does not know: read it with a \
             newer one",
            record.codec.0
        );
        return Err(Error::new(ErrorKind::Unsupported, what).at(record.lsn));
    }
    decode(kind, record.payload).map(Some).map_err(|error| error.at(record.lsn))
}

/// The wall time of an entry that is not decoded: what stands where a known envelope has it. `None` where
/// the version is none that is known, of which [`decode_ref`] has more to say. Whether the rest decodes is
/// not asked, which is what this saves: whoever passes a record over for its time passes over one with
/// a damaged envelope, too, and his page says so ([`crate::Query::run`]).
pub(crate) fn wall_of(record: &RecordRef<'_>) -> Option<WallTime> {
    let known = record.codec == Codec::BINCODE && check_version(record.payload).is_ok();
    let nanos = record.payload.get(WALL_AT).filter(|_| known)?;
    nanos.first_chunk().map(|nanos| WallTime(i64::from_le_bytes(*nanos)))
}

fn decode(kind: EntryKind, bytes: &[u8]) -> Result<Entry> {
    check_version(bytes)?;
    match bincode::borrow_decode_from_slice::<Wire<'_>, _>(bytes, CONFIG) {
        Ok((wire, used)) if used == bytes.len() => match wire {
            Wire::V1(wire) => from_wire(kind, &wire),
            Wire::V2(wire) => from_wire_v2(kind, &wire),
        },
        Ok(_) => Err(corrupt("bytes are left over after its last field")),
        Err(_) => Err(corrupt("its envelope does not decode")),
    }
}

/// Judged before bincode is asked, so that a newer version is never called corrupt.
fn check_version(bytes: &[u8]) -> Result<()> {
    let version = bytes.first_chunk().map(|version| u32::from_le_bytes(*version));
    match version {
        Some(version) if version < VERSIONS => Ok(()),
        Some(version) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the entry has envelope version {}, this software knows up to {VERSIONS}: read it \
                 with a newer version",
                u64::from(version) + 1
            ),
        )),
        None => Err(corrupt("it is shorter than a version number")),
    }
}

fn corrupt(why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the record is no entry although its kind says so: {why}. Later ones are readable"),
    )
}

fn to_wire(entry: &Entry) -> WireV1<'_> {
    WireV1 {
        instance: entry.ticket.instance.to_bytes(),
        sequence: entry.ticket.sequence,
        wall_ns: entry.wall.0,
        mono_ns: entry.mono.0,
        session: entry.session.as_ref().map(SessionId::as_str),
        run: entry.run.as_ref().map(RunId::as_str),
        span: entry.span.map(SpanId::get),
        parent_span: entry.parent_span.map(SpanId::get),
        call_id: entry.call_id.as_ref().map(CallId::as_str),
        agent: entry.agent.as_deref(),
        tool: entry.tool.as_deref(),
        model: entry.model.as_deref(),
        name: entry.name.as_deref(),
        tokens_in: entry.tokens_in,
        tokens_out: entry.tokens_out,
        duration_ns: entry.duration.map(duration_nanos),
        input: entry.input.as_ref().map(JsonText::as_str),
        output: entry.output.as_ref().map(JsonText::as_str),
        error: entry.error.as_ref().map(JsonText::as_str),
        metadata: entry.metadata.as_ref().map(JsonText::as_str),
        source: entry.source.as_ref().map(|source| WireSourceV1 {
            file: &source.file,
            sha256: source.sha256.0,
            round: source.round,
            line: source.position.line,
            part: source.position.part,
            time: time_number(source.time),
        }),
    }
}

fn from_wire(kind: EntryKind, wire: &WireV1<'_>) -> Result<Entry> {
    Ok(Entry {
        kind,
        ticket: Ticket { instance: InstanceId::from_bytes(wire.instance), sequence: wire.sequence },
        wall: WallTime(wire.wall_ns),
        mono: MonoTime(wire.mono_ns),
        session: id(wire.session, SessionId::stored)?,
        run: id(wire.run, RunId::stored)?,
        span: span(wire.span)?,
        parent_span: span(wire.parent_span)?,
        call_id: id(wire.call_id, CallId::stored)?,
        agent: wire.agent.map(str::to_owned),
        tool: wire.tool.map(str::to_owned),
        model: wire.model.map(str::to_owned),
        name: wire.name.map(str::to_owned),
        tokens_in: wire.tokens_in,
        tokens_out: wire.tokens_out,
        duration: wire.duration_ns.map(Duration::from_nanos),
        input: json(wire.input)?,
        output: json(wire.output)?,
        error: json(wire.error)?,
        metadata: json(wire.metadata)?,
        source: wire.source.as_ref().map(source).transpose()?,
        notes: Notes::default(),
    })
}

fn from_wire_v2(kind: EntryKind, wire: &WireV2<'_>) -> Result<Entry> {
    let mut entry = from_wire(kind, &wire.entry)?;
    let notes = [
        (Field::Input, &wire.input),
        (Field::Output, &wire.output),
        (Field::Error, &wire.error),
        (Field::Metadata, &wire.metadata),
    ];
    for (field, note) in notes {
        if let Some(note) = note {
            entry.notes.set(field, from_wire_note(note));
        }
    }
    Ok(entry)
}

fn to_wire_note(note: &FieldNote) -> WireNoteV2 {
    let original =
        |original: Original| WireOriginalV2 { bytes: original.bytes, sha256: original.sha256.0 };
    let payload = |payload: PayloadRef| WirePayloadV2 {
        back: payload.back,
        count: payload.count,
        bytes: payload.bytes,
        sha256: payload.sha256.0,
    };
    WireNoteV2 {
        redactions: note.redactions,
        original: note.original.map(original),
        payload: note.payload.map(payload),
    }
}

fn from_wire_note(wire: &WireNoteV2) -> FieldNote {
    let original =
        |wire: &WireOriginalV2| Original { bytes: wire.bytes, sha256: ContentHash(wire.sha256) };
    let payload = |wire: &WirePayloadV2| PayloadRef {
        back: wire.back,
        count: wire.count,
        bytes: wire.bytes,
        sha256: ContentHash(wire.sha256),
    };
    FieldNote {
        redactions: wire.redactions,
        original: wire.original.as_ref().map(original),
        payload: wire.payload.as_ref().map(payload),
    }
}

fn id<T>(text: Option<&str>, make: impl Fn(String) -> Option<T>) -> Result<Option<T>> {
    let empty = || corrupt("an id is empty");
    text.map(|text| make(text.to_owned()).ok_or_else(empty)).transpose()
}

fn span(number: Option<u64>) -> Result<Option<SpanId>> {
    number.map(|number| SpanId::new(number).ok_or_else(|| corrupt("a span is 0"))).transpose()
}

/// Checked again on every read: a tool puts this text into its own JSON output.
fn json(text: Option<&str>) -> Result<Option<JsonText>> {
    let invalid = |_| corrupt("a field that must be JSON is not");
    text.map(|text| JsonText::parse(text).map_err(invalid)).transpose()
}

fn source(wire: &WireSourceV1<'_>) -> Result<Source> {
    Ok(Source {
        file: wire.file.to_owned(),
        sha256: ContentHash(wire.sha256),
        round: wire.round,
        position: Position { line: wire.line, part: wire.part },
        time: time_origin(wire.time)?,
    })
}

fn time_number(time: TimeOrigin) -> u8 {
    match time {
        TimeOrigin::Import => 0,
        TimeOrigin::Source => 1,
        TimeOrigin::SourceAssumedUtc => 2,
    }
}

fn time_origin(number: u8) -> Result<TimeOrigin> {
    match number {
        0 => Ok(TimeOrigin::Import),
        1 => Ok(TimeOrigin::Source),
        2 => Ok(TimeOrigin::SourceAssumedUtc),
        _ => Err(corrupt("its time has an unknown origin")),
    }
}
