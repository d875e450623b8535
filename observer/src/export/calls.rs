//! Starts waiting for their ends while entries pass by.
//!
//! Invariant: an end that names a span is that span's; one that does not is that of its call id.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::ids::SessionId;
use crate::kind::CallKind;
use crate::read::StoredEntry;

type Key = (Option<SessionId>, CallKindNumber, Id);
type CallKindNumber = u8;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Id {
    Span(u64),
    Call(String),
}

/// A call that has started, with what its exporter keeps of it.
#[derive(Debug)]
pub(super) struct Open<T> {
    pub(super) kind: CallKind,
    pub(super) start: StoredEntry,
    pub(super) kept: T,
}

#[derive(Debug)]
pub(super) struct Calls<T> {
    open: BTreeMap<u64, Open<T>>,
    keys: BTreeMap<Key, u64>,
}

impl<T> Calls<T> {
    pub(super) fn new() -> Calls<T> {
        Calls { open: BTreeMap::new(), keys: BTreeMap::new() }
    }

    pub(super) fn start(&mut self, kind: CallKind, start: StoredEntry, kept: T) {
        let lsn = start.lsn.get();
        for key in keys(&start.entry, kind) {
            self.keys.insert(key, lsn);
        }
        self.open.insert(lsn, Open { kind, start, kept });
    }

    pub(super) fn end(&mut self, kind: CallKind, end: &Entry) -> Option<Open<T>> {
        let key = keys(end, kind).into_iter().next()?;
        let lsn = self.keys.get(&key).copied()?;
        let open = self.open.remove(&lsn)?;
        for key in keys(&open.start.entry, kind) {
            if self.keys.get(&key) == Some(&lsn) {
                self.keys.remove(&key);
            }
        }
        Some(open)
    }

    /// The open call of this span, of whatever kind.
    pub(super) fn of_span(
        &mut self,
        session: &Option<SessionId>,
        span: u64,
    ) -> Option<&mut Open<T>> {
        let lsn = KINDS.into_iter().find_map(|kind| {
            self.keys.get(&(session.clone(), kind.start().number(), Id::Span(span))).copied()
        })?;
        self.open.get_mut(&lsn)
    }

    /// What has no end, oldest first.
    pub(super) fn into_open(self) -> impl Iterator<Item = Open<T>> {
        self.open.into_values()
    }
}

const KINDS: [CallKind; 5] =
    [CallKind::Agent, CallKind::Llm, CallKind::Tool, CallKind::Trace, CallKind::Span];

/// The span first: where both are there, it decides.
fn keys(entry: &Entry, kind: CallKind) -> Vec<Key> {
    let key = |id| (entry.session.clone(), kind.start().number(), id);
    let span = entry.span.map(|span| key(Id::Span(span.get())));
    let call = entry.call_id.as_ref().map(|id| key(Id::Call(id.as_str().to_owned())));
    span.into_iter().chain(call).collect()
}

/// What a call is called in a picture.
pub(super) fn label(entry: &Entry, kind: CallKind) -> String {
    let name = match kind {
        CallKind::Agent => &entry.agent,
        CallKind::Llm => &entry.model,
        CallKind::Tool => &entry.tool,
        CallKind::Trace | CallKind::Span => &entry.name,
    };
    name.clone().unwrap_or_else(|| kind.start().to_string().replace("_start", ""))
}

/// How long a call took: as measured, else as the two wall clocks say, never below zero.
pub(super) fn nanos(start: &Entry, end: &Entry) -> u64 {
    let measured = end.duration.map(crate::entry::duration_nanos);
    measured.unwrap_or_else(|| u64::try_from(end.wall.0.saturating_sub(start.wall.0)).unwrap_or(0))
}
