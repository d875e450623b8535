//! Entries with their large texts put back, for an export that holds texts.
//!
//! Never here: a second entry in memory. A text over the observer's limit stands in records of its
//! own before its entry, and an entry that is read has only a note of it. Next room:
//! [`crate::read_field`].

use crate::error::Result;
use crate::kind::EntryKind;
use crate::notes::Field;
use crate::payload::read_field;
use crate::read::{ReadRecords, StoredEntry};

/// The same entries, each with the texts that stand in records of their own.
///
/// Memory: one entry with its texts. A text that cannot be read is an `Err` item before its entry,
/// which then comes without it: nothing is left out in silence, and no other entry for it. What lies
/// below the log's head was trimmed away: its entry keeps the note that says so.
///
/// ```
/// use annals_observer::{JsonText, Options, entries, export};
///
/// # let dir = tempfile::tempdir()?;
/// let log = annals_wal::Log::open(dir.path().join("log"))?;
/// let observer = Options::new().inline_bytes_max(100).on(log.clone())?;
/// observer.session("s-1")?.error(JsonText::string(&"x".repeat(5000)))?;
/// let mut lines = Vec::new();
/// export::jsonl::write(export::whole(&log, entries(&log)?), &mut lines)?;
/// assert!(lines.len() > 5000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn whole<R: ReadRecords, I: IntoIterator<Item = Result<StoredEntry>>>(
    from: &R,
    entries: I,
) -> Whole<'_, R, I::IntoIter> {
    Whole { from, entries: entries.into_iter(), next: None }
}

/// Iterator of [`whole`].
#[derive(Debug)]
pub struct Whole<'r, R, I> {
    from: &'r R,
    entries: I,
    /// An entry some of whose texts could not be read, and what of them is still to be tried.
    next: Option<(StoredEntry, Vec<Field>)>,
}

impl<R: ReadRecords, I: Iterator<Item = Result<StoredEntry>>> Iterator for Whole<'_, R, I> {
    type Item = Result<StoredEntry>;

    fn next(&mut self) -> Option<Result<StoredEntry>> {
        let (mut stored, mut fields) = match self.next.take() {
            Some(next) => next,
            None => match self.entries.next()? {
                Err(error) => return Some(Err(error)),
                Ok(stored) => {
                    // What a trim has parted from its entry, and what an entry that writes a start
                    // off says of the start's texts, is not there: the entry is exported without.
                    let mut head = None;
                    let elsewhere = |field: &Field| {
                        let note = stored.entry.notes.get(*field);
                        let payload = note.and_then(|note| note.payload);
                        payload.is_some_and(|payload| {
                            let head = *head.get_or_insert_with(|| self.from.head().get());
                            let first = stored.lsn.get().saturating_sub(u64::from(payload.back));
                            stored.entry.kind != EntryKind::Abandoned && first >= head
                        })
                    };
                    let fields = Field::ALL.into_iter().filter(elsewhere).collect();
                    (stored, fields)
                }
            },
        };
        while let Some(field) = fields.pop() {
            match read_field(self.from, &stored, field) {
                Ok(text) => {
                    *stored.entry.field_mut(field) = text;
                    stored.entry.notes.came_back(field);
                }
                Err(error) => {
                    self.next = Some((stored, fields));
                    return Some(Err(error));
                }
            }
        }
        Some(Ok(stored))
    }
}
