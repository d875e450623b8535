//! What is already imported, read from the log itself.
//!
//! Never here: a side file. Hash, round and position in the entries are the only memory, so a copy
//! of the log remembers as much as the log. Invariant: an import counts as finished only with its
//! done entry; without one, the last position says how far it came. Next room: [`super::writer`].

use std::collections::HashMap;

use annals_wal::Lsn;

use crate::entry::{Entry, Position};
use crate::error::{ErrorKind, Result};
use crate::ids::ContentHash;
use crate::kind::EntryKind;
use crate::read::{ReadRecords, entries};

/// The LSN of the done entry of the last finished import of this content; `None` if there is none
/// in the log, or it was trimmed.
///
/// Reads the whole log: for many files use one [`super::Importer`].
///
/// # Errors
/// `Log` if the log cannot be read.
pub fn already_imported(from: &impl ReadRecords, hash: ContentHash) -> Result<Option<Lsn>> {
    Ok(Index::read(from)?.seen(hash).and_then(Seen::finished))
}

/// How far the imports of one content came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The highest round that began.
    round: u32,
    /// Of that round: the last position in the log.
    last: Option<Position>,
    /// The last finished round and its done entry.
    done: Option<(u32, Lsn)>,
}

/// What to do about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// It is there, since this LSN.
    Already(Lsn),
    /// Import it from the start.
    Begin { round: u32 },
    /// Go on with an import that never finished, after this position.
    Resume { round: u32, after: Option<Position> },
}

impl Seen {
    pub(crate) fn finished(&self) -> Option<Lsn> {
        self.done.map(|(_, lsn)| lsn)
    }

    pub(crate) fn decide(&self, again: bool) -> Decision {
        let unfinished = self.round > self.done.map_or(0, |(round, _)| round);
        match self.done {
            Some((_, lsn)) if !again => Decision::Already(lsn),
            _ if unfinished => Decision::Resume { round: self.round, after: self.last },
            _ => Decision::Begin { round: self.round.saturating_add(1) },
        }
    }

    /// Entries up to this position are in the log's order.
    pub(crate) fn advance(&mut self, round: u32, position: Option<Position>) {
        if round > self.round {
            (self.round, self.last) = (round, None);
        }
        if round == self.round {
            self.last = self.last.max(position);
        }
    }

    pub(crate) fn finish(&mut self, round: u32, lsn: Lsn) {
        self.advance(round, None);
        self.done = Some((round, lsn));
    }
}

/// [`Seen`] by content.
#[derive(Debug, Default)]
pub(crate) struct Index {
    contents: HashMap<ContentHash, Seen>,
}

impl Index {
    /// Reads the whole log once. An entry that cannot be decoded is not an import that could be
    /// gone on with, and is passed over; reading it reports it.
    pub(crate) fn read(from: &impl ReadRecords) -> Result<Index> {
        let mut index = Index::default();
        for stored in entries(from)? {
            match stored {
                Ok(stored) => index.note(stored.lsn, &stored.entry),
                Err(error) if error.kind() == ErrorKind::Log => return Err(error),
                Err(_) => {}
            }
        }
        Ok(index)
    }

    pub(crate) fn seen(&self, hash: ContentHash) -> Option<&Seen> {
        self.contents.get(&hash)
    }

    pub(crate) fn entry(&mut self, hash: ContentHash) -> &mut Seen {
        self.contents.entry(hash).or_default()
    }

    fn note(&mut self, lsn: Lsn, entry: &Entry) {
        let Some(source) = &entry.source else { return };
        let seen = self.entry(source.sha256);
        match entry.kind {
            EntryKind::ImportBegin => seen.advance(source.round, None),
            EntryKind::ImportDone => seen.finish(source.round, lsn),
            _ => seen.advance(source.round, Some(source.position)),
        }
    }
}
