//! What was done to an entry's texts before they were written: redacted, cut, put elsewhere.
//!
//! Never here: the doing ([`crate::capture`]). Invariant: a text that stands in an entry as it was
//! given has no note. Next room: [`crate::payload`].

use serde::Serialize;

use crate::ids::ContentHash;

/// One of the four texts of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Field {
    /// [`crate::Entry::input`].
    Input,
    /// [`crate::Entry::output`].
    Output,
    /// [`crate::Entry::error`].
    Error,
    /// [`crate::Entry::metadata`].
    Metadata,
}

impl Field {
    /// All four, in the order in which their payload records stand.
    pub const ALL: [Field; 4] = [Field::Input, Field::Output, Field::Error, Field::Metadata];
}

/// A note for each text that is not as it was given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Notes {
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Box<FieldNote>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Box<FieldNote>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<FieldNote>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<FieldNote>>,
}

impl Notes {
    /// Whether all texts are as they were given.
    pub fn is_empty(&self) -> bool {
        Field::ALL.into_iter().all(|field| self.get(field).is_none())
    }

    /// What was done to this text, if anything was.
    pub fn get(&self, field: Field) -> Option<&FieldNote> {
        match field {
            Field::Input => self.input.as_deref(),
            Field::Output => self.output.as_deref(),
            Field::Error => self.error.as_deref(),
            Field::Metadata => self.metadata.as_deref(),
        }
    }

    /// Puts a note; what an import or a tool writes about a text.
    pub fn set(&mut self, field: Field, note: FieldNote) {
        *self.place(field) = Some(Box::new(note));
    }

    /// The note of a text, made if there is none.
    pub(crate) fn of(&mut self, field: Field) -> &mut FieldNote {
        self.place(field).get_or_insert_default()
    }

    /// The text stands in the entry again: its note says only what was done to it, if anything.
    pub(crate) fn came_back(&mut self, field: Field) {
        let place = self.place(field);
        if let Some(note) = place {
            note.payload = None;
        }
        if place.as_deref() == Some(&FieldNote::default()) {
            *place = None;
        }
    }

    fn place(&mut self, field: Field) -> &mut Option<Box<FieldNote>> {
        match field {
            Field::Input => &mut self.input,
            Field::Output => &mut self.output,
            Field::Error => &mut self.error,
            Field::Metadata => &mut self.metadata,
        }
    }
}

/// What was done to one text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FieldNote {
    /// How many strings in it a redactor changed.
    pub redactions: u32,
    /// How long it was before it was cut; `None` if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
    /// Where it stands if it is too large for the entry. The entry's own field is then absent; that of
    /// an error is its beginning, at most 1 KiB, or absent in older logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<PayloadRef>,
}

/// A text as it was before it was cut, and after it was redacted: a hash of a secret would give it
/// to whoever can guess.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Original {
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: ContentHash,
}

/// Where a large text stands: in records of its own, before its entry in the same batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PayloadRef {
    /// How many LSNs before the entry's own the first piece stands.
    pub back: u32,
    /// How many pieces there are.
    pub count: u32,
    /// Length of all of them in bytes.
    pub bytes: u64,
    /// SHA-256 of all of them.
    pub sha256: ContentHash,
}
