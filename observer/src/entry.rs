//! The entry: one protocol event of an agent run, as a value.
//!
//! Never here: bytes (the [`crate::codec`] module knows the envelope) and rules about which fields
//! a kind must have; readers take what is there. Invariant: what a source did not say is `None`,
//! never a default. Next room: [`crate::codec`].

use std::borrow::Cow;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::{MonoTime, WallTime};
use crate::ids::{CallId, ContentHash, InstanceId, RunId, SessionId, SpanId, Ticket};
use crate::json::JsonText;
use crate::kind::EntryKind;
use crate::notes::{Field, Notes};

/// One protocol event. As JSON (serde) it is one object whose absent fields are left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// What happened.
    pub kind: EntryKind,
    /// Which observer took it, and when in its order.
    pub ticket: Ticket,
    /// When, for people. Of an imported entry: what its source says, see [`Source::time`].
    pub wall: WallTime,
    /// When, on the observer's own monotonic clock; comparable only inside one instance.
    #[serde(rename = "mono_ns")]
    pub mono: MonoTime,
    /// The session it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The run inside the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The span; a start and its end have the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<SpanId>,
    /// The span around this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span: Option<SpanId>,
    /// The runtime's call id; a start and its end have the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<CallId>,
    /// The agent's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The tool's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The model's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What the source calls the event, where that is not one of our kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tokens the model read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<u64>,
    /// Tokens the model wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<u64>,
    /// From start to end on a monotonic clock. Absent where nobody measured it.
    #[serde(rename = "duration_ns", serialize_with = "nanos")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// What went in. Of an imported JSON line: the whole line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<JsonText>,
    /// What came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<JsonText>,
    /// Why it failed. Of an error too large for the entry, its beginning, see
    /// [`crate::FieldNote::payload`]; whether there is one at all says [`Entry::has_error`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<JsonText>,
    /// Anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonText>,
    /// Where an imported entry comes from; `None` for one that was recorded live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What was done to input, output, error and metadata before they were written.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub notes: Notes,
}

impl Entry {
    /// One of the fields that hold JSON, as it stands in the entry.
    pub fn field(&self, field: Field) -> Option<&JsonText> {
        match field {
            Field::Input => self.input.as_ref(),
            Field::Output => self.output.as_ref(),
            Field::Error => self.error.as_ref(),
            Field::Metadata => self.metadata.as_ref(),
        }
    }

    /// Whether it carries an error, wherever the error stands: here or in payload records.
    pub fn has_error(&self) -> bool {
        self.error.is_some() || self.error_elsewhere().is_some()
    }

    /// The error as far as it stands in the entry. Where nothing of it does, because it was written
    /// into payload records alone, a JSON string that says so: whoever shows failures shows this one.
    /// The whole: [`crate::read_field`].
    pub fn error_shown(&self) -> Option<Cow<'_, JsonText>> {
        if let Some(error) = &self.error {
            return Some(Cow::Borrowed(error));
        }
        let said = format!("[an error of {} bytes in records of its own]", self.error_elsewhere()?);
        Some(Cow::Owned(JsonText::string(&said)))
    }

    /// How long an error in payload records is.
    fn error_elsewhere(&self) -> Option<u64> {
        self.notes.get(Field::Error)?.payload.map(|payload| payload.bytes)
    }

    pub(crate) fn field_mut(&mut self, field: Field) -> &mut Option<JsonText> {
        match field {
            Field::Input => &mut self.input,
            Field::Output => &mut self.output,
            Field::Error => &mut self.error,
            Field::Metadata => &mut self.metadata,
        }
    }

    /// An entry of this kind with nothing else in it; ticket and times are zero.
    pub fn new(kind: EntryKind) -> Entry {
        Entry {
            kind,
            ticket: Ticket { instance: InstanceId::from_bytes([0; 16]), sequence: 0 },
            wall: WallTime(0),
            mono: MonoTime(0),
            session: None,
            run: None,
            span: None,
            parent_span: None,
            call_id: None,
            agent: None,
            tool: None,
            model: None,
            name: None,
            tokens_in: None,
            tokens_out: None,
            duration: None,
            input: None,
            output: None,
            error: None,
            metadata: None,
            source: None,
            notes: Notes::default(),
        }
    }
}

/// Where an imported entry comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Source {
    /// The file, as it was named to the import.
    pub file: String,
    /// SHA-256 of the whole file.
    pub sha256: ContentHash,
    /// 1 for the first import of this content into this log, 2 for the second, and so on.
    pub round: u32,
    /// Where in the file.
    #[serde(flatten)]
    pub position: Position,
    /// Where the entry's wall time comes from.
    pub time: TimeOrigin,
}

/// A place in a file; in the order of the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Position {
    /// The line of a `.jsonl`, the step (or message) of a `.traj`, both from 1. A trajectory's
    /// agent start is 0, its agent end one past the last step.
    pub line: u64,
    /// Which of the entries that were made of this line or step, from 0.
    pub part: u32,
}

/// Where an imported entry's wall time comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeOrigin {
    /// The source gives no time that could be read: it is the time of the import.
    Import,
    /// The source gives a time with its offset from UTC.
    Source,
    /// The source gives a local time without an offset; it was read as UTC.
    SourceAssumedUtc,
}

/// Nanoseconds of a duration, as far as 64 bits go (584 years).
pub(crate) fn duration_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn nanos<S: Serializer>(value: &Option<Duration>, to: S) -> std::result::Result<S::Ok, S::Error> {
    value.map(duration_nanos).serialize(to)
}
