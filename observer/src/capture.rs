//! What of an entry is kept, in which shape: detail, switches, redaction, cuts, payload records.
//!
//! Never here: tickets, the log. Order: what is not wanted goes first, then the whole rest is
//! redacted, then cut, then what is still too large moves to payload records. Errors are kept at
//! every level of detail, and the beginning of each stands in its entry: a reader that asks only the
//! entry must see that the call failed. Next room: [`crate::codec`].

use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::ids::{CallId, ContentHash, RunId, SessionId};
use crate::json::JsonText;
use crate::notes::{Field, Original, PayloadRef};
use crate::redact::Redaction;

/// So much of an error that moves to payload records stays in its entry, if so much may stand there.
const ERROR_BYTES_KEPT: usize = 1 << 10;

/// How much of an entry is recorded. Ids, names, times, tokens and errors always are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Detail {
    /// No input, no output, no metadata.
    Minimal,
    /// Input and output, no metadata.
    Standard,
    /// Everything.
    #[default]
    Full,
}

/// Which texts are kept and how long they may be.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    pub(crate) detail: Detail,
    pub(crate) input: bool,
    pub(crate) output: bool,
    pub(crate) prompts: bool,
    pub(crate) metadata: bool,
    /// Longer texts are cut to this many bytes; of a string its content counts.
    pub(crate) field_bytes_max: usize,
    /// Longer texts stand in records of their own.
    pub(crate) inline_bytes_max: usize,
    pub(crate) redaction: Redaction,
}

impl Default for Capture {
    fn default() -> Capture {
        Capture {
            detail: Detail::Full,
            input: true,
            output: true,
            prompts: true,
            metadata: true,
            field_bytes_max: usize::MAX,
            inline_bytes_max: 256 << 10,
            redaction: Redaction::default(),
        }
    }
}

impl Capture {
    /// Makes the entry what may be written of it.
    pub(crate) fn apply(&self, entry: &mut Entry) {
        self.select(entry);
        redact(&self.redaction, entry);
        for field in Field::ALL {
            self.cut(entry, field);
        }
    }

    /// Whether prompts are captured.
    #[cfg(feature = "tracing")]
    pub(crate) fn takes_prompts(&self) -> bool {
        self.detail >= Detail::Standard && self.input && self.prompts
    }

    /// Whether outputs are captured.
    #[cfg(feature = "tracing")]
    pub(crate) fn takes_output(&self) -> bool {
        self.detail >= Detail::Standard && self.output
    }

    fn select(&self, entry: &mut Entry) {
        let texts = self.detail >= Detail::Standard;
        let prompts = self.prompts || !matches!(entry.kind, crate::EntryKind::LlmStart);
        if !(texts && self.input && prompts) {
            entry.input = None;
        }
        if !(texts && self.output) {
            entry.output = None;
        }
        // What the observer itself says about a run, a write-off or a drop is no caller's detail.
        let own = matches!(
            entry.kind,
            crate::EntryKind::Abandoned
                | crate::EntryKind::Dropped
                | crate::EntryKind::NotRun
                | crate::EntryKind::RunStart
        );
        if !(own || self.detail == Detail::Full && self.metadata) {
            entry.metadata = None;
        }
    }

    fn cut(&self, entry: &mut Entry, field: Field) {
        let Some(text) = entry.field(field) else { return };
        let whole = text.as_str();
        if whole.len() <= self.field_bytes_max {
            return;
        }
        // Of a string what it says is limited: its quotes and escapes are ours.
        let content = serde_json::from_str::<String>(whole).unwrap_or_else(|_| whole.to_owned());
        if content.len() <= self.field_bytes_max {
            return;
        }
        let original = Original { bytes: whole.len() as u64, sha256: sha256(whole.as_bytes()) };
        *entry.field_mut(field) = Some(beginning(whole, self.field_bytes_max));
        // A text that was cut before and is recorded again keeps what is known of the whole.
        entry.notes.of(field).original.get_or_insert(original);
    }

    /// Moves large texts out of the entry, into the records that stand before it.
    pub(crate) fn split(&self, entry: &mut Entry, record_bytes_max: usize) -> Vec<Vec<u8>> {
        let piece = record_bytes_max.clamp(1, 1 << 20);
        let mut payloads: Vec<Vec<u8>> = Vec::new();
        for field in Field::ALL {
            let large = |text: &JsonText| text.as_str().len() > self.inline_bytes_max;
            let Some(text) = entry.field_mut(field).take_if(|text| large(text)) else { continue };
            if field == Field::Error {
                let kept = ERROR_BYTES_KEPT.min(self.inline_bytes_max);
                entry.error = Some(beginning(text.as_str(), kept));
            }
            let bytes = text.as_str().as_bytes();
            let first = payloads.len();
            payloads.extend(bytes.chunks(piece).map(<[u8]>::to_vec));
            let count = payloads.len() - first;
            entry.notes.of(field).payload = Some(PayloadRef {
                back: u32::try_from(first).unwrap_or(u32::MAX), // mended below
                count: u32::try_from(count).unwrap_or(u32::MAX),
                bytes: bytes.len() as u64,
                sha256: sha256(bytes),
            });
        }
        let all = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
        for field in Field::ALL.into_iter().filter(|_| all > 0) {
            if entry.notes.get(field).is_some_and(|note| note.payload.is_some())
                && let Some(payload) = &mut entry.notes.of(field).payload
            {
                payload.back = all.saturating_sub(payload.back);
            }
        }
        payloads
    }
}

/// The first bytes of what a JSON text says, as a JSON string, cut between two characters.
pub(crate) fn beginning(whole: &str, bytes: usize) -> JsonText {
    let content = serde_json::from_str::<String>(whole).unwrap_or_else(|_| whole.to_owned());
    let kept = content.get(..content.floor_char_boundary(bytes));
    JsonText::string(kept.unwrap_or_default())
}

/// Replaces what a redactor finds, in texts, names and ids.
pub(crate) fn redact(redaction: &Redaction, entry: &mut Entry) {
    for field in Field::ALL {
        if let Some(text) = entry.field(field)
            && let Some((redacted, count)) = redaction.json(text)
        {
            *entry.field_mut(field) = Some(redacted);
            entry.notes.of(field).redactions += count;
        }
    }
    for name in [&mut entry.agent, &mut entry.tool, &mut entry.model, &mut entry.name] {
        if let Some(redacted) = name.as_deref().and_then(|name| redaction.name(name)) {
            *name = Some(redacted);
        }
    }
    if let Some(id) = entry.session.as_ref().and_then(|id| redaction.name(id.as_str())) {
        entry.session = SessionId::stored(id);
    }
    if let Some(id) = entry.run.as_ref().and_then(|id| redaction.name(id.as_str())) {
        entry.run = RunId::stored(id);
    }
    if let Some(id) = entry.call_id.as_ref().and_then(|id| redaction.name(id.as_str())) {
        entry.call_id = CallId::stored(id);
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> ContentHash {
    ContentHash(Sha256::digest(bytes).into())
}
